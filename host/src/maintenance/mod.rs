//! Bounded housekeeping of what the nodes share in Redis, and keeping this node's code up to date.
//!
//! The worker's sweeps bring back what the shared structures say: the revision of the published jumpscripts, and a
//! check over their records. When either changes, this service looks closer: it adopts what another program wrote,
//! compiles new code for names that run here before the first job asks for it, and after a FLUSHALL has the scripts
//! folder publish again.
//!
//! Invariant: nothing here is needed for a job to run; a node without it only learns later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::executor::wasm::WasmExecutor;
use crate::jumpscript::{Digest, ScriptName};
use crate::ports::Seen;
use crate::shutdown;
use crate::store::Store;

/// How often code that nothing names any more is removed.
const DROP_PERIOD: Duration = Duration::from_secs(60);

/// The service.
pub struct Maintenance {
    store: Store,
    executor: Arc<WasmExecutor>,
    seen: watch::Receiver<Seen>,
    on_flushed: Box<dyn Fn() + Send>,
    live: HashMap<ScriptName, Digest>,
    /// The check over the records that was last looked at.
    checked: String,
    rev: u64,
}

impl Maintenance {
    /// `seen` is the worker's; `on_flushed` is called when Redis has lost the jumpscripts.
    #[must_use]
    pub fn new(
        store: Store,
        executor: Arc<WasmExecutor>,
        seen: watch::Receiver<Seen>,
        on_flushed: Box<dyn Fn() + Send>,
    ) -> Self {
        Self { store, executor, seen, on_flushed, live: HashMap::new(), checked: String::new(), rev: 0 }
    }

    /// Runs until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut drop_unused = tokio::time::interval(DROP_PERIOD);
        loop {
            tokio::select! {
                () = shutdown::requested(&mut stop) => return,
                // A worker that has drained tells nothing any more.
                Ok(()) = self.seen.changed() => self.look().await,
                _ = drop_unused.tick() => match self.store.drop_unused().await {
                    Ok(dropped) if !dropped.is_empty() => tracing::info!(n = dropped.len(), "unused code removed"),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "unused code not removed"),
                },
            }
        }
    }

    async fn look(&mut self) {
        let Seen { rev, scripts_check } = self.seen.borrow_and_update().clone();
        if rev == 0 && self.rev != 0 {
            tracing::warn!("redis has lost the jumpscripts, restoring those of this node");
            (self.on_flushed)();
        }
        if scripts_check != self.checked {
            match self.store.adopt_foreign().await {
                Ok(found) => {
                    self.checked = scripts_check;
                    found
                        .adopted
                        .iter()
                        .for_each(|name| tracing::info!(script = %name, "record of another program adopted"));
                    for (field, reason) in &found.refused {
                        tracing::warn!(field = %crate::job::visible(field), %reason, "record of another program skipped");
                    }
                }
                Err(error) => tracing::debug!(%error, "records not checked"),
            }
        }
        if rev != self.rev {
            self.rev = rev;
            self.prepare().await;
        }
    }

    /// Compiles what replaced code that is in memory here, before a job asks for it.
    async fn prepare(&mut self) {
        let Ok(index) = self.store.index().await else { return };
        let mut live = HashMap::new();
        for script in index.scripts {
            let Ok(name) = script.script_name() else { continue };
            let replaced = self.live.get(&name).filter(|digest| **digest != script.digest);
            if replaced.is_some_and(|digest| self.executor.sandbox().cached(digest).is_some()) {
                tracing::info!(script = %name, digest = %script.digest.short(), "new code");
                self.executor.prepare(script.digest);
            }
            live.insert(name, script.digest);
        }
        self.live = live;
    }
}
