//! Taking jobs: exclusive, in batches, over several queues.

use std::time::Duration;

use wasmhost::job::{JobId, NewJob};
use wasmhost::store::{Error, QueueChange, QueueShare, Reserve};

use super::{Bench, LEASE, ask, job, moment, take, take_one};
use crate::support::redis::{RedisServer, wait_until};

#[tokio::test]
async fn an_empty_queue_gives_nothing() {
    let bench = Bench::new().await;
    let turn = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap();
    assert!(turn.reserved.jobs.is_empty() && turn.reserved.broken.is_empty());
    assert_eq!(turn.reserved.taken_per_queue, [0]);
    assert!(turn.reserved.now_ms > 0);
}

#[tokio::test]
async fn a_leased_job_is_nobody_elses() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    take_one(&bench.at(0), "q").await;
    assert!(take(&bench.at(15_000), "q", 1).await.is_empty(), "at half of its lease");
}

#[tokio::test]
async fn an_ended_lease_is_handed_out_again_with_a_new_token() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let first = take_one(&bench.at(0), "q").await;
    assert!(take(&bench.at(29_999), "q", 1).await.is_empty());
    let second = take_one(&bench.at(30_000), "q").await;
    assert_eq!(second.id, first.id);
    assert_ne!(second.token, first.token);
    assert_eq!((second.deliveries, second.attempts), (2, 0), "a delivery more, no attempt more");
    bench.check().await;
}

#[tokio::test]
async fn a_reclaimed_job_that_was_scheduled_is_runnable_now() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[NewJob { run_at: Some(super::moment(1_000)), ..job("a", "q") }]).await.unwrap();
    take_one(&bench.at(1_000), "q").await;
    bench.at(40_000).sweep(&["q".to_owned()]).await.unwrap();
    assert_eq!(bench.field("a", "run_at_nano").await, "0");
    assert_eq!(bench.field("a", "status").await, "ready");
    bench.check().await;
}

#[tokio::test]
async fn the_hash_says_who_holds_a_job_and_until_when() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserve = Reserve { node: "n1".to_owned(), ..ask("q", 1) };
    bench.at(0).turn(&[], Some(&reserve)).await.unwrap();
    assert_eq!(bench.field("a", "status").await, "inflight");
    assert_eq!(bench.field("a", "lease_token").await, reserve.token);
    assert_eq!(bench.field("a", "node").await, "n1");
    let expires = super::moment(30_000).millis();
    assert_eq!(bench.field("a", "lease_expires_at_nano").await, format!("{expires}000000"));
    let score: String = bench.raw(&["ZSCORE", &bench.key("q", "inflight"), "a"]).await;
    assert_eq!(score, expires.to_string(), "the set and the hash agree");
}

#[tokio::test]
async fn quotas_come_first_and_what_is_left_over_is_filled_in_order() {
    let bench = Bench::new().await;
    let mut jobs = Vec::new();
    for queue in ["a", "b", "c"] {
        let count = if queue == "b" { 1 } else { 20 };
        jobs.extend((0..count).map(|n| job(&format!("{queue}{n}"), queue)));
    }
    bench.store.enqueue(&jobs).await.unwrap();
    let share = |queue: &str, take| QueueShare { queue: queue.to_owned(), take };
    let reserve =
        Reserve { queues: vec![share("a", 4), share("empty", 4), share("b", 4), share("c", 4)], ..ask("", 16) };
    let reserved = bench.store.turn(&[], Some(&reserve)).await.unwrap().reserved;
    assert_eq!(reserved.taken_per_queue, [11, 0, 1, 4], "seven places of the empty ones went to the first");
    assert_eq!(reserved.jobs.len(), 16);
}

#[tokio::test]
async fn a_broken_queue_is_named_and_the_others_go_on() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "fine")]).await.unwrap();
    for (queue, part) in [("one", "ready"), ("two", "inflight"), ("three", "dlq")] {
        let key = bench.key(queue, part);
        bench.raw::<()>(&["SET", &key, "a string"]).await;
    }
    let share = |queue: &str| QueueShare { queue: queue.to_owned(), take: 2 };
    let reserve = Reserve { queues: ["one", "two", "three", "fine"].map(share).into(), ..ask("", 8) };
    let reserved = bench.store.turn(&[], Some(&reserve)).await.unwrap().reserved;
    assert_eq!(reserved.jobs.len(), 1);
    let broken: Vec<&str> = reserved.broken.iter().map(|(queue, _)| queue.as_str()).collect();
    assert_eq!(broken, ["one", "two", "three"]);
    assert!(reserved.broken[0].1.contains("one:ready") && reserved.broken[0].1.contains("string"));
}

#[tokio::test]
async fn a_lease_that_is_no_time_is_refused() {
    let bench = Bench::new().await;
    for lease in [Duration::ZERO, Duration::from_secs(7200)] {
        let reserve = Reserve { lease, ..ask("q", 1) };
        let error = bench.store.turn(&[], Some(&reserve)).await.unwrap_err();
        assert!(matches!(&error, Error::Refused(text) if text.contains("lease")), "{error}");
        let error = bench.store.extend(&[], lease).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
    }
}

/// 2,000 jobs, 16 workers with connections of their own: every job is handed out once.
#[tokio::test]
async fn many_workers_never_get_the_same_job() {
    let server = RedisServer::shared();
    let mut bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..2_000).map(|n| job(&n.to_string(), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let options = wasmhost::store::Options {
        prefix: bench.prefix.clone(),
        node_prefix: bench.prefix.clone(),
        ..server.options()
    };
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let options = options.clone();
        workers.spawn(async move {
            let store = wasmhost::store::Store::connect(wasmhost::job::StoreId(0), &options).await.unwrap();
            let mut found = Vec::new();
            loop {
                let jobs = take(&store, "q", 7).await;
                if jobs.is_empty() {
                    return found;
                }
                found.extend(jobs.into_iter().map(|job| job.id));
            }
        });
    }
    let mut found: Vec<JobId> = workers.join_all().await.concat();
    found.sort();
    assert_eq!(found.len(), 2_000);
    found.dedup();
    assert_eq!(found.len(), 2_000);
    bench.check().await;
}

/// All of them ask in the moment in which the lease has ended.
#[tokio::test]
async fn an_ended_lease_has_one_winner_among_many_workers() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    take_one(&bench.at(0), "q").await;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = bench.at(30_000);
        workers.spawn(async move { take(&store, "q", 1).await.len() });
    }
    let taken = workers.join_all().await;
    assert_eq!(taken.iter().sum::<usize>(), 1, "{taken:?}");
    bench.check().await;
}

/// The peek sleeps in Redis, takes nothing by itself, and wakes on a push of a producer that knows nothing of us.
#[tokio::test]
async fn a_peek_wakes_on_a_foreign_push() {
    let mut bench = Bench::new().await;
    let mut peek = bench.store.peek("q");
    let reserve = Reserve { sweep: false, ..ask("q", 4) };
    let raw = bench.raw.clone();
    let pushed = async {
        // The peek is asleep once the server lists a blocked client.
        wait_until("a blocked client", Duration::from_secs(5), async || {
            let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut raw.clone()).await.unwrap();
            list.lines().any(|line| line.contains("cmd=blmove")).then_some(())
        })
        .await;
        bench.foreign("q", "f", &[]).await;
    };
    let (woken, ()) = tokio::join!(peek.wait(Duration::from_secs(10), Some(&reserve)), pushed);
    let woken = woken.unwrap();
    assert!(woken.has_woken);
    let woken = woken.reservation.unwrap();
    assert_eq!(woken.jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), ["f"]);
    assert_eq!(woken.jobs[0].token, reserve.token);
    // Nothing comes: it returns empty when its time is over.
    let reserve = Reserve { sweep: false, lease: LEASE, ..ask("q", 4) };
    let idle = peek.wait(Duration::from_millis(50), Some(&reserve)).await.unwrap();
    assert!(!idle.has_woken && idle.reservation.unwrap().jobs.is_empty());
    bench.check().await;
}

#[tokio::test]
async fn a_peek_survives_a_script_flush_and_a_killed_connection() {
    let server = RedisServer::start();
    let mut bench = Bench::on(&server).await;
    let mut peek = bench.store.peek("q");
    let short = Duration::from_millis(20);
    peek.wait(short, Some(&ask("q", 1))).await.unwrap();
    bench.raw::<()>(&["SCRIPT", "FLUSH"]).await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    assert_eq!(peek.wait(short, Some(&ask("q", 1))).await.unwrap().reservation.unwrap().jobs.len(), 1);
    bench.raw::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    let failed = peek.wait(short, Some(&ask("q", 1))).await;
    assert!(failed.is_err() || failed.unwrap().reservation.unwrap().jobs.is_empty());
    bench.store.enqueue(&[job("b", "q")]).await.unwrap();
    assert_eq!(peek.wait(short, Some(&ask("q", 1))).await.unwrap().reservation.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn a_server_that_has_become_a_replica_is_an_error_and_no_empty_queue() {
    let server = RedisServer::start();
    let mut bench = Bench::on(&server).await;
    bench.store.enqueue(&[job("a", "q"), NewJob { priority: Some(3), ..job("b", "q") }]).await.unwrap();
    bench.raw::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { reason, .. } if reason.contains("read only replica")), "{error}");
    bench.raw::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(take(&bench.store, "q", 8).await.len(), 2);
}

#[tokio::test]
async fn due_jobs_come_as_fast_as_they_are_asked_for() {
    let mut bench = Bench::new().await;
    let due = |n: i64| NewJob { run_at: Some(moment(1000 + n)), ..job(&format!("{n:04}"), "q") };
    bench.at(0).enqueue(&[NewJob { run_at: Some(moment(90_000)), ..job("later", "q") }]).await.unwrap();
    for piece in (0..1000).collect::<Vec<i64>>().chunks(500) {
        bench.at(0).enqueue(&piece.iter().copied().map(due).collect::<Vec<_>>()).await.unwrap();
    }
    let later = bench.at(20_000);
    let request = Reserve { sweep: false, ..ask("q", 128) };
    let (mut ids, mut turns) = (Vec::new(), 0);
    loop {
        let reserved = later.turn(&[], Some(&request)).await.unwrap().reserved;
        ids.extend(reserved.jobs.iter().map(|job| job.id.to_string()));
        turns += 1;
        if !reserved.is_more {
            break;
        }
    }
    assert_eq!(turns, 16, "1,000 jobs, 64 at a time: more make a script long");
    assert_eq!(ids, (0..1000).map(|n| format!("{n:04}")).collect::<Vec<_>>(), "in the order of their times");
    bench.check().await;
}

#[tokio::test]
async fn ready_jobs_go_before_due_ones_without_bringing_them_back() {
    let mut bench = Bench::new().await;
    let due = NewJob { run_at: Some(moment(1000)), ..job("due", "q") };
    bench.at(0).enqueue(&[due, job("a", "q"), job("b", "q")]).await.unwrap();
    let request = Reserve { sweep: false, ..ask("q", 2) };
    let reserved = bench.at(2000).turn(&[], Some(&request)).await.unwrap().reserved;
    assert_eq!(reserved.jobs.len(), 2);
    assert_eq!(bench.field("due", "status").await, "scheduled");
    assert_eq!(take_one(&bench.at(2000), "q").await.id, JobId::from("due"));
    bench.check().await;
}

#[tokio::test]
async fn a_reserve_brings_back_no_more_due_jobs_than_it_was_asked_for() {
    let mut bench = Bench::new().await;
    let change = QueueChange { key_concurrency: Some(Some(1)), ..QueueChange::default() };
    bench.store.set_queue("q", &change).await.unwrap();
    let due = |n: usize| {
        let limit_key = Some("one".to_owned());
        NewJob { run_at: Some(moment(1000)), limit_key, ..job(&n.to_string(), "q") }
    };
    bench.at(0).enqueue(&(0..100).map(due).collect::<Vec<_>>()).await.unwrap();
    let request = Reserve { sweep: false, ..ask("q", 10) };
    let reserved = bench.at(2000).turn(&[], Some(&request)).await.unwrap().reserved;
    assert_eq!((reserved.jobs.len(), reserved.is_more), (1, true), "one of its key runs, the others are parked");
    let scheduled: i64 = bench.raw(&["ZCARD", &bench.key("q", "scheduled")]).await;
    assert_eq!(scheduled, 90);
    bench.check().await;
}
