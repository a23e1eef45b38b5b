//! What a node says about itself in Redis: the registry of hosts, and the hashes that JumpScale's programs read.
//!
//! Invariant: one script per heartbeat, and liveness is measured by the server's clock. A hash that somebody else gave
//! another type is left alone and named in the answer; it never stops a beat.
//!
//! Next: `lua/node_beat.lua` for what is written, `node/watchdog.rs` for when.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::link::Script;
use super::script::Reply;
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::facts::{COMPONENTS_MAX, Component};

macro_rules! node_script {
    ($($file:literal),+) => {
        LazyLock::new(|| redis::Script::new(concat!($(include_str!(concat!("lua/", $file))),+)))
    };
}

static BEAT: Script = node_script!("node_words.lua", "node_beat.lua");
static LEAVE: Script = node_script!("node_words.lua", "node_leave.lua");
static MONITORING: Script = node_script!("node_monitoring.lua");

/// Silence after which a host does not count as alive: three heartbeats.
pub const NODE_LIVE: Duration = Duration::from_secs(12);

/// Silence after which others remove what a host left behind.
pub const HOST_GONE: Duration = Duration::from_secs(3600);

/// Who a host is; the same for all its beats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The name of the node.
    pub node: String,
    /// The id of this process's life, `<gid>_<nid>_<pid>_<random>`.
    pub session: String,
    /// The number of the grid.
    pub gid: u32,
    /// The number of the node.
    pub nid: u32,
    /// The process.
    pub pid: u32,
    /// The name in `application`.
    pub app: String,
    /// When the process started, in Unix seconds.
    pub started: i64,
    /// The queues it serves.
    pub queues: Vec<String>,
    /// The health components it reports, without those of its workers.
    pub components: Vec<String>,
    /// The roles of the node.
    pub roles: Vec<String>,
}

/// One component's state for a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentState {
    /// The component, such as `disks`.
    pub name: String,
    /// Whether it is well enough to work.
    pub is_up: bool,
    /// Time since it was checked.
    pub age: Duration,
}

/// What one heartbeat says.
#[derive(Clone, Debug)]
pub struct Beat<'a> {
    /// Who beats.
    pub presence: &'a Presence,
    /// The number of this process on its node as answered by the last beat.
    pub number: Option<u32>,
    /// Each queue, and whether its worker is alive.
    pub workers: &'a [(String, bool)],
    /// The components that have been checked.
    pub components: &'a [ComponentState],
}

/// What the server answered to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// The number of this process on its node; tells processes of one node apart.
    pub number: u32,
    /// Whether other nodes are registered, so that components carry the node's name.
    pub is_shared: bool,
    /// The server's time.
    pub server_time: Timestamp,
    /// Whether `healthcheck:monitoring` has a report, of this node or another.
    pub has_report: bool,
    /// Keys that have another type than they must have, with that type; they were not written.
    pub wrong_keys: Vec<(String, String)>,
    /// Hosts that have been silent for more than [`NODE_LIVE`], at most 20.
    pub silent: Vec<SilentHost>,
}

/// A registered host that does not beat any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentHost {
    /// How long it has been silent.
    pub silence: Duration,
    /// Its number on its node.
    pub number: u32,
    /// Who it was.
    pub presence: Presence,
}

/// What the registry keeps of a host, as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Info {
    pid: u32,
    gid: u32,
    nid: u32,
    app: String,
    started: i64,
    queues: Vec<String>,
    components: Vec<String>,
    roles: Vec<String>,
    version: String,
}

/// The record in `workers:sessions`: JumpScale's fields, then ours.
#[derive(Serialize)]
struct Session<'a> {
    start: i64,
    gid: u32,
    nid: u32,
    pid: u32,
    appname: &'a str,
    node: &'a str,
    queues: &'a [String],
    roles: &'a [String],
    version: &'a str,
}

/// One host of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredHost {
    /// Who it is.
    pub presence: Presence,
    /// Its number on its node.
    pub number: u32,
    /// Time since its last beat.
    pub silence: Duration,
}

impl From<RegisteredHost> for SilentHost {
    fn from(host: RegisteredHost) -> Self {
        Self { silence: host.silence, number: host.number, presence: host.presence }
    }
}

/// What the server says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerFacts {
    /// Its version.
    pub version: String,
    /// Round trip of the question.
    pub round_trip: Duration,
    /// How far its clock is ahead of ours in milliseconds; negative when behind.
    pub clock_ahead_ms: i64,
    /// Memory it uses, in bytes.
    pub used_bytes: u64,
    /// Memory it may use, in bytes; 0 is no limit.
    pub max_bytes: u64,
    /// What it does when that is full.
    pub eviction: String,
    /// Whether it writes an append-only file.
    pub has_aof: bool,
    /// Whether the last write of the append-only file went well.
    pub is_aof_ok: bool,
    /// Whether the last snapshot went well.
    pub is_snapshot_ok: bool,
    /// Unix seconds of the last snapshot.
    pub last_snapshot: i64,
    /// Writes since the last snapshot.
    pub unsaved_changes: u64,
    /// Whether it still loads its data.
    pub is_loading: bool,
    /// `master` or `slave`.
    pub role: String,
    /// Replicas that are connected.
    pub n_replicas: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
}

impl Store {
    /// One heartbeat.
    ///
    /// # Errors
    /// When Redis does not answer or refuses; the next beat makes up for it.
    pub async fn beat(&self, beat: &Beat<'_>) -> Result<Beaten, Error> {
        let who = beat.presence;
        let mut arguments: Vec<Vec<u8>> = vec![
            who.node.clone().into(),
            who.session.clone().into(),
            beat.number.map_or("-1".to_owned(), |n| n.to_string()).into(),
            to_json(&Info::of(who)).into(),
            to_json(&Session::of(who)).into(),
            who.app.clone().into(),
            who.pid.to_string().into(),
            NODE_LIVE.as_millis().to_string().into(),
            (beat.workers.len() * 2).to_string().into(),
        ];
        for (queue, is_alive) in beat.workers {
            arguments.push(queue.clone().into());
            arguments.push(if *is_alive { "1" } else { "0" }.into());
        }
        arguments.push((beat.components.len() * 3).to_string().into());
        for component in beat.components {
            arguments.push(component.name.clone().into());
            arguments.push(if component.is_up { "True" } else { "False" }.into());
            arguments.push(component.age.as_millis().to_string().into());
        }
        let mut reply = self.node_call("a heartbeat", &BEAT, &self.node_keys(), &arguments).await?;
        let (number, is_shared, now_ms) = (reply.count()?, reply.count()? == 1, reply.number()?);
        let mut beaten = Beaten {
            number,
            is_shared,
            server_time: Timestamp::from_millis(now_ms),
            has_report: reply.count()? == 1,
            wrong_keys: Vec::new(),
            silent: Vec::new(),
        };
        let (mut wrong, mut silent) = (reply.nested()?, reply.nested()?);
        while !wrong.is_empty() {
            beaten.wrong_keys.push((wrong.text()?, wrong.text()?));
        }
        while !silent.is_empty() {
            let (member, silence_ms, info) = (silent.text()?, silent.number()?, silent.bytes()?);
            beaten.silent.extend(presence_of(&member, &info).map(|(number, presence)| SilentHost {
                silence: Duration::from_millis(silence_ms.unsigned_abs()),
                number,
                presence,
            }));
        }
        Ok(beaten)
    }

    /// Takes this host off the registry and its fields out of the hashes. Answers whether it was the last process of
    /// its node.
    ///
    /// # Errors
    /// When Redis does not answer; the fields grow old then, and others remove them.
    pub async fn leave(&self, presence: &Presence, number: u32) -> Result<bool, Error> {
        self.remove_host(presence, number, true).await.map(|removed| removed.unwrap_or(false))
    }

    /// Removes what a silent host left behind. `None` when it is alive after all; else whether it was the last
    /// process of its node.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn remove_silent(&self, host: &SilentHost) -> Result<Option<bool>, Error> {
        self.remove_host(&host.presence, host.number, false).await
    }

    async fn remove_host(&self, who: &Presence, number: u32, is_own: bool) -> Result<Option<bool>, Error> {
        let mut arguments: Vec<Vec<u8>> = vec![
            who.node.clone().into(),
            who.session.clone().into(),
            number.to_string().into(),
            who.app.clone().into(),
            who.pid.to_string().into(),
            NODE_LIVE.as_millis().to_string().into(),
            if is_own { "1" } else { "0" }.into(),
            who.queues.len().to_string().into(),
        ];
        arguments.extend(who.queues.iter().map(|queue| queue.clone().into_bytes()));
        arguments.push(who.components.len().to_string().into());
        arguments.extend(who.components.iter().map(|component| component.clone().into_bytes()));
        let mut reply = self.node_call("the removal of a host", &LEAVE, &self.node_keys(), &arguments).await?;
        let (is_done, is_last) = (reply.count()? == 1, reply.count()? == 1);
        Ok(is_done.then_some(is_last))
    }

    /// Puts the report of one node into `healthcheck:monitoring`, or takes it out (`None`). What others wrote there
    /// is kept byte for byte. Answers false when the key is not a hash, which the next beat tells.
    ///
    /// # Errors
    /// When Redis does not answer, or others write so often that none of five tries was alone.
    pub async fn write_monitoring(&self, nid: u32, report: Option<&Monitoring>, age: Duration) -> Result<bool, Error> {
        let key = self.keys.healthcheck("monitoring");
        for _ in 0..5 {
            let mut kind = redis::cmd("TYPE");
            let kind = self.link.command("the type of a key", kind.arg(&key)).await?;
            let kind = Reply::new(kind, self.address(), "TYPE").text()?;
            if kind != "hash" && kind != "none" {
                return Ok(false);
            }
            let mut read = redis::cmd("HMGET");
            let read = self.link.command("a health report", read.arg(&key).arg("results").arg("errors")).await?;
            let mut read = Reply::new(read, self.address(), "HMGET");
            let (results, errors) = (read.bytes_or_empty()?, read.bytes_or_empty()?);
            let new_results = merged(&results, nid, report.map(|report| report.results.as_str()));
            let new_errors = merged(&errors, nid, report.and_then(|report| report.errors.as_deref()));
            let age_ms = age.as_millis().to_string();
            let arguments: Vec<Vec<u8>> = vec![results, errors, new_results.into(), new_errors.into(), age_ms.into()];
            let call = self.node_call("a health report", &MONITORING, std::slice::from_ref(&key), &arguments);
            if call.await?.number()? == 1 {
                return Ok(true);
            }
            // Changed meanwhile, or given another type: look again.
        }
        Err(Error::Server {
            address: self.address().to_owned(),
            what: "a health report",
            reason: "others kept writing the report at the same time".to_owned(),
        })
    }

    /// Node keys that have another type than a hash, with that type.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn wrong_node_keys(&self) -> Result<Vec<(String, String)>, Error> {
        let keys: Vec<String> = self.node_keys()[2..].to_vec();
        let mut pipeline = redis::pipe();
        for key in &keys {
            pipeline.cmd("TYPE").arg(key);
        }
        let mut reply = Reply::new(Value::Array(self.link.pipeline("the types of keys", &pipeline).await?), "", "TYPE");
        let mut wrong = Vec::new();
        for key in keys {
            let kind = reply.text()?;
            if kind != "hash" && kind != "none" {
                wrong.push((key, kind));
            }
        }
        Ok(wrong)
    }

    /// The components of the health hashes, sorted by name, whoever wrote them: at most [`COMPONENTS_MAX`].
    ///
    /// # Errors
    /// When Redis does not answer, or a key is no hash.
    pub async fn health_components(&self) -> Result<Vec<Component>, Error> {
        let what = "the health hashes";
        let mut scan = redis::cmd("HSCAN");
        let scan = scan.arg(self.keys.healthcheck("status")).arg(0).arg("COUNT").arg(COMPONENTS_MAX);
        let mut reply = Reply::new(self.link.command(what, scan).await?, self.address(), what);
        // The cursor: who has more components than that has no use for the rest.
        reply.text()?;
        let mut pairs = reply.nested()?;
        let mut components = Vec::new();
        while !pairs.is_empty() && components.len() < COMPONENTS_MAX {
            let (name, status) = (pairs.text()?, pairs.text()?);
            components.push(Component { name, is_well: status == "True", checked_at_ms: 0 });
        }
        if components.is_empty() {
            return Ok(components);
        }
        components.sort_by(|a, b| a.name.cmp(&b.name));
        let mut times = redis::cmd("HMGET");
        times.arg(self.keys.healthcheck("lastcheck")).arg(components.iter().map(|one| &one.name).collect::<Vec<_>>());
        let mut times = Reply::new(self.link.command(what, &times).await?, self.address(), what);
        for component in &mut components {
            let text = String::from_utf8_lossy(&times.bytes_or_empty()?).into_owned();
            component.checked_at_ms = stamp_ms(&text);
        }
        Ok(components)
    }

    /// What the server says about itself, in one round trip.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn server_facts(&self) -> Result<ServerFacts, Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("INFO");
        let (asked, sent) = (Timestamp::now(), Instant::now());
        let values = self.link.pipeline("its state", &pipeline).await?;
        let round_trip = sent.elapsed();
        let mut reply = Reply::new(Value::Array(values), self.address(), "its state");
        let mut time = reply.nested()?;
        let (seconds, micros) = (time.number()?, time.number()?);
        let server = Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(micros * 1000));
        // The server read its clock about half way.
        let ours = asked.after(round_trip / 2);
        Ok(ServerFacts {
            round_trip,
            clock_ahead_ms: (server.nanos().saturating_sub(ours.nanos())) / 1_000_000,
            ..facts_of(&reply.text()?)
        })
    }

    /// The hosts in the registry, at most 200, those that beat last first.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn registered_hosts(&self) -> Result<Vec<RegisteredHost>, Error> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("ZREVRANGE").arg(self.keys.nodes()).arg(0).arg(199).arg("WITHSCORES");
        let mut reply = Reply::new(
            Value::Array(self.link.pipeline("the registry", &pipeline).await?),
            self.address(),
            "the registry",
        );
        let mut time = reply.nested()?;
        let now_ms = time.number()?.saturating_mul(1000).saturating_add(time.number()? / 1000);
        let mut members = reply.nested()?;
        let mut hosts = Vec::new();
        let mut infos = redis::cmd("HMGET");
        infos.arg(self.keys.nodes_info());
        while !members.is_empty() {
            let (member, score) = (members.text()?, members.text()?);
            infos.arg(member.splitn(3, '/').nth(2).unwrap_or_default());
            let beaten_ms = score.parse::<f64>().map_or(0, |ms| ms as i64);
            hosts.push((member, Duration::from_millis(now_ms.saturating_sub(beaten_ms).max(0).unsigned_abs())));
        }
        if hosts.is_empty() {
            return Ok(Vec::new());
        }
        let Value::Array(infos) = self.link.command("the registry", &infos).await? else { return Ok(Vec::new()) };
        let hosts = hosts.into_iter().zip(infos).filter_map(|((member, silence), info)| {
            let info = if let Value::BulkString(bytes) = info { bytes } else { Vec::new() };
            let (number, presence) = presence_of(&member, &info)?;
            Some(RegisteredHost { presence, number, silence })
        });
        Ok(hosts.collect())
    }

    fn node_keys(&self) -> Vec<String> {
        vec![
            self.keys.nodes(),
            self.keys.nodes_info(),
            self.keys.watchdog(),
            self.keys.heartbeat(),
            self.keys.sessions(),
            self.keys.application(),
            self.keys.healthcheck("status"),
            self.keys.healthcheck("lastcheck"),
            self.keys.healthcheck("monitoring"),
        ]
    }

    async fn node_call(
        &self,
        what: &'static str,
        script: &Script,
        keys: &[String],
        arguments: &[Vec<u8>],
    ) -> Result<Reply, Error> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys).arg(arguments);
        let answer = self.link.script(what, script, &command).await?;
        Ok(Reply::new(answer, self.address(), what))
    }
}

impl Reply {
    /// A text, empty for nil.
    fn bytes_or_empty(&mut self) -> Result<Vec<u8>, Error> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Ok(Vec::new()),
        }
    }
}

/// The fields of `INFO` that matter here; what is missing keeps its harmless default.
fn facts_of(info: &str) -> ServerFacts {
    let fields: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default();
    let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
    let is_ok = |name: &str| text(name).is_empty() || text(name) == "ok";
    ServerFacts {
        version: text("redis_version").to_owned(),
        round_trip: Duration::ZERO,
        clock_ahead_ms: 0,
        used_bytes: number("used_memory"),
        max_bytes: number("maxmemory"),
        eviction: text("maxmemory_policy").to_owned(),
        has_aof: text("aof_enabled") == "1",
        is_aof_ok: is_ok("aof_last_write_status") && is_ok("aof_last_bgrewrite_status"),
        is_snapshot_ok: is_ok("rdb_last_bgsave_status"),
        last_snapshot: text("rdb_last_save_time").parse().unwrap_or(0),
        unsaved_changes: number("rdb_changes_since_last_save"),
        is_loading: text("loading") == "1",
        role: text("role").to_owned(),
        n_replicas: number("connected_slaves"),
        uptime_s: number("uptime_in_seconds"),
    }
}

/// The report of one node for `healthcheck:monitoring`: `{category: [entry, ..]}` as JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monitoring {
    /// Every check.
    pub results: String,
    /// Those that are not well; `None` when all are.
    pub errors: Option<String>,
}

impl Info {
    fn of(who: &Presence) -> Self {
        Self {
            pid: who.pid,
            gid: who.gid,
            nid: who.nid,
            app: who.app.clone(),
            started: who.started,
            queues: who.queues.clone(),
            components: who.components.clone(),
            roles: who.roles.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl<'a> Session<'a> {
    fn of(who: &'a Presence) -> Self {
        Self {
            start: who.started,
            gid: who.gid,
            nid: who.nid,
            pid: who.pid,
            appname: &who.app,
            node: &who.node,
            queues: &who.queues,
            roles: &who.roles,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Seconds since the Unix epoch, with or without a fraction, in milliseconds; 0 for anything else.
fn stamp_ms(text: &str) -> u64 {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let (seconds, thousandths) = (seconds.parse::<u64>(), thousandths.parse::<u64>());
    seconds.unwrap_or(0).saturating_mul(1000).saturating_add(thousandths.unwrap_or(0))
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A host as its member and its record in the registry describe it. A lost record leaves what the member says.
fn presence_of(member: &str, info: &[u8]) -> Option<(u32, Presence)> {
    let mut parts = member.splitn(3, '/');
    let (node, number, session) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let info: Info = serde_json::from_slice(info).unwrap_or_default();
    let presence = Presence {
        node: node.to_owned(),
        session: session.to_owned(),
        gid: info.gid,
        nid: info.nid,
        pid: info.pid,
        app: info.app,
        started: info.started,
        queues: info.queues,
        components: info.components,
        roles: info.roles,
    };
    Some((number, presence))
}

/// `{"<nid>": report, ..}` with one node's report replaced or removed. Text that is no such object is replaced.
fn merged(found: &[u8], nid: u32, report: Option<&str>) -> String {
    let mut nodes: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(found).unwrap_or_default();
    match report.and_then(|report| RawValue::from_string(report.to_owned()).ok()) {
        Some(report) => nodes.insert(nid.to_string(), report),
        None => nodes.remove(&nid.to_string()),
    };
    to_json(&nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_other_nodes_are_kept_byte_for_byte() {
        let found = br#"{"7": {"disks": [], "t": 1417000000.123456789}, "8": {}}"#;
        let text = merged(found, 8, Some(r#"{"memory":[]}"#));
        assert_eq!(text, r#"{"7":{"disks": [], "t": 1417000000.123456789},"8":{"memory":[]}}"#);
        assert_eq!(merged(text.as_bytes(), 7, None), r#"{"8":{"memory":[]}}"#);
        assert_eq!(merged(b"[1, 2", 1, Some("{}")), r#"{"1":{}}"#);
        assert_eq!(merged(b"", 1, None), "{}");
    }

    #[test]
    fn stamps_of_every_program_are_read() {
        assert_eq!((stamp_ms("1417000000.5"), stamp_ms("1417000000")), (1_417_000_000_500, 1_417_000_000_000));
        assert_eq!((stamp_ms("1417000000.123456789"), stamp_ms(""), stamp_ms("soon")), (1_417_000_000_123, 0, 0));
    }

    #[test]
    fn a_member_without_record_still_names_its_node() {
        let (number, presence) = presence_of("box/3/1_2_77_x", b"").unwrap();
        assert_eq!((number, presence.node.as_str(), presence.session.as_str()), (3, "box", "1_2_77_x"));
        assert_eq!(presence_of("box", b""), None);
    }
}
