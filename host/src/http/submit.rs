//! What a producer sends: one job or many, as JSON. `job::submission` says what a job looks like, the same as in a line of
//! `submit --lines`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::BULK_MAX;
use super::answer::{BAD_JOB, BAD_JSON, Problem};
use crate::job::submission::read_job;
use crate::job::{NewJob, QUEUE, visible};

/// A cancellation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct CancelRequest {
    /// Why, for the job's record.
    #[serde(default)]
    pub(super) reason: Option<String>,
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
    let given = NewJob::new(QUEUE, "", "");
    let read = |text: &str, at: &str| {
        read_job(text.as_bytes(), &given).map_err(|reason| Problem::new(BAD_JOB, visible(&format!("{at}: {reason}"))))
    };
    if probe.jobs.is_none() {
        let mut job = read(text, "the job")?;
        if let Some(key) = key {
            if job.idempotency_key.get_or_insert_with(|| key.clone()) != &key {
                return Err(Problem::new(
                    BAD_JOB,
                    "the header `Idempotency-Key` and the field `idempotency_key` differ",
                ));
            }
            job.check().map_err(|reason| Problem::new(BAD_JOB, reason))?;
        }
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
    let numbered = bulk.jobs.iter().enumerate();
    let jobs = numbered
        .map(|(n, raw)| read(raw.get(), &format!("jobs[{n}]")).map_err(|problem| problem.with("index", n.into())));
    Ok(Submission { jobs: jobs.collect::<Result<_, _>>()?, is_bulk: true })
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
    Problem::new(BAD_JSON, visible(&format!("{at}{reason}")))
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
        for payload in ["1e400", "9223372036854775808", r#"{"b": 1, "a": 1, "a":2 }"#] {
            let job = one(&format!(r#"{{"type": "x", "payload": {payload}}}"#));
            assert_eq!((job.payload.as_slice(), job.content_type.as_str()), (payload.as_bytes(), "application/json"));
        }
        let deep = format!(r#"{{"type":"x","payload":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(one(&deep).payload.len(), 200_000);
        let job = one(r#"{"type":"x","payload_base64":"AP8="}"#);
        assert_eq!((job.payload.as_slice(), job.content_type.as_str()), (&[0, 255][..], ""));
        assert_eq!(one(r#"{"type":"x"}"#).payload, b"");
        let job = one(r#"{"type":"x","payload":"\u0041 text"}"#);
        assert_eq!((job.payload.as_slice(), job.content_type.as_str()), (&b"A text"[..], ""), "as in `submit --lines`");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, words) in [
            (r#"{"type":"x","payload":1,"payload_base64":""}"#, "has both"),
            (r#"{"type":"x","delay":"1s","run_at":"1"}"#, "has both"),
            (r#"{"type":"x","timeout":"soon"}"#, "its `timeout` is refused"),
            (r#"{"type":"x","payload_base64":"?"}"#, "no base64"),
            (r#"{"payload":1}"#, "the job: it has no `type`"),
            (r#"{"type":"x","typo":1}"#, "it has `typo`, which is no field"),
            (r#"{"type":"x","type":"y"}"#, "it has `type` twice"),
            (r#"{"type":"a:b"}"#, "must not contain `:`"),
            (r#"{"jobs":[{"type":"x"},{"type":"x","priority":10}]}"#, "jobs[1]: the priority is 10"),
            (r#"{"jobs":[{"type":"x"}],"queue":"q"}"#, "unknown field `queue`"),
            (r#"{"jobs":[]}"#, "must have 1 to"),
            (r#"{"jobs":7}"#, "invalid type"),
            ("[]", "object"),
            ("", "object"),
            (r#"["q","x"]"#, "object"),
            (r#"{"jobs":[["q","x"]]}"#, "jobs[0]: it is no JSON object"),
            ("{", "EOF"),
            (r#"{"type":"x"} {"#, "trailing"),
            ("\u{feff}{}", "byte order mark"),
        ] {
            assert!(refusal(text).contains(words), "{text}: {}", refusal(text));
        }
        assert!(parse(&[0xff, b'{', 0], None).is_err());
    }
}
