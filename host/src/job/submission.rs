//! A job as producers write it in JSON: a line of `submit --lines`, or an object in the body of a request.
//!
//! Invariant: nothing is guessed. A field that is not known, is there twice or has a value of another kind is refused
//! by its name; a payload arrives byte for byte as it was written.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{JobId, NewJob, visible};
use crate::clock::{Timestamp, parse_duration, parse_timestamp};
use crate::jumpscript::Digest;

/// A field of a submission.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What its value is in JSON, in words.
    pub form: &'static str,
    /// Its JSON schema.
    pub schema: &'static str,
    /// What it means.
    pub what: &'static str,
}

impl Field {
    /// Whether a job without it is refused.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.name == "type"
    }
}

const fn field(name: &'static str, form: &'static str, schema: &'static str, what: &'static str) -> Field {
    Field { name, form, schema, what }
}

const TEXT: &str = "text";
const DURATION: &str = "text, such as `30s`";
const NUMBER: &str = "number";
const ANY_TEXT: &str = r#"{"type":"string"}"#;
const NAME: &str = r#"{"type":"string","maxLength":200}"#;
const SPAN: &str = r#"{"type":"string","examples":["30s","1h30m"]}"#;

/// All fields. One that is `null` is not given.
pub const FIELDS: [Field; 18] = [
    field("queue", TEXT, r#"{"type":"string","maxLength":200,"default":"default"}"#, "queue"),
    field("type", TEXT, NAME, "which jumpscript runs it: organization/name, or a bare word"),
    field("payload", "anything", "{}", "a text is the payload itself, anything else is its JSON as it is written"),
    field(
        "payload_base64",
        TEXT,
        r#"{"type":"string","contentEncoding":"base64"}"#,
        "a payload of any bytes, in base64; in place of `payload`",
    ),
    field(
        "content_type",
        TEXT,
        ANY_TEXT,
        "what the payload is; `application/json` when it is JSON and nothing is said",
    ),
    field("delay", DURATION, SPAN, "run after this much time"),
    field(
        "run_at",
        "text or number",
        r#"{"type":["string","number"],"examples":["2027-01-15T08:00:00Z",1800000000]}"#,
        "run at this time: RFC 3339, Unix seconds, or milliseconds",
    ),
    field("max_attempts", NUMBER, r#"{"type":"integer","minimum":1,"maximum":1000}"#, "executions in all"),
    field("retry_base", DURATION, SPAN, "delay before the second execution, before jitter"),
    field("retry_cap", DURATION, SPAN, "longest delay between two executions"),
    field("timeout", DURATION, SPAN, "wall time of one attempt"),
    field("idempotency_key", TEXT, NAME, "two jobs of a queue with the same key are one"),
    field(
        "priority",
        NUMBER,
        r#"{"type":"integer","minimum":0,"maximum":9}"#,
        "0 to 9: before all jobs without one, 9 first",
    ),
    field("limit_key", TEXT, NAME, "whose limits it counts against"),
    field("supersede_key", TEXT, NAME, "cancel the jobs of the queue with the same key that still wait"),
    field(
        "metadata",
        "object of texts",
        r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
        "names and values that travel with the job",
    ),
    field("pin", TEXT, ANY_TEXT, "digest: run exactly this code, whatever is published meanwhile"),
    field("id", TEXT, NAME, "its id; one that is there already is left alone"),
];

/// Reads a job. What it does not say is as `given` has it; its metadata are added to those of `given`.
///
/// # Errors
/// A sentence that begins with "it" or "its", and names the field, its value and what it must be.
pub fn read_job(text: &[u8], given: &NewJob) -> Result<NewJob, String> {
    let mut input = serde_json::Deserializer::from_slice(text);
    let fields = input.deserialize_any(Fields).and_then(|fields| input.end().map(|()| fields));
    let fields = fields.map_err(|error| unreadable(&error))?;
    let has = |name: &str| fields.iter().any(|(field, _)| *field == name);
    for (one, other) in [("payload", "payload_base64"), ("delay", "run_at")] {
        if has(one) && has(other) {
            return Err(format!("it has both `{one}` and `{other}`"));
        }
    }
    let mut job = given.clone();
    for (name, value) in &fields {
        set(&mut job, &Given { name, value })?;
    }
    if job.job_type.is_empty() {
        return Err("it has no `type`".to_owned());
    }
    if job.content_type.is_empty() {
        content_type_of(&job.payload).clone_into(&mut job.content_type);
    }
    job.check()?;
    Ok(job)
}

/// What a payload is called when its producer says nothing: JSON or nothing.
#[must_use]
pub fn content_type_of(payload: &[u8]) -> &'static str {
    let is_json = !payload.is_empty() && serde_json::from_slice::<IgnoredAny>(payload).is_ok();
    if is_json { "application/json" } else { "" }
}

fn set(job: &mut NewJob, given: &Given<'_>) -> Result<(), String> {
    match given.name {
        "queue" => job.queue = given.text()?,
        "type" => job.job_type = given.text()?,
        "payload" if given.value.get().starts_with('"') => job.payload = given.text()?.into_bytes(),
        "payload" => job.payload = given.value.get().into(),
        "payload_base64" => job.payload = given.parsed(read_base64)?,
        "content_type" => job.content_type = given.text()?,
        "delay" => job.run_at = Some(Timestamp::now().after(given.duration()?)),
        "run_at" => job.run_at = Some(given.time()?),
        "max_attempts" => job.max_attempts = Some(given.number()?),
        "retry_base" => job.retry_base = Some(given.duration()?),
        "retry_cap" => job.retry_cap = Some(given.duration()?),
        "timeout" => job.timeout = Some(given.duration()?),
        "idempotency_key" => job.idempotency_key = Some(given.text()?),
        "priority" => job.priority = Some(given.number()?),
        "limit_key" => job.limit_key = Some(given.text()?),
        "supersede_key" => job.supersede_key = Some(given.text()?),
        "metadata" => {
            let more: std::collections::BTreeMap<String, String> = given.read("an object whose values are texts")?;
            job.metadata.retain(|(name, _)| !more.contains_key(name));
            job.metadata.extend(more);
        }
        "pin" => job.pin = Some(given.parsed(str::parse::<Digest>)?),
        "id" => job.id = Some(JobId::from(given.text()?.as_str())),
        other => return Err(unknown(other)),
    }
    Ok(())
}

/// A field with its value as it is written.
struct Given<'a> {
    name: &'a str,
    value: &'a RawValue,
}

impl Given<'_> {
    fn read<T: DeserializeOwned>(&self, form: &str) -> Result<T, String> {
        serde_json::from_str(self.value.get()).map_err(|_| {
            let value = self.value.get();
            let mut shown: String = visible(value).chars().take(SHOWN_CHARS_MAX).collect();
            if shown.len() < value.len() {
                shown.push('…');
            }
            format!("its `{}` is `{shown}`, must be {form}", self.name)
        })
    }

    fn text(&self) -> Result<String, String> {
        self.read("a text in quotes")
    }

    fn number<T: DeserializeOwned>(&self) -> Result<T, String> {
        self.read("a whole number in its range")
    }

    fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
        parse(&self.text()?).map_err(|why| format!("its `{}` is refused: {why}", self.name))
    }

    fn duration(&self) -> Result<Duration, String> {
        self.parsed(parse_duration)
    }

    fn time(&self) -> Result<Timestamp, String> {
        if self.value.get().starts_with('"') {
            return self.parsed(parse_timestamp);
        }
        parse_timestamp(self.value.get()).map_err(|why| format!("its `{}` is refused: {why}", self.name))
    }
}

/// Most characters of a wrong value that are shown.
const SHOWN_CHARS_MAX: usize = 60;

fn read_base64(text: &str) -> Result<Vec<u8>, String> {
    // Some encoders leave the padding out.
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, config).decode(text).map_err(|error| format!("it is no base64: {error}"))
}

/// The fields of an object in their order, without those that are `null`.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let Name(name) = name;
            // Here already: nobody is to collect a million of them first.
            if !FIELDS.iter().any(|field| field.name == name) {
                return Err(A::Error::custom(unknown(&name)));
            }
            if fields.iter().any(|(field, _)| *field == name) {
                return Err(A::Error::custom(format!("it has `{name}` twice")));
            }
            fields.push((name, map.next_value()?));
        }
        fields.retain(|(_, value)| value.get() != "null");
        Ok(fields)
    }
}

/// A name that is borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Why a text is no object of fields.
fn unreadable(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (what, place) = said.rsplit_once(" at line ").unwrap_or((&said, ""));
    match error.classify() {
        serde_json::error::Category::Data if what.starts_with("it has ") => what.to_owned(),
        serde_json::error::Category::Data => format!("it is no JSON object: {what}"),
        _ => format!("it is no JSON: {what} at {}", place.strip_prefix("1 ").map_or(said.as_str(), |column| column)),
    }
}

fn unknown(name: &str) -> String {
    let distance = |field: &Field| strsim::damerau_levenshtein(field.name, &name.to_lowercase().replace('-', "_"));
    let nearest =
        FIELDS.iter().min_by_key(|field| distance(field)).filter(|field| distance(field) <= 1 + name.len() / 4);
    let way_out = match nearest {
        Some(field) => format!("did you mean `{}`?", field.name),
        None => format!("known are {}", FIELDS.map(|field| field.name).join(", ")),
    };
    let shown: String = visible(name).chars().take(SHOWN_CHARS_MAX).collect();
    format!("it has `{shown}`, which is no field of a job; {way_out}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{PAYLOAD_BYTES_MAX, QUEUE};

    fn given() -> NewJob {
        NewJob::new(QUEUE, "", "")
    }

    fn read(text: &str) -> Result<NewJob, String> {
        read_job(text.as_bytes(), &given())
    }

    #[test]
    fn every_field_of_the_table_is_read() {
        let text = format!(
            r#"{{"queue":"q","type":"t","payload_base64":"AP8=","content_type":"a/b","run_at":1800000000,"max_attempts":3,
            "retry_base":"1s","retry_cap":"2s","timeout":"5s","idempotency_key":"i","priority":9,"limit_key":"l",
            "supersede_key":"s","metadata":{{"a":"1"}},"pin":"{}","id":"x"}}"#,
            "ab".repeat(32)
        );
        let job = read(&text).unwrap();
        let expected = NewJob {
            id: Some(JobId::from("x")),
            content_type: "a/b".to_owned(),
            run_at: Some(Timestamp::from_millis(1_800_000_000_000)),
            timeout: Some(Duration::from_secs(5)),
            max_attempts: Some(3),
            retry_base: Some(Duration::from_secs(1)),
            retry_cap: Some(Duration::from_secs(2)),
            idempotency_key: Some("i".to_owned()),
            pin: Some("ab".repeat(32).parse().unwrap()),
            metadata: vec![("a".to_owned(), "1".to_owned())],
            priority: Some(9),
            limit_key: Some("l".to_owned()),
            supersede_key: Some("s".to_owned()),
            ..NewJob::new("q", "t", [0, 255])
        };
        assert_eq!(job, expected);
        let missing: Vec<&str> =
            FIELDS.iter().map(|field| field.name).filter(|name| !text.contains(&format!("\"{name}\""))).collect();
        assert_eq!(missing, ["payload", "delay"], "each has a test of its own");
        assert!(read(r#"{"type":"t","delay":"1h"}"#).unwrap().run_at > Some(Timestamp::now()));
    }

    #[test]
    fn a_payload_is_its_text_or_its_json_as_it_is_written() {
        for (written, payload, content_type) in [
            (r#""to be""#, "to be", ""),
            (r#""{\"a\": 1}""#, r#"{"a": 1}"#, "application/json"),
            (r#"{"a":  1.50}"#, r#"{"a":  1.50}"#, "application/json"),
            ("123456789012345678901234567890", "123456789012345678901234567890", "application/json"),
            ("[]", "[]", "application/json"),
            ("false", "false", "application/json"),
            ("null", "", ""),
            (r#""""#, "", ""),
        ] {
            let job = read(&format!(r#"{{"type":"t","payload":{written}}}"#)).unwrap();
            assert_eq!((job.payload.as_slice(), job.content_type.as_str()), (payload.as_bytes(), content_type));
        }
        assert_eq!(read(r#"{"type":"t","payload_base64":"aGk"}"#).unwrap().payload, b"hi", "without its padding");
    }

    #[test]
    fn what_is_not_said_is_as_it_was_given() {
        let given = NewJob {
            priority: Some(3),
            metadata: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())],
            ..NewJob::new("mail", "send", "")
        };
        let job = read_job(br#"{"metadata":{"b":"3"},"queue":null}"#, &given).unwrap();
        let pairs: Vec<(&str, &str)> = job.metadata.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!((job.queue.as_str(), job.priority, pairs), ("mail", Some(3), vec![("a", "1"), ("b", "3")]));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_field_its_value_and_the_rule() {
        for (text, why) in [
            ("", "no JSON: EOF while parsing a value at column 0"),
            ("{", "no JSON: EOF while parsing an object at column 1"),
            ("[]", "no JSON object: invalid type: sequence"),
            ("7", "no JSON object"),
            ("{} x", "no JSON: trailing characters at column 4"),
            (r#"{"type":"t"}{"type":"t"}"#, "trailing characters"),
            ("{}", "it has no `type`"),
            (r#"{"type":"a:b"}"#, "must not contain `:`"),
            (r#"{"type":5}"#, "its `type` is `5`, must be a text in quotes"),
            (r#"{"type":"t","tpye":"x"}"#, "`tpye`, which is no field of a job; did you mean `type`?"),
            (r#"{"type":"t","max-attempts":1}"#, "did you mean `max_attempts`?"),
            (r#"{"type":"t","colour":1}"#, "known are queue, type, payload"),
            (r#"{"type":"t","type":"u"}"#, "it has `type` twice"),
            (r#"{"type":"t","payload":1,"payload_base64":"aGk="}"#, "both `payload` and `payload_base64`"),
            (r#"{"type":"t","delay":"1s","run_at":1}"#, "both `delay` and `run_at`"),
            (r#"{"type":"t","payload_base64":"a"}"#, "its `payload_base64` is refused: it is no base64"),
            (r#"{"type":"t","payload":"\ud800"}"#, "its `payload` is"),
            (r#"{"type":"t","delay":5}"#, "its `delay` is `5`, must be a text"),
            (r#"{"type":"t","delay":"soon"}"#, "its `delay` is refused: `soon` is not a duration"),
            (r#"{"type":"t","run_at":1.5}"#, "its `run_at` is refused: `1.5` is not a time"),
            (r#"{"type":"t","max_attempts":-1}"#, "its `max_attempts` is `-1`, must be a whole number"),
            (r#"{"type":"t","max_attempts":0}"#, "between 1 and"),
            (r#"{"type":"t","priority":10}"#, "the priority is 10"),
            (r#"{"type":"t","priority":256}"#, "its `priority` is `256`"),
            (r#"{"type":"t","metadata":{"a":1}}"#, "its `metadata` is `{\"a\":1}`, must be an object whose values"),
            (r#"{"type":"t","pin":"x"}"#, "64 hexadecimal digits"),
            (r#"{"type":"t","id":"a:b"}"#, "must not contain `:`"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        let long = format!(r#"{{"type":"t","queue":["{}"]}}"#, "\u{1b}[2J".repeat(1000));
        let said = read(&long).unwrap_err();
        assert!(said.len() < 300 && !said.contains('\u{1b}'), "{said}");
        let large = format!(r#"{{"type":"t","payload":"{}"}}"#, "x".repeat(PAYLOAD_BYTES_MAX + 1));
        assert!(read(&large).unwrap_err().contains("8388609 bytes"));
    }

    #[test]
    fn deep_nesting_is_a_payload_like_any_other() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(read(&format!(r#"{{"type":"t","payload":{deep}}}"#)).unwrap().payload, deep.as_bytes());
    }
}
