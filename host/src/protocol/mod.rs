//! Other systems' messages, as data: which keys they lie in, what they mean here, how they are answered.
//!
//! A codec is pure. It spells the keys of its system, says what a message means ([`Message`]), and which writes tell
//! the system what becomes of a job ([`Tell`]). What watches lists and moves messages is `bridge`.
//!
//! Invariant: what a message says never forms a key of ours, and a key of theirs is made of fixed words, names from the
//! configuration and their own id, byte for byte.
//!
//! Next: `protocol/hero.rs` for the first one, `store/lua/take_over.lua` for how a message becomes a job.

pub mod hero;

use std::fmt;
use std::time::Duration;

use crate::effects::Key;
use crate::job::{JobId, NewJob};

/// A system whose messages can be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Hero: supervisors and actors, typed work queues `hero:q:work:type:{script_type}`.
    Hero,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 1] = [Self::Hero];

    /// Its name, as people write it, and as ids and queues of its jobs begin.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hero => "hero",
        }
    }

    /// The protocol of this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.word() == word)
    }

    /// The queue of its jobs of one kind.
    #[must_use]
    pub fn queue(self, kind: &str) -> String {
        format!("{}-{kind}", self.word())
    }

    /// The id here of a job with this id there: no id that comes in at our edge has a colon, and no two systems share a
    /// word. The scripts tell by it where a job is from (`store/lua/answer.lua`).
    #[must_use]
    pub fn job_id(self, theirs: &[u8]) -> JobId {
        JobId::from_bytes(&[self.word().as_bytes(), b":", theirs].concat())
    }

    /// What the system is told, and when.
    #[must_use]
    pub fn told(self) -> Vec<(Moment, Tell)> {
        match self {
            Self::Hero => hero::told(),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// When a system is told of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It was taken over.
    Started,
    /// It was taken over, or brought back, after it had ended before.
    Again,
    /// It has ended with a result, which is what became of it in words.
    Done,
    /// It has ended without one: dead, cancelled, dropped or purged; in words: why.
    Failed,
}

impl Moment {
    /// The word that the scripts know it by.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Again => "again",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// One write that tells a system of a job. A key ends where the job's id belongs. What cannot be written, because a key
/// is gone or of another type, is counted and holds nothing up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Sets fields of a hash, if it is there.
    Fields {
        /// The hash.
        key: &'static str,
        /// The field that gets what became of the job in words; empty for none.
        words: &'static str,
        /// The field that gets the server's time, in the manner of ISO 8601; empty for none.
        time: &'static str,
        /// Other fields and their values.
        fields: &'static [(&'static str, &'static str)],
    },
    /// Removes fields of a hash.
    Remove {
        /// The hash.
        key: &'static str,
        /// The fields.
        fields: &'static [&'static str],
    },
    /// Appends what became of the job in words to a list.
    Reply {
        /// The list.
        key: &'static str,
        /// How long the list lives from then on.
        ttl: Duration,
    },
}

/// A list that messages come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whose list it is.
    pub protocol: Protocol,
    /// The list.
    pub list: Key,
    /// What sort of messages: which jumpscript runs them.
    pub kind: String,
    /// The queue of ours that they go to.
    pub queue: String,
    /// What the key of a message's record begins with; its id follows.
    pub record_prefix: &'static str,
    /// The fields of a record that are read; the first one is its state.
    pub fields: &'static [&'static str],
    /// Which messages a script may make jobs of by itself; `None` when the codec must be asked about each.
    pub plain: Option<Plain>,
}

/// What a message must be like for a script to make the very job of it that the codec would (`store/lua/direct.lua`):
/// its record is a hash of some fields, its numbers are short and in plain digits, and the rest is as said here. Whatever
/// is not like that is for the codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The field that is the payload; a job has one.
    pub payload: &'static str,
    /// The field with the seconds of one attempt; none when it is empty or 0.
    pub timeout: &'static str,
    /// The field with the number of further attempts; none when it is empty.
    pub retries: &'static str,
    /// Fields that must be empty.
    pub empty: &'static [&'static str],
    /// Fields that travel as metadata, behind the system's word and the id.
    pub metadata: &'static [&'static str],
    /// States of a record that make no job.
    pub ended: &'static [&'static str],
    /// Payloads that make no job.
    pub answered: &'static [&'static str],
}

/// What lies where the record of a message should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing.
    Missing,
    /// A key of another type.
    Other,
    /// The values of [`Source::fields`], in their order.
    Fields(Vec<Option<Vec<u8>>>),
}

/// What a message means.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A job.
    Job {
        /// The job here.
        job: Box<NewJob>,
        /// Whether it has ended before, and what was told of that must go.
        is_again: bool,
    },
    /// A job that cannot be run; it is kept in the dead-letter queue, and the other system is told.
    Refused {
        /// The job here, as far as it can be told.
        job: Box<NewJob>,
        /// What is wrong with it.
        reason: String,
    },
    /// It is answered at once.
    Answered {
        /// The id that a job of it would have here.
        id: JobId,
        /// What is answered.
        text: &'static str,
    },
    /// There is nobody to tell: the id is set aside.
    Aside {
        /// What is wrong with it.
        reason: String,
    },
    /// It has ended before, and is dropped.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_by_its_word_and_owns_its_ids() {
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::parse(protocol.word()), Some(protocol));
            // The scripts look for lower case letters before the mark.
            assert!(protocol.word().bytes().all(|byte| byte.is_ascii_lowercase()));
            assert!(crate::job::check_name("id", &protocol.job_id(b"a").to_string()).is_err(), "no id of ours");
        }
        assert_eq!(Protocol::Hero.job_id(b"a:\xff"), JobId::from_bytes(b"hero:a:\xff"));
        assert_eq!(Protocol::Hero.queue("osis"), "hero-osis");
    }
}
