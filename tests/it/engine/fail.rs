//! The bad end: the dead-letter queue.

use wasmhost::job::{JobId, JobState, NewJob};
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
async fn a_failure_with_another_token_is_a_mismatch() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let mut stranger = take_one(&bench.at(0), "q").await;
    stranger.token = "wrong".to_owned();
    assert_eq!(end(&bench.at(1), &stranger, dlq(1, "x")).await, Settled::LeaseLost(Lost::Mismatch));
    assert_eq!(
        (bench.field("a", "status").await, bench.field("a", "dlq_reason").await),
        ("inflight".into(), "".into())
    );
}

/// Past the end of the lease the time is told before the token.
#[tokio::test]
async fn a_failure_after_the_end_is_expired() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    let mut stranger = reserved.clone();
    stranger.token = "wrong".to_owned();
    for late in [&reserved, &stranger] {
        let answer = end(&bench.at(30_000), late, dlq(1, "x")).await;
        assert_eq!(answer, Settled::LeaseLost(Lost::Expired), "`{}`", late.token);
    }
}

#[tokio::test]
async fn a_job_that_is_not_in_flight_is_not_failed() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let mut reserved = take_one(&bench.at(0), "q").await;
    bench.at(30_000).sweep(&["q".to_owned()]).await.unwrap();
    for id in ["a", "nobody"] {
        reserved.id = JobId::from(id);
        assert_eq!(end(&bench.at(30_001), &reserved, dlq(1, "x")).await, Settled::LeaseLost(Lost::NotInflight), "{id}");
    }
    bench.check().await;
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

/// Ids whose row is gone, or was brought back by a program that left them here, do not keep the old rows behind them.
#[tokio::test]
async fn an_old_dead_row_goes_although_an_id_without_a_row_stands_before_it() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("old", "q"), job("alive", "q")]).await.unwrap();
    let held = take(&bench.at(0), "q", 2).await;
    assert_eq!(end(&bench.at(1), &held[0], dlq(1, "x")).await, Settled::Applied);
    let (dlq_key, text) = (bench.key("q", "dlq"), bench.job_key("text"));
    bench.raw::<()>(&["SET", &text, "not a hash"]).await;
    bench.raw::<i64>(&["LPUSH", &dlq_key, "gone", "alive", "text"]).await;
    let swept = bench.at(2).sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!((swept.dropped, swept.is_more), (3, false), "at once: there is nothing to keep of them");
    assert_eq!(bench.raw::<String>(&["GET", &text]).await, "not a hash");
    assert_eq!(bench.field("alive", "status").await, "inflight");
    bench.raw::<i64>(&["DEL", &text]).await;
    bench.raw::<i64>(&["LPUSH", &dlq_key, "gone"]).await;
    let month = 31 * 86_400_000;
    assert_eq!(bench.at(month).sweep(&["q".to_owned()]).await.unwrap().dropped, 2);
    assert!(bench.store.job(&JobId::from("old")).await.unwrap().is_none());
    bench.check().await;
}

/// TaskHarbor writes the time of death through a Lua number; older programs do not write it at all.
#[tokio::test]
async fn the_age_of_a_dead_row_is_found_however_it_was_written() {
    let mut bench = Bench::new().await;
    let (long_ago, key) = (moment(-31 * 86_400_000).nanos().to_string(), bench.key("q", "dlq"));
    let float = format!("{}.{}e+18", &long_ago[..1], &long_ago[1..14]);
    let cases: [(&str, &str, &str); 4] = [
        ("float", "dlq_failed_at_nano", &float),
        ("failed", "failed_at_nano", &long_ago),
        ("created", "created_at_nano", &long_ago),
        ("silent", "last_error", "no time at all"),
    ];
    for (id, field, value) in cases {
        let row = bench.job_key(id);
        bench.raw::<i64>(&["HSET", &row, "type", "echo", "queue", "q", "status", "dlq", field, value]).await;
        bench.raw::<i64>(&["RPUSH", &key, id]).await;
    }
    assert_eq!(bench.at(0).sweep(&["q".to_owned()]).await.unwrap().dropped, 3);
    assert_eq!(bench.field("silent", "dlq_failed_at_nano").await, moment(0).nanos().to_string(), "its days begin now");
    assert_eq!(bench.at(31 * 86_400_000).sweep(&["q".to_owned()]).await.unwrap().dropped, 1);
    bench.check().await;
}

/// A million ids, as a program that never trims leaves them: paged, and brought under the cap in bounded steps.
#[tokio::test]
async fn a_dlq_of_a_million_ids_is_paged_and_shrinks() {
    let mut bench = Bench::new().await;
    let key = bench.key("q", "dlq");
    let fill = "local t = {} for n = 1, 5000 do t[n] = ARGV[1] .. n end redis.call('RPUSH', KEYS[1], unpack(t))";
    for n in 0..200 {
        bench.raw::<()>(&["EVAL", fill, "1", &key, &format!("{n}-")]).await;
    }
    bench.store.enqueue(&[job("last", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, dlq(1, "x")).await;
    let page = bench.store.jobs(Some("q"), Some(JobState::Dlq), None, 10).await.unwrap();
    assert_eq!((page.jobs.len(), page.next.is_some()), (1, true), "the newest first; the others have no row");
    let swept = bench.store.sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!((swept.dropped, swept.is_more), (50, true));
    bench.raw::<()>(&["LTRIM", &key, "-1", "-1"]).await;
    bench.check().await;
}
