//! Hero: a job is a hash `hero:job:{id}`, its id is pushed to `hero:q:work:type:{script_type}`.
//!
//! Supervisors and terminals push with LPUSH, actors take with BLPOP: the newest first. A caller polls the hash for
//! `output` or waits at `hero:q:reply:{id}`. Nothing there has a time to live but the reply list, which gets one here.
//!
//! Invariant: numbers are text and checked; a field that is wrong is named in the answer, and never a panic.
//!
//! Next: `docs/protocols/hero.md` for people.

use std::time::Duration;

use super::{Message, Moment, Plain, Protocol, Record, Source, Tell};
use crate::effects::Key;
use crate::job::{ID_BYTES_MAX, MAX_ATTEMPTS_MAX, NewJob, PAYLOAD_BYTES_MAX, TIMEOUT_MAX, visible};

/// The script types whose queues are watched when the configuration names none.
pub const TYPES: [&str; 4] = ["osis", "sal", "v", "python"];
/// How long a reply nobody has taken stays in its list.
pub const REPLY_TTL: Duration = Duration::from_secs(3600);
/// A job with this script asks whether anybody is there.
const PING: &str = "ping";
/// The answer to it.
const PONG: &str = "pong";
/// What the key of a job's hash begins with.
const RECORD: &str = "hero:job:";
/// What the key of a job's replies begins with.
const REPLY: &str = "hero:q:reply:";
/// States of a job that has ended.
const ENDED: &[&str] = &["finished", "error"];
/// Longest text of a wrong value that is told.
const SHOWN_CHARS: usize = 40;

/// The fields that are read. Those from `caller_id` on travel with the job as its metadata.
const FIELDS: &[&str] = &[
    "status",
    "script",
    "timeout",
    "retries",
    "output",
    "error",
    "caller_id",
    "context_id",
    "actor_id",
    "worker_id",
    "concurrent",
    "log_path",
    "created_at",
    "env_vars",
    "prerequisites",
    "dependents",
    "dependencies",
];
const FIRST_OF_METADATA: usize = 6;

/// The messages that [`decode`] makes jobs of without further ado.
const PLAIN: Plain = Plain {
    payload: "script",
    timeout: "timeout",
    retries: "retries",
    empty: &["output", "error"],
    metadata: FIELDS.split_at(FIRST_OF_METADATA).1,
    ended: ENDED,
    answered: &[PING],
};

/// The list of one script type.
#[must_use]
pub fn source(script_type: &str) -> Source {
    Source {
        protocol: Protocol::Hero,
        list: Key::spelt(format!("hero:q:work:type:{script_type}")),
        kind: script_type.to_owned(),
        queue: Protocol::Hero.queue(script_type),
        record_prefix: RECORD,
        fields: FIELDS,
        plain: Some(PLAIN),
    }
}

/// What Hero is told: the state in the hash, and a reply for whoever waits for one. Whoever polls takes either of
/// `output` and `error` for the end, so neither may be there before it.
#[must_use]
pub(super) fn told() -> Vec<(Moment, Tell)> {
    let status = |words, fields| Tell::Fields { key: RECORD, words, time: "updated_at", fields };
    let started = status("", &[("status", "started")]);
    let reply = Tell::Reply { key: REPLY, ttl: REPLY_TTL };
    vec![
        (Moment::Started, started),
        (Moment::Again, Tell::Remove { key: RECORD, fields: &["output", "error"] }),
        (Moment::Again, started),
        (Moment::Done, status("output", &[("status", "finished")])),
        (Moment::Done, reply),
        (Moment::Failed, status("error", &[("status", "error")])),
        (Moment::Failed, reply),
    ]
}

/// What a message of a script type means.
#[must_use]
pub fn decode(script_type: &str, id: &[u8], found: &Record) -> Message {
    let job_id = Protocol::Hero.job_id(id);
    let aside = |reason: &str| Message::Aside { reason: reason.to_owned() };
    if id.is_empty() {
        return aside("its id is empty");
    } else if job_id.as_bytes().len() > ID_BYTES_MAX {
        let longest = ID_BYTES_MAX - (job_id.as_bytes().len() - id.len());
        return Message::Aside { reason: format!("its id has {} bytes, at most {longest} are allowed", id.len()) };
    }
    let values = match found {
        Record::Missing => return aside("its hash is missing"),
        Record::Other => return aside("its key is not a hash"),
        Record::Fields(values) => values,
    };
    let value = |name: &str| {
        let place = FIELDS.iter().position(|field| *field == name)?;
        values.get(place)?.as_deref().filter(|value| !value.is_empty())
    };
    if value("status").is_some_and(|status| ENDED.iter().any(|ended| ended.as_bytes() == status)) {
        return Message::Ended;
    }
    let script = value("script");
    if script == Some(PING.as_bytes()) {
        return Message::Answered { id: job_id, text: PONG };
    }
    let mut job = NewJob { id: Some(job_id), ..NewJob::new(Protocol::Hero.queue(script_type), script_type, "") };
    job.metadata.push(("protocol".to_owned(), Protocol::Hero.word().to_owned()));
    job.metadata.push(("id".to_owned(), String::from_utf8_lossy(id).into_owned()));
    for name in &FIELDS[FIRST_OF_METADATA..] {
        if let Some(value) = value(name) {
            job.metadata.push(((*name).to_owned(), String::from_utf8_lossy(value).into_owned()));
        }
    }
    match take_terms(&mut job, script, value("timeout"), value("retries")) {
        Ok(()) => Message::Job { job: Box::new(job), is_again: value("output").is_some() || value("error").is_some() },
        Err(reason) => Message::Refused { job: Box::new(job), reason },
    }
}

/// Fills in what is run and how. The fields that are right stay when another is wrong.
fn take_terms(
    job: &mut NewJob,
    script: Option<&[u8]>,
    timeout: Option<&[u8]>,
    retries: Option<&[u8]>,
) -> Result<(), String> {
    match script {
        None => return Err("field `script` is missing or empty".to_owned()),
        Some(script) if script.len() > PAYLOAD_BYTES_MAX => {
            let n = script.len();
            return Err(format!("field `script` has {n} bytes, at most {PAYLOAD_BYTES_MAX} are allowed"));
        }
        Some(script) => job.payload = script.to_vec(),
    }
    // 0 is how the originals say that none was given.
    let timeout = number("timeout", timeout, "seconds")?.filter(|seconds| *seconds > 0);
    job.timeout = timeout.map(|seconds| Duration::from_secs(seconds).min(TIMEOUT_MAX));
    let retries = number("retries", retries, "further attempts")?.unwrap_or(0);
    let most = u64::from(MAX_ATTEMPTS_MAX);
    job.max_attempts = Some(u32::try_from(retries.saturating_add(1).min(most)).unwrap_or(MAX_ATTEMPTS_MAX));
    Ok(())
}

/// A number in a field, in digits; more of them than a number holds are the largest one.
fn number(name: &str, value: Option<&[u8]>, unit: &str) -> Result<Option<u64>, String> {
    let Some(value) = value else { return Ok(None) };
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        let shown: String = String::from_utf8_lossy(value).chars().take(SHOWN_CHARS).collect();
        return Err(format!("field `{name}` is `{}`, must be a whole number of {unit} from 0", visible(&shown)));
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(fields: &[(&str, &[u8])]) -> Message {
        let value = |name: &&str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.to_vec());
        decode("osis", b"j1", &Record::Fields(FIELDS.iter().map(value).collect()))
    }

    fn reason(message: Message) -> String {
        match message {
            Message::Refused { reason, .. } | Message::Aside { reason } => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_hash_becomes_a_job_with_its_terms_and_its_fields() {
        let script = b"print \"\xff\"";
        let fields: &[(&str, &[u8])] = &[
            ("status", b"dispatched"),
            ("script", script),
            ("timeout", b"7"),
            ("retries", b"2"),
            ("caller_id", b"02ab"),
            ("env_vars", b"{\"A\":\"1\"}"),
            ("log_path", b""),
        ];
        let Message::Job { job, is_again } = decoded(fields) else { panic!("a job") };
        assert_eq!(
            (job.queue.as_str(), job.job_type.as_str(), job.payload.as_slice()),
            ("hero-osis", "osis", &script[..])
        );
        assert_eq!((job.timeout, job.max_attempts), (Some(Duration::from_secs(7)), Some(3)));
        let metadata: Vec<_> = job.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [("protocol", "hero"), ("id", "j1"), ("caller_id", "02ab"), ("env_vars", "{\"A\":\"1\"}")];
        assert_eq!(metadata, expected);
        assert!(!is_again);
        assert!(matches!(decoded(&[("script", b"x"), ("error", b"no")]), Message::Job { is_again: true, .. }));
    }

    #[test]
    fn numbers_are_bounded_and_a_wrong_one_is_named() {
        let job = |name: &'static str, value: &'static str| decoded(&[("script", b"x"), (name, value.as_bytes())]);
        for (name, value) in [("timeout", "soon"), ("timeout", "-1"), ("retries", "1.5"), ("retries", " ")] {
            let said = reason(job(name, value));
            assert!(said.contains(&format!("field `{name}` is `{value}`")), "{said}");
        }
        let Message::Job { job: longest, .. } = job("timeout", "99999999999999999999999") else { panic!("a job") };
        assert_eq!(longest.timeout, Some(TIMEOUT_MAX));
        let Message::Job { job: most, .. } = job("retries", "18446744073709551615") else { panic!("a job") };
        assert_eq!(most.max_attempts, Some(MAX_ATTEMPTS_MAX));
        let Message::Job { job: unset, .. } = job("timeout", "0") else { panic!("a job") };
        assert_eq!((unset.timeout, unset.max_attempts), (None, Some(1)));
    }

    #[test]
    fn what_is_no_job_is_told_apart() {
        assert!(matches!(decoded(&[("script", b"ping")]), Message::Answered { text: "pong", .. }));
        assert_eq!(decoded(&[("script", b"x"), ("status", b"finished")]), Message::Ended);
        assert_eq!(decoded(&[("script", b"x"), ("status", b"error")]), Message::Ended);
        assert!(reason(decoded(&[])).contains("`script` is missing"));
        assert!(reason(decode("osis", b"j1", &Record::Missing)).contains("missing"));
        assert!(reason(decode("osis", b"j1", &Record::Other)).contains("not a hash"));
        assert!(reason(decode("osis", b"", &Record::Missing)).contains("empty"));
        assert!(reason(decode("osis", &[b'x'; 1020], &Record::Missing)).contains("1020 bytes, at most 1019"));
    }
}
