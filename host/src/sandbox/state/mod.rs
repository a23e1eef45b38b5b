//! What one attempt reads and would write: state in buckets, and jobs it enqueues. One attempt is one transaction.
//!
//! Invariant: nothing is written while the attempt runs. Reads go out once and are remembered; writes and jobs wait for
//! the end of the attempt and leave as [`Effects`], within their limits, with everything that was read. A limit is told to
//! the guest in the call that would break it.
//!
//! Next: `state/calls.rs` for the guest's calls, `store/lua/effects.lua` for how it commits.

mod calls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::output::Log;
use super::run::Call;
use crate::effects::{
    Bucket, EFFECT_BYTES_MAX, EFFECTS_MAX, Effect, Effects, OWN_BUCKET_TTL, Reads, STATE_KEY_BYTES_MAX,
    STATE_READ_BYTES_MAX, STATE_READS_MAX, STATE_VALUE_BYTES_MAX,
};
use crate::job::{JobId, NewJob, visible};
use crate::jumpscript::{Manifest, OWN_ORGANIZATION};
use crate::permissions::Granted;
use crate::ports::{Level, NoState, State};

#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub use calls::OpenBucket;

/// The other name of the job's own bucket, whose first one is empty.
const OWN: &str = "job";

/// Why a call was not done.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// Not permitted; the job's log says what is missing.
    Denied,
    /// Anything else, for the author.
    Other(String),
    /// What was read is no longer so: the attempt ends.
    Moved,
}

/// The state that an attempt has read has changed: it can only be run again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the state it read was changed by another job")]
pub(super) struct StateMoved;

/// What the manifest of a script says of the buckets that it shares with others.
pub(super) struct Shared {
    /// Whose buckets they are.
    pub(super) organization: String,
    /// How long some of them live after a write of this script, by name.
    pub(super) lives: BTreeMap<String, Duration>,
}

impl Shared {
    /// As a manifest says.
    pub(super) fn of(manifest: &Manifest) -> Arc<Self> {
        let organization = manifest.organization.as_deref().unwrap_or(OWN_ORGANIZATION).to_owned();
        Arc::new(Self { organization, lives: manifest.bucket_lives() })
    }
}

/// What one attempt reads and would write.
pub(super) struct Transaction {
    state: Arc<dyn State>,
    granted: Arc<Granted>,
    shared: Arc<Shared>,
    job: JobId,
    log: Log,
    buckets: Vec<Contents>,
    jobs: Vec<Effect>,
    n_reads: usize,
    read_bytes: usize,
    n_writes: usize,
    written_bytes: usize,
    /// Whether the guest was told that it should come to its end.
    pub(super) is_told_to_end: bool,
}

/// What is known of a bucket.
struct Contents {
    bucket: Bucket,
    /// How long it lives after a write.
    ttl: Option<Duration>,
    /// As the guest calls it.
    name: String,
    may_write: bool,
    /// Keys and the values they had.
    read: BTreeMap<String, Option<Vec<u8>>>,
    /// Keys and the values they will have.
    written: BTreeMap<String, Option<Vec<u8>>>,
    /// What its set of keys was, once it has been listed.
    listed: Option<Option<Vec<u8>>>,
}

impl Transaction {
    /// Of an attempt that has read nothing.
    pub(super) fn new(call: &Call, granted: Arc<Granted>, shared: Arc<Shared>, log: &Log) -> Self {
        Self {
            state: call.state.clone().unwrap_or_else(|| Arc::new(NoState)),
            granted,
            shared,
            job: JobId::from(call.id.as_str()),
            log: log.clone(),
            buckets: Vec::new(),
            jobs: Vec::new(),
            n_reads: 0,
            read_bytes: 0,
            n_writes: 0,
            written_bytes: 0,
            is_told_to_end: false,
        }
    }

    /// What it has read and would write.
    ///
    /// # Errors
    /// A sentence when it is over a limit; the calls see to it that it is not.
    pub(super) fn finish(self) -> Result<Effects, String> {
        let mut effects = Effects::none();
        for Contents { bucket, ttl, read, written, listed, .. } in self.buckets {
            let listed = listed.map(|version| (String::new(), version));
            let values: Vec<_> = listed.into_iter().chain(read).collect();
            if !values.is_empty() {
                effects.rest_on(Reads { bucket: bucket.clone(), values });
            }
            if !written.is_empty() {
                effects.push(Effect::State { bucket, ttl, values: written.into_iter().collect() })?;
            }
        }
        for job in self.jobs {
            effects.push(job)?;
        }
        Ok(effects)
    }

    /// Opens a bucket: its number.
    fn open(&mut self, name: &str) -> Result<usize, Stop> {
        let name = if name == OWN { "" } else { name };
        if let Some(n) = self.buckets.iter().position(|known| known.name == name) {
            return Ok(n);
        }
        if !self.granted.may_read_state(name) {
            return Err(self.denied(name, "the jumpscript does not request it", name));
        }
        let (bucket, ttl) = if name.is_empty() {
            (Bucket::Own(self.job.clone()), Some(OWN_BUCKET_TTL))
        } else {
            let organization = self.shared.organization.clone();
            (Bucket::Named { organization, name: name.to_owned() }, self.shared.lives.get(name).copied())
        };
        self.buckets.push(Contents {
            bucket,
            ttl,
            name: name.to_owned(),
            may_write: self.granted.may_write_state(name),
            read: BTreeMap::new(),
            written: BTreeMap::new(),
            listed: None,
        });
        Ok(self.buckets.len() - 1)
    }

    fn denied(&self, name: &str, why: &str, entry: &str) -> Stop {
        self.log.line(
            Level::Warn,
            "state",
            &format!(
                "bucket `{}` denied: {why}; add \"{}\" to `state` under [permissions] in its jumpscript.toml",
                visible(name),
                visible(entry)
            ),
        );
        Stop::Denied
    }

    /// The values of some keys of a bucket, in their order.
    async fn get(&mut self, n: usize, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Stop> {
        let contents = &self.buckets[n];
        let mut unknown = Vec::new();
        for key in keys {
            check_key(key)?;
            if !contents.written.contains_key(key) && !contents.read.contains_key(key) {
                unknown.push(key.clone());
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            if self.n_reads + unknown.len() > STATE_READS_MAX {
                let text = format!("one attempt reads at most {STATE_READS_MAX} keys of buckets, this is one more");
                return Err(Stop::Other(text));
            }
            let values = self.state.values(contents.bucket.clone(), unknown.clone()).await.map_err(Stop::Other)?;
            let bytes = unknown.iter().map(String::len).chain(values.iter().flatten().map(Vec::len)).sum::<usize>();
            if self.read_bytes + bytes > STATE_READ_BYTES_MAX {
                return Err(Stop::Other(format!(
                    "one attempt reads at most {STATE_READ_BYTES_MAX} bytes of buckets, these would be {}",
                    self.read_bytes + bytes
                )));
            }
            self.n_reads += unknown.len();
            self.read_bytes += bytes;
            self.buckets[n].read.extend(unknown.into_iter().zip(values));
        }
        let contents = &self.buckets[n];
        let value = |key: &String| contents.written.get(key).or_else(|| contents.read.get(key));
        Ok(keys.iter().map(|key| value(key).cloned().flatten()).collect())
    }

    /// Sets and removes values: all of them, or none.
    fn put(&mut self, n: usize, changes: impl IntoIterator<Item = (String, Option<Vec<u8>>)>) -> Result<(), Stop> {
        let contents = &self.buckets[n];
        if !contents.may_write {
            return Err(self.denied(&contents.name, "it may only be read", &contents.name));
        }
        let changes: BTreeMap<_, _> = changes.into_iter().collect();
        let (mut n_writes, mut bytes) = (self.n_writes, self.written_bytes);
        let size = |key: &str, value: &Option<Vec<u8>>| key.len() + value.as_ref().map_or(0, Vec::len);
        for (key, value) in &changes {
            check_key(key)?;
            let length = value.as_ref().map_or(0, Vec::len);
            if length > STATE_VALUE_BYTES_MAX {
                return Err(Stop::Other(format!(
                    "the value of key `{}` has {length} bytes, at most {STATE_VALUE_BYTES_MAX} are allowed; \
                     spread it over several keys",
                    visible(key)
                )));
            }
            bytes += size(key, value);
            match contents.written.get(key) {
                Some(before) => bytes -= size(key, before),
                None => n_writes += 1,
            }
        }
        room(n_writes, bytes).map_err(Stop::Other)?;
        (self.n_writes, self.written_bytes) = (n_writes, bytes);
        self.buckets[n].written.extend(changes);
        Ok(())
    }

    /// Adds to a number.
    async fn increment(&mut self, n: usize, key: String, delta: u64) -> Result<u64, Stop> {
        let value = self.get(n, std::slice::from_ref(&key)).await?.pop().flatten();
        let shown = || visible(&key);
        let number = match &value {
            None => 0,
            Some(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Stop::Other(format!("the value of key `{}` is not a number between 0 and 2^64 - 1", shown()))
            })?,
        };
        let sum = u64::checked_add(number, delta)
            .ok_or_else(|| Stop::Other(format!("key `{}` has {number}, and {delta} more is over 2^64 - 1", shown())))?;
        self.put(n, [(key, Some(sum.to_string().into_bytes()))])?;
        Ok(sum)
    }

    /// A page of keys, and where the next one begins.
    async fn keys(&mut self, n: usize, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>), Stop> {
        let bucket = self.buckets[n].bucket.clone();
        let page = self.state.keys(bucket, cursor.unwrap_or(0)).await.map_err(Stop::Other)?;
        let contents = &mut self.buckets[n];
        match &contents.listed {
            None => contents.listed = Some(page.version),
            Some(version) if *version != page.version => return Err(Stop::Moved),
            Some(_) => {}
        }
        let mut keys = page.keys;
        keys.retain(|key| !contents.written.contains_key(key));
        if page.next == 0 {
            keys.extend(contents.written.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()));
        }
        Ok((keys, Some(page.next).filter(|next| *next != 0)))
    }

    /// Has a job enqueued with the end of the attempt: its id.
    fn enqueue(&mut self, mut job: NewJob) -> Result<String, Refusal> {
        if !self.granted.may_enqueue(&job.queue) {
            let queue = visible(&job.queue);
            let text = format!(
                "queue `{queue}` denied: the jumpscript does not request it; add \"{queue}\" to `enqueue` under \
                 [permissions] in its jumpscript.toml"
            );
            self.log.line(Level::Warn, "jobs", &text);
            return Err(Refusal::Denied(text));
        }
        let id = JobId::generate();
        job.id = Some(id.clone());
        job.check().map_err(Refusal::Invalid)?;
        let effect = Effect::Enqueue(Box::new(job));
        let (n_writes, bytes) = (self.n_writes + 1, self.written_bytes + effect.bytes());
        room(n_writes, bytes).map_err(Refusal::Limit)?;
        (self.n_writes, self.written_bytes) = (n_writes, bytes);
        self.jobs.push(effect);
        Ok(id.to_string())
    }
}

/// Why a job will not be made.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Denied(String),
    Invalid(String),
    Limit(String),
}

/// When a job may run that is told a delay or a time.
fn run_at(delay_ms: Option<u64>, run_at_ms: Option<u64>) -> Result<Option<crate::clock::Timestamp>, Refusal> {
    use crate::clock::Timestamp;
    match (delay_ms, run_at_ms) {
        (Some(_), Some(_)) => Err(Refusal::Invalid("a job has a delay or a run time, not both".to_owned())),
        (Some(delay), None) => Ok(Some(Timestamp::now().after(Duration::from_millis(delay)))),
        (None, Some(at)) => {
            let nanos = i64::try_from(at).ok().and_then(|ms| ms.checked_mul(1_000_000)).unwrap_or(i64::MAX);
            Ok(Some(Timestamp::from_nanos(nanos)))
        }
        (None, None) => Ok(None),
    }
}

fn check_key(key: &str) -> Result<(), Stop> {
    if key.is_empty() {
        return Err(Stop::Other("a key in a bucket must not be empty".to_owned()));
    }
    if key.len() > STATE_KEY_BYTES_MAX {
        let shown: String = key.chars().take(40).collect();
        let (shown, bytes) = (visible(&shown), key.len());
        return Err(Stop::Other(format!(
            "the key `{shown}…` has {bytes} bytes, at most {STATE_KEY_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

/// Whether an attempt may write so much.
fn room(n_writes: usize, bytes: usize) -> Result<(), String> {
    if n_writes > EFFECTS_MAX {
        return Err(format!("one attempt writes at most {EFFECTS_MAX} keys and jobs together, this is one more"));
    }
    if bytes > EFFECT_BYTES_MAX {
        return Err(format!(
            "what one attempt writes and enqueues has at most {EFFECT_BYTES_MAX} bytes, this would be {bytes}"
        ));
    }
    Ok(())
}
