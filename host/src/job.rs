//! A job and the names that go with it: id, queue, type, state.
//!
//! Invariant: a name that wasmhost writes into a Redis key has passed [`check_name`]; nothing built from a
//! name can leave the prefix or meet another key. Ids that other programs wrote are kept byte for byte.
//!
//! Next: `submission` for a job in JSON, `outcome` for how an attempt ends, `store/keys.rs` for where a job lies in Redis.

pub mod submission;

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::jumpscript::Digest;
use crate::retry::RetryWish;

/// Longest queue, type or idempotency key in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Largest payload in bytes that is accepted at our edge, and run when another producer wrote it.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest result in bytes.
pub const RESULT_BYTES_MAX: usize = 1024 * 1024;
/// Longest id that is run, in bytes; a longer one found in a list is set aside and counted.
pub const ID_BYTES_MAX: usize = 1024;
/// Executions of a job when its producer names no number.
pub const MAX_ATTEMPTS: u32 = 5;
/// Most executions that can be asked for; a larger number from another producer is clamped to it.
pub const MAX_ATTEMPTS_MAX: u32 = 1000;
/// Wall time of one attempt when the producer names none.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wall time of one attempt; a longer one from another producer is clamped to it.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// A job cannot be scheduled for later than this much time from now.
pub const RUN_AT_YEARS_MAX: u64 = 100;
/// The highest priority, served first; 0 is the lowest, and comes before jobs without a priority.
pub const PRIORITY_MAX: u8 = 9;
/// The queue of a job that names none.
pub const QUEUE: &str = "default";

/// Which Redis a job belongs to; a host has one store per distinct server and database. 0 is the host's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub u16);

/// The id of a job: any bytes, because other producers choose theirs freely.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Box<[u8]>);

impl JobId {
    /// A new id: 16 URL-safe characters, ordered by time (48 bits of milliseconds, 48 bits of chance).
    #[must_use]
    #[expect(clippy::panic, reason = "without an entropy source nothing in this process is safe")]
    pub fn generate() -> Self {
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random).unwrap_or_else(|error| panic!("no entropy source: {error}"));
        let millis = Timestamp::now().millis().unsigned_abs() + ID_EPOCH_MS;
        let mut bits = (u128::from(millis & 0xffff_ffff_ffff)) << 48;
        for (n, byte) in random.iter().enumerate() {
            bits |= u128::from(*byte) << (8 * n);
        }
        let text: Vec<u8> = (0..16).rev().map(|n| ID_ALPHABET[((bits >> (6 * n)) & 63) as usize]).collect();
        Self(text.into_boxed_slice())
    }

    /// An id as found in Redis or given by a person.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The id byte for byte.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Added to the milliseconds of an id: until the year 2109 its first character is an `A` and never a `-`, which a
/// shell's tools would take for a flag.
const ID_EPOCH_MS: u64 = 11 << 42;

/// URL-safe characters in the order of their codes, so that ids sort as text the way they sort in time.
const ID_ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

impl From<&str> for JobId {
    fn from(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Display for JobId {
    /// The id as text; control and invalid bytes are escaped, so that it is safe on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&String::from_utf8_lossy(&self.0)))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// Text with control and bidirectional characters written as escapes (`\u{1b}`), for terminals and logs.
/// Line feeds and tabs are escaped too.
#[must_use]
pub fn visible(text: &str) -> String {
    if text.chars().all(|c| !is_hidden(c)) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// Text for a terminal that may run over several lines: as [`visible`], but line feeds stay.
#[must_use]
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// JSON for a terminal: characters that change what is shown are written as JSON's own escapes, so a program reads the
/// same. JSON has such characters in its strings only.
#[must_use]
pub fn visible_json(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        if is_hidden(c) && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
        out
    })
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Checks a queue, type or idempotency key at our edge: not empty, at most [`NAME_BYTES_MAX`] bytes, no `:`
/// (it separates the parts of a Redis key), no control characters.
///
/// # Errors
/// A sentence that names `what`, the name and the rule.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    let rule = if name.trim().is_empty() {
        "must not be empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        let shown: String = name.chars().take(40).collect();
        return Err(format!(
            "{what} `{}…` is {} bytes long, at most {NAME_BYTES_MAX} are allowed",
            visible(&shown),
            name.len()
        ));
    } else if name.contains(':') {
        "must not contain `:`".to_owned()
    } else if let Some(c) = name.chars().find(|c| is_hidden(*c)) {
        format!("must not contain the character {}", c.escape_default())
    } else {
        return Ok(());
    };
    Err(format!("{what} `{}` {rule}", visible(name)))
}

/// Where a job stands. The first five words are TaskHarbor's and are what the hash's `status` says.
///
/// ```text
/// scheduled -> ready -> inflight -> done
///     ^          ^         |-> ready, scheduled   (retry, release, reclaim)
///     |          |         |-> dlq
///     |          |         `-> cancelled
///     `----------`-- dlq   (requeue)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waits for its time in the `scheduled` set.
    Scheduled,
    /// Waits for a worker in the `ready` list.
    Ready,
    /// A worker holds its lease.
    Inflight,
    /// Ended well; its row lives until its time to live runs out.
    Done,
    /// Ended for good without success: the dead-letter queue.
    Dlq,
    /// Ended by a person before it was done.
    Cancelled,
}

impl JobState {
    /// Every state, in the order a job goes through them.
    pub const ALL: [Self; 6] = [Self::Scheduled, Self::Ready, Self::Inflight, Self::Done, Self::Dlq, Self::Cancelled];

    /// The word in the hash's `status` field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Inflight => "inflight",
            Self::Done => "done",
            Self::Dlq => "dlq",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a `status` field, if it is a word that is known.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the job has ended.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Dlq | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a producer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// The id; a fresh one is made when none is given.
    pub id: Option<JobId>,
    /// The lane it waits in.
    pub queue: String,
    /// Which jumpscript runs it: `organization/name`, or a bare word.
    pub job_type: String,
    /// What the jumpscript is given, byte for byte.
    pub payload: Vec<u8>,
    /// What the payload is, for example `application/json`; empty says nothing.
    pub content_type: String,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// Wall time of one attempt; [`TIMEOUT`] when none is given.
    pub timeout: Option<Duration>,
    /// Executions in all; the manifest's when none is given, else [`MAX_ATTEMPTS`].
    pub max_attempts: Option<u32>,
    /// Delay before the second execution, before jitter; the manifest's when none is given, else the host's.
    pub retry_base: Option<Duration>,
    /// Longest delay between two executions; the manifest's when none is given, else the host's.
    pub retry_cap: Option<Duration>,
    /// Two jobs of a queue with the same key are one: the second call answers the first one's id.
    pub idempotency_key: Option<String>,
    /// The code to run, whatever is published meanwhile.
    pub pin: Option<Digest>,
    /// Free name and value pairs that travel with the job.
    pub metadata: Vec<(String, String)>,
    /// 0 to [`PRIORITY_MAX`]: served before all jobs without one, the highest first.
    pub priority: Option<u8>,
    /// Whose limits it counts against: a queue's limits by key hold for all jobs of the same key together.
    pub limit_key: Option<String>,
    /// A job cancels the jobs of its queue with the same key that still wait.
    pub supersede_key: Option<String>,
}

impl NewJob {
    /// A job with nothing but the necessary.
    #[must_use]
    pub fn new(queue: impl Into<String>, job_type: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            id: None,
            queue: queue.into(),
            job_type: job_type.into(),
            payload: payload.into(),
            content_type: String::new(),
            run_at: None,
            timeout: None,
            max_attempts: None,
            retry_base: None,
            retry_cap: None,
            idempotency_key: None,
            pin: None,
            metadata: Vec::new(),
            priority: None,
            limit_key: None,
            supersede_key: None,
        }
    }

    /// What it says about its retries.
    #[must_use]
    pub const fn retry(&self) -> RetryWish {
        RetryWish { base: self.retry_base, cap: self.retry_cap, max_attempts: self.max_attempts }
    }

    /// Checks everything that can be checked without Redis.
    ///
    /// # Errors
    /// A sentence that names the field, its value and the limit.
    pub fn check(&self) -> Result<(), String> {
        check_name("queue", &self.queue)?;
        check_name("type", &self.job_type)?;
        for (what, key) in [
            ("idempotency key", &self.idempotency_key),
            ("limit key", &self.limit_key),
            ("supersede key", &self.supersede_key),
        ] {
            if let Some(key) = key {
                check_name(what, key)?;
            }
        }
        if let Some(priority) = self.priority.filter(|priority| *priority > PRIORITY_MAX) {
            return Err(format!("the priority is {priority}, must be between 0 and {PRIORITY_MAX}"));
        }
        if let Some(id) = &self.id {
            let text = std::str::from_utf8(id.as_bytes()).map_err(|_| format!("id `{id}` is not UTF-8"))?;
            check_name("id", text)?;
        }
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "the payload has {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; store it elsewhere and pass its address",
                self.payload.len()
            ));
        }
        if self.run_at.is_some_and(|at| at.nanos() <= 0) {
            return Err("the run time lies before 1970".to_owned());
        }
        let latest = Timestamp::now().after(Duration::from_secs(RUN_AT_YEARS_MAX * 366 * 86_400));
        if self.run_at.is_some_and(|at| at > latest) {
            return Err(format!("the run time lies more than {RUN_AT_YEARS_MAX} years ahead"));
        }
        self.retry().check(|field| match field {
            "max_attempts" => "max attempts".to_owned(),
            field => format!("the retry {field}"),
        })?;
        if let Some(timeout) = self.timeout
            && (timeout.is_zero() || timeout > TIMEOUT_MAX)
        {
            return Err(format!("the timeout is {timeout:?}, must be more than 0 and at most 24h"));
        }
        Ok(())
    }
}

/// A job that this process holds a lease on: all that is needed to run it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserved {
    /// Which Redis it came from.
    pub store: StoreId,
    /// Its id.
    pub id: JobId,
    /// The queue whose lists it is in.
    pub queue: String,
    /// Its type, as the producer wrote it.
    pub job_type: String,
    /// The input.
    pub payload: Vec<u8>,
    /// What the payload is; empty when the producer said nothing.
    pub content_type: String,
    /// The proof of the lease; every write carries it.
    pub token: String,
    /// Failed executions so far; this one is number `attempts + 1`.
    pub attempts: u32,
    /// What the producer said about retries.
    pub retry: RetryWish,
    /// Hand-outs so far, this one included; counts even when the worker dies.
    pub deliveries: u32,
    /// Wall time of this attempt, when the producer named one.
    pub timeout: Option<Duration>,
    /// When the producer made it; `None` when it did not say.
    pub created_at: Option<Timestamp>,
    /// The code that was live when the job was handed out, or the pinned one; `None` when nothing serves the type.
    pub digest: Option<Digest>,
    /// Free name and value pairs.
    pub metadata: Vec<(String, String)>,
}

impl Reserved {
    /// The number of this execution, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempts.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_url_safe_unique_and_ordered_by_time() {
        let first = JobId::generate();
        assert_eq!(first.as_bytes().len(), 16);
        assert!(first.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)));
        assert_eq!(first.as_bytes()[0], b'A', "an id must not look like a flag");
        assert_ne!(first, JobId::generate());
        assert!(ID_ALPHABET.is_sorted(), "the alphabet's order is what makes ids sort by time");
    }

    #[test]
    fn a_name_that_could_meet_another_key_is_refused_with_the_rule() {
        assert_eq!(check_name("queue", "mail"), Ok(()));
        assert_eq!(check_name("queue", "default:ready").unwrap_err(), "queue `default:ready` must not contain `:`");
        assert!(check_name("queue", " ").unwrap_err().contains("must not be empty"));
        assert!(check_name("queue", "a\nb").unwrap_err().contains("\\n"));
        assert!(check_name("queue", &"x".repeat(201)).unwrap_err().contains("201 bytes"));
    }

    #[test]
    fn control_and_bidi_characters_become_visible() {
        assert_eq!(visible("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(JobId::from_bytes(b"x\0y").to_string(), "x\\u{0}y");
    }
}
