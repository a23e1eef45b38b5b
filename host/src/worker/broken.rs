//! Queues that cannot be served, because a key of theirs has the wrong type.

use std::time::Instant;

use super::{BROKEN_PAUSE, SWEEP_PERIOD, Worker};

impl Worker {
    /// Remembers what cannot be served, and says so once.
    pub(super) fn saw_broken(&mut self, broken: &[(String, String)]) {
        for (queue, reason) in broken {
            let known = self.broken.insert(queue.clone(), (reason.clone(), Instant::now()));
            if known.is_none_or(|(before, _)| before != *reason) {
                tracing::error!(%queue, %reason, "queue cannot be served");
                self.tell_faults();
            }
        }
    }

    /// Forgets the queues whose fault the last sweeps did not see again.
    pub(super) fn forget_mended(&mut self) {
        let n_before = self.broken.len();
        self.broken.retain(|queue, (_, seen)| {
            let is_broken = seen.elapsed() < SWEEP_PERIOD * 2;
            if !is_broken {
                tracing::info!(%queue, "queue can be served again");
            }
            is_broken
        });
        if self.broken.len() < n_before {
            self.tell_faults();
        }
    }

    pub(super) fn tell_faults(&self) {
        let fault = |(queue, (reason, _)): (&String, &(String, Instant))| format!("queue `{queue}`: {reason}");
        self.faults.send_replace(self.broken.iter().map(fault).collect());
    }

    pub(super) fn is_left_alone(&self, queue: &str) -> bool {
        self.broken.get(queue).is_some_and(|(_, seen)| seen.elapsed() < BROKEN_PAUSE)
    }
}
