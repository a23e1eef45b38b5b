//! What limits by key cost: many keys, and one that is flooded.
//!
//! What the flooded key takes from the others is found by pairs of drains, of the same number of jobs with the same keys
//! under the same limits, in queues that nobody used before: one queue has nothing else, in the other the flooded key's
//! jobs lie before all of them and stay while they run. Who begins alternates from pair to pair, and the median of the
//! pairs' ratios counts. The first jobs of each drain warm it up, and as many lie behind the counted ones: while a queue
//! without a flooded key runs dry its last jobs wait for others of their keys, which a rate has nothing to do with.

use std::sync::Arc;

use serde::Serialize;

use super::drain::{Bench, Drain, Handled, WARM_UP, median, native, noop};
use crate::cli::Failure;
use crate::job::NewJob;
use crate::outcome::Outcome;
use crate::store::QueueChange;

/// Keys of the limited jobs.
pub(super) const KEYS: u64 = 10_000;
/// Jobs of the one key that is flooded; they lie before all others.
const HOT_JOBS: u64 = 20_000;
/// Most counted jobs beside it.
const OTHERS: u64 = 20_000;
/// Pairs of drains, with and without the flooded key, in each round.
const PAIRS: u32 = 4;
/// What the flooded jobs carry.
const HOT: &str = "\"hot\"";

/// What limits by key cost. Rates are set beside those of the same round.
#[derive(Debug, Default, Serialize)]
pub(super) struct Limits {
    pub(super) limited_jobs_per_s: f64,
    pub(super) limited_rate_ratio: f64,
    pub(super) limited_redis_us_per_job: f64,
    /// Only measured in a private Redis: jobs of the flooded key stay behind. Once the others have begun.
    pub(super) hot_key_others_rate_ratio: Option<f64>,
    /// The smallest and the largest of the pairs' ratios.
    pub(super) hot_key_others_rate_ratio_span: Option<(f64, f64)>,
    /// The same rate from the start of the worker: what taking the flooded jobs out of the way costs is in it.
    pub(super) hot_key_others_rate_ratio_from_start: Option<f64>,
    /// Until the first job of another key starts: the flooded ones before it are taken out of the way meanwhile.
    pub(super) hot_key_others_first_ms: Option<f64>,
}

/// One round's drains.
pub(super) struct Round {
    pub(super) unlimited: Drain,
    pub(super) limited: Drain,
    pub(super) pairs: Vec<Pair>,
}

/// A drain behind a flooded key, and one of the same jobs without it.
pub(super) struct Pair {
    calm: Drain,
    flooded: Drain,
}

impl Limits {
    pub(super) fn of(rounds: &[Round]) -> Self {
        let pairs: Vec<&Pair> = rounds.iter().flat_map(|round| &round.pairs).collect();
        let of = |figure: fn(&Pair) -> f64| {
            let values = pairs.iter().map(|pair| figure(pair));
            (!pairs.is_empty()).then(|| median(values))
        };
        let rate_ratio: fn(&Pair) -> f64 = |pair| pair.flooded.counted_per_s / pair.calm.counted_per_s;
        let ratios = pairs.iter().map(|pair| rate_ratio(pair));
        Self {
            limited_jobs_per_s: median(rounds.iter().map(|round| round.limited.jobs_per_s)),
            limited_rate_ratio: median(rounds.iter().map(|r| r.limited.jobs_per_s / r.unlimited.jobs_per_s)),
            limited_redis_us_per_job: median(rounds.iter().map(|round| round.limited.redis_us)),
            hot_key_others_rate_ratio: of(rate_ratio),
            hot_key_others_rate_ratio_span: ratios
                .map(|ratio| (ratio, ratio))
                .reduce(|(low, high), (ratio, _)| (low.min(ratio), high.max(ratio))),
            hot_key_others_rate_ratio_from_start: of(|pair| pair.calm.last_ms / pair.flooded.last_ms),
            hot_key_others_first_ms: of(|pair| pair.flooded.first_ms),
        }
    }
}

impl Bench {
    /// Drains some jobs with keys of another queue, which do not count. `n` is the size of drains that do.
    pub(super) async fn warm_up_limited(&self, n: u64) -> Result<(), Failure> {
        let (queue, n) = ("limited-warm-up", n.min(WARM_UP));
        self.limit(queue).await?;
        self.fill(n, |place| with_key(queue, place)).await?;
        self.drain_all(queue, n, native).await.map(drop)
    }

    /// Drains jobs of [`KEYS`] keys of which one each may run at a time.
    pub(super) async fn drain_limited(&self, n: u64) -> Result<Drain, Failure> {
        self.limit("limited").await?;
        self.fill(n, |place| with_key("limited", place)).await?;
        self.drain_all("limited", n, native).await
    }

    /// Drains of the same jobs with and without a flooded key. `n` is the size of other drains.
    pub(super) async fn drain_pairs(&self, round: u32, n: u64) -> Result<Vec<Pair>, Failure> {
        let (n, n_around) = (n.min(OTHERS), n.min(WARM_UP));
        let mut pairs = Vec::new();
        for place in round * PAIRS..(round + 1) * PAIRS {
            // The flooded jobs outlast the drain, so each has a queue of its own.
            let (calm, flooded) = (format!("calm-{place}"), format!("flooded-{place}"));
            pairs.push(if place % 2 == 0 {
                let calm = self.drain_others(&calm, 0, n_around, n).await?;
                Pair { calm, flooded: self.drain_others(&flooded, HOT_JOBS, n_around, n).await? }
            } else {
                let flooded = self.drain_others(&flooded, HOT_JOBS, n_around, n).await?;
                Pair { calm: self.drain_others(&calm, 0, n_around, n).await?, flooded }
            });
        }
        Ok(pairs)
    }

    /// Drains `n` jobs of many keys behind `n_hot` of one key; `n_around` more lie before and behind the counted ones.
    async fn drain_others(&self, queue: &str, n_hot: u64, n_around: u64, n: u64) -> Result<Drain, Failure> {
        self.limit(queue).await?;
        let hot = NewJob { limit_key: Some("hot".to_owned()), payload: HOT.into(), ..noop(queue) };
        self.fill(n_hot, |_| hot.clone()).await?;
        self.fill(n + 2 * n_around, |place| with_key(queue, place)).await?;
        let handled = Arc::new(Handled::after(n_around, n));
        let counter = Arc::clone(&handled);
        let executor = native(Box::new(move |job| {
            if job.payload != HOT.as_bytes() {
                counter.count();
            }
            Outcome::Done { result: Vec::new() }
        }));
        Ok(self.work(queue, &handled, executor).await?.0)
    }

    async fn limit(&self, queue: &str) -> Result<(), Failure> {
        let change = QueueChange { key_concurrency: Some(Some(1)), ..QueueChange::default() };
        self.store.set_queue(queue, &change).await?;
        Ok(())
    }
}

/// A job with one of the keys, which follow each other in no order.
fn with_key(queue: &str, place: u64) -> NewJob {
    let mixed = (place ^ (place >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
    NewJob { limit_key: Some(format!("key-{}", key % KEYS)), ..noop(queue) }
}
