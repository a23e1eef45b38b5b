//! When a failed job runs again: exponential backoff with full jitter and a cap.
//!
//! Full jitter spreads a crowd that failed at the same moment evenly over the whole delay, so that it does not come
//! back in one second.

use std::time::Duration;

/// Delay before the second execution, before jitter.
pub const BASE: Duration = Duration::from_secs(1);
/// Longest delay, before jitter.
pub const CAP: Duration = Duration::from_secs(600);
/// What each further failure multiplies the delay by.
pub const MULTIPLIER: u32 = 2;

/// The retry policy of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Delay before the second execution, before jitter.
    pub base: Duration,
    /// Longest delay, before jitter.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base: BASE, cap: CAP }
    }
}

impl RetryPolicy {
    /// The delay after `failures` failed executions (1 or more). `chance` is a number in 0..1 from the caller's
    /// random source: the delay is that share of the full one.
    #[must_use]
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        let factor = MULTIPLIER.saturating_pow(failures.saturating_sub(1).min(30));
        let full = self.base.saturating_mul(factor).min(self.cap);
        full.mul_f64(chance.clamp(0.0, 1.0))
    }
}

/// A uniform number in 0..1.
#[must_use]
pub fn chance() -> f64 {
    let bits = getrandom::u64().unwrap_or(u64::MAX / 2) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let share = bits as f64 / (1_u64 << 53) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_delay_doubles_up_to_the_cap() {
        let policy = RetryPolicy { base: Duration::from_secs(1), cap: Duration::from_secs(10) };
        let full: Vec<u64> = (1..=6).map(|n| policy.delay(n, 1.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 10, 10]);
        assert_eq!(policy.delay(u32::MAX, 1.0).as_secs(), 10);
    }

    #[test]
    fn jitter_uses_the_whole_delay() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(3, 0.0), Duration::ZERO);
        assert_eq!(policy.delay(3, 0.5), Duration::from_secs(2));
        assert!((0..1000).map(|_| chance()).all(|c| (0.0..1.0).contains(&c)));
    }
}
