//! What a jumpscript asks for and what a node allows: words and rules, compared before it runs.
//!
//! Invariant: nothing here opens anything. A permission is effective only when the manifest requests it **and** a
//! ceiling of the node or a grant for the very digest allows it; a thing that nobody named is denied.
//!
//! Next: `permissions/request.rs` for the table of a manifest, `permissions/granted.rs` for what is effective,
//! `permissions/ceiling.rs` for a node's own tables, `permissions/http.rs` for patterns of hosts and ports,
//! `permissions/address.rs` for which addresses are public.

mod address;
mod ceiling;
mod directory;
mod granted;
mod http;
mod pattern;
mod request;

pub use address::Reach;
pub use ceiling::{Ceiling, EVERY_SCRIPT, check_script_table, organization_table};
pub use directory::{Directory, PATH_BYTES_MAX};
pub use granted::{Granted, GrantedDirectory};
pub use http::{Host, HttpPattern, Target};
pub use pattern::{NamePattern, PATTERN_BYTES_MAX, StatePattern};
pub use request::{PATTERNS_MAX, PERMISSION_KEYS, Permissions, is_secret_name};

/// Most patterns that a manifest may request, and a node may allow.
pub const HTTP_PATTERNS_MAX: usize = 100;

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
