//! Effects: writes that commit in the same script as the transition that ends an attempt.
//!
//! Invariant: the set is closed, versioned and bounded; there is one interpreter (`store/lua/effects.lua`), and no
//! protocol adds Lua. A [`Key`] is made by `store/keys.rs` and the `protocol/` codecs only: guest bytes never form a
//! key.

use std::time::Duration;

use crate::job::NewJob;

/// Version of the encoding that `store/lua/effects.lua` interprets.
pub const EFFECTS_VERSION: u32 = 1;
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

/// One typed write.
#[derive(Clone, Debug, PartialEq)]
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
            Self::Enqueue(job) => job.payload.len() + job.queue.len() + job.job_type.len(),
        }
    }
}

/// The writes of one transition, within [`EFFECTS_MAX`] and [`EFFECT_BYTES_MAX`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// No writes.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a write.
    ///
    /// # Errors
    /// A sentence with the limit that one more write would break; nothing is added then.
    pub fn push(&mut self, effect: Effect) -> Result<(), String> {
        if self.0.len() >= EFFECTS_MAX {
            return Err(format!("one attempt may write {EFFECTS_MAX} effects, this is one more"));
        }
        let bytes = self.0.iter().map(Effect::bytes).sum::<usize>() + effect.bytes();
        if bytes > EFFECT_BYTES_MAX {
            return Err(format!("the effects of one attempt may have {EFFECT_BYTES_MAX} bytes, these have {bytes}"));
        }
        if let Effect::Enqueue(job) = &effect {
            job.check()?;
        }
        self.0.push(effect);
        Ok(())
    }

    /// The writes in the order they will be made.
    #[must_use]
    pub fn as_slice(&self) -> &[Effect] {
        &self.0
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
