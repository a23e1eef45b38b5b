//! Takes every value out of the highest source that has one, and checks it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::error::{Error, Origin};
use super::keys::{self, Given, KEYS};
use super::value::{Hardening, LogFormat, Queue, Secret, Value};
use super::{
    COMMAND_TIMEOUT, CONCURRENCY_MAX, CONCURRENCY_PER_CORE, CONNECT_TIMEOUT, Config, DONE_TTL, FIRST_TIER_KIB, GRACE,
    HEALTH_CLOCK_SKEW, HEALTH_DISK_MIB, HEALTH_INTERVAL, HEALTH_MEMORY_MIB, HEALTH_STALL, HEARTBEAT_DEFAULT_MAX,
    Health, LEASE, LEASE_MAX, LEASE_MIN, Limits, Log, MEMORY_MIB, POOL_MAX, PREFIX, REDIS_URL, Redis, RedisTls,
    Sandbox, Setting, Sources, readable_by_all,
};
use super::{check, redis_url};
use crate::job::{QUEUE, visible};
use crate::permissions::Ceiling;
use crate::protocol::{Protocol, hero};
use crate::retry::{self, RetryPolicy};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The sources side by side while values are taken out of them.
pub(super) struct Merge<'a> {
    pub(super) sources: &'a Sources,
    pub(super) environment: Given,
    pub(super) file: Given,
    pub(super) path: PathBuf,
    pub(super) settings: Vec<Setting>,
    pub(super) notes: Vec<String>,
}

impl Merge<'_> {
    pub(super) fn into_config(mut self) -> Result<Config, Error> {
        let redis = self.redis()?;
        let prefix = self.take("prefix", |g| g.prefix.clone(), || PREFIX.to_owned(), |v| check::check_prefix(v))?;
        let node_prefix =
            self.take("node_prefix", |g| g.node_prefix.clone(), String::new, |v| check::check_node_prefix(v))?;
        let default_queue = || vec![Queue { name: QUEUE.to_owned(), weight: 1 }];
        let queues = self.take("queues", |g| g.queues.clone(), default_queue, |v| check::check_queues(v))?;
        let is_strict = self.strict(&queues)?;
        let (protocols, hero_types) = self.protocols()?;
        let cores = self.sources.machine.cores;
        let concurrency = self.take(
            "concurrency",
            |g| g.concurrency,
            || cores.saturating_mul(CONCURRENCY_PER_CORE).clamp(1, CONCURRENCY_MAX),
            |n| check::within(n, 1, CONCURRENCY_MAX),
        )?;
        let (lease, heartbeat) = self.lease()?;
        let grace = self.take("grace", |g| g.grace, || GRACE, |d| check::between(d, Duration::ZERO, HOUR))?;
        let name = node_name(&self.sources.machine.name);
        let node = self.take("node", |g| g.node.clone(), || name, |v| check::check_node(v))?;
        let id = |n: &u64| check::within(n, 1, 0x7fff_ffff);
        let gid = self.take("gid", |g| g.gid, || 1, id)?;
        let nid = self.take("nid", |g| g.nid, || node_number(&node), id)?;
        let roles = self.take("roles", |g| g.roles.clone(), Vec::new, |v| check::check_roles(v))?;
        let scripts = self.take_optional("scripts", |g| g.scripts.clone());
        let allow_http = self.take("allow_http", |g| g.allow_http.clone(), Vec::new, |v| check::check_allow_http(v))?;
        let mut ceiling = self.take("permissions", |g| g.permissions.clone(), Ceiling::default, |_| Ok(()))?;
        ceiling.allow_http(&allow_http);
        if self.take("allow_requested", |g| g.allow_requested, || false, |_| Ok(()))? {
            ceiling.allow_requested();
        }
        let supplies = self.supplies()?;
        let http = self.http()?;
        let signatures = self.signatures()?;
        let data_default = data_folder(self.sources);
        let data = self.take("data", |g| g.data.clone(), || data_default, |_| Ok(()))?;
        let log = Log {
            level: self.take(
                "log.level",
                |g| g.log_level.clone(),
                || "info".to_owned(),
                |v| check::check_log_level(v),
            )?,
            format: self.take("log.format", |g| g.log_format, LogFormat::default, |_| Ok(()))?,
        };
        let retry = self.retry()?;
        let memory = |n: &u64| check::within(n, 1, 4096);
        let limits = Limits {
            memory_bytes_max: check::mebibytes(self.take(
                "limits.memory_mib",
                |g| g.limits_memory_mib,
                || MEMORY_MIB,
                memory,
            )?),
            done_ttl: self.take(
                "limits.done_ttl",
                |g| g.limits_done_ttl,
                || DONE_TTL,
                |d| check::between(d, SECOND, 30 * DAY),
            )?,
        };
        let sandbox = self.sandbox(concurrency)?;
        let health = self.health()?;
        let kubernetes_api = kubernetes_api(self.sources);
        debug_assert_eq!(self.settings.len(), KEYS.len());
        self.settings.sort_by_key(|setting| KEYS.iter().position(|spec| spec.key == setting.key));
        Ok(Config {
            redis,
            prefix,
            node_prefix,
            queues,
            is_strict,
            protocols,
            hero_types,
            concurrency: check::to_usize(concurrency),
            lease,
            heartbeat,
            grace,
            node,
            gid: u32::try_from(gid).unwrap_or(u32::MAX),
            nid: u32::try_from(nid).unwrap_or(u32::MAX),
            roles,
            scripts,
            allow_http,
            ceiling,
            supplies,
            kubernetes_api,
            http,
            signatures,
            data,
            log,
            retry,
            limits,
            sandbox,
            health,
            settings: self.settings,
            notes: self.notes,
        })
    }

    fn redis(&mut self) -> Result<Redis, Error> {
        let (url, url_origin) = self.redis_url();
        let spec = keys::spec("redis.url");
        let (shown, _) =
            redis_url::split(&url).map_err(|rule| Error::bad(spec, &url_origin, &redis_url::redacted(&url), rule))?;
        let password = self.password()?;
        let embedded = self.find("redis.embedded", |given| given.redis_embedded);
        let is_embedded = match &embedded {
            Some((true, origin)) => {
                if rank(origin) == rank(&url_origin) {
                    return Err(Error::bad(
                        keys::spec("redis.embedded"),
                        origin,
                        "true",
                        "but a Redis URL is given too",
                    )
                    .with_hint("name a Redis, or let the host start its own; not both"));
                }
                rank(origin) < rank(&url_origin)
            }
            _ => false,
        };
        let embedded_origin = embedded.map_or(Origin::Default, |(_, origin)| origin);
        self.note("redis.url", shown.clone(), url_origin);
        self.note("redis.embedded", is_embedded.to_string(), embedded_origin);
        let limits = |d: &Duration| check::between(d, 100 * MILLISECOND, MINUTE);
        let tls = self.redis_tls(&shown)?;
        let sentinel_password = self.sentinel_password(&shown)?;
        Ok(Redis {
            url: shown,
            // The private server asks for none: its socket is the user's own.
            password: password.filter(|_| !is_embedded),
            is_embedded,
            connect_timeout: self.take(
                "redis.connect_timeout",
                |g| g.redis_connect_timeout,
                || CONNECT_TIMEOUT,
                limits,
            )?,
            command_timeout: self.take(
                "redis.command_timeout",
                |g| g.redis_command_timeout,
                || COMMAND_TIMEOUT,
                limits,
            )?,
            pool: check::to_usize(self.take(
                "redis.pool",
                |g| g.redis_pool,
                || 1,
                |n| check::within(n, 1, POOL_MAX),
            )?),
            tls,
            sentinel_password,
        })
    }

    fn redis_tls(&mut self, url: &str) -> Result<RedisTls, Error> {
        let tls = RedisTls {
            ca_file: self.take_optional("redis.ca_file", |g| g.redis_ca_file.clone()),
            cert_file: self.take_optional("redis.cert_file", |g| g.redis_cert_file.clone()),
            key_file: self.take_optional("redis.key_file", |g| g.redis_key_file.clone()),
        };
        let is_tls = redis_url::redis_parts(url).is_ok_and(|parts| parts.is_tls);
        for (key, file, other) in [
            ("redis.ca_file", &tls.ca_file, None),
            ("redis.cert_file", &tls.cert_file, Some((&tls.key_file, "redis.key_file"))),
            ("redis.key_file", &tls.key_file, Some((&tls.cert_file, "redis.cert_file"))),
        ] {
            let Some(path) = file else { continue };
            let rule = match other {
                _ if !is_tls => format!("but the URL `{url}` is not one of TLS, such as rediss://HOST:PORT"),
                Some((None, missing)) => format!("but `{missing}` is not given"),
                _ => match std::fs::File::open(path) {
                    Ok(_) => continue,
                    Err(error) => format!("which cannot be read: {error}"),
                },
            };
            return Err(Error::bad(keys::spec(key), &self.origin_of(key), &path.show(), rule));
        }
        if let Some(path) = &tls.key_file {
            self.notes.extend(readable_by_all(path, "key"));
        }
        Ok(tls)
    }

    fn sentinel_password(&mut self, url: &str) -> Result<Option<Secret>, Error> {
        let key = "redis.sentinel_password_file";
        let Some(path) = self.take_optional(key, |g| g.redis_sentinel_password_file.clone()) else { return Ok(None) };
        let origin = self.origin_of(key);
        if !redis_url::redis_parts(url).is_ok_and(|parts| matches!(parts.way, redis_url::RedisWay::Sentinel(_))) {
            let rule = format!("but the URL `{url}` names no Sentinels, as redis+sentinel://HOST:PORT/SERVICE does");
            return Err(Error::bad(keys::spec(key), &origin, &path.show(), rule));
        }
        self.secret_from(key, "password", &path, &origin).map(Some)
    }

    /// Where a value that was taken came from.
    fn origin_of(&self, key: &str) -> Origin {
        self.settings.iter().find(|setting| setting.key == key).map_or(Origin::Default, |found| found.origin.clone())
    }

    /// The URL with its password. `REDIS_ADDR` comes last, because other programs set it for themselves.
    fn redis_url(&self) -> (String, Origin) {
        if let Some(found) = self.find("redis.url", |given| given.redis_url.clone()) {
            return found;
        }
        match self.sources.environment.get("REDIS_ADDR").filter(|address| !address.trim().is_empty()) {
            Some(address) => (redis_url::from_address(address), Origin::Environment("REDIS_ADDR")),
            None => (REDIS_URL.to_owned(), Origin::Default),
        }
    }

    /// The password of the highest source that gives one; within a source a value or file goes before the URL's.
    fn password(&mut self) -> Result<Option<Secret>, Error> {
        let (mut password, mut origin, mut file) = (None, Origin::Default, None);
        for (given, from) in self.by_rank() {
            let named = |key: &'static str| named(key, &from);
            let keys = ("redis.password", "redis.password_file");
            if let Some(found) = self.secret(keys, &from, given.redis_password, given.redis_password_file)? {
                (password, origin, file) = (Some(found.word), found.origin, found.file);
            } else if let Some(word) = given.redis_url.as_deref().and_then(|url| redis_url::split(url).ok()?.1) {
                if from == Origin::Flag {
                    self.notes.push(
                        "the password of Redis is in a flag, where every user of this machine can see it; use \
                         `--redis-password-file` or WASMHOST_REDIS_PASSWORD"
                            .to_owned(),
                    );
                }
                (password, origin) = (Some(word), named("redis.url"));
            }
            if password.is_some() {
                break;
            }
        }
        if let (None, Some(address)) = (&password, self.sources.environment.get("REDIS_ADDR")) {
            let (_, url_origin) = self.redis_url();
            if url_origin == Origin::Environment("REDIS_ADDR")
                && let Ok((_, Some(word))) = redis_url::split(&redis_url::from_address(address))
            {
                (password, origin) = (Some(word), url_origin);
            }
        }
        self.note_secret(("redis.password", "redis.password_file"), password.is_some(), file, origin);
        Ok(password)
    }

    fn secret_from(&mut self, key: &str, what: &str, path: &Path, origin: &Origin) -> Result<Secret, Error> {
        let spec = keys::spec(key);
        let bad = |rule: String| Error::bad(spec, origin, &path.to_string_lossy(), rule);
        let text = std::fs::read_to_string(path).map_err(|error| bad(format!("which cannot be read: {error}")))?;
        let word = text.trim_end();
        if word.is_empty() {
            return Err(bad("which is empty".to_owned()));
        }
        self.notes.extend(readable_by_all(path, what));
        Ok(Secret::new(word))
    }

    /// The secret that one source gives, as a value or as a file; both are refused.
    pub(super) fn secret(
        &mut self,
        (value_key, file_key): (&'static str, &'static str),
        from: &Origin,
        word: Option<Secret>,
        file: Option<PathBuf>,
    ) -> Result<Option<Found>, Error> {
        let what = value_key.rsplit('.').next().unwrap_or_default();
        let spec = keys::spec(file_key);
        match (word, file) {
            (Some(_), Some(path)) => {
                let rule = format!("but a {what} is given beside it");
                Err(Error::bad(spec, &named(file_key, from), &path.show(), rule)
                    .with_hint("keep the file, drop the other"))
            }
            (Some(word), None) => Ok(Some(Found { word, origin: named(value_key, from), file: None })),
            (None, Some(path)) => {
                let origin = named(file_key, from);
                let word = self.secret_from(file_key, what, &path, &origin)?;
                Ok(Some(Found { word, origin, file: Some(path) }))
            }
            (None, None) => Ok(None),
        }
    }

    /// The three sources, each with its origin, the highest first.
    pub(super) fn by_rank(&self) -> [(Given, Origin); 3] {
        [
            (self.sources.flags.clone(), Origin::Flag),
            (self.environment.clone(), Origin::Environment("")),
            (self.file.clone(), Origin::File(self.path.clone())),
        ]
    }

    /// Notes a secret and its file as they are shown.
    pub(super) fn note_secret(
        &mut self,
        (value_key, file_key): (&'static str, &'static str),
        is_set: bool,
        file: Option<PathBuf>,
        origin: Origin,
    ) {
        let file_origin = if file.is_some() { origin.clone() } else { Origin::Default };
        self.note(value_key, if is_set { "***".to_owned() } else { String::new() }, origin);
        self.note(file_key, file.map(|path| path.show()).unwrap_or_default(), file_origin);
    }

    fn strict(&mut self, queues: &[Queue]) -> Result<bool, Error> {
        let weighted = queues.iter().find(|queue| queue.weight != 1);
        let rule = |is_strict: &bool| match weighted.filter(|_| *is_strict) {
            Some(Queue { name, weight }) => Err(format!(
                "but queue `{}` has the weight {weight}: leave out the weights, or `strict`",
                visible(name)
            )),
            None => Ok(()),
        };
        self.take("strict", |g| g.strict, || false, rule)
    }

    fn protocols(&mut self) -> Result<(Vec<Protocol>, Vec<String>), Error> {
        let protocols = self.take("protocols", |g| g.protocols.clone(), Vec::new, |v| check::check_protocols(v))?;
        let types = || hero::TYPES.map(str::to_owned).to_vec();
        let hero_types = self.take(
            "protocol.hero.types",
            |g| g.hero_types.clone(),
            types,
            |v| check::check_types(Protocol::Hero, v),
        )?;
        Ok((protocols, hero_types))
    }

    fn lease(&mut self) -> Result<(Duration, Duration), Error> {
        let lease = self.take("lease", |g| g.lease, || LEASE, |d| check::between(d, LEASE_MIN, LEASE_MAX))?;
        let heartbeat = self.take(
            "heartbeat",
            |g| g.heartbeat,
            || (lease / 3).min(HEARTBEAT_DEFAULT_MAX),
            |d| {
                check::between(d, 50 * MILLISECOND, LEASE_MAX / 2)?;
                if *d > lease / 2 {
                    return Err(format!("must be at most half of `lease`, which is {}", lease.show()));
                }
                Ok(())
            },
        )?;
        Ok((lease, heartbeat))
    }

    fn retry(&mut self) -> Result<RetryPolicy, Error> {
        let cap = self.take(
            "retry.cap",
            |g| g.retry_cap,
            || retry::CAP,
            |d| check::between(d, retry::DELAY_MIN, retry::CAP_MAX),
        )?;
        let base = self.take(
            "retry.base",
            |g| g.retry_base,
            || retry::BASE.min(cap),
            |d| {
                check::between(d, retry::DELAY_MIN, retry::BASE_MAX)?;
                if *d > cap { Err(format!("must be at most `retry.cap`, which is {}", cap.show())) } else { Ok(()) }
            },
        )?;
        Ok(RetryPolicy { base, cap })
    }

    fn sandbox(&mut self, concurrency: u64) -> Result<Sandbox, Error> {
        let pool_rule = |n: &u64| match *n {
            0 => Ok(()),
            n if n < concurrency => Err(format!("must be 0 or at least `concurrency` ({concurrency})")),
            _ => check::within(n, 0, 100_000),
        };
        Ok(Sandbox {
            pool_size: check::to_usize(self.take("sandbox.pool", |g| g.sandbox_pool, || 0, pool_rule)?),
            first_tier_kib: check::to_usize(self.take(
                "sandbox.first_tier_kib",
                |g| g.sandbox_first_tier_kib,
                || FIRST_TIER_KIB,
                |n| check::within(n, 0, 65_537),
            )?),
            hardening: self.take("sandbox.hardening", |g| g.sandbox_hardening, Hardening::default, |_| Ok(()))?,
        })
    }

    fn health(&mut self) -> Result<Health, Error> {
        let size = |n: &u64| check::within(n, 0, 1024 * 1024);
        let (from, to) = (100 * MILLISECOND, 2 * MINUTE);
        Ok(Health {
            interval: self.take(
                "health.interval",
                |g| g.health_interval,
                || HEALTH_INTERVAL,
                |d| check::between(d, from, to),
            )?,
            disk_bytes_min: check::mebibytes(self.take(
                "health.disk_mib",
                |g| g.health_disk_mib,
                || HEALTH_DISK_MIB,
                size,
            )?) as u64,
            memory_bytes_min: check::mebibytes(self.take(
                "health.memory_mib",
                |g| g.health_memory_mib,
                || HEALTH_MEMORY_MIB,
                size,
            )?) as u64,
            stall: self.take("health.stall", |g| g.health_stall, || HEALTH_STALL, |d| check::between(d, from, HOUR))?,
            clock_skew: self.take(
                "health.clock_skew",
                |g| g.health_clock_skew,
                || HEALTH_CLOCK_SKEW,
                |d| check::between(d, 10 * MILLISECOND, HOUR),
            )?,
        })
    }

    /// The value of the highest source that has one.
    pub(super) fn find<T>(&self, key: &str, pick: impl Fn(&Given) -> Option<T>) -> Option<(T, Origin)> {
        pick(&self.sources.flags)
            .map(|value| (value, Origin::Flag))
            .or_else(|| pick(&self.environment).map(|value| (value, Origin::Environment(keys::spec(key).variable))))
            .or_else(|| pick(&self.file).map(|value| (value, Origin::File(self.path.clone()))))
    }

    pub(super) fn take<T: Value>(
        &mut self,
        key: &'static str,
        pick: impl Fn(&Given) -> Option<T>,
        default: impl FnOnce() -> T,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<T, Error> {
        let spec = keys::spec(key);
        let (value, origin) = self.find(key, pick).unwrap_or_else(|| (default(), Origin::Default));
        check(&value).map_err(|rule| Error::bad(spec, &origin, &value.show(), rule))?;
        self.note(key, value.show(), origin);
        Ok(value)
    }

    pub(super) fn take_optional<T: Value>(
        &mut self,
        key: &'static str,
        pick: impl Fn(&Given) -> Option<T>,
    ) -> Option<T> {
        let (value, origin) =
            self.find(key, pick).map_or((None, Origin::Default), |(value, origin)| (Some(value), origin));
        self.note(key, value.as_ref().map(Value::show).unwrap_or_default(), origin);
        value
    }

    /// Where a value came from that was taken.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    pub(super) fn note(&mut self, key: &'static str, value: String, origin: Origin) {
        self.settings.push(Setting { key, value, origin });
    }
}

/// A secret, where it came from, and its file when it has one.
pub(super) struct Found {
    pub(super) word: Secret,
    pub(super) origin: Origin,
    pub(super) file: Option<PathBuf>,
}

/// Where a key's value came from, when the source is known.
fn named(key: &'static str, from: &Origin) -> Origin {
    match from {
        Origin::Environment(_) => Origin::Environment(keys::spec(key).variable),
        other => other.clone(),
    }
}

/// The weight of a source: a smaller number goes before a larger one.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Flag => 0,
        // The variable of another program counts less than anything that was said to this one.
        Origin::Environment("REDIS_ADDR") => 3,
        Origin::Environment(_) => 1,
        Origin::File(_) => 2,
        Origin::Default => 4,
    }
}

/// A node's name made of the host name: other characters become `-`.
fn node_name(host_name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = host_name.chars().take(64).map(|c| if is_plain(c) { c } else { '-' }).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// A number that stays the same for a name and hardly ever meets another one.
fn node_number(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    let number = digest.iter().take(4).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    (number & 0x7fff_ffff).max(1)
}

/// The API of Kubernetes, as it tells every container.
fn kubernetes_api(sources: &Sources) -> Option<(String, u16)> {
    let host = sources.environment.get("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
    let port = sources.environment.get("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
    Some((host.clone(), port.unwrap_or(443)))
}

fn data_folder(sources: &Sources) -> PathBuf {
    let variable = |name: &str| sources.environment.get(name).filter(|path| path.starts_with('/')).map(PathBuf::from);
    if sources.machine.is_root {
        return PathBuf::from("/var/lib/wasmhost");
    }
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .map_or_else(|| PathBuf::from(".wasmhost"), |base| base.join("wasmhost"))
}
