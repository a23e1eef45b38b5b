//! The worker's loop with a native handler: what it takes, in which order, and how it ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use wasmhost::executor::native::NativeExecutor;
use wasmhost::job::NewJob;
use wasmhost::outcome::Outcome;
use wasmhost::ports::Pulse;
use wasmhost::retry::RetryPolicy;
use wasmhost::store::Store;
use wasmhost::worker::{Options, Totals, Worker};

use crate::support::redis::RedisServer;

/// Runs a worker over `queues` until it was handed `n` jobs; the queues of those jobs in their order, and the totals.
async fn first_served(store: &Store, queues: &[(&str, u32)], n: usize) -> (Vec<String>, Totals) {
    served_from(store, queues, false, n).await
}

async fn served_from(store: &Store, queues: &[(&str, u32)], is_strict: bool, n: usize) -> (Vec<String>, Totals) {
    let served: Arc<Mutex<Vec<String>>> = Arc::default();
    let enough = Arc::new(Notify::new());
    let (log, told) = (Arc::clone(&served), Arc::clone(&enough));
    let handler = move |job: &wasmhost::job::Reserved| {
        let mut log = log.lock().unwrap();
        log.push(job.queue.clone());
        if log.len() == n {
            told.notify_one();
        }
        Outcome::Done { result: Vec::new() }
    };
    let options = Options {
        queues: queues.iter().map(|(queue, weight)| ((*queue).to_owned(), *weight)).collect(),
        is_strict,
        concurrency: 16,
        lease: Duration::from_secs(30),
        heartbeat: Duration::from_secs(10),
        grace: Duration::from_secs(10),
        node: "test".to_owned(),
        done_ttl: Duration::from_secs(60),
        retry: RetryPolicy::default(),
        unknown_type_wait: Duration::ZERO,
    };
    let worker = Worker::new(store.clone(), Arc::new(NativeExecutor::new(handler)), options, Arc::new(Pulse::new()));
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(worker.run(stopped));
    tokio::time::timeout(Duration::from_secs(60), enough.notified()).await.expect("the jobs are handed out");
    stop.send_replace(true);
    let totals = running.await.expect("the worker does not panic");
    let served = std::mem::take(&mut *served.lock().unwrap());
    (served, totals)
}

async fn fill(store: &Store, job_type: &str, queue: &str, n: usize) {
    let jobs: Vec<NewJob> = (0..n).map(|_| NewJob::new(queue, job_type, "")).collect();
    store.enqueue(&jobs).await.unwrap();
}

/// A native handler still needs a type that something serves, or the jobs wait for one.
async fn published(store: &Store) -> &'static str {
    use wasmhost::jumpscript::{Kind, Manifest};
    use wasmhost::ports::PublishRule;
    use wasmhost::store::NewJumpscript;
    let script = NewJumpscript { name: "noop".parse().unwrap(), kind: Kind::Component, manifest: Manifest::default() };
    store.publish(&script, b"never run", PublishRule::Always).await.unwrap();
    "noop"
}

/// Both queues have a backlog all along; a third one is empty and costs the others nothing.
#[tokio::test]
async fn three_to_one_is_served_three_to_one_over_ten_thousand_jobs() {
    let (store, _) = RedisServer::shared().store().await;
    let job_type = published(&store).await;
    for queue in ["big", "small"] {
        fill(&store, job_type, queue, 11_000).await;
    }
    let (served, _) = first_served(&store, &[("small", 1), ("empty", 5), ("big", 3)], 10_000).await;
    let big = served.iter().take(10_000).filter(|queue| *queue == "big").count();
    assert!((7_125..=7_875).contains(&big), "big was served {big} of 10,000 times, 7,500 are its share");
}

/// Two queues with a backlog and an empty one; the last is served when those before it are empty, and not before.
#[tokio::test]
async fn strict_queues_are_served_one_after_the_other_over_six_thousand_jobs() {
    let (store, _) = RedisServer::shared().store().await;
    let job_type = published(&store).await;
    for queue in ["third", "first"] {
        fill(&store, job_type, queue, 3_000).await;
    }
    let queues = [("first", 1), ("empty", 1), ("third", 1)];
    let (served, _) = served_from(&store, &queues, true, 6_000).await;
    let turned = served.iter().position(|queue| queue == "third").unwrap();
    // Two turns are under way at once, so the answer to the earlier one may be worked on later.
    let early = served[..3_000].iter().filter(|queue| *queue == "third").count();
    assert!(
        turned >= 3_000 - 128 && early <= 128,
        "`third` was served {early} times before its time, first at {turned}"
    );
    assert_eq!(served.iter().filter(|queue| *queue == "third").count(), 3_000);
}

#[tokio::test]
async fn a_worker_that_stops_has_settled_all_it_took_and_holds_nothing() {
    let (store, _) = RedisServer::shared().store().await;
    let job_type = published(&store).await;
    fill(&store, job_type, "mail", 3_000).await;
    let (served, totals) = first_served(&store, &[("mail", 1)], 2_000).await;
    let mail = store.queues().await.unwrap().into_iter().find(|queue| queue.name == "mail").unwrap();
    assert_eq!((mail.inflight, mail.done, totals.lost), (0, served.len() as u64, 0), "{mail:?} {totals:?}");
    assert_eq!(mail.ready + mail.done, 3_000, "every job is in one place");
}
