//! What it costs to take jobs over from another system: the same no-op jobs, pushed as Hero does and as ours, drained
//! in turn. Who begins alternates, and the median of the pairs' ratios counts.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use super::drain::{Bench, Drain, Handled, TYPE, WARM_UP, median};
use super::in_sandbox;
use crate::bridge::{Faults, Hero, Service};
use crate::cli::Failure;
use crate::executor::wasm::WasmExecutor;
use crate::outcome::Outcome;
use crate::protocol::hero;

/// What jobs cost that were taken over, in a sandbox each, beside jobs of ours.
#[derive(Debug, Serialize)]
pub(super) struct Adopted {
    pub(super) adopted_jobs_per_s: f64,
    pub(super) adopted_rate_ratio: f64,
    /// The smallest and the largest of the pairs' ratios.
    pub(super) adopted_rate_ratio_span: (f64, f64),
    pub(super) adopted_host_us_per_job: f64,
    pub(super) adopted_redis_us_per_job: f64,
}

/// A drain of jobs that were taken over, and one of as many of ours.
pub(super) struct Pair {
    ours: Drain,
    adopted: Drain,
}

impl Pair {
    /// The drain of what was taken over.
    pub(super) fn adopted(&self) -> &Drain {
        &self.adopted
    }
}

impl Adopted {
    pub(super) fn of(pairs: &[Pair]) -> Option<Self> {
        let ratio = |pair: &Pair| pair.adopted.jobs_per_s / pair.ours.jobs_per_s;
        let of = |figure: fn(&Drain) -> f64| median(pairs.iter().map(|pair| figure(&pair.adopted)));
        let span = pairs.iter().map(|pair| (ratio(pair), ratio(pair)));
        Some(Self {
            adopted_jobs_per_s: of(|drain| drain.jobs_per_s),
            adopted_rate_ratio: median(pairs.iter().map(ratio)),
            adopted_rate_ratio_span: span.reduce(|(low, high), (ratio, _)| (low.min(ratio), high.max(ratio)))?,
            adopted_host_us_per_job: of(|drain| drain.host_us),
            adopted_redis_us_per_job: of(|drain| drain.redis_us),
        })
    }
}

impl Bench {
    /// A pair of drains in sandboxes.
    pub(super) async fn drain_adopted_pair(
        &self,
        round: u32,
        n: u64,
        executor: &Arc<WasmExecutor>,
    ) -> Result<Pair, Failure> {
        if round == 0 {
            self.drain_adopted(n.min(WARM_UP), executor).await?;
        }
        let ours = async || Ok::<_, Failure>(self.drain(n, |counted| in_sandbox(executor, counted)).await?.0);
        Ok(if round.is_multiple_of(2) {
            let ours = ours().await?;
            Pair { ours, adopted: self.drain_adopted(n, executor).await? }
        } else {
            let adopted = self.drain_adopted(n, executor).await?;
            Pair { ours: ours().await?, adopted }
        })
    }

    /// Pushes no-op jobs as Hero does, then measures a bridge and a worker until all of them are settled.
    async fn drain_adopted(&self, n: u64, executor: &Arc<WasmExecutor>) -> Result<Drain, Failure> {
        let source = hero::source(TYPE);
        self.store.push_foreign(&source, n).await?;
        let handled = Arc::new(Handled::new(n));
        let counter = Arc::clone(&handled);
        let counted = in_sandbox(
            executor,
            Box::new(move |_| {
                counter.count();
                Outcome::Done { result: Vec::new() }
            }),
        );
        let (stop, stopped) = watch::channel(false);
        let bridge = Arc::new(Hero::new(&[TYPE.to_owned()]));
        // As a host does it: the worker takes from the list itself what it can, the bridge the rest.
        let taking = Self { store: self.store.taking_from([source.clone()]), ..self.clone() };
        let worker = taking.worker(&source.queue, counted);
        let service = Service::new(self.store.clone(), bridge, "bench", Faults::default()).beside(worker.drawn());
        let bridging = tokio::spawn(service.run(stopped));
        let worked = self.work_by(worker, &handled).await;
        stop.send_replace(true);
        bridging.await.map_err(|error| Failure::new(format!("the bridge failed: {error}")))?;
        let (drain, n_done) = worked?;
        if n_done != n {
            return Err(Failure::new(format!("{n_done} of {n} jobs were done; the rest failed")));
        }
        Ok(drain)
    }
}
