//! The state that a case gives its job, and what the job's end would write and enqueue.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::super::effects::committed;
use super::case::json;
use super::judge::is_equal;
use crate::effects::{Bucket, Effect};
use crate::job::visible;
use crate::ports::{BoxFuture, State, StatePage, StateValues};
use crate::sandbox::Finished;

/// Keys and values in a file of cases: a text is the value itself, anything else is JSON.
pub(super) type Values = BTreeMap<String, toml::Value>;
/// Buckets of an organization, by name.
pub(super) type Buckets = BTreeMap<String, Values>;

/// What is stored before the job begins.
#[derive(Debug, Default)]
pub(super) struct Stored {
    own: BTreeMap<String, Vec<u8>>,
    named: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Stored {
    pub(super) fn new(own: &Values, named: &Buckets) -> Self {
        let bytes = |values: &Values| values.iter().map(|(key, value)| (key.clone(), bytes_of(value))).collect();
        Self { own: bytes(own), named: named.iter().map(|(name, values)| (name.clone(), bytes(values))).collect() }
    }

    fn bucket(&self, bucket: &Bucket) -> Option<&BTreeMap<String, Vec<u8>>> {
        match bucket {
            Bucket::Own(_) => Some(&self.own),
            Bucket::Named { name, .. } => self.named.get(name),
        }
    }
}

impl State for Stored {
    fn values(&self, bucket: Bucket, keys: Vec<String>) -> BoxFuture<'static, Result<StateValues, String>> {
        let values = self.bucket(&bucket);
        let found = keys.iter().map(|key| values.and_then(|values| values.get(key)).cloned()).collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn keys(&self, bucket: Bucket, _: u64) -> BoxFuture<'static, Result<StatePage, String>> {
        let keys: Vec<String> = self.bucket(&bucket).map(|values| values.keys().cloned().collect()).unwrap_or_default();
        // It never changes while a case runs.
        let version = (!keys.is_empty()).then(|| vec![0]);
        Box::pin(std::future::ready(Ok(StatePage { keys, next: 0, version })))
    }
}

fn bytes_of(value: &toml::Value) -> Vec<u8> {
    match value {
        toml::Value::String(text) => text.clone().into_bytes(),
        value => json(value).to_string().into_bytes(),
    }
}

/// A job that the end of a job enqueues; what is not said may be anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enqueued {
    #[serde(rename = "type")]
    job_type: String,
    queue: Option<String>,
    payload: Option<toml::Value>,
}

/// Whether bytes are the value that was expected.
fn is_value(expected: &toml::Value, bytes: &[u8]) -> bool {
    match expected {
        toml::Value::String(text) => text.as_bytes() == bytes,
        value => serde_json::from_slice::<Value>(bytes).is_ok_and(|came| is_equal(&json(value), &came)),
    }
}

/// What of the expected values the end of the job would not write; `bucket` is empty for the job's own.
pub(super) fn unwritten(finished: &Finished, bucket: &str, expected: &Values) -> Vec<String> {
    let effects = committed(&finished.outcome, &finished.effects);
    let mut written: BTreeMap<&str, Option<&[u8]>> = BTreeMap::new();
    for effect in effects.as_slice() {
        let Effect::State { bucket: to, values, .. } = effect else { continue };
        let is_meant = match to {
            Bucket::Own(_) => bucket.is_empty(),
            Bucket::Named { name, .. } => name == bucket,
        };
        if is_meant {
            written.extend(values.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
        }
    }
    let mut lines = Vec::new();
    for (key, value) in expected {
        let came = written.get(key.as_str());
        if came.is_some_and(|came| came.is_some_and(|bytes| is_value(value, bytes))) {
            continue;
        }
        let place = if bucket.is_empty() { visible(key) } else { format!("{}/{}", visible(bucket), visible(key)) };
        let came = match came {
            None => "not written".to_owned(),
            Some(None) => "removed".to_owned(),
            Some(Some(bytes)) => visible(&String::from_utf8_lossy(bytes)),
        };
        lines.extend([
            format!("-{place}: {}", visible(&String::from_utf8_lossy(&bytes_of(value)))),
            format!("+{place}: {came}"),
        ]);
    }
    lines
}

/// How the jobs that the end of the job would enqueue differ from those expected, in their order.
pub(super) fn differently_enqueued(finished: &Finished, expected: &[Enqueued]) -> Vec<String> {
    let effects = committed(&finished.outcome, &finished.effects);
    let jobs: Vec<_> = effects
        .as_slice()
        .iter()
        .filter_map(|effect| if let Effect::Enqueue(job) = effect { Some(job) } else { None })
        .collect();
    let fits = |wanted: &Enqueued, job: &crate::job::NewJob| {
        wanted.job_type == job.job_type
            && wanted.queue.as_ref().is_none_or(|queue| *queue == job.queue)
            && wanted.payload.as_ref().is_none_or(|payload| is_value(payload, &job.payload))
    };
    if jobs.len() == expected.len() && expected.iter().zip(&jobs).all(|(wanted, job)| fits(wanted, job)) {
        return Vec::new();
    }
    let wanted = expected.iter().map(|wanted| {
        let queue = wanted.queue.as_deref().unwrap_or("any queue");
        let payload = wanted.payload.as_ref().map_or_else(|| b"any payload".to_vec(), bytes_of);
        format!(
            "-{} into {}: {}",
            visible(&wanted.job_type),
            visible(queue),
            visible(&String::from_utf8_lossy(&payload))
        )
    });
    let came = jobs.iter().map(|job| {
        let payload = visible(&String::from_utf8_lossy(&job.payload));
        format!("+{} into {}: {payload}", visible(&job.job_type), visible(&job.queue))
    });
    let none = jobs.is_empty().then(|| "+nothing is enqueued".to_owned());
    let nothing = expected.is_empty().then(|| "-nothing is enqueued".to_owned());
    nothing.into_iter().chain(wanted).chain(came).chain(none).collect()
}
