//! The jobs that this worker holds a lease on.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::job::{JobId, Reserved};
use crate::jumpscript::Digest;
use crate::retry::RetryWish;
use crate::sandbox::CancelFlag;
use crate::store::Lease;

/// One held job: what is needed to end it, without its payload.
#[derive(Debug)]
pub(super) struct Held {
    /// The job.
    pub(super) id: JobId,
    /// The queue it came from.
    pub(super) queue: String,
    /// The proof of the lease.
    pub(super) token: String,
    /// Failed executions before this one.
    pub(super) attempts: u32,
    /// What the producer said about retries.
    pub(super) retry: RetryWish,
    /// The code it runs.
    pub(super) digest: Option<Digest>,
    /// Whether its type was unknown when it was handed out: its row does not say which code it runs.
    pub(super) is_late: bool,
    /// Its type, for the log.
    pub(super) job_type: String,
    /// Stops the attempt.
    pub(super) cancel: CancelFlag,
    /// When it was handed out.
    pub(super) since: Instant,
}

impl Held {
    /// What to remember of a job that was handed out.
    #[must_use]
    pub(super) fn of(job: &Reserved, cancel: CancelFlag) -> Self {
        Self {
            id: job.id.clone(),
            queue: job.queue.clone(),
            token: job.token.clone(),
            attempts: job.attempts,
            retry: job.retry,
            digest: job.digest,
            is_late: job.digest.is_none(),
            job_type: job.job_type.clone(),
            cancel,
            since: Instant::now(),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests(id: JobId, attempts: u32, retry: RetryWish) -> Self {
        Self {
            id,
            queue: "q".into(),
            token: "t".into(),
            attempts,
            retry,
            digest: None,
            is_late: false,
            job_type: "x".into(),
            cancel: CancelFlag::new(),
            since: Instant::now(),
        }
    }
}

/// Cancellations remembered for jobs that are not here (yet), at most.
const EARLY_MAX: usize = 256;
/// How long they are remembered: an answer of Redis takes no longer.
const EARLY_AGE: Duration = Duration::from_secs(10);

/// All held jobs of a worker.
#[derive(Debug, Default)]
pub(super) struct HeldJobs {
    jobs: HashMap<JobId, Held>,
    /// Jobs that were cancelled while nobody here held them, and when.
    early: VecDeque<(JobId, Instant)>,
}

impl HeldJobs {
    /// How many there are.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Remembers a job. The same id handed out twice (its first lease ran out while we were cut off) replaces the
    /// older hold, whose attempt is stopped and settles nothing.
    pub(super) fn insert(&mut self, held: Held) {
        if let Some(older) = self.jobs.insert(held.id.clone(), held) {
            older.cancel.cancel();
        }
    }

    /// Forgets a job whose attempt has ended; `None` when the hold with this token is gone already.
    pub(super) fn remove(&mut self, id: &JobId, token: &str) -> Option<Held> {
        if self.jobs.get(id).is_some_and(|held| held.token == token) { self.jobs.remove(id) } else { None }
    }

    /// The leases to extend: those held for longer than `age`. A job that is over sooner costs no extension.
    #[must_use]
    pub(super) fn leases_older_than(&self, age: Duration) -> Vec<Lease> {
        self.jobs
            .values()
            .filter(|held| held.since.elapsed() >= age)
            .map(|held| Lease { id: held.id.clone(), queue: held.queue.clone(), token: held.token.clone() })
            .collect()
    }

    /// Stops the attempt of a job that was cancelled. It settles nothing: its lease is gone.
    pub(super) fn cancel(&mut self, id: JobId) {
        if let Some(held) = self.jobs.remove(&id) {
            tracing::info!(job = %held.id, queue = %held.queue, "job cancelled, attempt stopped");
            held.cancel.cancel();
        } else {
            // The message may come before the answer that hands the job out.
            if self.early.len() >= EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back((id, Instant::now()));
        }
    }

    /// Whether a job that was just handed out has been cancelled meanwhile.
    pub(super) fn is_cancelled_early(&mut self, id: &JobId) -> bool {
        self.early.retain(|(_, at)| at.elapsed() < EARLY_AGE);
        let is_early = self.early.iter().any(|(early, _)| early == id);
        if is_early {
            tracing::info!(job = %id, "job cancelled, attempt not started");
        }
        is_early
    }

    /// Asks every attempt to come to its end.
    pub(super) fn ask_all(&self) {
        self.jobs.values().for_each(|held| held.cancel.ask());
    }

    /// Stops every attempt.
    pub(super) fn cancel_all(&self) {
        self.jobs.values().for_each(|held| held.cancel.cancel());
    }
}
