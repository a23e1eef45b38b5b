//! Why a Wasm file is not run. How an attempt ended is not an error but an `Outcome`.

use crate::jumpscript::Digest;

/// Why there is no script to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file can never run here, on no host of this version: a publish is refused, a job rejected.
    #[error("{reason}")]
    Refused {
        /// One sentence that names the thing.
        reason: String,
        /// The remedy; may be empty.
        hint: String,
    },
    /// The bytes are not what their address says: they must not be run, whoever sent them.
    #[error("the code is not what its digest says: expected `{expected}`, found `{found}`")]
    Digest {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// This host cannot do it now; another host, or this one later, may.
    #[error("{reason}")]
    Host {
        /// One sentence that names the thing.
        reason: String,
        /// The remedy; may be empty.
        hint: String,
    },
}

impl Error {
    /// The remedy, for a separate `hint:` line.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } | Self::Host { hint, .. } => Some(hint.as_str()).filter(|hint| !hint.is_empty()),
            Self::Digest { .. } => Some("publish the file again"),
        }
    }

    /// Whether trying again cannot help.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        !matches!(self, Self::Host { .. })
    }

    pub(super) fn refused(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), hint: hint.into() }
    }

    pub(super) fn host(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Host { reason: reason.into(), hint: hint.into() }
    }
}
