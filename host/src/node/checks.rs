//! The built-in checks of a node: what is looked at, which limit it has, and how it is told.
//!
//! Invariant: a check never fails. What cannot be measured is an error of that check, and its text names the value
//! and the limit.
//!
//! Next: `node/health.rs` for when they run, `node/doctor.rs` for the same checks by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::format_duration;
use crate::config::Health;
use crate::job::visible;
use crate::ports::Pulse;
use crate::sandbox::{MAPS_FOR_THE_REST, MAPS_PER_INSTANCE};
use crate::signatures::Fault;
use crate::store;
use crate::store::node::ServerFacts;
use crate::supplies::machine;

/// Share of Redis's memory in percent at which health is amber.
const REDIS_MEMORY_AMBER: u64 = 80;
/// Share of Redis's memory in percent at which health is red.
const REDIS_MEMORY_RED: u64 = 95;
/// Round trip to Redis at which health is amber.
const REDIS_ROUND_TRIP_AMBER: Duration = Duration::from_millis(500);
/// Longest time the disk check waits for the file system.
const DISK_LIMIT: Duration = Duration::from_secs(5);

const MIB: u64 = 1024 * 1024;

/// How well a component is. The words are JumpScale's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Within its limit, or not checked because its limit is 0.
    Ok,
    /// Works, but somebody should look at it.
    Warning,
    /// Does not work, or soon will not.
    Error,
}

impl State {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The component, as in `healthcheck:status`.
    pub component: String,
    /// The category in `healthcheck:monitoring`.
    pub category: &'static str,
    /// How well it is.
    pub state: State,
    /// One line with value and limit.
    pub text: String,
    /// What to do about it; empty when it is well.
    pub remedy: String,
    /// The entry in `healthcheck:monitoring`, without `message`.
    pub entry: Map<String, Value>,
}

impl Check {
    fn new(component: impl Into<String>, category: &'static str, found: Found) -> Self {
        let component = component.into();
        let mut entry = Map::new();
        entry.insert("name".to_owned(), Value::from(component.clone()));
        entry.insert("state".to_owned(), Value::from(found.state.as_str()));
        Self { component, category, state: found.state, text: found.text, remedy: found.remedy, entry }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.entry.insert(name.to_owned(), value);
        self
    }
}

/// State, text and remedy of one look.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    state: State,
    text: String,
    remedy: String,
}

impl Found {
    fn ok(text: impl Into<String>) -> Self {
        Self { state: State::Ok, text: text.into(), remedy: String::new() }
    }

    fn warning(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Warning, text: text.into(), remedy: remedy.into() }
    }

    fn error(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Error, text: text.into(), remedy: remedy.into() }
    }

    /// Below the limit is red, below twice the limit amber.
    fn at_least(what: &str, value: u64, limit: u64, remedy: &str) -> Self {
        let text = format!("{what}: {}, limit {}", size(value), size(limit));
        if limit == 0 {
            Self::ok(format!("{what}: {}, no limit", size(value)))
        } else if value < limit {
            Self::error(text, remedy)
        } else if value < limit.saturating_mul(2) {
            Self::warning(text, remedy)
        } else {
            Self::ok(text)
        }
    }
}

/// A loop that must not stall.
#[derive(Clone, Debug)]
pub struct Loop {
    /// What it is called in texts.
    pub name: String,
    /// The queue that stalls with it; `None` when all do.
    pub queue: Option<String>,
    /// Its pulse.
    pub pulse: Arc<Pulse>,
}

/// Free space and inodes of the file system of `folder`.
pub async fn disk(folder: &Path, limits: &Health) -> Check {
    let existing = existing_ancestor(folder);
    let path = existing.clone();
    let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path));
    let shown = visible(&existing.to_string_lossy());
    let remedy = format!("free space on the file system of `{shown}`, or move `data`; the limit is `health.disk_mib`");
    let found = match tokio::time::timeout(DISK_LIMIT, asked).await {
        Ok(Ok(Ok(stat))) => {
            let (free, total) =
                (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
            let found = if stat.f_files > 0 && stat.f_favail == 0 && limits.disk_bytes_min > 0 {
                Found::error(format!("disk `{shown}`: no free inode, limit 1"), &remedy)
            } else {
                Found::at_least(&format!("free on disk `{shown}`"), free, limits.disk_bytes_min, &remedy)
            };
            return Check::new("disks", "disks", found)
                .with("path", Value::from(shown))
                .with("free", Value::from(free))
                .with("size", Value::from(total));
        }
        Ok(Ok(Err(error))) => Found::error(format!("disk `{shown}` cannot be asked: {error}"), &remedy),
        Ok(Err(_)) | Err(_) => Found::error(
            format!("disk `{shown}` did not answer within {}", format_duration(DISK_LIMIT)),
            "look for a network file system that hangs",
        ),
    };
    Check::new("disks", "disks", found).with("path", Value::from(shown))
}

/// A folder that is not there yet lies on the file system of its nearest ancestor.
fn existing_ancestor(folder: &Path) -> PathBuf {
    folder
        .ancestors()
        .find(|path| !path.as_os_str().is_empty() && path.exists())
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Memory that is still available to this process: of the machine, or of its control group when that is less.
#[must_use]
pub fn memory(limits: &Health) -> Check {
    let remedy = "lower `concurrency` or `limits.memory_mib`, or give the machine more memory; the limit is \
                  `health.memory_mib`";
    let of_machine = meminfo("MemAvailable");
    let of_group = machine::control_group_available();
    let available = match (of_machine, of_group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (one, other) => one.or(other),
    };
    let Some(available) = available else {
        let found = Found::warning("available memory: not known, /proc/meminfo does not say", remedy);
        return Check::new("memory", "memory", found);
    };
    let what = if of_group == Some(available) { "available memory (control group)" } else { "available memory" };
    Check::new("memory", "memory", Found::at_least(what, available, limits.memory_bytes_min, remedy))
        .with("available", Value::from(available))
}

/// Swap: when it is on, sandboxes are reset more slowly and guests' memory may reach the disk.
#[must_use]
pub fn swap() -> Check {
    let (total, free) = (meminfo("SwapTotal").unwrap_or(0), meminfo("SwapFree").unwrap_or(0));
    let used = total.saturating_sub(free);
    let found = if total == 0 {
        Found::ok("swap: off")
    } else if used > total / 2 {
        Found::warning(
            format!("swap: {} of {} used, limit half", size(used), size(total)),
            "the machine is short of memory: lower `concurrency`, or give it more",
        )
    } else {
        Found::ok(format!("swap: {} of {} used, limit half", size(used), size(total)))
    };
    Check::new("swap", "memory", found).with("used", Value::from(used)).with("size", Value::from(total))
}

/// Memory maps that the kernel allows, against what the pool needs.
#[must_use]
pub fn map_count(pool_size: usize) -> Check {
    let needed = (pool_size as u64).saturating_mul(MAPS_PER_INSTANCE).saturating_add(MAPS_FOR_THE_REST);
    let allowed = machine::read_number("/proc/sys/vm/max_map_count");
    let found = match allowed {
        None => Found::ok(format!("memory maps: {needed} needed for {pool_size} sandboxes, the kernel names no limit")),
        Some(allowed) if allowed < needed => Found::error(
            format!("memory maps: {needed} needed for {pool_size} sandboxes, limit {allowed} (vm.max_map_count)"),
            format!("sysctl -w vm.max_map_count={needed}, or lower `sandbox.pool` and `concurrency`"),
        ),
        Some(allowed) => Found::ok(format!(
            "memory maps: {needed} needed for {pool_size} sandboxes, limit {allowed} (vm.max_map_count)"
        )),
    };
    Check::new("map_count", "memory", found).with("needed", Value::from(needed)).with("limit", json!(allowed))
}

/// The loops of the worker: how long each has been silent.
#[must_use]
pub fn loops(loops: &[Loop], limits: &Health) -> Check {
    let limit = format_duration(limits.stall);
    let oldest = loops.iter().map(|l| (l.pulse.age(), l.name.as_str())).max();
    let stalled: Vec<String> = loops
        .iter()
        .filter(|l| l.pulse.age() > limits.stall)
        .map(|l| format!("`{}` silent for {:.1}s", visible(&l.name), l.pulse.age().as_secs_f64()))
        .collect();
    let found = match (stalled.is_empty(), oldest) {
        (true, Some((age, name))) => {
            Found::ok(format!("worker loops: `{}` silent for {:.1}s, limit {limit}", visible(name), age.as_secs_f64()))
        }
        (true, None) => Found::ok("worker loops: none runs"),
        (false, _) => Found::error(
            format!("worker loops: {}, limit {limit}", stalled.join(", ")),
            "look for a busy processor or a hanging disk; the log says what the loop did last",
        ),
    };
    Check::new("loops", "workers", found)
}

/// The distance between the clock of this machine and that of Redis. Leases do not depend on it, reports do.
#[must_use]
pub fn clock(clock_ahead_ms: i64, limits: &Health) -> Check {
    let distance = Duration::from_millis(clock_ahead_ms.unsigned_abs());
    let direction = if clock_ahead_ms < 0 { "ahead of" } else { "behind" };
    let text = format!(
        "clock: {:.3}s {direction} that of Redis, limit {}",
        distance.as_secs_f64(),
        format_duration(limits.clock_skew)
    );
    let remedy = "synchronise the clocks (chrony, systemd-timesyncd)";
    let found = if distance > limits.clock_skew.saturating_mul(10) {
        Found::error(text, remedy)
    } else if distance > limits.clock_skew {
        Found::warning(text, remedy)
    } else {
        Found::ok(text)
    };
    Check::new("clock", "clock", found).with("ahead_ms", Value::from(clock_ahead_ms))
}

/// Redis: whether it answers, its memory, what it does when that is full, and whether it keeps what it has.
#[must_use]
pub fn redis(address: &str, answer: &Result<ServerFacts, store::Error>) -> Check {
    let port = address.rsplit_once(':').map_or("unix", |(_, port)| port);
    let component = redis_component(address);
    let shown = visible(address);
    let port = port.parse::<u16>().map_or_else(|_| Value::from(port), Value::from);
    match answer {
        Err(error) => {
            let remedy = error.hint().unwrap_or_else(|| "look at the server's log".to_owned());
            let is_away = matches!(error, store::Error::Unreachable { .. } | store::Error::TimedOut { .. });
            let state = if is_away { "HALTED" } else { "BROKEN" };
            Check::new(component, "redis", Found::error(error.to_string(), remedy))
                .with("port", port)
                .with("state", Value::from(state))
        }
        Ok(facts) => {
            let mut looks = redis_looks(&shown, facts);
            // The worst first: it is what the component shows; equals stay in their order.
            looks.sort_by_key(|found| std::cmp::Reverse(found.state));
            let state = looks[0].state;
            let worst = looks.iter().filter(|found| found.state == state);
            let text = worst.clone().map(|found| found.text.as_str()).collect::<Vec<_>>().join("; ");
            let remedy =
                worst.map(|found| found.remedy.as_str()).filter(|r| !r.is_empty()).collect::<Vec<_>>().join("; ");
            let word = if state == State::Error { "BROKEN" } else { "RUNNING" };
            Check::new(component, "redis", Found { state, text, remedy })
                .with("port", port)
                .with("memory_usage", Value::from(facts.used_bytes))
                .with("state", Value::from(word))
        }
    }
}

/// The component of a Redis, `redis:<port>`.
#[must_use]
pub fn redis_component(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => format!("redis:{port}"),
        _ => "redis:unix".to_owned(),
    }
}

fn redis_looks(address: &str, facts: &ServerFacts) -> Vec<Found> {
    let mut looks = Vec::with_capacity(5);
    let answered = format!(
        "Redis `{address}` {} answered in {:.1}ms, limit {}",
        facts.version,
        facts.round_trip.as_secs_f64() * 1000.0,
        format_duration(REDIS_ROUND_TRIP_AMBER)
    );
    looks.push(if facts.is_loading {
        Found::error(format!("Redis `{address}` is still loading its data"), "wait until it is done")
    } else if facts.role == "slave" {
        Found::error(format!("Redis `{address}` is a replica, jobs need a master"), "name the master's address")
    } else if facts.round_trip > REDIS_ROUND_TRIP_AMBER {
        Found::warning(answered, "look for slow commands (redis-cli slowlog get) and a busy machine")
    } else {
        Found::ok(answered)
    });
    let used = facts.used_bytes;
    let more = "raise maxmemory, or let the queues drain";
    looks.push(match (used.saturating_mul(100)).checked_div(facts.max_bytes) {
        None => Found::ok(format!("memory {}, no maxmemory", size(used))),
        Some(percent) => {
            let limit = format!("limit {REDIS_MEMORY_RED}% of {}", size(facts.max_bytes));
            let text = format!("Redis `{address}` uses {} of memory ({percent}%), {limit}", size(used));
            if percent >= REDIS_MEMORY_RED {
                Found::error(text, more)
            } else if percent >= REDIS_MEMORY_AMBER {
                Found::warning(text, more)
            } else {
                Found::ok(text)
            }
        }
    });
    if facts.eviction.starts_with("allkeys-") {
        looks.push(Found::error(
            format!(
                "Redis `{address}` has maxmemory-policy `{}`: it drops jobs when its memory is full",
                facts.eviction
            ),
            "redis-cli config set maxmemory-policy noeviction",
        ));
    }
    if !facts.is_aof_ok || !facts.is_snapshot_ok {
        looks.push(Found::error(
            format!("Redis `{address}` could not write its data to disk (append-only file or snapshot)"),
            "look at the server's log and its disk",
        ));
    } else if !facts.has_aof {
        looks.push(Found::warning(
            format!(
                "Redis `{address}` has no append-only file: {} writes since its last snapshot would be lost",
                facts.unsaved_changes
            ),
            "redis-cli config set appendonly yes",
        ));
    }
    looks
}

/// The node's hashes: keys that somebody gave another type are not written, and the programs that read them see
/// nothing.
#[must_use]
pub fn hashes(wrong_keys: &[(String, String)]) -> Check {
    let found = if wrong_keys.is_empty() {
        Found::ok("node hashes: 0 of another type, limit 0")
    } else {
        let named: Vec<String> =
            wrong_keys.iter().map(|(key, kind)| format!("`{}` is a {kind}", visible(key))).collect();
        Found::error(
            format!("node hashes: {}, must be a hash", named.join(", ")),
            "find out who wrote the key, then `redis-cli del` it",
        )
    };
    Check::new("hashes", "hashes", found)
}

/// Files of the scripts folder that cannot be published. The code published before stays live, so this is amber.
#[must_use]
pub fn scripts(faults: &[String]) -> Check {
    let found = match faults {
        [] => Found::ok("scripts folder: 0 files refused, limit 0"),
        [first, ..] => Found::warning(
            format!("scripts folder: {} files refused, limit 0; the first: {first}", faults.len()),
            "mend or remove the file; what was published before stays live",
        ),
    };
    Check::new("scripts", "scripts", found)
}

/// Published jumpscripts that request what nobody has granted. Their jobs are rejected, others go on: amber.
#[must_use]
pub fn permissions(denied: &[String]) -> Check {
    let found = match denied {
        [] => Found::ok("permissions: 0 jumpscripts without a grant, limit 0"),
        [first, ..] => Found::warning(
            format!("permissions: {} jumpscripts without a grant, limit 0; the first: {first}", denied.len()),
            "grant what it requests, or publish a version that requests less",
        ),
    };
    Check::new("permissions", "permissions", found)
}

/// Live code that no trusted key vouches for: red when its jobs are rejected, amber when they run.
#[must_use]
pub fn signatures(faults: &[Fault]) -> Check {
    let text = |first: &Fault| {
        format!("signatures: {} jumpscripts without a trusted one, limit 0; the first: {}", faults.len(), first.text)
    };
    let found = match faults {
        [] => Found::ok("signatures: 0 jumpscripts without a trusted one, limit 0"),
        [first, ..] if first.is_refused => Found::error(
            text(first),
            "publish it with `--sign KEYFILE`, or roll it back; its jobs are rejected meanwhile",
        ),
        [first, ..] => {
            Found::warning(text(first), "publish it with `--sign KEYFILE`; under `require` it would not run")
        }
    };
    Check::new("signatures", "scripts", found)
}

/// Queues that cannot be served because a key of theirs is of the wrong type.
#[must_use]
pub fn queues(faults: &[String]) -> Check {
    let found = match faults {
        [] => Found::ok("queues: 0 that cannot be served, limit 0"),
        [first, ..] => Found::error(
            format!("queues: {} that cannot be served, limit 0; the first: {first}", faults.len()),
            "find out who wrote the key, then `redis-cli del` it",
        ),
    };
    Check::new("queues", "queues", found)
}

/// A field of /proc/meminfo in bytes.
fn meminfo(field: &str) -> Option<u64> {
    machine::meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?, field)
}

fn size(bytes: u64) -> String {
    if bytes >= 10 * 1024 * MIB { format!("{} GiB", bytes / (1024 * MIB)) } else { format!("{} MiB", bytes / MIB) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Health {
        Health {
            interval: Duration::from_secs(10),
            disk_bytes_min: 256 * MIB,
            memory_bytes_min: 128 * MIB,
            stall: Duration::from_secs(10),
            clock_skew: Duration::from_secs(2),
        }
    }

    #[test]
    fn a_value_is_red_below_its_limit_and_amber_below_twice_as_much() {
        let state = |value| Found::at_least("x", value * MIB, 100 * MIB, "y").state;
        assert_eq!(
            [state(99), state(100), state(199), state(200)],
            [State::Error, State::Warning, State::Warning, State::Ok]
        );
        assert_eq!(Found::at_least("x", 0, 0, "y").state, State::Ok);
    }

    #[test]
    fn a_clock_of_1970_is_red_and_its_text_names_the_distance() {
        let check = clock(1_800_000_000_000, &limits());
        assert_eq!(check.state, State::Error);
        assert!(check.text.contains("1800000000.000s behind") && check.text.contains("limit 2s"), "{}", check.text);
        assert_eq!(clock(-2_500, &limits()).state, State::Warning);
        assert!(clock(-2_500, &limits()).text.contains("ahead of"));
        assert_eq!(clock(1_999, &limits()).state, State::Ok);
    }

    #[test]
    fn a_pool_that_needs_more_maps_than_allowed_is_red_with_the_command_that_helps() {
        let check = map_count(100_000_000);
        assert_eq!(check.state, State::Error);
        assert!(check.text.contains("600002000 needed") && check.remedy.contains("vm.max_map_count=600002000"));
        assert_eq!(map_count(10).state, State::Ok);
    }

    #[test]
    fn the_worst_of_redis_is_what_shows() {
        let well = ServerFacts { has_aof: true, is_aof_ok: true, is_snapshot_ok: true, ..ServerFacts::default() };
        let check = |facts: ServerFacts| redis("h:6379", &Ok(facts));
        assert_eq!(check(well.clone()).state, State::Ok);
        let full = check(ServerFacts { used_bytes: 96 * MIB, max_bytes: 100 * MIB, has_aof: false, ..well.clone() });
        assert_eq!(full.state, State::Error);
        assert!(full.text.contains("96 MiB") && full.text.contains("limit 95% of 100 MiB"), "{}", full.text);
        assert_eq!(check(ServerFacts { has_aof: false, ..well.clone() }).state, State::Warning);
        assert_eq!(check(ServerFacts { role: "slave".to_owned(), ..well.clone() }).state, State::Error);
        assert_eq!(check(ServerFacts { eviction: "allkeys-lru".to_owned(), ..well }).state, State::Error);
        assert_eq!(
            (redis_component("h:6380"), redis_component("/run/r.sock")),
            ("redis:6380".into(), "redis:unix".into())
        );
    }
}
