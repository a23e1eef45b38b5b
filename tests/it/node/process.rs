//! The built program: what its node leaves behind, and that it takes a changed configuration.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::hash;
use crate::support::redis::{RedisServer, keys_under, random_prefix, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// `wasmhost run` with an environment of its own. Killed when dropped.
struct HostProcess {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Value>,
}

impl HostProcess {
    fn start(server: &RedisServer, prefix: &str, data: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wasmhost"))
            .args(["run", "--redis", server.url(), "--prefix", prefix, "--node-prefix", prefix, "--node", "box"])
            .args(["--concurrency", "2", "--data"])
            .arg(data)
            .args(more)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (to, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        let mut host = Self { child, lines, seen: Vec::new() };
        host.wait_for("host ready");
        host
    }

    /// Waits for a log line with this message. Lines are JSON, because stderr is not a terminal.
    fn wait_for(&mut self, message: &str) -> Value {
        let started = Instant::now();
        loop {
            let line = self.lines.recv_timeout(LIMIT.saturating_sub(started.elapsed()));
            let line = line.unwrap_or_else(|_| panic!("no line `{message}` came: {:#?}", self.seen));
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            self.seen.push(line.clone());
            if line["message"] == message {
                return line;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_host_keeps_the_hashes_and_leaves_none_of_its_fields_on_sigterm() {
    let server = RedisServer::shared();
    let (prefix, dir) = (random_prefix(), tempfile::tempdir().unwrap());
    let mut host = HostProcess::start(server, &prefix, dir.path(), &["--queue", "mail=3", "--queue", "default"]);
    let mut raw = server.raw().await;
    wait_until("the host is in the hashes", LIMIT, async || {
        let status = hash(&mut raw.clone(), &format!("{prefix}:healthcheck:status")).await;
        (status.contains_key("disks") && status.contains_key("loops")).then_some(())
    })
    .await;
    let watchdog = hash(&mut raw, &format!("{prefix}:workers:watchdog")).await;
    assert_eq!(watchdog.into_keys().collect::<Vec<_>>(), ["worker_default_box.0", "worker_mail_box.0"]);
    let sessions = hash(&mut raw, &format!("{prefix}:workers:sessions")).await;
    assert!(sessions.values().any(|record| record.contains(&host.child.id().to_string())), "{sessions:?}");

    host.signal(rustix::process::Signal::TERM);
    host.wait_for("host stopped");
    assert!(host.child.wait().unwrap().success());
    let of_node = |key: &String| {
        ["watchdog", "heartbeat", "sessions", "application", "healthcheck", "nodes"]
            .iter()
            .any(|part| key.contains(part))
    };
    let left: Vec<String> = keys_under(&mut raw, &prefix).await.into_iter().filter(of_node).collect();
    assert_eq!(left, [] as [String; 0]);
}

#[test]
fn a_broken_configuration_at_sighup_keeps_the_old_one_and_says_why() {
    let server = RedisServer::shared();
    let (prefix, dir) = (random_prefix(), tempfile::tempdir().unwrap());
    let file = dir.path().join("wasmhost.toml");
    std::fs::write(&file, "health.disk_mib = 1\n").unwrap();
    let mut host = HostProcess::start(server, &prefix, dir.path(), &["--config", file.to_str().unwrap()]);

    std::fs::write(&file, "health.disk_mib = 'much'\n").unwrap();
    host.signal(rustix::process::Signal::HUP);
    let line = host.wait_for("configuration not reloaded, the old one stays");
    assert!(line["reason"].as_str().unwrap().contains("`health.disk_mib` is `much`"), "{line}");

    std::fs::write(&file, "health.disk_mib = 2\nconcurrency = 7\nlog.level = 'warn'\n").unwrap();
    host.signal(rustix::process::Signal::HUP);
    // The flag of the test goes before the file's `concurrency`: nothing changes there. The line comes before the new
    // level is in force, which would swallow it.
    let line = host.wait_for("configuration reloaded");
    let applied = line["applied"].as_str().unwrap();
    assert!(applied.contains("health.disk_mib") && applied.contains("log.level"), "{line}");
}

#[test]
fn a_flag_goes_before_the_environment_in_the_running_host() {
    let server = RedisServer::shared();
    let (prefix, dir) = (random_prefix(), tempfile::tempdir().unwrap());
    let host = HostProcess::start(server, &prefix, dir.path(), &["--queue", "mail"]);
    let ready = host.seen.iter().find(|line| line["message"] == "host ready").unwrap();
    assert_eq!(ready["queues"], "mail");
    assert_eq!(ready["node"], "box");
}

#[tokio::test]
async fn a_file_that_cannot_be_published_turns_the_scripts_amber_until_it_goes() {
    let server = RedisServer::shared();
    let (prefix, dir, scripts) = (random_prefix(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = scripts.path().join("broken.wasm");
    std::fs::write(&file, "not wasm").unwrap();
    let mut host = HostProcess::start(server, &prefix, dir.path(), &["--scripts", scripts.path().to_str().unwrap()]);
    loop {
        let line = host.wait_for("health check turned amber");
        if line["component"] == "scripts" {
            assert!(line["text"].as_str().unwrap().contains("broken.wasm"), "{line}");
            break;
        }
    }
    std::fs::remove_file(&file).unwrap();
    loop {
        if host.wait_for("health check turned green")["component"] == "scripts" {
            break;
        }
    }
}
