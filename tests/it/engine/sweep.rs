//! Housekeeping: what is due comes back, in bounded steps.

use wasmhost::job::NewJob;

use super::{Bench, done, end, job, moment, take, take_one};

fn q() -> [String; 1] {
    ["q".to_owned()]
}

#[tokio::test]
async fn reclaimed_jobs_go_to_the_head_in_their_old_order() {
    let mut bench = Bench::new().await;
    let jobs: Vec<NewJob> = ["a", "b", "c", "d"].map(|id| job(id, "q")).into();
    bench.at(0).enqueue(&jobs).await.unwrap();
    take_one(&bench.at(0), "q").await;
    take_one(&bench.at(1), "q").await;
    let swept = bench.at(40_000).sweep(&q()).await.unwrap();
    assert_eq!((swept.reclaimed, swept.promoted, swept.is_more), (2, 0, false));
    let ready: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "ready"), "0", "-1"]).await;
    assert_eq!(ready, ["a", "b", "c", "d"]);
    bench.check().await;
}

/// A job that kills every worker that takes it.
#[tokio::test]
async fn a_poison_job_is_dead_after_its_deliveries() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[NewJob { max_attempts: Some(4), ..job("a", "q") }, job("good", "q")]).await.unwrap();
    let mut deliveries = 0;
    for round in 0..10 {
        let now = bench.at(round * 31_000);
        for reserved in take(&now, "q", 10).await {
            if reserved.id.as_bytes() == b"a" {
                deliveries += 1;
            } else {
                end(&now, &reserved, done("")).await;
            }
        }
    }
    assert_eq!(deliveries, 4);
    assert_eq!(bench.field("a", "status").await, "dlq");
    assert!(bench.field("a", "dlq_reason").await.contains("handed out 4 times"));
    assert_eq!(bench.field("good", "status").await, "done");
    bench.check().await;
}

/// One lost worker is no reason to give up a job that may run only once.
#[tokio::test]
async fn a_job_of_one_attempt_survives_two_lost_workers() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[NewJob { max_attempts: Some(1), ..job("a", "q") }]).await.unwrap();
    for round in 0..3 {
        assert_eq!(take(&bench.at(round * 31_000), "q", 1).await.len(), 1, "delivery {}", round + 1);
    }
    assert!(take(&bench.at(3 * 31_000), "q", 1).await.is_empty());
    assert_eq!(bench.field("a", "status").await, "dlq");
    bench.check().await;
}

#[tokio::test]
async fn a_large_backlog_comes_back_in_bounded_steps() {
    let mut bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..350).map(|n| job(&n.to_string(), "q")).collect();
    bench.at(0).enqueue(&jobs).await.unwrap();
    assert_eq!(take(&bench.at(0), "q", 256).await.len() + take(&bench.at(0), "q", 256).await.len(), 350);
    let later = bench.at(60_000);
    let mut steps = Vec::new();
    loop {
        let swept = later.sweep(&q()).await.unwrap();
        steps.push(swept.reclaimed);
        if !swept.is_more {
            break;
        }
    }
    assert_eq!(steps, [100, 100, 100, 50]);
    bench.check().await;
}

#[tokio::test]
async fn the_next_due_time_is_known() {
    let bench = Bench::new().await;
    assert_eq!(bench.at(0).sweep(&q()).await.unwrap().next_due_ms, None);
    bench.at(0).enqueue(&[NewJob { run_at: Some(moment(90_000)), ..job("later", "q") }, job("a", "q")]).await.unwrap();
    assert_eq!(bench.at(0).sweep(&q()).await.unwrap().next_due_ms, Some(moment(90_000).millis() + 1));
    take_one(&bench.at(0), "q").await;
    assert_eq!(bench.at(0).sweep(&q()).await.unwrap().next_due_ms, Some(moment(30_000).millis()));
}

/// The layout of the first TaskHarbor: nanosecond scores and bare ids.
#[tokio::test]
async fn the_first_encoding_is_understood() {
    let mut bench = Bench::new().await;
    let (scheduled, inflight) = (bench.key("q", "scheduled"), bench.key("q", "inflight"));
    for (id, status) in [("s", "ready"), ("l", "inflight")] {
        let key = bench.job_key(id);
        bench.raw::<i64>(&["HSET", &key, "type", "echo", "queue", "q", "payload", "{}", "status", status]).await;
    }
    let due = moment(1_000).nanos().to_string();
    bench.raw::<i64>(&["ZADD", &scheduled, &due, "s"]).await;
    bench.raw::<i64>(&["ZADD", &inflight, &due, "l"]).await;
    let early = bench.at(0).sweep(&q()).await.unwrap();
    assert_eq!((early.reclaimed, early.promoted), (0, 0));
    let next = early.next_due_ms.unwrap();
    assert!((next - moment(1_000).millis()).abs() <= 1, "{next}");
    let swept = bench.at(2_000).sweep(&q()).await.unwrap();
    assert_eq!((swept.reclaimed, swept.promoted), (1, 1));
    bench.check().await;
    assert_eq!(take(&bench.at(2_000), "q", 5).await.len(), 2);
}

#[tokio::test]
async fn entries_that_fit_nothing_are_removed_and_kept_aside() {
    let mut bench = Bench::new().await;
    let (scheduled, inflight) = (bench.key("q", "scheduled"), bench.key("q", "inflight"));
    for member in ["bare", "-00000001:x", "12345:y", "000000000:ghost"] {
        bench.raw::<i64>(&["ZADD", &scheduled, "1000", member]).await;
    }
    bench.raw::<i64>(&["ZADD", &inflight, "1000", "ghost2"]).await;
    let dead = bench.job_key("dead");
    bench.raw::<i64>(&["HSET", &dead, "type", "echo", "queue", "q", "status", "dlq"]).await;
    bench.raw::<i64>(&["RPUSH", &bench.key("q", "dlq"), "dead"]).await;
    bench.raw::<i64>(&["ZADD", &inflight, "1000", "dead"]).await;
    let swept = bench.store.sweep(&q()).await.unwrap();
    let mut ids: Vec<String> = swept.set_aside.iter().map(|aside| aside.id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["-00000001:x", "12345:y", "bare", "ghost", "ghost2"]);
    let aside: i64 = bench.raw(&["LLEN", &bench.key("q", "aside")]).await;
    assert_eq!(aside, 5);
    assert!(take(&bench.store, "q", 5).await.is_empty());
    bench.check().await;
}

#[tokio::test]
async fn the_end_of_a_lease_is_its_score_whatever_the_hash_says() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    let key = bench.job_key("a");
    bench.raw::<i64>(&["HSET", &key, "lease_expires_at_nano", ""]).await;
    bench.raw::<i64>(&["ZADD", &bench.key("q", "inflight"), "1000", "a"]).await;
    let late = end(&bench.store, &reserved, done("")).await;
    assert_eq!(late, wasmhost::store::Settled::LeaseLost(wasmhost::store::Lost::Expired));
    assert_eq!(bench.store.sweep(&q()).await.unwrap().reclaimed, 1);
    bench.check().await;
}
