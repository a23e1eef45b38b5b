//! Each check is made to fail for real, and to recover.

use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::AsyncCommands as _;
use wasmhost::config::Health;
use wasmhost::node::State;

use super::{LIMIT, Node, Plan, calm, hash, wait_for_field};
use crate::support::redis::{RedisServer, wait_until};

/// A small file system of its own, mounted in a private mount namespace and reached through the process that holds it.
pub(super) struct SmallDisk {
    holder: Child,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// 16 MiB; `None` with the reason on stderr where the kernel does not allow it.
    pub(super) fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        let mut holder = Command::new("unshare")
            .args(if is_root { &["-m"][..] } else { &["-r", "-m"][..] })
            .args(["sh", "-c", "mount -t tmpfs -o size=16m none \"$0\" && echo ready && read -r _"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
        let root = PathBuf::from(format!("/proc/{}/root{}", holder.id(), dir.path().display()));
        let disk = Self { holder, root, _dir: dir };
        if line.trim() == "ready" && std::fs::write(disk.root.join("probe"), "x").is_ok() {
            return Some(disk);
        }
        eprintln!("skipped: this machine does not let the test mount a small file system (unshare -m, tmpfs)");
        None
    }

    pub(super) fn path(&self) -> PathBuf {
        self.root.clone()
    }

    pub(super) fn fill(&self, mib: usize) {
        let mut file = std::fs::File::create(self.root.join("ballast")).unwrap();
        for _ in 0..mib {
            file.write_all(&[1; 1024 * 1024]).unwrap();
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.root.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_turns_amber_then_red_and_green_when_space_is_made() {
    let Some(disk) = SmallDisk::mount() else { return };
    let server = RedisServer::shared();
    let options = server.options();
    let limits = Health { disk_bytes_min: 4 * 1024 * 1024, ..calm() };
    let node = Plan { data: disk.path(), limits, ..Plan::new(&options, "box") }.start().await;
    node.wait_for("disks", State::Ok).await;
    disk.fill(10);
    node.wait_for("disks", State::Warning).await;
    disk.fill(14);
    let text = node.wait_for("disks", State::Error).await;
    assert!(text.contains("limit 4 MiB") && (text.contains(": 1 MiB") || text.contains(": 2 MiB")), "{text}");

    let mut raw = server.raw().await;
    let status = format!("{}:healthcheck:status", options.node_prefix);
    wait_for_field(&node, &mut raw, &status, "disks", |value| value == Some("False")).await;
    let monitoring = format!("{}:healthcheck:monitoring", options.node_prefix);
    wait_for_field(&node, &mut raw, &monitoring, "errors", |text| {
        text.is_some_and(|text| text.contains("limit 4 MiB") && text.contains("errormessage"))
    })
    .await;

    disk.empty();
    node.wait_for("disks", State::Ok).await;
    wait_for_field(&node, &mut raw, &status, "disks", |value| value == Some("True")).await;
    node.stop().await;
}

#[tokio::test]
async fn a_data_folder_that_is_not_there_yet_is_judged_by_the_disk_it_will_be_on() {
    let server = RedisServer::shared();
    let options = server.options();
    let dir = tempfile::tempdir().unwrap();
    let node = Plan { data: dir.path().join("not/yet"), ..Plan::new(&options, "box") }.start().await;
    let text = node.wait_for("disks", State::Ok).await;
    assert!(text.contains(&*dir.path().to_string_lossy()), "{text}");
    node.stop().await;
}

/// The memory is really taken, and given back. The limit lies half-way and both halves are large, so that a compiler
/// that runs beside the tests does not decide the result.
#[tokio::test]
async fn memory_below_its_limit_is_red_until_it_is_given_back() {
    let server = RedisServer::shared();
    let options = server.options();
    let probe = wasmhost::node::checks::memory(&calm());
    let available = probe.entry["available"].as_u64().unwrap();
    let taken = (available / 2).min(5 * 1024 * 1024 * 1024);
    let limits = Health { memory_bytes_min: available - taken / 2, ..calm() };
    let node = Plan { limits, ..Plan::new(&options, "box") }.start().await;
    node.wait_for("memory", State::Warning).await;

    let mut ballast = vec![0_u8; usize::try_from(taken).unwrap()];
    ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let text = node.wait_for("memory", State::Error).await;
    assert!(text.contains("available memory") && text.contains("limit"), "{text}");
    assert!(std::hint::black_box(&ballast).len() > 1);
    drop(ballast);
    node.wait_for("memory", State::Warning).await;
    node.stop().await;
}

async fn stamp(raw: &mut redis::aio::MultiplexedConnection, prefix: &str) -> i64 {
    let stamp: i64 = raw.hget(format!("{prefix}:workers:watchdog"), "worker_mail_box.0").await.unwrap();
    stamp
}

#[tokio::test]
async fn a_stalled_loop_is_not_renewed_and_red_until_it_beats_again() {
    let server = RedisServer::shared();
    let options = server.options();
    let node = Plan { limits: Health { stall: Duration::from_millis(300), ..calm() }, ..Plan::new(&options, "box") };
    let node = node.start().await;
    let mut raw = server.raw().await;
    let prefix = &options.node_prefix;
    let status = format!("{prefix}:healthcheck:status");

    // Nobody beats: the loop has stalled.
    let text = node.wait_for("loops", State::Error).await;
    assert!(text.contains("`reserve` silent for") && text.contains("limit 300ms"), "{text}");
    wait_for_field(&node, &mut raw, &status, "workers:worker_mail_box.0", |value| value == Some("False")).await;
    let old = stamp(&mut raw, prefix).await;
    let reader = raw.clone();
    wait_until("the server's clock has moved on", LIMIT, async || {
        node.board.nudge();
        (super::server_seconds(&mut reader.clone()).await > old + 1).then_some(())
    })
    .await;
    assert_eq!(stamp(&mut raw, prefix).await, old, "a stalled worker looks stale");
    let monitoring = hash(&mut raw, &format!("{prefix}:healthcheck:monitoring")).await;
    assert!(monitoring["results"].contains("HALTED"), "{monitoring:?}");

    wait_until("the worker is renewed", LIMIT, async || {
        node.pulse.beat();
        node.board.nudge();
        (stamp(&mut reader.clone(), prefix).await > old).then_some(())
    })
    .await;
    wait_until("the loop is green", LIMIT, async || {
        node.pulse.beat();
        (node.check("loops")?.0 == State::Ok).then_some(())
    })
    .await;
    node.stop().await;
}

fn redis_component(server: &RedisServer) -> String {
    format!("redis:{}", server.port())
}

#[tokio::test]
async fn a_killed_redis_is_red_and_everything_is_written_when_it_is_back() {
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let component = redis_component(&server);
    node.wait_for(&component, State::Ok).await;
    server.kill();
    let text = node.wait_for(&component, State::Error).await;
    assert!(text.contains("cannot reach Redis") && text.contains(&server.port().to_string()), "{text}");
    assert!(node.check("disks").is_some_and(|(state, _)| state == State::Ok), "the other checks go on");

    server.restart();
    node.wait_for(&component, State::Ok).await;
    let mut raw = server.raw().await;
    let prefix = &options.node_prefix;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    wait_for_field(&node, &mut raw, &format!("{prefix}:healthcheck:status"), &component, |v| v == Some("True")).await;
    wait_for_field(&node, &mut raw, &format!("{prefix}:workers:watchdog"), "worker_mail_box.0", |v| v.is_some()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_frozen_redis_is_red_within_the_command_timeout_and_green_when_it_thaws() {
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    let options = wasmhost::store::Options { command_timeout: Duration::from_millis(300), ..server.options() };
    let node = Plan::new(&options, "box").start().await;
    server.freeze();
    let text = node.wait_for(&redis_component(&server), State::Error).await;
    assert!(text.contains("did not answer") || text.contains("no connection"), "{text}");
    server.thaw();
    node.wait_for(&redis_component(&server), State::Ok).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_stops_in_time_though_redis_does_not_answer() {
    let server = RedisServer::start();
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    server.freeze();
    tokio::time::timeout(Duration::from_secs(20), node.stop()).await.expect("the services end");
    server.thaw();
}

#[tokio::test]
async fn a_redis_that_runs_full_is_red_with_value_and_limit() {
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let component = redis_component(&server);
    node.wait_for(&component, State::Ok).await;
    let mut raw = server.raw().await;
    let _: () = raw.set("ballast", vec![1_u8; 30 * 1024 * 1024]).await.unwrap();
    let _: () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "32mb"]).query_async(&mut raw).await.unwrap();
    let text = node.wait_for(&component, State::Error).await;
    assert!(text.contains("limit 95% of 32 MiB"), "{text}");
    let _: () = raw.del("ballast").await.unwrap();
    node.wait_for(&component, State::Ok).await;
    node.stop().await;
}

#[tokio::test]
async fn a_policy_that_evicts_jobs_is_red_with_the_command_that_helps() {
    let server = RedisServer::start_with(&["--appendonly", "yes"]);
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let component = redis_component(&server);
    let mut raw = server.raw().await;
    let set = async |raw: &mut redis::aio::MultiplexedConnection, policy: &str| {
        let _: () = redis::cmd("CONFIG").arg(&["SET", "maxmemory-policy", policy]).query_async(raw).await.unwrap();
    };
    set(&mut raw, "allkeys-lru").await;
    let text = node.wait_for(&component, State::Error).await;
    assert!(text.contains("`allkeys-lru`"), "{text}");
    let report = node.board.report().unwrap();
    assert!(report.checks.iter().any(|check| check.remedy.contains("maxmemory-policy noeviction")));
    set(&mut raw, "noeviction").await;
    node.wait_for(&component, State::Ok).await;
    node.stop().await;
}

#[tokio::test]
async fn a_redis_that_keeps_nothing_on_disk_is_amber() {
    let server = RedisServer::start();
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let text = node.wait_for(&redis_component(&server), State::Warning).await;
    assert!(text.contains("no append-only file"), "{text}");
    node.stop().await;
}

/// Bad inputs Q30 and Q31, and their sisters: the hash is left as it is, the other hashes go on.
async fn wrong_type(node: &Node, raw: &mut redis::aio::MultiplexedConnection, prefix: &str, key: &str, other: &str) {
    let full = format!("{prefix}:{key}");
    let kind = if key.ends_with("status") { "list" } else { "string" };
    // In one step: the node writes its hash again at any moment.
    let mut pipe = redis::pipe();
    pipe.atomic().del(&full);
    if kind == "list" {
        pipe.rpush(&full, "mine")
    } else {
        pipe.set(&full, "mine")
    };
    let _: () = pipe.query_async(raw).await.unwrap();
    let text = wait_until(&format!("{key} is told"), LIMIT, async || {
        node.board.nudge();
        let (state, text) = node.check("hashes")?;
        (state == State::Error && text.contains(&full)).then_some(text)
    })
    .await;
    assert!(text.contains(&format!("is a {kind}, must be a hash")), "{text}");
    let kept: String = redis::cmd("TYPE").arg(&full).query_async(raw).await.unwrap();
    assert_eq!(kept, kind);
    let other = format!("{prefix}:{other}");
    let _: () = raw.del(&other).await.unwrap();
    let reader = raw.clone();
    wait_until("the other hashes are written", LIMIT, async || {
        node.board.nudge();
        let mut reader = reader.clone();
        reader.exists(&other).await.unwrap_or(false).then_some(())
    })
    .await;
    let _: () = raw.del(&full).await.unwrap();
    wait_until("it is green again", LIMIT, async || {
        node.board.nudge();
        (node.check("hashes")?.0 == State::Ok).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hash_that_is_a_string_turns_health_red_and_stops_nothing() {
    let server = RedisServer::shared();
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let mut raw = server.raw().await;
    let prefix = &options.node_prefix;
    for key in ["workers:watchdog", "workers:heartbeat", "workers:sessions", "application", "healthcheck:lastcheck"] {
        wrong_type(&node, &mut raw, prefix, key, "healthcheck:status").await;
    }
    wrong_type(&node, &mut raw, prefix, "healthcheck:status", "workers:watchdog").await;
    wrong_type(&node, &mut raw, prefix, "healthcheck:monitoring", "workers:watchdog").await;
    node.stop().await;
}

#[tokio::test]
async fn new_thresholds_take_effect_at_once() {
    let server = RedisServer::shared();
    let options = server.options();
    let limits = Health { interval: Duration::from_secs(100), ..calm() };
    let node = Plan { limits, ..Plan::new(&options, "box") }.start().await;
    node.wait_for("memory", State::Ok).await;
    // More than any machine has: what a person would see after raising the limit too far.
    node.limits.send_replace(Health { memory_bytes_min: u64::MAX / 2, ..limits });
    let text = node.wait_for("memory", State::Error).await;
    assert!(text.contains("limit"), "{text}");
    node.stop().await;
}
