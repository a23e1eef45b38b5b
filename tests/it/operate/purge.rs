//! Removing the jobs of a queue that do not run.

use wasmhost::clock::Timestamp;
use wasmhost::job::{JobId, NewJob};
use wasmhost::store::QueueChange;

use super::{json, keyed, many_dead, run};
use crate::engine::{Bench, done, end, job, take, take_one};

/// A queue with 3 jobs in flight, 2 ready (one with a priority), 2 parked and 2 scheduled.
async fn filled() -> Bench {
    let bench = Bench::new().await;
    let change = QueueChange { key_concurrency: Some(Some(1)), ..QueueChange::default() };
    bench.store.set_queue("q", &change).await.unwrap();
    bench.store.enqueue(&keyed(&["held-k", "parked-1", "parked-2"], "k", "q")).await.unwrap();
    bench.store.enqueue(&[job("held-1", "q"), job("held-2", "q")]).await.unwrap();
    assert_eq!(take(&bench.store, "q", 10).await.len(), 3);
    let later = Timestamp::now().after(std::time::Duration::from_secs(3600));
    let scheduled = |id: &str| NewJob { run_at: Some(later), ..job(id, "q") };
    let urgent = NewJob { priority: Some(9), idempotency_key: Some("once".to_owned()), ..job("ready-9", "q") };
    bench.store.enqueue(&[job("ready", "q"), urgent, scheduled("later-1"), scheduled("later-2")]).await.unwrap();
    bench
}

#[tokio::test]
async fn a_purge_takes_what_waits_and_never_what_runs() {
    let mut bench = filled().await;
    let said = run(&bench, &["queues", "purge", "q"]).fails(2);
    assert!(
        said.contains("nothing was removed") && said.contains("would be 6 jobs") && said.contains("--yes"),
        "{said}"
    );
    assert_eq!(json(&bench, &["queues", "show", "q"])["ready"], 2, "nothing was removed");
    let removed = json(&bench, &["queues", "purge", "q", "--yes"]);
    assert_eq!(removed["total"], 6, "{removed}");
    assert_eq!(removed["removed"], serde_json::json!({ "ready": 2, "parked": 2, "scheduled": 2 }));
    let shown = json(&bench, &["queues", "show", "q"]);
    let numbers = ["ready", "parked", "scheduled", "inflight"].map(|name| shown[name].as_u64().unwrap());
    assert_eq!(numbers, [0, 0, 0, 3]);
    assert_eq!(shown["totals"]["purged"], 6);
    for id in ["ready", "ready-9", "parked-1", "later-1"] {
        assert!(bench.store.job(&JobId::from(id)).await.unwrap().is_none(), "{id}");
    }
    bench.check().await;
    // The key is free, and so is the limit: a new job of it waits for the one that runs, not for ghosts.
    let again = NewJob { idempotency_key: Some("once".to_owned()), ..job("again", "q") };
    assert!(bench.store.enqueue(&[again]).await.unwrap()[0].is_new);
    assert!(run(&bench, &["queues", "purge", "q", "--state", "parked"]).ok().contains("has nothing to remove"));
}

/// The same id twice, as another program may push it: one of the two was handed out.
#[tokio::test]
async fn a_second_entry_of_a_job_that_runs_goes_and_the_job_runs_on() {
    let mut bench = filled().await;
    let ready = bench.key("q", "ready");
    bench.raw::<i64>(&["RPUSH", &ready, "held-1"]).await;
    let removed = json(&bench, &["queues", "purge", "q", "--state", "ready", "--yes"]);
    assert_eq!(removed["removed"], serde_json::json!({ "ready": 2 }));
    assert_eq!(bench.field("held-1", "status").await, "inflight");
    bench.check().await;
}

#[tokio::test]
async fn only_the_states_that_were_named_are_purged() {
    let mut bench = filled().await;
    let removed = json(&bench, &["queues", "purge", "q", "--state", "scheduled", "--yes"]);
    assert_eq!(removed["removed"], serde_json::json!({ "scheduled": 2 }));
    let removed = json(&bench, &["queues", "purge", "q", "--state", "parked", "--yes"]);
    assert_eq!(removed["removed"], serde_json::json!({ "parked": 2 }));
    assert_eq!(json(&bench, &["queues", "show", "q"])["ready"], 2);
    assert!(run(&bench, &["queues", "purge", "q", "--state", "inflight", "--yes"]).fails(2).contains("inflight"));
    assert!(run(&bench, &["queues", "purge", "q", "--state", "redy", "--yes"]).fails(2).contains("ready"));
    bench.check().await;
}

#[tokio::test]
async fn a_long_queue_goes_in_batches_and_history_keeps_its_idempotency_keys() {
    let mut bench = Bench::new().await;
    let once = NewJob { idempotency_key: Some("once".to_owned()), ..job("first", "q") };
    bench.store.enqueue(std::slice::from_ref(&once)).await.unwrap();
    let held = take_one(&bench.store, "q").await;
    end(&bench.store, &held, done("42")).await;
    many_dead(&mut bench, "q", 1100).await;
    let jobs: Vec<NewJob> = (0..1300).map(|n| job(&format!("r{n}"), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let removed =
        json(&bench, &["queues", "purge", "q", "--state", "ready", "--state", "dlq", "--state", "done", "--yes"]);
    assert_eq!(removed["removed"], serde_json::json!({ "ready": 1300, "dlq": 1100, "done": 1 }));
    assert!(bench.store.job(&JobId::from("first")).await.unwrap().is_none());
    let second = NewJob { id: Some(JobId::from("second")), ..once };
    assert!(!bench.store.enqueue(&[second]).await.unwrap()[0].is_new, "what is done is not done twice");
    bench.check().await;
}
