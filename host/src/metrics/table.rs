//! The table of metrics: `docs/metrics.md` is made from it, and `/metrics` writes nothing that is not in it.

use std::fmt::Write as _;

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process or the queue ends.
    Counter,
    /// As it is now.
    Gauge,
    /// Times in buckets, with their sum and number.
    Histogram,
}

impl Kind {
    /// The word in the exposition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name; the unit stands at the end.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub what: &'static str,
    /// An alert that is worth having, as an expression; empty when there is none.
    pub alert: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal [$($label:literal),*] $what:literal, alert $alert:literal;)*) => {
        $(
            #[doc = $what]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], what: $what, alert: $alert };
        )*

        /// Every metric, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD Gauge "wasmhost_build_info" ["version", "node"] "Always 1; the version and the node's name are its labels.",
        alert "";
    REDIS_UP Gauge "wasmhost_redis_up" [] "1 when Redis answered this scrape, else 0; the metrics of the queues are missing then.",
        alert "wasmhost_redis_up == 0 for 1m";
    QUEUE_JOBS Gauge "wasmhost_queue_jobs" ["queue", "state"]
        "Jobs of a queue in the whole fleet: ready, parked (over the limit of their key), scheduled, inflight, dlq.",
        alert "wasmhost_queue_jobs{state=\"dlq\"} > 0";
    QUEUE_OLDEST Gauge "wasmhost_queue_oldest_ready_seconds" ["queue"]
        "How long the job at the head of a queue could have run by now; 0 when none waits.",
        alert "wasmhost_queue_oldest_ready_seconds > 300 for 5m";
    QUEUE_PAUSED Gauge "wasmhost_queue_paused" ["queue"] "1 while a queue is paused, else 0.",
        alert "wasmhost_queue_paused == 1 for 1h";
    QUEUE_EVENTS Counter "wasmhost_queue_events_total" ["queue", "event"]
        "What happened to jobs of a queue in the whole fleet: done, retried, dead, reclaimed (their host was lost), set_aside (no runnable record), dlq_dropped (over the cap of the DLQ), cancelled, dropped (a full queue made room), purged.",
        alert "increase(wasmhost_queue_events_total{event=~\"set_aside|dlq_dropped\"}[10m]) > 0";
    ATTEMPTS Counter "wasmhost_attempts_total" ["queue", "outcome"]
        "Attempts that ended on this host, by outcome.",
        alert "sum by (queue) (rate(wasmhost_attempts_total{outcome!=\"done\"}[5m])) / sum by (queue) (rate(wasmhost_attempts_total[5m])) > 0.1";
    SETTLED_TOTAL Counter "wasmhost_settled_total" ["end"]
        "What this host's attempts came to in Redis: done, retry, dlq, released (a drain), lease_lost (another host has the job), refused (what it did could not be committed), conflict (state that it had read changed, it runs again).",
        alert "rate(wasmhost_settled_total{end=\"lease_lost\"}[5m]) > 0";
    WAIT Histogram "wasmhost_job_wait_seconds" ["queue"]
        "From the creation of a job, by its producer's clock, to the start of its first attempt on this host; a delay that was asked for counts.",
        alert "histogram_quantile(0.99, sum by (queue, le) (rate(wasmhost_job_wait_seconds_bucket[5m]))) > 60";
    WALL Histogram "wasmhost_attempt_seconds" ["queue"] "Wall time of attempts on this host.",
        alert "";
    CPU Counter "wasmhost_attempt_cpu_seconds_total" ["queue"] "Time that the scripts of a queue computed on this host.",
        alert "";
    HELD Gauge "wasmhost_held_jobs" [] "Jobs that this host holds a lease on; short ones are held ahead of running them.",
        alert "";
    RUNNING Gauge "wasmhost_running_attempts" [] "Attempts that run on this host.",
        alert "wasmhost_running_attempts >= wasmhost_slots for 15m";
    SLOTS Gauge "wasmhost_slots" [] "Most attempts that run at once (`concurrency`).",
        alert "";
    POOL Gauge "wasmhost_sandbox_pool_size" [] "Sandboxes that can exist at once.",
        alert "";
    TURNS Histogram "wasmhost_redis_turn_seconds" [] "Round trips to Redis that settle and reserve.",
        alert "histogram_quantile(0.99, rate(wasmhost_redis_turn_seconds_bucket[5m])) > 0.5";
    REDIS_FAILURES Counter "wasmhost_redis_failures_total" [] "Calls of the worker that Redis did not answer.",
        alert "rate(wasmhost_redis_failures_total[5m]) > 0";
    REVISION Gauge "wasmhost_scripts_revision" []
        "The revision of the published jumpscripts as this host has seen it; every publish adds 1, and nodes that differ for long are stale.",
        alert "max(wasmhost_scripts_revision) - min(wasmhost_scripts_revision) > 0 for 5m";
    REPORTS_DROPPED Counter "wasmhost_progress_reports_dropped_total" [] "Progress reports that came faster than they could be taken.",
        alert "";
    CODE_REFUSED Counter "wasmhost_code_refused_total" ["reason"]
        "Attempts that this host did not run because `signatures.policy` is `require`: the code is unsigned, signed by another key than it should be (key), the signature is not one of this code (forged), is for another name (name), is older than what was live (older), is from the future (clock), the code was replaced a while ago (replaced), or the host cannot remember what was live (memory).",
        alert "increase(wasmhost_code_refused_total[10m]) > 0";
    LOOP_SILENCE Gauge "wasmhost_loop_silence_seconds" [] "Time since the loop of the worker turned last.",
        alert "wasmhost_loop_silence_seconds > 10 for 1m";
    HEALTH Gauge "wasmhost_health_state" ["component"] "The node's checks: 0 green, 1 amber, 2 red.",
        alert "wasmhost_health_state == 2 for 1m";
    HTTP_REQUESTS Counter "wasmhost_http_requests_total" ["route", "class"]
        "Answered HTTP requests by route and class of their status; `other` is no route of this server.",
        alert "rate(wasmhost_http_requests_total{class=\"5xx\"}[5m]) > 0";
    HTTP_SECONDS Histogram "wasmhost_http_seconds" [] "From the head of a request to the head of its answer; waits and streams do not count.",
        alert "";
    HTTP_CONNECTIONS Gauge "wasmhost_http_connections" [] "Open HTTP connections.",
        alert "";
    HTTP_REFUSED Counter "wasmhost_http_connections_refused_total" [] "HTTP connections that were closed at once because there were too many.",
        alert "rate(wasmhost_http_connections_refused_total[5m]) > 0";
    HTTP_UNAUTHORIZED Counter "wasmhost_http_wrong_tokens_total" [] "HTTP requests with a wrong token or none.",
        alert "rate(wasmhost_http_wrong_tokens_total[5m]) > 1";
    HTTP_STREAMS Gauge "wasmhost_http_streams" [] "Open event streams and waits.",
        alert "";
    PROCESS_CPU Counter "process_cpu_seconds_total" [] "CPU time of the process.",
        alert "";
    PROCESS_RSS Gauge "process_resident_memory_bytes" [] "Memory of the process.",
        alert "";
    PROCESS_START Gauge "process_start_time_seconds" [] "When the process began, in Unix seconds.",
        alert "changes(process_start_time_seconds[15m]) > 2";
    PROCESS_FILES Gauge "process_open_fds" [] "Open files and sockets of the process.",
        alert "process_open_fds / process_max_fds > 0.8";
    PROCESS_FILES_MAX Gauge "process_max_fds" [] "Most files and sockets that the process may open.",
        alert "";
    PROCESS_THREADS Gauge "process_threads" [] "Threads of the process.",
        alert "";
}

/// The text of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for metric in METRICS {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind.as_str(), metric.what);
    }
    text.push_str(ALERTS);
    for metric in METRICS.iter().filter(|metric| !metric.alert.is_empty()) {
        let _ = writeln!(text, "- `{}`", metric.alert);
    }
    text
}

const HEAD: &str = "# Metrics

This page is made from the program's own table; a test compares them, and another that `/metrics` serves these and no
others.

`GET /metrics` of `wasmhost run --http ADDRESS:PORT` answers in the text format of Prometheus (0.0.4). It needs the
token unless `http.open` names it (see `http.md`). Labels are the queues that exist, outcomes, states, reasons and routes:
nothing that a job says makes a new one. Numbers of queues are asked of Redis at the scrape, at most once a second, and hold for
the whole fleet: take them from one host, or `max by (queue, state)`. All others are of the one host.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
";

const ALERTS: &str = "
## Alerts worth having

The numbers are a start; what is long or many differs from queue to queue.

";
