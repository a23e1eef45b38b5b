//! How a worker without work learns of some, without polling.
//!
//! One host of the fleet *watches* a queue: it is blocked on its list, with a reserve pipelined behind the block. The
//! watch is a short lease that each sweep takes or renews (`lua/sweep.lua`). The other idle hosts wait at the queue's
//! bell, which wakes one of them at a time: when a host gets all it has room for, or when it has no room and gives up
//! its watch.
//!
//! Invariant: none of this decides who gets a job. Whatever is lost, the sweep says within two periods that there are
//! jobs which nobody takes.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::peeks::{BellEnd, Bells, PeekEnd};
use super::{BATCH_MAX, SWEEP_PERIOD, Worker};
use crate::ports::Seen;
use crate::store::{Peeked, QueueShare, Ring, Signal, Signals, Store, new_token};

/// Least time between two rings for more hosts.
const RING_PERIOD: Duration = Duration::from_millis(100);
/// Without room for this long while there may be more jobs: another host is woken.
const RING_AFTER: Duration = Duration::from_millis(2);
/// Without room for this long: another host may watch. Shorter jobs end sooner than a hand-over takes.
const GIVE_UP_AFTER: Duration = Duration::from_millis(20);
/// How often the watch is offered again while there is no room.
const GIVE_UP_PERIOD: Duration = Duration::from_secs(1);
/// Pauses of a queue whose list wakes us again and again but gives nothing.
const REST: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long a stop waits for Redis to hear that the watch is free.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a worker knows of who watches what.
pub(super) struct Wake {
    /// This worker among all, one word.
    session: String,
    /// By queue: whether this host watches it.
    is_ours: Vec<bool>,
    /// By queue: fruitless wakes in a row, and until when its list is left alone.
    rests: Vec<(u32, Option<Instant>)>,
    /// Queues that woke a peek which was to look only, since the last reserve.
    woken: Vec<usize>,
    pub(super) bells: Bells,
    /// Since when there is no room.
    full_since: Option<Instant>,
    /// When to look what follows from that.
    look_at: Option<Instant>,
    rang_at: Option<Instant>,
    gave_up_at: Option<Instant>,
}

impl Wake {
    pub(super) fn new(store: &Store, n_queues: usize, node: &str) -> Self {
        let node = node.replace(char::is_whitespace, "_");
        Self {
            session: format!("{}@{node}", &new_token()[..12]),
            is_ours: vec![false; n_queues],
            rests: vec![(0, None); n_queues],
            woken: Vec::new(),
            bells: Bells::new(store),
            full_since: None,
            look_at: None,
            rang_at: None,
            gave_up_at: None,
        }
    }

    /// When [`Worker::look_around`] is worth calling.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.rests.iter().filter_map(|(_, until)| *until).chain(self.look_at).min()
    }

    fn is_resting(&self, queue: usize) -> bool {
        self.rests[queue].1.is_some()
    }

    /// A list that wakes for nothing, twice in a row, is left alone for a while.
    fn was_fruitless(&mut self, queue: usize) {
        let (n, until) = &mut self.rests[queue];
        if *n > 0 {
            let pause = REST.0.saturating_mul(1 << (*n - 1).min(10)).min(REST.1);
            *until = Some(Instant::now() + pause);
        }
        *n = n.saturating_add(1);
    }

    /// A queue that gives nothing at the moment, paused or at its limit: a signal or the next sweep ends the rest.
    fn was_closed(&mut self, queue: usize) {
        self.rests[queue] = (0, Some(Instant::now() + SWEEP_PERIOD));
    }

    fn was_fruitful(&mut self, queue: usize) {
        self.rests[queue] = (0, None);
    }

    /// Whether the time of what is due matters here: the host that watches sees to it, the others only after it.
    fn is_watching(&self) -> bool {
        self.is_ours.contains(&true)
    }
}

impl Worker {
    /// Remembers when the next sweep is worth making. What lies further away than the next regular one needs no timer.
    pub(super) fn due_at(&mut self, next_due_ms: Option<i64>, now_ms: i64) {
        let now = Instant::now();
        self.server_clock = Some((now_ms, now));
        if let Some(due_ms) = next_due_ms
            && self.wake.is_watching()
        {
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
            Signal::Watch { session, queue } => {
                let place = self.options.queues.iter().position(|(name, _)| *name == queue);
                if let Some(queue) = place.filter(|_| session != self.wake.session) {
                    self.set_ours(queue, false);
                }
            }
            Signal::Push(queue) => {
                let place = self.options.queues.iter().position(|(name, _)| *name == queue);
                // The host that watches sees to it; it rings for others when there is more than it takes.
                if let Some(queue) = place.filter(|queue| self.wake.is_ours[*queue]) {
                    self.wake.rests[queue] = (0, None);
                    self.is_hot |= !self.is_draining;
                }
            }
            Signal::Cancel(id) => self.held.cancel(id),
            Signal::Resubscribed => self.last_check = None,
        }
    }

    /// Has the next sweep made now.
    pub(super) fn check_now(&mut self) {
        self.last_check = None;
        self.next_due = Some(Instant::now());
    }

    fn set_ours(&mut self, queue: usize, is_ours: bool) {
        let was_ours = std::mem::replace(&mut self.wake.is_ours[queue], is_ours);
        if was_ours && !is_ours {
            self.peeks.leave(queue);
        }
    }

    /// Whether a job could be run here, promises aside.
    fn has_slot(&self) -> bool {
        self.held.len() < self.held_max()
    }

    /// Jobs wait, but all room is promised to queues that have none: it is taken back.
    pub(super) fn claim_promises(&mut self) {
        let is_stuck = self.is_hot && self.asked == 0 && self.room() == 0 && self.has_slot();
        if is_stuck && self.peeks.promised() > 0 && !self.is_draining && !self.redis.is_paused() {
            self.peeks.take_back();
        }
    }

    /// Blocks on the lists of the queues that this host watches, and at the bells of the others.
    pub(super) fn wait_for_pushes(&mut self) {
        if !self.has_slot() {
            return;
        }
        let n_queues = self.options.queues.len();
        let may_wait = |queue: &usize| {
            self.wake.is_ours[*queue]
                && self.peeks.is_quiet(*queue)
                && !self.wake.is_resting(*queue)
                && !self.is_left_alone(&self.options.queues[*queue].0)
        };
        let quiet: Vec<usize> = (0..n_queues).filter(may_wait).collect();
        // With less room than queues none of it is promised: then a peek looks only, and a turn takes the job.
        let share = self.room().checked_div(quiet.len()).unwrap_or(0).min(BATCH_MAX);
        for queue in quiet {
            let name = self.options.queues[queue].0.clone();
            // In strict order only a turn, which asks those before it first, takes a job of a later queue.
            let share = if self.options.is_strict && queue > 0 { 0 } else { share };
            let limit = u32::try_from(share).unwrap_or(1);
            let request =
                (limit > 0).then(|| self.reserve(vec![QueueShare { queue: name, take: limit }], limit, false));
            self.peeks.wait(queue, request);
        }
        let others: Vec<usize> = (0..n_queues).filter(|queue| !self.wake.is_ours[*queue]).collect();
        self.wake.bells.listen(others, &self.options.queues);
    }

    pub(super) fn peek_ended(&mut self, end: PeekEnd) {
        let PeekEnd { queue, limit, is_at_once, result } = end;
        if !self.wake.is_ours[queue] {
            self.peeks.leave(queue);
        }
        match result {
            Ok(Peeked { has_woken, reservation: None }) => {
                self.redis_answered();
                if has_woken {
                    self.is_hot |= !self.is_draining;
                    self.wake.woken.push(queue);
                }
            }
            Ok(Peeked { has_woken, reservation: Some(reservation) }) => {
                self.redis_answered();
                let n_taken = reservation.jobs.len();
                if !reservation.closed.is_empty() {
                    self.wake.was_closed(queue);
                } else if n_taken + reservation.set_aside.len() > 0 || reservation.is_more {
                    self.wake.was_fruitful(queue);
                } else if has_woken && reservation.broken.is_empty() {
                    self.wake.was_fruitless(queue);
                }
                // One job for one slot says nothing of a second, unless it was there before.
                let is_full = n_taken >= limit;
                let is_more = if is_full { limit > 1 || is_at_once } else { reservation.is_more };
                self.take_in(reservation);
                if is_more && !self.is_draining {
                    self.is_hot = true;
                    self.wake_another();
                }
            }
            Err(error) if self.is_draining => {
                tracing::debug!(%error, "blocked connection closed");
            }
            Err(error) => self.redis_failed(&error),
        }
    }

    /// Learns what a turn took, for the peeks that only looked.
    pub(super) fn turn_took(&mut self, limit: usize, n_taken: usize) {
        for queue in std::mem::take(&mut self.wake.woken) {
            if n_taken == 0 {
                self.wake.was_fruitless(queue);
            } else {
                self.wake.was_fruitful(queue);
            }
        }
        if limit > 1 && n_taken >= limit && !self.is_draining {
            self.wake_another();
        }
    }

    pub(super) fn bell_rang(&mut self, end: BellEnd) {
        match end {
            Ok(None) => self.redis_answered(),
            Ok(Some((queue, ring))) if self.is_draining || !self.has_slot() => {
                // Not for us: the next one gets it.
                self.ring(vec![queue], ring);
            }
            Ok(Some((_, Ring::More))) => {
                self.redis_answered();
                self.is_hot = true;
                // Who was woken wakes the next.
                self.wake.rang_at = None;
            }
            Ok(Some((_, Ring::Watch))) => {
                self.redis_answered();
                self.check_now();
            }
            Err(error) => self.redis_failed(&error),
        }
    }

    /// There is more than we take: one more host is to help.
    fn wake_another(&mut self) {
        if self.wake.rang_at.is_none_or(|last| last.elapsed() >= RING_PERIOD) {
            self.wake.rang_at = Some(Instant::now());
            self.ring((0..self.options.queues.len()).collect(), Ring::More);
        }
    }

    fn ring(&self, queues: Vec<usize>, ring: Ring) {
        let (store, session) = (self.store.clone(), self.wake.session.clone());
        let names: Vec<String> = queues.into_iter().map(|queue| self.options.queues[queue].0.clone()).collect();
        tokio::spawn(async move {
            if let Err(error) = store.ring(&names, &session, ring).await {
                tracing::debug!(%error, "bell not rung");
            }
        });
    }

    /// Notes whether there is room; without it for a while, others are told.
    pub(super) fn note_room(&mut self) {
        if self.has_slot() || self.is_draining {
            (self.wake.full_since, self.wake.look_at) = (None, None);
        } else if self.wake.full_since.is_none() {
            let now = Instant::now();
            (self.wake.full_since, self.wake.look_at) = (Some(now), Some(now + RING_AFTER));
        }
    }

    pub(super) fn look_around(&mut self) {
        let now = Instant::now();
        for (_, until) in &mut self.wake.rests {
            *until = until.filter(|until| *until > now);
        }
        let Some(since) = self.wake.full_since.filter(|_| self.wake.look_at.is_some_and(|at| at <= now)) else {
            return;
        };
        if now.duration_since(since) < GIVE_UP_AFTER {
            self.wake.look_at = Some(since + GIVE_UP_AFTER);
            if self.is_hot {
                self.wake_another();
            }
            return;
        }
        self.wake.look_at = Some(now + GIVE_UP_PERIOD);
        if self.wake.gave_up_at.is_none_or(|last| now.duration_since(last) >= GIVE_UP_PERIOD) {
            let ours: Vec<usize> = (0..self.wake.is_ours.len()).filter(|queue| self.wake.is_ours[*queue]).collect();
            if !ours.is_empty() {
                // Until another host says that it watches, we do as soon as there is room.
                self.wake.gave_up_at = Some(now);
                self.ring(ours, Ring::Watch);
            }
        }
    }

    pub(super) async fn sweep_when_due(&mut self) {
        let now = Instant::now();
        let is_due = self.next_due.is_some_and(|due| due <= now);
        let is_check_due = self.last_check.is_none_or(|last| now.duration_since(last) >= SWEEP_PERIOD);
        if self.redis.is_paused() || !(is_due || is_check_due) {
            return;
        }
        self.next_due = None;
        self.last_sweep = now;
        self.last_check = Some(now);
        let queues: Vec<String> = self.options.queues.iter().map(|(queue, _)| queue.clone()).collect();
        let may_watch = self.has_slot() && !self.is_draining;
        match self.store.sweep_for(&queues, &self.wake.session, may_watch).await {
            Ok(watched) => {
                self.redis_answered();
                let swept = watched.swept;
                self.saw_broken(&swept.broken);
                let seen = Seen { rev: swept.rev, scripts_check: swept.scripts_check };
                self.seen.send_if_modified(|old| std::mem::replace(old, seen.clone()) != seen);
                for (queue, is_ours) in watched.is_ours.into_iter().enumerate() {
                    // Without room nothing is taken anew, and what was ours stays until another host has it.
                    let is_kept = is_ours && (may_watch || self.wake.is_ours[queue]) && !self.is_draining;
                    // Told once more, should it have missed the first time that it is to leave.
                    self.wake.is_ours[queue] |= !self.peeks.is_quiet(queue);
                    self.set_ours(queue, is_kept);
                }
                self.peeks.forget_take_back();
                // Jobs that nobody takes: their push was not seen, or whoever watched is gone.
                self.is_hot |= may_watch && watched.has_ready.contains(&true);
                self.due_at(swept.next_due_ms, swept.now_ms);
            }
            Err(error) => self.redis_failed(&error),
        }
    }

    /// Leaves the watch to others.
    pub(super) async fn stop_watching(&mut self) {
        self.wake.bells.stop();
        let is_ours = std::mem::replace(&mut self.wake.is_ours, vec![false; self.options.queues.len()]);
        let places = self.options.queues.iter().zip(is_ours);
        let ours: Vec<String> = places.filter(|(_, is_ours)| *is_ours).map(|((queue, _), _)| queue.clone()).collect();
        if ours.is_empty() || self.redis.is_paused() {
            return;
        }
        let told = tokio::time::timeout(GOODBYE, self.store.ring(&ours, &self.wake.session, Ring::Watch)).await;
        if !matches!(told, Ok(Ok(_))) {
            tracing::debug!("redis was not told that nobody watches here any more");
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
