//! The table of limits and defaults: `docs/limits.md` is made from it.
//!
//! Invariant: every value is the constant that the code uses; a number is written here only once, where it counts.

use std::fmt::Write as _;
use std::time::Duration;

use crate::clock::format_duration;
use crate::facts::{COMPONENTS_MAX, DISKS_MAX, PROCESS_NAMES_MAX};
use crate::permissions::HTTP_PATTERNS_MAX;
use crate::protocol::hero;
use crate::secret::{HIDDEN_BYTES_MIN, SECRET_BYTES_MAX};
use crate::supplies::FACTS_AGE_MAX;
use crate::{bridge, config, effects, http, job, jumpscript, maintenance, node, retry, sandbox, store, worker};

/// The text of `docs/limits.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(LIMITS_HEAD);
    for (name, value, over, key) in
        of_hosts_and_jobs().into_iter().chain(of_sandboxes()).chain(of_stores()).chain(of_http())
    {
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

/// Producers, jobs, jumpscripts, hosts.
fn of_hosts_and_jobs() -> Vec<Row> {
    let time = |duration: Duration| format_duration(duration).replace(' ', "");
    vec![
        ("queue, type, idempotency key", bytes(job::NAME_BYTES_MAX), "refused at enqueue", ""),
        ("payload of a job", bytes(job::PAYLOAD_BYTES_MAX), "refused at enqueue; dead-lettered from Redis", ""),
        ("id of a job", bytes(job::ID_BYTES_MAX), "set aside and counted", ""),
        (
            "attempts when neither producer nor manifest names any",
            job::MAX_ATTEMPTS.to_string(),
            "dead-letter queue",
            "",
        ),
        ("most attempts", job::MAX_ATTEMPTS_MAX.to_string(), "refused at enqueue; clamped from Redis", ""),
        ("timeout of an attempt when nobody names one", time(job::TIMEOUT), "stopped", ""),
        ("longest timeout", time(job::TIMEOUT_MAX), "refused at enqueue; clamped from Redis", ""),
        ("latest run time", format!("{} years ahead", job::RUN_AT_YEARS_MAX), "refused at enqueue", ""),
        ("result of a job", bytes(job::RESULT_BYTES_MAX), "the attempt fails", ""),
        ("writes of one attempt", effects::EFFECTS_MAX.to_string(), "refused", ""),
        ("bytes of the writes of one attempt", bytes(effects::EFFECT_BYTES_MAX), "refused", ""),
        ("key in a bucket of state", bytes(effects::STATE_KEY_BYTES_MAX), "refused", ""),
        ("value in a bucket of state", bytes(effects::STATE_VALUE_BYTES_MAX), "refused", ""),
        ("keys of buckets that one attempt reads", effects::STATE_READS_MAX.to_string(), "refused", ""),
        ("their bytes", bytes(effects::STATE_READ_BYTES_MAX), "refused", ""),
        (
            "life that a manifest may give a bucket",
            format!("{} to {} days", time(effects::BUCKET_TTL_MIN), effects::BUCKET_TTL_MAX.as_secs() / 86_400),
            "refused at publish",
            "",
        ),
        ("a job's own bucket, after the last write", time(effects::OWN_BUCKET_TTL), "removed", ""),
        ("first delay between attempts", time(retry::BASE), "grows twofold, with full jitter", "retry.base"),
        ("longest delay between attempts", time(retry::CAP), "stays there", "retry.cap"),
        (
            "retries a second that a host causes when many jobs fail together",
            format!("{}, and one for each {} done", worker::RETRIES_PER_S, worker::DONE_PER_RETRY),
            "delays grow, up to their cap",
            "",
        ),
        (
            "longest first delay to ask for",
            time(retry::BASE_MAX),
            "refused at enqueue, publish, start; clamped from Redis",
            "",
        ),
        (
            "longest delay to ask for",
            time(retry::CAP_MAX),
            "refused at enqueue, publish, start; clamped from Redis",
            "",
        ),
        ("linear memory of a job", mib(config::MEMORY_MIB), "stopped", "limits.memory_mib"),
        ("record and result of a finished job", time(config::DONE_TTL), "removed", "limits.done_ttl"),
        ("Wasm file", bytes(jumpscript::WASM_BYTES_MAX), "refused at publish", ""),
        ("text of a script", bytes(jumpscript::SOURCE_BYTES_MAX), "refused at publish", ""),
        ("manifest", bytes(jumpscript::MANIFEST_BYTES_MAX), "refused at publish", ""),
        (
            "jobs that run at once, for each core",
            config::CONCURRENCY_PER_CORE.to_string(),
            "wait in the queue",
            "concurrency",
        ),
        ("most jobs that run at once", config::CONCURRENCY_MAX.to_string(), "refused at start", "concurrency"),
        ("between two looks for lost jobs, in a fleet", time(maintenance::RECONCILE_PERIOD), "-", ""),
        ("queues of one host", config::QUEUES_MAX.to_string(), "refused at start", "queues"),
        ("weight of a queue", config::WEIGHT_MAX.to_string(), "refused at start", "queues"),
        ("lease", time(config::LEASE), "the job goes to another host", "lease"),
        ("shortest lease", time(config::LEASE_MIN), "refused at start", "lease"),
        ("longest lease", time(config::LEASE_MAX), "refused at start", "lease"),
        ("grace after SIGTERM", time(config::GRACE), "the rest goes back to the head of its queue", "grace"),
        (
            "opening a connection to Redis",
            time(config::CONNECT_TIMEOUT),
            "an error, tried again",
            "redis.connect_timeout",
        ),
        (
            "a command that does not wait",
            time(config::COMMAND_TIMEOUT),
            "an error, tried again",
            "redis.command_timeout",
        ),
        ("types of a protocol", config::TYPES_MAX.to_string(), "refused at start", "protocol.hero.types"),
        (
            "jobs of another system taken over ahead, for each queue",
            bridge::WAITING_MAX.to_string(),
            "stay in their list",
            "",
        ),
        ("reply to Hero that nobody takes", time(hero::REPLY_TTL), "removed", ""),
        ("free disk space", mib(config::HEALTH_DISK_MIB), "health is red", "health.disk_mib"),
        ("available memory", mib(config::HEALTH_MEMORY_MIB), "health is red", "health.memory_mib"),
        ("silence of a loop of the worker", time(config::HEALTH_STALL), "health is red", "health.stall"),
        (
            "distance of the clocks",
            time(config::HEALTH_CLOCK_SKEW),
            "health is amber, tenfold red",
            "health.clock_skew",
        ),
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

/// What the sandbox holds a guest to.
fn of_sandboxes() -> Vec<Row> {
    let compile = sandbox::CompileLimits::default();
    vec![
        (
            "a computing guest is asked whether it may go on",
            format_duration(sandbox::TICK),
            "stopped at its timeout",
            "",
        ),
        ("HTTP requests of an attempt", sandbox::HTTP_REQUESTS_MAX.to_string(), "connection-limit-reached", ""),
        ("body of an HTTP request", bytes(to_usize(sandbox::HTTP_REQUEST_BYTES_MAX)), "HTTP-request-body-size", ""),
        ("headers of an HTTP request", bytes(sandbox::HTTP_FIELDS_BYTES_MAX), "stopped", ""),
        ("body of an HTTP response", bytes(to_usize(sandbox::HTTP_RESPONSE_BYTES_MAX)), "cut off with an error", ""),
        ("headers of an HTTP response", sandbox::HTTP_HEADERS_MAX.to_string(), "HTTP-response-header-section-size", ""),
        ("their bytes", bytes(sandbox::HTTP_HEAD_BYTES_MAX), "HTTP-response-header-section-size", ""),
        ("name, connection and TLS", format_duration(sandbox::HTTP_CONNECT_TIMEOUT), "connection-timeout", ""),
        ("HTTP connections of a host", sandbox::HTTP_CONNECTIONS_MAX.to_string(), "further requests wait", ""),
        ("hosts that a manifest requests or a node allows", HTTP_PATTERNS_MAX.to_string(), "refused", ""),
        (
            "value for jumpscripts in the configuration",
            bytes(config::SCRIPT_CONFIG_VALUE_BYTES_MAX),
            "refused at start",
            "script_config",
        ),
        ("keys of one such table", config::SCRIPT_CONFIG_KEYS_MAX.to_string(), "refused at start", "script_config"),
        ("secrets that are named one by one", config::SECRETS_MAX.to_string(), "refused at start", "secrets"),
        ("secret", bytes(SECRET_BYTES_MAX), "not given", ""),
        ("file systems that are told as facts", DISKS_MAX.to_string(), "left out", ""),
        ("names of processes that are counted in one call", PROCESS_NAMES_MAX.to_string(), "refused", ""),
        ("health components that are told as facts", COMPONENTS_MAX.to_string(), "left out", ""),
        ("age of what is told of disks, processes and health", format_duration(FACTS_AGE_MAX), "asked anew", ""),
        ("shortest secret that is hidden in logs and errors", bytes(HIDDEN_BYTES_MIN), "left as it is", ""),
        ("core instances of a component", sandbox::CORE_INSTANCES_MAX.to_string(), "refused", ""),
        ("linear memories of a component", sandbox::MEMORIES_MAX.to_string(), "refused", ""),
        ("tables of a component", sandbox::TABLES_MAX.to_string(), "refused", ""),
        ("elements of a table", sandbox::TABLE_ELEMENTS_MAX.to_string(), "stopped", ""),
        ("resources that a guest holds", sandbox::RESOURCES_MAX.to_string(), "stopped", ""),
        ("random bytes of one call", bytes(to_usize(sandbox::RANDOM_BYTES_MAX)), "stopped", ""),
        ("bytes handed to the host in one call", bytes(sandbox::HOSTCALL_FUEL), "stopped", ""),
        ("calls of the host in an attempt", sandbox::HOST_CALLS_MAX.to_string(), "stopped", ""),
        ("log, stdout and stderr of an attempt", bytes(sandbox::LOG_BYTES_MAX), "the rest is dropped, with a mark", ""),
        ("log lines of an attempt", sandbox::LOG_LINES_MAX.to_string(), "the rest is dropped, with a mark", ""),
        ("progress reports of an attempt", sandbox::PROGRESS_REPORTS_MAX.to_string(), "the rest is dropped", ""),
        ("log tail in the job's record", bytes(worker::LOG_BYTES_MAX), "its beginning is dropped", ""),
        ("error text in the job's record", bytes(worker::ERROR_BYTES_MAX), "cut", ""),
        (
            "native code kept in memory",
            bytes(sandbox::NATIVE_BYTES_MAX),
            "what was not used for longest is dropped",
            "",
        ),
        (
            "native code kept on disk",
            bytes(to_usize(sandbox::DIRECTORY_BYTES_MAX)),
            "what was not used for longest is removed at the next start",
            "",
        ),
        ("compiling a Wasm file, wall time", format_duration(compile.wall), "refused", ""),
        ("compiling a Wasm file, CPU time", format_duration(compile.cpu), "refused", ""),
        (
            "Wasm file that runs at once on quickly made code",
            format!("from {}", bytes(to_usize(config::FIRST_TIER_KIB) * 1024)),
            "a smaller one is optimised first",
            "sandbox.first_tier_kib",
        ),
        (
            "Wasm that waits to be optimised meanwhile",
            bytes(sandbox::WAITING_BYTES_MAX),
            "optimised before it runs",
            "",
        ),
        ("compiling a Wasm file, memory", bytes(to_usize(compile.memory_bytes_max)), "refused", ""),
    ]
}

/// What Redis keeps.
fn of_stores() -> Vec<Row> {
    let days = |n: u32| format!("{n} days");
    vec![
        (
            "hand-outs of a job whose hosts are lost",
            store::DELIVERIES_MIN.to_string(),
            "dead-letter queue; more when it has more attempts",
            "",
        ),
        ("dead jobs of a queue", store::DLQ_MAX.to_string(), "the oldest go, and are counted", ""),
        ("a dead job", days(store::DLQ_DAYS), "removed", ""),
        ("list of done jobs of a queue", store::DONE_MAX.to_string(), "the oldest leave the list", ""),
        ("ids set aside of a queue", store::ASIDE_MAX.to_string(), "the oldest go", ""),
        ("idempotency key", days(store::IDEMPOTENCY_DAYS), "forgotten", ""),
        ("jobs of one reserve", store::RESERVE_MAX.to_string(), "the next reserve takes them", ""),
        ("entries that one script looks at in a structure", store::SCAN_MAX.to_string(), "the next call goes on", ""),
        ("time between two heartbeats of a node", format_duration(node::BEAT_INTERVAL), "its stamps grow old", ""),
        ("silence after which a host is not alive", format_duration(store::node::NODE_LIVE), "its number is free", ""),
        ("what a silent host left in the hashes", format_duration(node::SWEEP_AFTER), "removed by any node", ""),
    ]
}

/// What the HTTP server holds its callers to.
fn of_http() -> Vec<Row> {
    let time = |duration: Duration| format_duration(duration).replace(' ', "");
    vec![
        (
            "HTTP connections, also at most half the files of the process",
            http::CONNECTIONS_MAX.to_string(),
            "closed at once",
            "",
        ),
        ("waiting for the head of an HTTP request", time(http::HEAD_TIMEOUT), "closed", ""),
        ("head of an HTTP request to the host", bytes(http::HEAD_BYTES_MAX), "431", ""),
        ("header fields of an HTTP request to the host", http::HEADERS_MAX.to_string(), "431", ""),
        ("body of an HTTP request to the host", bytes(http::BODY_BYTES_MAX), "413", ""),
        ("time for it", time(http::BODY_TIMEOUT), "408", ""),
        ("bodies and answers of all HTTP requests together", bytes(http::BODIES_BYTES_MAX), "503", ""),
        ("a peer takes nothing of an answer", time(http::WRITE_TIMEOUT), "closed", ""),
        ("what an HTTP request asks of Redis", time(http::REDIS_TIMEOUT), "503", ""),
        ("jobs of one HTTP request", http::BULK_MAX.to_string(), "422", ""),
        ("HTTP requests that wait for a job", http::WAITS_MAX.to_string(), "503", ""),
        ("time that one may wait, unless it says otherwise", time(http::WAIT), "202", ""),
        ("longest time that it may ask for", time(http::WAIT_MAX), "400", ""),
        ("streams of events over HTTP", http::STREAMS_MAX.to_string(), "503", ""),
        ("life of a stream", time(http::STREAM_LIFE), "closed", ""),
        ("wrong tokens of one peer before they are slowed down", http::WRONG_TOKENS_MAX.to_string(), "429", ""),
        ("shortest HTTP token", bytes(config::TOKEN_BYTES_MIN), "refused at start", "http.token_file"),
        ("longest HTTP token", bytes(config::TOKEN_BYTES_MAX), "refused at start", "http.token_file"),
        ("silence of the worker's loop after which `/healthz` fails", time(http::LOOP_SILENCE_MAX), "503", ""),
    ]
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
