//! What a producer sends: one job or many, as JSON.
//!
//! Invariant: the fields stand in one table, which is the type that reads them and the schema that describes them. A
//! payload is passed on byte for byte as it was written; no number in it is read and written again.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::BULK_MAX;
use super::answer::{BAD_JOB, BAD_JSON, Problem};
use crate::clock::{Timestamp, parse_duration, parse_timestamp};
use crate::job::{NewJob, QUEUE};

/// A field of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its JSON schema.
    pub(super) schema: &'static str,
    pub(super) what: &'static str,
    pub(super) is_required: bool,
}

macro_rules! request {
    ($(#[$head:meta])* $name:ident $table:ident {
        $($(#[$attribute:meta])* $field:ident: $kind:ty = $wire:literal $needed:ident, $schema:literal, $what:literal;)*
    }) => {
        $(#[$head])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, expecting = "an object")]
        pub(super) struct $name {
            $(
                #[doc = $what]
                $(#[$attribute])*
                #[serde(rename = $wire, default)]
                pub(super) $field: Option<$kind>,
            )*
        }

        /// Its fields.
        pub(super) const $table: &[Field] = &[
            $(Field {
                name: $wire,
                schema: $schema,
                what: $what,
                is_required: matches!(stringify!($needed).as_bytes(), b"required"),
            },)*
        ];
    };
}

request! {
    /// A job, as `wasmhost submit` takes it.
    JobRequest JOB_FIELDS {
        queue: String = "queue" optional, r#"{"type":"string","maxLength":200,"default":"default"}"#, "The queue.";
        job_type: String = "type" required, r#"{"type":"string","maxLength":200}"#,
            "Which jumpscript runs it: organization/name, or a bare word.";
        #[serde(deserialize_with = "present")]
        payload: Box<RawValue> = "payload" optional, r#"{}"#,
            "The payload: any JSON value, passed on as it is written here. Nothing is an empty payload.";
        payload_base64: String = "payload_base64" optional, r#"{"type":"string","contentEncoding":"base64"}"#,
            "The payload in base64 (standard alphabet, with padding), in place of `payload`.";
        content_type: String = "content_type" optional, r#"{"type":"string"}"#,
            "What the payload is; application/json for `payload`, nothing for `payload_base64`.";
        delay: String = "delay" optional, r#"{"type":"string","examples":["30s","1h30m"]}"#,
            "Run after this much time.";
        run_at: String = "run_at" optional, r#"{"type":"string","examples":["2027-01-15T08:00:00Z","1800000000"]}"#,
            "Run at this time: RFC 3339, Unix seconds, or milliseconds; not together with `delay`.";
        max_attempts: u32 = "max_attempts" optional, r#"{"type":"integer","minimum":1,"maximum":1000}"#,
            "Executions in all; the manifest's, else 5.";
        retry_base: String = "retry_base" optional, r#"{"type":"string","examples":["1s"]}"#,
            "Delay before the second execution, before jitter; the manifest's, else the host's.";
        retry_cap: String = "retry_cap" optional, r#"{"type":"string","examples":["10m"]}"#,
            "Longest delay between two executions; the manifest's, else the host's.";
        timeout: String = "timeout" optional, r#"{"type":"string","examples":["30s"]}"#,
            "Wall time of one attempt; the manifest's, else 30s.";
        idempotency_key: String = "idempotency_key" optional, r#"{"type":"string","maxLength":200}"#,
            "Two jobs of a queue with the same key are one. For a single job also the header `Idempotency-Key`.";
        priority: u8 = "priority" optional, r#"{"type":"integer","minimum":0,"maximum":9}"#,
            "0 to 9: before all jobs without one, 9 first.";
        limit_key: String = "limit_key" optional, r#"{"type":"string","maxLength":200}"#,
            "Whose limits it counts against.";
        supersede_key: String = "supersede_key" optional, r#"{"type":"string","maxLength":200}"#,
            "Cancels the jobs of the queue with the same key that still wait.";
        metadata: BTreeMap<String, String> = "metadata" optional,
            r#"{"type":"object","additionalProperties":{"type":"string"}}"#, "Names and values that travel with the job.";
        pin: String = "pin" optional, r#"{"type":"string"}"#,
            "The digest of the code to run, whatever is published meanwhile.";
    }
}

request! {
    /// A cancellation.
    CancelRequest CANCEL_FIELDS {
        reason: String = "reason" optional, r#"{"type":"string","default":"cancelled over HTTP"}"#,
            "Why, for the job's record.";
    }
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// The jobs of a request.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) jobs: Vec<NewJob>,
    /// Whether they came as a list.
    pub(super) is_bulk: bool,
}

/// Which of the two forms a body has.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Probe<'a> {
    #[serde(borrow, default)]
    jobs: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bulk<'a> {
    #[serde(borrow)]
    jobs: Vec<&'a RawValue>,
}

/// Reads a body; `key` is the idempotency key of the header.
pub(super) fn parse(bytes: &[u8], key: Option<String>) -> Result<Submission, Problem> {
    let text = text_of(bytes)?;
    let probe: Probe<'_> = from_object(text).map_err(|reason| bad_json("", &reason))?;
    if probe.jobs.is_none() {
        let mut request: JobRequest = from_object(text).map_err(|reason| bad_json("", &reason))?;
        if let Some(key) = key
            && request.idempotency_key.get_or_insert_with(|| key.clone()) != &key
        {
            return Err(Problem::new(BAD_JOB, "the header `Idempotency-Key` and the field `idempotency_key` differ"));
        }
        let job = into_job(request).map_err(|reason| Problem::new(BAD_JOB, reason))?;
        return Ok(Submission { jobs: vec![job], is_bulk: false });
    }
    if key.is_some() {
        return Err(Problem::new(BAD_JOB, "the header `Idempotency-Key` is for a single job")
            .hint("give each job of the list its own `idempotency_key`"));
    }
    let bulk: Bulk<'_> = from_object(text).map_err(|reason| bad_json("", &reason))?;
    if bulk.jobs.is_empty() || bulk.jobs.len() > BULK_MAX {
        let detail = format!("`jobs` has {} jobs, must have 1 to {BULK_MAX}", bulk.jobs.len());
        return Err(Problem::new(BAD_JOB, detail));
    }
    let read = |(n, raw): (usize, &&RawValue)| {
        let at = format!("jobs[{n}]: ");
        let request: JobRequest =
            from_object(raw.get()).map_err(|reason| bad_json(&at, &reason).with("index", n.into()))?;
        into_job(request).map_err(|reason| Problem::new(BAD_JOB, format!("{at}{reason}")).with("index", n.into()))
    };
    let jobs = bulk.jobs.iter().enumerate().map(read).collect::<Result<Vec<NewJob>, Problem>>()?;
    Ok(Submission { jobs, is_bulk: true })
}

/// Reads the body of a cancellation, which may be empty.
pub(super) fn parse_cancel(bytes: &[u8]) -> Result<CancelRequest, Problem> {
    let text = text_of(bytes)?;
    if text.trim().is_empty() {
        return Ok(CancelRequest::default());
    }
    from_object(text).map_err(|reason| bad_json("", &reason))
}

/// Reads an object. A list would be taken for the fields in their order.
fn from_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err("an object is expected, beginning with `{`".to_owned());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn text_of(bytes: &[u8]) -> Result<&str, Problem> {
    let problem = |detail: &str| Problem::new(BAD_JSON, detail).hint("send JSON in UTF-8 without a byte order mark");
    match bytes {
        [0xef, 0xbb, 0xbf, ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Err(problem("the body begins with a byte order mark"))
        }
        _ => std::str::from_utf8(bytes).map_err(|_| problem("the body is not UTF-8")),
    }
}

fn bad_json(at: &str, reason: &str) -> Problem {
    Problem::new(BAD_JSON, crate::job::visible(&format!("{at}{reason}")))
}

fn into_job(request: JobRequest) -> Result<NewJob, String> {
    let duration = |name: &str, text: Option<String>| {
        text.map(|text| parse_duration(&text)).transpose().map_err(|error| format!("`{name}`: {error}"))
    };
    let (payload, own_type) = match (request.payload, request.payload_base64) {
        (Some(_), Some(_)) => return Err("`payload` and `payload_base64` are given both".to_owned()),
        (Some(json), None) => (String::from(Box::<str>::from(json)).into_bytes(), "application/json"),
        (None, Some(text)) => {
            (STANDARD.decode(text).map_err(|error| format!("`payload_base64` is not base64: {error}"))?, "")
        }
        (None, None) => (Vec::new(), ""),
    };
    let delay = duration("delay", request.delay)?;
    let run_at = request.run_at.map(|text| parse_timestamp(&text)).transpose();
    let run_at = run_at.map_err(|error| format!("`run_at`: {error}"))?;
    if delay.is_some() && run_at.is_some() {
        return Err("`delay` and `run_at` are given both".to_owned());
    }
    let pin = request.pin.map(|text| text.parse()).transpose().map_err(|error| format!("`pin`: {error}"))?;
    let job_type = request.job_type.ok_or("`type` is missing: which jumpscript is to run it")?;
    let job = NewJob {
        content_type: request.content_type.unwrap_or_else(|| own_type.to_owned()),
        run_at: run_at.or_else(|| delay.map(|delay| Timestamp::now().after(delay))),
        timeout: duration("timeout", request.timeout)?,
        max_attempts: request.max_attempts,
        retry_base: duration("retry_base", request.retry_base)?,
        retry_cap: duration("retry_cap", request.retry_cap)?,
        idempotency_key: request.idempotency_key,
        pin,
        metadata: request.metadata.unwrap_or_default().into_iter().collect(),
        priority: request.priority,
        limit_key: request.limit_key,
        supersede_key: request.supersede_key,
        ..NewJob::new(request.queue.unwrap_or_else(|| QUEUE.to_owned()), job_type, payload)
    };
    job.check()?;
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> NewJob {
        parse(text.as_bytes(), None).unwrap().jobs.remove(0)
    }

    fn refusal(text: &str) -> String {
        format!("{:?}", parse(text.as_bytes(), None).unwrap_err())
    }

    #[test]
    fn a_payload_is_passed_on_as_it_is_written() {
        for payload in ["1e400", "9223372036854775808", r#"{"b": 1, "a": 1, "a":2 }"#, "null", r#""\u0041""#] {
            let job = one(&format!(r#"{{"type": "x", "payload": {payload}}}"#));
            assert_eq!((job.payload.as_slice(), job.content_type.as_str()), (payload.as_bytes(), "application/json"));
        }
        let deep = format!(r#"{{"type":"x","payload":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(one(&deep).payload.len(), 200_000);
        let job = one(r#"{"type":"x","payload_base64":"AP8="}"#);
        assert_eq!((job.payload.as_slice(), job.content_type.as_str()), (&[0, 255][..], ""));
        assert_eq!(one(r#"{"type":"x"}"#).payload, b"");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, words) in [
            (r#"{"type":"x","payload":1,"payload_base64":""}"#, "given both"),
            (r#"{"type":"x","delay":"1s","run_at":"1"}"#, "given both"),
            (r#"{"type":"x","timeout":"soon"}"#, "`timeout`"),
            (r#"{"type":"x","payload_base64":"?"}"#, "not base64"),
            (r#"{"payload":1}"#, "`type` is missing"),
            (r#"{"type":"x","typo":1}"#, "unknown field `typo`"),
            (r#"{"type":"x","type":"y"}"#, "duplicate field"),
            (r#"{"type":"a:b"}"#, "must not contain `:`"),
            (r#"{"jobs":[{"type":"x"},{"type":"x","priority":10}]}"#, "jobs[1]: the priority is 10"),
            (r#"{"jobs":[{"type":"x"}],"queue":"q"}"#, "unknown field `queue`"),
            (r#"{"jobs":[]}"#, "must have 1 to"),
            (r#"{"jobs":7}"#, "invalid type"),
            ("[]", "object"),
            ("", "object"),
            (r#"["q","x"]"#, "object"),
            (r#"{"jobs":[["q","x"]]}"#, "jobs[0]: an object"),
            ("{", "EOF"),
            (r#"{"type":"x"} {"#, "trailing"),
            ("\u{feff}{}", "byte order mark"),
        ] {
            assert!(refusal(text).contains(words), "{text}: {}", refusal(text));
        }
        assert!(parse(&[0xff, b'{', 0], None).is_err());
    }
}
