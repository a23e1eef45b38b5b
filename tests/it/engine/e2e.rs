//! Whole lives of jobs.

use wasmhost::job::JobState;
use wasmhost::store::Settled;

use super::{Bench, done, end, job, take_one};

#[tokio::test]
async fn a_job_is_enqueued_reserved_and_done() {
    let mut bench = Bench::new().await;
    let enqueued = bench.store.enqueue(&[job("a", "mail")]).await.unwrap();
    assert!(enqueued[0].is_new);
    let reserved = take_one(&bench.store, "mail").await;
    assert_eq!((reserved.job_type.as_str(), reserved.payload.as_slice()), ("echo", b"{}".as_slice()));
    assert_eq!((reserved.attempt(), reserved.deliveries), (1, 1));
    assert_eq!(end(&bench.store, &reserved, done("42")).await, Settled::Applied);
    let record = bench.store.job(&reserved.id).await.unwrap().unwrap();
    assert_eq!(record.state(), Some(JobState::Done));
    assert_eq!(record.text("result").as_deref(), Some("42"));
    bench.check().await;
}

/// What `redis-cli` alone can do: HSET of four fields, RPUSH.
#[tokio::test]
async fn a_minimal_foreign_job_runs() {
    let mut bench = Bench::new().await;
    bench.foreign("mail", "f1", &[]).await;
    let reserved = take_one(&bench.store, "mail").await;
    assert_eq!(reserved.id.as_bytes(), b"f1");
    assert_eq!((reserved.attempts, reserved.max_attempts, reserved.timeout), (0, 5, None));
    assert_eq!(end(&bench.store, &reserved, done("")).await, Settled::Applied);
    assert_eq!(bench.field("f1", "status").await, "done");
    bench.check().await;
}
