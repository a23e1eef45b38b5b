//! Looks at the node again and again, and tells when something turns red or green.
//!
//! Invariant: the checks go on while Redis is away; its own check is red then. A change of state is logged once.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::watch;

use super::checks::{self, Check, State};
use super::{Board, Params, Report};
use crate::config;

/// The service that runs the built-in checks.
#[derive(Debug)]
pub struct Health {
    params: Params,
    board: Board,
    known: HashMap<String, State>,
}

impl Health {
    pub(super) fn new(params: Params, board: Board) -> Self {
        Self { params, board, known: HashMap::new() }
    }

    /// Checks every `health.interval` until `shutdown` is true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let limits = self.params.limits.borrow_and_update().to_owned();
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
                Ok(()) = self.params.limits.changed() => {}
                Ok(()) = self.params.file_faults.changed() => {}
                Ok(()) = self.params.denied.changed() => {}
                Ok(()) = self.params.code_faults.changed() => {}
                Ok(()) = self.params.queue_faults.changed() => {}
                Ok(()) = self.params.list_faults.changed() => {}
                _ = shutdown.wait_for(|is_over| *is_over) => return,
            }
        }
    }

    async fn check(&self, limits: &config::Health) -> Vec<Check> {
        let (disk, facts) = tokio::join!(checks::disk(&self.params.data, limits), self.params.store.server_facts());
        let beat = self.board.beat();
        let mut redis = checks::redis(self.params.store.address(), &facts);
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
            checks::map_count(self.params.pool_size),
            checks::loops(&self.params.loops, limits),
            checks::hashes(&beat.wrong_keys),
            checks::scripts(&self.params.file_faults.borrow()),
            checks::permissions(&self.params.denied.borrow()),
            checks::signatures(&self.params.code_faults.borrow()),
            checks::queues(&[self.params.queue_faults.borrow().as_slice(), &self.params.list_faults.borrow()].concat()),
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
