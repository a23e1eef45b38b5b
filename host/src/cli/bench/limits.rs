//! What limits by key cost: many keys, and one that is flooded.

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
pub(super) const HOT_JOBS: u64 = 20_000;
/// What the flooded jobs carry.
const HOT: &str = "\"hot\"";

/// What limits by key cost. Rates are set beside those of the same round.
#[derive(Debug, Default, Serialize)]
pub(super) struct Limits {
    pub(super) limited_jobs_per_s: f64,
    pub(super) limited_rate_ratio: f64,
    pub(super) limited_redis_us_per_job: f64,
    /// Only measured in a private Redis: jobs of the flooded key stay behind.
    pub(super) hot_key_others_rate_ratio: Option<f64>,
    /// Until the first job of another key starts: the flooded ones before it are taken out of the way meanwhile.
    pub(super) hot_key_others_first_ms: Option<f64>,
}

/// One round's drains.
pub(super) struct Round {
    pub(super) unlimited: Drain,
    pub(super) limited: Drain,
    pub(super) flooded: Option<Drain>,
}

impl Limits {
    pub(super) fn of(rounds: &[Round]) -> Self {
        let of = |figure: &dyn Fn(&Round) -> Option<f64>| {
            let values: Vec<f64> = rounds.iter().filter_map(figure).collect();
            (!values.is_empty()).then(|| median(values))
        };
        Self {
            limited_jobs_per_s: median(rounds.iter().map(|round| round.limited.jobs_per_s)),
            limited_rate_ratio: median(rounds.iter().map(|r| r.limited.jobs_per_s / r.unlimited.jobs_per_s)),
            limited_redis_us_per_job: median(rounds.iter().map(|round| round.limited.redis_us)),
            hot_key_others_rate_ratio: of(&|round| {
                Some(round.flooded.as_ref()?.counted_per_s / round.limited.counted_per_s)
            }),
            hot_key_others_first_ms: of(&|round| Some(round.flooded.as_ref()?.first_ms)),
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

    /// The same behind [`HOT_JOBS`] jobs of one key; only the others count.
    pub(super) async fn drain_flooded(&self, round: u32, n: u64) -> Result<Drain, Failure> {
        // The flooded jobs outlast the round, so each has a queue of its own.
        let queue = format!("flooded-{round}");
        self.limit(&queue).await?;
        let hot = NewJob { limit_key: Some("hot".to_owned()), payload: HOT.into(), ..noop(&queue) };
        self.fill(HOT_JOBS, |_| hot.clone()).await?;
        self.fill(n, |place| with_key(&queue, place)).await?;
        let handled = Arc::new(Handled::new(n));
        let counter = Arc::clone(&handled);
        let executor = native(Box::new(move |job| {
            if job.payload != HOT.as_bytes() {
                counter.count();
            }
            Outcome::Done { result: Vec::new() }
        }));
        Ok(self.work(&queue, &handled, executor).await?.0)
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
