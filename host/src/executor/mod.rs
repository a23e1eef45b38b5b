//! Runs one attempt and hands back its outcome; never touches the queue.
//!
//! An [`Executor`] is given an [`Attempt`] and owes it exactly one end. Ends are gathered in [`Completions`] rather
//! than sent one by one: waking the I/O thread after each of 100,000 jobs a second costs as much as running them.
//!
//! Invariant: an attempt that is dropped without an end (a panic in an executor) still ends, as a failure that says
//! so; no job waits for its lease because of a bug here.
//!
//! Next: `executor/wasm.rs`, then `worker/settle.rs` for what becomes of an outcome.

pub mod native;
pub mod permits;
pub mod wasm;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::effects::Effects;
use crate::job::Reserved;
use crate::outcome::{Outcome, Usage};
use crate::permissions::Granted;
use crate::ports::JobSink;
use crate::retry::RetryWish;
use crate::sandbox::CancelFlag;

/// What runs attempts of one sort.
pub trait Executor: Send + Sync {
    /// Starts an attempt. Called on the I/O thread, so it must return at once; the attempt is ended from anywhere,
    /// by [`Attempt::finish`].
    fn start(&self, attempt: Attempt);
}

/// One execution of one job, from the hand-out to its end.
pub struct Attempt {
    /// The job, with all that is needed to run it.
    pub job: Reserved,
    /// Who hears what the guest logs and reports.
    pub sink: Arc<dyn JobSink>,
    /// Set from outside to stop the attempt.
    pub cancel: CancelFlag,
    /// What the code's manifest says about retries; nothing as long as the code is not loaded.
    pub manifest_retry: RetryWish,
    /// The revision of jumpscripts and grants that the job was handed out with; 0 when nobody knows.
    pub rev: u64,
    /// What its code may do beyond computing.
    pub granted: Arc<Granted>,
    /// Where its end goes; taken by the first end.
    completions: Option<Arc<Completions>>,
}

impl Attempt {
    /// An attempt whose end will be found in `completions`.
    #[must_use]
    pub fn new(job: Reserved, sink: Arc<dyn JobSink>, cancel: CancelFlag, completions: &Arc<Completions>) -> Self {
        completions.running.fetch_add(1, Ordering::Relaxed);
        Self {
            job,
            sink,
            cancel,
            manifest_retry: RetryWish::default(),
            rev: 0,
            granted: Granted::none(),
            completions: Some(Arc::clone(completions)),
        }
    }

    /// Ends an attempt that has read and written nothing.
    pub fn finish(self, outcome: Outcome, usage: Usage) {
        self.finish_with(outcome, usage, Effects::none());
    }

    /// Ends the attempt, with what it has read and would write.
    pub fn finish_with(mut self, outcome: Outcome, usage: Usage, effects: Effects) {
        self.end(outcome, usage, effects);
    }

    fn end(&mut self, outcome: Outcome, usage: Usage, effects: Effects) {
        if let Some(completions) = self.completions.take() {
            let id = self.job.id.clone();
            let token = std::mem::take(&mut self.job.token);
            completions.push(Completion { id, token, outcome, usage, effects, manifest_retry: self.manifest_retry });
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.completions.is_some() {
            let message =
                "wasmhost itself failed while it ran this job; please report it with the host's log".to_owned();
            self.end(Outcome::Failed { message }, Usage::default(), Effects::none());
        }
    }
}

/// The end of one attempt.
#[derive(Debug)]
pub struct Completion {
    /// The job.
    pub id: crate::job::JobId,
    /// The lease it ran under.
    pub token: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// What it has read, and what it writes if it ended well.
    pub effects: Effects,
    /// What the manifest of its code says about retries.
    pub manifest_retry: RetryWish,
}

/// Ends that pile up before the I/O thread is woken for them.
const GATHERED_MAX: usize = 32;

/// The ends of attempts, gathered for the I/O thread.
///
/// The reader is woken for the first end of a batch, for the `GATHERED_MAX`th, and when nothing is left running;
/// between the first and the others it may wait a little for more.
#[derive(Default)]
pub struct Completions {
    done: Mutex<Vec<Completion>>,
    /// Attempts that have not ended.
    running: AtomicUsize,
    wake: Notify,
}

impl Completions {
    /// None yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn push(&self, completion: Completion) {
        let gathered = {
            let mut done = self.lock();
            done.push(completion);
            done.len()
        };
        let is_last = self.running.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last || gathered == 1 || gathered == GATHERED_MAX {
            self.wake.notify_one();
        }
    }

    /// Waits until there may be something to take.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Whether waiting for more would gain nothing: a full batch is there, or nothing is left running.
    #[must_use]
    pub fn is_ripe(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0 || self.lock().len() >= GATHERED_MAX
    }

    /// Moves all ends into `into`.
    pub fn take(&self, into: &mut Vec<Completion>) {
        into.append(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Completion>> {
        // A push cannot leave the vector half-written, so a poisoned lock still guards good data.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
