//! Bounded housekeeping of what the nodes share in Redis, and keeping this node's code up to date.
//!
//! The worker's sweeps bring back what the shared structures say: the revision of the published jumpscripts, and a
//! check over their records. When either changes, this service looks closer: it adopts what another program wrote,
//! compiles new code for names that run here before the first job asks for it, and after a FLUSHALL has the scripts
//! folder publish again.
//!
//! Once in a period one host of the fleet also looks for jobs that are in no structure, and for whatever else does not
//! fit (`store/reconcile`).
//!
//! Invariant: nothing here is needed for a job to run; a node without it only learns later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::executor::wasm::WasmExecutor;
use crate::job::visible;
use crate::jumpscript::{Digest, Jumpscript, ScriptName};
use crate::ports::Seen;
use crate::shutdown;
use crate::signatures::{Fault, Gate, Policy};
use crate::store::{Finding, Pace, Repairer, Store, Survey};

/// How often code that nothing names any more is removed.
const DROP_PERIOD: Duration = Duration::from_secs(60);
/// How often one host of the fleet looks for lost jobs.
pub const RECONCILE_PERIOD: Duration = Duration::from_secs(3600);
/// The first time that a host asks whether it is its turn, after its start; hosts that start together ask apart.
const RECONCILE_FIRST: Duration = Duration::from_secs(300);
/// A claim ends so much before the next period.
const CLAIM_SLACK: Duration = Duration::from_secs(60);
/// Lost jobs that are named in the log, one line each; of more only the number.
const NAMED_MAX: usize = 20;

/// The service.
pub struct Maintenance {
    store: Store,
    executor: Arc<WasmExecutor>,
    seen: watch::Receiver<Seen>,
    on_flushed: Box<dyn Fn() + Send>,
    denied: watch::Sender<Vec<String>>,
    pace: Pace,
    live: HashMap<ScriptName, Digest>,
    gate: Arc<Gate>,
    tell_faults: watch::Sender<Vec<Fault>>,
    /// The check over the records that was last looked at.
    checked: String,
    rev: u64,
}

impl Maintenance {
    /// `seen` is the worker's; `on_flushed` is called when Redis has lost the jumpscripts; `denied` is told which
    /// published jumpscripts request what nobody has granted, a sentence each; done rows of other programs live for
    /// `done_ttl`.
    #[must_use]
    pub fn new(
        store: Store,
        executor: Arc<WasmExecutor>,
        seen: watch::Receiver<Seen>,
        on_flushed: Box<dyn Fn() + Send>,
        denied: watch::Sender<Vec<String>>,
        done_ttl: Duration,
    ) -> Self {
        let pace = Pace { done_ttl, ..Pace::default() };
        let (gate, tell_faults) = (Arc::new(Gate::off()), watch::channel(Vec::new()).0);
        let (live, checked) = (HashMap::new(), String::new());
        Self { store, executor, seen, on_flushed, denied, pace, live, gate, tell_faults, checked, rev: 0 }
    }

    /// Has a gate look at every record, and tells what it does not let pass.
    #[must_use]
    pub fn with_gate(self, gate: Arc<Gate>, tell_faults: watch::Sender<Vec<Fault>>) -> Self {
        Self { gate, tell_faults, ..self }
    }

    /// Runs until `stop` turns true.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let lost = look_for_lost_jobs(self.store.clone(), self.pace, stop.clone());
        tokio::join!(self.follow(stop), lost);
    }

    async fn follow(mut self, mut stop: watch::Receiver<bool>) {
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
            let gate = Arc::clone(&self.gate);
            let admits = move |record: &Jumpscript| match gate.policy() {
                Policy::Require => accept(&gate, record),
                Policy::Off | Policy::Warn => Ok(()),
            };
            match self.store.adopt_foreign_if(&admits).await {
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
            self.review().await;
        }
        if rev != self.rev {
            self.rev = rev;
            self.review().await;
            self.prepare().await;
        }
    }

    /// Has the gate look at every record: it remembers what is live, and what it does not let pass shows in the health.
    async fn review(&mut self) {
        let policy = self.gate.policy();
        if policy == Policy::Off {
            return;
        }
        let Ok(index) = self.store.index().await else { return };
        let mut faults = Vec::new();
        for record in index.scripts.iter().filter(|record| record.enable) {
            if let Err(why) = accept(&self.gate, record) {
                let name = visible(&format!("{}/{}", record.organization, record.name));
                let (digest, is_refused) = (record.digest.short(), policy == Policy::Require);
                faults.push(Fault { text: format!("jumpscript `{name}` ({digest}): {why}"), is_refused });
            }
        }
        self.tell_faults.send_if_modified(|old| {
            let is_new = *old != faults;
            if is_new {
                faults.iter().for_each(|fault| tracing::warn!(fault = fault.text, "code without a trusted signature"));
                *old = faults;
            }
            is_new
        });
    }

    /// Compiles what replaced code that is in memory here, before a job asks for it.
    async fn prepare(&mut self) {
        let Ok(index) = self.store.index().await else { return };
        let mut live = HashMap::new();
        let mut denied = Vec::new();
        for script in index.scripts {
            let Ok(name) = script.script_name() else { continue };
            let request = &script.manifest.permissions;
            if let Ok(Some(missing)) = self.executor.permits().denied(&script.digest, request).await {
                denied.push(format!("`{name}`: {missing}"));
            }
            let replaced = self.live.get(&name).filter(|digest| **digest != script.digest);
            if replaced.is_some_and(|digest| self.executor.sandbox().cached(digest).is_some()) {
                tracing::info!(script = %name, digest = %script.digest.short(), "new code");
                self.executor.prepare(script.digest);
            }
            live.insert(name, script.digest);
        }
        self.live = live;
        // Texts find their interpreters anew.
        self.executor.sandbox().forget_sources();
        self.denied.send_if_modified(|old| std::mem::replace(old, denied.clone()) != denied);
    }
}

/// Has the gate take a record.
fn accept(gate: &Gate, record: &Jumpscript) -> Result<(), String> {
    Ok(gate.accept(&record.script_name()?, record.signature()?.as_ref(), &record.digest)?)
}

/// Makes a pass whenever it is this host's turn, until `stop` turns true.
async fn look_for_lost_jobs(store: Store, pace: Pace, mut stop: watch::Receiver<bool>) {
    let apart = Duration::from_secs(u64::from(std::process::id()) % 60);
    let mut turn = tokio::time::interval_at(tokio::time::Instant::now() + RECONCILE_FIRST + apart, RECONCILE_PERIOD);
    loop {
        tokio::select! {
            () = shutdown::requested(&mut stop) => return,
            _ = turn.tick() => {}
        }
        let pass = async {
            let is_ours =
                store.claim_reconcile(&std::process::id().to_string(), RECONCILE_PERIOD - CLAIM_SLACK).await?;
            if is_ours { store.reconcile(&pace).await.map(Some) } else { Ok(None) }
        };
        tokio::select! {
            () = shutdown::requested(&mut stop) => return,
            found = pass => match found {
                Ok(Some((found, repaired))) => tell(&found, &repaired),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "lost jobs not looked for"),
            },
        }
    }
}

fn tell(found: &Survey, repaired: &[Finding]) {
    let kind = |finding: &Finding| finding.kind.name;
    for finding in repaired.iter().filter(|finding| kind(finding).starts_with("lost-")).take(NAMED_MAX) {
        let (job, queue) = (finding.entry_text(), crate::job::visible(&finding.queue));
        tracing::warn!(%job, %queue, kind = kind(finding), "lost job put back");
    }
    let rows = found.rows;
    for (kind, n) in found.counts() {
        let n_repaired = repaired.iter().filter(|finding| finding.kind == kind).count();
        if kind.repairer == Repairer::Nobody {
            tracing::debug!(kind = kind.name, n, "{}", kind.meaning);
        } else {
            tracing::warn!(kind = kind.name, n, n_repaired, "{} (`wasmhost doctor --jobs` names them)", kind.meaning);
        }
    }
    if found.is_clean() {
        tracing::debug!(rows, "nothing is wrong in the queues");
    }
}
