//! Whole lives of jobs.

use std::time::Duration;

use wasmhost::job::{JobState, NewJob};
use wasmhost::store::{OfDead, Settled};

use super::{Bench, dlq, done, end, job, moment, retry, take, take_one};

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
    assert_eq!((reserved.attempts, reserved.retry.executions(), reserved.timeout), (0, 5, None));
    assert_eq!(end(&bench.store, &reserved, done("")).await, Settled::Applied);
    assert_eq!(bench.field("f1", "status").await, "done");
    bench.check().await;
}

#[tokio::test]
async fn a_scheduled_job_fails_waits_and_is_done() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[NewJob { run_at: Some(moment(1_000)), ..job("a", "mail") }]).await.unwrap();
    assert!(take(&bench.at(999), "mail", 1).await.is_empty());
    let first = take_one(&bench.at(1_000), "mail").await;
    assert_eq!(end(&bench.at(1_010), &first, retry(1, Duration::from_millis(500))).await, Settled::Applied);
    assert!(take(&bench.at(1_509), "mail", 1).await.is_empty());
    let second = take_one(&bench.at(1_510), "mail").await;
    assert_eq!((second.attempt(), second.deliveries), (2, 2));
    assert_ne!(second.token, first.token);
    assert_eq!(end(&bench.at(1_520), &second, done("ok")).await, Settled::Applied);
    let record = bench.store.job(&second.id).await.unwrap().unwrap();
    assert_eq!((record.state(), record.text("last_error").as_deref()), (Some(JobState::Done), Some("no luck")));
    bench.check().await;
}

#[tokio::test]
async fn a_dead_job_is_found_in_the_list_brought_back_and_done() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "mail")]).await.unwrap();
    let reserved = take_one(&bench.store, "mail").await;
    end(&bench.store, &reserved, dlq(1, "rejected")).await;
    let listed = bench.store.jobs(Some("mail"), Some(JobState::Dlq), None, 10).await.unwrap().jobs;
    let id = listed[0].id.clone().unwrap();
    assert_eq!(listed[0].text("dlq_reason").as_deref(), Some("rejected"));
    assert_eq!(bench.store.requeue("mail", &id, None, false).await.unwrap(), OfDead::Applied);
    let again = take_one(&bench.store, "mail").await;
    assert_eq!(end(&bench.store, &again, done("")).await, Settled::Applied);
    assert_eq!(bench.field("a", "status").await, "done");
    bench.check().await;
}
