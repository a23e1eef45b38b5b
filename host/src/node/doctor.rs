//! `wasmhost doctor`: looks at everything that a host needs, and says what to do about what it finds.
//!
//! Invariant: it changes nothing. A part that cannot be looked at is a finding, not an error.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::checks::{self, Check, State};
use crate::clock::format_duration;
use crate::config::{Config, Setting};
use crate::job::{StoreId, visible};
use crate::store::node::{NODE_LIVE, ServerFacts};
use crate::store::{Options, Setup, Store, embedded};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How well it is.
    pub state: State,
    /// One line with value and limit.
    pub text: String,
    /// What to do about it; empty when it is well.
    pub remedy: String,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The configuration in force, with the origin of each value.
    pub settings: Vec<Setting>,
    /// What was looked at, in order.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The worst state of all findings.
    #[must_use]
    pub fn state(&self) -> State {
        self.findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
    }
}

/// What the engine said when it was started.
#[derive(Clone, Debug)]
pub enum Engine {
    /// It starts; the notes say what was clamped or switched off.
    Starts {
        /// Sandboxes that can exist at once.
        pool_size: usize,
        /// What was clamped or switched off.
        notes: Vec<String>,
    },
    /// It does not start.
    Fails {
        /// Why.
        text: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Looks at everything. `redis` is how the host would reach its Redis; `engine` is what came of starting one.
pub async fn diagnose(config: &Config, redis: &Options, engine: Engine) -> Diagnosis {
    let mut findings = vec![configuration(config)];
    findings.extend(
        config
            .notes
            .iter()
            .map(|note| finding("configuration", State::Warning, note.clone(), "see docs/configuration.md")),
    );
    findings.push(redis_program(config));
    match private_redis_is_down(config) {
        Some(down) => findings.push(down),
        None => findings.extend(server(config, redis).await),
    }
    findings.push(from(checks::disk(&config.data, &config.health).await));
    findings.push(data_folder(&config.data));
    findings.extend(config.scripts.as_deref().map(scripts_folder));
    findings.push(from(checks::memory(&config.health)));
    findings.push(from(checks::swap()));
    match engine {
        Engine::Starts { pool_size, notes } => {
            let text = format!("the engine starts, {pool_size} sandboxes can exist at once");
            findings.push(finding("engine", State::Ok, text, ""));
            findings.extend(
                notes.into_iter().map(|note| {
                    finding("engine", State::Warning, note, "nothing has to be done; jobs run, some slower")
                }),
            );
            let wanted = if config.sandbox.pool_size == 0 { config.concurrency } else { config.sandbox.pool_size };
            findings.push(from(checks::map_count(wanted)));
        }
        Engine::Fails { text, remedy } => findings.push(finding("engine", State::Error, text, &remedy)),
    }
    Diagnosis { settings: config.settings.clone(), findings }
}

fn finding(name: &str, state: State, text: impl Into<String>, remedy: &str) -> Finding {
    Finding { name: name.to_owned(), state, text: text.into(), remedy: remedy.to_owned() }
}

fn from(check: Check) -> Finding {
    Finding { name: check.component, state: check.state, text: check.text, remedy: check.remedy }
}

/// A configuration that was read is in order; one that was refused never comes here.
fn configuration(config: &Config) -> Finding {
    let n_set = config.settings.iter().filter(|s| s.origin != crate::config::Origin::Default).count();
    let text = format!("configuration: {} keys, {n_set} of them set", config.settings.len());
    finding("configuration", State::Ok, text, "")
}

fn redis_program(config: &Config) -> Finding {
    let name = "private Redis";
    match embedded::program() {
        Some(program) => {
            let text = format!("`{}` can be started with --embedded", visible(&program.to_string_lossy()));
            finding(name, State::Ok, text, "")
        }
        None => {
            let text = format!("neither `{}` is on the PATH", embedded::PROGRAMS.join("` nor `"));
            let remedy = "install redis-server or valkey-server; only --embedded and `wasmhost dev` need it";
            finding(name, if config.redis.is_embedded { State::Error } else { State::Warning }, text, remedy)
        }
    }
}

/// With `--embedded` the server runs only while its host does; that it does not is no fault.
fn private_redis_is_down(config: &Config) -> Option<Finding> {
    if !config.redis.is_embedded || embedded::address(&config.data).is_some() {
        return None;
    }
    Some(finding("redis", State::Ok, "the private Redis does not run; `wasmhost run --embedded` starts it", ""))
}

/// Connects as a host would, and looks at the server and at what other hosts left there.
async fn server(config: &Config, options: &Options) -> Vec<Finding> {
    let store = match Store::connect(StoreId::default(), options).await {
        Ok(store) => store,
        Err(error) => {
            let remedy = error.hint().unwrap_or_else(|| "look at the server's log".to_owned());
            return vec![finding("redis", State::Error, error.to_string(), &remedy)];
        }
    };
    let mut findings = Vec::new();
    let facts = store.server_facts().await;
    findings.push(from(checks::redis(store.address(), &facts)));
    findings.push(setup(&store.setup(), facts.as_ref().ok()));
    if let Ok(facts) = &facts {
        findings.push(from(checks::clock(facts.clock_ahead_ms, &config.health)));
    }
    findings.extend(
        store
            .server_notes()
            .into_iter()
            .map(|note| finding("redis", State::Warning, note, "see docs/guarantees.md for what each set-up promises")),
    );
    match store.wrong_node_keys().await {
        Ok(wrong) => findings.push(from(checks::hashes(&wrong))),
        Err(error) => findings.push(finding("hashes", State::Error, error.to_string(), "look at the server's log")),
    }
    findings.push(match store.registered_hosts().await {
        Ok(hosts) => {
            let n_live = hosts.iter().filter(|host| host.silence <= NODE_LIVE).count();
            let limit = format_duration(NODE_LIVE);
            let text = format!("hosts on this prefix: {n_live} alive, {} silent (limit {limit})", hosts.len() - n_live);
            match hosts.len() - n_live {
                0 => finding("hosts", State::Ok, text, ""),
                _ => finding(
                    "hosts",
                    State::Warning,
                    text,
                    "find out why they stopped; their leases run out by themselves",
                ),
            }
        }
        Err(error) => finding("hosts", State::Error, error.to_string(), "find out who wrote the registry's keys"),
    });
    findings
}

/// How the server is reached and what stands behind it.
fn setup(setup: &Setup, facts: Option<&ServerFacts>) -> Finding {
    let mut parts = vec![if setup.is_tls { "TLS" } else { "no TLS" }.to_owned(), format!("user `{}`", setup.user)];
    match (&setup.service, &setup.server) {
        (Some(service), Some(server)) => parts.push(format!("master `{server}` of service `{service}`, by Sentinels")),
        (None, Some(server)) => parts.push(format!("Cluster, node `{server}` owns the prefix's slot")),
        _ => {}
    }
    if let Some(facts) = facts {
        let role = if facts.role == "slave" { "replica" } else { &facts.role };
        parts.push(format!("{role} with {} replicas", facts.n_replicas));
    }
    let text = format!("set-up of Redis: {}", parts.join(", "));
    match facts {
        Some(facts) if facts.n_replicas == 0 && (setup.service.is_some() || setup.is_cluster) => finding(
            "redis",
            State::Warning,
            text,
            "start a replica, or a failure of the master is the end of its jobs: docs/redis.md",
        ),
        _ => finding("redis", State::Ok, text, ""),
    }
}

/// The folder of native code: whoever can write to it can run code as the host.
fn data_folder(data: &Path) -> Finding {
    let shown = visible(&data.to_string_lossy());
    let Ok(meta) = std::fs::metadata(data) else {
        return finding("data", State::Ok, format!("data folder `{shown}`: not there yet, made when needed"), "");
    };
    let mode = meta.permissions().mode() & 0o7777;
    if !meta.is_dir() {
        return finding(
            "data",
            State::Error,
            format!("data folder `{shown}` is no folder"),
            "name a folder with `data`",
        );
    }
    if mode & 0o022 != 0 {
        let text =
            format!("data folder `{shown}`: others can write to it (mode {mode:04o}), and so run code as the host");
        return finding("data", State::Error, text, &format!("chmod go-w {shown}"));
    }
    if rustix::fs::access(data, rustix::fs::Access::WRITE_OK).is_err() {
        let text = format!("data folder `{shown}` cannot be written to by this user");
        return finding("data", State::Error, text, "change its owner, or name another folder with `data`");
    }
    finding("data", State::Ok, format!("data folder `{shown}`: mode {mode:04o}"), "")
}

fn scripts_folder(folder: &Path) -> Finding {
    let shown = visible(&folder.to_string_lossy());
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let is_wasm = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "wasm"))
            };
            let n_files = entries.map(is_wasm).filter(|is_wasm| *is_wasm).count();
            finding("scripts", State::Ok, format!("scripts folder `{shown}`: {n_files} Wasm files"), "")
        }
        Err(error) => {
            let text = format!("scripts folder `{shown}` cannot be read: {error}");
            finding("scripts", State::Error, text, "make the folder, or correct `scripts`")
        }
    }
}
