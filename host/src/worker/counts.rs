//! What a worker counts: for the line at its end, and for whoever shows its metrics.

use super::Worker;
use super::held::Held;
use crate::clock::Timestamp;
use crate::job::Reserved;
use crate::outcome::{Outcome, Usage};
use crate::store::{End, Settle, Settled};

impl Worker {
    /// Notes the revision of what is published, which rides back with every reserve.
    pub(super) fn saw_revision(&self, rev: u64) {
        self.metrics.revision.set(rev);
        self.seen.send_if_modified(|seen| std::mem::replace(&mut seen.rev, rev) != rev);
    }

    /// A first hand-out: how long the job has waited for it.
    pub(super) fn count_wait(&self, job: &Reserved, now: Timestamp) {
        if let (Some(created), 0, 0..=1) = (job.created_at, job.attempts, job.deliveries)
            && let Some(queue) = self.metrics.queue(&job.queue)
        {
            queue.wait.observe(now.since(created));
        }
    }

    /// An attempt has ended.
    pub(super) fn count_attempt(&self, held: &Held, outcome: &Outcome, usage: &Usage) {
        if let Some(queue) = self.metrics.queue(&held.queue) {
            queue.attempts[outcome.place()].increment();
            queue.wall.observe_us(usage.wall_us);
            queue.cpu_us.add(usage.cpu_us);
        }
    }

    /// An attempt was settled.
    pub(super) fn count(&mut self, settle: &Settle, settled: &Settled) {
        self.metrics.settled[settled_place(settle, settled)].increment();
        match (settled, &settle.end) {
            (Settled::Applied | Settled::Repeated, End::Done { .. }) => self.totals.done += 1,
            (Settled::Applied | Settled::Repeated, End::Retry { .. }) => self.totals.retried += 1,
            (Settled::Applied | Settled::Repeated, End::Dlq { .. }) => self.totals.dead += 1,
            (Settled::Applied | Settled::Repeated, End::Release) => self.totals.released += 1,
            (Settled::Conflict, _) => {
                tracing::debug!(job = %settle.id, queue = %settle.queue, "state changed under the attempt, it runs again");
            }
            (Settled::LeaseLost(why), _) => {
                self.totals.lost += 1;
                tracing::warn!(job = %settle.id, queue = %settle.queue, ?why, "lease lost, nothing written");
            }
            (Settled::Refused(why), _) => {
                tracing::error!(job = %settle.id, queue = %settle.queue, why = %why, "settling refused");
            }
        }
    }
}

/// The place of an end in [`crate::metrics::SETTLED`].
const fn settled_place(settle: &Settle, settled: &Settled) -> usize {
    match (settled, &settle.end) {
        (Settled::LeaseLost(_), _) => 4,
        (Settled::Refused(_), _) => 5,
        (Settled::Conflict, _) => 6,
        (_, End::Done { .. }) => 0,
        (_, End::Retry { .. }) => 1,
        (_, End::Dlq { .. }) => 2,
        (_, End::Release) => 3,
    }
}
