//! State and jobs end to end: real hosts, real guests, and what is in Redis afterwards.

use std::time::Duration;

use wasmhost::effects::Bucket;
use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::{JobRecord, Store};

use super::keep;
use crate::support::program::{Host, Invocation};
use crate::support::redis::{RedisServer, wait_until};

/// Longer than anything a healthy host needs, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis, a prefix of its own, and `keep`.
struct World {
    redis: &'static RedisServer,
    prefix: String,
    store: Store,
    dir: tempfile::TempDir,
}

impl World {
    async fn new(permissions: &str) -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        let world = Self { redis, prefix, store, dir: tempfile::tempdir().unwrap() };
        std::fs::write(world.file("keep.wasm"), keep(permissions)).unwrap();
        if !permissions.is_empty() {
            let file = world.file("keep.wasm");
            Invocation::new(["grants", "allow", &file, "--requested"]).on(redis.url(), &world.prefix).run().ok();
        }
        let publish = Invocation::new(["publish", &world.file("keep.wasm")]).on(redis.url(), &world.prefix);
        publish.run().ok();
        world
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn host(&self, arguments: &[&str]) -> Host {
        Host::start(self.redis.url(), &self.prefix, arguments)
    }

    async fn submit(&self, payload: &str) -> JobId {
        self.store.enqueue(&[NewJob::new("default", "acme/keep", payload)]).await.unwrap().remove(0).id
    }

    async fn ended(&self, id: &JobId) -> JobRecord {
        let record = self.store.wait_final(id, PATIENCE).await.expect("redis answers");
        let record = record.unwrap_or_else(|| panic!("job `{id}` is gone"));
        assert!(record.state().is_some_and(JobState::is_final), "job `{id}` did not end: {record:?}");
        record
    }

    async fn run(&self, payload: &str) -> JobRecord {
        self.ended(&self.submit(payload).await).await
    }

    async fn value(&self, bucket: &str, key: &str) -> Option<String> {
        let bucket = Bucket::Named { organization: "acme".to_owned(), name: bucket.to_owned() };
        let value = self.store.state_values(&bucket, &[key.to_owned()]).await.unwrap().remove(0);
        value.map(|value| String::from_utf8(value).unwrap())
    }

    async fn waiting(&self, queue: &str) -> u64 {
        let queues = self.store.queues().await.unwrap();
        queues.into_iter().find(|info| info.name == queue).map_or(0, |info| info.ready)
    }
}

fn result(record: &JobRecord) -> String {
    assert_eq!(record.state(), Some(JobState::Done), "{record:?}");
    record.text("result").unwrap_or_default()
}

#[tokio::test]
async fn what_a_job_stores_the_next_one_reads() {
    let world = World::new("state = [\"orders\"]").await;
    let _host = world.host(&[]);
    assert_eq!(result(&world.run("open orders\nget a\nset a 1\nadd n 5").await), "\n-\n\n5");
    assert_eq!(result(&world.run("open orders\nget a\nadd n 5\nkeys").await), "\n1\n10\na,n");
    assert_eq!(result(&world.run("get a").await), "-", "its own bucket is another one");
}

#[tokio::test]
async fn a_failed_attempt_leaves_nothing_and_one_that_asks_for_another_keeps_its_own_bucket() {
    let world = World::new("state = [\"orders\"]\nenqueue = [\"children\"]").await;
    let _host = world.host(&[]);
    let did = "set step 7\nopen orders\nset a 1\nenqueue children echo hi";
    for end in ["fail", "reject", "trap"] {
        let job = NewJob { max_attempts: Some(1), ..NewJob::new("default", "acme/keep", format!("{did}\n{end}")) };
        let id = world.store.enqueue(&[job]).await.unwrap().remove(0).id;
        assert_eq!(world.ended(&id).await.state(), Some(JobState::Dlq), "{end}");
        let own = world.store.state_values(&Bucket::Own(id), &["step".to_owned()]).await.unwrap();
        assert_eq!(
            (own, world.value("orders", "a").await, world.waiting("children").await),
            (vec![None], None, 0),
            "{end}"
        );
    }
    let record = world.run(&format!("get step\n1> {}\n1> retry", did.replace('\n', "\n1> "))).await;
    assert_eq!(result(&record), "7", "the second attempt goes on where the first one was");
    assert_eq!((world.value("orders", "a").await, world.waiting("children").await), (None, 0));
}

#[tokio::test]
async fn two_hosts_that_add_to_one_number_two_hundred_times_lose_none() {
    let world = World::new("state = [\"orders\"]").await;
    let _hosts = [world.host(&[]), world.host(&[])];
    let add = |n: u32| NewJob::new("default", "acme/keep", format!("open orders\nadd n {}", n % 2 + 1));
    let ids = world.store.enqueue(&(0..200).map(add).collect::<Vec<_>>()).await.unwrap();
    for made in &ids {
        let record = world.ended(&made.id).await;
        assert_eq!((record.state(), record.number("attempts").unwrap_or(0)), (Some(JobState::Done), 0), "{record:?}");
    }
    assert_eq!(world.value("orders", "n").await.as_deref(), Some("300"));
}

#[tokio::test]
async fn a_job_is_enqueued_once_although_its_parent_was_repeated() {
    let world = World::new("enqueue = [\"children\", \"later-*\"]").await;
    let _host = world.host(&[]);
    let record = world
        .run("enqueue children acme/keep get\nonce children acme/keep key\nonce children acme/keep key\n1> fail")
        .await;
    let told = result(&record);
    assert_eq!(record.number("attempts"), Some(1), "it was repeated");
    assert_eq!(world.waiting("children").await, 2, "of two with one key the first is made");
    let child = world
        .store
        .job(&JobId::from(told.lines().next().unwrap()))
        .await
        .unwrap()
        .expect("it has the id that was told");
    assert_eq!(child.text("payload").as_deref(), Some("get"));
    assert_eq!(child.text("metadata").as_deref(), Some("{\"from\":\"keep\"}"));
}

#[tokio::test]
async fn a_full_queue_fails_the_attempt_with_its_name() {
    let world = World::new("enqueue = [\"small\"]").await;
    let cli =
        |arguments: &[&str]| Invocation::new(arguments.iter().copied()).on(world.redis.url(), &world.prefix).run().ok();
    cli(&["queues", "set", "small", "--capacity", "1"]);
    let _host = world.host(&[]);
    let job = NewJob { max_attempts: Some(1), ..NewJob::new("default", "acme/keep", "enqueues small 2") };
    let id = world.store.enqueue(&[job]).await.unwrap().remove(0).id;
    let record = world.ended(&id).await;
    assert_eq!(record.state(), Some(JobState::Dlq));
    let error = record.text("last_error").unwrap();
    assert!(error.contains("could not be committed") && error.contains("queue `small` is full"), "{error}");
    assert_eq!(world.waiting("small").await, 0);
}

#[tokio::test]
async fn what_is_not_permitted_is_refused_with_the_name_of_the_permission() {
    let world = World::new("").await;
    let _host = world.host(&[]);
    for (payload, told) in [
        ("open orders", "request it with state = [\"orders\"] under [permissions]"),
        ("enqueue mail echo hi", "add \"mail\" to `enqueue` under [permissions] in its jumpscript.toml"),
    ] {
        let job = NewJob { max_attempts: Some(1), ..NewJob::new("default", "acme/keep", payload) };
        let id = world.store.enqueue(&[job]).await.unwrap().remove(0).id;
        let error = world.ended(&id).await.text("last_error").unwrap();
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_job_that_asks_lets_a_stopping_host_go_and_does_not_count() {
    let world = World::new("").await;
    let host = world.host(&[]);
    let id = world.submit("get step\n1> set step 3\n1> until-cancelled\n1> retry").await;
    let runs = async || {
        let record = world.store.job(&id).await.unwrap()?;
        (record.state() == Some(JobState::Inflight)).then_some(())
    };
    wait_until("the job runs", PATIENCE, runs).await;
    host.stop();
    let record = world.store.job(&id).await.unwrap().expect("it is there");
    assert_eq!((record.state(), record.number("attempts").unwrap_or(0)), (Some(JobState::Ready), 0), "{record:?}");
    let own = world.store.state_values(&Bucket::Own(id), &["step".to_owned()]).await.unwrap();
    assert_eq!(own, [Some(b"3".to_vec())]);
}
