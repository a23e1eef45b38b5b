//! `wasmhost jobs replay`: what a job did, done again elsewhere than in its queue.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use redis::AsyncCommands as _;
use wasmhost::job::{JobId, NewJob};
use wasmhost::store::{JobRecord, Store};

use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation};
use crate::support::redis::RedisServer;

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    store: Store,
    prefix: String,
    folder: tempfile::TempDir,
    _host: Host,
}

impl World {
    async fn new() -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        let host = Host::start(redis.url(), &prefix, &[]);
        Self { store, prefix, folder: tempfile::tempdir().unwrap(), _host: host }
    }

    fn run<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Ended {
        Invocation::new(words).on(RedisServer::shared().url(), &self.prefix).run()
    }

    /// Publishes a guest under the name `mine`.
    fn publish(&self, guest: &str) {
        let file = self.folder.path().join("mine.wasm");
        std::fs::copy(guests::path(guest), &file).unwrap();
        std::fs::write(self.folder.path().join("mine.toml"), "name = 'mine'\n[permissions]\nhttp = []\n").unwrap();
        self.run(["publish", file.to_str().unwrap()]).ok();
    }

    /// Runs a job to its end.
    async fn ended(&self, job: NewJob) -> (JobId, JobRecord) {
        let id = self.store.enqueue(&[job]).await.unwrap().remove(0).id;
        let record = self.store.wait_final(&id, PATIENCE).await.unwrap().unwrap();
        assert!(record.state().is_some_and(|state| state.is_final()), "{record:?}");
        (id, record)
    }

    fn replay(&self, id: &JobId, more: &[&str]) -> Ended {
        let id = id.to_string();
        self.run([&["jobs", "replay", &id], more].concat())
    }
}

fn job(payload: &str) -> NewJob {
    NewJob { max_attempts: Some(1), ..NewJob::new("default", "mine", payload) }
}

/// Everything a row says; Redis tells its fields in any order.
fn fields(record: &JobRecord) -> BTreeMap<String, Vec<u8>> {
    record.fields.iter().cloned().collect()
}

#[tokio::test]
async fn a_dead_job_dies_again_in_the_same_way_and_stays_as_it_was() {
    let world = World::new().await;
    world.publish("die");
    let (id, before) = world.ended(job("panic")).await;
    let ended = world.replay(&id, &[]);
    assert_eq!(ended.code, 1);
    let said = ended.stderr;
    for part in [
        "replaying attempt 1 of job",
        "the code that it ran; it is dlq",
        "die.rs:",
        "the spring broke",
        "nothing of this was written",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert_eq!(fields(&world.store.job(&id).await.unwrap().unwrap()), fields(&before));

    let fixed: PathBuf = guests::path("echo");
    let ended = world.replay(&id, &["--file", fixed.to_str().unwrap()]);
    assert!(ended.stderr.contains("other code than it ran"), "{}", ended.stderr);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "panic\n"));
    let json = world.replay(&id, &["--payload", "divide", "--output", "json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["recorded_status"], "dlq", "{document}");
    assert!(document["profile"]["error"].as_str().unwrap().contains("divide by zero"), "{document}");
    assert_eq!(fields(&world.store.job(&id).await.unwrap().unwrap()), fields(&before));
}

#[tokio::test]
async fn a_job_is_replayed_with_the_code_it_ran_also_when_newer_code_is_live() {
    let world = World::new().await;
    world.publish("end");
    let metadata = vec![("tenant".to_owned(), "7".to_owned())];
    let (id, _) = world.ended(NewJob { metadata, ..job("record") }).await;
    world.publish("die");
    let told = world.replay(&id, &[]).ok();
    for part in
        ["attempt: 1", "(\"tenant\", \"7\")", "queue: \"default\"", "job_type: \"mine\"", id.to_string().as_str()]
    {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert!(world.replay(&id, &["--attempt", "4"]).ok().contains("attempt: 4"));
}

#[tokio::test]
async fn what_cannot_be_replayed_says_why_and_what_to_do() {
    let world = World::new().await;
    let said = world.replay(&JobId::from("nobody"), &[]).fails(1);
    assert!(said.contains("no job `nobody`") && said.contains("24 h"), "{said}");

    let waiting = NewJob { run_at: Some(wasmhost::clock::Timestamp::now().after(PATIENCE)), ..job("echo me") };
    let id = world.store.enqueue(&[waiting]).await.unwrap().remove(0).id;
    let said = world.replay(&id, &[]).fails(1);
    assert!(said.contains("no jumpscript has run it") && said.contains("--file"), "{said}");

    world.publish("end");
    let (id, record) = world.ended(job("failed")).await;
    let mut raw = RedisServer::shared().raw().await;
    let key = format!("{}:workers:jumpscripts:wasm", world.prefix);
    let n: u32 = raw.hdel(key, record.digest().unwrap().to_string()).await.unwrap();
    assert_eq!(n, 1);
    let said = world.replay(&id, &[]).fails(1);
    assert!(said.contains("not in Redis any more") && said.contains("--file"), "{said}");
    let end = guests::path("end");
    assert!(world.replay(&id, &["--file", end.to_str().unwrap()]).fails(1).contains("no luck"));
}

#[tokio::test]
async fn state_is_read_as_it_is_and_what_would_be_written_is_shown_only() {
    let world = World::new().await;
    world.publish("keep");
    let (id, _) = world.ended(job("add n 1")).await;
    for _ in 0..2 {
        let ended = world.replay(&id, &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (0, "2\n"), "{}", ended.stderr);
        assert!(ended.stderr.contains("would change its own bucket: set n"), "{}", ended.stderr);
        assert!(ended.stderr.contains("1  wasi:keyvalue/atomics increment"), "{}", ended.stderr);
    }
}
