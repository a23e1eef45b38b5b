//! TaskHarbor and wasmhost on one prefix, in both directions, and as one fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wasmhost::clock::Timestamp;
use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::{Lease, Lost, OfDead, Reserve, Settled, Store};

use super::{Bench, ask, dlq, done, end, job, moment, retry, take, take_one};
use crate::support::foreign::{Held, Order, Refused, TaskHarbor};
use crate::support::redis::RedisServer;

/// A bench with a program of the other kind on its prefix.
async fn both() -> (Bench, TaskHarbor) {
    let bench = Bench::new().await;
    let theirs = TaskHarbor::new(bench.raw.clone(), &bench.prefix);
    (bench, theirs)
}

fn order(id: &str) -> Order {
    Order {
        id: id.to_owned(),
        queue: "q".to_owned(),
        job_type: "echo".to_owned(),
        payload: "{\"a\":1}".to_owned(),
        ..Order::default()
    }
}

/// Nanoseconds of a moment of these tests.
fn nanos(ms: i64) -> i64 {
    moment(ms).nanos()
}

#[tokio::test]
async fn a_job_of_their_producer_runs_here_as_it_was_meant() {
    let (mut bench, theirs) = both().await;
    theirs.enqueue(&order("plain")).await;
    theirs.enqueue(&Order { timeout_nano: 1_500_000_000, max_attempts: 3, ..order("rich") }).await;
    let plain = take_one(&bench.store, "q").await;
    assert_eq!(plain.payload, b"{\"a\":1}");
    // 0 is their "not given": a worker without a policy runs it once, and nothing limits its time but our default.
    assert_eq!((plain.retry.executions(), plain.timeout, plain.attempts), (1, None, 0));
    assert!(plain.created_at.is_some());
    let rich = take_one(&bench.store, "q").await;
    assert_eq!((rich.retry.executions(), rich.timeout), (3, Some(Duration::from_millis(1500))));
    assert_eq!(end(&bench.store, &plain, done("ok")).await, Settled::Applied);
    assert_eq!(end(&bench.store, &rich, done("ok")).await, Settled::Applied);
    let (listed, _) = theirs.list("q", "done", 10, None).await;
    assert_eq!(listed.len(), 2, "their list shows what was done here");
    bench.check().await;
}

#[tokio::test]
async fn a_job_that_their_producer_scheduled_waits_here_until_its_time() {
    let (mut bench, theirs) = both().await;
    theirs.enqueue(&Order { run_at: Some(moment(5_000)), ..order("later") }).await;
    // They store a time in the past as scheduled too; it is due at once.
    theirs.enqueue(&Order { run_at: Some(moment(-1)), ..order("past") }).await;
    assert_eq!(take_one(&bench.at(0), "q").await.id, JobId::from("past"));
    assert!(take(&bench.at(4_999), "q", 1).await.is_empty());
    assert_eq!(take_one(&bench.at(5_000), "q").await.id, JobId::from("later"));
    bench.check().await;
}

#[tokio::test]
async fn an_idempotency_key_is_one_for_both() {
    let (mut bench, theirs) = both().await;
    let keyed = |id: &str| Order { idempotency_key: " order-1 ".to_owned(), ..order(id) };
    assert_eq!(theirs.enqueue(&keyed("first")).await, ("first".to_owned(), false));
    assert_eq!(theirs.enqueue(&keyed("second")).await, ("first".to_owned(), true));
    let ours = NewJob { idempotency_key: Some("order-1".to_owned()), ..job("third", "q") };
    let enqueued = bench.store.enqueue(&[ours]).await.unwrap();
    assert_eq!((enqueued[0].id.clone(), enqueued[0].is_new), (JobId::from("first"), false));
    let mine = NewJob { idempotency_key: Some("order-2".to_owned()), ..job("mine", "q") };
    bench.store.enqueue(&[mine]).await.unwrap();
    let again = Order { idempotency_key: "order-2".to_owned(), ..order("fourth") };
    assert_eq!(theirs.enqueue(&again).await, ("mine".to_owned(), true));
    bench.check().await;
}

#[tokio::test]
async fn our_jobs_are_taken_and_ended_by_their_worker() {
    let (mut bench, theirs) = both().await;
    let later = NewJob { run_at: Some(moment(1_000)), ..job("later", "q") };
    bench.at(0).enqueue(&[job("a", "q"), later]).await.unwrap();
    let held = theirs.reserve_at("q", nanos(0), 30_000).await.unwrap();
    assert_eq!((held.record.id.as_str(), held.record.job_type.as_str()), ("a", "echo"));
    assert_eq!(held.record.payload, b"{}");
    assert_eq!((held.record.attempts, held.record.max_attempts, held.record.timeout), (0, 0, 0), "absent reads as 0");
    assert!(theirs.reserve_at("q", nanos(999), 30_000).await.is_none());
    let late = theirs.reserve_at("q", nanos(1_000), 30_000).await.unwrap();
    assert_eq!((late.record.id.as_str(), late.record.run_at), ("later", 0));
    assert_eq!(theirs.extend(&held, nanos(20_000), 30_000).await, Ok(nanos(50_000)));
    assert_eq!(theirs.ack(&held, nanos(40_000)).await, Ok(true));
    assert_eq!(theirs.ack(&late, nanos(1_001)).await, Ok(true));
    for id in ["a", "later"] {
        let record = bench.store.job(&JobId::from(id)).await.unwrap().unwrap();
        assert_eq!(record.state(), Some(JobState::Done), "{id}");
    }
    assert_eq!(bench.store.jobs(Some("q"), Some(JobState::Done), None, 10).await.unwrap().jobs.len(), 2);
    bench.check().await;
}

#[tokio::test]
async fn what_failed_there_is_tried_again_here_and_the_other_way_round() {
    let (mut bench, theirs) = both().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let held = theirs.reserve_at("q", nanos(0), 30_000).await.unwrap();
    assert_eq!(theirs.retry(&held, nanos(10), Some(moment(500))).await, Ok(()));
    assert!(take(&bench.at(499), "q", 1).await.is_empty());
    let ours = take_one(&bench.at(500), "q").await;
    assert_eq!((ours.attempts, ours.deliveries), (1, 1), "their failed attempt counts, their hand-outs do not");
    assert_eq!(end(&bench.at(510), &ours, retry(2, Duration::from_millis(490))).await, Settled::Applied);
    let again = theirs.reserve_at("q", nanos(1_000), 30_000).await.unwrap();
    assert_eq!((again.record.attempts, again.record.last_error.as_str()), (2, "no luck"));
    assert_eq!(again.record.failed_at, nanos(510));
    assert_eq!(theirs.retry(&again, nanos(1_010), None).await, Ok(()));
    assert_eq!(take_one(&bench.at(1_020), "q").await.attempts, 3);
    bench.check().await;
}

#[tokio::test]
async fn dead_jobs_of_both_are_listed_and_brought_back_by_both() {
    let (mut bench, theirs) = both().await;
    bench.at(0).enqueue(&[job("ours", "q"), job("theirs", "q")]).await.unwrap();
    let ours = take_one(&bench.at(0), "q").await;
    end(&bench.at(7), &ours, dlq(2, "no use")).await;
    let held = theirs.reserve_at("q", nanos(0), 30_000).await.unwrap();
    assert_eq!(theirs.fail(&held, nanos(9), "gave up").await, Ok(true));
    assert_eq!(theirs.fail(&held, nanos(9), "gave up").await, Ok(false), "a repeated failure succeeds");

    let seen = theirs.inspect("ours").await.unwrap();
    assert_eq!((seen.status.as_str(), seen.dlq_reason.as_str(), seen.dlq_failed_at), ("dlq", "no use", nanos(7)));
    let (listed, _) = theirs.list("q", "dlq", 10, None).await;
    assert_eq!(listed.len(), 2);
    // Their time of death went through a floating point number.
    assert!(bench.field("theirs", "dlq_failed_at_nano").await.contains("e+18"));
    let page = bench.store.jobs(Some("q"), Some(JobState::Dlq), None, 10).await.unwrap().jobs;
    let theirs_here = page.iter().find(|job| job.id == Some(JobId::from("theirs"))).unwrap();
    assert_eq!(theirs_here.text("dlq_reason").as_deref(), Some("gave up"));
    let read = theirs_here.time("dlq_failed_at_nano").unwrap();
    assert!((read.nanos() - nanos(9)).abs() < 100_000, "{read}");

    assert_eq!(theirs.requeue("nobody", "", false).await, 0);
    assert_eq!(theirs.requeue("ours", "elsewhere", false).await, -2);
    assert_eq!(theirs.requeue("ours", "q", true).await, 1);
    assert_eq!(theirs.requeue("ours", "q", true).await, -1);
    let id = JobId::from("theirs");
    assert_eq!(bench.at(20).requeue("q", &id, None, false).await.unwrap(), OfDead::Applied);
    bench.check().await;
    let mut again = take(&bench.at(21), "q", 8).await;
    again.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(
        again.iter().map(|job| (job.id.to_string(), job.attempts)).collect::<Vec<_>>(),
        [("ours".to_owned(), 0), ("theirs".to_owned(), 0)]
    );
    for job in &again {
        assert_eq!(end(&bench.at(22), job, done("")).await, Settled::Applied);
    }
    bench.check().await;
}

#[tokio::test]
async fn their_admin_lists_and_inspects_our_jobs_in_every_state() {
    let (mut bench, theirs) = both().await;
    let soon = Timestamp::now().after(Duration::from_secs(3600));
    for state in ["done", "dlq", "inflight"] {
        bench.store.enqueue(&[job(state, "q")]).await.unwrap();
        let reserved = take_one(&bench.store, "q").await;
        match state {
            "done" => drop(end(&bench.store, &reserved, done("ok")).await),
            "dlq" => drop(end(&bench.store, &reserved, dlq(1, "no use")).await),
            _ => {}
        }
    }
    let waiting = NewJob { timeout: Some(Duration::from_secs(9)), max_attempts: Some(7), ..job("ready", "q") };
    bench.store.enqueue(&[waiting, NewJob { run_at: Some(soon), ..job("scheduled", "q") }]).await.unwrap();
    for state in ["ready", "scheduled", "inflight", "dlq", "done"] {
        let (listed, is_more) = theirs.list("q", state, 10, None).await;
        assert_eq!(listed.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), [state]);
        assert!(!is_more && listed[0].created_at > 0 && listed[0].queue == "q");
    }
    let ready = theirs.inspect("ready").await.unwrap();
    assert_eq!((ready.timeout, ready.max_attempts), (9_000_000_000, 7));
    assert_eq!(theirs.inspect("scheduled").await.unwrap().run_at, soon.nanos());
    let held = theirs.inspect("inflight").await.unwrap();
    assert!(held.lease_token.len() == 32 && held.lease_expires_at > Timestamp::now().nanos());
    // Three jobs, two on a page.
    bench.store.enqueue(&[job("b", "p"), job("a", "p"), job("c", "p")]).await.unwrap();
    let (first, is_more) = theirs.list("p", "ready", 2, None).await;
    assert!(is_more);
    let last = first.last().unwrap();
    let (second, is_more) = theirs.list("p", "ready", 2, Some((last.created_at, &last.id))).await;
    assert_eq!((first.len(), second.len(), is_more), (2, 1, false));
    bench.check().await;
}

#[tokio::test]
async fn a_late_ack_of_their_worker_is_refused_once_we_have_the_job() {
    let (mut bench, theirs) = both().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let slow = theirs.reserve_at("q", nanos(0), 1_000).await.unwrap();
    assert_eq!(theirs.ack(&slow, nanos(1_000)).await, Err(Refused::Expired), "equal counts as over");
    // They round the end of a lease up to a millisecond, and these moments have fractions of one.
    let ours = take_one(&bench.at(1_001), "q").await;
    assert_eq!(theirs.ack(&slow, nanos(1_001)).await, Err(Refused::Mismatch));
    assert_eq!(theirs.extend(&slow, nanos(1_001), 1_000).await, Err(Refused::Mismatch));
    assert_eq!(theirs.retry(&slow, nanos(1_001), None).await, Err(Refused::Mismatch));
    assert_eq!(theirs.fail(&slow, nanos(1_001), "x").await, Err(Refused::Mismatch));
    assert_eq!(end(&bench.at(1_002), &ours, done("ours")).await, Settled::Applied);
    assert_eq!(theirs.ack(&slow, nanos(1_003)).await, Ok(false), "to them a done job is a success; nothing is written");
    assert_eq!(bench.field("a", "result").await, "ours");
    let done_ids: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "done"), "0", "-1"]).await;
    assert_eq!(done_ids, ["a"]);
    bench.check().await;
}

#[tokio::test]
async fn our_late_ack_is_refused_once_their_worker_has_the_job() {
    let (mut bench, theirs) = both().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let slow = take_one(&bench.at(0), "q").await;
    let held = theirs.reserve_at("q", nanos(30_000), 1_000).await.unwrap();
    assert_eq!(end(&bench.at(30_001), &slow, done("late")).await, Settled::LeaseLost(Lost::Mismatch));
    let lease = Lease { id: slow.id.clone(), queue: "q".to_owned(), token: slow.token.clone() };
    let extended = bench.at(30_001).extend(&[lease], super::LEASE).await.unwrap();
    assert_eq!(extended, [Settled::LeaseLost(Lost::Mismatch)]);
    assert_eq!(theirs.ack(&held, nanos(30_002)).await, Ok(true));
    assert_eq!(end(&bench.at(30_003), &slow, done("late")).await, Settled::LeaseLost(Lost::NotInflight));
    assert_eq!(bench.field("a", "result").await, "");
    bench.check().await;
}

/// Their scripts believe the caller's clock. Whatever it says, one holder at a time is the one that can end the job.
#[tokio::test]
async fn a_wrong_clock_of_theirs_moves_a_job_and_never_makes_two_holders() {
    let (mut bench, mut theirs) = both().await;
    // Ahead: it takes our lease away early, and we are told.
    theirs.ahead_ms = 60_000;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let ours = take_one(&bench.store, "q").await;
    let held = theirs.reserve("q", 120_000).await.unwrap();
    assert_eq!(end(&bench.store, &ours, done("ours")).await, Settled::LeaseLost(Lost::Mismatch));
    assert_eq!(theirs.ack(&held, theirs.now()).await, Ok(true));
    // Behind: its lease is over for the server when it begins. We take the job, and it is told.
    theirs.ahead_ms = -60_000;
    bench.store.enqueue(&[job("b", "q")]).await.unwrap();
    let held = theirs.reserve("q", 1_000).await.unwrap();
    let ours = take_one(&bench.store, "q").await;
    assert_eq!(theirs.ack(&held, theirs.now()).await, Err(Refused::Mismatch));
    assert_eq!(end(&bench.store, &ours, done("ours")).await, Settled::Applied);
    bench.check().await;
}

/// A worker of theirs does not look whether an id it pops is in flight; ours does.
#[tokio::test]
async fn an_id_that_stands_twice_has_one_holder_in_a_mixed_fleet() {
    let (mut bench, theirs) = both().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    bench.raw::<i64>(&["RPUSH", &bench.key("q", "ready"), "a"]).await;
    let first = theirs.reserve("q", 30_000).await.unwrap();
    assert!(take(&bench.store, "q", 8).await.is_empty(), "we set the second one aside");
    assert_eq!(theirs.ack(&first, theirs.now()).await, Ok(true));
    bench.raw::<i64>(&["RPUSH", &bench.key("q", "ready"), "b"]).await;
    bench.store.enqueue(&[job("b", "q")]).await.unwrap();
    let ours = take_one(&bench.store, "q").await;
    let thief = theirs.reserve("q", 30_000).await.unwrap();
    assert_eq!(end(&bench.store, &ours, done("")).await, Settled::LeaseLost(Lost::Mismatch), "the last token holds");
    assert_eq!(theirs.ack(&thief, theirs.now()).await, Ok(true));
    bench.check().await;
}

/// The lease of the fleet, and how long an overrun job works.
const SHORT_MS: i64 = 150;
const OVERRUN: Duration = Duration::from_millis(260);
const N_JOBS: usize = 120;

/// One lease of a job in a fleet, and what became of it. Its beginning is by the server's clock: a caller may wait
/// between looking at its own and being served, while others have the job.
#[derive(Clone, Debug)]
struct Grant {
    by: &'static str,
    granted_ms: i64,
    expires_ms: i64,
    /// Whether an end of it was accepted, and whether that was the last one.
    is_ended: bool,
    is_final: bool,
}

/// What a fleet did, by job.
#[derive(Default)]
struct Chronicle {
    grants: BTreeMap<String, Vec<Grant>>,
    overrun: BTreeSet<String>,
}

/// How a job behaves: the last digit of its number decides.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    Quick,
    OverrunsOnce,
    FailsOnce,
    Extends,
}

fn play(id: &str, attempts: i64, chronicle: &Mutex<Chronicle>) -> Play {
    match id.parse::<usize>().unwrap_or(0) % 4 {
        1 if chronicle.lock().unwrap().overrun.insert(id.to_owned()) => Play::OverrunsOnce,
        2 if attempts == 0 => Play::FailsOnce,
        3 => Play::Extends,
        _ => Play::Quick,
    }
}

/// Writes a lease down when it is had, before its job can be ended and had by another: of leases that began within
/// one millisecond the earlier one stands first.
fn begin(chronicle: &Mutex<Chronicle>, id: &str, by: &'static str, granted_ms: i64) -> usize {
    let mut chronicle = chronicle.lock().unwrap();
    let grants = chronicle.grants.entry(id.to_owned()).or_default();
    grants.push(Grant { by, granted_ms, expires_ms: i64::MAX, is_ended: false, is_final: false });
    grants.len() - 1
}

/// What became of a lease.
fn note(chronicle: &Mutex<Chronicle>, id: &str, at: usize, expires_ms: i64, is_ended: bool, is_final: bool) {
    let mut chronicle = chronicle.lock().unwrap();
    let grant = &mut chronicle.grants.get_mut(id).unwrap()[at];
    *grant = Grant { expires_ms, is_ended, is_final, ..grant.clone() };
}

fn all_done(chronicle: &Mutex<Chronicle>) -> bool {
    let chronicle = chronicle.lock().unwrap();
    chronicle.grants.values().filter(|grants| grants.iter().any(|grant| grant.is_final)).count() == N_JOBS
}

async fn their_worker(theirs: TaskHarbor, chronicle: Arc<Mutex<Chronicle>>) {
    while !all_done(&chronicle) {
        let Some(held) = theirs.reserve("q", SHORT_MS).await else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        let Held { record, granted_ms, mut expires_nano, .. } = held.clone();
        let at = begin(&chronicle, &record.id, "them", granted_ms);
        let play = play(&record.id, record.attempts, &chronicle);
        let ended = match play {
            Play::FailsOnce => theirs.retry(&held, theirs.now(), None).await.map(|()| true),
            Play::OverrunsOnce => {
                tokio::time::sleep(OVERRUN).await;
                let ended = theirs.ack(&held, theirs.now()).await;
                assert_ne!(ended, Ok(true), "an overrun worker's ack of `{}` was accepted", record.id);
                ended
            }
            Play::Extends => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                expires_nano = theirs.extend(&held, theirs.now(), SHORT_MS).await.unwrap_or(expires_nano);
                theirs.ack(&held, theirs.now()).await
            }
            Play::Quick => theirs.ack(&held, theirs.now()).await,
        };
        let is_ended = ended == Ok(true);
        let is_final = is_ended && play != Play::FailsOnce;
        note(&chronicle, &record.id, at, expires_nano / 1_000_000, is_ended, is_final);
    }
}

async fn our_worker(store: Store, chronicle: Arc<Mutex<Chronicle>>) {
    let lease = Duration::from_millis(SHORT_MS.unsigned_abs());
    while !all_done(&chronicle) {
        let taken = store.turn(&[], Some(&Reserve { lease, ..ask("q", 1) })).await.unwrap().reserved;
        let Some(job) = taken.jobs.first() else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        let id = job.id.to_string();
        let at = begin(&chronicle, &id, "us", taken.now_ms);
        let play = play(&id, i64::from(job.attempts), &chronicle);
        let mut expires_ms = taken.now_ms + SHORT_MS;
        let ended = match play {
            Play::FailsOnce => end(&store, job, retry(1, Duration::ZERO)).await,
            Play::OverrunsOnce => {
                tokio::time::sleep(OVERRUN).await;
                let ended = end(&store, job, done("late")).await;
                assert!(matches!(ended, Settled::LeaseLost(_)), "our overrun ack of `{id}`: {ended:?}");
                ended
            }
            Play::Extends => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let held = Lease { id: job.id.clone(), queue: job.queue.clone(), token: job.token.clone() };
                if store.extend(&[held], lease).await.unwrap() == [Settled::Applied] {
                    // At least: the server's time of the extension is not known here.
                    expires_ms += 5;
                }
                end(&store, job, done("ours")).await
            }
            Play::Quick => end(&store, job, done("ours")).await,
        };
        let is_ended = ended == Settled::Applied;
        let is_final = is_ended && play != Play::FailsOnce;
        note(&chronicle, &id, at, expires_ms, is_ended, is_final);
    }
}

/// Three workers of each kind end `N_JOBS` jobs, half of them of each kind of producer.
async fn play_round(bench: &Bench, theirs: &TaskHarbor, round: usize) -> Chronicle {
    for n in round * N_JOBS..(round + 1) * N_JOBS {
        if n % 2 == 0 {
            let most = NewJob { max_attempts: Some(1000), ..job(&n.to_string(), "q") };
            bench.store.enqueue(&[most]).await.unwrap();
        } else {
            theirs.enqueue(&Order { max_attempts: 1000, ..order(&n.to_string()) }).await;
        }
    }
    let chronicle = Arc::new(Mutex::new(Chronicle::default()));
    let mut fleet = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let raw = RedisServer::shared().raw().await;
        fleet.spawn(their_worker(TaskHarbor::new(raw, &bench.prefix), Arc::clone(&chronicle)));
        fleet.spawn(our_worker(bench.store.clone(), Arc::clone(&chronicle)));
    }
    tokio::time::timeout(Duration::from_secs(60), fleet.join_all()).await.expect("every job ends");
    Arc::try_unwrap(chronicle).ok().unwrap().into_inner().unwrap()
}

/// Three workers of each kind with short leases, some of which are overrun: no job ever has two valid leases, every
/// late end is refused, and every job ends once. It goes on until each kind has taken a job over from the other.
#[tokio::test]
async fn a_mixed_fleet_ends_every_job_once() {
    let (mut bench, theirs) = both().await;
    let (mut seen, mut rounds) = (BTreeSet::new(), 0);
    while !(seen.contains(&("them", "us")) && seen.contains(&("us", "them"))) {
        assert!(rounds < 20, "in {rounds} rounds nobody took over from the other kind: {seen:?}");
        for (id, mut grants) in play_round(&bench, &theirs, rounds).await.grants {
            grants.sort_by_key(|grant| grant.granted_ms);
            assert_eq!(grants.iter().filter(|grant| grant.is_final).count(), 1, "`{id}` ends once: {grants:?}");
            assert!(grants.last().unwrap().is_final, "`{id}`: {grants:?}");
            for pair in grants.windows(2) {
                let is_over = pair[0].is_ended || pair[1].granted_ms >= pair[0].expires_ms;
                assert!(is_over, "`{id}` has two valid leases: {pair:?}");
                seen.insert((pair[0].by, pair[1].by));
            }
        }
        rounds += 1;
    }
    let done_ids: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "done"), "0", "-1"]).await;
    assert_eq!(done_ids.len(), rounds * N_JOBS);
    bench.check().await;
}
