//! Campaigns about time: everything due at one instant, everything failing at once, and a drain that is cut in half.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use wasmhost::clock::Timestamp;
use wasmhost::effects::Effects;
use wasmhost::job::JobId;
use wasmhost::store::{End, Settle, Settled};

use super::Size;
use super::invariants::Bounds;
use super::plan::{Mode, Plan, QUEUE, Work};
use super::report::{Row, percentile};
use super::sink::Event;
use super::world::{Setup, World, ended, pause, total};

/// Lateness that ninety-nine jobs in a hundred may have.
const LATENESS: Duration = Duration::from_secs(10);
/// Longest time that a script may hold Redis.
const SCRIPT: Duration = Duration::from_millis(5);

/// All jobs are due at the same nanosecond.
pub(super) async fn instant(size: Size) -> Row {
    let n_jobs = size.of(500, 20_000);
    let lease = Duration::from_secs(5);
    let slowlog = ["--slowlog-log-slower-than", "5000", "--slowlog-max-len", "1000"];
    let mut world = World::with_hosts("instant", Setup { redis: &slowlog, lease, ..Setup::default() }).await;
    let run_at = Timestamp::now().after(Duration::from_millis(size.of(1500, 6000)));
    let plans = (0..n_jobs).map(|n| Plan { run_at: Some(run_at), ..Plan::new(n, Mode::Ok, 0) }).collect();
    world.feed(plans).await;
    assert!(Timestamp::now().nanos() < run_at.nanos(), "enqueueing took longer than the jobs were to wait");
    world.drained().await;
    let late = |at: i64| Duration::from_nanos(u64::try_from(at - run_at.nanos()).unwrap_or(0));
    let lateness: Vec<Duration> =
        world.sink.events().iter().filter(|event| event.is_start).map(|event| late(event.at)).collect();
    let p99 = percentile(&lateness, 99).unwrap_or_default();
    let n_slow = slow_scripts(&world).await;
    // Only the long campaign says something about speed.
    assert!(size == Size::Short || p99 <= LATENESS, "lateness p99 is {p99:?}");
    let bounds = Bounds::of(&world);
    let mut row = world.finish(bounds).await;
    row.note = format!("lateness p99 {:.2} s, {n_slow} scripts above {SCRIPT:?}", p99.as_secs_f64());
    row
}

/// How many scripts the server's log of slow commands has.
async fn slow_scripts(world: &World) -> usize {
    let mut raw = world.redis.raw().await;
    let log: Vec<redis::Value> =
        redis::cmd("SLOWLOG").arg("GET").arg(1000).query_async(&mut raw).await.expect("the log of slow commands");
    let name = |entry: &redis::Value| match entry {
        redis::Value::Array(parts) => match parts.get(3) {
            Some(redis::Value::Array(words)) => words.first().map(|word| format!("{word:?}")).unwrap_or_default(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    log.iter().filter(|entry| name(entry).contains("EVALSHA")).count()
}

/// What the jobs call is dead for a while: their retries spread, and all end well once it is back.
pub(super) async fn downstream(size: Size) -> Row {
    let n_jobs = size.of(200, 5000);
    let lease = Duration::from_secs(5);
    let retry_base = size.of(Some(Duration::from_millis(400)), None);
    let setup = Setup { lease, retry_base, ..Setup::default() };
    let mut world = World::with_hosts("downstream", setup).await;
    let outage = Duration::from_secs(size.of(3, 60));
    world.sink.set_dead(true);
    let plans = (0..n_jobs).map(|n| Plan::new(n, Mode::Ok, 0)).collect();
    let started = Instant::now();
    world.feed(plans).await;
    pause(outage.saturating_sub(started.elapsed())).await;
    world.sink.set_dead(false);
    let retries = retries_by_second(&world.sink.refused());
    let most = f64::from(retries.iter().copied().max().unwrap_or(0));
    let mean = f64::from(retries.iter().sum::<u32>()) / f64::from(u32::try_from(retries.len().max(1)).unwrap_or(1));
    world.n_faults = world.sink.refused().len();
    // Few jobs are too much of a chance to say how evenly they come.
    assert!(size == Size::Short || most <= 2.0 * mean, "more than twice the mean in one second: {retries:?}");
    world.drained().await;
    let bounds = Bounds::of(&world);
    let mut row = world.finish(bounds).await;
    row.note = format!("busiest second {most:.0} retries, mean {mean:.0}");
    row
}

/// How many retries came in each second of an outage; the first call of a job is no retry.
fn retries_by_second(calls: &[Event]) -> Vec<u32> {
    let mut called = HashSet::new();
    let retries: Vec<i64> = calls.iter().filter(|call| !called.insert(call.job.as_str())).map(|call| call.at).collect();
    let first = retries.iter().copied().min().unwrap_or_default();
    let mut seconds = Vec::new();
    for at in retries {
        let second = usize::try_from((at - first) / 1_000_000_000).unwrap_or(0);
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
    }
    seconds
}

/// The only host is killed when half of a drain is done, and another takes over. So many times.
pub(super) async fn drain(size: Size) -> Row {
    let mut all = Row::default();
    let mut slowest = Duration::ZERO;
    for _ in 0..size.of(1, 20) {
        let (row, back) = drain_once(size).await;
        all.add(row);
        slowest = slowest.max(back);
    }
    all.note = format!("{}; back at full rate after at most {:.2} s", all.note, slowest.as_secs_f64());
    all
}

async fn drain_once(size: Size) -> (Row, Duration) {
    let n_jobs = size.of(3000, 100_000);
    let setup = Setup { hosts: 1, slots: 16, work: Work::Echo, ..Setup::default() };
    let mut world = World::new("drain", setup).await;
    world.feed((0..n_jobs).map(|n| Plan::new(n, Mode::Ok, 0)).collect()).await;
    world.fleet.start(1);
    let clock = Instant::now();
    let mut samples = Vec::new();
    until_ended(&world, n_jobs as u64 / 2, &clock, &mut samples).await;
    world.fleet.kill(0);
    let killed = clock.elapsed();
    let held = held(&world).await;
    world.n_faults = 1;
    let before = rate_before(&samples);
    until_ended(&world, n_jobs as u64, &clock, &mut samples).await;
    world.drained().await;

    let back = back_at(&samples, killed, before * 0.8).unwrap_or(killed).saturating_sub(killed);
    let limit = world.lease + Duration::from_secs(1);
    assert!(size == Size::Short || back <= limit, "full rate again {back:?} after the kill, at most {limit:?} is due");
    for piece in held.chunks(128) {
        let answers = world.store.turn(piece, None).await.expect("a turn").settled;
        assert!(answers.iter().all(|answer| matches!(answer, Settled::LeaseLost(_))), "late acks: {answers:?}");
    }
    let n_done = total(&world.queue().await.expect("the queue"), "done");
    assert_eq!(n_done, n_jobs as u64, "a late ack was counted");
    let bounds = Bounds { duplicates: held.len() as u64, ..Bounds::of(&world) };
    let mut row = world.finish(bounds).await;
    row.note = format!("{} late acks refused in the last round", held.len());
    (row, back)
}

/// Notes how many jobs have ended, until there are so many.
async fn until_ended(world: &World, n_wanted: u64, clock: &Instant, samples: &mut Vec<(Duration, u64)>) {
    let deadline = clock.elapsed() + Duration::from_secs(120);
    loop {
        let n_ended = world.queue().await.map_or(0, |queue| ended(&queue));
        samples.push((clock.elapsed(), n_ended));
        if n_ended >= n_wanted {
            return;
        }
        assert!(clock.elapsed() < deadline, "{n_ended} of {n_wanted} jobs ended");
        pause(Duration::from_millis(5)).await;
    }
}

/// The acks that the dead host would still make for what it holds.
async fn held(world: &World) -> Vec<Settle> {
    let mut raw = world.redis.raw().await;
    let key = format!("{}:queue:{QUEUE}:inflight", world.prefix);
    let ids: Vec<Vec<u8>> = redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query_async(&mut raw).await.expect("the held");
    let mut acks = Vec::with_capacity(ids.len());
    for id in ids {
        let row = [world.prefix.as_bytes(), b":job:", &id].concat();
        let token: String =
            redis::cmd("HGET").arg(row).arg("lease_token").query_async(&mut raw).await.expect("a token");
        acks.push(Settle {
            id: JobId::from_bytes(&id),
            queue: QUEUE.to_owned(),
            token,
            end: End::Done { result: b"late".to_vec(), ttl: Duration::from_secs(60) },
            fields: Vec::new(),
            effects: Effects::none(),
            digest: None,
        });
    }
    acks
}

/// Jobs per second from the first that ended to the last sample.
fn rate_before(samples: &[(Duration, u64)]) -> f64 {
    let first = samples.iter().find(|(_, n_ended)| *n_ended > 0);
    match (first, samples.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => rate(first, last),
        _ => 0.0,
    }
}

/// When a window of a quarter of a second began in which jobs ended at this rate.
fn back_at(samples: &[(Duration, u64)], after: Duration, wanted: f64) -> Option<Duration> {
    let window = Duration::from_millis(250);
    samples.iter().filter(|sample| sample.0 >= after).find_map(|begin| {
        let end = samples.iter().find(|sample| sample.0 >= begin.0 + window)?;
        (rate(begin, end) >= wanted).then_some(begin.0)
    })
}

fn rate(from: &(Duration, u64), to: &(Duration, u64)) -> f64 {
    f64::from(u32::try_from(to.1 - from.1).unwrap_or(u32::MAX)) / (to.0 - from.0).as_secs_f64()
}
