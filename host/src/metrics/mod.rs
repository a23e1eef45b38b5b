//! What a host counts: its own small registry, written on the hot path, read by whoever serves `/metrics`.
//!
//! Invariant: counting is an addition without a lock, some nanoseconds; every set of labels is fixed when the host
//! starts (its queues, the outcomes), so nothing that a job says can make the registry grow.
//!
//! Next: `metrics/table.rs` for what there is, `metrics/text.rs` for how it is written.

mod table;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use self::table::*;
pub use self::text::{Text, seconds};
use crate::outcome::Outcome;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number as it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is this now.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// What it was set to last.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper ends of a histogram's buckets, in microseconds; what is longer falls into one more.
pub const BUCKETS_US: [u64; 20] = [
    10,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
];

/// Times, sorted into buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    pub fn observe_us(&self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|most| *most < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        self.observe_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Times in each bucket, and their sum in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS_US.len() + 1], u64) {
        let counts = std::array::from_fn(|n| self.buckets[n].load(Ordering::Relaxed));
        (counts, self.sum_us.load(Ordering::Relaxed))
    }
}

/// What a worker counts of one queue.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// Its name.
    pub name: String,
    /// Ended attempts, in the order of [`Outcome::KINDS`].
    pub attempts: [Counter; Outcome::KINDS.len()],
    /// From a job's creation to the start of its first attempt.
    pub wait: Histogram,
    /// Wall time of attempts.
    pub wall: Histogram,
    /// CPU time of attempts, in microseconds.
    pub cpu_us: Counter,
}

/// How settling ended, in the order of [`WorkerMetrics::settled`].
pub const SETTLED: [&str; 7] = ["done", "retry", "dlq", "released", "lease_lost", "refused", "conflict"];

/// What a worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Each served queue, in the order of the options.
    pub queues: Vec<QueueMetrics>,
    /// What settling came to, in the order of [`SETTLED`].
    pub settled: [Counter; SETTLED.len()],
    /// Round trips that settle and reserve.
    pub turns: Histogram,
    /// Calls that Redis did not answer.
    pub redis_failures: Counter,
    /// Jobs that the worker holds a lease on.
    pub held: Gauge,
    /// Most attempts that run at once.
    pub slots: Gauge,
    /// The revision of the published jumpscripts.
    pub revision: Gauge,
    /// Progress reports that could not be taken.
    pub reports_dropped: Counter,
}

impl WorkerMetrics {
    /// For these queues and so many slots.
    #[must_use]
    pub fn new<'a>(queues: impl IntoIterator<Item = &'a str>, slots: usize) -> Self {
        let queue = |name: &str| QueueMetrics { name: name.to_owned(), ..QueueMetrics::default() };
        let metrics = Self { queues: queues.into_iter().map(queue).collect(), ..Self::default() };
        metrics.slots.set(slots as u64);
        metrics
    }

    /// The counts of a queue that is served.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueMetrics> {
        // A host serves few queues: looking through them is cheaper than hashing the name.
        self.queues.iter().find(|queue| queue.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_bucket_whose_end_it_does_not_pass() {
        let histogram = Histogram::default();
        for us in [0, 10, 11, 3_600_000_000, u64::MAX / 2] {
            histogram.observe_us(us);
        }
        let (counts, sum) = histogram.read();
        assert_eq!((counts[0], counts[1], counts[BUCKETS_US.len() - 1], counts[BUCKETS_US.len()]), (2, 1, 1, 1));
        assert_eq!(sum, 21 + 3_600_000_000 + u64::MAX / 2);
    }

    #[test]
    fn a_queue_is_found_by_its_name_and_no_other_is_made() {
        let metrics = WorkerMetrics::new(["a", "b"], 8);
        assert!(metrics.queue("b").is_some() && metrics.queue("c").is_none());
        assert_eq!(metrics.slots.get(), 8);
    }
}
