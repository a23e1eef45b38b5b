//! Nodes come, go, die and meet.

use std::time::Duration;

use redis::AsyncCommands as _;
use wasmhost::node::SWEEP_AFTER;
use wasmhost::store::node::{Beat, ComponentState, Presence};

use super::{LIMIT, Node, Plan, hash, server_seconds, wait_for_field};
use crate::support::redis::{RedisServer, keys_under, wait_until};

#[tokio::test]
async fn a_clean_stop_leaves_no_field() {
    let server = RedisServer::shared();
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let mut raw = server.raw().await;
    let key = format!("{}:healthcheck:monitoring", options.node_prefix);
    wait_for_field(&node, &mut raw, &key, "results", |text| text.is_some()).await;
    assert!(keys_under(&mut raw, &options.prefix).await.len() > 8);
    node.stop().await;
    let left = keys_under(&mut raw, &options.prefix).await;
    assert_eq!(left, [format!("{}:meta", options.prefix)]);
}

#[tokio::test]
async fn components_carry_the_node_only_while_there_are_several() {
    let server = RedisServer::shared();
    let options = server.options();
    let mut raw = server.raw().await;
    let status = format!("{}:healthcheck:status", options.node_prefix);
    let lastcheck = format!("{}:healthcheck:lastcheck", options.node_prefix);
    let one = Plan::new(&options, "one").start().await;
    wait_for_field(&one, &mut raw, &status, "disks", |value| value == Some("True")).await;

    let two = Plan::new(&options, "two").start().await;
    wait_for_field(&two, &mut raw, &status, "disks@two", |value| value == Some("True")).await;
    wait_for_field(&one, &mut raw, &status, "disks@one", |value| value == Some("True")).await;
    for key in [&status, &lastcheck] {
        let fields = hash(&mut raw, key).await;
        assert!(!fields.contains_key("disks"), "ambiguous without a name: {fields:?}");
        assert!(fields.contains_key("workers:worker_mail_one.0") && fields.contains_key("workers:worker_mail_two.0"));
    }

    two.stop().await;
    wait_for_field(&one, &mut raw, &status, "disks", |value| value == Some("True")).await;
    let fields = hash(&mut raw, &status).await;
    assert!(fields.keys().all(|field| !field.contains('@') && !field.contains("two")), "{fields:?}");
    let heartbeat = hash(&mut raw, &format!("{}:workers:heartbeat", options.node_prefix)).await;
    assert!(heartbeat.contains_key("mail"), "the queue is still served");
    one.stop().await;
}

#[tokio::test]
async fn processes_of_one_node_have_numbers_of_their_own() {
    let server = RedisServer::shared();
    let options = server.options();
    let mut raw = server.raw().await;
    let first = Plan::new(&options, "box").start().await;
    let second = Plan::new(&options, "box").start().await;
    let watchdog = format!("{}:workers:watchdog", options.node_prefix);
    let names: Vec<String> = hash(&mut raw, &watchdog).await.into_keys().collect();
    assert_eq!(names, ["worker_mail_box.0", "worker_mail_box.1"]);
    first.stop().await;
    let names: Vec<String> = hash(&mut raw, &watchdog).await.into_keys().collect();
    assert_eq!(names, ["worker_mail_box.1"]);
    let heartbeat = hash(&mut raw, &format!("{}:workers:heartbeat", options.node_prefix)).await;
    assert!(heartbeat.contains_key("mail"), "the queue is still served: {heartbeat:?}");
    let status = hash(&mut raw, &format!("{}:healthcheck:status", options.node_prefix)).await;
    assert!(status.contains_key("disks"), "the other process still reports the node: {status:?}");
    let sessions = hash(&mut raw, &format!("{}:workers:sessions", options.node_prefix)).await;
    assert!(sessions.len() == 1 && sessions.contains_key(&second.session), "{sessions:?}");
    second.stop().await;
}

/// Leaves the fields of a host behind as a killed one does: it beat once, `silence` ago.
async fn dead_host(server: &RedisServer, options: &wasmhost::store::Options, node: &str, pid: u32, silence: Duration) {
    let store = wasmhost::store::Store::connect(wasmhost::job::StoreId(0), options).await.unwrap();
    let presence = Presence {
        node: node.to_owned(),
        session: format!("1_9_{pid}_dead"),
        gid: 1,
        nid: 9,
        pid,
        app: "wasmhost".to_owned(),
        started: 1_700_000_000,
        queues: vec!["old".to_owned()],
        components: vec!["disks".to_owned()],
        roles: Vec::new(),
    };
    let components = [ComponentState { name: "disks".to_owned(), is_up: true, age: Duration::ZERO }];
    let workers = [("old".to_owned(), true)];
    let beat = Beat { presence: &presence, number: None, workers: &workers, components: &components };
    let beaten = store.beat(&beat).await.unwrap();
    let mut raw = server.raw().await;
    let member = format!("{node}/{}/{}", beaten.number, presence.session);
    let then = beaten.server_time.millis() - i64::try_from(silence.as_millis()).unwrap();
    let _: () = raw.zadd(format!("{}:nodes", options.prefix), member, then).await.unwrap();
}

async fn has_field_with(node: &Node, raw: &mut redis::aio::MultiplexedConnection, prefix: &str, part: &str) -> bool {
    node.board.nudge();
    for key in ["workers:watchdog", "workers:heartbeat", "workers:sessions", "healthcheck:status", "application"] {
        let fields = hash(raw, &format!("{prefix}:{key}")).await;
        if fields.iter().any(|(field, value)| field.contains(part) || (key == "application" && value.contains(part))) {
            return true;
        }
    }
    false
}

/// A process id that nobody has: a child that has ended and was waited for.
fn dead_pid() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

#[tokio::test]
async fn what_a_killed_process_left_goes_with_the_next_beat_of_its_node() {
    let server = RedisServer::shared();
    let options = server.options();
    let pid = dead_pid();
    dead_host(server, &options, "box", pid, Duration::from_secs(13)).await;
    let mut raw = server.raw().await;
    let node = Plan::new(&options, "box").start().await;
    for part in ["old".to_owned(), format!("_{pid}_dead"), pid.to_string()] {
        wait_until(&format!("nothing is left of {part}"), LIMIT, async || {
            let is_left = has_field_with(&node, &mut raw.clone(), &options.node_prefix, &part).await;
            (!is_left).then_some(())
        })
        .await;
    }
    let watchdog = hash(&mut raw, &format!("{}:workers:watchdog", options.node_prefix)).await;
    assert!(watchdog.contains_key("worker_mail_box.0"), "its number is free again: {watchdog:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_silent_host_of_another_node_stays_to_be_seen_until_it_is_long_dead() {
    let server = RedisServer::shared();
    let options = server.options();
    let mut raw = server.raw().await;
    let watchdog = format!("{}:workers:watchdog", options.node_prefix);
    dead_host(server, &options, "far", 4_000_001, Duration::from_secs(60)).await;
    let node = Plan::new(&options, "box").start().await;
    node.board.nudge();
    wait_for_field(&node, &mut raw, &watchdog, "worker_mail_box.0", |value| value.is_some()).await;
    assert!(hash(&mut raw, &watchdog).await.contains_key("worker_old_far.0"), "its age shows that it is gone");

    let then = (server_seconds(&mut raw).await - SWEEP_AFTER.as_secs() as i64 - 1) * 1000;
    let member = "far/0/1_9_4000001_dead";
    let _: () = raw.zadd(format!("{}:nodes", options.prefix), member, then).await.unwrap();
    wait_for_field(&node, &mut raw, &watchdog, "worker_old_far.0", |value| value.is_none()).await;
    let status = hash(&mut raw, &format!("{}:healthcheck:status", options.node_prefix)).await;
    assert!(status.keys().all(|field| !field.contains("far")), "{status:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_host_that_was_silent_too_long_gets_another_number_when_its_own_is_taken() {
    let server = RedisServer::shared();
    let options = server.options();
    let mut raw = server.raw().await;
    let first = Plan::new(&options, "box").start().await;
    // As after a long SIGSTOP: its last beat is old, and another process has come meanwhile.
    let (member, registry) = (format!("box/0/{}", first.session), format!("{}:nodes", options.prefix));
    let _: () = raw.zadd(&registry, &member, 1).await.unwrap();
    let second = Plan::new(&options, "box").start().await;
    assert_eq!(second.board.beat().number, Some(0));
    wait_until("the first has another number", LIMIT, async || {
        first.board.nudge();
        (first.board.beat().number == Some(1)).then_some(())
    })
    .await;
    let members: Vec<String> = raw.zrange(&registry, 0, -1).await.unwrap();
    assert_eq!(members.len(), 2, "{members:?}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn after_a_flush_everything_is_there_again_with_the_next_beat() {
    let server = RedisServer::start();
    let options = server.options();
    let mut raw = server.raw().await;
    let node = Plan::new(&options, "box").start().await;
    let before = keys_under(&mut raw, &options.prefix).await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    node.board.nudge();
    let missing = |found: &[String]| -> Vec<String> {
        before.iter().filter(|key| !found.contains(key) && !key.ends_with(":meta")).cloned().collect()
    };
    wait_until("the hashes are back", LIMIT, async || {
        let found = keys_under(&mut raw.clone(), &options.prefix).await;
        missing(&found).is_empty().then_some(())
    })
    .await;
    node.stop().await;
}
