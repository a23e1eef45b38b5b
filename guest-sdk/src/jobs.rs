//! Jobs that this job enqueues, and whether it should come to its end.
//!
//! ```
//! use std::time::Duration;
//! use serde::Serialize;
//! use wasmhost_guest::{Job, JobError, jobs};
//!
//! #[derive(Serialize)]
//! struct Mail {
//!     to: String,
//! }
//!
//! fn run(job: Job<String>) -> Result<(), JobError> {
//!     jobs::enqueue("mail-out", "acme/send", &Mail { to: job.args })?;
//!     jobs::NewJob::new("reports", "acme/weekly").delay(Duration::from_secs(3600)).idempotency_key("week-7").enqueue()?;
//!     Ok(())
//! }
//! # run(Job::test("eve@example.com".to_owned())).unwrap();
//! # let made = jobs::enqueued();
//! # assert_eq!((made[0].queue(), made[0].payload()), ("mail-out", &br#"{"to":"eve@example.com"}"#[..]));
//! # assert_eq!(made[1].job_type(), "acme/weekly");
//! ```
//!
//! The jobs come into being with the result of this one, in the same step, exactly once: an attempt that does not end well
//! enqueues nothing. The manifest requests the queues:
//!
//! ```toml
//! [permissions]
//! enqueue = ["reports", "mail-*"]
//! ```
//!
//! On another target than Wasm the jobs are kept in the memory of the thread: a test of a job function looks at them with
//! [`enqueued`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Why no job will be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The queue is not permitted; the text names the permission.
    Denied(String),
    /// Something about the job makes no sense; the text names the field, its value and the rule.
    Invalid(String),
    /// One more would break a limit of the attempt; the text names it.
    Limit(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Denied(text) | Self::Invalid(text) | Self::Limit(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Error {}

/// Enqueues a job with a payload of JSON: its id.
///
/// # Errors
/// See [`Error`].
pub fn enqueue<T: Serialize + ?Sized>(queue: &str, job_type: &str, payload: &T) -> Result<String, Error> {
    NewJob::new(queue, job_type).json(payload)?.enqueue()
}

/// Whether the attempt should come to its end, because its host shuts down and waits for it. A long job asks between its
/// steps, and then returns [`JobError::retry`](crate::JobError::retry): the job goes on elsewhere, the attempt does not
/// count, and what it wrote to its own bucket is kept. Natively always `false`.
#[must_use]
pub fn cancelled() -> bool {
    #[cfg(target_family = "wasm")]
    return crate::contract::wasmhost::jumpscript::jobs::cancelled();
    #[cfg(not(target_family = "wasm"))]
    false
}

/// A job that is being put together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a job is made when it is enqueued"]
pub struct NewJob {
    queue: String,
    job_type: String,
    payload: Vec<u8>,
    content_type: String,
    metadata: Vec<(String, String)>,
    delay: Option<Duration>,
    run_at_ms: Option<u64>,
    idempotency_key: Option<String>,
    priority: Option<u8>,
    limit_key: Option<String>,
    max_attempts: Option<u32>,
    timeout: Option<Duration>,
}

impl NewJob {
    /// A job without payload for a queue; its type says which jumpscript runs it.
    pub fn new(queue: &str, job_type: &str) -> Self {
        Self {
            queue: queue.to_owned(),
            job_type: job_type.to_owned(),
            payload: Vec::new(),
            content_type: String::new(),
            metadata: Vec::new(),
            delay: None,
            run_at_ms: None,
            idempotency_key: None,
            priority: None,
            limit_key: None,
            max_attempts: None,
            timeout: None,
        }
    }

    /// Gives it a payload of JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, payload: &T) -> Result<Self, Error> {
        let payload = serde_json::to_vec(payload)
            .map_err(|error| Error::Invalid(format!("the payload cannot be written as JSON: {error}")))?;
        Ok(self.payload_of("application/json", payload))
    }

    /// Gives it a payload of bytes as they are, and says what they are.
    pub fn payload_of(mut self, content_type: &str, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        content_type.clone_into(&mut self.content_type);
        self
    }

    /// Adds a name and a value that travel with it.
    pub fn metadata_pair(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has it wait so long, counted from the call of [`NewJob::enqueue`].
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Has it wait until a time, in milliseconds since the Unix epoch. Not together with [`NewJob::delay`].
    pub const fn run_at_ms(mut self, run_at_ms: u64) -> Self {
        self.run_at_ms = Some(run_at_ms);
        self
    }

    /// Makes it one with other jobs of its queue that have the same key: within 7 days only the first is made.
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.to_owned());
        self
    }

    /// Has it served before jobs without a priority: 0 to 9, the highest first.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Has it count against the limits of this key in its queue.
    pub fn limit_key(mut self, key: &str) -> Self {
        self.limit_key = Some(key.to_owned());
        self
    }

    /// Executions in all.
    pub const fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = Some(max_attempts);
        self
    }

    /// Wall time of one attempt.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The type.
    #[must_use]
    pub fn job_type(&self) -> &str {
        &self.job_type
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// Enqueues it: its id. It comes into being when this job's attempt ends well.
    ///
    /// # Errors
    /// See [`Error`].
    #[cfg(target_family = "wasm")]
    pub fn enqueue(self) -> Result<String, Error> {
        use crate::contract::wasmhost::jumpscript::jobs;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let options = jobs::Options {
            content_type: self.content_type,
            metadata: self.metadata,
            delay_ms: self.delay.map(ms),
            run_at_ms: self.run_at_ms,
            idempotency_key: self.idempotency_key,
            priority: self.priority,
            limit_key: self.limit_key,
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout.map(ms),
        };
        jobs::enqueue(&self.queue, &self.job_type, &self.payload, &options).map_err(|error| match error {
            jobs::EnqueueError::Denied(text) => Error::Denied(text),
            jobs::EnqueueError::Invalid(text) => Error::Invalid(text),
            jobs::EnqueueError::Limit(text) => Error::Limit(text),
        })
    }

    /// Enqueues it: its id. It comes into being when this job's attempt ends well.
    ///
    /// # Errors
    /// See [`Error`].
    #[cfg(not(target_family = "wasm"))]
    pub fn enqueue(self) -> Result<String, Error> {
        if self.queue.is_empty() || self.job_type.is_empty() {
            return Err(Error::Invalid("a job needs a queue and a type".to_owned()));
        }
        if self.delay.is_some() && self.run_at_ms.is_some() {
            return Err(Error::Invalid("a job has a delay or a run time, not both".to_owned()));
        }
        Ok(ENQUEUED.with_borrow_mut(|jobs| {
            jobs.push(self);
            format!("test-{}", jobs.len())
        }))
    }
}

#[cfg(not(target_family = "wasm"))]
thread_local! {
    static ENQUEUED: std::cell::RefCell<Vec<NewJob>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Takes the jobs that this thread has enqueued, in their order, for a test of a job function.
#[cfg(not(target_family = "wasm"))]
#[must_use]
pub fn enqueued() -> Vec<NewJob> {
    ENQUEUED.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_function_enqueues_is_seen_by_its_test() {
        let first = enqueue("mail", "send", &1).unwrap();
        let second = NewJob::new("mail", "send").metadata_pair("a", "b").enqueue().unwrap();
        assert_ne!(first, second);
        let made = enqueued();
        assert_eq!((made[0].payload(), made[1].metadata()), (&b"1"[..], &[("a".to_owned(), "b".to_owned())][..]));
        assert_eq!(enqueued(), [], "they were taken");
    }

    #[test]
    fn a_job_waits_for_a_time_or_for_a_while() {
        let both = NewJob::new("q", "t").delay(Duration::from_secs(1)).run_at_ms(1);
        assert!(matches!(both.enqueue(), Err(Error::Invalid(_))));
        assert_eq!(enqueued(), []);
    }
}
