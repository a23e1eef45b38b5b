//! Who may sign code, and what is done without a signature.

use std::path::Path;

use super::error::Error;
use super::keys;
use super::merge::Merge;
use crate::job::visible;
use crate::signatures::{Policy, PublicKey};

/// Most trusted keys.
pub const TRUSTED_KEYS_MAX: usize = 100;

/// What is done with code that no trusted key has signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// The policy.
    pub policy: Policy,
    /// The public keys whose signatures count, each once.
    pub trusted: Vec<PublicKey>,
}

impl Merge<'_> {
    pub(super) fn signatures(&mut self) -> Result<Signatures, Error> {
        let policy = self.take("signatures.policy", |g| g.signatures_policy, Policy::default, |_| Ok(()))?;
        let entries = self.take(
            "signatures.trusted",
            |g| g.signatures_trusted.clone(),
            Vec::new,
            |entries| read_all(entries).map(drop),
        )?;
        let trusted = read_all(&entries).unwrap_or_default();
        if policy != Policy::Off && trusted.is_empty() {
            let (spec, origin) = (keys::spec("signatures.policy"), self.origin("signatures.policy"));
            return Err(Error::bad(spec, &origin, policy.as_str(), "but `signatures.trusted` names no key")
                .with_hint("`wasmhost keys new` makes a key and prints its public half"));
        }
        Ok(Signatures { policy, trusted })
    }
}

/// The keys that are named, and those of the files that are named.
fn read_all(entries: &[String]) -> Result<Vec<PublicKey>, String> {
    let mut keys: Vec<PublicKey> = Vec::new();
    for entry in entries {
        let found = match entry.parse::<PublicKey>() {
            Ok(key) => vec![key],
            Err(_) => read_file(entry)?,
        };
        for key in found {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    if keys.len() > TRUSTED_KEYS_MAX {
        return Err(format!("names {} keys, at most {TRUSTED_KEYS_MAX} are allowed", keys.len()));
    }
    Ok(keys)
}

/// One key a line; a line that begins with `#` is a comment.
fn read_file(path: &str) -> Result<Vec<PublicKey>, String> {
    let shown = visible(path);
    let text = std::fs::read_to_string(Path::new(path))
        .map_err(|error| format!("but `{shown}` is neither a public key nor a file that can be read: {error}"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().map_err(|why| format!("but in `{shown}` {why}"))).collect()
}
