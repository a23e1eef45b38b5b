//! A master, a replica and three Sentinels; masters that die, and replicas that lag.

use std::time::Duration;

use redis::Value;
use wasmhost::job::{JobId, JobState, NewJob, StoreId};
use wasmhost::store::{Options, Replicas, Store};

use super::{PATIENCE, Way, all_done, ask, feed};
use crate::support::redis::{RedisServer, find_program, random_prefix, wait_until};

/// A master, its replica, and those who watch them.
struct Trio {
    master: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl Trio {
    async fn start() -> Self {
        let fast = ["--repl-diskless-sync-delay", "0", "--appendonly", "yes"];
        let master = RedisServer::start_with(&fast);
        let port = master.port().to_string();
        let replica = RedisServer::start_with(&[&fast, ["--replicaof", "127.0.0.1", &port].as_slice()].concat());
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::start_sentinel()).collect();
        let linked = async || info(&replica, "master_link_status").await.filter(|state| state == "up");
        wait_until("the replica follows", PATIENCE, linked).await;
        for sentinel in &sentinels {
            let words: [&[&str]; 3] = [
                &["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "2"],
                &["SENTINEL", "SET", "main", "down-after-milliseconds", "500"],
                &["SENTINEL", "SET", "main", "failover-timeout", "2000"],
            ];
            for words in words {
                ask::<Value>(sentinel.url(), words).await.unwrap();
            }
        }
        for sentinel in &sentinels {
            let knows_all = async || {
                let others: Vec<Value> = ask(sentinel.url(), &["SENTINEL", "SENTINELS", "main"]).await.ok()?;
                let replicas: Vec<Value> = ask(sentinel.url(), &["SENTINEL", "REPLICAS", "main"]).await.ok()?;
                (others.len() == 2 && replicas.len() == 1).then_some(())
            };
            wait_until("a Sentinel knows all others", PATIENCE, knows_all).await;
        }
        Self { master, replica, sentinels }
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    fn way(&self) -> Way {
        Way::new(&self.url(), &random_prefix())
    }

    async fn store(&self, way: &Way) -> Store {
        let options = Options { url: way.url.clone(), prefix: way.prefix.clone(), ..Options::default() };
        Store::connect(StoreId(0), &options).await.unwrap()
    }

    async fn has_failed_over(&self) {
        let promoted = async || info(&self.replica, "role").await.filter(|role| role == "master");
        wait_until("the replica is promoted", PATIENCE, promoted).await;
    }
}

/// A line of a server's INFO.
async fn info(server: &RedisServer, name: &str) -> Option<String> {
    let text: String = ask(server.url(), &["INFO"]).await.ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
}

#[tokio::test]
async fn jobs_go_on_with_the_new_master_when_the_old_one_dies_and_a_sentinel_hangs() {
    let trio = Trio::start().await;
    let way = trio.way();
    way.publish("echo");
    let mut host = way.host(&["--lease", "2s"]);
    way.runs_a_job();
    let said = way.cli(&["doctor"]).run().stdout;
    let master = format!("master `127.0.0.1:{}` of service `main`", trio.master.port());
    assert!(said.contains(&master) && said.contains("master with 1 replicas"), "{said}");
    let store = trio.store(&way).await;
    let mut ids = feed(&store, 0, 20).await;
    // What was accepted without a wait is lost in the window; that it is there is shown by the test below.
    replicated(&store).await;
    // One Sentinel hangs: it is connected to, and never answers.
    trio.sentinels[0].freeze();
    trio.master.kill();
    ids.extend(feed(&store, 20, 20).await);
    all_done(&store, &ids).await;
    trio.has_failed_over().await;
    // It was idle, and wakes up by its blocked peek.
    way.runs_a_job();
    // The old master comes back and takes itself for one, until the Sentinels tell it: nobody works on it.
    trio.master.restart();
    way.runs_a_job();
    assert!(host.said().contains("redis answers again"));
    assert_eq!(host.stop(), 0);
}

/// One Sentinel was cut off when the others chose another master, and still names the old one, which still answers.
#[tokio::test]
async fn the_master_is_the_one_that_most_sentinels_name() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let sentinels: Vec<_> = (0..3).map(|_| RedisServer::start_sentinel()).collect();
    for (sentinel, master) in sentinels.iter().zip([&old, &new, &new]) {
        let port = master.port().to_string();
        ask::<Value>(sentinel.url(), &["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "2"]).await.unwrap();
    }
    let hosts: Vec<String> = sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
    let url = format!("redis+sentinel://{}/main", hosts.join(","));
    for _ in 0..20 {
        let options = Options { url: url.clone(), prefix: random_prefix(), ..Options::default() };
        let store = Store::connect(StoreId(0), &options).await.unwrap();
        assert_eq!(store.setup().server, Some(format!("127.0.0.1:{}", new.port())));
    }
}

/// Waits until a replica has everything that was written until now.
async fn replicated(store: &Store) {
    let mark = NewJob::new("mark", "echo", "");
    let replicas = Replicas { count: 1, timeout: Duration::from_secs(10) };
    assert_eq!(store.enqueue_with(&[mark], Some(replicas)).await.unwrap().1, 1);
}

#[tokio::test]
async fn nothing_is_lost_that_was_accepted_with_wait_replicas_although_the_replica_lags() {
    let trio = Trio::start().await;
    let way = trio.way();
    let store = trio.store(&way).await;
    let patient = Some(Replicas { count: 1, timeout: Duration::from_millis(50) });
    let (mut accepted, mut n_late) = (Vec::new(), 0);
    for n in 0..45 {
        // The replica stands still during a third of the jobs, and still does when the master dies.
        match n % 15 {
            10 => trio.replica.freeze(),
            0 => trio.replica.thaw(),
            _ => {}
        }
        let job = NewJob {
            id: Some(JobId::from(format!("job-{n}").as_str())),
            ..NewJob::new("default", "echo", n.to_string())
        };
        let (_, n_replicas) = store.enqueue_with(std::slice::from_ref(&job), patient).await.unwrap();
        if n_replicas >= 1 { accepted.push(job.id.unwrap()) } else { n_late += 1 }
    }
    assert!(accepted.len() >= 20 && n_late >= 10, "{} accepted, {n_late} late", accepted.len());
    trio.master.kill();
    trio.replica.thaw();
    trio.has_failed_over().await;
    let answers = async || store.ping().await.ok();
    wait_until("the Sentinels name the new master", PATIENCE, answers).await;
    way.publish("echo");
    let host = way.host(&[]);
    all_done(&store, &accepted).await;
    for id in &accepted {
        assert_eq!(store.job(id).await.unwrap().unwrap().state(), Some(JobState::Done));
    }
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_submit_that_too_few_replicas_have_says_so_and_may_be_repeated() {
    let master = RedisServer::start();
    let port = master.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
    let linked = async || info(&replica, "master_link_status").await.filter(|state| state == "up");
    wait_until("the replica follows", PATIENCE, linked).await;
    let way = Way::new(master.url(), &random_prefix());
    let submit = |timeout: &str, n: &str| {
        let common = ["submit", "--type", "echo", "--idempotency-key", "one"];
        way.cli(&[&common, ["--wait-replicas", n, "--wait-replicas-timeout", timeout].as_slice()].concat()).run()
    };
    replica.freeze();
    let said = submit("200ms", "1").fails(1);
    assert!(said.contains("is enqueued, but not replicated: 0 of 1 replicas had it after 200ms"), "{said}");
    assert!(said.contains("--idempotency-key"), "{said}");
    let again = submit("200ms", "1").fails(1);
    assert_eq!(said, again, "the same job, and the replica still has not got it");
    replica.thaw();
    let id = submit("10s", "1").ok();
    assert!(said.contains(id.trim()), "{said}: {id}");
    assert!(submit("100ms", "3").fails(1).contains("1 of 3 replicas"));
    assert!(way.cli(&["submit", "--type", "x", "--wait-replicas", "0"]).run().fails(2).contains("1..=100"));
}

#[tokio::test]
async fn too_few_replicas_at_the_master_are_an_outage_and_nothing_is_half_written() {
    let master = RedisServer::start_with(&["--min-replicas-to-write", "1", "--min-replicas-max-lag", "10"]);
    let port = master.port().to_string();
    let follow = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
    let replica = RedisServer::start_with(&follow);
    let linked = async || info(&master, "min_slaves_good_slaves").await.filter(|n| n == "1");
    wait_until("the master counts its replica", PATIENCE, linked).await;
    let way = Way::new(master.url(), &random_prefix());
    way.publish("echo");
    let mut host = way.host(&[]);
    way.runs_a_job();
    replica.kill();
    let gone = async || info(&master, "min_slaves_good_slaves").await.filter(|n| n == "0");
    wait_until("the master misses its replica", PATIENCE, gone).await;
    let said = way.cli(&["submit", "--type", "echo", "--idempotency-key", "k"]).run().fails(75);
    assert!(said.contains("NOREPLICAS"), "{said}");
    host.wait_for_line("heartbeat failed");
    replica.restart();
    host.wait_for_line("heartbeat is back");
    way.runs_a_job();
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn sentinels_may_ask_for_a_password_and_say_what_they_do_not_know() {
    let program = find_program(&["redis-server", "valkey-server"]).unwrap();
    let sentinel = RedisServer::start_program(program, true, &["--requirepass", "s3cret"]);
    let master = RedisServer::start();
    let at = format!("redis://:s3cret@127.0.0.1:{}", sentinel.port());
    let port = master.port().to_string();
    ask::<Value>(&at, &["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "1"]).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "s3cret").unwrap();
    let way = |service: &str| Way::new(&format!("redis+sentinel://127.0.0.1:{}/{service}", sentinel.port()), "p");
    let file = file.display().to_string();
    let with = |service: &str| way(service).with("WASMHOST_REDIS_SENTINEL_PASSWORD_FILE", file.clone());
    with("main").cli(&["queues", "ls"]).run().ok();
    let said = way("main").cli(&["queues", "ls"]).run().fails(75);
    assert!(said.contains("NOAUTH") && said.contains("main of Sentinels 127.0.0.1:"), "{said}");
    let said = with("other").cli(&["queues", "ls"]).run().fails(75);
    assert!(said.contains("knows no service `other`"), "{said}");
    // A Sentinel is no Redis, and a Redis no Sentinel.
    let said = Way::new(&at, "p").cli(&["queues", "ls"]).run().fails(2);
    assert!(said.contains("a Sentinel answers there") && said.contains("redis+sentinel://"), "{said}");
    let said = Way::new(&format!("redis+sentinel://127.0.0.1:{port}/main"), "p").cli(&["queues", "ls"]).run();
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("unknown command"), "{}", said.stderr);
}
