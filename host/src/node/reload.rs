//! Takes a changed configuration on SIGHUP.
//!
//! Invariant: a broken configuration changes nothing; the old values stay in force and the log says what is wrong.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{self, Config, Sources};
use crate::telemetry::LevelHandle;

/// The service that reads the configuration again.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    sources: Sources,
    limits: watch::Sender<config::Health>,
    level: Option<LevelHandle>,
}

impl Reloader {
    /// A reloader of `config`, which was read from `sources`. New thresholds go to `limits`, a new log level to
    /// `level`.
    #[must_use]
    pub const fn new(
        config: Config,
        sources: Sources,
        limits: watch::Sender<config::Health>,
        level: Option<LevelHandle>,
    ) -> Self {
        Self { config, sources, limits, level }
    }

    /// Reads again at each SIGHUP until `shutdown` is true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                tracing::warn!(reason = %error, "configuration cannot be reloaded: no signal handler");
                let _ = shutdown.wait_for(|is_over| *is_over).await;
                return;
            }
        };
        loop {
            tokio::select! {
                _ = hangups.recv() => self.reload(),
                _ = shutdown.wait_for(|is_over| *is_over) => return,
            }
        }
    }

    /// Reads the sources once more and applies what can be applied.
    pub fn reload(&mut self) {
        match self.config.reload(&self.sources) {
            Ok(reload) => {
                self.limits.send_replace(reload.config.health);
                if let Some(level) = &self.level
                    && let Err(error) = level.set(&reload.config.log.level)
                {
                    tracing::error!(reason = error, "log level not changed");
                }
                tracing::info!(applied = ?reload.applied, "configuration reloaded");
                if !reload.needs_restart.is_empty() {
                    tracing::warn!(keys = ?reload.needs_restart, "changed keys wait for a restart");
                }
                self.config = reload.config;
            }
            Err(error) => {
                tracing::error!(reason = %error, hint = error.hint(), "configuration not reloaded, the old one stays");
            }
        }
    }
}
