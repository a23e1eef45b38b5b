//! Ends as its payload says, and tells a sink when it begins and ends: the guest of the fault campaigns.
//!
//! The payload is a JSON object; every field may be missing, and a value that makes no sense counts as missing:
//!
//! | field | meaning | without it |
//! | --- | --- | --- |
//! | `id` | what the sink knows the job by: text or number | the job's own id |
//! | `mode` | `ok`, `always_fail`, `fail_n` (fails in the first `n` attempts), `poison` (traps) | `ok` |
//! | `ms` | milliseconds to sleep | 0 |
//! | `n` | see `fail_n` | 1 |
//! | `sink` | URL: gets `POST {sink}?k=start&j={id}&w={node}` at the start, the same with `k=end` at a good end | nothing is sent |
//!
//! A sink that cannot be reached fails the attempt: what it did not hear did not happen. Any answer will do.

use std::time::Duration;

use serde_json::{Map, Value};
use wasmhost_guest::{Job, JobError, Raw, http};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let payload = match serde_json::from_slice(&job.args.0) {
        Ok(Value::Object(payload)) => payload,
        Ok(_) => return Err(JobError::reject("the payload is JSON, but no object")),
        Err(error) => return Err(JobError::reject(format!("the payload is no JSON object: {error}"))),
    };
    let order = Order::read(&payload, &job.id);
    order.tell("start", &job.node)?;
    nap(order.nap);
    match order.mode {
        "always_fail" => return Err(JobError::failed(format!("attempt {} fails, as every one", job.attempt))),
        "fail_n" if u64::from(job.attempt) <= order.n => {
            return Err(JobError::failed(format!("attempt {} of the first {} fails", job.attempt, order.n)));
        }
        "poison" => std::process::abort(),
        _ => {}
    }
    order.tell("end", &job.node)?;
    Ok(Raw(order.id.into_bytes()))
}

#[expect(clippy::disallowed_methods, reason = "a guest waits with its own clock; the host's threads go on")]
fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// What the payload says.
#[derive(Debug, PartialEq, Eq)]
struct Order<'a> {
    id: String,
    mode: &'a str,
    nap: Duration,
    n: u64,
    sink: Option<&'a str>,
}

impl<'a> Order<'a> {
    fn read(payload: &'a Map<String, Value>, job_id: &str) -> Self {
        let text = |name: &str| payload.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let id = match payload.get("id") {
            Some(Value::Number(number)) => number.to_string(),
            _ => text("id").unwrap_or(job_id).to_owned(),
        };
        Self {
            id,
            mode: text("mode").unwrap_or("ok"),
            nap: Duration::from_millis(number(payload.get("ms")).unwrap_or(0)),
            n: number(payload.get("n")).unwrap_or(1),
            sink: text("sink"),
        }
    }

    fn tell(&self, event: &str, node: &str) -> Result<(), http::Error> {
        let Some(sink) = self.sink else { return Ok(()) };
        let mark = if sink.contains('?') { '&' } else { '?' };
        let url = format!("{sink}{mark}k={event}&j={}&w={}", encoded(&self.id), encoded(node));
        http::post(&url, "").map(drop)
    }
}

/// A whole number, also one that is written as text or with a fraction.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64().or_else(|| Some(number.as_f64().filter(|n| *n >= 0.0)? as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Text as a part of a query.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(text: &str) -> (String, String, u128, u64, Option<String>) {
        let Value::Object(payload) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        let Order { id, mode, nap, n, sink } = Order::read(&payload, "own");
        (id, mode.to_owned(), nap.as_millis(), n, sink.map(str::to_owned))
    }

    #[test]
    fn missing_and_odd_fields_have_defaults() {
        let plain = ("own".to_owned(), "ok".to_owned(), 0, 1, None);
        assert_eq!(order("{}"), plain);
        assert_eq!(order(r#"{"id":null,"mode":7,"ms":-5,"n":[],"sink":false,"more":1}"#), plain);
        let whole = r#"{"id":7,"mode":"fail_n","ms":"20","n":2.0,"sink":"http://s"}"#;
        assert_eq!(order(whole), ("7".to_owned(), "fail_n".to_owned(), 20, 2, Some("http://s".to_owned())));
    }

    #[test]
    fn ids_and_nodes_travel_as_they_are() {
        assert_eq!(encoded("a b&c=1/\u{e4}"), "a%20b%26c%3D1%2F%C3%A4");
    }

    #[test]
    fn what_is_no_object_is_rejected() {
        for text in ["", "7", "[]", "null", "{"] {
            let error = run(Job::test(Raw(text.into()))).unwrap_err();
            assert!(error.to_string().starts_with("rejected: "), "{text}: {error}");
        }
        assert_eq!(run(Job::test(Raw(b"{}".to_vec()))), Ok(Raw(b"test".to_vec())));
    }
}
