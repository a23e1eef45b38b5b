//! A Redis Cluster of real nodes: a prefix with a hash tag, nodes that do not own its slot, slots that move, and a node
//! that dies.

use redis::Value;
use wasmhost::job::{NewJob, StoreId};
use wasmhost::store::{Error, Options, Store};

use super::{PATIENCE, Way, all_done, ask, feed};
use crate::support::redis::{RedisServer, random_prefix, wait_until};

/// Three masters with a third of the slots each.
struct Cluster {
    nodes: Vec<RedisServer>,
}

const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

impl Cluster {
    async fn start() -> Self {
        let nodes: Vec<_> = SLOTS.iter().map(|_| start_node()).collect();
        for (node, (first, last)) in nodes.iter().zip(SLOTS) {
            let slots = [first.to_string(), last.to_string()];
            ask::<Value>(node.url(), &["CLUSTER", "ADDSLOTSRANGE", &slots[0], &slots[1]]).await.unwrap();
        }
        let cluster = Self { nodes };
        for (n, node) in cluster.nodes.iter().enumerate() {
            let epoch = (n + 1).to_string();
            ask::<Value>(node.url(), &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await.unwrap();
            cluster.meet(node).await;
        }
        cluster.is_whole(3).await;
        cluster
    }

    /// Introduces a node to the first one.
    async fn meet(&self, node: &RedisServer) {
        let (first, bus) = (&self.nodes[0], config(&self.nodes[0], "cluster-port").await);
        if first.port() != node.port() {
            let port = first.port().to_string();
            ask::<Value>(node.url(), &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await.unwrap();
        }
    }

    /// Waits until every node knows all others and serves.
    async fn is_whole(&self, n_nodes: usize) {
        for node in &self.nodes {
            let is_well = async || {
                let text: String = ask(node.url(), &["CLUSTER", "INFO"]).await.ok()?;
                let known = format!("cluster_known_nodes:{n_nodes}\r");
                (text.contains("cluster_state:ok") && text.contains(&known)).then_some(())
            };
            wait_until("the Cluster is whole", PATIENCE, is_well).await;
        }
    }

    /// A prefix with a hash tag, its slot, and the places of its owner and of another node.
    async fn prefix(&self) -> (String, u16, usize, usize) {
        let prefix = format!("{{{}}}", random_prefix());
        let slot: u16 = ask(self.nodes[0].url(), &["CLUSTER", "KEYSLOT", &prefix]).await.unwrap();
        let owner = SLOTS.iter().position(|(first, last)| (*first..=*last).contains(&slot)).unwrap();
        (prefix, slot, owner, (owner + 1) % 3)
    }

    /// Moves a slot with all its keys, as `redis-cli --cluster reshard` does.
    async fn migrate(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let (source, target) = (id(from).await, id(to).await);
        let (slot, port) = (slot.to_string(), to.port().to_string());
        ask::<Value>(to.url(), &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await.unwrap();
        ask::<Value>(from.url(), &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await.unwrap();
        loop {
            let keys: Vec<String> = ask(from.url(), &["CLUSTER", "GETKEYSINSLOT", &slot, "50"]).await.unwrap();
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            ask::<Value>(from.url(), &words).await.unwrap();
        }
        for node in [to, from] {
            ask::<Value>(node.url(), &["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await.unwrap();
        }
    }
}

fn start_node() -> RedisServer {
    RedisServer::start_with(&[
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        "{bus}",
        "--cluster-node-timeout",
        "1000",
        "--appendonly",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
    ])
}

async fn id(node: &RedisServer) -> String {
    ask(node.url(), &["CLUSTER", "MYID"]).await.unwrap()
}

async fn config(node: &RedisServer, name: &str) -> String {
    let found: Vec<String> = ask(node.url(), &["CONFIG", "GET", name]).await.unwrap();
    found[1].clone()
}

async fn store(url: &str, prefix: &str) -> Store {
    let options = Options { url: url.to_owned(), prefix: prefix.to_owned(), ..Options::default() };
    Store::connect(StoreId(0), &options).await.unwrap()
}

#[tokio::test]
async fn everything_runs_from_a_node_that_does_not_own_the_slot_and_follows_the_slot_when_it_moves() {
    let cluster = Cluster::start().await;
    let (prefix, slot, owner, other) = cluster.prefix().await;
    // One host is told of a Cluster, with a dead node first; the other one finds out by itself.
    let way = Way::new(cluster.nodes[other].url(), &prefix);
    let seeds = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", cluster.nodes[other].port());
    way.publish("echo");
    let host = way.host(&["--lease", "2s"]);
    let second = Way::new(&seeds, &prefix).host(&["--lease", "2s", "--queue", "default", "--queue", "other"]);
    way.runs_a_job();
    // What people do with queues and jobs: every script has its keys in one slot, or the node would refuse it.
    let commands: [&[&str]; 11] = [
        &["queues", "ls"],
        &["queues", "pause", "default"],
        &["submit", "--type", "echo", "--priority", "3", "--limit-key", "a", "--supersede-key", "b"],
        &["submit", "--type", "echo", "--idempotency-key", "k", "--delay", "1h"],
        &["jobs", "ls"],
        &["queues", "set", "default", "--concurrency", "5"],
        &["queues", "show", "default"],
        &["queues", "purge", "default", "--yes"],
        &["queues", "resume", "default"],
        &["dlq", "ls"],
        &["scripts", "ls"],
    ];
    for command in commands {
        let ended = way.cli(command).run();
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    }
    let said = way.cli(&["doctor"]).run().stdout;
    let node = format!("Cluster, node `127.0.0.1:{}` owns the prefix's slot", cluster.nodes[owner].port());
    assert!(said.contains(&node) && said.contains("start a replica"), "{said}");
    for (n, node) in cluster.nodes.iter().enumerate() {
        let n_keys: i64 = ask(node.url(), &["DBSIZE"]).await.unwrap();
        assert_eq!(n_keys > 0, n == owner, "node {n} has {n_keys} keys");
    }
    let code = format!("{prefix}:workers:jumpscripts:wasm");
    assert_eq!(ask::<i64>(cluster.nodes[owner].url(), &["EXISTS", &code]).await.unwrap(), 1, "{code}");

    let store = store(&way.url, &prefix).await;
    assert!(store.is_cluster());
    let mut ids = feed(&store, 0, 30).await;
    let feeding = tokio::spawn({
        let store = store.clone();
        async move { feed(&store, 30, 60).await }
    });
    // One that says nothing while the slot moves is led on by its first command.
    let quiet = self::store(&way.url, &prefix).await;
    cluster.migrate(slot, owner, other).await;
    let job = NewJob::new("default", "echo", "first");
    ids.push(quiet.enqueue(&[job]).await.expect("the new owner takes it").remove(0).id);
    ids.extend(feeding.await.unwrap());
    all_done(&store, &ids).await;
    way.runs_a_job();
    assert_eq!(ask::<i64>(cluster.nodes[owner].url(), &["DBSIZE"]).await.unwrap(), 0);
    assert_eq!((host.stop(), second.stop()), (0, 0));
}

#[tokio::test]
async fn a_replica_takes_over_when_the_owner_of_the_slot_dies() {
    let mut cluster = Cluster::start().await;
    let (prefix, _, owner, other) = cluster.prefix().await;
    let replica = start_node();
    cluster.meet(&replica).await;
    cluster.nodes.push(replica);
    cluster.is_whole(4).await;
    let replica = &cluster.nodes[3];
    let master = id(&cluster.nodes[owner]).await;
    let follows = async || ask::<Value>(replica.url(), &["CLUSTER", "REPLICATE", &master]).await.ok();
    wait_until("the replica knows its master", PATIENCE, follows).await;
    let linked = async || {
        let text: String = ask(replica.url(), &["INFO", "replication"]).await.ok()?;
        text.contains("master_link_status:up").then_some(())
    };
    wait_until("the replica follows", PATIENCE, linked).await;
    let way = Way::new(cluster.nodes[other].url(), &prefix);
    way.publish("echo");
    let host = way.host(&["--lease", "2s"]);
    way.runs_a_job();
    let store = store(&way.url, &prefix).await;
    let mut ids = feed(&store, 0, 20).await;
    all_done(&store, &ids).await;
    cluster.nodes[owner].kill();
    ids = feed(&store, 20, 20).await;
    all_done(&store, &ids).await;
    way.runs_a_job();
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_prefix_without_a_hash_tag_is_refused_with_the_one_to_take() {
    let node = start_node();
    ask::<Value>(node.url(), &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.unwrap();
    let serves = async || {
        let text: String = ask(node.url(), &["CLUSTER", "INFO"]).await.ok()?;
        text.contains("cluster_state:ok").then_some(())
    };
    wait_until("the only node serves", PATIENCE, serves).await;
    let said = Way::new(node.url(), "mine").cli(&["queues", "ls"]).run().fails(2);
    assert!(said.contains("is a Cluster") && said.contains("--prefix '{mine}'"), "{said}");
    let way = Way::new(node.url(), "{mine}");
    way.cli(&["queues", "ls"]).run().ok();
    let said = way.cli(&["queues", "ls", "--node-prefix", "other"]).run().fails(2);
    assert!(said.contains("hash tag of prefix `{mine}`"), "{said}");
    way.cli(&["queues", "ls", "--node-prefix", "{mine}-node"]).run().ok();
    // A server alone has no slots.
    let alone = RedisServer::start();
    let url = alone.url().replace("redis://", "redis+cluster://");
    let options = Options { url, prefix: "{p}".to_owned(), ..Options::default() };
    let error = Store::connect(StoreId(0), &options).await.unwrap_err();
    assert!(matches!(error, Error::Server { .. }) && error.to_string().contains("cluster"), "{error}");
}

#[tokio::test]
async fn the_cluster_of_the_page_is_made_and_found() {
    let mut commands = super::block("docs/redis.md", "## Cluster");
    let nodes: Vec<_> = SLOTS.iter().map(|_| start_node()).collect();
    for (n, node) in nodes.iter().enumerate() {
        commands = commands.replace(&format!("10.0.0.{}:6379", n + 1), &format!("127.0.0.1:{}", node.port()));
    }
    let (create, run) = commands.split_once('\n').unwrap();
    super::shell(create, std::path::Path::new("/"));
    let cluster = Cluster { nodes };
    cluster.is_whole(3).await;
    let words: Vec<&str> = run.split_whitespace().collect();
    assert_eq!(words[..3], ["wasmhost", "run", "--redis"], "{run}");
    let way = Way::new(words[3], words[5].trim_matches('\''));
    way.publish("echo");
    let host = way.host(&[]);
    way.runs_a_job();
    assert_eq!(host.stop(), 0);
}
