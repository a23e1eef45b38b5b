//! What the program is told: flags over environment over file over defaults, checked once.
//!
//! Invariant: a [`Config`] has every value, each within its rule, and knows where each came from. No password is
//! ever part of a text that this module makes.
//!
//! Next: `config/keys.rs` for the table of settings, `docs/configuration.md` for people.

mod check;
mod error;
mod http;
mod keys;
mod merge;
mod redis_url;
mod reference;
mod script_config;
mod signatures;
mod value;

use merge::Merge;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{Error, Origin};
pub use http::{HTTP_OPENABLE, Http, TOKEN_BYTES_MAX, TOKEN_BYTES_MIN};
pub use keys::{Given, KEYS, KeySpec, OTHER_VARIABLES};
pub use redis_url::{REDIS_URL, RedisParts, RedisWay, hosts_and_ports, redis_parts};
pub use reference::configuration_markdown;
pub use script_config::{
    SCRIPT_CONFIG_KEYS_MAX, SCRIPT_CONFIG_VALUE_BYTES_MAX, SECRETS_MAX, ScriptConfig, SecretSource, Secrets, Supplies,
};
pub use signatures::{Signatures, TRUSTED_KEYS_MAX};
pub use value::{Environment, Hardening, LogFormat, Queue, Secret, WEIGHT_MAX};

use crate::job::visible;
use crate::permissions::{Ceiling, HttpPattern};
use crate::protocol::Protocol;
use crate::retry::RetryPolicy;

/// The prefix of our own keys.
pub const PREFIX: &str = "wasmhost";
/// Longest prefix in bytes.
pub const PREFIX_BYTES_MAX: usize = 100;
/// Jobs that run at once, for each core.
pub const CONCURRENCY_PER_CORE: u64 = 8;
/// Most jobs that run at once.
pub const CONCURRENCY_MAX: u64 = 10_000;
/// Most queues of one host.
pub const QUEUES_MAX: usize = 100;
/// Most types of one protocol.
pub const TYPES_MAX: usize = 20;
/// How long a job belongs to a silent host.
pub const LEASE: Duration = Duration::from_secs(30);
/// Shortest lease.
pub const LEASE_MIN: Duration = Duration::from_millis(500);
/// Longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);
/// Longest default interval between two extensions of a lease.
pub const HEARTBEAT_DEFAULT_MAX: Duration = Duration::from_secs(10);
/// How long running jobs may take to end after SIGTERM; below the 30 s after which Kubernetes kills.
pub const GRACE: Duration = Duration::from_secs(25);
/// How long opening a connection to Redis may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command that does not wait may take.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Most connections that short commands share.
pub const POOL_MAX: u64 = 16;
/// Linear memory of one job in MiB.
pub const MEMORY_MIB: u64 = 64;
/// Files from this size on, in KiB, run before their optimised code is there.
pub const FIRST_TIER_KIB: u64 = 1024;
/// How long the record of a finished job is kept.
pub const DONE_TTL: Duration = Duration::from_secs(24 * 3600);
/// How often the node checks its health.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// Free disk space in MiB below which health is red.
pub const HEALTH_DISK_MIB: u64 = 256;
/// Available memory in MiB below which health is red.
pub const HEALTH_MEMORY_MIB: u64 = 128;
/// Silence after which a loop of the worker counts as stalled.
pub const HEALTH_STALL: Duration = Duration::from_secs(10);
/// Distance between the clocks of this machine and of Redis at which health is amber.
pub const HEALTH_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Where settings are looked for, in the order of their weight.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What the command line said.
    pub flags: Given,
    /// The process's environment.
    pub environment: Environment,
    /// The file of `--config`. `WASMHOST_CONFIG` names one when there is no flag; no file is read unasked, so that
    /// what a command does never depends on the folder it runs in.
    pub file: Option<PathBuf>,
    /// What the defaults depend on.
    pub machine: Machine,
}

impl Sources {
    /// The sources of this process.
    #[must_use]
    pub fn of_process(flags: Given, file: Option<PathBuf>) -> Self {
        Self { flags, environment: environment(), file, machine: Machine::this() }
    }
}

/// The environment of this process; variables whose name is not UTF-8 are none of ours.
#[must_use]
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect()
}

/// Who runs this process, for people: `user@machine`.
#[must_use]
pub fn person() -> String {
    let id = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    let machine = Machine::this().name;
    name.map_or_else(|| format!("uid {id}@{machine}"), |name| format!("{name}@{machine}"))
}

/// What defaults depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: u64,
    /// The host name.
    pub name: String,
    /// Whether the process is root.
    pub is_root: bool,
}

impl Machine {
    /// The machine this process runs on.
    #[must_use]
    pub fn this() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

/// Everything the program needs to know, with every value present and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// How Redis is reached.
    pub redis: Redis,
    /// What our own keys begin with.
    pub prefix: String,
    /// What the node's hashes begin with; usually empty.
    pub node_prefix: String,
    /// The queues that are served; at least one, each once.
    pub queues: Vec<Queue>,
    /// Whether a queue only gets what those before it leave over; then every weight is 1.
    pub is_strict: bool,
    /// Other systems whose messages are taken over, each once.
    pub protocols: Vec<Protocol>,
    /// The script types of Hero that are served.
    pub hero_types: Vec<String>,
    /// Jobs that run at once.
    pub concurrency: usize,
    /// How long a job belongs to a silent host.
    pub lease: Duration,
    /// How often leases are extended; at most half the lease.
    pub heartbeat: Duration,
    /// How long running jobs may take to end.
    pub grace: Duration,
    /// The name of this machine.
    pub node: String,
    /// The number of the grid.
    pub gid: u32,
    /// The number of the node.
    pub nid: u32,
    /// The roles of the node.
    pub roles: Vec<String>,
    /// The folder whose jumpscripts are published.
    pub scripts: Option<PathBuf>,
    /// Where jumpscripts may send HTTP requests.
    pub allow_http: Vec<HttpPattern>,
    /// What jumpscripts may be given, `allow_http` included.
    pub ceiling: Ceiling,
    /// What jumpscripts are told that may read it.
    pub supplies: Supplies,
    /// The host and port of the Kubernetes API, inside a pod: no jumpscript reaches it.
    pub kubernetes_api: Option<(String, u16)>,
    /// What is served over HTTP, and to whom.
    pub http: Http,
    /// Whose code is published and run.
    pub signatures: Signatures,
    /// The folder of native code and of the embedded Redis.
    pub data: PathBuf,
    /// Log lines.
    pub log: Log,
    /// When failed jobs run again.
    pub retry: RetryPolicy,
    /// What one job may use, and how long it is remembered.
    pub limits: Limits,
    /// The sandboxes.
    pub sandbox: Sandbox,
    /// The thresholds of the node's checks.
    pub health: Health,
    /// Every setting as text with its origin, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// What is accepted but worth a warning, each a sentence.
    pub notes: Vec<String>,
}

/// How Redis is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// The URL without its password.
    pub url: String,
    /// The password.
    pub password: Option<Secret>,
    /// Whether a private server is started instead of using `url`.
    pub is_embedded: bool,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long a command that does not wait may take.
    pub command_timeout: Duration,
    /// Connections that short commands share.
    pub pool: usize,
    /// The files of TLS.
    pub tls: RedisTls,
    /// The password of the Sentinels.
    pub sentinel_password: Option<Secret>,
}

/// The files of TLS, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Certificates of the authorities that are trusted, in place of the public ones.
    pub ca_file: Option<PathBuf>,
    /// The certificate of this client.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    pub key_file: Option<PathBuf>,
}

/// Log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level or directives.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// What one job may use, and how long it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory in bytes.
    pub memory_bytes_max: usize,
    /// How long the record of a finished job is kept.
    pub done_ttl: Duration,
}

/// The sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Instances that can exist at once; 0 is as many as the concurrency needs.
    pub pool_size: usize,
    /// Files of at least this many KiB run before their optimised code is there.
    pub first_tier_kib: usize,
    /// How much speed is given for defence in depth.
    pub hardening: Hardening,
}

/// The thresholds of the node's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// How often the checks run.
    pub interval: Duration,
    /// Free disk space in bytes below which health is red; 0 checks nothing.
    pub disk_bytes_min: u64,
    /// Available memory in bytes below which health is red; 0 checks nothing.
    pub memory_bytes_min: u64,
    /// Silence after which a loop counts as stalled.
    pub stall: Duration,
    /// Distance of the clocks at which health is amber.
    pub clock_skew: Duration,
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The value as text; `***` for a secret.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// What a reload changed.
#[derive(Clone, Debug)]
pub struct Reload {
    /// The new configuration: values that need a restart are those of the old one.
    pub config: Config,
    /// Keys that are in force now.
    pub applied: Vec<&'static str>,
    /// Keys whose new value waits for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Reads, merges and checks all sources.
    ///
    /// # Errors
    /// The first value that breaks its rule, by the name under which it was given.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let path = sources
            .file
            .clone()
            .or_else(|| sources.environment.get("WASMHOST_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let (file, file_notes) = match &path {
            Some(path) => read_file(path)?,
            None => (Given::default(), Vec::new()),
        };
        let (environment, mut notes) = Given::from_environment(&sources.environment)?;
        notes.extend(file_notes);
        Merge { sources, environment, file, path: path.unwrap_or_default(), settings: Vec::new(), notes }.into_config()
    }

    /// Reads the sources again for a running host. The old configuration stays in force when they are broken.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn reload(&self, sources: &Sources) -> Result<Reload, Error> {
        let new = Self::load(sources)?;
        let changed = |is_live: bool| {
            KEYS.iter()
                .filter(|spec| spec.is_live == is_live && self.setting(spec.key) != new.setting(spec.key))
                .map(|spec| spec.key)
                .collect::<Vec<_>>()
        };
        let mut config = self.clone();
        config.log.level.clone_from(&new.log.level);
        config.health = new.health;
        config.supplies.clone_from(&new.supplies);
        for setting in &mut config.settings {
            if let (true, Some(value)) = (keys::spec(setting.key).is_live, new.setting(setting.key)) {
                setting.value.clone_from(&value.value);
                setting.origin.clone_from(&value.origin);
            }
        }
        config.notes.clone_from(&new.notes);
        Ok(Reload { config, applied: changed(true), needs_restart: changed(false) })
    }

    /// The queues that are served: those that were named, and those of the protocols behind them.
    #[must_use]
    pub fn served_queues(&self) -> Vec<Queue> {
        let mut served = self.queues.clone();
        for protocol in &self.protocols {
            let types = match protocol {
                Protocol::Hero => &self.hero_types,
            };
            for name in types.iter().map(|name| protocol.queue(name)) {
                if !served.iter().any(|queue| queue.name == name) {
                    served.push(Queue { name, weight: 1 });
                }
            }
        }
        served
    }

    /// A setting by its key.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}

fn read_file(path: &Path) -> Result<(Given, Vec<String>), Error> {
    let shown = visible(&path.to_string_lossy());
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Unreadable { path: shown.clone(), reason: error.to_string() })?;
    let given = Given::from_toml(&text, path)?;
    let has_secret = given.redis_password.is_some()
        || given.http_token.is_some()
        || given.redis_url.as_deref().is_some_and(|url| redis_url::split(url).is_ok_and(|(_, word)| word.is_some()));
    let notes = if has_secret { readable_by_all(path, "secret").into_iter().collect() } else { Vec::new() };
    Ok((given, notes))
}

/// A warning when every user of the machine can read a file with a secret. Not refused: Kubernetes mounts secrets
/// like that.
fn readable_by_all(path: &Path, what: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        let path = visible(&path.to_string_lossy());
        format!("every user of this machine can read the {what} in `{path}` (mode {:04o}); chmod 600 it", mode & 0o7777)
    })
}
