//! What code may do on this node: its request, the node's ceiling, and the grants in Redis, compared once a revision.
//!
//! Invariant: an attempt never runs with permissions that are older than the revision its job was handed out with. A
//! grant that was taken back is gone for every job that is handed out afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::jumpscript::{Digest, Manifest};
use crate::permissions::{Ceiling, Granted, Permissions};
use crate::ports::{CodeGrants, GrantSource};

/// Most digests whose permissions are remembered.
const KNOWN_MAX: usize = 1_000;

/// Permissions of code, or why it must not run.
pub type Permit = Result<Arc<Granted>, Denied>;

/// What code requests and nobody has granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    missing: Box<Permissions>,
    digest: Digest,
}

impl Denied {
    /// What is missing, as a sentence.
    #[must_use]
    pub fn what(&self) -> String {
        format!("the jumpscript requests {}, which nobody has granted", self.missing.in_words())
    }

    /// The command that would grant it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("wasmhost grants allow {}{}", self.digest, self.missing.flags())
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; grant it with `{}`", self.what(), self.command())
    }
}

/// Decides what code may do.
pub struct Permits {
    ceiling: Ceiling,
    source: Arc<dyn GrantSource>,
    known: Mutex<HashMap<Digest, (u64, Permit)>>,
}

impl Permits {
    /// Decides by a node's ceiling and the grants of `source`.
    #[must_use]
    pub fn new(ceiling: Ceiling, source: Arc<dyn GrantSource>) -> Self {
        Self { ceiling, source, known: Mutex::default() }
    }

    /// What code that requests this is denied now, for whoever looks after the node. Remembers nothing: what a record in
    /// Redis says of a request is not what the code itself says.
    ///
    /// # Errors
    /// A sentence when the source did not answer.
    pub async fn denied(&self, digest: &Digest, request: &Permissions) -> Result<Option<Denied>, String> {
        if request.is_empty() {
            return Ok(None);
        }
        let found = self.source.grants(digest).await?;
        Ok(permit(&self.ceiling, &found, digest, request).err())
    }

    /// What is known at a revision without asking. Code that requests nothing needs no permission.
    pub(super) fn known(&self, digest: &Digest, manifest: &Manifest, rev: u64) -> Option<Permit> {
        if manifest.permissions.is_empty() {
            return Some(Ok(Granted::none()));
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A revision of 0 is one that nobody knows.
        known.get(digest).filter(|(seen, _)| rev > 0 && *seen >= rev).map(|(_, permit)| permit.clone())
    }

    /// Asks, and remembers the answer.
    ///
    /// # Errors
    /// A sentence when the source did not answer; trying again may help.
    pub(super) async fn look_up(&self, digest: &Digest, manifest: &Manifest) -> Result<Permit, String> {
        if manifest.permissions.is_empty() {
            return Ok(Ok(Granted::none()));
        }
        let found = self.source.grants(digest).await?;
        let permit = permit(&self.ceiling, &found, digest, &manifest.permissions);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(*digest, (found.rev, permit.clone()));
        Ok(permit)
    }
}

/// Compares what code requests with what ceiling and grants allow.
///
/// # Errors
/// What is missing.
pub fn permit(ceiling: &Ceiling, found: &CodeGrants, digest: &Digest, request: &Permissions) -> Permit {
    let mut allowed = ceiling.of(found.names.iter().map(String::as_str));
    allowed.add(&found.granted);
    let granted = Granted::of(request, &allowed).map(|granted| Arc::new(granted.named(found.names.clone())));
    granted.map_err(|missing| Denied { missing, digest: *digest })
}
