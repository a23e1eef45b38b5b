//! Priorities, pause, and limits of a queue: its concurrency, its capacity, and by key.

use std::collections::HashMap;
use std::time::Duration;

use wasmhost::job::{JobId, NewJob, Reserved};
use wasmhost::store::{Error, OnFull, QueueChange, Settled};

use super::{Bench, ask, done, end, job, retry, settle, take, take_one};

fn ids(jobs: &[Reserved]) -> Vec<String> {
    jobs.iter().map(|job| job.id.to_string()).collect()
}

fn keyed(id: &str, key: &str) -> NewJob {
    NewJob { limit_key: Some(key.to_owned()), ..job(id, "q") }
}

async fn set(bench: &Bench, change: QueueChange) {
    bench.store.set_queue("q", &change).await.unwrap();
}

fn key_concurrency(n: u32) -> QueueChange {
    QueueChange { key_concurrency: Some(Some(n)), ..QueueChange::default() }
}

#[tokio::test]
async fn priorities_come_before_all_others_and_nine_is_first() {
    let mut bench = Bench::new().await;
    let with = |id: &str, priority| NewJob { priority, ..job(id, "q") };
    let jobs = [
        with("plain", None),
        with("zero", Some(0)),
        with("five", Some(5)),
        with("nine", Some(9)),
        with("five2", Some(5)),
    ];
    bench.store.enqueue(&jobs).await.unwrap();
    assert_eq!(ids(&take(&bench.store, "q", 2).await), ["nine", "five"]);
    assert_eq!(ids(&take(&bench.store, "q", 9).await), ["five2", "zero", "plain"]);
    bench.check().await;
}

#[tokio::test]
async fn a_job_keeps_its_priority_through_retry_release_and_schedule() {
    let mut bench = Bench::new().await;
    let urgent = NewJob { priority: Some(7), ..job("urgent", "q") };
    bench.at(0).enqueue(&[job("plain", "q"), urgent]).await.unwrap();
    for end_of_attempt in [retry(1, Duration::ZERO), wasmhost::store::End::Release, retry(2, Duration::from_millis(50))]
    {
        let taken = bench.at(10).turn(&[], Some(&ask("q", 1))).await.unwrap().reserved.jobs.remove(0);
        assert_eq!(taken.id, JobId::from("urgent"));
        assert_eq!(end(&bench.at(11), &taken, end_of_attempt).await, Settled::Applied);
    }
    assert_eq!(ids(&take(&bench.at(1_000), "q", 1).await), ["urgent"]);
    bench.check().await;
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_until_it_is_resumed() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let paused = QueueChange { paused: Some(true), ..QueueChange::default() };
    assert!(bench.store.set_queue("q", &paused).await.unwrap().paused_since.is_some());
    let reserved = bench.store.turn(&[], Some(&ask("q", 5))).await.unwrap().reserved;
    assert_eq!((reserved.jobs.len(), reserved.closed.as_slice(), reserved.is_more), (0, &["q".to_owned()][..], false));
    let resumed = QueueChange { paused: Some(false), ..QueueChange::default() };
    assert_eq!(bench.store.set_queue("q", &resumed).await.unwrap().paused_since, None);
    assert_eq!(ids(&take(&bench.store, "q", 5).await), ["a"]);
    bench.check().await;
}

#[tokio::test]
async fn the_concurrency_of_a_queue_holds_for_all_its_workers_together() {
    let mut bench = Bench::new().await;
    set(&bench, QueueChange { concurrency: Some(Some(3)), ..QueueChange::default() }).await;
    bench.store.enqueue(&(0..6).map(|n| job(&n.to_string(), "q")).collect::<Vec<_>>()).await.unwrap();
    let first = take(&bench.store, "q", 2).await;
    let reserved = bench.store.turn(&[], Some(&ask("q", 5))).await.unwrap().reserved;
    assert_eq!((ids(&reserved.jobs), reserved.closed.len()), (vec!["2".to_owned()], 1));
    assert!(take(&bench.store, "q", 5).await.is_empty());
    end(&bench.store, &first[0], done("")).await;
    assert_eq!(ids(&take(&bench.store, "q", 5).await), ["3"]);
    bench.check().await;
}

#[tokio::test]
async fn a_job_over_the_limit_of_its_key_waits_outside_and_blocks_no_other_key() {
    let mut bench = Bench::new().await;
    set(&bench, key_concurrency(1)).await;
    let mut jobs: Vec<NewJob> = (0..300).map(|n| keyed(&format!("hot{n}"), "hot")).collect();
    jobs.push(keyed("cool", "cool"));
    jobs.push(job("plain", "q"));
    bench.store.enqueue(&jobs).await.unwrap();
    let taken = take(&bench.store, "q", 100).await;
    assert_eq!(ids(&taken), ["hot0", "plain", "cool"], "one call gets past three hundred jobs of a hot key");
    assert_eq!(bench.raw::<i64>(&["LLEN", &bench.key("q", "ready")]).await, 0);
    assert_eq!(bench.raw::<i64>(&["LLEN", &bench.key("q", "parked:hot")]).await, 299);
    end(&bench.store, &taken[0], done("")).await;
    assert_eq!(ids(&take(&bench.store, "q", 100).await), ["hot1"], "its end lets the next one in");
    bench.check().await;
}

#[tokio::test]
async fn jobs_of_one_key_in_one_call_are_counted_one_by_one() {
    let mut bench = Bench::new().await;
    set(&bench, key_concurrency(2)).await;
    let jobs = [("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a"), ("b2", "b"), ("b3", "b"), ("c1", "c")];
    bench.store.enqueue(&jobs.map(|(id, key)| keyed(id, key))).await.unwrap();
    let taken = take(&bench.store, "q", 9).await;
    assert_eq!(ids(&taken), ["a1", "b1", "a2", "b2", "c1"]);
    assert_eq!(bench.raw::<String>(&["HGET", &bench.key("q", "keys"), "a"]).await, "2 1 0", "two run, one is parked");
    // All of them end in one call: both of a key give their slots back, and the parked ones take one.
    let ends: Vec<_> = taken.iter().map(|job| settle(job, done(""))).collect();
    bench.store.turn(&ends, None).await.unwrap();
    let last = take(&bench.store, "q", 9).await;
    assert_eq!(ids(&last), ["a3", "b3"]);
    let ends: Vec<_> = last.iter().map(|job| settle(job, done(""))).collect();
    bench.store.turn(&ends, None).await.unwrap();
    for name in ["keys", "slots"] {
        assert_eq!(bench.raw::<Vec<String>>(&["HKEYS", &bench.key("q", name)]).await, [""], "only its padding is left");
    }
    bench.check().await;
}

#[tokio::test]
async fn a_slot_survives_its_worker_and_is_given_back_at_every_kind_of_end() {
    let mut bench = Bench::new().await;
    set(&bench, key_concurrency(1)).await;
    let jobs: Vec<NewJob> = ["a", "b", "c", "d"].iter().map(|id| keyed(id, "k")).collect();
    bench.at(0).enqueue(&jobs).await.unwrap();
    assert_eq!(ids(&take(&bench.at(0), "q", 9).await), ["a"]);
    // The worker dies: the job itself is the next one of its key, and nobody else is let in meanwhile.
    let late = 31_000;
    let again = take(&bench.at(late), "q", 9).await;
    assert_eq!(ids(&again), ["a"]);
    assert!(take(&bench.at(late), "q", 9).await.is_empty());
    end(&bench.at(late), &again[0], super::dlq(1, "no")).await;
    let b = take(&bench.at(late), "q", 9).await;
    assert_eq!(ids(&b), ["b"]);
    end(&bench.at(late), &b[0], retry(1, Duration::from_secs(60))).await;
    let c = take(&bench.at(late), "q", 9).await;
    assert_eq!(ids(&c), ["c"], "a retry gives the slot back while it waits");
    bench.at(late).cancel("q", &JobId::from("c"), "").await.unwrap();
    assert_eq!(ids(&take(&bench.at(late), "q", 9).await), ["d"], "so does a cancellation");
    bench.check().await;
}

#[tokio::test]
async fn in_strict_order_a_failed_job_goes_before_the_next_of_its_key() {
    let mut bench = Bench::new().await;
    set(&bench, QueueChange { is_key_order_strict: Some(true), ..QueueChange::default() }).await;
    bench.at(0).enqueue(&[keyed("a", "k"), keyed("b", "k"), keyed("x", "other")]).await.unwrap();
    let first = take(&bench.at(0), "q", 9).await;
    assert_eq!(ids(&first), ["a", "x"]);
    end(&bench.at(1), &first[0], retry(1, Duration::from_secs(1))).await;
    assert!(take(&bench.at(2), "q", 9).await.is_empty(), "`b` waits for the retry of `a`");
    let again = take(&bench.at(5_000), "q", 9).await;
    assert_eq!(ids(&again), ["a"]);
    end(&bench.at(5_001), &again[0], done("")).await;
    assert_eq!(ids(&take(&bench.at(5_002), "q", 9).await), ["b"]);
    bench.check().await;
}

#[tokio::test]
async fn a_rate_by_key_spreads_what_came_too_fast_and_leaves_other_keys_alone() {
    let mut bench = Bench::new().await;
    let rate = Some(Some((2, Duration::from_secs(1))));
    set(&bench, QueueChange { key_rate: rate, ..QueueChange::default() }).await;
    let mut jobs: Vec<NewJob> = (0..5).map(|n| keyed(&format!("a{n}"), "a")).collect();
    jobs.push(keyed("b0", "b"));
    bench.at(0).enqueue(&jobs).await.unwrap();
    let mut seen: HashMap<String, i64> = HashMap::new();
    for ms in (0..3_000).step_by(100) {
        for job in take(&bench.at(ms), "q", 9).await {
            seen.insert(job.id.to_string(), ms);
            end(&bench.at(ms), &job, done("")).await;
        }
    }
    assert_eq!((seen["a0"], seen["a1"], seen["b0"]), (0, 0, 0), "as many as the rate says begin at once");
    assert_eq!((seen["a2"], seen["a3"], seen["a4"]), (500, 1_000, 1_500));
    bench.check().await;
}

#[tokio::test]
async fn a_lost_count_heals() {
    let mut bench = Bench::new().await;
    set(&bench, key_concurrency(1)).await;
    bench.store.enqueue(&[keyed("a", "k"), keyed("b", "k")]).await.unwrap();
    let a = take_one(&bench.store, "q").await;
    assert!(take(&bench.store, "q", 1).await.is_empty());
    // Another program ends the job behind our back.
    bench.raw::<i64>(&["DEL", &bench.job_key("a")]).await;
    bench.raw::<i64>(&["ZREM", &bench.key("q", "inflight"), "a"]).await;
    bench.store.sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!(ids(&take(&bench.store, "q", 1).await), ["b"]);
    assert!(matches!(end(&bench.store, &a, done("")).await, Settled::LeaseLost(_)));
}

#[tokio::test]
async fn a_raised_limit_lets_the_parked_in() {
    let mut bench = Bench::new().await;
    set(&bench, key_concurrency(1)).await;
    bench.store.enqueue(&(0..4).map(|n| keyed(&n.to_string(), "k")).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(take(&bench.store, "q", 9).await.len(), 1);
    set(&bench, key_concurrency(3)).await;
    bench.store.sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!(ids(&take(&bench.store, "q", 9).await), ["1", "2"]);
    set(&bench, QueueChange { key_concurrency: Some(None), ..QueueChange::default() }).await;
    bench.store.sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!(ids(&take(&bench.store, "q", 9).await), ["3"]);
    bench.check().await;
}

#[tokio::test]
async fn a_full_queue_refuses_the_batch_or_drops_its_oldest() {
    let mut bench = Bench::new().await;
    set(&bench, QueueChange { capacity: Some(Some(3)), ..QueueChange::default() }).await;
    bench.store.enqueue(&[job("a", "q"), job("b", "q")]).await.unwrap();
    let error = bench.store.enqueue(&[job("c", "q"), job("d", "q")]).await.unwrap_err();
    assert!(matches!(error, Error::QueueFull(_)), "{error}");
    assert!(error.to_string().contains("queue `q` is full: 2 jobs wait, 3 may"), "{error}");
    assert_eq!(bench.raw::<i64>(&["EXISTS", &bench.job_key("c")]).await, 0, "nothing of the batch is written");
    set(&bench, QueueChange { on_full: Some(OnFull::DropOldest), ..QueueChange::default() }).await;
    bench.store.enqueue(&[job("c", "q"), job("d", "q")]).await.unwrap();
    assert_eq!(bench.field("a", "status").await, "cancelled");
    bench.store.enqueue(&[job("e", "q"), job("f", "q")]).await.unwrap();
    for id in ["b", "c"] {
        assert_eq!(bench.field(id, "status").await, "cancelled", "two in one call");
    }
    assert_eq!(ids(&take(&bench.store, "q", 9).await), ["d", "e", "f"]);
    bench.check().await;
}
