//! Campaigns against hosts: killed, stopped for a while, asked to go, and jobs that trap.

use std::time::Duration;

use super::Size;
use super::invariants::Bounds;
use super::plan::{Mode, Plan};
use super::report::Row;
use super::world::{Setup, World, pause};

/// Jobs of every kind: nine in ten end well, the others fail for a while, always, or trap.
fn mixed(world: &mut World, n_jobs: usize, ms: std::ops::Range<u64>) -> Vec<Plan> {
    let dice = &mut world.dice;
    let mode = |roll| match roll {
        0..90 => Mode::Ok,
        90..96 => Mode::Fails(1),
        96..98 => Mode::Fails(2),
        98 => Mode::AlwaysFails,
        _ => Mode::Poison,
    };
    (0..n_jobs).map(|n| Plan::new(n, mode(dice.between(0, 100)), dice.between(ms.start, ms.end))).collect()
}

/// Six hosts, no faults: every job runs exactly as often as it asks for.
pub(super) async fn no_faults(size: Size) -> Row {
    let lease = Duration::from_secs(size.of(5, 10));
    let mut world = World::with_hosts("none", Setup { lease, ..Setup::default() }).await;
    let plans = mixed(&mut world, size.of(600, 100_000), 0..2);
    world.feed(plans).await;
    world.drained().await;
    let bounds = Bounds::of(&world);
    world.finish(bounds).await
}

/// Hosts die by signal 9, at random, a third of a second apart.
pub(super) async fn kill(size: Size) -> Row {
    let (n_jobs, n_kills) = (size.of(300, 20_000), size.of(6, 500));
    let hosts = size.of(3, 6);
    let mut world = World::with_hosts("kill", Setup { hosts, ..Setup::default() }).await;
    let mean = Duration::from_millis(300);
    let plans = mixed(&mut world, n_jobs, 50..150);
    let feeding = world.feed_over(plans, mean * u32::try_from(n_kills).unwrap_or(1));
    for _ in 0..n_kills {
        pause(world.dice.gap(mean)).await;
        let victim = world.dice.place(world.fleet.len());
        world.fleet.kill(victim);
        world.n_faults += 1;
    }
    world.fed(feeding).await;
    world.drained().await;
    let most = world.n_faults * world.slots;
    let bounds = Bounds { duplicates: most as u64, ..Bounds::of(&world) };
    world.finish(bounds).await
}

/// Hosts stand still for longer than their lease, and come back: what they still try to write is refused.
pub(super) async fn stop(size: Size) -> Row {
    let (n_jobs, n_stops) = (size.of(120, 10_000), size.of(3, 100));
    let hosts = size.of(3, 6);
    let mut world = World::with_hosts("stop", Setup { hosts, ..Setup::default() }).await;
    let plans = mixed(&mut world, n_jobs, 20..120);
    let lease = world.lease;
    let feeding = world.feed_over(plans, lease * 2 * u32::try_from(n_stops).unwrap_or(1));
    for _ in 0..n_stops {
        pause(world.dice.gap(Duration::from_millis(200))).await;
        let victim = world.dice.place(world.fleet.len());
        world.fleet.pause(victim);
        pause(world.dice.times(lease, 1.2, 2.5)).await;
        world.fleet.resume(victim);
        world.n_faults += 1;
    }
    world.fed(feeding).await;
    world.drained().await;
    let most = world.n_faults * world.slots;
    let bounds = Bounds { duplicates: most as u64, ..Bounds::of(&world) };
    world.fleet.stop();
    let n_refused = world.fleet.leases_lost();
    let mut row = world.finish(bounds).await;
    row.note = format!("{n_refused} late ends and extensions refused");
    row
}

/// Hosts stand still for less than a third of their lease: nobody takes anything from them.
pub(super) async fn hiccup(size: Size) -> Row {
    let (n_jobs, n_stops) = (size.of(200, 10_000), size.of(3, 100));
    let lease = Duration::from_secs(size.of(3, 3));
    let mut world = World::with_hosts("hiccup", Setup { hosts: 3, lease, ..Setup::default() }).await;
    let plans = mixed(&mut world, n_jobs, 10..60);
    let feeding = world.feed_over(plans, Duration::from_millis(1200) * u32::try_from(n_stops).unwrap_or(1));
    for n in 0..n_stops {
        // One after the other, so that no host is stopped twice within one heartbeat.
        let victim = n % world.fleet.len();
        world.fleet.pause(victim);
        pause(lease.mul_f64(0.3)).await;
        world.fleet.resume(victim);
        pause(world.dice.gap(Duration::from_millis(200))).await;
        world.n_faults += 1;
    }
    world.fed(feeding).await;
    world.drained().await;
    let bounds = Bounds::of(&world);
    world.finish(bounds).await
}

/// One job in five traps: each is dead after its attempts, and no other suffers.
pub(super) async fn poison(size: Size) -> Row {
    let lease = Duration::from_secs(size.of(5, 10));
    let mut world = World::with_hosts("poison", Setup { hosts: 3, lease, ..Setup::default() }).await;
    let plans = (0..size.of(200, 5000))
        .map(|n| Plan::new(n, if n % 5 == 0 { Mode::Poison } else { Mode::Ok }, world.dice.between(0, 5)))
        .collect();
    world.feed(plans).await;
    world.drained().await;
    let bounds = Bounds::of(&world);
    world.finish(bounds).await
}

/// Hosts are asked to go, one every two seconds, and replaced: what they run ends first.
pub(super) async fn rolling(size: Size) -> Row {
    let (n_jobs, n_restarts) = (size.of(300, 20_000), size.of(3, 60));
    let lease = Duration::from_secs(5);
    let hosts = size.of(3, 6);
    let mut world = World::with_hosts("rolling", Setup { hosts, lease, ..Setup::default() }).await;
    let period = Duration::from_millis(size.of(700, 2000));
    let plans = mixed(&mut world, n_jobs, 20..100);
    let feeding = world.feed_over(plans, period * u32::try_from(n_restarts).unwrap_or(1));
    for n in 0..n_restarts {
        pause(period).await;
        let place = n % world.fleet.len();
        world.fleet.replace(place);
        world.n_faults += 1;
    }
    world.fed(feeding).await;
    world.drained().await;
    let bounds = Bounds::of(&world);
    world.fleet.stop();
    let slowest = world.fleet.slowest_exit();
    let mut row = world.finish(bounds).await;
    row.note = format!("slowest exit {:.2} s", slowest.as_secs_f64());
    row
}
