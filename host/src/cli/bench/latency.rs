//! How long a job waits from before its enqueue call, at a steady rate onto an idle worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::drain::{Bench, Handled, TYPE, connect};
use crate::cli::Failure;
use crate::clock::Timestamp;
use crate::executor::{Attempt, Executor};
use crate::job::{NewJob, Reserved};
use crate::ports::{JobSink, Level};

/// Jobs a second while latency is measured.
pub(super) const RATE: u32 = 500;

impl Bench {
    /// Enqueues at a steady rate from a thread of its own onto an idle worker: p50 and p99 of the waits, in
    /// milliseconds. The first second is for warming up and does not count.
    pub(super) async fn latency(
        &self,
        seconds: u64,
        executor: impl FnOnce(Arc<Waits>) -> Arc<dyn Executor>,
    ) -> Result<(f64, f64), Failure> {
        let n = (seconds + 1) * u64::from(RATE);
        let handled = Handled::new(n);
        let waits = Arc::new(Waits { handled, ms: Mutex::default() });
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(self.worker("latency", executor(Arc::clone(&waits))).run(stopped));
        let url = self.url.clone();
        let producer = std::thread::spawn(move || produce(&url, n));
        waits.handled.all.notified().await;
        stop.send_replace(true);
        running.await.map_err(|error| Failure::new(format!("the worker failed: {error}")))?;
        producer.join().map_err(|_| Failure::new("the producer failed"))??;
        let mut waits = waits.lock().split_off(RATE as usize);
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place in a list of some thousand"
            )]
            let place = (waits.len() as f64 * share) as usize;
            waits.get(place.min(waits.len().saturating_sub(1))).copied().unwrap_or(0.0)
        };
        Ok((at(0.5), at(0.99)))
    }
}

/// How long jobs waited, from before the enqueue call.
pub(super) struct Waits {
    handled: Handled,
    ms: Mutex<Vec<f64>>,
}

impl Waits {
    pub(super) fn add(&self, sent: Timestamp) {
        let waited = Timestamp::now().since(sent);
        self.lock().push(waited.as_secs_f64() * 1e3);
        self.handled.count();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<f64>> {
        self.ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a job of [`produce`] was sent.
pub(super) fn sent_at(job: &Reserved) -> Timestamp {
    let nanos = std::str::from_utf8(&job.payload).ok().and_then(|text| text.parse().ok());
    Timestamp::from_nanos(nanos.unwrap_or(0))
}

/// Sees when the attempts of another executor are over. That is later than their start by a whole run in the sandbox.
pub(super) struct Watched {
    pub(super) inner: Arc<dyn Executor>,
    pub(super) waits: Arc<Waits>,
}

impl Executor for Watched {
    fn start(&self, mut attempt: Attempt) {
        let (sent, waits) = (sent_at(&attempt.job), Arc::clone(&self.waits));
        attempt.sink = Arc::new(UntilEnd { sink: attempt.sink.clone(), sent, waits });
        self.inner.start(attempt);
    }
}

/// A sink in an attempt. Nobody else has it, so it is dropped when the attempt ends, on the guest's thread.
struct UntilEnd {
    sink: Arc<dyn JobSink>,
    sent: Timestamp,
    waits: Arc<Waits>,
}

impl JobSink for UntilEnd {
    fn log(&self, level: Level, context: &str, message: &str) {
        self.sink.log(level, context, message);
    }

    fn progress(&self, percent: u8, message: &str) {
        self.sink.progress(percent, message);
    }
}

impl Drop for UntilEnd {
    fn drop(&mut self) {
        self.waits.add(self.sent);
    }
}

/// Enqueues `n` jobs at [`RATE`], each with its time as payload.
fn produce(url: &str, n: u64) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = connect(url).await?;
        let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE);
        for _ in 0..n {
            pace.tick().await;
            store.enqueue(&[NewJob::new("latency", TYPE, Timestamp::now().nanos().to_string())]).await?;
        }
        Ok(())
    })
}
