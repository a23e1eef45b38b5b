//! One attempt: a fresh instance, its limits, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use super::cancel::CancelFlag;
use super::options::MEMORY_BYTES_MAX;
use crate::job::TIMEOUT;
use crate::outcome::{Outcome, Usage};
use crate::ports::{JobSink, NoSink};

/// What one attempt is given.
#[derive(Clone)]
pub struct Call {
    /// The job's id as text.
    pub id: String,
    /// The lane it waited in.
    pub queue: String,
    /// The type it named.
    pub job_type: String,
    /// The node that runs it.
    pub node: String,
    /// Which execution this is, from 1.
    pub attempt: u32,
    /// Executions in all.
    pub max_attempts: u32,
    /// When it will be stopped, in milliseconds since the epoch: what the guest is told. `timeout` is what counts.
    pub deadline_ms: i64,
    /// When it was enqueued, in milliseconds since the epoch; 0 when nobody knows.
    pub enqueued_at_ms: i64,
    /// What the payload is; empty says nothing.
    pub content_type: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// Name and value pairs of the producer.
    pub metadata: Vec<(String, String)>,
    /// Wall time, counted from the moment it has an instance.
    pub timeout: Duration,
    /// Linear memory in bytes; the sandbox's own limit holds above it.
    pub memory_bytes_max: usize,
    /// Who hears its log and its progress.
    pub sink: Arc<dyn JobSink>,
    /// Who may stop it.
    pub cancel: CancelFlag,
}

impl Call {
    /// A call with nothing but the payload; everything else is the default.
    #[must_use]
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self {
            id: String::new(),
            queue: String::new(),
            job_type: String::new(),
            node: String::new(),
            attempt: 1,
            max_attempts: 1,
            deadline_ms: 0,
            enqueued_at_ms: 0,
            content_type: String::new(),
            payload: payload.into(),
            metadata: Vec::new(),
            timeout: TIMEOUT,
            memory_bytes_max: MEMORY_BYTES_MAX,
            sink: Arc::new(NoSink),
            cancel: CancelFlag::new(),
        }
    }
}

/// How one attempt ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
}
