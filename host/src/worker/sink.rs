//! What running jobs tell the world before they end.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::job::visible;
use crate::metrics::WorkerMetrics;
use crate::ports::{JobSink, Level};
use crate::store::Lease;

/// Progress reports that wait for the worker; more are dropped, the next report of the job says where it stands.
const REPORTS_MAX: usize = 1024;

/// A job's report of its progress.
#[derive(Debug)]
pub(super) struct Report {
    /// The job, and the lease it runs under.
    pub(super) lease: Lease,
    /// 0 to 100.
    pub(super) percent: u8,
    /// A few words.
    pub(super) message: String,
}

/// Makes the sinks of a worker's jobs.
#[derive(Clone, Debug)]
pub(super) struct Sinks {
    reports: mpsc::Sender<Report>,
    metrics: Arc<WorkerMetrics>,
}

impl Sinks {
    /// Sinks, and the end where their reports come out.
    #[must_use]
    pub(super) fn new(metrics: Arc<WorkerMetrics>) -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        (Self { reports, metrics }, receiver)
    }

    /// The sink of one attempt.
    #[must_use]
    pub(super) fn of(&self, lease: Lease) -> Arc<dyn JobSink> {
        Arc::new(Sink { sinks: self.clone(), lease })
    }
}

struct Sink {
    sinks: Sinks,
    lease: Lease,
}

impl JobSink for Sink {
    fn log(&self, level: Level, context: &str, message: &str) {
        // One level for the host's own log: what a guest calls an error is the author's business, not the operator's.
        tracing::debug!(target: "guest", job = %self.lease.id, level = level.as_str(), context = %visible(context), "{}", visible(message));
    }

    fn progress(&self, percent: u8, message: &str) {
        let report = Report { lease: self.lease.clone(), percent, message: message.to_owned() };
        if self.sinks.reports.try_send(report).is_err() {
            self.sinks.metrics.reports_dropped.increment();
        }
    }
}
