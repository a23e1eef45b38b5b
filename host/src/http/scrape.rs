//! `/metrics`: what the worker, the node, Redis, the process and this server say, in one text.
//!
//! Invariant: a scrape costs Redis one look at the queues, at most once a second, and is answered without it when it is
//! away.

use std::time::Duration;

use super::answer::Answer;
use super::app::App;
use super::routes::{Page, ROUTES, Route};
use crate::clock::Timestamp;
use crate::metrics::{self, Counter, Gauge, Histogram, Metric, QueueMetrics, SETTLED, Text};
use crate::outcome::Outcome;
use crate::signatures::Doubt;
use crate::store::QueueInfo;

/// Classes of statuses.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// The label of requests that are for no route.
const OTHER: &str = "other";

/// What the server counts of itself.
pub(super) struct HttpMetrics {
    /// For each route, and one more for what is none: answers by class.
    requests: Vec<[Counter; CLASSES.len()]>,
    seconds: Histogram,
    pub(super) connections: Gauge,
    /// Connections closed at once.
    pub(super) refused: Counter,
}

impl HttpMetrics {
    pub(super) fn new() -> Self {
        Self {
            requests: (0..=ROUTES.len()).map(|_| Default::default()).collect(),
            seconds: Histogram::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
        }
    }

    /// Counts an answer.
    pub(super) fn count(&self, route: Option<&'static Route>, status: u16, took: Duration) {
        let place = route.and_then(|route| ROUTES.iter().position(|known| known.page == route.page));
        let class = usize::from(status / 100).saturating_sub(2).min(CLASSES.len() - 1);
        self.requests[place.unwrap_or(ROUTES.len())][class].increment();
        if !route.is_some_and(|route| matches!(route.page, Page::Wait | Page::Logs)) {
            self.seconds.observe(took);
        }
    }
}

/// The page.
pub(super) async fn page(app: &App) -> Answer {
    let queues = app.queues().await;
    let mut text = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    text.begin(metrics::BUILD).sample(&[version, &app.facts.node], 1);
    text.single(metrics::REDIS_UP, u8::from(queues.is_ok()));
    write_queues(&mut text, queues.as_deref().unwrap_or_default());
    write_worker(&mut text, app);
    write_node(&mut text, app);
    write_http(&mut text, app);
    write_process(&mut text, app);
    Answer::text("text/plain; version=0.0.4; charset=utf-8", text.finish())
}

fn write_queues(text: &mut Text, queues: &[QueueInfo]) {
    text.begin(metrics::QUEUE_JOBS);
    for queue in queues {
        let states = [
            ("ready", queue.ready),
            ("parked", queue.parked()),
            ("scheduled", queue.scheduled),
            ("inflight", queue.inflight),
            ("dlq", queue.dlq),
        ];
        for (state, n) in states {
            text.sample(&[&queue.name, state], n);
        }
    }
    let now = Timestamp::now();
    text.begin(metrics::QUEUE_OLDEST);
    for queue in queues {
        let age = queue.waiting_since.map_or(Duration::ZERO, |since| now.since(since));
        text.sample(&[&queue.name], format!("{:.3}", age.as_secs_f64()));
    }
    text.begin(metrics::QUEUE_PAUSED);
    for queue in queues {
        text.sample(&[&queue.name], u8::from(queue.settings.paused_since.is_some()));
    }
    text.begin(metrics::QUEUE_EVENTS);
    for queue in queues {
        for (event, n) in queue.counters.iter().filter(|(event, _)| event != "parked") {
            text.sample(&[&queue.name, event], n);
        }
    }
}

fn write_worker(text: &mut Text, app: &App) {
    let worker = &app.facts.worker;
    text.begin(metrics::ATTEMPTS);
    for queue in &worker.queues {
        for (outcome, n) in Outcome::KINDS.iter().zip(&queue.attempts) {
            text.sample(&[&queue.name, outcome], n.get());
        }
    }
    text.begin(metrics::SETTLED_TOTAL);
    for (end, n) in SETTLED.iter().zip(&worker.settled) {
        text.sample(&[end], n.get());
    }
    let mut histograms = |metric: Metric, of: fn(&QueueMetrics) -> &Histogram| {
        text.begin(metric);
        for queue in &worker.queues {
            text.histogram(&[&queue.name], of(queue));
        }
    };
    histograms(metrics::WAIT, |queue| &queue.wait);
    histograms(metrics::WALL, |queue| &queue.wall);
    text.begin(metrics::CPU);
    for queue in &worker.queues {
        text.sample(&[&queue.name], metrics::seconds(queue.cpu_us.get()));
    }
    text.single(metrics::HELD, worker.held.get());
    text.single(metrics::RUNNING, (app.facts.running)());
    text.single(metrics::SLOTS, worker.slots.get());
    text.single(metrics::POOL, app.facts.pool_size);
    text.begin(metrics::TURNS).histogram(&[], &worker.turns);
    text.single(metrics::REDIS_FAILURES, worker.redis_failures.get());
    text.single(metrics::REVISION, worker.revision.get());
    text.single(metrics::REPORTS_DROPPED, worker.reports_dropped.get());
    text.begin(metrics::CODE_REFUSED);
    for (reason, n) in Doubt::REASONS.iter().zip(app.facts.signatures.refused()) {
        text.sample(&[reason], n);
    }
}

fn write_node(text: &mut Text, app: &App) {
    text.single(metrics::LOOP_SILENCE, format!("{:.3}", app.facts.pulse.age().as_secs_f64()));
    text.begin(metrics::HEALTH);
    for check in app.facts.board.report().iter().flat_map(|report| &report.checks) {
        text.sample(&[&check.component], check.state as u8);
    }
}

fn write_http(text: &mut Text, app: &App) {
    let names = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).chain([OTHER.to_owned()]);
    text.begin(metrics::HTTP_REQUESTS);
    for (name, classes) in names.zip(&app.metrics.requests) {
        for (class, n) in CLASSES.iter().zip(classes) {
            text.sample(&[&name, class], n.get());
        }
    }
    text.begin(metrics::HTTP_SECONDS).histogram(&[], &app.metrics.seconds);
    text.single(metrics::HTTP_CONNECTIONS, app.metrics.connections.get());
    text.single(metrics::HTTP_REFUSED, app.metrics.refused.get());
    text.single(metrics::HTTP_UNAUTHORIZED, app.gate.n_refused.get());
    text.single(metrics::HTTP_STREAMS, app.waiters.len());
}

fn write_process(text: &mut Text, app: &App) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let status = read("status");
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    text.single(metrics::PROCESS_CPU, format!("{}.{:06}", cpu.tv_sec, cpu.tv_nsec / 1000));
    text.single(metrics::PROCESS_RSS, number("VmRSS") * 1024);
    text.single(metrics::PROCESS_START, app.started.seconds());
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1));
    text.single(metrics::PROCESS_FILES, files);
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    text.single(metrics::PROCESS_FILES_MAX, files_max);
    text.single(metrics::PROCESS_THREADS, number("Threads"));
}
