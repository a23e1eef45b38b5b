//! The file format of cases: what a job is given, and what must come of it. `docs/testing.md` says it to authors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::stored::{Buckets, Enqueued, Stored, Values};
use crate::clock::parse_duration;
use crate::outcome::Outcome;

/// Outcomes that a case can expect, in the words of [`Outcome::KINDS`].
const OUTCOMES: std::ops::Range<usize> = 0..7;
/// Every key of the format, for the nearest one to an unknown one.
const KEYS: [&str; 32] = [
    "state",
    "buckets",
    "enqueued",
    "script",
    "case",
    "name",
    "payload",
    "payload_file",
    "content_type",
    "id",
    "queue",
    "type",
    "attempt",
    "max_attempts",
    "metadata",
    "timeout",
    "memory_mib",
    "expect",
    "outcome",
    "result",
    "text",
    "subset",
    "regex",
    "result_file",
    "error",
    "error_regex",
    "retry_after",
    "log",
    "wall_max",
    "memory_mib_max",
    "host_calls_max",
    "log_lines_max",
];

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFile {
    /// Which of several jumpscripts of the folder is meant.
    pub(super) script: Option<String>,
    /// The cases, in their order.
    #[serde(default, rename = "case")]
    pub(super) cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows.
    pub(super) name: String,
    /// A text is the payload itself, anything else becomes JSON.
    payload: Option<toml::Value>,
    /// Or the bytes of a file beside the file of cases.
    payload_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) content_type: String,
    #[serde(default = "test_id")]
    pub(super) id: String,
    #[serde(default = "default_queue")]
    pub(super) queue: String,
    #[serde(rename = "type")]
    pub(super) job_type: Option<String>,
    #[serde(default = "first")]
    pub(super) attempt: u32,
    pub(super) max_attempts: Option<u32>,
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, String>,
    /// What lies in the job's own bucket.
    #[serde(default)]
    state: Values,
    /// What lies in buckets by name.
    #[serde(default)]
    buckets: Buckets,
    timeout: Option<String>,
    pub(super) memory_mib: Option<u32>,
    /// What must come of it; a result of any kind when nothing is said.
    pub(super) expect: Option<Expect>,
}

/// What must come of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) outcome: Option<String>,
    /// Equal as JSON.
    pub(super) result: Option<toml::Value>,
    /// Equal byte for byte.
    pub(super) text: Option<String>,
    /// JSON that has at least this.
    pub(super) subset: Option<toml::Value>,
    /// A regular expression that is found in the result.
    pub(super) regex: Option<String>,
    /// A file: JSON equality when it ends in `.json`, else byte for byte.
    pub(super) result_file: Option<PathBuf>,
    /// A part of the error's text.
    pub(super) error: Option<String>,
    pub(super) error_regex: Option<String>,
    pub(super) retry_after: Option<String>,
    /// Parts of the log.
    pub(super) log: Vec<String>,
    /// Values that its end writes into its own bucket.
    pub(super) state: Values,
    /// Values that its end writes into buckets by name.
    pub(super) buckets: Buckets,
    /// The jobs that its end enqueues, in their order.
    pub(super) enqueued: Option<Vec<Enqueued>>,
    pub(super) wall_max: Option<String>,
    pub(super) memory_mib_max: Option<u32>,
    pub(super) host_calls_max: Option<u64>,
    pub(super) log_lines_max: Option<u64>,
}

fn test_id() -> String {
    "test".to_owned()
}

fn default_queue() -> String {
    "default".to_owned()
}

const fn first() -> u32 {
    1
}

impl CaseFile {
    /// Reads a file of cases and checks it whole.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| with_nearest(&error.to_string()))?;
        if file.cases.is_empty() {
            return Err("has no [[case]]; docs/testing.md shows what one looks like".to_owned());
        }
        for (n, case) in file.cases.iter().enumerate() {
            case.check().map_err(|error| format!("case `{}`: {error}", case.name))?;
            if file.cases[..n].iter().any(|other| other.name == case.name) {
                return Err(format!("case `{}` is there twice; give each a name of its own", case.name));
            }
        }
        Ok(file)
    }
}

impl Case {
    fn check(&self) -> Result<(), String> {
        if self.name.trim().is_empty() {
            return Err("needs a `name` that says what it shows".to_owned());
        }
        if self.payload.is_some() && self.payload_file.is_some() {
            return Err("has both `payload` and `payload_file`; leave one out".to_owned());
        }
        if self.attempt == 0 || self.memory_mib == Some(0) {
            return Err("`attempt` and `memory_mib` are at least 1".to_owned());
        }
        if self.max_attempts.is_some_and(|most| most < self.attempt) {
            return Err(format!("attempt {} is beyond `max_attempts`", self.attempt));
        }
        self.timeout()?;
        self.expect.as_ref().map_or(Ok(()), Expect::check)
    }

    /// The payload's bytes; `folder` is that of the file of cases.
    pub(super) fn payload(&self, folder: &Path) -> Result<Vec<u8>, String> {
        match (&self.payload, &self.payload_file) {
            (_, Some(file)) => read_beside(folder, file),
            (Some(toml::Value::String(text)), None) => Ok(text.clone().into_bytes()),
            (Some(value), None) => Ok(json(value).to_string().into_bytes()),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// What is stored before it begins.
    pub(super) fn stored(&self) -> Stored {
        Stored::new(&self.state, &self.buckets)
    }

    /// The wall time that it is given, when the case says so.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, String> {
        duration("timeout", self.timeout.as_deref())
    }
}

impl Expect {
    fn check(&self) -> Result<(), String> {
        if let Some(word) = &self.outcome
            && !Outcome::KINDS[OUTCOMES].contains(&word.as_str())
        {
            let words = Outcome::KINDS[OUTCOMES].join(", ");
            let nearest = nearest(word, &Outcome::KINDS[OUTCOMES]);
            return Err(format!("`{word}` is no outcome, did you mean `{nearest}`? They are {words}"));
        }
        let results = [
            ("result", self.result.is_some()),
            ("text", self.text.is_some()),
            ("subset", self.subset.is_some()),
            ("regex", self.regex.is_some()),
            ("result_file", self.result_file.is_some()),
        ];
        let given: Vec<&str> = results.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
        if let [first, second, ..] = given[..] {
            return Err(format!("expects the result by both `{first}` and `{second}`; leave one out"));
        }
        if !given.is_empty() && self.fails() {
            return Err(format!("expects an error, and a result by `{}`; leave one out", given[0]));
        }
        for (key, pattern) in [("regex", &self.regex), ("error_regex", &self.error_regex)] {
            if let Some(pattern) = pattern {
                Regex::new(pattern).map_err(|error| format!("`{key}`: {error}"))?;
            }
        }
        self.retry_after()?;
        self.wall_max().map(|_| ())
    }

    /// Whether it expects anything but a result.
    pub(super) fn fails(&self) -> bool {
        self.error.is_some()
            || self.error_regex.is_some()
            || self.retry_after.is_some()
            || self.outcome.as_deref().is_some_and(|word| word != "done")
    }

    pub(super) fn retry_after(&self) -> Result<Option<Duration>, String> {
        duration("retry_after", self.retry_after.as_deref())
    }

    pub(super) fn wall_max(&self) -> Result<Option<Duration>, String> {
        duration("wall_max", self.wall_max.as_deref())
    }
}

/// The bytes of a file that a case names.
pub(super) fn read_beside(folder: &Path, file: &Path) -> Result<Vec<u8>, String> {
    let path = folder.join(file);
    let is_file = std::fs::metadata(&path).map(|meta| meta.is_file());
    match is_file {
        Ok(true) => std::fs::read(&path),
        Ok(false) => Err(std::io::Error::other("it is no regular file")),
        Err(error) => Err(error),
    }
    .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

/// A value of a file of cases as JSON. Times, which JSON does not know, become text.
pub(super) fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.iter().map(json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.iter().map(|(key, value)| (key.clone(), json(value))).collect())
        }
    }
}

fn duration(key: &str, text: Option<&str>) -> Result<Option<Duration>, String> {
    text.map(parse_duration).transpose().map_err(|error| format!("`{key}`: {error}"))
}

/// The word of a list that is written most like another.
fn nearest<'a>(word: &str, known: &[&'a str]) -> &'a str {
    known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, word)).copied().unwrap_or_default()
}

/// The parser's words, and the nearest key when they complain of an unknown one.
fn with_nearest(error: &str) -> String {
    let error = error.trim_end();
    let unknown = error.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
    match unknown {
        Some((key, _)) => format!("{error}\nhint: did you mean `{}`?", nearest(key, &KEYS)),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(case: &str) -> String {
        CaseFile::parse(&format!("[[case]]\nname = 'x'\n{case}")).unwrap_err()
    }

    #[test]
    fn a_mistake_in_a_case_is_named_with_the_case_and_the_nearest_word() {
        assert!(refused("expect = { outcome = 'rejcted' }").contains("did you mean `rejected`"));
        assert!(refused("expect = { reslt = 1 }").contains("did you mean `result`"));
        assert!(refused("expect = { text = 'a', regex = 'a' }").contains("by both `text` and `regex`"));
        assert!(refused("expect = { text = 'a', outcome = 'failed' }").contains("an error, and a result by `text`"));
        assert!(refused("expect = { regex = '(' }").contains("`regex`: "));
        assert!(refused("timeout = 'soon'").contains("case `x`: `timeout`"));
        assert!(refused("attempt = 3\nmax_attempts = 2").contains("`max_attempts`"));
        assert!(refused("payload = 1\npayload_file = 'a'").contains("leave one out"));
        assert!(refused("[[case]]\nname = 'x'").contains("twice"));
        assert!(CaseFile::parse("").unwrap_err().contains("[[case]]"));
    }

    #[test]
    fn a_text_is_the_payload_itself_and_anything_else_is_json() {
        let payload = |text: &str| {
            let file = CaseFile::parse(&format!("[[case]]\nname = 'x'\npayload = {text}")).unwrap();
            String::from_utf8(file.cases[0].payload(Path::new(".")).unwrap()).unwrap()
        };
        assert_eq!(payload("'to be'"), "to be");
        assert_eq!(payload("{ name = 'Ada', n = [1, 2.5, true] }"), r#"{"n":[1,2.5,true],"name":"Ada"}"#);
        assert_eq!(payload("7"), "7");
    }
}
