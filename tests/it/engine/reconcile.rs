//! Jobs that are in no structure, entries without a job: found, put right, and never one too many.

use std::time::Duration;

use wasmhost::job::{JobId, NewJob};
use wasmhost::store::{Finding, Lost, Pace, Settled, Store};

use super::{Bench, dlq, done, end, job, moment, take, take_one};

/// As fast as it can, with nothing between the two looks.
const AT_ONCE: Pace = Pace { grace: Duration::ZERO, pause: Duration::ZERO, done_ttl: Duration::from_secs(3600) };

/// What a pass repaired: kind and entry, sorted; and how many rows it looked at.
struct Pass {
    repaired: Vec<(&'static str, String)>,
    found: Vec<(&'static str, usize)>,
    rows: u64,
}

async fn reconcile(store: &Store) -> Pass {
    let (found, repaired) = store.reconcile(&AT_ONCE).await.unwrap();
    let name = |finding: &Finding| (finding.kind.name, finding.entry_text());
    let mut repaired: Vec<_> = repaired.iter().map(name).collect();
    repaired.sort();
    Pass { repaired, found: found.counts().into_iter().map(|(kind, n)| (kind.name, n)).collect(), rows: found.rows }
}

#[track_caller]
fn is_clean(pass: &Pass) {
    assert!(pass.repaired.is_empty() && pass.found.is_empty(), "{:?} {:?}", pass.repaired, pass.found);
}

fn put_back(kind: &'static str, id: &str) -> (&'static str, String) {
    (kind, id.to_owned())
}

/// A job in every state that has a structure, in queue `q`; the state is its id.
async fn in_every_state(bench: &Bench) -> wasmhost::job::Reserved {
    let mut held = None;
    for state in ["done", "dlq", "inflight"] {
        bench.at(0).enqueue(&[job(state, "q")]).await.unwrap();
        let reserved = take_one(&bench.at(0), "q").await;
        match state {
            "done" => drop(end(&bench.at(1), &reserved, done("")).await),
            "dlq" => drop(end(&bench.at(1), &reserved, dlq(1, "x")).await),
            _ => held = Some(reserved),
        }
    }
    let scheduled = NewJob { run_at: Some(moment(90_000)), ..job("scheduled", "q") };
    bench.at(0).enqueue(&[job("ready", "q"), scheduled]).await.unwrap();
    held.expect("a held job")
}

/// Ages every row, so that none counts as made during the pass.
async fn age(bench: &mut Bench) {
    for id in ["done", "dlq", "inflight", "scheduled", "ready"] {
        let row = bench.job_key(id);
        bench.raw::<i64>(&["HSET", &row, "created_at_nano", "1"]).await;
    }
}

#[tokio::test]
async fn a_sound_prefix_is_left_as_it_is() {
    let mut bench = Bench::new().await;
    in_every_state(&bench).await;
    age(&mut bench).await;
    let found = reconcile(&bench.at(2)).await;
    is_clean(&found);
    assert_eq!(found.rows, 5);
    bench.check().await;
}

#[tokio::test]
async fn a_job_in_no_structure_is_put_back_where_it_belongs() {
    let mut bench = Bench::new().await;
    let held = in_every_state(&bench).await;
    age(&mut bench).await;
    for part in ["ready", "scheduled", "inflight", "dlq"] {
        let key = bench.key("q", part);
        bench.raw::<i64>(&["DEL", &key]).await;
    }
    let found = reconcile(&bench.at(2)).await;
    assert_eq!(
        found.repaired,
        [
            put_back("lost-dead", "dlq"),
            put_back("lost-inflight", "inflight"),
            put_back("lost-ready", "ready"),
            put_back("lost-scheduled", "scheduled"),
        ]
    );
    bench.check().await;
    is_clean(&reconcile(&bench.at(3)).await);
    bench.check().await;
    // The holder still holds it, and nobody else gets it.
    assert_eq!(take_one(&bench.at(4), "q").await.id, JobId::from("ready"));
    assert!(take(&bench.at(4), "q", 8).await.is_empty());
    assert_eq!(end(&bench.at(5), &held, done("")).await, Settled::Applied);
    assert_eq!(take_one(&bench.at(90_000), "q").await.id, JobId::from("ready"), "its lease has ended meanwhile");
    assert_eq!(take_one(&bench.at(90_001), "q").await.id, JobId::from("scheduled"), "at its time");
    bench.check().await;
}

/// Asynq had such jobs "active" for ever.
#[tokio::test]
async fn a_job_in_flight_whose_lease_has_vanished_comes_back_when_it_ends() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let held = take_one(&bench.at(0), "q").await;
    let inflight = bench.key("q", "inflight");
    bench.raw::<i64>(&["ZREM", &inflight, "a"]).await;
    let row = bench.job_key("a");
    bench.raw::<i64>(&["HSET", &row, "created_at_nano", "1"]).await;
    assert!(take(&bench.at(60_000), "q", 1).await.is_empty(), "no sweep finds it");
    assert_eq!(reconcile(&bench.at(60_000)).await.repaired, [put_back("lost-inflight", "a")]);
    let again = take_one(&bench.at(60_000), "q").await;
    assert_eq!(again.deliveries, 2);
    assert_eq!(end(&bench.at(60_001), &held, done("")).await, Settled::LeaseLost(Lost::Mismatch));
    bench.check().await;
}

/// A job of a type, a state or a structure that this version does not know is not lost: its id stands somewhere.
#[tokio::test]
async fn an_id_in_any_structure_is_not_lost() {
    let mut bench = Bench::new().await;
    for (id, command, part) in [("l", "RPUSH", "prio:3"), ("s", "SADD", "parked"), ("z", "ZADD", "limited:key")] {
        let (row, key) = (bench.job_key(id), bench.key("q", part));
        bench.raw::<i64>(&["HSET", &row, "type", "echo", "queue", "q", "payload", "", "status", "ready"]).await;
        let words = if command == "ZADD" { vec![command, &key, "1", id] } else { vec![command, &key, id] };
        bench.raw::<i64>(&words).await;
    }
    // An operator parked the jobs of a queue under another name.
    bench.foreign("old", "moved", &[]).await;
    bench.raw::<()>(&["RENAME", &bench.key("old", "ready"), &bench.key("elsewhere", "ready")]).await;
    let found = reconcile(&bench.store).await;
    assert!(!found.repaired.iter().any(|(kind, _)| kind.starts_with("lost-")), "{:?}", found.repaired);
    assert_eq!(
        (found.rows, &found.found[..]),
        (4, &[("priority-hidden", 1), ("queue-unknown", 2), ("key-unknown", 2)][..])
    );
}

/// 3,000 jobs wait, a worker takes and ends some all the while, and more are added.
#[tokio::test]
async fn jobs_that_move_during_a_pass_are_not_put_twice() {
    let mut bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..3_000).map(|n| job(&n.to_string(), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let worker = {
        let store = bench.store.clone();
        tokio::spawn(async move {
            let mut round = 0;
            while !*stopped.borrow_and_update() {
                round += 1;
                for job in take(&store, "q", 7).await {
                    let how = match round % 3 {
                        0 => super::retry(1, Duration::ZERO),
                        1 => wasmhost::store::End::Release,
                        _ => done(""),
                    };
                    end(&store, &job, how).await;
                }
                let more = job(&format!("more{round}"), "q");
                store.enqueue(&[more]).await.unwrap();
            }
        })
    };
    for _ in 0..5 {
        is_clean(&reconcile(&bench.store).await);
    }
    stop.send_replace(true);
    worker.await.unwrap();
    bench.check().await;
}

#[tokio::test]
async fn leases_and_scheduled_entries_without_a_job_are_removed() {
    let mut bench = Bench::new().await;
    in_every_state(&bench).await;
    let (inflight, scheduled) = (bench.key("q", "inflight"), bench.key("q", "scheduled"));
    let far = moment(3_000_000).millis().to_string();
    let later = moment(90_000_000).seconds().to_string();
    bench.raw::<i64>(&["ZADD", &inflight, &far, "ghost", &far, "ready"]).await;
    bench.raw::<i64>(&["ZADD", &scheduled, &later, "000000000:phantom", &later, "000000001:dlq"]).await;
    let found = reconcile(&bench.at(2)).await;
    let removed = [
        ("lease-ghost", "ghost"),
        ("lease-misfit", "ready"),
        ("scheduled-ghost", "000000000:phantom"),
        ("scheduled-misfit", "000000001:dlq"),
    ];
    assert_eq!(found.repaired, removed.map(|(kind, entry)| put_back(kind, entry)));
    let aside: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "aside"), "0", "-1"]).await;
    assert!(aside.len() == 2 && aside[0].ends_with("\nghost") && aside[1].ends_with("\nphantom"), "{aside:?}");
    bench.check().await;
}

#[tokio::test]
async fn a_done_row_of_another_program_gets_a_time_to_live() {
    let mut bench = Bench::new().await;
    let row = bench.job_key("a");
    bench.raw::<i64>(&["HSET", &row, "type", "echo", "queue", "q", "status", "done"]).await;
    assert_eq!(reconcile(&bench.store).await.repaired, [put_back("done-endless", "a")]);
    let ttl: i64 = bench.raw(&["TTL", &row]).await;
    assert!((3_590..=3_600).contains(&ttl), "{ttl}");
    is_clean(&reconcile(&bench.store).await);
}

/// Another producer writes the id of a done job once more: its row must not vanish while the job waits.
#[tokio::test]
async fn a_row_that_lives_again_loses_the_time_to_live_of_its_first_end() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, done("")).await;
    let done_list = bench.key("q", "done");
    bench.raw::<i64>(&["DEL", &done_list]).await;
    bench.foreign("q", "a", &[]).await;
    assert_eq!(reconcile(&bench.store).await.repaired, [put_back("row-mortal", "a")]);
    let row = bench.job_key("a");
    assert_eq!(bench.raw::<i64>(&["TTL", &row]).await, -1);
    // A producer that wants its job to vanish when it waits too long gets what it wants.
    bench.foreign("q", "b", &[]).await;
    let other = bench.job_key("b");
    bench.raw::<i64>(&["EXPIRE", &other, "500"]).await;
    is_clean(&reconcile(&bench.store).await);
    bench.check().await;
}

#[tokio::test]
async fn rows_that_nobody_understands_are_left_alone_and_counted() {
    let mut bench = Bench::new().await;
    let (banana, nowhere, text) = (bench.job_key("banana"), bench.job_key("nowhere"), bench.job_key("text"));
    bench.raw::<i64>(&["HSET", &banana, "type", "echo", "queue", "q", "status", "banana"]).await;
    bench.raw::<i64>(&["HSET", &nowhere, "type", "echo", "status", "ready"]).await;
    bench.raw::<()>(&["SET", &text, "x"]).await;
    let found = reconcile(&bench.store).await;
    assert!(found.repaired.is_empty(), "{:?}", found.repaired);
    assert_eq!(found.found, [("wrong-type", 1), ("state-unknown", 1), ("queue-unnamed", 1)]);
    assert_eq!(bench.field("banana", "status").await, "banana");
}

/// A list as long as a backlog gets: no call of a pass takes long, and a lost job beside it is found.
#[tokio::test]
async fn a_pass_over_a_long_backlog_is_made_of_short_calls() {
    let server = crate::support::redis::RedisServer::start();
    let mut bench = Bench::on(&server).await;
    let fill = "for n = 1, 2000 do local id = ARGV[1] .. n redis.call('HSET', KEYS[1] .. ':job:' .. id, 'type', 'echo', \
                'queue', 'q', 'payload', '', 'status', 'ready', 'created_at_nano', '1') \
                redis.call('RPUSH', KEYS[1] .. ':queue:q:ready', id) end";
    let prefix = bench.prefix.clone();
    for n in 0..25 {
        bench.raw::<()>(&["EVAL", fill, "1", &prefix, &format!("{n}-")]).await;
    }
    let row = bench.job_key("lost");
    bench.raw::<i64>(&["HSET", &row, "type", "echo", "queue", "q", "payload", "", "status", "ready"]).await;
    bench.raw::<()>(&["CONFIG", "RESETSTAT"]).await;
    let found = reconcile(&bench.store).await;
    let repaired = [put_back("lost-ready", "lost"), put_back("queue-unknown", "q")];
    assert_eq!((found.rows, found.repaired), (50_001, repaired.to_vec()));
    let stats: String = bench.raw(&["INFO", "commandstats"]).await;
    let calls = |name: &str| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:"))).unwrap_or_default();
        line.split("calls=").nth(1).and_then(|rest| rest.split(',').next()).map_or(0, |n| n.parse::<u64>().unwrap())
    };
    assert!(calls("evalsha") >= 500, "rows are looked at in slices: {stats}");
    assert!(calls("lrange") >= 200, "lists are read in slices, twice: {stats}");
}

#[tokio::test]
async fn one_host_of_a_fleet_has_the_turn() {
    let mut bench = Bench::new().await;
    let period = Duration::from_secs(3600);
    assert!(bench.store.claim_reconcile("one", period).await.unwrap());
    assert!(!bench.store.claim_reconcile("two", period).await.unwrap());
    let key = format!("{}:reconcile", bench.prefix);
    let ttl: i64 = bench.raw(&["TTL", &key]).await;
    assert!((3_590..=3_600).contains(&ttl), "{ttl}");
    bench.check().await;
}
