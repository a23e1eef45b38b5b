//! Cancelling: scheduled, ready, parked, running; and what comes after.

use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::{Cancelled, Lost, Settled};

use super::{Bench, done, end, job, take, take_one};

#[tokio::test]
async fn a_waiting_job_that_is_cancelled_is_never_handed_out() {
    let mut bench = Bench::new().await;
    let later = NewJob { run_at: Some(super::moment(1_000_000_000)), ..job("later", "q") };
    bench.store.enqueue(&[job("a", "q"), job("b", "q"), later]).await.unwrap();
    for (id, state) in [("a", JobState::Ready), ("later", JobState::Scheduled)] {
        let cancelled = bench.store.cancel("q", &JobId::from(id), "not wanted").await.unwrap();
        assert_eq!(cancelled, Cancelled::Applied(state));
        assert_eq!(bench.field(id, "status").await, "cancelled");
        assert_eq!(bench.field(id, "last_error").await, "not wanted");
        let ttl: i64 = bench.raw(&["TTL", &bench.job_key(id)]).await;
        assert!(ttl > 0, "a cancelled row has an end");
    }
    let jobs = take(&bench.store, "q", 9).await;
    assert_eq!(jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(bench.raw::<i64>(&["ZCARD", &bench.key("q", "scheduled")]).await, 0);
    bench.check().await;
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_can_commit_nothing_any_more() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    let cancelled = bench.store.cancel("q", &JobId::from("a"), "stop").await.unwrap();
    assert_eq!(cancelled, Cancelled::Applied(JobState::Inflight));
    assert_eq!(end(&bench.store, &reserved, done("late")).await, Settled::LeaseLost(Lost::NotInflight));
    assert_eq!(bench.field("a", "status").await, "cancelled");
    assert_eq!(bench.raw::<i64>(&["ZCARD", &bench.key("q", "inflight")]).await, 0);
    bench.check().await;
}

#[tokio::test]
async fn what_has_ended_or_is_elsewhere_is_not_cancelled() {
    let bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let other = bench.store.cancel("p", &JobId::from("a"), "").await.unwrap();
    assert_eq!(other, Cancelled::OtherQueue("q".into()));
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, done("")).await;
    assert_eq!(bench.store.cancel("q", &JobId::from("a"), "").await.unwrap(), Cancelled::Ended("done".into()));
    assert_eq!(bench.store.cancel("q", &JobId::from("b"), "").await.unwrap(), Cancelled::NotFound);
}

#[tokio::test]
async fn in_a_very_long_list_a_cancelled_id_stays_until_its_turn_and_is_dropped_then() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let ready = bench.key("q", "ready");
    let fill = "for n = 1, 10001 do redis.call('RPUSH', KEYS[1], 'ghost' .. n) end";
    bench.raw::<redis::Value>(&["EVAL", fill, "1", &ready]).await;
    bench.store.cancel("q", &JobId::from("a"), "").await.unwrap();
    assert_eq!(bench.raw::<i64>(&["LLEN", &ready]).await, 10_002);
    assert_eq!(bench.raw::<i64>(&["TTL", &bench.job_key("a")]).await, -1, "its id would become a ghost");
    bench.raw::<String>(&["LTRIM", &ready, "0", "0"]).await;
    assert!(take(&bench.store, "q", 1).await.is_empty());
    assert!(bench.raw::<i64>(&["TTL", &bench.job_key("a")]).await > 0);
    assert_eq!(bench.raw::<i64>(&["LLEN", &bench.key("q", "aside")]).await, 0, "nothing is odd about it");
}

#[tokio::test]
async fn the_newest_job_of_a_key_supersedes_those_that_wait() {
    let mut bench = Bench::new().await;
    let keyed = |id: &str| NewJob { supersede_key: Some("page-1".into()), ..job(id, "q") };
    bench.store.enqueue(&[keyed("a")]).await.unwrap();
    let running = take_one(&bench.store, "q").await;
    bench.store.enqueue(&[keyed("b"), job("x", "q")]).await.unwrap();
    let later = NewJob { run_at: Some(super::moment(1_000_000_000)), ..keyed("c") };
    bench.store.enqueue(&[later]).await.unwrap();
    assert_eq!(bench.field("b", "status").await, "cancelled");
    assert_eq!(bench.field("b", "last_error").await, "superseded by job `c` of the same key");
    bench.store.enqueue(&[keyed("d")]).await.unwrap();
    assert_eq!(bench.field("c", "status").await, "cancelled");
    assert_eq!(end(&bench.store, &running, done("")).await, Settled::Applied, "what runs is left alone");
    let jobs = take(&bench.store, "q", 9).await;
    assert_eq!(jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), ["x", "d"]);
    assert_eq!(bench.raw::<i64>(&["ZCARD", &bench.key("q", "scheduled")]).await, 0);
    bench.check().await;
}
