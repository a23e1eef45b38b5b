//! How idle hosts learn of work: who watches a queue, whom a bell wakes, and what they do while Redis is away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wasmhost::executor::{Attempt, Executor};
use wasmhost::job::StoreId;
use wasmhost::jumpscript::{Kind, Manifest};
use wasmhost::outcome::{Outcome, Usage};
use wasmhost::ports::{PublishRule, Pulse};
use wasmhost::retry::RetryPolicy;
use wasmhost::store::{self, NewJumpscript, Store};
use wasmhost::worker::{self, Totals, Worker};

use crate::support::proxy::Proxy;
use crate::support::redis::{RedisServer, wait_until};

const LIMIT: Duration = Duration::from_secs(20);
/// Far below the sweep that would find the job without a bell, far above what a bell needs.
const SOON: Duration = Duration::from_millis(1400);

/// Ends attempts at once, or keeps them until it is told.
#[derive(Default)]
struct Desk {
    keeps: AtomicBool,
    kept: Mutex<Vec<Attempt>>,
    n_taken: AtomicUsize,
}

impl Desk {
    fn taken(&self) -> usize {
        self.n_taken.load(Ordering::SeqCst)
    }

    fn keep(&self) {
        self.keeps.store(true, Ordering::SeqCst);
    }

    fn let_go(&self) {
        self.keeps.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.kept.lock().unwrap()).into_iter().for_each(end);
    }
}

fn end(attempt: Attempt) {
    attempt.finish(Outcome::Done { result: Vec::new() }, Usage { wall_us: 5_000, ..Usage::default() });
}

impl Executor for Desk {
    fn start(&self, attempt: Attempt) {
        self.n_taken.fetch_add(1, Ordering::SeqCst);
        if self.keeps.load(Ordering::SeqCst) {
            self.kept.lock().unwrap().push(attempt);
        } else {
            end(attempt);
        }
    }
}

struct Host {
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Totals>,
}

/// Hosts on one prefix, named `host-0` and so on, each with connections of its own.
struct Fleet {
    hosts: Vec<Host>,
    store: Store,
    raw: MultiplexedConnection,
    options: store::Options,
}

impl Fleet {
    async fn start(server: &RedisServer, n_hosts: usize, concurrency: usize) -> Self {
        Self::start_at(server, server.options(), n_hosts, concurrency, &["mail"]).await
    }

    async fn start_at(
        server: &RedisServer,
        options: store::Options,
        n_hosts: usize,
        concurrency: usize,
        queues: &[&str],
    ) -> Self {
        let direct = store::Options { url: server.url().to_owned(), ..options.clone() };
        let store = Store::connect(StoreId(0), &direct).await.unwrap();
        publish(&store).await;
        let mut hosts = Vec::new();
        for n in 0..n_hosts {
            let store = Store::connect(StoreId(0), &options).await.unwrap();
            let desk = Arc::new(Desk::default());
            let worker_options = worker::Options {
                queues: queues.iter().map(|queue| ((*queue).to_owned(), 1)).collect(),
                is_strict: false,
                concurrency,
                lease: Duration::from_secs(30),
                heartbeat: Duration::from_secs(10),
                grace: Duration::from_secs(10),
                node: format!("host-{n}"),
                done_ttl: Duration::from_secs(60),
                retry: RetryPolicy::default(),
                unknown_type_wait: Duration::from_secs(5),
            };
            let worker = Worker::new(store, desk.clone(), worker_options, Arc::new(Pulse::new()));
            let (stop, stopped) = watch::channel(false);
            hosts.push(Host { desk, stop, running: tokio::spawn(worker.run(stopped)) });
        }
        Self { hosts, store, raw: server.raw().await, options }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.options.prefix)
    }

    /// What a producer does that knows nothing of us.
    async fn push(&mut self, queue: &str, ids: impl IntoIterator<Item = String>) {
        let mut pipeline = redis::pipe();
        for id in ids {
            pipeline.hset_multiple(
                self.key(&format!("job:{id}")),
                &[("type", "noop"), ("queue", queue), ("payload", ""), ("status", "ready"), ("created_at_nano", "1")],
            );
            pipeline.rpush(self.key(&format!("queue:{queue}:ready")), &id);
        }
        pipeline.query_async::<()>(&mut self.raw).await.unwrap();
    }

    async fn push_one(&mut self, id: &str) {
        self.push("mail", [id.to_owned()]).await;
    }

    async fn is_done(&mut self, id: &str) -> bool {
        let key = self.key(&format!("job:{id}"));
        let status: Option<String> =
            redis::cmd("HGET").arg(key).arg("status").query_async(&mut self.raw).await.unwrap();
        status.as_deref() == Some("done")
    }

    async fn done(&mut self, id: &str) {
        let started = Instant::now();
        while !self.is_done(id).await {
            assert!(started.elapsed() < LIMIT, "job {id} is not done after {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The number of the host that watches `mail`.
    async fn watcher(&self) -> Option<usize> {
        let mut raw = self.raw.clone();
        let lease: Option<String> =
            redis::cmd("HGET").arg(self.key("watchers")).arg("mail").query_async(&mut raw).await.unwrap();
        lease?.rsplit_once("@host-")?.1.parse().ok()
    }

    async fn watched_by(&self, what: &str, limit: Duration, is_it: impl Fn(usize) -> bool) -> usize {
        wait_until(what, limit, async || self.watcher().await.filter(|n| is_it(*n))).await
    }

    /// Waits until one host is blocked on the list and all others at the bell.
    async fn idle(&self) {
        let n_hosts = self.hosts.len();
        let started = Instant::now();
        loop {
            let (peeks, bells) = self.blocked().await;
            if peeks == 1 && bells == n_hosts - 1 {
                return;
            }
            let watcher = self.watcher().await;
            assert!(
                started.elapsed() < LIMIT,
                "{n_hosts} hosts, {peeks} peek, {bells} at the bell, {watcher:?} watches"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Connections blocked on lists of jobs, and at bells.
    async fn blocked(&self) -> (usize, usize) {
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut self.raw.clone()).await.unwrap();
        let blocked =
            |command| list.lines().filter(|line| line.contains(" flags=b ") && line.contains(command)).count();
        (blocked("cmd=blmove"), blocked("cmd=blpop"))
    }

    fn taken(&self) -> Vec<usize> {
        self.hosts.iter().map(|host| host.desk.taken()).collect()
    }

    async fn stop(self) {
        for host in &self.hosts {
            host.desk.let_go();
            host.stop.send_replace(true);
        }
        for host in self.hosts {
            // One that was killed has nothing to say.
            let _ended = host.running.await;
        }
    }
}

async fn publish(store: &Store) {
    let script = NewJumpscript { name: "noop".parse().unwrap(), kind: Kind::Component, manifest: Manifest::default() };
    store.publish(&script, b"never run", PublishRule::Always).await.unwrap();
}

/// A command that a server received, not from a script, and which is not the sweep that a host makes by the clock.
fn counts(line: &str) -> bool {
    let is_sweep = line.contains("\"EVALSHA\"") && line.contains("@host-") && line.trim_end().ends_with("\" \"1\"");
    !line.contains(" lua] ") && !is_sweep
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_twenty_idle_hosts_costs_three_commands() {
    let server = RedisServer::start();
    let mut fleet = Fleet::start(&server, 20, 8).await;
    fleet.idle().await;
    for round in 0..3 {
        let client = redis::Client::open(server.url()).unwrap();
        let mut monitor = client.get_async_monitor().await.unwrap().into_on_message::<String>();
        let id = format!("j{round}");
        fleet.push_one(&id).await;
        fleet.done(&id).await;
        fleet.idle().await;
        let _: String = redis::cmd("ECHO").arg("over").query_async(&mut fleet.raw).await.unwrap();
        let mut received = Vec::new();
        while let Some(line) = monitor.next().await {
            if line.contains("\"ECHO\"") {
                break;
            }
            // What this test sends itself.
            let is_ours = ["\"HSET\"", "\"RPUSH\"", "\"HGET\"", "\"CLIENT\"", "\"HMSET\""];
            if counts(&line) && !is_ours.iter().any(|word| line.contains(word)) {
                received.push(line.chars().take(160).collect::<String>());
            }
        }
        assert!(received.len() <= 3, "{} commands:\n{}", received.len(), received.join("\n"));
        assert!(received.iter().any(|line| line.contains("\"BLMOVE\"")), "{received:?}");
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_taken_though_the_watcher_was_killed() {
    let server = RedisServer::start();
    let mut fleet = Fleet::start(&server, 3, 8).await;
    fleet.idle().await;
    let watcher = fleet.watched_by("a watcher", LIMIT, |_| true).await;
    fleet.hosts[watcher].running.abort();
    // Until the server has seen its connection end, a push would still be handed to it, and wait for its lease.
    wait_until("the watcher to be gone", LIMIT, async || {
        (fleet.blocked().await.0 == 0 || fleet.watcher().await != Some(watcher)).then_some(())
    })
    .await;
    fleet.push_one("after").await;
    fleet.done("after").await;
    assert_eq!(fleet.taken()[watcher], 0);
    fleet.watched_by("another watcher", LIMIT, |n| n != watcher).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_without_room_hands_over_at_once() {
    let server = RedisServer::start();
    let mut fleet = Fleet::start(&server, 3, 2).await;
    fleet.idle().await;
    let first = fleet.watched_by("a watcher", LIMIT, |_| true).await;
    fleet.hosts.iter().for_each(|host| host.desk.keep());
    fleet.push("mail", ["a".to_owned(), "b".to_owned()]).await;
    let second = fleet.watched_by("another watcher", SOON, |n| n != first).await;
    fleet.push_one("c").await;
    wait_until("the second watcher to take the job", SOON, async || {
        (fleet.hosts[second].desk.taken() == 1).then_some(())
    })
    .await;
    assert_eq!(fleet.hosts[first].desk.taken(), 2);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_stops_leaves_the_watch_to_another_host() {
    let server = RedisServer::start();
    let mut fleet = Fleet::start(&server, 2, 8).await;
    fleet.idle().await;
    let first = fleet.watched_by("a watcher", LIMIT, |_| true).await;
    fleet.hosts[first].stop.send_replace(true);
    fleet.watched_by("the other host as watcher", SOON, |n| n != first).await;
    fleet.push_one("after").await;
    fleet.done("after").await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_wakes_one_host_after_the_other() {
    let server = RedisServer::start();
    let mut fleet = Fleet::start(&server, 8, 4).await;
    fleet.idle().await;
    fleet.hosts.iter().for_each(|host| host.desk.keep());
    fleet.push("mail", (0..2000).map(|n| format!("j{n}"))).await;
    wait_until("every slot of eight hosts to be taken", SOON, async || {
        fleet.taken().iter().all(|n| *n == 4).then_some(())
    })
    .await;
    fleet.hosts.iter().for_each(|host| host.desk.let_go());
    wait_until("the rest to be run", LIMIT, async || (fleet.taken().iter().sum::<usize>() == 2000).then_some(())).await;
    let taken = fleet.taken();
    assert!(taken.iter().filter(|n| **n >= 20).count() >= 4, "jobs per host: {taken:?}");
    fleet.stop().await;
}

/// Three queues, four slots, and long jobs in one of them: no slot is kept for a queue that has nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_queue_keeps_no_slot_from_a_busy_one() {
    let server = RedisServer::start();
    let mut fleet = Fleet::start_at(&server, server.options(), 1, 4, &["mail", "b", "c"]).await;
    wait_until("three peeks", LIMIT, async || (fleet.blocked().await.0 == 3).then_some(())).await;
    fleet.hosts[0].desk.keep();
    for n in 0..4 {
        fleet.push_one(&format!("j{n}")).await;
        wait_until("the job to be taken", SOON, async || (fleet.taken()[0] > n).then_some(())).await;
    }
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_survive_what_happens_to_a_server() {
    let server = RedisServer::start();
    let options = store::Options { command_timeout: Duration::from_millis(500), ..server.options() };
    let mut fleet = Fleet::start_at(&server, options, 2, 8, &["mail"]).await;
    fleet.idle().await;
    for (n, words) in [
        &["SCRIPT", "FLUSH"][..],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["CLIENT", "KILL", "TYPE", "pubsub"],
        &["FLUSHALL"],
    ]
    .into_iter()
    .enumerate()
    {
        redis::cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut fleet.raw).await.unwrap();
        publish(&fleet.store).await;
        let id = format!("k{n}");
        fleet.push_one(&id).await;
        fleet.done(&id).await;
        fleet.idle().await;
    }
    server.freeze();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.thaw();
    fleet.push_one("thawed").await;
    fleet.done("thawed").await;
    server.kill();
    server.restart();
    fleet.raw = server.raw().await;
    publish(&Store::connect(StoreId(0), &fleet.options).await.unwrap()).await;
    fleet.push_one("restarted").await;
    fleet.done("restarted").await;
    fleet.idle().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_does_not_hammer_a_server_that_is_away() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.url()).await;
    let options = store::Options { url: proxy.url().to_owned(), ..server.options() };
    let mut fleet = Fleet::start_at(&server, options, 1, 8, &["mail", "b", "c", "d"]).await;
    wait_until("four peeks", LIMIT, async || (fleet.blocked().await.0 == 4).then_some(())).await;
    server.kill();
    let before = proxy.connections();
    // The proxy takes each connection and closes it, as a balancer without a server does.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tries = proxy.connections() - before;
    assert!((1..=40).contains(&tries), "{tries} connections in three seconds");
    server.restart();
    fleet.raw = server.raw().await;
    publish(&Store::connect(StoreId(0), &fleet.options).await.unwrap()).await;
    fleet.push_one("after").await;
    let back = Instant::now();
    fleet.done("after").await;
    assert!(back.elapsed() < Duration::from_secs(5), "at work again after {:?}", back.elapsed());
    fleet.stop().await;
}

/// The old master stays up as a replica, and the connections to it stand: its refusal is what tells the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_follows_a_failover() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::before(old.url()).await;
    let options = store::Options { url: proxy.url().to_owned(), ..old.options() };
    let mut fleet = Fleet::start_at(&old, options, 2, 8, &["mail"]).await;
    fleet.idle().await;
    let replicate = |of: u16| redis::cmd("REPLICAOF").arg("127.0.0.1").arg(of).to_owned();
    let mut replica = new.raw().await;
    replicate(old.port()).query_async::<()>(&mut replica).await.unwrap();
    fleet.push_one("before").await;
    fleet.done("before").await;
    let row = fleet.key("job:before");
    wait_until("the replica to have the job", LIMIT, async || {
        let mut replica = replica.clone();
        let status: Option<String> =
            redis::cmd("HGET").arg(&row).arg("status").query_async(&mut replica).await.ok().flatten();
        (status.as_deref() == Some("done")).then_some(())
    })
    .await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async::<()>(&mut replica).await.unwrap();
    proxy.point_at(new.url());
    replicate(new.port()).query_async::<()>(&mut fleet.raw).await.unwrap();
    fleet.raw = replica;
    fleet.push_one("after").await;
    let moved = Instant::now();
    fleet.done("after").await;
    assert!(moved.elapsed() < Duration::from_secs(5), "at work again after {:?}", moved.elapsed());
    fleet.idle().await;
    fleet.stop().await;
}
