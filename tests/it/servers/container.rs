//! `examples/redis`: the options and users of the container, and servers of another make. Containers are not started
//! here; the server is, with the very options.

use std::fs;
use std::process::Command;

use super::{Way, ask, block, shell};
use crate::support::guests;
use crate::support::redis::{RedisServer, find_program, random_prefix};

fn copied() -> tempfile::TempDir {
    let (from, to) = (guests::root().join("examples/redis"), tempfile::tempdir().unwrap());
    let status =
        Command::new("cp").arg("-r").arg(from.join("acl")).arg(from.join("compose.yaml")).arg(to.path()).status();
    assert!(status.unwrap().success());
    to
}

/// The texts in quotes of a list under a key of the compose file.
fn listed(compose: &str, key: &str) -> Vec<String> {
    let (_, rest) = compose.split_once(&format!("    {key}:\n")).unwrap();
    let items =
        rest.lines().take_while(|line| line.starts_with("      ")).filter_map(|line| line.trim().strip_prefix("- \""));
    items.map(|item| item.strip_suffix('"').unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_containers_options_and_the_users_of_the_readme_make_a_server_for_jobs() {
    let folder = copied();
    let users = block("examples/redis/README.md", "## Users").replace("cd examples/redis\n", "");
    shell(&users, folder.path());
    let compose = fs::read_to_string(folder.path().join("compose.yaml")).unwrap();
    assert!(!compose.contains('\t'));
    let file = folder.path().join("users.acl").display().to_string();
    let options: Vec<String> = listed(&compose, "command")
        .iter()
        .skip(1)
        .map(|option| option.replace("/run/secrets/redis-users", &file).replace("/data", "{dir}"))
        .collect();
    assert!(options.len() > 10 && options.contains(&"--aclfile".to_owned()), "{options:?}");
    let server = RedisServer::start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());

    let check = compose.lines().find_map(|line| line.trim().strip_prefix("test: [\"CMD-SHELL\", \"")).unwrap();
    let port = format!("redis-cli -p {}", server.port());
    shell(&check.trim_end_matches("\"]").replace("redis-cli", &port), folder.path());

    let way = |role: &str| {
        let word = folder.path().join(format!("{role}.password")).display().to_string();
        let url = server.url().replace("redis://", &format!("redis://{role}@"));
        Way::new(&url, "wasmhost").with("WASMHOST_REDIS_PASSWORD_FILE", word)
    };
    way("operator").publish("echo");
    let host = way("worker").host(&[]);
    way("producer").runs_a_job();
    let said = way("operator").cli(&["doctor"]).run().stdout;
    assert!(said.contains("user `operator`") && !said.contains("append-only file is off"), "{said}");
    assert_eq!(host.stop(), 0);
    assert_eq!(ask::<String>(server.url(), &["INFO"]).await.unwrap_err().code(), Some("NOAUTH"));
}

#[test]
fn valkey_serves_as_well() {
    let Some(program) = find_program(&["valkey-server"]) else {
        println!("skipped: valkey-server is not installed");
        return;
    };
    let server = RedisServer::start_program(program, false, &["--appendonly", "yes"]);
    let way = Way::new(server.url(), &random_prefix());
    way.publish("echo");
    let host = way.host(&[]);
    way.runs_a_job();
    assert_eq!(host.stop(), 0);
}
