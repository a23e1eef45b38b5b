//! Other systems' messages: what their programs push is run here and answered there.

mod direct;
mod ends;
mod fleet;
mod flows;
mod refused;
mod take_over;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use wasmhost::store::Store;

use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation};
use crate::support::redis::{RedisServer, wait_until};

/// Longer than anything a healthy host needs, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis of its own, because the keys of other systems have no prefix, and a folder with the actor.
struct World {
    redis: RedisServer,
    prefix: String,
    store: Store,
    raw: MultiplexedConnection,
    folder: tempfile::TempDir,
}

impl World {
    /// A world whose actor serves these script types.
    async fn new(types: &[&str]) -> Self {
        let redis = RedisServer::start();
        let (store, prefix) = redis.store().await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(guests::path("actor"), folder.path().join("actor.wasm")).unwrap();
        std::fs::write(folder.path().join("actor.toml"), format!("types = {types:?}\n")).unwrap();
        Self { raw: redis.raw().await, redis, prefix, store, folder }
    }

    fn actor(&self) -> PathBuf {
        self.folder.path().join("actor.wasm")
    }

    fn publish(&self) {
        self.cli(&["publish", self.actor().to_str().unwrap()]).ok();
    }

    fn cli(&self, words: &[&str]) -> Ended {
        Invocation::new(words.iter().copied()).on(self.redis.url(), &self.prefix).run()
    }

    fn host(&self, arguments: &[&str]) -> Host {
        let all: Vec<&str> = ["--protocol", "hero"].into_iter().chain(arguments.iter().copied()).collect();
        Host::start(self.redis.url(), &self.prefix, &all)
    }

    /// A host with settings that no flag has, such as `retry.base = '1ms'`.
    fn host_with(&self, settings: &str) -> Host {
        let file = self.folder.path().join("wasmhost.conf");
        std::fs::write(&file, settings).unwrap();
        self.host(&["--config", file.to_str().unwrap()])
    }

    /// A line of the guide, typed into `redis-cli`: what it prints.
    #[track_caller]
    fn redis_cli(&self, line: &str) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.redis.port().to_string()]).args(line.split(' '));
        let output = command.output().expect("redis-cli is installed");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// What a supervisor does: the hash, then the push.
    async fn push(&mut self, script_type: &str, id: &str, script: &str, more: &[(&str, &str)]) {
        self.create(id, script, more).await;
        self.start(script_type, id).await;
    }

    async fn create(&mut self, id: &str, script: &str, more: &[(&str, &str)]) {
        let fields: Vec<_> =
            [("status", "dispatched"), ("script", script)].into_iter().chain(more.iter().copied()).collect();
        let _: () = self.raw.hset_multiple(format!("hero:job:{id}"), &fields).await.unwrap();
    }

    async fn start(&mut self, script_type: &str, id: &str) {
        let _: i64 = self.raw.lpush(format!("hero:q:work:type:{script_type}"), id).await.unwrap();
    }

    async fn hash(&self, id: &str) -> BTreeMap<String, String> {
        self.raw.clone().hgetall(format!("hero:job:{id}")).await.unwrap()
    }

    /// Waits until a hash has a status.
    async fn status(&self, id: &str, status: &str) -> BTreeMap<String, String> {
        wait_until(&format!("job {id} is {status}"), PATIENCE, async || {
            let hash = self.hash(id).await;
            (hash.get("status").map(String::as_str) == Some(status)).then_some(hash)
        })
        .await
    }

    /// What was answered to a job: its output when it has finished, its error when not. The reply says the same, once.
    async fn answer(&self, id: &str) -> Result<String, String> {
        let reply = format!("hero:q:reply:{id}");
        let hash = wait_until(&format!("job {id} is answered"), PATIENCE, async || {
            let hash = self.hash(id).await;
            let is_over = hash.get("status").is_some_and(|status| status == "finished" || status == "error");
            is_over.then_some(hash)
        })
        .await;
        let replies: Vec<String> = self.raw.clone().lrange(&reply, 0, -1).await.unwrap();
        assert!(!hash["updated_at"].is_empty());
        let answer = match hash["status"].as_str() {
            "finished" => Ok(hash["output"].clone()),
            _ => Err(hash["error"].clone()),
        };
        assert_ne!(hash.contains_key("output"), hash.contains_key("error"), "one or the other: {hash:?}");
        let (Ok(text) | Err(text)) = &answer;
        assert_eq!(&replies, std::slice::from_ref(text), "the reply of job {id}");
        answer
    }
}
