//! When a failed job runs again: exponential backoff with full jitter and a cap.
//!
//! Full jitter spreads a crowd that failed at the same moment evenly over the whole delay, so that it does not come
//! back in one second.

use std::time::Duration;

use crate::clock::format_duration;
use crate::job::{MAX_ATTEMPTS, MAX_ATTEMPTS_MAX};

/// Delay before the second execution, before jitter.
pub const BASE: Duration = Duration::from_secs(1);
/// Longest delay, before jitter.
pub const CAP: Duration = Duration::from_secs(600);
/// Longest first delay that can be asked for.
pub const BASE_MAX: Duration = Duration::from_secs(3600);
/// Longest cap that can be asked for.
pub const CAP_MAX: Duration = Duration::from_secs(24 * 3600);
/// Shortest base and cap.
pub const DELAY_MIN: Duration = Duration::from_millis(1);
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
    /// The delay after `failures` failed executions (1 or more): a random share of the backoff's full one, but not
    /// before about `spread`, the time that the retries of others which fail now take up already; never above the cap.
    /// `chance` is a number in 0..1 from the caller's random source.
    #[must_use]
    pub fn delay(&self, failures: u32, spread: Duration, chance: f64) -> Duration {
        let chance = chance.clamp(0.0, 1.0);
        let factor = MULTIPLIER.saturating_pow(failures.saturating_sub(1).min(30));
        let backoff = self.base.saturating_mul(factor).min(self.cap).mul_f64(chance);
        // Half to one and a half of it, all of that below the cap: jobs cut off there would come back together.
        backoff.max(spread.min(self.cap * 2 / 3).mul_f64(0.5 + chance))
    }
}

/// What a job or a manifest says about its retries. What it leaves out is for the next to say: the job, then the
/// manifest, then the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryWish {
    /// Delay before the second execution, before jitter.
    pub base: Option<Duration>,
    /// Longest delay, before jitter; it holds for a base above it too.
    pub cap: Option<Duration>,
    /// Executions in all.
    pub max_attempts: Option<u32>,
}

impl RetryWish {
    /// What this one says, and where it says nothing what `next` does.
    #[must_use]
    pub fn or(self, next: Self) -> Self {
        Self {
            base: self.base.or(next.base),
            cap: self.cap.or(next.cap),
            max_attempts: self.max_attempts.or(next.max_attempts),
        }
    }

    /// Executions in all.
    #[must_use]
    pub fn executions(&self) -> u32 {
        self.max_attempts.unwrap_or(MAX_ATTEMPTS)
    }

    /// When a failed job runs again on a host of this policy.
    #[must_use]
    pub fn over(&self, policy: RetryPolicy) -> RetryPolicy {
        RetryPolicy { base: self.base.unwrap_or(policy.base), cap: self.cap.unwrap_or(policy.cap) }
    }

    /// The same within the limits, for what other programs wrote.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            base: self.base.map(|base| base.clamp(DELAY_MIN, BASE_MAX)),
            cap: self.cap.map(|cap| cap.clamp(DELAY_MIN, CAP_MAX)),
            max_attempts: self.max_attempts.map(|n| n.clamp(1, MAX_ATTEMPTS_MAX)),
        }
    }

    /// Checks every value. `name` is how a value is called where it was written, by its name here.
    ///
    /// # Errors
    /// A sentence that names the value and the rule.
    pub fn check(&self, name: impl Fn(&str) -> String) -> Result<(), String> {
        for (field, value, most) in [("base", self.base, BASE_MAX), ("cap", self.cap, CAP_MAX)] {
            if let Some(value) = value.filter(|value| !(DELAY_MIN..=most).contains(value)) {
                let (name, value, most) = (name(field), format_duration(value), format_duration(most));
                return Err(format!("{name} is {value}, must be between {} and {most}", format_duration(DELAY_MIN)));
            }
        }
        if let (Some(base), Some(cap)) = (self.base, self.cap)
            && base > cap
        {
            let (base_name, cap_name) = (name("base"), name("cap"));
            let (base, cap) = (format_duration(base), format_duration(cap));
            return Err(format!("{base_name} is {base}, must be at most {cap_name}, which is {cap}"));
        }
        if let Some(n) = self.max_attempts.filter(|n| !(1..=MAX_ATTEMPTS_MAX).contains(n)) {
            return Err(format!("{} is {n}, must be between 1 and {MAX_ATTEMPTS_MAX}", name("max_attempts")));
        }
        Ok(())
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
        let full: Vec<u64> = (1..=6).map(|n| policy.delay(n, Duration::ZERO, 1.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 10, 10]);
        assert_eq!(policy.delay(u32::MAX, Duration::ZERO, 1.0).as_secs(), 10);
    }

    #[test]
    fn a_crowd_is_spread_but_not_beyond_the_cap() {
        let policy = RetryPolicy { base: Duration::from_secs(1), cap: Duration::from_secs(10) };
        let delay = |spread, chance| policy.delay(2, Duration::from_secs(spread), chance).as_secs_f64();
        assert_eq!([delay(0, 0.5), delay(1, 0.5), delay(4, 0.5)], [1.0, 1.0, 4.0]);
        assert_eq!([delay(4, 0.0), delay(4, 1.0)], [2.0, 6.0]);
        assert!((delay(60, 0.0) - 10.0 / 3.0).abs() < 1e-6 && (delay(60, 1.0) - 10.0).abs() < 1e-6);
    }

    #[test]
    fn the_job_decides_before_the_manifest_and_the_manifest_before_the_host() {
        let second = Duration::from_secs;
        let job = RetryWish { base: Some(second(2)), ..RetryWish::default() };
        let manifest = RetryWish { base: Some(second(3)), cap: Some(second(30)), max_attempts: Some(7) };
        let wish = job.or(manifest);
        assert_eq!(wish, RetryWish { base: Some(second(2)), cap: Some(second(30)), max_attempts: Some(7) });
        let host = RetryPolicy { base: second(1), cap: second(600) };
        assert_eq!(wish.over(host), RetryPolicy { base: second(2), cap: second(30) });
        assert_eq!(RetryWish::default().over(host), host);
        assert_eq!(RetryWish::default().executions(), MAX_ATTEMPTS);
    }

    #[test]
    fn a_wish_out_of_range_is_refused_by_its_name() {
        let name = |field: &str| format!("`retry.{field}`");
        let check = |base_ms: u64, cap_ms: u64, n: u32| {
            let (base, cap) = (Some(Duration::from_millis(base_ms)), Some(Duration::from_millis(cap_ms)));
            RetryWish { base, cap, max_attempts: Some(n) }.check(name)
        };
        assert_eq!(check(1, 1, 1), Ok(()));
        assert!(check(0, 1, 1).unwrap_err().contains("`retry.base`"));
        assert!(check(1, 0, 1).unwrap_err().contains("`retry.cap`"));
        assert!(check(2, 1, 1).unwrap_err().contains("at most `retry.cap`"));
        assert!(check(1, 24 * 3_600_000 + 1, 1).unwrap_err().contains("`retry.cap`"));
        assert!(check(1, 1, 0).unwrap_err().contains("`retry.max_attempts`"));
    }

    #[test]
    fn jitter_uses_the_whole_delay() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(3, Duration::ZERO, 0.0), Duration::ZERO);
        assert_eq!(policy.delay(3, Duration::ZERO, 0.5), Duration::from_secs(2));
        assert!((0..1000).map(|_| chance()).all(|c| (0.0..1.0).contains(&c)));
    }
}
