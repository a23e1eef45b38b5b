//! The table of settings: every key with its variable, flag, default, rule and meaning.
//!
//! Invariant: this table is the only list. [`Given`], the reader of the file, the reader of the environment and
//! `docs/configuration.md` are all made from it.
//!
//! Next: `config/mod.rs` for how the values are merged and checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Origin};
use super::script_config::{ScriptConfig, Secrets};
use super::value::{Environment, Hardening, LogFormat, Queue, Secret, Value};
use crate::job::visible;
use crate::permissions::{Ceiling, HttpPattern};
use crate::protocol::Protocol;
use crate::signatures::Policy;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// The key in the file; a point separates table and key.
    pub key: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The flag of the command line, empty when there is none.
    pub flag: &'static str,
    /// The default in words or as written.
    pub default: &'static str,
    /// What is accepted.
    pub rule: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// Whether a running host takes a new value on SIGHUP.
    pub is_live: bool,
    /// Whether the value is never shown.
    pub is_secret: bool,
}

impl KeySpec {
    /// The setting as the person wrote it, for messages.
    #[must_use]
    pub fn named_by(&self, origin: &Origin) -> String {
        match origin {
            Origin::Flag if !self.flag.is_empty() => format!("flag `{}`", self.flag),
            Origin::Environment(variable) => format!("environment variable `{variable}`"),
            Origin::Flag | Origin::File(_) | Origin::Default => format!("config key `{}`", self.key),
        }
    }
}

macro_rules! settings {
    ($(
        #[doc = $what:literal]
        $field:ident: $kind:ty = $key:literal, $variable:literal, $flag:literal, default $default:literal,
            rule $rule:literal, live $live:literal, secret $secret:literal;
    )*) => {
        /// What one source said: `None` is "nothing". Flags are handed over in this form by the command line.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Given {
            $(
                #[doc = $what]
                pub $field: Option<$kind>,
            )*
        }

        /// Every setting, in the order of the documentation.
        pub const KEYS: &[KeySpec] = &[
            $(KeySpec {
                key: $key,
                variable: $variable,
                flag: $flag,
                default: $default,
                rule: $rule,
                what: $what,
                is_live: $live,
                is_secret: $secret,
            },)*
        ];

        impl Given {
            fn set_toml(&mut self, key: &str, value: &toml::Value) -> Result<(), String> {
                match key {
                    $($key => self.$field = Some(<$kind as Value>::from_toml(value)?),)*
                    _ => {}
                }
                Ok(())
            }

            fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $($key => self.$field = Some(<$kind as Value>::from_text(text)?),)*
                    _ => {}
                }
                Ok(())
            }

            /// The value of a key as text; `None` when this source did not say.
            #[must_use]
            pub fn show(&self, key: &str) -> Option<String> {
                match key {
                    $($key => self.$field.as_ref().map(Value::show),)*
                    _ => None,
                }
            }
        }
    };
}

settings! {
    #[doc = "Where Redis is. A password in it is used and never shown; `redis.password_file` keeps it out of sight."]
    redis_url: String = "redis.url", "WASMHOST_REDIS", "--redis", default "`REDIS_ADDR` when set, else redis://127.0.0.1:6379",
        rule "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL (docs/redis.md)", live false, secret false;
    #[doc = "The password of Redis. Better in a file: `redis.password_file`."]
    redis_password: Secret = "redis.password", "WASMHOST_REDIS_PASSWORD", "", default "none",
        rule "text", live false, secret true;
    #[doc = "The file that holds the password of Redis; white space at its end is dropped."]
    redis_password_file: PathBuf = "redis.password_file", "WASMHOST_REDIS_PASSWORD_FILE", "--redis-password-file", default "none",
        rule "a readable file; one that every user can read is warned of", live false, secret false;
    #[doc = "Starts a private Redis in the data folder instead of using one."]
    redis_embedded: bool = "redis.embedded", "WASMHOST_EMBEDDED", "--embedded", default "false",
        rule "true or false; not together with a Redis URL of the same source", live false, secret false;
    #[doc = "How long a connection to Redis may take to open."]
    redis_connect_timeout: Duration = "redis.connect_timeout", "WASMHOST_REDIS_CONNECT_TIMEOUT", "", default "5s",
        rule "100ms to 1m", live false, secret false;
    #[doc = "How long a command that does not wait may take."]
    redis_command_timeout: Duration = "redis.command_timeout", "WASMHOST_REDIS_COMMAND_TIMEOUT", "", default "5s",
        rule "100ms to 1m", live false, secret false;
    #[doc = "How many connections short commands share. A second one is opened when a command comes while another is under way; what sleeps in Redis has connections of its own."]
    redis_pool: u64 = "redis.pool", "WASMHOST_REDIS_POOL", "", default "1",
        rule "1 to 16", live false, secret false;
    #[doc = "The authorities that may have signed the certificate of a `rediss://` server, in place of the public ones."]
    redis_ca_file: PathBuf = "redis.ca_file", "WASMHOST_REDIS_CA_FILE", "", default "the public authorities",
        rule "a readable PEM file; needs a `rediss` URL", live false, secret false;
    #[doc = "The certificate that this program shows to a `rediss://` server."]
    redis_cert_file: PathBuf = "redis.cert_file", "WASMHOST_REDIS_CERT_FILE", "", default "none",
        rule "a readable PEM file; together with `redis.key_file`", live false, secret false;
    #[doc = "The key of that certificate."]
    redis_key_file: PathBuf = "redis.key_file", "WASMHOST_REDIS_KEY_FILE", "", default "none",
        rule "a readable PEM file; together with `redis.cert_file`", live false, secret false;
    #[doc = "The file that holds the password of the Sentinels; `redis.password_file` is for the server that they name."]
    redis_sentinel_password_file: PathBuf = "redis.sentinel_password_file", "WASMHOST_REDIS_SENTINEL_PASSWORD_FILE", "", default "none",
        rule "a readable file; needs a `redis+sentinel` URL", live false, secret false;
    #[doc = "What every Redis key of our own begins with; hosts with the same prefix work together."]
    prefix: String = "prefix", "WASMHOST_PREFIX", "--prefix", default "wasmhost",
        rule "1 to 100 bytes without `:`, space, control characters and `* ? [ ] \\`; one hash tag `{..}` is allowed", live false, secret false;
    #[doc = "What the node's hashes (`workers:*`, `healthcheck:*`, `application`) begin with; other programs expect nothing. On a Redis Cluster they begin with `prefix` unless this is given."]
    node_prefix: String = "node_prefix", "WASMHOST_NODE_PREFIX", "--node-prefix", default "empty",
        rule "as `prefix`, or empty", live false, secret false;
    #[doc = "The queues that are served and their share under backlog."]
    queues: Vec<Queue> = "queues", "WASMHOST_QUEUES", "--queue", default "default=1",
        rule "names without `:`, each once, weight 1 to 100; at most 100 queues", live false, secret false;
    #[doc = "Serves the queues in the order given: a later one only gets what those before it leave over. In a file `queues` is then a list of names; the names of a table are in the order of the alphabet."]
    strict: bool = "strict", "WASMHOST_STRICT", "--strict", default "false",
        rule "true or false; not together with a weight other than 1", live false, secret false;
    #[doc = "Other systems whose messages are taken over: their lists are watched, and the queues of their jobs are served beside `queues`."]
    protocols: Vec<Protocol> = "protocols", "WASMHOST_PROTOCOL", "--protocol", default "none",
        rule "names of protocols: hero", live false, secret false;
    #[doc = "The script types of Hero whose lists `hero:q:work:type:{type}` are watched; their jobs are in the queues `hero-{type}`."]
    hero_types: Vec<String> = "protocol.hero.types", "WASMHOST_PROTOCOL_HERO_TYPES", "", default "osis,sal,v,python",
        rule "names without `:`, each once; 1 to 20", live false, secret false;
    #[doc = "How many jobs run at once."]
    concurrency: u64 = "concurrency", "WASMHOST_CONCURRENCY", "--concurrency", default "8 per core",
        rule "1 to 10000", live false, secret false;
    #[doc = "How long a job belongs to a host that is not heard of any more."]
    lease: Duration = "lease", "WASMHOST_LEASE", "--lease", default "30s",
        rule "500ms to 1h, at least twice `heartbeat`", live false, secret false;
    #[doc = "How often leases are extended."]
    heartbeat: Duration = "heartbeat", "WASMHOST_HEARTBEAT", "", default "a third of the lease, at most 10s",
        rule "50ms to 30m", live false, secret false;
    #[doc = "How long running jobs may take to end after SIGTERM; what is not done by then goes back to its queue."]
    grace: Duration = "grace", "WASMHOST_GRACE", "--grace", default "25s",
        rule "0s to 1h", live false, secret false;
    #[doc = "The name of this machine in the node's hashes and in job records."]
    node: String = "node", "WASMHOST_NODE", "--node", default "the host name",
        rule "1 to 64 letters, digits, `-`, `_` and `.`", live false, secret false;
    #[doc = "The number of the grid, for JumpScale's programs."]
    gid: u64 = "gid", "WASMHOST_GID", "--gid", default "1",
        rule "1 to 2147483647", live false, secret false;
    #[doc = "The number of the node, for JumpScale's programs; must differ between nodes."]
    nid: u64 = "nid", "WASMHOST_NID", "--nid", default "a number made from the node's name",
        rule "1 to 2147483647", live false, secret false;
    #[doc = "The roles of the node."]
    roles: Vec<String> = "roles", "WASMHOST_ROLES", "--role", default "none",
        rule "names without `:`; at most 100", live false, secret false;
    #[doc = "The folder whose jumpscripts are published, at start and whenever a file changes."]
    scripts: PathBuf = "scripts", "WASMHOST_SCRIPTS", "--scripts", default "none",
        rule "a folder", live false, secret false;
    #[doc = "Where jumpscripts may send HTTP requests, when their manifests ask for it. What is not public must be named by its address or whole name."]
    allow_http: Vec<HttpPattern> = "allow_http", "WASMHOST_ALLOW_HTTP", "--allow-http", default "none",
        rule "`HOST:PORT`: a name, `*.NAME`, an address (IPv6 in brackets) or `*`; a number or `*`; at most 100", live false, secret false;
    #[doc = "What jumpscripts may be given when their manifests ask for it: tables `[permissions.\"organization/name\"]`, `[permissions.\"organization/*\"]` and `[permissions.\"*\"]` (docs/permissions.md)."]
    permissions: Ceiling = "permissions", "WASMHOST_PERMISSIONS", "", default "none",
        rule "tables with the keys http, state, enqueue, env, files, config, secrets and facts; in the variable an inline table of TOML", live false, secret false;
    #[doc = "Allows every jumpscript whatever its manifest requests, but HTTP: for a developer's own code in `dev` and `exec`."]
    allow_requested: bool = "allow_requested", "WASMHOST_ALLOW_REQUESTED", "--allow-requested", default "false",
        rule "true or false", live false, secret false;
    #[doc = "Values that jumpscripts read when they may: tables `[script_config.\"organization/name\"]`, `[script_config.\"organization/*\"]` and `[script_config.\"*\"]`; for each key the most specific counts (docs/permissions.md)."]
    script_config: ScriptConfig = "script_config", "WASMHOST_SCRIPT_CONFIG", "", default "none",
        rule "tables of texts; in the variable an inline table of TOML", live true, secret false;
    #[doc = "Where the secrets of jumpscripts come from, by name; each is read when an attempt asks for it (docs/permissions.md)."]
    secrets: Secrets = "secrets", "WASMHOST_SECRETS", "", default "none",
        rule "`NAME = { env = \"VARIABLE\" }` or `NAME = { file = \"/path\" }`; in the variable an inline table of TOML", live true, secret true;
    #[doc = "The folder that has a file for each secret, as Kubernetes mounts them; `secrets` goes before it."]
    secrets_dir: PathBuf = "secrets_dir", "WASMHOST_SECRETS_DIR", "", default "none",
        rule "a folder", live true, secret false;
    #[doc = "Where the host serves health, metrics and the job API over HTTP. Without a token only on this machine."]
    http_listen: String = "http.listen", "WASMHOST_HTTP", "--http", default "none",
        rule "`ADDRESS:PORT`: an address, IPv6 in brackets, or localhost; port 0 takes a free one; without a token a loopback address", live false, secret false;
    #[doc = "The token that requests must bring. Better in a file: `http.token_file`."]
    http_token: Secret = "http.token", "WASMHOST_HTTP_TOKEN", "", default "none",
        rule "16 to 512 visible characters of ASCII, without spaces", live false, secret true;
    #[doc = "The file that holds the token; white space at its end is dropped."]
    http_token_file: PathBuf = "http.token_file", "WASMHOST_HTTP_TOKEN_FILE", "--http-token-file", default "none",
        rule "a readable file; one that every user can read is warned of", live false, secret false;
    #[doc = "Paths that need no token."]
    http_open: Vec<String> = "http.open", "WASMHOST_HTTP_OPEN", "", default "/healthz,/readyz",
        rule "of `/healthz`, `/readyz`, `/metrics` and `/v1/openapi.json`", live false, secret false;
    #[doc = "What is done with code that no trusted key has signed: nothing, a warning, or refuse to publish and to run it (docs/signing.md)."]
    signatures_policy: Policy = "signatures.policy", "WASMHOST_SIGNATURES_POLICY", "", default "off",
        rule "off, warn or require; the latter two need `signatures.trusted`", live false, secret false;
    #[doc = "The public keys whose signatures count."]
    signatures_trusted: Vec<String> = "signatures.trusted", "WASMHOST_SIGNATURES_TRUSTED", "", default "none",
        rule "base64 of public keys, or files with one key a line; at most 100 keys", live false, secret false;
    #[doc = "The folder of native code and of the embedded Redis; nobody else may write to it."]
    data: PathBuf = "data", "WASMHOST_DATA", "--data", default "/var/lib/wasmhost for root, else wasmhost in $XDG_STATE_HOME or ~/.local/state",
        rule "a folder; made when absent", live false, secret false;
    #[doc = "Which log lines are written: a level, or directives such as `info,wasmhost::worker=debug`."]
    log_level: String = "log.level", "WASMHOST_LOG", "--log", default "info",
        rule "error, warn, info, debug, trace or directives", live true, secret false;
    #[doc = "How log lines look; auto is text on a terminal and JSON otherwise."]
    log_format: LogFormat = "log.format", "WASMHOST_LOG_FORMAT", "--log-format", default "auto",
        rule "auto, text or json", live false, secret false;
    #[doc = "Delay before the second execution of a failed job, before jitter."]
    retry_base: Duration = "retry.base", "WASMHOST_RETRY_BASE", "", default "1s",
        rule "1ms to 1h, at most `retry.cap`", live false, secret false;
    #[doc = "Longest delay between two executions of a failed job."]
    retry_cap: Duration = "retry.cap", "WASMHOST_RETRY_CAP", "", default "10m",
        rule "1ms to 24h", live false, secret false;
    #[doc = "Linear memory that one job may have, in MiB; a manifest may ask for less."]
    limits_memory_mib: u64 = "limits.memory_mib", "WASMHOST_LIMITS_MEMORY_MIB", "", default "64",
        rule "1 to 4096", live false, secret false;
    #[doc = "How long the record and the result of a finished job are kept."]
    limits_done_ttl: Duration = "limits.done_ttl", "WASMHOST_LIMITS_DONE_TTL", "", default "24h",
        rule "1s to 30 days", live false, secret false;
    #[doc = "Sandboxes that can exist at once, waiting jobs included; 0 is as many as `concurrency` needs."]
    sandbox_pool: u64 = "sandbox.pool", "WASMHOST_SANDBOX_POOL", "", default "0",
        rule "0, or at least `concurrency` and at most 100000", live false, secret false;
    #[doc = "Files from this size on (KiB) run on quickly made code until their optimised code is there; 0 is every file, 65537 none."]
    sandbox_first_tier_kib: u64 = "sandbox.first_tier_kib", "WASMHOST_SANDBOX_FIRST_TIER_KIB", "", default "1024",
        rule "0 to 65537", live false, secret false;
    #[doc = "How much speed is given for defence in depth. What one job leaves in memories and tables is gone before the next in either. `strict` also wipes the native stack between jobs, and wipes memories without asking the kernel which pages were written."]
    sandbox_hardening: Hardening = "sandbox.hardening", "WASMHOST_SANDBOX_HARDENING", "--hardening", default "default",
        rule "default or strict", live false, secret false;
    #[doc = "How often the node checks its health."]
    health_interval: Duration = "health.interval", "WASMHOST_HEALTH_INTERVAL", "", default "10s",
        rule "100ms to 2m", live true, secret false;
    #[doc = "Free space of the data folder's file system in MiB: below it health is red, below twice as much amber."]
    health_disk_mib: u64 = "health.disk_mib", "WASMHOST_HEALTH_DISK_MIB", "", default "256",
        rule "0 (not checked) to 1048576", live true, secret false;
    #[doc = "Memory that is still available in MiB: below it health is red, below twice as much amber."]
    health_memory_mib: u64 = "health.memory_mib", "WASMHOST_HEALTH_MEMORY_MIB", "", default "128",
        rule "0 (not checked) to 1048576", live true, secret false;
    #[doc = "How long a loop of the worker may be silent before it counts as stalled."]
    health_stall: Duration = "health.stall", "WASMHOST_HEALTH_STALL", "", default "10s",
        rule "100ms to 1h", live true, secret false;
    #[doc = "How far the clocks of this machine and of Redis may lie apart before health is amber; ten times as far is red."]
    health_clock_skew: Duration = "health.clock_skew", "WASMHOST_HEALTH_CLOCK_SKEW", "", default "2s",
        rule "10ms to 1h", live true, secret false;
}

/// Variables of the environment that are read though they are no settings of the file.
pub const OTHER_VARIABLES: &[(&str, &str)] = &[
    ("WASMHOST_CONFIG", "the configuration file, when `--config` is not given"),
    ("REDIS_ADDR", "`host:port` of Redis, used when neither flag, `WASMHOST_REDIS` nor file names one"),
    ("KUBERNETES_SERVICE_HOST", "set by Kubernetes: jumpscripts never reach this address, whatever is allowed"),
    ("KUBERNETES_SERVICE_PORT", "the port of that address; 443 when it is not set"),
    ("NO_COLOR", "any value: no colours"),
    ("TERM", "`dumb`: no colours"),
];

/// The row of a key. Every key that the code asks for is in the table; a test holds it.
pub(super) fn spec(key: &str) -> &'static KeySpec {
    KEYS.iter().find(|spec| spec.key == key).unwrap_or(&KEYS[0])
}

impl Given {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// [`Error::Syntax`] with the line, [`Error::UnknownKey`] with the nearest key, [`Error::BadValue`] for a
    /// value of the wrong type.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, Error> {
        let shown = visible(&path.to_string_lossy());
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| Error::Syntax { path: shown.clone(), text: error.to_string() })?;
        let mut given = Self::default();
        given.take_table(&table, "", path)?;
        Ok(given)
    }

    fn take_table(&mut self, table: &toml::Table, section: &str, path: &Path) -> Result<(), Error> {
        for (name, value) in table {
            let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            if let Some(spec) = KEYS.iter().find(|spec| spec.key == key) {
                let origin = Origin::File(path.to_owned());
                self.set_toml(spec.key, value)
                    .map_err(|rule| Error::bad(spec, &origin, value.to_string().trim_matches('"'), rule))?;
            } else if let (true, toml::Value::Table(inner)) = (is_section(&key), value) {
                self.take_table(inner, &key, path)?;
            } else if is_section(&key) {
                return Err(Error::BadValue {
                    name: format!("config key `{key}`"),
                    value: visible(&value.to_string()),
                    rule: format!("must be a table `[{key}]`"),
                    hint: None,
                });
            } else {
                let path = visible(&path.to_string_lossy());
                return Err(Error::UnknownKey { nearest: nearest(&key), key: visible(&key), path });
            }
        }
        Ok(())
    }

    /// Reads the `WASMHOST_*` variables. An empty variable counts as not set. What looks like a misspelt variable
    /// is not refused, because Kubernetes puts variables of its own beside them (`WASMHOST_SERVICE_HOST`); it comes
    /// back as a note.
    ///
    /// # Errors
    /// [`Error::BadValue`] for a value of the wrong type.
    pub fn from_environment(environment: &Environment) -> Result<(Self, Vec<String>), Error> {
        let mut given = Self::default();
        for spec in KEYS {
            if let Some(text) = environment.get(spec.variable).filter(|text| !text.is_empty()) {
                given
                    .set_text(spec.key, text)
                    .map_err(|rule| Error::bad(spec, &Origin::Environment(spec.variable), text, rule))?;
            }
        }
        Ok((given, environment.keys().filter_map(|name| misspelt(name)).collect()))
    }
}

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|spec| spec.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that `key` most likely meant: the same word in another table, or a few letters away.
fn nearest(key: &str) -> Option<&'static str> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_lowercase();
    if let Some(spec) = KEYS.iter().find(|spec| leaf(spec.key) == leaf(key)) {
        return Some(spec.key);
    }
    let near = |candidate: &str, written: &str| {
        let distance = strsim::damerau_levenshtein(candidate, &written.to_lowercase());
        (distance <= (written.chars().count() / 3).max(2)).then_some(distance)
    };
    KEYS.iter()
        .filter_map(|spec| {
            let whole = near(spec.key, key);
            let end = near(&leaf(spec.key), &leaf(key)).map(|distance| distance + 1);
            whole.into_iter().chain(end).min().map(|distance| (distance, spec.key))
        })
        .chain(KEYS.iter().filter_map(|spec| {
            let (section, _) = spec.key.split_once('.')?;
            near(section, key).map(|distance| (distance, section))
        }))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
}

fn misspelt(name: &str) -> Option<String> {
    let known = || KEYS.iter().map(|spec| spec.variable).chain(OTHER_VARIABLES.iter().map(|(name, _)| *name));
    if !name.starts_with("WASMHOST_") || known().any(|variable| variable == name) {
        return None;
    }
    let (distance, variable) =
        known().map(|variable| (strsim::damerau_levenshtein(variable, name), variable)).min_by_key(|(d, _)| *d)?;
    (distance <= 2)
        .then(|| format!("environment variable `{}` is not known; did you mean `{variable}`?", visible(name)))
}
