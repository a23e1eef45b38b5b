//! What an attempt may reach outside its sandbox, as traits: the adapters of layer 1 call them, `host.rs` says who
//! answers.
//!
//! Invariant: what a guest logs or reports never blocks; it is handed on at once or dropped and counted.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::effects::Bucket;
use crate::facts::{Component, Disk, Load, MemoryUse};
use crate::jumpscript::{Digest, ScriptName};
use crate::permissions::Permissions;
use crate::secret::SecretValue;
use crate::signatures::Signature;

/// How serious a log line is; the levels of `wasi:logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// Decisions.
    Debug,
    /// Life-cycle.
    Info,
    /// Recovered or degraded.
    Warn,
    /// Something failed.
    Error,
    /// It cannot go on.
    Critical,
}

impl Level {
    /// The word on screens and in log tails.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// What a running attempt tells the world before it ends.
pub trait JobSink: Send + Sync {
    /// A log line. The text is the guest's: it may contain anything, and is bounded by the sandbox.
    fn log(&self, level: Level, context: &str, message: &str);

    /// How far it has come: 0 to 100, and a few words.
    fn progress(&self, percent: u8, message: &str);
}

/// A sink that drops everything, for attempts nobody listens to.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl JobSink for NoSink {
    fn log(&self, _level: Level, _context: &str, _message: &str) {}

    fn progress(&self, _percent: u8, _message: &str) {}
}

/// Where the code of jumpscripts lies.
pub trait CodeSource: Send + Sync {
    /// The digest of what is published under `organization/name`.
    ///
    /// # Errors
    /// As [`CodeSource::fetch`].
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Digest>, String>>;

    /// The Wasm bytes of a digest, checked against it; `None` when they are not there.
    ///
    /// # Errors
    /// A sentence when the source did not answer; trying again may help.
    fn fetch<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>>;

    /// The signatures of a digest, one for each name that it was signed for. Whether they are good is not looked at.
    ///
    /// # Errors
    /// As [`CodeSource::fetch`].
    fn signatures<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Signature>, String>> {
        let _ = digest;
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Where the state of jumpscripts lies: read while an attempt runs; written with its end (`effects`).
pub trait State: Send + Sync {
    /// The values of some keys of a bucket, in their order; `None` for a key without a value.
    ///
    /// # Errors
    /// A sentence for the author of the jumpscript when they cannot be read; trying again may help.
    fn values(&self, bucket: Bucket, keys: Vec<String>) -> BoxFuture<'static, Result<StateValues, String>>;

    /// Some keys of a bucket, from a cursor on; 0 begins.
    ///
    /// # Errors
    /// As [`State::values`].
    fn keys(&self, bucket: Bucket, cursor: u64) -> BoxFuture<'static, Result<StatePage, String>>;
}

/// Values of a bucket, in the order in which they were asked for.
pub type StateValues = Vec<Option<Vec<u8>>>;

/// Some keys of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatePage {
    /// The keys; one may come twice in two pages.
    pub keys: Vec<String>,
    /// Where the next page begins; 0 after the last one.
    pub next: u64,
    /// Changes whenever a key is added or removed; `None` for a bucket that was never written to.
    pub version: Option<Vec<u8>>,
}

/// State in which nothing lies: for attempts without a Redis, which see their own writes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoState;

impl State for NoState {
    fn values(&self, _: Bucket, keys: Vec<String>) -> BoxFuture<'static, Result<StateValues, String>> {
        Box::pin(std::future::ready(Ok(vec![None; keys.len()])))
    }

    fn keys(&self, _: Bucket, _: u64) -> BoxFuture<'static, Result<StatePage, String>> {
        Box::pin(std::future::ready(Ok(StatePage::default())))
    }
}

/// What a node gives to jumpscripts that may have it, beside state. Whether one may is not asked here.
pub trait Supply: Send + Sync {
    /// The value that the node's configuration has of a key, for code of these names.
    fn value(&self, names: &[String], key: &str) -> Option<String>;

    /// Every such value, by key.
    fn values(&self, names: &[String]) -> BTreeMap<String, String>;

    /// A secret by its name.
    ///
    /// # Errors
    /// See [`SecretError`].
    fn secret(&self, name: String) -> BoxFuture<'static, Result<SecretValue, SecretError>>;

    /// The file systems of the machine that lie on disks.
    ///
    /// # Errors
    /// A sentence for authors when the machine does not say; so with all that follow.
    fn disks(&self) -> BoxFuture<'static, Result<Vec<Disk>, String>>;

    /// Its memory.
    ///
    /// # Errors
    /// As [`Supply::disks`].
    fn memory(&self) -> Result<MemoryUse, String>;

    /// How busy it is.
    ///
    /// # Errors
    /// As [`Supply::disks`].
    fn load(&self) -> Result<Load, String>;

    /// How long it has been running, in seconds.
    ///
    /// # Errors
    /// As [`Supply::disks`].
    fn uptime(&self) -> Result<u64, String>;

    /// How many processes there are of each of these names, in their order.
    ///
    /// # Errors
    /// As [`Supply::disks`].
    fn processes(&self, names: Vec<String>) -> BoxFuture<'static, Result<Vec<u32>, String>>;

    /// The components of the health hashes.
    ///
    /// # Errors
    /// As [`Supply::disks`].
    fn health(&self) -> BoxFuture<'static, Result<Vec<Component>, String>>;
}

/// Why there is no secret. The texts are for authors and operators; they name no path of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// The node has none of this name.
    Missing(String),
    /// It cannot be read; trying again may help.
    Unreadable(String),
}

/// What Redis says about the permissions of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeGrants {
    /// The revision of the jumpscripts at which this was read, or an older one; 0 when nothing was ever published.
    pub rev: u64,
    /// The names under which wasmhost published the code; none when another program put it there.
    pub names: Vec<String>,
    /// What was granted to this very code.
    pub granted: Permissions,
}

/// Where grants lie.
pub trait GrantSource: Send + Sync {
    /// What is granted to the code of a digest.
    ///
    /// # Errors
    /// A sentence when the source did not answer; trying again may help.
    fn grants<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<CodeGrants, String>>;
}

/// A future behind a pointer, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The pulse of a loop that must not stall: the loop beats, others ask how long ago.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after `started` of the last beat.
    last_ms: AtomicU64,
}

impl Pulse {
    /// A pulse that beats now for the first time.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// Says that the loop is alive.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    /// Time since the last beat.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

/// A jumpscript's file that is to be published.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What the file is called in messages: its name without folders.
    pub file: String,
    /// Its bytes, read whole; the text of a script, when `file` has the ending of a language.
    pub wasm: Vec<u8>,
    /// The text of the `jumpscript.toml` beside it; the section inside the file counts when there is none.
    pub manifest: Option<String>,
    /// Its name when the manifest has none (the file's stem).
    pub default_name: String,
    /// The text of the signature beside it.
    pub signature: Option<String>,
}

/// When a file that is already published under its name is published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishRule {
    /// Always: the file has changed, or a person said so.
    Always,
    /// Only when the name is absent or the file's version is higher: a node that starts with an old folder must not
    /// roll the fleet back.
    AbsentOrNewer,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// `organization/name`.
    pub name: ScriptName,
    /// The digest that is live under the name now.
    pub digest: Digest,
    /// The live version, empty when it has none.
    pub version: String,
    /// Whether this call changed what is live.
    pub is_new: bool,
    /// Whether the candidate is what is live; `false` when [`PublishRule::AbsentOrNewer`] kept other code.
    pub is_live: bool,
}

/// Publishes jumpscripts.
pub trait Publisher: Send + Sync {
    /// Checks a candidate whole and publishes it in one step.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing has changed then.
    fn publish(&self, candidate: Candidate, rule: PublishRule) -> BoxFuture<'_, Result<Published, PublishError>>;
}

/// Why a candidate was not published. The texts name the file, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The candidate itself is at fault: only another file helps.
    Refused(String),
    /// Redis is away: trying again helps.
    Unavailable(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(text) | Self::Unavailable(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for PublishError {}

/// What a worker's answers from Redis say about the published jumpscripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The revision; 0 when nothing is published.
    pub rev: u64,
    /// Changes with every record, whoever wrote it.
    pub scripts_check: String,
}
