//! Jobs and queues as JSON: one form for the command line and for HTTP.
//!
//! Invariant: what a job says is text in JSON, never a part of its structure, and a lease's token is never shown.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::{Timestamp, format_duration};
use crate::job::{JobId, visible};
use crate::store::{JobRecord, Page, QueueInfo, QueueSettings};

/// The id of a job in a page; empty when it has none.
#[must_use]
pub fn id_of(job: &JobRecord) -> JobId {
    job.id.clone().unwrap_or_else(|| JobId::from(""))
}

/// Fields with a form of their own, shown after the others.
pub const BODIES: [&str; 5] = ["payload", "metadata", "result", "last_error", "log"];
/// Fields that are proofs, not facts for people.
const HIDDEN: [&str; 2] = ["lease_token", "done_token"];
/// The order in which a person reads; what is not named comes after, by name.
const ORDER: [&str; 12] = [
    "status",
    "queue",
    "type",
    "digest",
    "pin",
    "attempts",
    "max_attempts",
    "deliveries",
    "node",
    "created_at_nano",
    "run_at_nano",
    "finished_at_nano",
];

/// The plain fields of a job in reading order, each as name and text; times under their name without `_nano`.
#[must_use]
pub fn facts(record: &JobRecord) -> Vec<(String, String)> {
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    let is_plain = |name: &str| !BODIES.contains(&name) && !HIDDEN.contains(&name);
    let mut fields: Vec<&(String, Vec<u8>)> = record.fields.iter().filter(|(name, _)| is_plain(name)).collect();
    fields.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
    let fact = |(name, value): &(String, Vec<u8>)| {
        if value.is_empty() {
            return None;
        }
        let Some(stem) = name.strip_suffix("_nano") else {
            return Some((visible(name), visible(&String::from_utf8_lossy(value))));
        };
        // A zero is TaskHarbor's way to say that there is no such time.
        let nanos = record.number(name).filter(|nanos| *nanos != 0)?;
        let text = match stem {
            "timeout" => format_duration(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))),
            _ => Timestamp::from_nanos(nanos).to_string(),
        };
        Some((stem.to_owned(), text))
    };
    let mut facts: Vec<(String, String)> = fields.into_iter().filter_map(fact).collect();
    // One field in the row, three facts for a reader.
    if let Some(at) = facts.iter().position(|(name, _)| name == "usage") {
        let (_, usage) = facts.remove(at);
        let parts = USAGE.into_iter().zip(usage.split(' ')).map(|(name, value)| (name.to_owned(), value.to_owned()));
        facts.splice(at..at, parts.collect::<Vec<_>>());
    }
    facts
}

/// Parts of the field `usage`, in its order.
const USAGE: [&str; 3] = ["wall_us", "cpu_us", "memory_bytes_peak"];
/// Facts that count something.
const COUNTS: [&str; 6] = ["attempts", "max_attempts", "deliveries", USAGE[0], USAGE[1], USAGE[2]];

/// A job as JSON: the hash's fields, counts as numbers, times as RFC 3339 text under their name without `_nano`.
#[must_use]
pub fn job(id: &JobId, record: &JobRecord, with_bodies: bool) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), id.to_string().into());
    for (name, text) in facts(record) {
        let count = text.parse::<i64>().ok().filter(|_| COUNTS.contains(&name.as_str()));
        map.insert(name, count.map_or_else(|| text.into(), Value::from));
    }
    for name in BODIES.into_iter().filter(|name| with_bodies || *name == "last_error") {
        if let Some(value) = record.field(name) {
            let shaped = match name {
                "payload" | "result" => json_or_text(value),
                "metadata" => json_or_text(String::from_utf8_lossy(value).as_bytes()),
                _ => String::from_utf8_lossy(value).into_owned().into(),
            };
            map.insert(name.to_owned(), shaped);
        }
    }
    Value::Object(map)
}

/// A page as JSON. One that is not full and has a next one ended because it had looked at so many jobs.
#[must_use]
pub fn page(found: &Page, limit: u32) -> Value {
    let jobs: Vec<Value> = found.jobs.iter().map(|job| self::job(&id_of(job), job, false)).collect();
    json!({
        "jobs": jobs,
        "looked_at": found.looked,
        "is_full": found.jobs.len() >= limit as usize,
        "next_cursor": found.next,
    })
}

/// A queue in numbers, as JSON.
#[must_use]
pub fn queue(info: &QueueInfo) -> Value {
    let totals: serde_json::Map<String, Value> = info
        .counters
        .iter()
        .filter(|(name, _)| name != "parked")
        .map(|(name, n)| (name.clone(), (*n).into()))
        .collect();
    json!({
        "name": info.name,
        "ready": info.ready,
        "parked": info.parked(),
        "scheduled": info.scheduled,
        "inflight": info.inflight,
        "dlq": info.dlq,
        "done": info.done,
        "cancelled": info.cancelled,
        "totals": totals,
        "settings": settings(&info.settings),
    })
}

/// What is set for a queue, as JSON.
#[must_use]
pub fn settings(settings: &QueueSettings) -> Value {
    json!({
        "paused_since": settings.paused_since.map(|time| time.to_string()),
        "concurrency": settings.concurrency,
        "key_concurrency": settings.key_concurrency,
        "key_rate": settings.key_rate.map(|(n, period)| format!("{n}/{}", format_duration(period))),
        "key_order": if settings.is_key_order_strict { "strict" } else { "any" },
        "capacity": settings.capacity,
        "on_full": settings.on_full.as_str(),
    })
}

/// A result as JSON when it is JSON, else as text with what is not UTF-8 replaced.
#[must_use]
pub fn json_or_text(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}
