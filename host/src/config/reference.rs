//! The documents that are made from the tables and constants: `docs/configuration.md` and `docs/limits.md`.

use std::fmt::Write as _;
use std::time::Duration;

use super::keys::{KEYS, OTHER_VARIABLES};
use super::value::{Value, WEIGHT_MAX};
use crate::{effects, job, jumpscript, retry};

/// The text of `docs/configuration.md`.
#[must_use]
pub fn configuration_markdown() -> String {
    let mut text = String::from(CONFIGURATION_HEAD);
    let cell = |text: &str| text.replace('|', "\\|");
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    for spec in KEYS {
        let live = if spec.is_live { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} | {live} |",
            spec.key,
            code(spec.variable),
            code(spec.flag),
            cell(spec.default),
            cell(spec.rule),
            cell(spec.what),
        );
    }
    text.push_str("\n## Other variables\n\n| variable | meaning |\n| --- | --- |\n");
    for (name, what) in OTHER_VARIABLES {
        let _ = writeln!(text, "| `{name}` | {} |", cell(what));
    }
    text.push_str(CONFIGURATION_TAIL);
    text
}

const CONFIGURATION_HEAD: &str = "# Configuration

This page is made from the program's own table; a test compares them.

A value is looked for in the flags, then in the environment, then in the file, and is the default when nobody names it.
`wasmhost doctor` shows every value in force and where it came from.

The file is TOML. It is read when `--config FILE` or `WASMHOST_CONFIG` names it; no file is read unasked, so that what a
command does never depends on the folder it runs in. An unknown key is refused with the nearest known one. An empty
variable counts as not set. Durations are a number and a unit: `500ms`, `30s`, `5m`, `1h30m`.

On SIGHUP a running host reads the file again. A broken file changes nothing: the old values stay in force and the log
says what is wrong. Keys marked *live* take effect at once, others are named in the log and wait for a restart.

| key | variable | flag | default | accepted | meaning | live |
| --- | --- | --- | --- | --- | --- | --- |
";

const CONFIGURATION_TAIL: &str = "
## The password of Redis

It is taken from the highest source that gives one: flags (`--redis-password-file`, else the URL), environment
(`WASMHOST_REDIS_PASSWORD` or `WASMHOST_REDIS_PASSWORD_FILE`, else the URL), file (`redis.password` or
`redis.password_file`, else the URL). A password and a password file in one source are refused. A password in a flag and
a file that every user of the machine can read are warned of. No log line, error or report shows it.

## Example

```toml
prefix = \"wasmhost\"
concurrency = 16
lease = \"30s\"
scripts = \"/srv/jumpscripts\"

[redis]
url = \"redis://10.0.0.7:6379\"
password_file = \"/etc/wasmhost/redis-password\"

[queues]
mail = 3
default = 1

[health]
disk_mib = 1024
```
";

/// The text of `docs/limits.md`.
#[must_use]
pub fn limits_markdown() -> String {
    let mut text = String::from(LIMITS_HEAD);
    for (name, value, over, key) in limits() {
        let key = if key.is_empty() { String::new() } else { format!("`{key}`") };
        let _ = writeln!(text, "| {name} | {value} | {over} | {key} |");
    }
    text
}

const LIMITS_HEAD: &str = "# Limits and defaults

This page is made from the program's own constants; a test compares them. Where a key is named, it changes the value
(see `configuration.md`).

| what | value | beyond it | key |
| --- | --- | --- | --- |
";

type Row = (&'static str, String, &'static str, &'static str);

/// The rows of the table, by whom they concern: the producer, the job, the jumpscript, the host.
fn limits() -> Vec<Row> {
    let time = |duration: Duration| duration.show();
    vec![
        ("queue, type, idempotency key", bytes(job::NAME_BYTES_MAX), "refused at enqueue", ""),
        ("payload of a job", bytes(job::PAYLOAD_BYTES_MAX), "refused at enqueue; dead-lettered from Redis", ""),
        ("id of a job", bytes(job::ID_BYTES_MAX), "set aside and counted", ""),
        ("attempts when the producer names none", job::MAX_ATTEMPTS.to_string(), "dead-letter queue", ""),
        ("most attempts", job::MAX_ATTEMPTS_MAX.to_string(), "refused at enqueue; clamped from Redis", ""),
        ("timeout of an attempt when nobody names one", time(job::TIMEOUT), "stopped", ""),
        ("longest timeout", time(job::TIMEOUT_MAX), "refused at enqueue; clamped from Redis", ""),
        ("result of a job", bytes(job::RESULT_BYTES_MAX), "the attempt fails", ""),
        ("writes of one attempt", effects::EFFECTS_MAX.to_string(), "refused", ""),
        ("bytes of the writes of one attempt", bytes(effects::EFFECT_BYTES_MAX), "refused", ""),
        ("first delay between attempts", time(retry::BASE), "grows twofold, with full jitter", "retry.base"),
        ("longest delay between attempts", time(retry::CAP), "stays there", "retry.cap"),
        ("linear memory of a job", mib(super::MEMORY_MIB), "stopped", "limits.memory_mib"),
        ("record and result of a finished job", time(super::DONE_TTL), "removed", "limits.done_ttl"),
        ("Wasm file", bytes(jumpscript::WASM_BYTES_MAX), "refused at publish", ""),
        ("manifest", bytes(jumpscript::MANIFEST_BYTES_MAX), "refused at publish", ""),
        (
            "jobs that run at once, for each core",
            super::CONCURRENCY_PER_CORE.to_string(),
            "wait in the queue",
            "concurrency",
        ),
        ("most jobs that run at once", super::CONCURRENCY_MAX.to_string(), "refused at start", "concurrency"),
        ("queues of one host", super::QUEUES_MAX.to_string(), "refused at start", "queues"),
        ("weight of a queue", WEIGHT_MAX.to_string(), "refused at start", "queues"),
        ("lease", time(super::LEASE), "the job goes to another host", "lease"),
        ("shortest lease", time(super::LEASE_MIN), "refused at start", "lease"),
        ("longest lease", time(super::LEASE_MAX), "refused at start", "lease"),
        ("grace after SIGTERM", time(super::GRACE), "the rest goes back to the head of its queue", "grace"),
        (
            "opening a connection to Redis",
            time(super::CONNECT_TIMEOUT),
            "an error, tried again",
            "redis.connect_timeout",
        ),
        (
            "a command that does not wait",
            time(super::COMMAND_TIMEOUT),
            "an error, tried again",
            "redis.command_timeout",
        ),
        ("free disk space", mib(super::HEALTH_DISK_MIB), "health is red", "health.disk_mib"),
        ("available memory", mib(super::HEALTH_MEMORY_MIB), "health is red", "health.memory_mib"),
        ("silence of a loop of the worker", time(super::HEALTH_STALL), "health is red", "health.stall"),
        ("distance of the clocks", time(super::HEALTH_CLOCK_SKEW), "health is amber, tenfold red", "health.clock_skew"),
    ]
}

fn mib(n: u64) -> String {
    format!("{n} MiB")
}

fn bytes(n: usize) -> String {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    match n {
        n if n >= MIB && n % MIB == 0 => format!("{} MiB", n / MIB),
        n if n >= KIB && n % KIB == 0 => format!("{} KiB", n / KIB),
        n => format!("{n} bytes"),
    }
}
