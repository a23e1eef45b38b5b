//! How a worker without work learns of some: pushes, signals, and the sweep behind them.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::peeks::PeekEnd;
use super::{BATCH_MAX, SWEEP_PERIOD, Worker};
use crate::ports::Seen;
use crate::store::{QueueShare, Signal, Signals};

impl Worker {
    /// Remembers when the next sweep is worth making. What lies further away than the next regular one needs no timer.
    pub(super) fn due_at(&mut self, next_due_ms: Option<i64>, now_ms: i64) {
        let now = Instant::now();
        self.server_clock = Some((now_ms, now));
        if let Some(due_ms) = next_due_ms {
            let wait = Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0)) + Duration::from_millis(1);
            if wait <= SWEEP_PERIOD {
                self.next_due = Some(self.next_due.map_or(now + wait, |known| known.min(now + wait)));
            }
        }
    }

    pub(super) fn signalled(&mut self, signal: Signal) {
        match signal {
            Signal::Due(due_ms) => {
                if let Some((then_ms, then)) = self.server_clock {
                    let elapsed_ms = i64::try_from(then.elapsed().as_millis()).unwrap_or(i64::MAX);
                    self.due_at(Some(due_ms), then_ms.saturating_add(elapsed_ms));
                }
            }
            Signal::Rev(rev) => self.saw_revision(rev),
            Signal::Resubscribed => self.last_check = None,
        }
    }

    pub(super) fn wait_for_pushes(&mut self) {
        let mut quiet = self.peeks.quiet();
        quiet.retain(|queue| !self.is_left_alone(&self.options.queues[*queue].0));
        if quiet.is_empty() || self.room() == 0 {
            return;
        }
        let share = (self.room() / quiet.len()).clamp(1, BATCH_MAX);
        for queue in quiet {
            if self.room() == 0 {
                return;
            }
            let limit = u32::try_from(share).unwrap_or(1);
            let name = self.options.queues[queue].0.clone();
            let request = self.reserve(vec![QueueShare { queue: name, take: limit }], limit, false);
            self.peeks.wait(queue, request);
        }
    }

    pub(super) fn peek_ended(&mut self, end: PeekEnd) {
        match end {
            PeekEnd::Answer { limit, reservation } => {
                self.redis_answered();
                self.is_hot |= !self.is_draining && reservation.jobs.len() >= limit;
                self.take_in(reservation);
            }
            PeekEnd::Failed(error) if self.is_draining => {
                tracing::debug!(%error, "blocked connection closed");
            }
            PeekEnd::Failed(error) => self.redis_failed(&error),
        }
    }

    pub(super) async fn sweep_when_due(&mut self) {
        let now = Instant::now();
        let is_due = self.next_due.is_some_and(|due| due <= now);
        let is_check_due = self.last_check.is_none_or(|last| now.duration_since(last) >= SWEEP_PERIOD);
        if self.paused_until.is_some() || !(is_due || is_check_due) {
            return;
        }
        self.next_due = None;
        self.last_sweep = now;
        self.last_check = Some(now);
        let queues: Vec<String> = self.options.queues.iter().map(|(queue, _)| queue.clone()).collect();
        match self.store.sweep(&queues).await {
            Ok(swept) => {
                self.redis_answered();
                self.saw_broken(&swept.broken);
                let seen = Seen { rev: swept.rev, scripts_check: swept.scripts_check };
                self.seen.send_if_modified(|old| std::mem::replace(old, seen.clone()) != seen);
                self.due_at(swept.next_due_ms, swept.now_ms);
            }
            Err(error) => self.redis_failed(&error),
        }
    }
}

/// Has a task of its own listen: the worker's loop turns thousands of times a second, and subscribing takes longer.
pub(super) fn listen(mut signals: Signals) -> mpsc::Receiver<Signal> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                signal = signals.next() => if sender.send(signal).await.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    receiver
}
