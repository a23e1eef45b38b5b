//! How many jobs fail at the moment, and over what time their retries are spread so that they do not come back together.
//!
//! When what jobs depend on goes away, thousands fail within a second, and a backoff that begins at a second brings
//! them all back in the next one. So a host keeps the retries it causes to a rate: some a second, and more as far as
//! jobs succeed beside them. A job that fails alone is not held up.

use std::time::{Duration, Instant};

/// Retries a second that a host may cause whatever else it does.
pub const RETRIES_PER_S: u32 = 20;
/// One retry more for so many jobs that are done.
pub const DONE_PER_RETRY: u32 = 10;
/// Failures within the seconds that are remembered which are no crowd yet.
const ALONE: u32 = 10;
/// Seconds that are remembered; what failed before them has no part in a crowd.
const SECONDS: usize = 5;

/// The ends of attempts in the last seconds.
#[derive(Debug)]
pub(super) struct Crowd {
    started: Instant,
    /// The second that is counted now, from the start.
    second: u64,
    failed: [u32; SECONDS],
    done: [u32; SECONDS],
}

impl Crowd {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, second: 0, failed: [0; SECONDS], done: [0; SECONDS] }
    }

    /// Goes on to a moment; what is older than the last seconds is forgotten.
    pub(super) fn go_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.started).as_secs();
        for passed in (self.second + 1..=second).take(SECONDS) {
            let place = Self::place(passed);
            (self.failed[place], self.done[place]) = (0, 0);
        }
        self.second = self.second.max(second);
    }

    /// Counts a job that was done.
    pub(super) fn done(&mut self) {
        let place = Self::place(self.second);
        self.done[place] = self.done[place].saturating_add(1);
    }

    /// Counts a job that failed and will run again; over this time its retry is to be spread, at least.
    pub(super) fn failed(&mut self) -> Duration {
        let place = Self::place(self.second);
        self.failed[place] = self.failed[place].saturating_add(1);
        let sum = |counts: &[u32; SECONDS]| counts.iter().fold(0_u32, |sum, n| sum.saturating_add(*n));
        let n_failed = sum(&self.failed).saturating_sub(ALONE);
        let per_s = RETRIES_PER_S.saturating_add(sum(&self.done) / DONE_PER_RETRY / SECONDS as u32);
        Duration::from_secs(n_failed.into()) / per_s
    }

    fn place(second: u64) -> usize {
        usize::try_from(second % SECONDS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(crowd: &mut Crowd, ms: u64) {
        let now = crowd.started + Duration::from_millis(ms);
        crowd.go_to(now);
    }

    #[test]
    fn a_few_failures_are_no_crowd() {
        let mut crowd = Crowd::new(Instant::now());
        assert!((0..ALONE).all(|_| crowd.failed() == Duration::ZERO));
        assert_eq!(crowd.failed(), Duration::from_millis(50));
    }

    #[test]
    fn a_crowd_is_spread_to_its_rate_and_forgotten_after_some_seconds() {
        let mut crowd = Crowd::new(Instant::now());
        let spreads: Vec<Duration> = (0..810).map(|_| crowd.failed()).collect();
        assert_eq!(spreads.last(), Some(&Duration::from_secs(40)), "800 too many, 20 a second");
        at(&mut crowd, 4_999);
        assert!(crowd.failed() > Duration::from_secs(40));
        at(&mut crowd, 5_000);
        assert_eq!(crowd.failed(), Duration::ZERO, "only the one of the last second is left");
        at(&mut crowd, 3_600_000);
        assert_eq!(crowd.failed(), Duration::ZERO);
        at(&mut crowd, 0);
        assert_eq!(crowd.second, 3_600, "a clock that stands still or goes back forgets nothing");
    }

    #[test]
    fn a_busy_host_may_retry_more() {
        let mut crowd = Crowd::new(Instant::now());
        (0..50_000).for_each(|_| crowd.done());
        let spread = (0..510).map(|_| crowd.failed()).last();
        assert_eq!(spread, Some(Duration::from_secs(500) / 1020), "one failure in a hundred is no outage");
    }
}
