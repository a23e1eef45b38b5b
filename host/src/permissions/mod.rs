//! What a jumpscript asks for and what a node allows: words and rules, compared in the sandbox.
//!
//! Invariant: nothing here opens anything. A permission is effective only when the manifest requests it **and** the node
//! allows it; a thing that nobody named is denied.
//!
//! Next: `permissions/http.rs` for patterns of hosts and ports, `permissions/address.rs` for which addresses are public.

mod address;
mod http;

use serde::{Deserialize, Serialize};

pub use address::Reach;
pub use http::{Host, HttpPattern, Target};

/// Most patterns that a manifest may request, and a node may allow.
pub const HTTP_PATTERNS_MAX: usize = 100;

/// What a manifest requests: its table `[permissions]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Hosts and ports that it sends HTTP requests to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpPattern>,
}

impl Permissions {
    /// Whether nothing is requested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.http.is_empty()
    }

    /// Checks what the types do not hold.
    ///
    /// # Errors
    /// A sentence that names the key, the value and the rule.
    pub fn check(&self) -> Result<(), String> {
        let n = self.http.len();
        if n > HTTP_PATTERNS_MAX {
            return Err(format!(
                "manifest key `permissions.http` has {n} hosts, at most {HTTP_PATTERNS_MAX} are allowed"
            ));
        }
        Ok(())
    }
}

/// An address that no permission opens, such as the Redis of the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepOut {
    /// What it is, for the log: `the node's own Redis`.
    pub what: &'static str,
    /// Its host: a name, or an address without brackets.
    pub host: String,
    /// Its port; `None` keeps out of all ports.
    pub port: Option<u16>,
}
