//! What an attempt without Redis would have stored and enqueued, for people and programs.

use serde::Serialize;

use crate::effects::{Bucket, Effect, Effects};
use crate::job::visible;
use crate::outcome::Outcome;

/// One thing that would be done.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// Values set and removed in a bucket.
    State {
        /// The bucket; empty for the job's own.
        bucket: String,
        /// Keys that get a value.
        set: Vec<String>,
        /// Keys that are removed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        removed: Vec<String>,
    },
    /// A job.
    Enqueue {
        /// Its queue.
        queue: String,
        /// Its type.
        #[serde(rename = "type")]
        job_type: String,
        /// Bytes of its payload.
        payload_bytes: usize,
    },
}

/// What would commit with this end of an attempt.
pub(super) fn committed(outcome: &Outcome, effects: &Effects) -> Effects {
    match outcome {
        Outcome::Done { .. } => effects.clone(),
        Outcome::Retry { .. } => effects.clone().of_retry(),
        _ => Effects::none(),
    }
}

/// The same, for people and programs.
pub(super) fn told(outcome: &Outcome, effects: &Effects) -> Vec<Told> {
    committed(outcome, effects).as_slice().iter().filter_map(of).collect()
}

fn of(effect: &Effect) -> Option<Told> {
    match effect {
        Effect::State { bucket, values, .. } => {
            let keys = |is_set: bool| values.iter().filter(move |(_, value)| value.is_some() == is_set);
            let names = |is_set| keys(is_set).map(|(key, _)| key.clone()).collect();
            let bucket = match bucket {
                Bucket::Own(_) => String::new(),
                Bucket::Named { name, .. } => name.clone(),
            };
            Some(Told::State { bucket, set: names(true), removed: names(false) })
        }
        Effect::Enqueue(job) => Some(Told::Enqueue {
            queue: job.queue.clone(),
            job_type: job.job_type.clone(),
            payload_bytes: job.payload.len(),
        }),
        // What answers another system; no jumpscript makes these.
        _ => None,
    }
}

impl Told {
    /// A line for people.
    pub(super) fn line(&self) -> String {
        match self {
            Self::State { bucket, set, removed } => {
                let bucket = if bucket.is_empty() {
                    "its own bucket".to_owned()
                } else {
                    format!("bucket `{}`", visible(bucket))
                };
                let list = |what: &str, keys: &[String]| {
                    let keys: Vec<_> = keys.iter().map(|key| visible(key)).collect();
                    if keys.is_empty() { String::new() } else { format!(" {what} {}", keys.join(", ")) }
                };
                format!("would change {bucket}:{}{}", list("set", set), list("remove", removed))
            }
            Self::Enqueue { queue, job_type, payload_bytes } => {
                let (queue, job_type) = (visible(queue), visible(job_type));
                format!("would enqueue a job of type `{job_type}` into queue `{queue}` ({payload_bytes} bytes)")
            }
        }
    }
}
