//! Random choices that follow from a seed alone.

use std::time::Duration;

/// SplitMix64: small, and the same sequence on every machine and in every version.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The dice of another seed: neighbouring seeds are to have nothing in common.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number from 0 up to, but without, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn number(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(u64::from(end))).expect("a small number")
    }

    /// So many nanoseconds at most.
    pub fn nanos(&mut self, end: i64) -> i64 {
        i64::try_from(self.below(end.unsigned_abs())).expect("a span of time")
    }

    pub fn is_one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// From `from` to `to` things.
    pub fn some<T>(&mut self, from: u64, to: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let n = from + self.below(to - from + 1);
        (0..n).map(|_| make(self)).collect()
    }

    /// A number from `from` up to, but without, `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    /// A place in a list of so many.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.next() % length.max(1) as u64).unwrap_or(0)
    }

    /// A number in 0..1.
    pub fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// A gap between faults that happen at random with this mean, at most five times as long.
    pub fn gap(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.share()).max(1e-9).ln()).min(5.0))
    }

    /// A time that is so many times as long as `unit`.
    pub fn times(&mut self, unit: Duration, least: f64, most: f64) -> Duration {
        unit.mul_f64(least + (most - least) * self.share())
    }
}
