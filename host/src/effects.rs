//! Effects: writes that commit in the same script as the transition that ends an attempt.
//!
//! What an attempt has read of its state rides along ([`Reads`]): the writes rest on it.
//!
//! Invariant: the set is closed, versioned and bounded; there is one interpreter (`store/lua/effects.lua`), and no
//! protocol adds Lua. A [`Key`] is made by `store/keys.rs` and the `protocol/` codecs only: guest bytes never form a
//! key.

use std::time::Duration;

use crate::job::{JobId, NewJob};

/// Version of the encoding that `store/lua/effects.lua` interprets.
pub const EFFECTS_VERSION: u32 = 2;
/// Most writes of one transition.
pub const EFFECTS_MAX: usize = 256;
/// Most bytes of all writes of one transition together.
pub const EFFECT_BYTES_MAX: usize = 1024 * 1024;

/// A Redis key or channel that an effect writes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key as spelt by `store/keys.rs` or a codec; nobody else may call this (a test holds it).
    #[must_use]
    pub(crate) fn spelt(key: impl Into<Vec<u8>>) -> Self {
        Self(key.into())
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Longest key in a bucket, in bytes; none is empty.
pub const STATE_KEY_BYTES_MAX: usize = 256;
/// Largest value in a bucket, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 256 * 1024;
/// Most keys of buckets that one attempt reads.
pub const STATE_READS_MAX: usize = 1024;
/// Most bytes of keys and values that one attempt reads.
pub const STATE_READ_BYTES_MAX: usize = 1024 * 1024;
/// Shortest life that a manifest may give a bucket.
pub const BUCKET_TTL_MIN: Duration = Duration::from_secs(60);
/// Longest life that a manifest may give a bucket: a year.
pub const BUCKET_TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a job's own bucket lives after the last write to it.
pub const OWN_BUCKET_TTL: Duration = Duration::from_secs(7200);

/// Keys and values that outlive a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// The bucket of one job, which nobody else can name.
    Own(JobId),
    /// A bucket that the jumpscripts of an organization share.
    Named {
        /// The organization.
        organization: String,
        /// The bucket's name.
        name: String,
    },
}

/// One typed write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets fields of a hash.
    SetFields {
        /// The hash.
        key: Key,
        /// Field and value pairs.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// Sets a string.
    SetString {
        /// The string.
        key: Key,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Appends to the tail of a list.
    Push {
        /// The list.
        key: Key,
        /// What is appended.
        value: Vec<u8>,
        /// The list keeps this many newest entries; 0 keeps all.
        cap: u32,
    },
    /// Sends a message to a channel.
    Publish {
        /// The channel.
        channel: Key,
        /// The message.
        message: Vec<u8>,
    },
    /// Gives a key a time to live.
    Expire {
        /// The key.
        key: Key,
        /// How long it lives from now on.
        ttl: Duration,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Enqueues a job into the same Redis.
    Enqueue(Box<NewJob>),
    /// Changes values of a bucket.
    State {
        /// The bucket.
        bucket: Bucket,
        /// How long it lives from now on; `None` leaves its life as it is.
        ttl: Option<Duration>,
        /// Keys, each once, and their new values; `None` removes the key.
        values: Vec<(String, Option<Vec<u8>>)>,
    },
}

/// What an attempt has read of a bucket. It is compared when the attempt ends; if anything differs, nothing is written
/// and the job runs again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The bucket.
    pub bucket: Bucket,
    /// Keys and the values they had; `None` where there was none. The empty key stands for the set of keys: its value
    /// changes whenever a key is added or removed.
    pub values: Vec<(String, Option<Vec<u8>>)>,
}

impl Effect {
    /// Bytes this write carries, keys included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::SetFields { key, fields } => {
                key.0.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
            Self::SetString { key, value } | Self::Push { key, value, .. } => key.0.len() + value.len(),
            Self::Publish { channel, message } => channel.0.len() + message.len(),
            Self::Expire { key, .. } | Self::Delete { key } => key.0.len(),
            Self::Enqueue(job) => {
                let metadata = job.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                job.payload.len() + job.queue.len() + job.job_type.len() + metadata
            }
            Self::State { values, .. } => {
                values.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
            }
        }
    }

    /// How many writes it counts as.
    #[must_use]
    pub const fn writes(&self) -> usize {
        match self {
            Self::State { values, .. } => values.len(),
            _ => 1,
        }
    }
}

/// The writes of one transition, within [`EFFECTS_MAX`] and [`EFFECT_BYTES_MAX`], and what they rest on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    writes: Vec<Effect>,
    reads: Vec<Reads>,
}

impl Effects {
    /// No writes.
    #[must_use]
    pub const fn none() -> Self {
        Self { writes: Vec::new(), reads: Vec::new() }
    }

    /// Adds a write.
    ///
    /// # Errors
    /// A sentence with the limit that one more write would break; nothing is added then.
    pub fn push(&mut self, effect: Effect) -> Result<(), String> {
        if self.writes.iter().map(Effect::writes).sum::<usize>() + effect.writes() > EFFECTS_MAX {
            return Err(format!("one attempt may write {EFFECTS_MAX} effects, this is one more"));
        }
        let bytes = self.writes.iter().map(Effect::bytes).sum::<usize>() + effect.bytes();
        if bytes > EFFECT_BYTES_MAX {
            return Err(format!("the effects of one attempt may have {EFFECT_BYTES_MAX} bytes, these have {bytes}"));
        }
        if let Effect::Enqueue(job) = &effect {
            job.check()?;
        }
        self.writes.push(effect);
        Ok(())
    }

    /// Adds what an attempt has read.
    pub fn rest_on(&mut self, reads: Reads) {
        self.reads.push(reads);
    }

    /// The writes in the order they will be made.
    #[must_use]
    pub fn as_slice(&self) -> &[Effect] {
        &self.writes
    }

    /// What they rest on.
    #[must_use]
    pub fn reads(&self) -> &[Reads] {
        &self.reads
    }

    /// Whether there is nothing to write and nothing to compare.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty()
    }

    /// What is left of an attempt that asked to be run again: what it wrote to the job's own bucket.
    #[must_use]
    pub fn of_retry(mut self) -> Self {
        self.writes.retain(|effect| matches!(effect, Effect::State { bucket: Bucket::Own(_), .. }));
        self
    }

    /// What is left of an attempt that failed: nothing but the comparison.
    #[must_use]
    pub fn of_failure(mut self) -> Self {
        self.writes.clear();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_too_many_is_refused_and_not_added() {
        let mut effects = Effects::none();
        let delete = || Effect::Delete { key: Key::spelt("k") };
        for _ in 0..EFFECTS_MAX {
            effects.push(delete()).unwrap();
        }
        assert!(effects.push(delete()).unwrap_err().contains("256"));
        assert_eq!(effects.as_slice().len(), EFFECTS_MAX);
    }

    #[test]
    fn too_many_bytes_are_refused_with_the_size() {
        let mut effects = Effects::none();
        let value = vec![0; EFFECT_BYTES_MAX];
        let error = effects.push(Effect::SetString { key: Key::spelt("k"), value }).unwrap_err();
        assert!(error.contains("1048577"), "{error}");
    }
}
