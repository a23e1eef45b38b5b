//! What processes and the machine use, from `/proc`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// CPU time of this process, all threads.
pub(super) fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CPU time of another process, from the scheduler's counters of its threads (nanoseconds).
pub(super) fn cpu_of(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let run_ns = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(|thread| run_ns(thread.path())).sum())
}

/// How long the main thread of another process was ready to run and got no core.
pub(super) fn waited_for_core(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// CPU time of this machine's cores that another machine on the same hardware had instead, since the start.
pub(super) fn stolen() -> Duration {
    Duration::from_millis(cpu_ticks(&[7]) * 10)
}

/// Proportional memory of another process in MB.
#[expect(clippy::cast_precision_loss, reason = "a size in KiB fits a double exactly")]
pub(super) fn pss_mb_of(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(|rest| rest.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) as f64 * 1024.0 / 1e6
}

/// What else the machine did meanwhile.
pub(super) struct Busy {
    started: Instant,
    all_before: Duration,
    own_before: Duration,
}

impl Busy {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), all_before: machine_cpu(), own_before: own_cpu() }
    }

    /// Cores that neither this process nor Redis used, on average.
    pub(super) fn others_cores(&self, redis: Duration) -> f64 {
        let all = machine_cpu().saturating_sub(self.all_before);
        let ours = own_cpu().saturating_sub(self.own_before) + redis;
        all.saturating_sub(ours).as_secs_f64() / self.started.elapsed().as_secs_f64()
    }
}

/// Busy time of all cores since the machine started: user, nice, system, interrupts.
fn machine_cpu() -> Duration {
    Duration::from_millis(cpu_ticks(&[0, 1, 2, 5, 6]) * 10)
}

/// The sum of some fields of the line of all cores, in hundredths of a second.
fn cpu_ticks(fields: &[usize]) -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let all: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    fields.iter().filter_map(|n| all.get(*n)).sum()
}
