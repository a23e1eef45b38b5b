//! Why no trusted key vouches for code: in words for people, and in one for counting.

use std::fmt;

/// Reasons to refuse code, in the order of [`Doubt::REASONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has no signature.
    Unsigned,
    /// A key signed it that is not trusted, or another than the one before.
    Key,
    /// The signature is not one of its key, or of other code.
    Forged,
    /// It is signed for another name.
    Name,
    /// What was live was signed later, or has a higher version.
    Older,
    /// Its signature says that it was made in the future.
    Clock,
    /// It was live, and was replaced a while ago.
    Replaced,
    /// This host cannot remember what was live.
    Memory,
}

/// Why no trusted key vouches for code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What is counted.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

impl Doubt {
    /// The words for the reasons.
    pub const REASONS: [&str; 8] = ["unsigned", "key", "forged", "name", "older", "clock", "replaced", "memory"];

    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// Nobody has signed it.
    pub(crate) fn unsigned() -> Self {
        Self::new(Reason::Unsigned, "it is not signed")
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Doubt> for String {
    fn from(doubt: Doubt) -> Self {
        doubt.text
    }
}
