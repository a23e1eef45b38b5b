//! The users of `examples/redis/acl`: each does its work with what its file grants, and can do nothing else.

use std::collections::BTreeSet;
use std::fs;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use wasmhost::job::JobState;

use super::{PATIENCE, Way};
use crate::support::client::Request;
use crate::support::guests;
use crate::support::redis::{RedisServer, random_prefix, wait_until};

const ROLES: [&str; 3] = ["worker", "producer", "operator"];

fn file(role: &str) -> String {
    let path = guests::root().join("examples/redis/acl").join(format!("{role}.acl"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A server with the users of the files, and one who may do everything, as a reader would put it together.
struct Guarded {
    server: RedisServer,
    prefix: String,
    _dir: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Self {
        let prefix = random_prefix();
        let dir = tempfile::tempdir().unwrap();
        let mut users = file("default");
        for role in ROLES {
            users += &file(role).replace("wasmhost", &prefix).replace("choose-a-password", &format!("{role}-word"));
        }
        users += "user admin on >admin-word ~* &* +@all\n";
        let path = dir.path().join("users.acl");
        fs::write(&path, users).unwrap();
        let server = RedisServer::start_with(&["--aclfile", &path.display().to_string(), "--appendonly", "yes"]);
        Self { server, prefix, _dir: dir }
    }

    fn way(&self, role: &str) -> Way {
        let url = self.server.url().replace("redis://", &format!("redis://{role}@"));
        Way::new(&url, &self.prefix).with("WASMHOST_REDIS_PASSWORD", format!("{role}-word"))
    }

    async fn raw(&self, role: &str) -> MultiplexedConnection {
        let url = self.server.url().replace("redis://", &format!("redis://{role}:{role}-word@"));
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// What was refused to whom: `user object`.
    async fn refused(&self) -> BTreeSet<String> {
        let mut admin = self.raw("admin").await;
        let log: Vec<Vec<Value>> = redis::cmd("ACL").arg("LOG").arg(128).query_async(&mut admin).await.unwrap();
        let text = |entry: &[Value], name: &str| {
            let pair = entry.chunks(2).find(|pair| pair[0] == Value::BulkString(name.as_bytes().to_vec())).unwrap();
            redis::from_redis_value::<String>(pair[1].clone()).unwrap()
        };
        log.iter().map(|entry| format!("{} {}", text(entry, "username"), text(entry, "object"))).collect()
    }
}

/// Runs a raw command.
async fn run(connection: &mut MultiplexedConnection, words: &[&str]) -> RedisResult<Value> {
    redis::cmd(words[0]).arg(&words[1..]).query_async(connection).await
}

#[tokio::test]
async fn each_role_does_its_work_with_what_its_file_grants() {
    let guarded = Guarded::start();
    let (worker, producer, operator) = (guarded.way("worker"), guarded.way("producer"), guarded.way("operator"));
    operator.publish("echo");
    let scripts = tempfile::tempdir().unwrap();
    fs::copy(guests::path("end"), scripts.path().join("end.wasm")).unwrap();
    let folder = scripts.path().display().to_string();
    let served = ["--queue", "default", "--queue", "mail", "--lease", "1s"];
    let mut host = worker.host(&[&["--scripts", &folder, "--http", "127.0.0.1:0"], served.as_slice()].concat());
    // Of two hosts one watches a queue's list, the other one waits at its bell.
    let second = worker.host(&served);

    producer.runs_a_job();
    let submits: [&[&str]; 4] = [
        &["--priority", "7", "--limit-key", "a", "--metadata", "a=b"],
        &["--idempotency-key", "once", "--timeout", "5s", "--queue", "mail"],
        &["--supersede-key", "latest", "--delay", "1h"],
        &["--supersede-key", "latest", "--delay", "1h"],
    ];
    for more in submits {
        producer.cli(&[&["submit", "--type", "echo"], more].concat()).run().ok();
    }
    // The folder's jumpscript ends as its payload says: this one is rejected, and so in the DLQ.
    let failed = producer.cli(&["submit", "--type", "end", "--payload", "reject", "--wait"]).run();
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let parked = producer.cli(&["submit", "--type", "echo", "--queue", "unserved", "--limit-key", "a"]).run().ok();
    let commands: [&[&str]; 19] = [
        &["jobs", "show", parked.trim()],
        &["queues", "ls"],
        &["queues", "show", "default"],
        &["queues", "pause", "mail"],
        &["queues", "resume", "mail"],
        &["queues", "set", "mail", "--concurrency", "3"],
        &["jobs", "ls"],
        &["jobs", "ls", "--state", "scheduled"],
        &["dlq", "ls"],
        &["dlq", "export", "--queue", "default"],
        &["dlq", "requeue", "--queue", "default", "--all"],
        &["dlq", "drop", "--queue", "default", "--all"],
        &["queues", "purge", "default", "--state", "scheduled", "--yes"],
        &["scripts", "ls"],
        &["submit", "--type", "echo", "--wait"],
        &["doctor"],
        &["doctor", "--jobs", "--grace", "0s"],
        &["doctor", "--fix", "--yes", "--grace", "0s"],
        &["queues", "ls", "--output", "json"],
    ];
    for command in commands {
        let ended = operator.cli(command).run();
        assert!(ended.code <= 1, "{command:?}: {}{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.contains("does not let user"), "{command:?}: {}", ended.stderr);
    }
    // What a host serves over HTTP it does as a worker.
    let http = crate::http::address(&mut host);
    let made = Request::post("/v1/jobs", r#"{"type":"echo","queue":"later","delay":"1h"}"#).send(http).ok(201);
    let cancel = format!("/v1/jobs/{}/cancel", made["id"].as_str().unwrap());
    Request::post(&cancel, "{}").send(http).ok(200);
    for path in ["/v1/jobs?payload=x", "/v1/jobs?state=parked", "/v1/queues", "/readyz"] {
        Request::get(path).send(http).ok(200);
    }
    let said = operator.cli(&["doctor"]).run().stdout;
    assert!(said.contains("user `operator`") && !said.contains("does not let"), "{said}");
    // With time for heartbeats, sweeps and health checks.
    let beats = async || {
        let mut admin = guarded.raw("admin").await;
        run(&mut admin, &["HLEN", "healthcheck:status"]).await.ok().filter(|n| *n != Value::Int(0))
    };
    wait_until("health is reported", PATIENCE, beats).await;
    let said = host.said();
    assert!(!said.contains("does not let user"), "{said}");
    assert_eq!((host.stop(), second.stop()), (0, 0));
    // What is done without when it may not be done: each is one attempt, not a failure.
    let may_miss =
        ["producer info", "producer hsetnx", "worker config|get", "operator config|get", "worker client|kill"];
    let refused = guarded.refused().await;
    let unexpected: Vec<_> = refused.iter().filter(|entry| !may_miss.contains(&entry.as_str())).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[tokio::test]
async fn a_producer_enqueues_with_the_public_script() {
    let guarded = Guarded::start();
    let prefix = &guarded.prefix;
    guarded.way("operator").publish("echo");
    let host = guarded.way("worker").host(&[]);
    // docs/producers.md: one key, the contract, one job without options.
    let text = fs::read_to_string(guests::root().join("examples/producers/enqueue.lua")).unwrap();
    let mut producer = guarded.raw("producer").await;
    let mut eval = redis::cmd("EVAL");
    eval.arg(&text).arg(1).arg(prefix).arg(&["1", "1", "by-eval", "default", "echo", "hi", "0"]);
    eval.query_async::<Value>(&mut producer).await.unwrap();
    let row = format!("{prefix}:job:by-eval");
    let done = async || {
        let state: Option<String> =
            redis::cmd("HGET").arg(&row).arg("status").query_async(&mut producer.clone()).await.ok()?;
        state.filter(|state| state == JobState::Done.as_str())
    };
    wait_until("the job is done", PATIENCE, done).await;
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn no_role_touches_what_is_not_its_own_not_even_by_a_script() {
    let guarded = Guarded::start();
    let prefix = guarded.prefix.clone();
    guarded.way("operator").publish("echo");
    let names = "workers:jumpscripts:name";
    let sneak = format!("return redis.call('HSET', '{names}', 'a__b', '{{}}')");
    let foreign = format!("return redis.call('HGET', 'other:secrets', 'a') or redis.call('DEL', '{prefix}:nodes')");
    let ready = format!("{prefix}:queue:default:ready");
    let cases: [(&str, &[&str]); 17] = [
        ("producer", &["HSET", names, "a__b", "{}"]),
        ("producer", &["EVAL", &sneak, "0"]),
        ("producer", &["EVAL", &sneak, "1", &ready]),
        ("producer", &["EVAL", "return 1", "1", names]),
        ("producer", &["EVAL", &foreign, "0"]),
        ("producer", &["DEL", "workers:jumpscripts:wasm"]),
        ("producer", &["HGET", names, "wasmhost__echo"]),
        ("producer", &["PUBLISH", "other:wake", "due 1"]),
        ("producer", &["LRANGE", &ready, "0", "-1"]),
        ("producer", &["FLUSHALL"]),
        ("worker", &["FLUSHALL"]),
        ("worker", &["CONFIG", "SET", "maxmemory", "1"]),
        ("worker", &["KEYS", "*"]),
        ("worker", &["HGET", "other:secrets", "a"]),
        ("worker", &["ACL", "LIST"]),
        ("operator", &["FLUSHDB"]),
        ("operator", &["HDEL", "workers:watchdog", "worker_default_a.1"]),
    ];
    for (role, words) in cases {
        let error = run(&mut guarded.raw(role).await, words).await.expect_err(&format!("{role} {words:?}"));
        // Redis 7.0 has no code of its own for what a script may not.
        let is_acl =
            error.code() == Some("NOPERM") || error.to_string().contains("The user executing the script can't");
        assert!(is_acl, "{role} {words:?}: {error}");
    }
    // A pin keeps code alive, which is not for producers to say; the refusal names user and reason.
    let digest = "0".repeat(64);
    let said = guarded.way("producer").cli(&["submit", "--type", "echo", "--pin", &digest]).run().fails(2);
    assert!(said.contains("does not let user `producer` do this (an enqueue)") && said.contains("keys"), "{said}");
    let said = guarded.way("worker").with("WASMHOST_REDIS_PASSWORD", "guessed").cli(&["queues", "ls"]).run().fails(2);
    assert!(said.contains("wrong password for user `worker`") && !said.contains("guessed"), "{said}");
    // The health check of a container, and nobody without a name.
    let mut nobody =
        redis::Client::open(guarded.server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    assert_eq!(run(&mut nobody, &["PING"]).await.unwrap_err().code(), Some("NOAUTH"));
    run(&mut nobody, &["AUTH", "health", ""]).await.unwrap();
    run(&mut nobody, &["PING"]).await.unwrap();
    assert_eq!(run(&mut nobody, &["GET", "a"]).await.unwrap_err().code(), Some("NOPERM"));
}

// === The files grant what the scripts call, and no more ===

/// What every role sends to find its server and to run scripts.
const CONNECT: [&str; 6] = ["cluster|slots", "evalsha", "ping", "role", "script|load", "select"];

/// The scripts that only an operator's commands run, and those of `wasmhost bench`. A worker runs all the others, and
/// its HTTP server some of an operator's.
const OPERATORS: [&str; 9] =
    ["LIST", "CANCEL", "SET_QUEUE", "REQUEUE", "DROP", "IMPORT_DEAD", "PURGE", "UNPUBLISH", "DEAD_ROWS"];

/// A role, the scripts that it runs, and the commands that it sends beside them.
fn of_role(role: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    match role {
        "producer" => (vec!["ENQUEUE", "PRODUCER"], vec!["eval", "hget", "hgetall", "subscribe", "wait"]),
        "operator" => (
            [&["ENQUEUE", "QUEUES", "PUBLISH", "DROP_UNUSED", "LOOK_AT_ENTRIES", "ROWS", "REPAIR"], &OPERATORS[..8]]
                .concat(),
            vec![
                "get",
                "hget",
                "hgetall",
                "hmget",
                "hscan",
                "hsetnx",
                "info",
                "llen",
                "lpos",
                "lrange",
                "scan",
                "smembers",
                "sscan",
                "subscribe",
                "time",
                "type",
                "wait",
                "xrevrange",
                "zrevrange",
                "zscan",
            ],
        ),
        _ => (
            Vec::new(),
            vec![
                "blmove",
                "blpop",
                "client|id",
                "client|unblock",
                "get",
                "hget",
                "hgetall",
                "hmget",
                "hscan",
                "hsetnx",
                "info",
                "lrange",
                "scan",
                "set",
                "smembers",
                "sscan",
                "subscribe",
                "time",
                "type",
                "zrevrange",
                "zscan",
            ],
        ),
    }
}

fn source(path: &str) -> String {
    fs::read_to_string(guests::root().join("host/src/store").join(path)).unwrap()
}

/// Every script with its files, as the code says.
fn scripts() -> Vec<(String, Vec<String>)> {
    let files = |text: &str| {
        let words: Vec<_> = text.split('"').skip(1).step_by(2).filter(|word| word.ends_with(".lua")).collect();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (queue, node) = (source("script.rs"), source("node.rs"));
    let queue = queue.split("\nscript!(").skip(1).map(|text| {
        let (body, _) = text.split_once(");").unwrap();
        let name = body.trim().split(',').next().unwrap().to_owned();
        (name, [vec!["head.lua".to_owned()], files(body)].concat())
    });
    let public = ("PRODUCER".to_owned(), vec!["producer.lua".to_owned(), "producer_end.lua".to_owned()]);
    let node = node.split("\nstatic ").filter_map(|text| {
        let (name, rest) = text.split_once(": Script = node_script!(")?;
        Some((format!("node {name}"), files(rest.split_once(")").unwrap().0)))
    });
    queue.chain(node).chain([public]).collect()
}

/// The commands that a Lua file calls.
fn commands(file: &str) -> BTreeSet<String> {
    let text = source(&format!("lua/{file}"));
    let calls = ["call('", "try('"].iter().flat_map(|word| text.split(word).skip(1)).filter_map(|rest| {
        let mut words = rest.split('\'');
        let word = words.next().filter(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase()))?;
        let second = words.nth(1).filter(|_| word == "PUBSUB").map(|second| format!("|{second}"));
        Some(format!("{word}{}", second.unwrap_or_default()).to_lowercase())
    });
    calls.collect()
}

#[test]
fn the_files_grant_what_the_scripts_call_and_no_more() {
    let scripts = scripts();
    assert!(scripts.len() > 20 && scripts.iter().any(|(name, _)| name == "node BEAT"), "{scripts:?}");
    for role in ROLES {
        let (runs, sends) = of_role(role);
        let is_run = |name: &str| match role {
            "worker" => !OPERATORS[2..].contains(&name) && name != "PRODUCER",
            _ => runs.contains(&name),
        };
        let files = scripts.iter().filter(|(name, _)| is_run(name)).flat_map(|(_, files)| files);
        let mut needed: BTreeSet<String> = files.flat_map(|file| commands(file)).collect();
        needed.extend(CONNECT.iter().chain(&sends).map(|&word| word.to_owned()));
        let file = file(role);
        let granted: BTreeSet<String> =
            file.split_whitespace().filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
        let missing: Vec<_> = needed.difference(&granted).collect();
        let surplus: Vec<_> = granted.difference(&needed).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "{role}.acl lacks {missing:?} and has {surplus:?} too many");
    }
}
