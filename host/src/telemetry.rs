//! Logs: the names of fields, and where lines go.
//!
//! Invariant: lines go to stderr only; results of commands own stdout. A message is a constant, values are fields
//! under the names below. Neither payloads nor secrets are ever fields.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Environment, Log, LogFormat};

/// The id of a job.
pub const JOB: &str = "job";
/// The queue of a job.
pub const QUEUE: &str = "queue";
/// The jumpscript, `organization/name`.
pub const SCRIPT: &str = "script";
/// The digest of its code.
pub const DIGEST: &str = "digest";
/// The number of an execution, from 1.
pub const ATTEMPT: &str = "attempt";
/// How an attempt ended.
pub const OUTCOME: &str = "outcome";
/// Time taken, in milliseconds.
pub const ELAPSED_MS: &str = "elapsed_ms";
/// The name of the node.
pub const NODE: &str = "node";
/// Every field name, for the documentation and the test that compares.
pub const FIELDS: [&str; 8] = [JOB, QUEUE, SCRIPT, DIGEST, ATTEMPT, OUTCOME, ELAPSED_MS, NODE];

/// Changes the level of a running program.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

impl LevelHandle {
    /// Takes a new level or directives.
    ///
    /// # Errors
    /// A sentence that names the directives; the old ones stay in force.
    pub fn set(&self, directives: &str) -> Result<(), String> {
        let targets = targets(directives)?;
        self.0.reload(targets).map_err(|error| format!("the log level stays as it is: {error}"))
    }
}

/// Starts logging to stderr. To be called once, by the program; a library or test that has its own subscriber does
/// not call it.
///
/// # Errors
/// A sentence when the directives do not parse or another subscriber is set already.
pub fn start(log: &Log, environment: &Environment) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(targets(&log.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match log.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => is_terminal,
    };
    let started = if is_text {
        let has_color = is_terminal && wants_color(environment);
        registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(has_color)).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
    };
    started.map_err(|error| format!("logging cannot be started: {error}"))?;
    Ok(LevelHandle(handle))
}

/// Whether the environment allows colours: `NO_COLOR` is not set and the terminal can show them.
#[must_use]
pub fn wants_color(environment: &Environment) -> bool {
    let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && environment.get("TERM").is_none_or(|term| term != "dumb")
}

/// A library that warns of requests that guests get wrong: a guest could fill the disk with it. Its warnings are written
/// only where the directives name it.
const GUESTS_FAULTS: &str = "wasmtime_wasi_http";

fn targets(directives: &str) -> Result<Targets, String> {
    let targets: Targets =
        directives.parse().map_err(|error| format!("log level `{}`: {error}", crate::job::visible(directives)))?;
    if directives.contains(GUESTS_FAULTS) {
        return Ok(targets);
    }
    Ok(targets.with_target(GUESTS_FAULTS, LevelFilter::ERROR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn no_color_and_a_dumb_terminal_switch_colours_off() {
        let environment = |name: &str, value: &str| Environment::from([(name.to_owned(), value.to_owned())]);
        assert!(wants_color(&Environment::new()));
        assert!(wants_color(&environment("NO_COLOR", "")));
        assert!(!wants_color(&environment("NO_COLOR", "1")));
        assert!(!wants_color(&environment("TERM", "dumb")));
        assert!(wants_color(&environment("TERM", "xterm")));
    }

    #[test]
    fn directives_that_do_not_parse_are_refused_by_name() {
        assert!(targets("info,wasmhost::worker=debug").is_ok());
        assert!(targets("info,wasmhost=loudly").unwrap_err().contains("loudly"));
    }

    #[test]
    fn what_guests_get_wrong_is_not_in_the_hosts_log_unless_asked_for() {
        let warns = |directives: &str, target: &str| targets(directives).unwrap().would_enable(target, &Level::WARN);
        assert!(warns("info", "wasmhost::worker"));
        assert!(!warns("info", "wasmtime_wasi_http::p2::error") && !warns("trace", "wasmtime_wasi_http::p2::error"));
        assert!(warns("info,wasmtime_wasi_http=warn", "wasmtime_wasi_http::p2::error"));
    }
}
