//! Campaigns against Redis: answers that are lost, scripts that are forgotten, connections that are cut, restarts,
//! signal 9, and a memory that is full.

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use wasmhost::clock::Timestamp;

use super::Size;
use super::invariants::Bounds;
use super::plan::{Mode, Plan};
use super::report::Row;
use super::world::{Setup, World, pause};

/// How long hosts may take to work again after Redis came back.
const RECONNECT: Duration = Duration::from_secs(5);

fn jobs(world: &mut World, n_jobs: usize, ms: std::ops::Range<u64>) -> Vec<Plan> {
    let dice = &mut world.dice;
    let mode = |roll| match roll {
        0..95 => Mode::Ok,
        95..98 => Mode::Fails(1),
        _ => Mode::AlwaysFails,
    };
    (0..n_jobs).map(|n| Plan::new(n, mode(dice.between(0, 100)), dice.between(ms.start, ms.end))).collect()
}

/// Hand-outs whose answer was lost come back with their lease; a lost reserve is no duplicate, because nobody ran it.
pub(super) async fn lost_answers(size: Size) -> Row {
    let setup = Setup { hosts: 3, is_proxied: true, ..Setup::default() };
    let mut world = World::with_hosts("lost-answers", setup).await;
    let mut plans = jobs(&mut world, size.of(300, 10_000), 0..20);
    // Not from the start: a host that cannot make its first checks does not start.
    let proxy = world.proxy.as_ref().expect("a proxy");
    proxy.lose_by_chance(size.of(40_000, 10_000), world.seed);
    // Every second one has an idempotency key and no id of its own.
    plans.iter_mut().step_by(2).for_each(|plan| plan.is_keyed = true);
    let feeding = world.feed_over(plans, Duration::from_millis(size.of(2000, 60_000)));
    world.fed(feeding).await;
    world.drained().await;
    let proxy = world.proxy.as_ref().expect("a proxy");
    proxy.lose_by_chance(0, 0);
    world.n_faults = proxy.lost() as usize;
    assert!(world.n_faults > 0, "no answer was lost");
    // A job whose extension or ack could not be repeated within its lease runs again.
    let most = world.n_faults * world.slots;
    let bounds = Bounds { duplicates: most as u64, ..Bounds::of(&world) };
    world.finish(bounds).await
}

/// Scripts are forgotten, connections cut, and the server restarted in good order; the hosts are back within 5 s, and
/// wait for it without turning in circles.
pub(super) async fn restarts(size: Size) -> Row {
    let (n_jobs, n_faults) = (size.of(200, 10_000), size.of(6, 120));
    let redis = ["--appendonly", "yes", "--appendfsync", "everysec"];
    let mut world = World::with_hosts("restarts", Setup { redis: &redis, hosts: 3, ..Setup::default() }).await;
    let plans = jobs(&mut world, n_jobs, 0..40);
    let feeding = world.feed_over(plans, Duration::from_millis(900) * u32::try_from(n_faults).unwrap_or(1));
    let (mut slowest, mut busiest) = (Duration::ZERO, 0.0_f64);
    for n in 0..n_faults {
        pause(world.dice.gap(Duration::from_millis(300))).await;
        let mut raw = world.redis.raw().await;
        match n % 3 {
            0 => redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut raw).await.expect("SCRIPT FLUSH"),
            1 => {
                for kind in ["normal", "pubsub"] {
                    let mut kill = redis::cmd("CLIENT");
                    kill.arg(&["KILL", "TYPE", kind, "SKIPME", "yes"]);
                    kill.exec_async(&mut raw).await.expect("CLIENT KILL");
                }
            }
            _ => {
                // The server closes the connection in place of an answer.
                let _ = redis::cmd("SHUTDOWN").exec_async(&mut raw).await;
                world.redis.kill();
                let before = world.fleet.cpu_times();
                let away = Instant::now();
                pause(Duration::from_millis(size.of(300, 1500))).await;
                for (before, after) in before.iter().zip(world.fleet.cpu_times()) {
                    let share = after.saturating_sub(*before).as_secs_f64() / away.elapsed().as_secs_f64();
                    busiest = busiest.max(share);
                }
                world.redis.restart();
                slowest = slowest.max(first_start(&world).await);
            }
        }
        world.n_faults += 1;
    }
    world.fed(feeding).await;
    world.drained().await;
    assert!(slowest <= RECONNECT, "the first job after a restart began after {slowest:?}");
    // Short pauses are measured in ticks of 10 ms, so only long ones say something.
    assert!(size == Size::Short || busiest < 0.3, "a host without Redis used {busiest:.2} of a core");
    let most = world.n_faults * world.slots * world.fleet.len();
    let bounds = Bounds { duplicates: most as u64, ..Bounds::of(&world) };
    let mut row = world.finish(bounds).await;
    row.note =
        format!("slowest reconnect {:.2} s, busiest host {:.0} % of a core", slowest.as_secs_f64(), busiest * 100.0);
    row
}

/// How long it takes from now until a job begins; nothing when no job waits.
async fn first_start(world: &World) -> Duration {
    let (from, clock) = (Timestamp::now().nanos(), Instant::now());
    while clock.elapsed() < RECONNECT * 2 {
        if let Some(at) = world.sink.first_start_after(from) {
            return Duration::from_nanos(u64::try_from(at - from).unwrap_or(0));
        }
        let is_idle = world.queue().await.is_some_and(|queue| queue.ready + queue.scheduled + queue.inflight == 0);
        if is_idle {
            return Duration::ZERO;
        }
        pause(Duration::from_millis(5)).await;
    }
    clock.elapsed()
}

/// The server dies by signal 9; with `appendfsync always` it has kept everything that it had confirmed.
pub(super) async fn redis_kill(size: Size) -> Row {
    let (n_jobs, n_kills) = (size.of(200, 10_000), size.of(4, 60));
    let redis = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut world = World::with_hosts("redis-kill", Setup { redis: &redis, hosts: 3, ..Setup::default() }).await;
    let plans = jobs(&mut world, n_jobs, 0..40);
    let feeding = world.feed_over(plans, Duration::from_millis(1000) * u32::try_from(n_kills).unwrap_or(1));
    for _ in 0..n_kills {
        pause(world.dice.gap(Duration::from_millis(500))).await;
        world.redis.kill();
        pause(world.dice.times(Duration::from_millis(300), 0.0, 2.0)).await;
        world.redis.restart();
        world.n_faults += 1;
    }
    world.fed(feeding).await;
    world.drained().await;
    let most = world.n_faults * world.slots * world.fleet.len();
    let bounds = Bounds { duplicates: most as u64, ..Bounds::of(&world) };
    world.finish(bounds).await
}

/// Redis is full for longer than a lease, again and again: producers are refused with a clear error, running jobs keep
/// their leases, and their ends are written.
pub(super) async fn full(size: Size) -> Row {
    let (n_jobs, n_squeezes) = (size.of(200, 10_000), size.of(2, 20));
    let lease = Duration::from_millis(size.of(1500, 2000));
    let mut world = World::with_hosts("full", Setup { hosts: 3, lease, ..Setup::default() }).await;
    let mut plans: Vec<Plan> = (0..n_jobs).map(|n| Plan::new(n, Mode::Ok, world.dice.between(0, 30))).collect();
    // Some run longer than a lease: without an extension they would be handed out twice.
    let long_ms = u64::try_from(lease.as_millis()).unwrap_or(0) * 3 / 2;
    plans.iter_mut().step_by(n_jobs / (4 * n_squeezes)).for_each(|plan| plan.ms = long_ms);
    let period = lease.mul_f64(1.3) + Duration::from_millis(500);
    let feeding = world.feed_over(plans, period * u32::try_from(n_squeezes).unwrap_or(1));
    let mut raw = world.redis.raw().await;
    for _ in 0..n_squeezes {
        pause(world.dice.times(Duration::from_millis(500), 0.5, 1.5)).await;
        set_maxmemory(&mut raw, 1).await;
        pause(lease.mul_f64(1.3)).await;
        set_maxmemory(&mut raw, 0).await;
        world.n_faults += 1;
    }
    let n_refused = world.fed(feeding).await;
    assert!(n_refused > 0, "a full Redis took every job");
    world.drained().await;
    let bounds = Bounds::of(&world);
    let mut row = world.finish(bounds).await;
    row.note = format!("{n_refused} enqueues refused");
    row
}

async fn set_maxmemory(raw: &mut redis::aio::MultiplexedConnection, bytes: u64) {
    let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query_async(raw).await.expect("CONFIG SET");
    let _: () = raw.ping().await.expect("a ping");
}
