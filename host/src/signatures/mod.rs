//! Who vouches for code: ed25519 signatures over a file's SHA-256, and what a host does with code that lacks one.
//!
//! Invariant: a signature is checked before a byte of the code is parsed. Nobody without a trusted key makes a host run
//! code under [`Policy::Require`], also not older code that was signed once: a statement carries its time, and a host
//! remembers the last one of each name.
//!
//! Next: `statement` for what is signed, `gate` for what is accepted, `docs/signing.md` for people.

mod doubt;
mod gate;
mod key;
mod statement;

use serde::{Deserialize, Serialize};

pub use self::doubt::{Doubt, Reason};
pub use self::gate::{AGAIN_FOR, Fault, Gate, SIGNED_AHEAD_MAX};
pub use self::key::{PublicKey, SigningKey};
pub use self::statement::{Purpose, SIGNATURE_BYTES_MAX, Signature, Statement};

/// What follows the name of a Wasm file in the name of its signature.
pub const SIGNATURE_SUFFIX: &str = ".sig";

/// What is done with code that no trusted key vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing is checked.
    #[default]
    Off,
    /// It runs; a warning says so, and health is amber.
    Warn,
    /// It is neither published nor run.
    Require,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Warn, Self::Require];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Require => "require",
        }
    }
}
