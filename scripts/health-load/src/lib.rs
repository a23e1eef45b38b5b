//! Whether a node is too busy, or short of memory.
//!
//! The result is a list of JSON objects `{category, message, state, uid}` with the states `OK`, `WARNING` and `ERROR`: what
//! JumpScale's health scripts return.
//!
//! Configuration, all optional: `load.warning_per_core` (1.5) and `load.error_per_core` (3) of the load over five minutes,
//! `memory.warning_percent` (90) and `memory.error_percent` (95) of memory used.

use serde::Serialize;
use wasmhost_guest::{Job, JobError, Raw, config, facts};

/// What is said about one thing.
#[derive(Debug, PartialEq, Serialize)]
struct Message {
    category: &'static str,
    message: String,
    state: &'static str,
    uid: &'static str,
}

#[wasmhost_guest::job]
fn run(_: Job<Raw>) -> Result<Vec<Message>, JobError> {
    Ok(vec![load()?, memory()?])
}

fn limit(key: &str, default: f64) -> Result<f64, JobError> {
    Ok(config::parsed(key)?.unwrap_or(default))
}

fn state(value: f64, warning: f64, error: f64) -> &'static str {
    if value >= error {
        "ERROR"
    } else if value >= warning {
        "WARNING"
    } else {
        "OK"
    }
}

fn load() -> Result<Message, JobError> {
    let (warning, error) = (limit("load.warning_per_core", 1.5)?, limit("load.error_per_core", 3.0)?);
    let load = facts::load()?;
    let per_core = load.five / f64::from(load.cores.max(1));
    let message = format!(
        "load {:.2} over five minutes on {} cores: {per_core:.2} for each, limits {warning} and {error}",
        load.five, load.cores
    );
    Ok(Message { category: "CPU", message, state: state(per_core, warning, error), uid: "load" })
}

fn memory() -> Result<Message, JobError> {
    let (warning, error) = (limit("memory.warning_percent", 90.0)?, limit("memory.error_percent", 95.0)?);
    let memory = facts::memory()?;
    let used = memory.total_bytes.saturating_sub(memory.available_bytes);
    let tenths = u128::from(used) * 1000 / u128::from(memory.total_bytes.max(1));
    let percent = f64::from(u32::try_from(tenths).unwrap_or(1000)) / 10.0;
    let free_mib = memory.available_bytes >> 20;
    let message = format!("{percent:.1}% of memory used, {free_mib} MiB free, limits {warning}% and {error}%");
    Ok(Message { category: "Memory", message, state: state(percent, warning, error), uid: "memory" })
}

#[cfg(test)]
mod tests {
    use wasmhost_guest::facts::{Facts, LoadAverage, MemoryUse};

    use super::*;

    fn states(five: f64, available_bytes: u64) -> [&'static str; 2] {
        let load = LoadAverage { five, cores: 2, ..LoadAverage::default() };
        let memory = MemoryUse { total_bytes: 100, available_bytes, ..MemoryUse::default() };
        facts::set(Facts { load, memory, ..Facts::default() });
        let said = run(Job::test(Raw::default())).unwrap();
        [said[0].state, said[1].state]
    }

    #[test]
    fn load_counts_for_each_core_and_memory_by_what_is_free() {
        config::clear();
        assert_eq!(states(2.9, 11), ["OK", "OK"]);
        assert_eq!(states(3.0, 10), ["WARNING", "WARNING"]);
        assert_eq!(states(6.0, 5), ["ERROR", "ERROR"]);
    }

    #[test]
    fn limits_are_taken_from_the_configuration() {
        config::clear();
        config::set("load.error_per_core", "0.5");
        config::set("memory.warning_percent", "10");
        assert_eq!(states(1.0, 50), ["ERROR", "WARNING"]);
    }
}
