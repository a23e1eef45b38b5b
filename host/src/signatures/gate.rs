//! What a host accepts: the policy, the trusted keys, and what it remembers of each name.
//!
//! What is remembered lies in a file of the data folder, which nobody else can write. So whoever can write Redis can
//! bring back nothing that was live before, also not after a restart of the host.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Doubt, Policy, PublicKey, Purpose, Reason, Signature};
use crate::clock::Timestamp;
use crate::job::visible;
use crate::jumpscript::{Digest, Manifest, ScriptName, parse_version, words};
use crate::metrics::Counter;

/// How long code that was replaced is still run: jobs were handed out with it.
pub const AGAIN_FOR: Duration = Duration::from_secs(300);
/// How far the clock of a signer may be ahead.
pub const SIGNED_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// The file in the data folder.
const FILE: &str = "signatures.json";

/// Code that is live and that no trusted key vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name, and why, for people.
    pub text: String,
    /// Whether it is not run.
    pub is_refused: bool,
}

/// The last statement about a name that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    digest: Digest,
    version: String,
    signed_at_ms: i64,
    key: PublicKey,
}

impl Seen {
    fn of(signature: &Signature) -> Self {
        let statement = &signature.statement;
        Self {
            digest: statement.digest,
            version: statement.version.clone(),
            signed_at_ms: statement.signed_at_ms,
            key: signature.key,
        }
    }
}

#[derive(Default)]
struct Memory {
    /// By name, as the file has it.
    seen: BTreeMap<String, Seen>,
    /// Code that was accepted since the host started, with the names that it was accepted for.
    accepted: HashMap<Digest, Vec<ScriptName>>,
    /// Code that was replaced, until when it is still run.
    before: HashMap<ScriptName, (Digest, Instant)>,
}

/// Decides what code is published and run.
pub struct Gate {
    policy: Policy,
    trusted: Vec<PublicKey>,
    file: Option<PathBuf>,
    memory: Mutex<Memory>,
    refused: [Counter; Doubt::REASONS.len()],
}

impl Gate {
    /// A gate that lets everything pass.
    #[must_use]
    pub fn off() -> Self {
        Self::new(Policy::Off, Vec::new())
    }

    /// A gate that remembers nothing but what it sees itself: for commands.
    #[must_use]
    pub fn new(policy: Policy, trusted: Vec<PublicKey>) -> Self {
        Self { policy, trusted, file: None, memory: Mutex::default(), refused: Default::default() }
    }

    /// The gate of a host, which remembers in its data folder.
    ///
    /// # Errors
    /// A text that names the file when it cannot be read: without it old code could come back.
    pub fn of_host(policy: Policy, trusted: Vec<PublicKey>, data: &Path) -> Result<Self, String> {
        let mut gate = Self::new(policy, trusted);
        if policy == Policy::Off {
            return Ok(gate);
        }
        let file = data.join(FILE);
        let seen = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("it cannot be understood: {error}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
        };
        let seen = seen.map_err(|why| {
            format!(
                "`{}`, which remembers what signed code was live, cannot be read: {why}\n\
                 hint: put a copy back; removing it makes this host accept older signed code once",
                file.display()
            )
        })?;
        gate.memory = Mutex::new(Memory { seen, ..Memory::default() });
        gate.file = Some(file);
        Ok(gate)
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Counts an attempt that did not run because of a doubt.
    pub fn count(&self, doubt: &Doubt) {
        self.refused[doubt.reason as usize].increment();
    }

    /// Attempts that did not run, in the order of [`Doubt::REASONS`].
    pub fn refused(&self) -> impl Iterator<Item = u64> {
        self.refused.iter().map(Counter::get)
    }

    /// Why code must not go live under a name, if so, looked at by whoever publishes. `live` is the signature of what is
    /// live now; nothing when what is older may come too, because it is not going to be taken.
    ///
    /// # Errors
    /// Why no trusted key vouches for it.
    pub fn look(
        &self,
        name: &ScriptName,
        signature: Option<&Signature>,
        digest: &Digest,
        live: Option<&Signature>,
    ) -> Result<(), Doubt> {
        let signature = self.vouched(name, signature, digest)?;
        let memory = self.memory();
        let trusted = live.filter(|live| self.trusted.contains(&live.key) && live.is_genuine());
        for seen in memory.seen.get(&name.to_string()).cloned().into_iter().chain(trusted.map(Seen::of)) {
            self.follows(&seen, signature)?;
        }
        Ok(())
    }

    /// Checks a signature with nothing but the digest of its file: before the file is parsed.
    ///
    /// # Errors
    /// Why it is none for this file.
    pub fn fits(&self, signature: &Signature, digest: &Digest) -> Result<(), Doubt> {
        if !self.trusted.contains(&signature.key) {
            let text = format!("it is signed by key {}, which is not in `signatures.trusted`", signature.key.id());
            return Err(Doubt::new(Reason::Key, text));
        }
        if !signature.is_genuine() {
            let text = format!("its signature is not one of key {}, whose name it bears", signature.key.id());
            return Err(Doubt::new(Reason::Forged, text));
        }
        if signature.statement.digest != *digest {
            let text = format!(
                "its signature is one of other code: it is for {}, this is {}",
                signature.statement.digest.short(),
                digest.short()
            );
            return Err(Doubt::new(Reason::Forged, text));
        }
        Ok(())
    }

    /// Takes code as live under a name, when a trusted key vouches for it and nothing newer was live. Called by a host
    /// for every record, and before it loads code.
    ///
    /// # Errors
    /// Why it is not accepted, for people.
    pub fn accept(&self, name: &ScriptName, signature: Option<&Signature>, digest: &Digest) -> Result<(), Doubt> {
        let signature = self.vouched(name, signature, digest)?;
        let mut memory = self.memory();
        let key = name.to_string();
        let seen = memory.seen.get(&key).cloned();
        if let Some(seen) = &seen {
            let is_before =
                memory.before.get(name).is_some_and(|(own, until)| own == digest && *until > Instant::now());
            if is_before && seen.digest != *digest && signature.statement.signed_at_ms < seen.signed_at_ms {
                memory.note(name, digest);
                return Ok(());
            }
            self.follows(seen, signature)?;
        }
        let new = Seen::of(signature);
        if seen.as_ref() != Some(&new) {
            memory.seen.insert(key, new);
            self.write(&memory.seen).map_err(|text| Doubt::new(Reason::Memory, text))?;
            if let Some(old) = seen.filter(|old| old.digest != *digest) {
                memory.before.insert(name.clone(), (old.digest, Instant::now() + AGAIN_FOR));
            }
        }
        memory.note(name, digest);
        Ok(())
    }

    /// Whether code that was accepted may run a job of this type. `None` when it has not been accepted since the host
    /// started: [`Gate::accept`] it first.
    #[must_use]
    pub fn serves(&self, digest: &Digest, manifest: &Manifest, job_type: &str) -> Option<bool> {
        let memory = self.memory();
        let names = memory.accepted.get(digest)?;
        let is_current = |name: &&ScriptName| {
            memory.seen.get(&name.to_string()).is_some_and(|seen| seen.digest == *digest)
                || memory.before.get(name).is_some_and(|(own, until)| own == digest && *until > Instant::now())
        };
        let current: Vec<&ScriptName> = names.iter().filter(is_current).collect();
        if current.is_empty() {
            return None;
        }
        Some(current.iter().any(|name| words(name, manifest).iter().any(|word| word == job_type)))
    }

    /// A signature by a trusted key for this code and name.
    fn vouched<'a>(
        &self,
        name: &ScriptName,
        signature: Option<&'a Signature>,
        digest: &Digest,
    ) -> Result<&'a Signature, Doubt> {
        let signature = signature.ok_or_else(Doubt::unsigned)?;
        self.fits(signature, digest)?;
        let statement = &signature.statement;
        if statement.name != name.to_string() {
            let text = format!("its signature is for the name `{}`, not `{name}`", visible(&statement.name));
            return Err(Doubt::new(Reason::Name, text));
        }
        let ahead = i64::try_from(SIGNED_AHEAD_MAX.as_millis()).unwrap_or(i64::MAX);
        if statement.signed_at_ms > Timestamp::now().millis().saturating_add(ahead) {
            let text = format!(
                "its signature says that it was made at {}: the clock of the signer or of this machine is wrong",
                Timestamp::from_millis(statement.signed_at_ms)
            );
            return Err(Doubt::new(Reason::Clock, text));
        }
        Ok(signature)
    }

    /// Whether a statement may replace the last one that was seen.
    fn follows(&self, seen: &Seen, signature: &Signature) -> Result<(), Doubt> {
        let statement = &signature.statement;
        if seen.key != signature.key && self.trusted.contains(&seen.key) {
            let text = format!(
                "it is signed by key {}, and what was live by key {}; to change the key of a jumpscript, take the old one \
                 out of `signatures.trusted`",
                signature.key.id(),
                seen.key.id()
            );
            return Err(Doubt::new(Reason::Key, text));
        }
        let is_same = seen.digest == statement.digest;
        if statement.signed_at_ms < seen.signed_at_ms || (statement.signed_at_ms == seen.signed_at_ms && !is_same) {
            let text = format!(
                "its signature was made at {}, before that of {} which was live ({}); sign it anew, or go back with \
                 `wasmhost scripts rollback --sign KEYFILE`",
                Timestamp::from_millis(statement.signed_at_ms),
                seen.digest.short(),
                Timestamp::from_millis(seen.signed_at_ms)
            );
            return Err(Doubt::new(Reason::Older, text));
        }
        let number = |version: &str| parse_version(version).ok().filter(|_| !version.is_empty()).unwrap_or_default();
        if statement.purpose == Purpose::Publish && number(&statement.version) < number(&seen.version) {
            let text = format!(
                "its version {} is lower than {}, which was live; go back with `wasmhost scripts rollback --sign KEYFILE`",
                if statement.version.is_empty() { "(none)" } else { &statement.version },
                seen.version
            );
            return Err(Doubt::new(Reason::Older, text));
        }
        Ok(())
    }

    /// Writes what was seen, whole or not at all.
    fn write(&self, seen: &BTreeMap<String, Seen>) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let fault = |error: &dyn std::fmt::Display| {
            format!("this host cannot remember what signed code was live: `{}`: {error}", file.display())
        };
        let text = serde_json::to_vec_pretty(seen).map_err(|error| fault(&error))?;
        let next = file.with_extension("json.new");
        let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, file));
        written.map_err(|error| fault(&error))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing under the lock can be left half-changed by a panic.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn note(&mut self, name: &ScriptName, digest: &Digest) {
        let names = self.accepted.entry(*digest).or_default();
        if !names.contains(name) {
            names.push(name.clone());
        }
        // What is neither live nor just replaced is forgotten, so that this does not grow.
        let Self { seen, accepted, before } = self;
        let now = Instant::now();
        before.retain(|_, (_, until)| *until > now);
        let is_known = |digest: &Digest| {
            seen.values().any(|seen| seen.digest == *digest) || before.values().any(|(own, _)| own == digest)
        };
        if accepted.len() > 2 * seen.len() + before.len() {
            accepted.retain(|digest, _| is_known(digest));
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("policy", &self.policy).field("trusted", &self.trusted).finish_non_exhaustive()
    }
}
