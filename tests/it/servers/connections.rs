//! How connections are shared, and servers that close them.

use std::time::{Duration, Instant};

use wasmhost::job::{NewJob, StoreId};
use wasmhost::store::{Options, QueueShare, Replicas, Reserve, Store, new_token};

use super::{Way, ask};
use crate::support::redis::{RedisServer, random_prefix, wait_until};

/// A figure of INFO.
async fn figure(server: &RedisServer, name: &str) -> u64 {
    let mut raw = server.raw().await;
    let info: String = redis::cmd("INFO").query_async(&mut raw).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().parse().unwrap()
}

/// Calls that are under way at the same time, and how many connections they took.
async fn connections_of(pool: usize) -> u64 {
    let server = RedisServer::start();
    let store = Store::connect(StoreId(0), &Options { pool, ..server.options() }).await.unwrap();
    for _ in 0..10 {
        store.ping().await.unwrap();
    }
    assert_eq!(figure(&server, "connected_clients").await, 2, "one call after the other shares one connection");
    // Handshakes are through before the calls wait: the server is stopped between the two.
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.queues().await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    figure(&server, "connected_clients").await - 1
}

#[tokio::test]
async fn calls_at_the_same_time_share_as_many_connections_as_the_pool_has() {
    assert_eq!(connections_of(1).await, 1);
    assert_eq!(connections_of(3).await, 3);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_costs_no_call() {
    let server = RedisServer::start_with(&["--timeout", "1"]);
    let options = server.options();
    let store = Store::connect(StoreId(0), &options).await.unwrap();
    let (mut peek, mut bell) = (store.peek("q"), store.bell());
    let queues = ["q".to_owned()];
    let blink = Duration::from_millis(20);
    for _ in 0..2 {
        store.ping().await.unwrap();
        peek.wait(blink, None).await.unwrap();
        bell.wait(&queues, blink).await.unwrap();
        // All three are idle now; the one that asks is not.
        let raw = server.raw().await;
        let alone = async || {
            let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut raw.clone()).await.ok()?;
            (list.lines().count() == 1).then_some(())
        };
        wait_until("the server closes what is idle", Duration::from_secs(20), alone).await;
        // A reserve is not repeated after any failure, but after a rest.
        let reserve = Reserve {
            queues: vec![QueueShare { queue: "q".to_owned(), take: 1 }],
            limit: 1,
            lease: Duration::from_secs(1),
            token: new_token(),
            node: String::new(),
            sweep: true,
        };
        store.turn(&[], Some(&reserve)).await.unwrap();
        drop(raw);
    }
    let jobs = [NewJob::new("q", "echo", "")];
    let waiting = Some(Replicas { count: 1, timeout: Duration::from_millis(1) });
    for _ in 0..2 {
        assert_eq!(store.enqueue_with(&jobs, waiting).await.unwrap().1, 0);
        let asked = server.raw().await;
        ask::<i64>(server.url(), &["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
        drop(asked);
    }
}

/// The server closes every connection that is idle for a second; blocked ones and listeners it leaves alone.
#[tokio::test]
async fn a_server_with_a_timeout_of_one_second_is_worked_with_in_silence() {
    let server = RedisServer::start_with(&["--timeout", "1", "--appendonly", "yes"]);
    let way = Way::new(server.url(), &random_prefix());
    way.publish("echo");
    // Three queues, so that bells and peeks are idle in turn.
    let mut host = way.host(&["--queue", "default", "--queue", "one", "--queue", "two"]);
    way.runs_a_job();
    let (before, since) = (figure(&server, "total_connections_received").await, Instant::now());
    let look = async || (since.elapsed() > Duration::from_secs(5)).then_some(());
    wait_until("idle for long enough that connections were closed", Duration::from_secs(10), look).await;
    let n_new = figure(&server, "total_connections_received").await - before;
    assert!(n_new < 20, "{n_new} connections in 5 s of silence");
    way.runs_a_job();
    for queue in ["one", "two"] {
        way.cli(&["submit", "--type", "echo", "--queue", queue, "--wait"]).run().ok();
    }
    let said = host.said();
    assert!(!said.contains("ERROR") && !said.contains("\"level\":\"ERROR\""), "{said}");
    assert!(!said.contains("redis does not answer") && !said.contains("heartbeat failed"), "{said}");
    assert_eq!(host.stop(), 0);
}
