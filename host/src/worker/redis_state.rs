//! What a worker does while Redis does not answer: it waits, longer each time, and then tries everything at once.
//!
//! Invariant: however many calls fail together, they count as one failure, and the next call to Redis is a pause away.

use std::time::{Duration, Instant};

use super::Worker;
use crate::retry;
use crate::store::Error;

/// First pause after Redis did not answer; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two tries while Redis is away.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause is short again when nothing has failed for this long.
const CALM: Duration = Duration::from_secs(4);

/// Whether Redis answers, as far as is known.
#[derive(Debug)]
pub(super) struct RedisState {
    /// No call before then.
    pub(super) paused_until: Option<Instant>,
    pause: Duration,
    failed_at: Option<Instant>,
    is_away: bool,
}

impl RedisState {
    pub(super) const fn new() -> Self {
        Self { paused_until: None, pause: PAUSE_MIN, failed_at: None, is_away: false }
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Notes an answer; whether it is the first after a failure.
    fn answered(&mut self) -> bool {
        std::mem::replace(&mut self.is_away, false)
    }

    /// Notes a failure; whether it is the first one.
    fn failed(&mut self, now: Instant, chance: f64) -> bool {
        let is_first = !std::mem::replace(&mut self.is_away, true);
        if !self.is_paused() {
            if self.failed_at.is_some_and(|before| now.duration_since(before) > CALM) {
                self.pause = PAUSE_MIN;
            }
            // Hosts that lost the same server must not come back in step.
            self.paused_until = Some(now + self.pause.mul_f64(0.5 + chance / 2.0));
            self.failed_at = Some(now);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        is_first
    }
}

impl Worker {
    pub(super) fn redis_answered(&mut self) {
        if self.redis.answered() {
            tracing::info!("redis answers again");
            // What was pushed meanwhile woke nobody here, and Redis may have forgotten who watches what.
            self.is_hot = true;
            self.check_now();
        }
    }

    pub(super) fn redis_failed(&mut self, error: &Error) {
        self.metrics.redis_failures.increment();
        if self.redis.failed(Instant::now(), retry::chance()) {
            tracing::error!(%error, "redis does not answer, trying again");
        }
        self.is_hot = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause that a failure at `now` leads to.
    fn pause(state: &mut RedisState, now: Instant) -> Duration {
        state.failed(now, 1.0);
        state.paused_until.take().unwrap() - now
    }

    #[test]
    fn calls_that_fail_together_count_once() {
        let (mut state, now) = (RedisState::new(), Instant::now());
        for _ in 0..20 {
            state.failed(now, 1.0);
        }
        assert_eq!(state.paused_until.take(), Some(now + PAUSE_MIN));
        assert_eq!(pause(&mut state, now), PAUSE_MIN * 2);
    }

    #[test]
    fn the_pause_grows_to_two_seconds_and_is_short_again_after_a_calm() {
        let (mut state, now) = (RedisState::new(), Instant::now());
        let pauses: Vec<Duration> = (0..8).map(|_| pause(&mut state, now)).collect();
        assert!(pauses.is_sorted() && pauses[7] == PAUSE_MAX, "{pauses:?}");
        assert!(state.answered() && !state.answered());
        assert_eq!(pause(&mut state, now + CALM), PAUSE_MAX, "one answer in between is no calm");
        assert_eq!(pause(&mut state, now + CALM * 3), PAUSE_MIN);
    }

    #[test]
    fn pauses_differ_from_host_to_host() {
        let (mut state, now) = (RedisState::new(), Instant::now());
        state.failed(now, 0.0);
        assert_eq!(state.paused_until, Some(now + PAUSE_MIN / 2));
    }
}
