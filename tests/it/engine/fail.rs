//! The bad end: the dead-letter queue.

use wasmhost::job::{JobState, NewJob};
use wasmhost::store::{Lost, Settle, Settled};

use super::{Bench, dlq, end, job, moment, settle, take, take_one};

#[tokio::test]
async fn a_dead_job_lies_in_the_dlq_and_is_not_handed_out() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    assert_eq!(end(&bench.at(5), &reserved, dlq(1, "rejected")).await, Settled::Applied);
    for (field, value) in [("status", "dlq"), ("dlq_reason", "rejected"), ("attempts", "1"), ("lease_token", "")] {
        assert_eq!(bench.field("a", field).await, value, "{field}");
    }
    // A plain integer, where TaskHarbor's own script writes a floating point number.
    assert_eq!(bench.field("a", "dlq_failed_at_nano").await, moment(5).nanos().to_string());
    let ids: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "dlq"), "0", "-1"]).await;
    assert_eq!(ids, ["a"]);
    assert!(take(&bench.at(600_000), "q", 1).await.is_empty(), "ten minutes later neither");
    assert_eq!(end(&bench.at(6), &reserved, dlq(1, "again")).await, Settled::Repeated);
    assert_eq!(bench.field("a", "dlq_reason").await, "rejected");
    bench.check().await;
}

#[tokio::test]
async fn an_empty_reason_becomes_a_word() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, dlq(1, "")).await;
    assert_eq!(bench.field("a", "dlq_reason").await, "failed");
}

#[tokio::test]
async fn a_failure_that_lost_its_lease_says_how() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    let mut stranger = reserved.clone();
    stranger.token = "wrong".to_owned();
    assert_eq!(end(&bench.at(1), &stranger, dlq(1, "x")).await, Settled::LeaseLost(Lost::Mismatch));
    assert_eq!(end(&bench.at(30_000), &stranger, dlq(1, "x")).await, Settled::LeaseLost(Lost::Expired));
    assert_eq!(end(&bench.at(30_000), &reserved, dlq(1, "x")).await, Settled::LeaseLost(Lost::Expired));
    bench.at(30_000).sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!(end(&bench.at(30_001), &reserved, dlq(1, "x")).await, Settled::LeaseLost(Lost::NotInflight));
}

#[tokio::test]
async fn the_dlq_is_capped_and_what_it_drops_is_counted() {
    let mut bench = Bench::new().await;
    // A list that another program filled to the brim; its rows are gone.
    let key = bench.key("q", "dlq");
    let mut pipe = redis::pipe();
    for n in 0..10_000 {
        pipe.cmd("RPUSH").arg(&key).arg(format!("old{n}")).ignore();
    }
    pipe.query_async::<()>(&mut bench.raw).await.unwrap();
    let jobs: Vec<NewJob> = (0..5).map(|n| job(&n.to_string(), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let held = take(&bench.store, "q", 5).await;
    let ends: Vec<Settle> = held.iter().map(|job| settle(job, dlq(1, "x"))).collect();
    bench.store.turn(&ends, None).await.unwrap();
    let info = bench.store.queues().await.unwrap();
    assert_eq!(info[0].dlq, 10_000);
    assert!(info[0].counters.contains(&("dlq_dropped".to_owned(), 5)), "{:?}", info[0].counters);
    let page = bench.store.jobs(Some("q"), Some(JobState::Dlq), None, 10).await.unwrap();
    assert_eq!(page.jobs[0].text("status").as_deref(), Some("dlq"), "the newest are listed first");
}

#[tokio::test]
async fn a_dead_row_goes_after_thirty_days() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    end(&bench.at(1), &reserved, dlq(1, "x")).await;
    let day = 86_400_000;
    let queues = ["q".to_owned()];
    assert_eq!(bench.at(29 * day).sweep(&queues).await.unwrap().dropped, 0);
    assert_eq!(bench.at(31 * day).sweep(&queues).await.unwrap().dropped, 1);
    assert!(bench.store.job(&reserved.id).await.unwrap().is_none());
    bench.check().await;
}
