//! Failed attempts that run again.

use std::time::Duration;

use wasmhost::job::JobId;
use wasmhost::store::{Lost, Settled};

use super::{Bench, dlq, done, end, job, moment, retry, take, take_one};

#[tokio::test]
async fn a_retry_keeps_what_failed_and_waits_for_its_time() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    assert_eq!(end(&bench.at(100), &reserved, retry(1, Duration::from_secs(2))).await, Settled::Applied);
    for (field, value) in
        [("status", "scheduled"), ("attempts", "1"), ("last_error", "no luck"), ("error_kind", "failed")]
    {
        assert_eq!(bench.field("a", field).await, value, "{field}");
    }
    // To the nanosecond, as text: no Lua number was on the way.
    assert_eq!(bench.field("a", "failed_at_nano").await, moment(100).nanos().to_string());
    assert_eq!(bench.field("a", "run_at_nano").await, moment(2_100).nanos().to_string());
    assert!(take(&bench.at(2_099), "q", 1).await.is_empty());
    let again = take_one(&bench.at(2_100), "q").await;
    assert_eq!((again.attempts, again.attempt(), again.deliveries), (1, 2, 2));
    bench.check().await;
}

#[tokio::test]
async fn a_retry_without_delay_goes_to_the_tail_at_once() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q"), job("b", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, retry(1, Duration::ZERO)).await;
    let ready: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "ready"), "0", "-1"]).await;
    assert_eq!(ready, ["b", "a"]);
    bench.check().await;
}

#[tokio::test]
async fn a_retry_with_another_token_is_a_mismatch() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let mut stranger = take_one(&bench.at(0), "q").await;
    stranger.token = "wrong".to_owned();
    assert_eq!(end(&bench.at(1), &stranger, retry(1, Duration::ZERO)).await, Settled::LeaseLost(Lost::Mismatch));
    assert_eq!((bench.field("a", "status").await, bench.field("a", "attempts").await), ("inflight".into(), "".into()));
}

/// Past the end of the lease the time is told before the token.
#[tokio::test]
async fn a_retry_after_the_end_is_expired() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    let mut stranger = reserved.clone();
    stranger.token = "wrong".to_owned();
    for late in [&reserved, &stranger] {
        let answer = end(&bench.at(30_000), late, retry(1, Duration::ZERO)).await;
        assert_eq!(answer, Settled::LeaseLost(Lost::Expired), "`{}`", late.token);
    }
}

#[tokio::test]
async fn a_job_that_is_not_in_flight_is_not_retried() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let mut reserved = take_one(&bench.at(0), "q").await;
    bench.at(30_000).sweep(&["q".to_owned()]).await.unwrap();
    for id in ["a", "nobody"] {
        reserved.id = JobId::from(id);
        let answer = end(&bench.at(30_001), &reserved, retry(1, Duration::ZERO)).await;
        assert_eq!(answer, Settled::LeaseLost(Lost::NotInflight), "{id}");
    }
    bench.check().await;
}

#[tokio::test]
async fn a_done_job_is_not_retried() {
    let bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, done("")).await;
    let mut other = reserved.clone();
    other.token = "other".to_owned();
    assert_eq!(end(&bench.store, &other, retry(1, Duration::ZERO)).await, Settled::LeaseLost(Lost::NotInflight));
    assert!(take(&bench.store, "q", 1).await.is_empty());
}

/// A job with three attempts as a worker drives it: two retries, then the DLQ.
#[tokio::test]
async fn a_job_that_always_fails_ends_in_the_dlq() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    for failed in 1..=3 {
        let reserved = take_one(&bench.store, "q").await;
        assert_eq!(reserved.attempt(), failed);
        let outcome = if failed < 3 { retry(failed, Duration::ZERO) } else { dlq(failed, "no attempt is left") };
        assert_eq!(end(&bench.store, &reserved, outcome).await, Settled::Applied);
    }
    assert!(take(&bench.store, "q", 1).await.is_empty());
    let record = bench.store.job(&JobId::from("a")).await.unwrap().unwrap();
    assert_eq!((record.attempts(), record.text("dlq_reason").as_deref()), (3, Some("no attempt is left")));
    bench.check().await;
}
