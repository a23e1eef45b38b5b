//! The Lua scripts, joined from their files, and the builder of a call.
//!
//! Invariant: every script starts with `lua/head.lua`, and gets its keys and queues in that order.

use std::sync::LazyLock;

use redis::{Cmd, ToRedisArgs, Value};

use super::keys::{Keys, PARTS};
use super::link::Script;
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::job::NewJob;

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(super) static $name: Script =
            LazyLock::new(|| redis::Script::new(concat!(
                include_str!("lua/head.lua"),
                // In a function of its own: what functions in there use of the head is then found at once. From the
                // level of the head itself, Lua would look through the head's names for each use in each function.
                "return (function()\n",
                $(include_str!(concat!("lua/", $file)),)+
                "end)()\n"
            )));
    };
}

script!(ENQUEUE, "limits.lua", "withdraw.lua", "write_job.lua", "answer.lua", "enqueue.lua");
script!(
    TURN,
    "dead.lua",
    "limits.lua",
    "withdraw.lua",
    "write_job.lua",
    "effects.lua",
    "answer.lua",
    "fence.lua",
    "settle.lua",
    "due.lua",
    "checked.lua",
    "direct.lua",
    "reserve.lua",
    "turn.lua"
);
script!(EXTEND, "fence.lua", "extend.lua");
script!(PROGRESS, "fence.lua", "progress.lua");
script!(BUCKET_KEYS, "bucket_keys.lua");
script!(SWEEP, "dead.lua", "limits.lua", "answer.lua", "due.lua", "watch.lua", "sweep.lua");
script!(RING, "ring.lua");
script!(PUBLISH, "routes.lua", "past.lua", "audit.lua", "publish.lua");
script!(GRANT, "routes.lua", "audit.lua", "grant.lua");
script!(ADOPT, "routes.lua", "past.lua", "audit.lua", "adopt.lua");
script!(UNPUBLISH, "routes.lua", "past.lua", "audit.lua", "unpublish.lua");
script!(RECORDS, "records.lua");
script!(DROP_UNUSED, "routes.lua", "past.lua", "drop_unused.lua");
script!(REQUEUE, "answer.lua", "of_dead.lua", "audit.lua", "requeue.lua");
script!(CANCEL, "limits.lua", "withdraw.lua", "answer.lua", "audit.lua", "cancel.lua");
script!(SET_QUEUE, "audit.lua", "set_queue.lua");
script!(LIST, "limits.lua", "list.lua");
script!(QUEUES, "queues.lua");
script!(ROWS, "marks.lua", "rows.lua");
script!(LOOK_AT_ENTRIES, "limits.lua", "entries.lua", "look_at_entries.lua");
script!(DEAD_ROWS, "dead_rows.lua");
script!(
    REPAIR,
    "dead.lua",
    "limits.lua",
    "answer.lua",
    "due.lua",
    "marks.lua",
    "entries.lua",
    "lost.lua",
    "audit.lua",
    "repair.lua"
);
script!(DROP, "of_dead.lua", "forget.lua", "audit.lua", "drop.lua");
script!(IMPORT_DEAD, "audit.lua", "import_dead.lua");
script!(PURGE, "dead.lua", "limits.lua", "answer.lua", "forget.lua", "audit.lua", "purge.lua");
script!(LOOK, "foreign.lua", "look.lua");
script!(
    TAKE_OVER,
    "dead.lua",
    "limits.lua",
    "withdraw.lua",
    "write_job.lua",
    "answer.lua",
    "foreign.lua",
    "take_over.lua"
);
script!(WATCH_LISTS, "watch.lua", "watch_lists.lua");

/// What producers of any language load: the hosts' own enqueue behind a small, lasting contract (docs/producers.md).
/// `examples/producers/enqueue.lua` is this text.
pub const PRODUCER_SCRIPT: &str = concat!(
    include_str!("lua/producer.lua"),
    include_str!("lua/head.lua"),
    "local enqueued = (function()\n",
    include_str!("lua/limits.lua"),
    include_str!("lua/withdraw.lua"),
    include_str!("lua/write_job.lua"),
    include_str!("lua/answer.lua"),
    include_str!("lua/enqueue.lua"),
    "end)()\n",
    include_str!("lua/producer_end.lua"),
);

/// The queues of one call, each once; scripts name them by their place, from 1.
#[derive(Default)]
pub(super) struct Lanes<'a>(Vec<&'a str>);

impl<'a> Lanes<'a> {
    /// The place of a queue, which is added when it is new. Calls have few queues: a scan is the fastest search.
    pub(super) fn place(&mut self, queue: &'a str) -> usize {
        match self.0.iter().position(|known| *known == queue) {
            Some(n) => n + 1,
            None => {
                self.0.push(queue);
                self.0.len()
            }
        }
    }

    /// The place of a queue; 0 when it has none.
    pub(super) fn known(&self, queue: &str) -> usize {
        self.0.iter().position(|known| *known == queue).map_or(0, |n| n + 1)
    }

    /// The name at a place that a script answered.
    pub(super) fn name(&self, place: usize) -> String {
        self.0.get(place.wrapping_sub(1)).map(|&name| name.to_owned()).unwrap_or_default()
    }
}

/// A script call in the making.
pub(super) struct Call {
    command: Cmd,
}

impl Call {
    /// The head: keys and queues. `more` are keys behind the queues' (scripts that take any have no queues).
    pub(super) fn new(script: &Script, keys: &Keys, at: Option<Timestamp>, lanes: &Lanes<'_>, more: &[String]) -> Self {
        let jumpscripts = [keys.route(), keys.rev(), keys.keep(), keys.scripts_by_name()];
        Self::with_head(script, keys, jumpscripts, at, lanes, more)
    }

    /// A call for one key of any bytes, which has no queues and touches no jumpscripts.
    pub(super) fn of_key(script: &Script, keys: &Keys, at: Option<Timestamp>, key: Vec<u8>) -> Self {
        let jumpscripts = std::array::from_fn(|_| keys.prefix().to_owned());
        Self::with_head(script, keys, jumpscripts, at, &Lanes::default(), &[key])
    }

    fn with_head(
        script: &Script,
        keys: &Keys,
        jumpscripts: [String; 4],
        at: Option<Timestamp>,
        lanes: &Lanes<'_>,
        more: &[impl ToRedisArgs],
    ) -> Self {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(7 + lanes.0.len() * PARTS.len() + more.len());
        command.arg(keys.prefix()).arg(keys.wake()).arg(keys.queues()).arg(&jumpscripts);
        for queue in &lanes.0 {
            for key in keys.queue(queue) {
                command.arg(key);
            }
        }
        for key in more {
            command.arg(key);
        }
        match at {
            None => command.arg("").arg(""),
            Some(at) => command.arg(at.seconds()).arg(format!("{:09}", at.nanos_in_second())),
        };
        command.arg(lanes.0.len());
        for queue in &lanes.0 {
            command.arg(*queue);
        }
        Self { command }
    }

    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// A job as `lua/write_job.lua` reads it.
    pub(super) fn job(&mut self, place: usize, id: &[u8], job: &NewJob) -> &mut Self {
        let mut further: Vec<(&str, String)> = Vec::new();
        let mut add = |name, value: String| {
            if !value.is_empty() {
                further.push((name, value));
            }
        };
        add("content_type", job.content_type.clone());
        add("idempotency_key", job.idempotency_key.as_deref().unwrap_or("").trim().to_owned());
        if let Some(at) = job.run_at {
            add("run_at_nano", at.nanos().to_string());
        }
        if let Some(timeout) = job.timeout {
            add("timeout_nano", u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).to_string());
        }
        if let Some(n) = job.max_attempts {
            add("max_attempts", n.to_string());
        }
        for (name, delay) in [("retry_base_ms", job.retry_base), ("retry_cap_ms", job.retry_cap)] {
            if let Some(delay) = delay {
                add(name, delay.as_millis().to_string());
            }
        }
        if let Some(digest) = &job.pin {
            add("pin", digest.to_string());
        }
        if let Some(priority) = job.priority {
            add("priority", priority.to_string());
        }
        add("limit_key", job.limit_key.clone().unwrap_or_default());
        add("supersede_key", job.supersede_key.clone().unwrap_or_default());
        if !job.metadata.is_empty() {
            add("metadata", metadata_text(&job.metadata));
        }
        self.arg(place).arg(id).arg(&job.job_type).arg(&job.payload).arg(further.len());
        for (name, value) in further {
            self.arg(name).arg(value);
        }
        self
    }

    pub(super) fn command(&self) -> &Cmd {
        &self.command
    }

    pub(super) fn into_command(self) -> Cmd {
        self.command
    }
}

impl Store {
    /// The head of a call of this store.
    pub(super) fn call(&self, script: &Script, lanes: &Lanes<'_>, more: &[String]) -> Call {
        Call::new(script, &self.keys, self.at, lanes, more)
    }

    /// The head of a call that touches no jumpscripts, and so needs no permission for their keys.
    pub(super) fn call_without_jumpscripts(&self, script: &Script, lanes: &Lanes<'_>) -> Call {
        let jumpscripts = std::array::from_fn(|_| self.keys.prefix().to_owned());
        Call::with_head(script, &self.keys, jumpscripts, self.at, lanes, &[] as &[String])
    }

    /// Sends a call whose repetition does no harm: when the connection breaks, once more on a new one.
    pub(super) async fn send(&self, what: &'static str, script: &Script, call: &Call) -> Result<Reply, Error> {
        let answer = match self.link.script(what, script, call.command()).await {
            Err(Error::Unreachable { .. }) => self.link.script(what, script, call.command()).await,
            other => other,
        };
        answer.map(|value| Reply::new(value, self.address(), what))
    }
}

/// Name and value pairs as the JSON object in a job's `metadata` field.
fn metadata_text(metadata: &[(String, String)]) -> String {
    let object: serde_json::Map<String, serde_json::Value> =
        metadata.iter().map(|(name, value)| (name.clone(), serde_json::Value::String(value.clone()))).collect();
    serde_json::Value::Object(object).to_string()
}

/// The pairs of a `metadata` field. What is no JSON object is no metadata; values that are not text are shown as JSON,
/// and bytes that are no UTF-8 as replacement characters: other systems' texts are stored as they are.
pub(super) fn metadata_pairs(text: &[u8]) -> Vec<(String, String)> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(text);
    let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) else {
        return Vec::new();
    };
    let shown = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    object.into_iter().map(|(name, value)| (name, shown(value))).collect()
}

/// An answer, read from front to back. A script of ours answers what it says it does; anything else is a server that
/// is not what it seems, and an error.
pub(super) struct Reply {
    values: std::vec::IntoIter<Value>,
    address: String,
    what: &'static str,
}

impl Reply {
    pub(super) fn new(value: Value, address: &str, what: &'static str) -> Self {
        let values = match value {
            Value::Array(values) => values,
            Value::Nil => Vec::new(),
            other => vec![other],
        };
        Self { values: values.into_iter(), address: address.to_owned(), what }
    }

    pub(super) fn odd(&self, found: &str) -> Error {
        let reason = format!("the answer has {found} where something else belongs");
        Error::Server { address: self.address.clone(), what: self.what, reason }
    }

    pub(super) fn next(&mut self) -> Result<Value, Error> {
        match self.values.next() {
            Some(Value::ServerError(error)) => Err(self.odd(&format!("the error {error}"))),
            Some(value) => Ok(value),
            None => Err(self.odd("no entry")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// A nested answer; nothing for nil.
    pub(super) fn nested(&mut self) -> Result<Self, Error> {
        Ok(Self::new(self.next()?, &self.address, self.what))
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Int(number) => Ok(number.to_string().into_bytes()),
            other => Err(self.odd(&format!("{other:?}"))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Error> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn number(&mut self) -> Result<i64, Error> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            Value::BulkString(bytes) => {
                let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
                number.ok_or_else(|| self.odd(&format!("`{}`", String::from_utf8_lossy(&bytes))))
            }
            other => Err(self.odd(&format!("{other:?}"))),
        }
    }

    /// A count; negative numbers do not occur.
    pub(super) fn count(&mut self) -> Result<u32, Error> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| self.odd(&number.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use crate::{job, retry, store};

    /// The value of `local NAME = ...` in the head of the scripts.
    fn constant(name: &str) -> u64 {
        let head = concat!(include_str!("lua/head.lua"), include_str!("lua/producer.lua"));
        let line = head.lines().find_map(|line| line.strip_prefix("local ")?.strip_prefix(name)?.strip_prefix(" = "));
        let value = line.unwrap_or_else(|| panic!("lua/head.lua has no {name}"));
        value.trim_matches('\'').parse().unwrap()
    }

    #[test]
    fn the_scripts_know_the_same_limits() {
        for (name, value) in [
            ("DLQ_MAX", u64::from(store::DLQ_MAX)),
            ("DLQ_DAYS", u64::from(store::DLQ_DAYS)),
            ("DONE_MAX", u64::from(store::DONE_MAX)),
            ("ASIDE_MAX", u64::from(store::ASIDE_MAX)),
            ("CANCELLED_MAX", u64::from(store::CANCELLED_MAX)),
            ("CANCELLED_HOURS", u64::from(store::CANCELLED_HOURS)),
            ("ID_MAX", job::ID_BYTES_MAX as u64),
            ("NAME_MAX", job::NAME_BYTES_MAX as u64),
            ("PAYLOAD_MAX", job::PAYLOAD_BYTES_MAX as u64),
            ("ATTEMPTS_MAX", u64::from(job::MAX_ATTEMPTS_MAX)),
            ("ATTEMPTS_DEFAULT", u64::from(job::MAX_ATTEMPTS)),
            ("DELIVERIES_MIN", u64::from(store::DELIVERIES_MIN)),
            ("IDEMPOTENCY_DAYS", u64::from(store::IDEMPOTENCY_DAYS)),
            ("SCAN_MAX", u64::from(store::SCAN_MAX)),
            ("LAYOUT", u64::from(store::server::LAYOUT)),
            ("JOBS_MAX", store::ENQUEUE_MAX as u64),
            ("NAME_BYTES_MAX", job::NAME_BYTES_MAX as u64),
            ("PAYLOAD_BYTES_MAX", job::PAYLOAD_BYTES_MAX as u64),
            ("TIMEOUT_MAX_MS", millis(job::TIMEOUT_MAX)),
            ("RETRY_BASE_MAX_MS", millis(retry::BASE_MAX)),
            ("RETRY_CAP_MAX_MS", millis(retry::CAP_MAX)),
            ("RUN_AT_MAX_S", job::RUN_AT_YEARS_MAX * 366 * 86_400),
        ] {
            assert_eq!(constant(name), value, "{name}");
        }
    }

    fn millis(duration: std::time::Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap()
    }

    #[test]
    fn the_script_that_producers_copy_is_the_hosts_own() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/producers/enqueue.lua");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, super::PRODUCER_SCRIPT).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == super::PRODUCER_SCRIPT, "enqueue.lua is not up to date; run with UPDATE_DOCS=1");
    }

    /// A number as the documents write it.
    fn grouped(number: u32) -> String {
        if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
    }

    #[test]
    fn the_guarantees_name_the_limits_that_hold() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guarantees.md");
        let text = std::fs::read_to_string(path).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let settled = u32::try_from(store::SETTLE_MAX).unwrap();
        for phrase in [
            format!("(at least {} times)", grouped(store::DELIVERIES_MIN)),
            format!("at most at {} entries of one structure", grouped(store::SCAN_MAX)),
            format!("hands out at most {} jobs and settles at most {}", store::RESERVE_MAX, grouped(settled)),
            format!("| {} h (`limits.done_ttl`)", crate::config::DONE_TTL.as_secs() / 3600),
            format!("names the last {}", grouped(store::DONE_MAX)),
            format!("| a dead job | {} days, at most {} per queue", store::DLQ_DAYS, grouped(store::DLQ_MAX)),
            format!("| an idempotency key | {} days", store::IDEMPOTENCY_DAYS),
            format!("set aside | {} days, at most {} per queue", store::DLQ_DAYS, grouped(store::ASIDE_MAX)),
        ] {
            assert!(text.contains(&phrase), "docs/guarantees.md does not say: {phrase}");
        }
    }

    #[test]
    fn metadata_of_any_shape_is_read_or_passed_over() {
        assert_eq!(
            super::metadata_pairs(b"{\"a\":\"b\",\"n\":1}"),
            [("a".to_owned(), "b".to_owned()), ("n".to_owned(), "1".to_owned())]
        );
        assert_eq!(super::metadata_pairs(b"{\"a\":\"\xff\"}"), [("a".to_owned(), "\u{fffd}".to_owned())]);
        for odd in [&b""[..], b"[]", b"{", b"\xff"] {
            assert_eq!(super::metadata_pairs(odd), []);
        }
        // Deep JSON must not overflow the stack.
        assert_eq!(super::metadata_pairs("[".repeat(100_000).as_bytes()), []);
    }
}
