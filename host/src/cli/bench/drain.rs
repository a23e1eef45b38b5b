//! Filling queues and draining them with a worker: what most figures are made of.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::machine::own_cpu;
use crate::cli::Failure;
use crate::executor::native::NativeExecutor;
use crate::executor::permits::Permits;
use crate::executor::wasm::{WasmExecutor, WasmOptions};
use crate::executor::{Attempt, Executor};
use crate::host::{UNKNOWN_TYPE_WAIT, guest_threads};
use crate::job::{NewJob, Reserved, StoreId};
use crate::jumpscript::{Digest, Manifest, ScriptName};
use crate::outcome::Outcome;
use crate::permissions::Ceiling;
use crate::ports::{PublishRule, Pulse};
use crate::retry::RetryPolicy;
use crate::sandbox::{Compiler, MEMORY_BYTES_MAX, Options, Sandbox};

use crate::store::{self, NewJumpscript, Spent, Store};
use crate::supplies::Supplies;
use crate::worker::{self, Worker};

/// The name under which the no-op jumpscript is published.
pub(super) const TYPE: &str = "bench-noop";
/// Jobs of one enqueue call.
pub(super) const BULK: u64 = 500;
/// Most jobs of a drain that warms up and does not count. `make bench-peers` gives its peers as many.
pub(super) const WARM_UP: u64 = 5_000;
/// The queue of such drains.
const WARM_UP_QUEUE: &str = "drain-warm-up";

/// A store under the prefix of measurements.
pub(super) async fn connect(url: &str) -> Result<Store, Failure> {
    let options = store::Options { url: url.to_owned(), prefix: "bench".to_owned(), ..store::Options::default() };
    Ok(Store::connect(StoreId::default(), &options).await?)
}

/// What all measurements share.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) url: String,
    pub(super) concurrency: usize,
}

/// One drain.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    /// All jobs over the time until the worker has ended.
    pub(super) jobs_per_s: f64,
    pub(super) host_us: f64,
    pub(super) redis_us: f64,
    /// Counted jobs over the time from the start of the first to that of the last of them.
    pub(super) counted_per_s: f64,
    /// From the worker's start to the first job that was seen, counted or not.
    pub(super) first_ms: f64,
    /// From the worker's start to the last counted job.
    pub(super) last_ms: f64,
    /// What the server did meanwhile, by command.
    pub(super) commands: BTreeMap<String, Spent>,
    n_done: u64,
}

impl Drain {
    /// How many jobs it was.
    #[expect(clippy::cast_precision_loss, reason = "a number of jobs needs no more than 52 bits")]
    pub(super) fn n_done(&self) -> f64 {
        self.n_done as f64
    }
}

impl Bench {
    /// Publishes the no-op jumpscript: jobs of a type that nobody knows would wait for it.
    pub(super) async fn publish(&self, wasm: &[u8]) -> Result<(), Failure> {
        let inspection = Sandbox::inspect(wasm)?;
        let name = ScriptName::new("wasmhost", TYPE).map_err(Failure::new)?;
        let script = NewJumpscript { name, kind: inspection.kind, manifest: Manifest::default() };
        self.store.publish(&script, wasm, PublishRule::Always).await?;
        Ok(())
    }

    /// Publishes the no-op jumpscript and makes an executor that has it in memory.
    pub(super) async fn wasm_executor(&self, wasm: &[u8]) -> Result<Arc<WasmExecutor>, Failure> {
        self.publish(wasm).await?;
        let sandbox = Sandbox::new(Options { compiler: Compiler::InProcess, ..Options::default() })?;
        sandbox.load(Digest::of(wasm), wasm)?;
        let options = WasmOptions {
            threads: guest_threads(&self.url),
            concurrency: self.concurrency,
            memory_bytes_max: MEMORY_BYTES_MAX,
            node: "bench".to_owned(),
        };
        let io = tokio::runtime::Handle::current();
        let (code, state) = (Arc::new(self.store.clone()), Arc::new(self.store.clone()));
        let permits = Permits::new(Ceiling::default(), code.clone());
        let supply = Arc::new(Supplies::default());
        Ok(Arc::new(WasmExecutor::start_threads(sandbox, code, state, supply, permits, io, options)?))
    }

    /// Enqueues `n` jobs; answers how many in a second.
    pub(super) async fn fill(&self, n: u64, make: impl Fn(u64) -> NewJob) -> Result<f64, Failure> {
        let started = Instant::now();
        for first in (0..n).step_by(usize::try_from(BULK).unwrap_or(1)) {
            let jobs: Vec<NewJob> = (first..n.min(first + BULK)).map(&make).collect();
            self.store.enqueue(&jobs).await?;
        }
        Ok(per_s(n, started.elapsed()))
    }

    /// Fills a queue with no-op jobs, then measures a worker until all of them are settled. Answers the rate of the
    /// filling, too.
    pub(super) async fn drain(
        &self,
        n: u64,
        executor: impl FnOnce(Handler) -> Arc<dyn Executor>,
    ) -> Result<(Drain, f64), Failure> {
        let enqueue_per_s = self.fill(n, |_| noop("drain")).await?;
        Ok((self.drain_all("drain", n, executor).await?, enqueue_per_s))
    }

    /// Drains some jobs of another queue, which do not count: what a first drain of its sort has to do besides, such as
    /// the server's first touch of its memory, belongs to none that counts. `n` is the size of those.
    pub(super) async fn warm_up(
        &self,
        n: u64,
        executor: impl FnOnce(Handler) -> Arc<dyn Executor>,
    ) -> Result<(), Failure> {
        let n = n.min(WARM_UP);
        self.fill(n, |_| noop(WARM_UP_QUEUE)).await?;
        self.drain_all(WARM_UP_QUEUE, n, executor).await.map(drop)
    }

    /// Measures a worker until the `n` jobs of a queue are settled.
    pub(super) async fn drain_all(
        &self,
        queue: &str,
        n: u64,
        executor: impl FnOnce(Handler) -> Arc<dyn Executor>,
    ) -> Result<Drain, Failure> {
        let handled = Arc::new(Handled::new(n));
        let counter = Arc::clone(&handled);
        let handler: Handler = Box::new(move |_| {
            counter.count();
            Outcome::Done { result: Vec::new() }
        });
        let (drain, n_done) = self.work(queue, &handled, executor(handler)).await?;
        if n_done != n {
            return Err(Failure::new(format!("{n_done} of {n} jobs were done; the rest failed")));
        }
        Ok(drain)
    }

    /// Measures a worker until enough is handled, and how many jobs it did meanwhile.
    pub(super) async fn work(
        &self,
        queue: &str,
        handled: &Handled,
        executor: Arc<dyn Executor>,
    ) -> Result<(Drain, u64), Failure> {
        self.work_by(self.worker(queue, executor), handled).await
    }

    /// The same by a worker that was made before.
    pub(super) async fn work_by(&self, worker: Worker, handled: &Handled) -> Result<(Drain, u64), Failure> {
        let (stop, stopped) = watch::channel(false);
        let commands_before = self.store.command_times().await?;
        let (host_before, redis_before, started) = (own_cpu(), self.store.server_cpu().await?, Instant::now());
        let running = tokio::spawn(worker.run(stopped));
        handled.all.notified().await;
        stop.send_replace(true);
        let totals = running.await.map_err(|error| Failure::new(format!("the worker failed: {error}")))?;
        let elapsed = started.elapsed();
        let (host, redis) = (own_cpu() - host_before, self.store.server_cpu().await? - redis_before);
        let mut commands = self.store.command_times().await?;
        for (name, spent) in &mut commands {
            let before = commands_before.get(name).copied().unwrap_or_default();
            *spent = Spent { calls: spent.calls - before.calls, time: spent.time.saturating_sub(before.time) };
        }
        let at = |moment: &OnceLock<Instant>| moment.get().copied().unwrap_or(started);
        let ms_to = |moment| at(moment).duration_since(started).as_secs_f64() * 1e3;
        let drain = Drain {
            jobs_per_s: per_s(totals.done, elapsed),
            host_us: us_per(totals.done, host),
            redis_us: us_per(totals.done, redis),
            counted_per_s: per_s(handled.n_counted, at(&handled.last).duration_since(at(&handled.counted_from))),
            first_ms: ms_to(&handled.first),
            last_ms: ms_to(&handled.last),
            commands,
            n_done: totals.done,
        };
        Ok((drain, totals.done))
    }

    pub(super) fn worker(&self, queue: &str, executor: Arc<dyn Executor>) -> Worker {
        let options = worker::Options {
            queues: vec![(queue.to_owned(), 1)],
            is_strict: false,
            concurrency: self.concurrency,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            node: "bench".to_owned(),
            done_ttl: Duration::from_secs(3600),
            retry: RetryPolicy::default(),
            unknown_type_wait: UNKNOWN_TYPE_WAIT,
        };
        Worker::new(self.store.clone(), executor, options, Arc::new(Pulse::new()))
    }
}

/// A job that does nothing.
pub(super) fn noop(queue: &str) -> NewJob {
    NewJob::new(queue, TYPE, "null")
}

pub(super) type Handler = Box<dyn Fn(&Reserved) -> Outcome + Send + Sync>;

/// The executor of native drains.
pub(super) fn native(handler: Handler) -> Arc<dyn Executor> {
    Arc::new(NativeExecutor::new(handler))
}

/// Counts jobs until there are enough.
pub(super) struct Handled {
    n: AtomicU64,
    /// Jobs before those that count.
    n_before: u64,
    n_counted: u64,
    pub(super) all: Notify,
    first: OnceLock<Instant>,
    counted_from: OnceLock<Instant>,
    last: OnceLock<Instant>,
}

impl Handled {
    pub(super) fn new(n: u64) -> Self {
        Self::after(0, n)
    }

    /// Counts `n_counted` jobs that come after `n_before` others.
    pub(super) fn after(n_before: u64, n_counted: u64) -> Self {
        Self {
            n: AtomicU64::new(0),
            n_before,
            n_counted,
            all: Notify::new(),
            first: OnceLock::new(),
            counted_from: OnceLock::new(),
            last: OnceLock::new(),
        }
    }

    pub(super) fn count(&self) {
        let n = self.n.fetch_add(1, Ordering::Relaxed) + 1;
        if n == 1 {
            self.first.get_or_init(Instant::now);
        }
        if n == self.n_before + 1 {
            self.counted_from.get_or_init(Instant::now);
        }
        if n == self.n_before + self.n_counted {
            self.last.get_or_init(Instant::now);
            self.all.notify_one();
        }
    }
}

/// Counts the attempts that another executor is given.
pub(super) struct Counted {
    pub(super) inner: Arc<dyn Executor>,
    pub(super) started: Handler,
}

impl Executor for Counted {
    fn start(&self, attempt: Attempt) {
        // The worker ends only when all are settled, so counting starts ends the drain at the right moment.
        let _done = (self.started)(&attempt.job);
        self.inner.start(attempt);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
pub(super) fn per_s(n: u64, elapsed: Duration) -> f64 {
    n as f64 / elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
pub(super) fn us_per(n: u64, cpu: Duration) -> f64 {
    cpu.as_secs_f64() * 1e6 / n as f64
}

/// The middle of some figures.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
