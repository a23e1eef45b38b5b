//! `wasmhost doctor`: the built program, its words and its exit code.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use super::faults::SmallDisk;
use crate::support::redis::{RedisServer, random_prefix};

/// The program with an empty environment and a data folder of its own.
fn doctor(arguments: &[&str], environment: &[(&str, &str)], data: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wasmhost"))
        .arg("doctor")
        .args(arguments)
        .arg("--data")
        .arg(data)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn finding<'a>(report: &'a Value, name: &str, state: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["name"] == name && finding["state"] == state)
        .unwrap_or_else(|| panic!("no finding {name} {state}: {report:#}"))
}

#[tokio::test]
async fn a_healthy_machine_exits_0_with_every_setting_and_its_origin() {
    let server = RedisServer::shared();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wasmhost.toml");
    let prefix = random_prefix();
    std::fs::write(&file, format!("prefix = '{prefix}'\nconcurrency = 2\nhealth.disk_mib = 0\nhealth.memory_mib = 0"))
        .unwrap();
    let arguments = ["--redis", server.url(), "--config", file.to_str().unwrap(), "--output", "json"];
    let output = doctor(&arguments, &[("WASMHOST_LEASE", "20s")], dir.path());
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let setting = |key: &str| {
        let found = report["settings"].as_array().unwrap().iter().find(|s| s["key"] == key).unwrap();
        (found["value"].as_str().unwrap().to_owned(), found["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(setting("redis.url"), (server.url().to_owned(), "flag".to_owned()));
    assert_eq!(setting("lease"), ("20s".to_owned(), "WASMHOST_LEASE".to_owned()));
    assert_eq!(setting("concurrency"), ("2".to_owned(), file.to_str().unwrap().to_owned()));
    assert_eq!(setting("grace"), ("25s".to_owned(), "default".to_owned()));
    assert!(finding(&report, "engine", "OK")["text"].as_str().unwrap().contains("sandboxes"));
    finding(&report, "hosts", "OK");
    finding(&report, "map_count", "OK");
}

#[tokio::test]
async fn the_text_names_each_finding_with_its_remedy() {
    let server = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(&["--redis", server.url(), "--concurrency", "2"], &[], dir.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("redis.url") && text.contains(server.url()), "{text}");
    assert!(text.contains("WARNING  Redis") && text.contains("remedy: redis-cli config set appendonly yes"), "{text}");
    assert!(text.trim_end().ends_with("broken"), "{text}");
}

#[test]
fn a_redis_that_is_away_is_red_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(&["--redis", "redis://127.0.0.1:1", "--output", "json"], &[], dir.path());
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let found = finding(&report, "redis", "ERROR");
    assert!(found["text"].as_str().unwrap().contains("127.0.0.1:1"), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("--embedded"), "{found}");
}

#[tokio::test]
async fn a_wrong_password_is_red_and_no_password_is_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right-word"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong-word").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let arguments = ["--redis", server.url(), "--redis-password-file", file.to_str().unwrap(), "--output", "json"];
    let output = doctor(&arguments, &[("WASMHOST_REDIS_PASSWORD", "other-word")], dir.path());
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    finding(&report, "redis", "ERROR");
    assert!(finding(&report, "configuration", "WARNING")["text"].as_str().unwrap().contains("chmod 600"));
    let all = format!("{output:?}");
    assert!(!all.contains("wrong-word") && !all.contains("other-word") && !all.contains("right-word"), "{all}");

    std::fs::write(&file, "right-word\n").unwrap();
    let report = json(&doctor(&arguments, &[], dir.path()));
    finding(&report, "hosts", "OK");
}

#[tokio::test]
async fn an_evicting_policy_is_red_with_the_command_that_helps() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(&["--redis", server.url(), "--output", "json"], &[], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let found = finding(&report, "redis", "ERROR");
    assert!(found["text"].as_str().unwrap().contains("`allkeys-lru`"), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("noeviction"), "{found}");
}

#[tokio::test]
async fn a_hash_of_the_wrong_type_is_red_by_name() {
    let server = RedisServer::shared();
    let dir = tempfile::tempdir().unwrap();
    let prefix = random_prefix();
    let mut raw = server.raw().await;
    let key = format!("{prefix}:workers:watchdog");
    let _: () = redis::cmd("SET").arg(&key).arg("x").query_async(&mut raw).await.unwrap();
    let arguments = ["--redis", server.url(), "--prefix", &prefix, "--node-prefix", &prefix, "--output", "json"];
    let output = doctor(&arguments, &[], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert!(finding(&report, "hashes", "ERROR")["text"].as_str().unwrap().contains(&key), "{report:#}");
}

#[tokio::test]
async fn a_data_folder_that_others_can_write_to_is_red() {
    let server = RedisServer::shared();
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = doctor(&["--redis", server.url(), "--output", "json"], &[], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert!(finding(&report, "data", "ERROR")["remedy"].as_str().unwrap().contains("chmod go-w"), "{report:#}");
}

#[tokio::test]
async fn a_full_disk_is_red_with_value_and_limit() {
    let Some(disk) = SmallDisk::mount() else { return };
    disk.fill(14);
    let server = RedisServer::shared();
    let arguments = ["--redis", server.url(), "--output", "json"];
    let output = doctor(&arguments, &[("WASMHOST_HEALTH_DISK_MIB", "8")], &disk.path());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert!(finding(&report, "disks", "ERROR")["text"].as_str().unwrap().contains("limit 8 MiB"), "{report:#}");
}

#[tokio::test]
async fn a_pool_beyond_the_kernels_maps_is_red_with_the_sysctl() {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|n| n.trim().parse::<u64>().ok());
    if limit.is_none_or(|limit| limit >= 602_000) {
        eprintln!("skipped: vm.max_map_count is {limit:?}, high enough for any pool");
        return;
    }
    let server = RedisServer::shared();
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--redis", server.url(), "--output", "json"];
    let output = doctor(&arguments, &[("WASMHOST_SANDBOX_POOL", "100000")], dir.path());
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let found = finding(&report, "map_count", "ERROR");
    assert!(found["remedy"].as_str().unwrap().contains("sysctl -w vm.max_map_count=602000"), "{found}");
}

#[test]
fn no_server_program_for_a_private_redis_is_red_when_one_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(&["--embedded", "--output", "json"], &[("PATH", "/nowhere")], dir.path());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert!(finding(&report, "private Redis", "ERROR")["remedy"].as_str().unwrap().contains("install redis-server"));
}

#[test]
fn a_refused_configuration_exits_2_with_the_key_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wasmhost.toml");
    std::fs::write(&file, "laese = '30s'").unwrap();
    let output = doctor(&["--config", file.to_str().unwrap()], &[], dir.path());
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("error: unknown config key `laese`") && text.contains("hint: did you mean `lease`?"),
        "{text}"
    );
}

#[test]
fn the_settings_alone_need_no_redis() {
    let dir = tempfile::tempdir().unwrap();
    let output = doctor(&["--settings", "--redis", "redis://127.0.0.1:1"], &[], dir.path());
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("redis://127.0.0.1:1") && text.contains("lease"), "{text}");
}
