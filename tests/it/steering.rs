//! What people do to jobs and queues while hosts run: cancel, pause, resume, limit.

use std::time::Duration;

use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::{Cancelled, QueueChange, Store};

use crate::support::guests;
use crate::support::program::{Host, Invocation};
use crate::support::redis::{RedisServer, wait_until};

/// Longer than anything a healthy host needs, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    store: Store,
    host: Host,
}

impl World {
    /// A host with the guests that wait and echo.
    async fn new(arguments: &[&str]) -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        for guest in ["wait", "echo"] {
            let file = guests::path(guest);
            Invocation::new(["publish", file.to_str().expect("a UTF-8 path")]).on(redis.url(), &prefix).run().ok();
        }
        Self { store, host: Host::start(redis.url(), &prefix, arguments) }
    }

    async fn submit(&self, job: NewJob) -> JobId {
        self.store.enqueue(&[job]).await.expect("redis answers").remove(0).id
    }

    async fn is_in(&self, id: &JobId, state: JobState) {
        wait_until(&format!("job {id} is {state}"), PATIENCE, async || {
            (self.store.job(id).await.ok()??.state() == Some(state)).then_some(())
        })
        .await;
    }

    async fn set(&self, change: QueueChange) {
        self.store.set_queue("default", &change).await.expect("redis answers");
    }
}

/// The guest would sleep for an hour in the only slot: the next job runs because the attempt is really stopped.
#[tokio::test]
async fn a_running_attempt_that_is_cancelled_is_stopped_and_its_slot_is_free() {
    let mut world = World::new(&["--concurrency", "1", "--log", "debug"]).await;
    let stuck =
        world.submit(NewJob { timeout: Some(Duration::from_secs(3_600)), ..NewJob::new("default", "wait", "") }).await;
    world.is_in(&stuck, JobState::Inflight).await;
    let cancelled = world.store.cancel("default", &stuck, "not wanted").await.unwrap();
    assert_eq!(cancelled, Cancelled::Applied(JobState::Inflight));
    let next = world.submit(NewJob::new("default", "echo", "next")).await;
    world.is_in(&next, JobState::Done).await;
    world.is_in(&stuck, JobState::Cancelled).await;
    // By the message, or by its lease when the host was not listening yet.
    world.host.wait_for_line("attempt stopped");
    assert_eq!(world.host.stop(), 0);
}

#[tokio::test]
async fn a_host_leaves_a_paused_queue_alone_and_goes_on_when_it_is_resumed() {
    let world = World::new(&["--queue", "default", "--queue", "open"]).await;
    world.set(QueueChange { paused: Some(true), ..QueueChange::default() }).await;
    let held_back = world.submit(NewJob::new("default", "echo", "a")).await;
    let other = world.submit(NewJob::new("default", "echo", "b")).await;
    // A queue that is open shows that the host is at work meanwhile.
    let elsewhere = world.submit(NewJob::new("open", "echo", "")).await;
    world.is_in(&elsewhere, JobState::Done).await;
    world.is_in(&held_back, JobState::Ready).await;
    world.set(QueueChange { paused: Some(false), ..QueueChange::default() }).await;
    world.is_in(&held_back, JobState::Done).await;
    world.is_in(&other, JobState::Done).await;
}

#[tokio::test]
async fn a_job_with_a_priority_wakes_an_idle_host() {
    let world = World::new(&[]).await;
    let first = world.submit(NewJob::new("default", "echo", "")).await;
    world.is_in(&first, JobState::Done).await;
    let urgent = world.submit(NewJob { priority: Some(9), ..NewJob::new("default", "echo", "") }).await;
    world.is_in(&urgent, JobState::Done).await;
}

#[tokio::test]
async fn jobs_of_one_key_run_one_at_a_time_and_all_of_them_run() {
    let world = World::new(&["--concurrency", "8"]).await;
    world.set(QueueChange { key_concurrency: Some(Some(1)), ..QueueChange::default() }).await;
    let jobs: Vec<NewJob> = (0..500)
        .map(|n| NewJob { limit_key: Some(format!("k{}", n % 3)), ..NewJob::new("default", "echo", "") })
        .collect();
    let ids = world.store.enqueue(&jobs).await.expect("redis answers");
    for enqueued in &ids {
        world.is_in(&enqueued.id, JobState::Done).await;
    }
    let info = world.store.queues().await.unwrap().into_iter().find(|queue| queue.name == "default").unwrap();
    let parked = info.counters.iter().find(|(name, _)| name == "parked").map_or(0, |(_, n)| *n);
    assert_eq!((info.ready, info.inflight, parked), (0, 0, 0));
}
