//! Tells Redis that the host is alive and how well it is: one script every [`BEAT_INTERVAL`].
//!
//! Invariant: a worker whose loop is silent is not renewed, so its stamp grows old where readers look. A clean stop
//! takes every field of this process away; what a killed one left is removed by the next beat of its own node, or by
//! any node after [`SWEEP_AFTER`].
//!
//! Next: `store/lua/node_beat.lua`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::checks::{Loop, State};
use super::{BeatState, Board, Report};
use crate::config;
use crate::store::Store;
use crate::store::node::{Beat, Beaten, ComponentState, Monitoring, Presence, SilentHost};

/// Time between two heartbeats; JumpScale's workers renewed their stamps as often.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(4);
/// Silence after which any node removes what a host left behind; until then its stamps show by their age that it is
/// gone.
pub const SWEEP_AFTER: Duration = crate::store::node::HOST_GONE;
/// Longest time between two reports in `healthcheck:monitoring`; its readers call 240 s too old.
const MONITORING_INTERVAL: Duration = Duration::from_secs(60);
/// Longest time that a clean stop spends on its farewell.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// The service that writes heartbeats, sessions and health to Redis.
#[derive(Debug)]
pub struct Watchdog {
    store: Store,
    presence: Presence,
    workers: Vec<WorkerStamp>,
    loops: Vec<Loop>,
    limits: watch::Receiver<config::Health>,
    board: Board,
    state: BeatState,
    /// What was written to `healthcheck:monitoring` last, by states, and when.
    reported: Option<(Vec<State>, Instant)>,
}

/// The worker of one queue, and when its stamp was renewed last.
#[derive(Debug)]
struct WorkerStamp {
    queue: String,
    is_alive: bool,
    last_active: i64,
}

impl Watchdog {
    pub(super) fn new(
        store: Store,
        presence: Presence,
        queues: Vec<String>,
        loops: Vec<Loop>,
        limits: watch::Receiver<config::Health>,
        board: Board,
    ) -> Self {
        let workers = queues.into_iter().map(|queue| WorkerStamp { queue, is_alive: false, last_active: 0 }).collect();
        Self { store, presence, workers, loops, limits, board, state: BeatState::default(), reported: None }
    }

    /// The id of this process in `workers:sessions`.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.presence.session
    }

    /// Beats until `shutdown` is true or its sender is gone, then takes this process out of the hashes. To be stopped
    /// after the workers.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut next = tokio::time::interval(BEAT_INTERVAL);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let board = self.board.clone();
        loop {
            tokio::select! {
                _ = next.tick() => {}
                () = board.0.nudge.notified() => {}
                _ = shutdown.wait_for(|is_over| *is_over) => break,
            }
            // A beat that is under way when the stop comes would write after the farewell: it is waited for.
            self.beat().await;
        }
        if tokio::time::timeout(FAREWELL_LIMIT, self.leave()).await.is_err() {
            tracing::warn!("node left without a farewell: redis did not answer in time");
        }
    }

    async fn beat(&mut self) {
        let report = self.board.report();
        let stall = self.limits.borrow().stall;
        for worker in &mut self.workers {
            let is_of_worker = |l: &&Loop| l.queue.as_ref().is_none_or(|queue| *queue == worker.queue);
            worker.is_alive = self.loops.iter().filter(is_of_worker).all(|l| l.pulse.age() <= stall);
        }
        let workers: Vec<(String, bool)> = self.workers.iter().map(|w| (w.queue.clone(), w.is_alive)).collect();
        let components = report.as_deref().map(component_states).unwrap_or_default();
        let beat =
            Beat { presence: &self.presence, number: self.state.number, workers: &workers, components: &components };
        match self.store.beat(&beat).await {
            Ok(beaten) => self.take_answer(beaten, report.as_deref()).await,
            Err(error) => {
                let failure = error.to_string();
                if self.state.failure.is_none() {
                    tracing::warn!(reason = failure, "heartbeat failed");
                }
                self.state.failure = Some(failure);
            }
        }
        self.board.set_beat(self.state.clone());
    }

    async fn take_answer(&mut self, beaten: Beaten, report: Option<&Report>) {
        if self.state.failure.take().is_some() {
            tracing::info!("heartbeat is back");
            // What was in the hashes may have been lost with the server.
            self.reported = None;
        }
        self.state.number = Some(beaten.number);
        for worker in self.workers.iter_mut().filter(|worker| worker.is_alive) {
            worker.last_active = beaten.server_time.seconds();
        }
        for (key, kind) in &beaten.wrong_keys {
            if !self.state.wrong_keys.iter().any(|(known, _)| known == key) {
                tracing::error!(key, kind, "key of another type is in the way");
            }
        }
        self.state.wrong_keys = beaten.wrong_keys;
        if !beaten.has_report {
            // Never written, or lost with a FLUSHALL.
            self.reported = None;
        }
        if let Some(report) = report {
            self.write_report(report).await;
        }
        for silent in beaten.silent.iter().filter(|silent| self.is_gone(silent)) {
            self.sweep(silent).await;
        }
    }

    /// Whether a silent host can be removed: long dead, or a process of this node that does not exist any more.
    fn is_gone(&self, silent: &SilentHost) -> bool {
        let is_here = silent.presence.node == self.presence.node && silent.presence.pid != self.presence.pid;
        silent.silence >= SWEEP_AFTER
            || (is_here && !Path::new("/proc").join(silent.presence.pid.to_string()).exists())
            // An earlier life of this very pid, as in a container that was restarted.
            || (silent.presence.node == self.presence.node
                && silent.presence.pid == self.presence.pid
                && silent.presence.session != self.presence.session)
    }

    async fn sweep(&self, silent: &SilentHost) {
        match self.store.remove_silent(silent).await {
            Ok(Some(is_last)) => {
                let node = &silent.presence.node;
                tracing::info!(node, pid = silent.presence.pid, "dead host removed from the hashes");
                if is_last && silent.presence.nid != self.presence.nid {
                    self.drop_report(silent.presence.nid).await;
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(reason = %error, "dead host not removed yet"),
        }
    }

    /// Writes the report when a state has changed or the last one grows old.
    async fn write_report(&mut self, report: &Report) {
        let mut states: Vec<State> = report.checks.iter().map(|check| check.state).collect();
        states.extend(self.workers.iter().map(|w| if w.is_alive { State::Ok } else { State::Error }));
        let is_fresh = |(old, at): &(Vec<State>, Instant)| *old == states && at.elapsed() < MONITORING_INTERVAL;
        if self.reported.as_ref().is_some_and(is_fresh) {
            return;
        }
        let monitoring = self.monitoring(report);
        match self.store.write_monitoring(self.presence.nid, Some(&monitoring), report.checked.elapsed()).await {
            Ok(true) => self.reported = Some((states, Instant::now())),
            Ok(false) => {}
            Err(error) => tracing::debug!(reason = %error, "health report not written yet"),
        }
    }

    async fn drop_report(&self, nid: u32) {
        if let Err(error) = self.store.write_monitoring(nid, None, Duration::ZERO).await {
            tracing::debug!(reason = %error, "health report not removed");
        }
    }

    /// The report as JumpScale's programs read it: category -> entries.
    fn monitoring(&self, report: &Report) -> Monitoring {
        let (mut results, mut errors) = (Map::new(), Map::new());
        let mut add = |category: &str, entry: Map<String, Value>, fault: Option<Value>| {
            push(&mut results, category, Value::Object(entry));
            if let Some(fault) = fault {
                push(&mut errors, category, fault);
            }
        };
        for check in &report.checks {
            let mut entry = check.entry.clone();
            entry.insert("message".to_owned(), Value::from(check.text.clone()));
            let fault = (check.state != State::Ok).then(|| {
                let mut fault = entry.clone();
                fault.insert("errormessage".to_owned(), Value::from(check.text.clone()));
                match fault.get("path").and_then(Value::as_str).map(str::to_owned) {
                    // A disk is named by its path, one level up.
                    Some(path) if check.category == "disks" => json!({ path: fault }),
                    _ => Value::Object(fault),
                }
            });
            add(check.category, entry, fault);
        }
        for worker in &self.workers {
            let mut entry = Map::new();
            entry.insert("name".to_owned(), Value::from(self.worker_name(&worker.queue)));
            entry.insert("lastactive".to_owned(), Value::from(worker.last_active));
            entry.insert("state".to_owned(), Value::from(if worker.is_alive { "RUNNING" } else { "HALTED" }));
            let fault = (!worker.is_alive).then(|| {
                let mut fault = entry.clone();
                let text = format!("the worker of queue `{}` has stalled", crate::job::visible(&worker.queue));
                fault.insert("errormessage".to_owned(), Value::from(text));
                Value::Object(fault)
            });
            add("workers", entry, fault);
        }
        let errors = (!errors.is_empty()).then(|| Value::Object(errors).to_string());
        Monitoring { results: Value::Object(results).to_string(), errors }
    }

    fn worker_name(&self, queue: &str) -> String {
        format!("worker_{queue}_{}.{}", self.presence.node, self.state.number.unwrap_or(0))
    }

    /// The farewell of a clean stop.
    async fn leave(&mut self) {
        let Some(number) = self.state.number else { return };
        match self.store.leave(&self.presence, number).await {
            Ok(true) => self.drop_report(self.presence.nid).await,
            Ok(false) => {}
            Err(error) => tracing::warn!(reason = %error, "node left without a farewell"),
        }
    }
}

fn push(categories: &mut Map<String, Value>, category: &str, entry: Value) {
    let entries = categories.entry(category).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(entries) = entries {
        entries.push(entry);
    }
}

fn component_states(report: &Report) -> Vec<ComponentState> {
    let age = report.checked.elapsed();
    report
        .checks
        .iter()
        .map(|check| ComponentState { name: check.component.clone(), is_up: check.state != State::Error, age })
        .collect()
}
