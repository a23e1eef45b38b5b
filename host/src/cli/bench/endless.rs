//! Guests without end: how late they are stopped, and what ten thousand of them leave behind.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Serialize;

use super::machine::pss_mb_of;
use crate::cli::Failure;
use crate::jumpscript::Digest;
use crate::outcome::Outcome;
use crate::sandbox::{Call, Options, Sandbox, Script, TICK};

/// `(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))`: computes.
const COMPUTES: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";
/// A command that calls `poll_oneoff` for one hour of the monotonic clock: waits.
const WAITS: &[u8] = b"\0asm\x01\0\0\0\x01\x0c\x02\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\0\0\
    \x02\x26\x01\x16wasi_snapshot_preview1\x0bpoll_oneoff\0\0\x03\x02\x01\x01\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\x01\x0a\x11\x01\x0f\0\x41\0\x41\xc0\0\x41\x01\x41\x80\x01\x10\0\x1a\x0b\
    \x0b\x16\x01\0\x41\x10\x0b\x10\x01\0\0\0\0\0\0\0\0\xa0\xb8\x30\x46\x03\0\0";
/// Computing guests whose lateness is measured, one after the other.
const LATE: usize = 50;
/// The deadline of those.
const DEADLINE: Duration = Duration::from_millis(100);
/// The deadline of the many.
const SHORT: Duration = Duration::from_millis(5);
/// Of the many, one in so many computes; the others wait. A computing guest has its core until the next tick.
const COMPUTING: usize = 5;
/// Of the many that wait, so many at once.
const AT_ONCE: usize = 200;

/// What guests without end do to a host.
#[derive(Debug, Serialize)]
pub(super) struct Endless {
    /// How long after its deadline a computing guest was stopped.
    pub(super) overrun_ms_p50: f64,
    pub(super) overrun_ms_max: f64,
    pub(super) time_outs: usize,
    /// Proportional memory of this process after them, less that before them and after a tenth of them.
    pub(super) time_outs_memory_mb: f64,
    pub(super) time_outs_descriptors: i64,
}

impl Endless {
    /// The most that `overrun_ms_max` may be.
    pub(super) fn overrun_ms_target() -> f64 {
        2.0 * TICK.as_secs_f64() * 1e3
    }
}

/// Measures on a thread of its own, as guests run in a host.
pub(super) async fn measure(time_outs: usize) -> Result<Endless, Failure> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(measured(time_outs))
    };
    tokio::task::spawn_blocking(run).await.map_err(|error| Failure::new(format!("the measurement failed: {error}")))?
}

async fn measured(time_outs: usize) -> Result<Endless, Failure> {
    let sandbox = Sandbox::new(Options { pool_size: 2 * AT_ONCE, ..Options::default() })?;
    let computes = sandbox.load(Digest::of(COMPUTES), COMPUTES)?;
    let waits = sandbox.load(Digest::of(WAITS), WAITS)?;
    let mut overrun_ms = Vec::with_capacity(LATE);
    for _ in 0..LATE {
        let began = std::time::Instant::now();
        stopped(&sandbox, &computes, DEADLINE).await?;
        overrun_ms.push(began.elapsed().saturating_sub(DEADLINE).as_secs_f64() * 1e3);
    }
    overrun_ms.sort_by(f64::total_cmp);

    many(&sandbox, &computes, &waits, time_outs.div_ceil(10)).await?;
    let (memory, descriptors) = used();
    many(&sandbox, &computes, &waits, time_outs).await?;
    let (memory_after, descriptors_after) = used();
    Ok(Endless {
        overrun_ms_p50: overrun_ms[overrun_ms.len() / 2],
        overrun_ms_max: overrun_ms[overrun_ms.len() - 1],
        time_outs,
        time_outs_memory_mb: memory_after - memory,
        time_outs_descriptors: descriptors_after - descriptors,
    })
}

/// Runs so many attempts into their deadlines, computing and waiting ones.
async fn many(sandbox: &Sandbox, computes: &Script, waits: &Script, n: usize) -> Result<(), Failure> {
    for _ in 0..n / COMPUTING {
        stopped(sandbox, computes, SHORT).await?;
    }
    let waiting = (0..n - n / COMPUTING).map(|_| stopped(sandbox, waits, SHORT));
    let mut waiting = futures_util::stream::iter(waiting).buffer_unordered(AT_ONCE);
    while let Some(ended) = waiting.next().await {
        ended?;
    }
    Ok(())
}

/// Runs an attempt that must end with its deadline.
async fn stopped(sandbox: &Sandbox, script: &Script, timeout: Duration) -> Result<(), Failure> {
    let finished = sandbox.run(script, Call { timeout, ..Call::new("") }).await;
    match finished.outcome {
        Outcome::TimedOut { .. } => Ok(()),
        other => Err(Failure::new(format!("an attempt without end ended otherwise: {}", other.error_text()))),
    }
}

/// Memory of this process in MB, and its open descriptors.
fn used() -> (f64, i64) {
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    (pss_mb_of(std::process::id()), i64::try_from(descriptors).unwrap_or(i64::MAX))
}
