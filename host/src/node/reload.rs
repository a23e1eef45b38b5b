//! Takes a changed configuration on SIGHUP.
//!
//! Invariant: a broken configuration changes nothing; the old values stay in force and the log says what is wrong.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{self, Config, Sources};
use crate::supplies::Supplies;
use crate::telemetry::LevelHandle;

/// The service that reads the configuration again.
#[derive(Debug)]
pub struct Reloader {
    config: Config,
    sources: Sources,
    limits: watch::Sender<config::Health>,
    supplies: Arc<Supplies>,
    level: Option<LevelHandle>,
    hangups: Signal,
}

impl Reloader {
    /// A reloader of `config`, which was read from `sources`. New thresholds go to `limits`, what jumpscripts are given to
    /// `supplies`, a new log level to `level`. From here on SIGHUP does not end the process.
    ///
    /// # Errors
    /// When the signal handler cannot be installed.
    pub fn new(
        config: Config,
        sources: Sources,
        limits: watch::Sender<config::Health>,
        supplies: Arc<Supplies>,
        level: Option<LevelHandle>,
    ) -> std::io::Result<Self> {
        Ok(Self { config, sources, limits, supplies, level, hangups: signal(SignalKind::hangup())? })
    }

    /// Reads again at each SIGHUP until `shutdown` is true or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = self.hangups.recv() => self.reload(),
                _ = shutdown.wait_for(|is_over| *is_over) => return,
            }
        }
    }

    /// Reads the sources once more and applies what can be applied.
    fn reload(&mut self) {
        match self.config.reload(&self.sources) {
            Ok(reload) => {
                // Told before the level changes: a quieter one would swallow it.
                tracing::info!(applied = ?reload.applied, "configuration reloaded");
                self.limits.send_replace(reload.config.health);
                self.supplies.replace(reload.config.supplies.clone());
                if let Some(level) = &self.level
                    && let Err(error) = level.set(&reload.config.log.level)
                {
                    tracing::error!(reason = error, "log level not changed");
                }
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
