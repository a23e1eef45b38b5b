//! Looks at the node again and again, and tells when something turns red or green.
//!
//! Invariant: the checks go on while Redis is away; its own check is red then. A change of state is logged once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use tokio::sync::watch;

use super::checks::{self, Check, Loop, State};
use super::{Board, Report};
use crate::config;
use crate::store::Store;

/// The service that runs the built-in checks.
#[derive(Debug)]
pub struct Health {
    store: Store,
    loops: Vec<Loop>,
    data: PathBuf,
    pool_size: usize,
    limits: watch::Receiver<config::Health>,
    board: Board,
    known: HashMap<String, State>,
}

impl Health {
    pub(super) fn new(
        store: Store,
        loops: Vec<Loop>,
        data: PathBuf,
        pool_size: usize,
        limits: watch::Receiver<config::Health>,
        board: Board,
    ) -> Self {
        Self { store, loops, data, pool_size, limits, board, known: HashMap::new() }
    }

    /// Checks every `health.interval` until `shutdown` is true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let limits = self.limits.borrow_and_update().to_owned();
            let checked = tokio::select! {
                checked = self.check(&limits) => checked,
                _ = shutdown.wait_for(|is_over| *is_over) => return,
            };
            let has_changed = self.tell(&checked);
            self.board.set_report(Report { checks: checked, checked: Instant::now() });
            if has_changed {
                self.board.nudge();
            }
            tokio::select! {
                () = tokio::time::sleep(limits.interval) => {}
                Ok(()) = self.limits.changed() => {}
                _ = shutdown.wait_for(|is_over| *is_over) => return,
            }
        }
    }

    async fn check(&self, limits: &config::Health) -> Vec<Check> {
        let (disk, facts) = tokio::join!(checks::disk(&self.data, limits), self.store.server_facts());
        let beat = self.board.beat();
        let mut redis = checks::redis(self.store.address(), &facts);
        // A server that answers but does not take a heartbeat does not take jobs either.
        if let (Some(failure), State::Ok | State::Warning) = (&beat.failure, redis.state) {
            redis.state = State::Error;
            redis.text = format!("the last heartbeat could not be written: {failure}");
            redis.entry.insert("state".to_owned(), "BROKEN".into());
        }
        let mut all = vec![
            redis,
            disk,
            checks::memory(limits),
            checks::swap(),
            checks::map_count(self.pool_size),
            checks::loops(&self.loops, limits),
            checks::hashes(&beat.wrong_keys),
        ];
        if let Ok(facts) = &facts {
            all.push(checks::clock(facts.clock_ahead_ms, limits));
        }
        all
    }

    /// Logs what has changed since the last time. Whoever is well from the start is not worth a line.
    fn tell(&mut self, checks: &[Check]) -> bool {
        let mut has_changed = false;
        for check in checks {
            let before = self.known.insert(check.component.clone(), check.state);
            if before == Some(check.state) {
                continue;
            }
            has_changed = true;
            let (component, text, remedy) = (&check.component, &check.text, &check.remedy);
            match (before, check.state) {
                (None, State::Ok) => {}
                (_, State::Ok) => tracing::info!(%component, text, "health check turned green"),
                (_, State::Warning) => tracing::warn!(%component, text, remedy, "health check turned amber"),
                (_, State::Error) => tracing::error!(%component, text, remedy, "health check turned red"),
            }
        }
        has_changed
    }
}
