//! The first tier: large files run at once on quickly made code, and the optimised code takes over when it is there.
//!
//! Invariant: a digest runs the same Wasm in both tiers; an attempt ends on the code it began with. One file at a time
//! is optimised, in the order in which they came, and what waits for it is bounded.
//!
//! Next: `engine` for why the two cannot share an engine.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use wasmtime::Engine;

use super::artifact::{self, Artifacts};
use super::engine::{self, Tier};
use super::error::Error;
use super::options::Options;
use super::script::{Label, Linkers};
use super::{Shared, ticker::Ticker};
use crate::jumpscript::Digest;

/// Bytes of Wasm that wait to be optimised; a file that finds no room is optimised before it runs.
pub const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What one tier runs its code on.
pub(super) struct Bench {
    pub(super) tier: Tier,
    pub(super) engine: Engine,
    pub(super) linkers: Linkers,
    pub(super) artifacts: Option<Artifacts>,
}

impl Bench {
    pub(super) fn optimised(engine: &Engine, options: &Options) -> Result<Self, Error> {
        let fingerprint = artifact::fingerprint(engine);
        let artifacts = options.artifacts.as_deref().map(|path| Artifacts::open(path, fingerprint)).transpose()?;
        let (engine, linkers) = (engine.clone(), Linkers::new(engine)?);
        Ok(Self { tier: Tier::Optimised, engine, linkers, artifacts })
    }

    /// `None` on a machine that the quick compiler does not know.
    pub(super) fn first(options: &Options, reservation: u64, of: &Self, ticker: &Ticker) -> Option<Self> {
        let made = engine::first_tier(options, reservation).and_then(|engine| {
            let artifacts = of.artifacts.as_ref().map(|all| all.of_engine(artifact::fingerprint(&engine)));
            Ok(Self { tier: Tier::First, linkers: Linkers::new(&engine)?, artifacts, engine })
        });
        match made {
            Ok(bench) => {
                ticker.add(&bench.engine);
                Some(bench)
            }
            Err(error) => {
                tracing::info!(%error, "every file is optimised before it runs");
                None
            }
        }
    }
}

/// A file that is to be optimised.
pub(super) struct Task {
    pub(super) digest: Digest,
    pub(super) label: Label,
    pub(super) wasm: Vec<u8>,
}

/// The files that wait to be optimised, and the thread that does it while there are any.
#[derive(Default)]
pub(super) struct Optimiser {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The first one is being optimised while `is_running`.
    tasks: VecDeque<Task>,
    is_running: bool,
}

impl Optimiser {
    /// Whether a file of so many bytes may wait.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.lock().tasks.iter().map(|task| task.wasm.len()).sum::<usize>().saturating_add(bytes) <= WAITING_BYTES_MAX
    }

    /// Has a file optimised; one that waits already stays where it is.
    pub(super) fn add(shared: &Arc<Shared>, task: Task) {
        let mut waiting = shared.optimiser.lock();
        if waiting.tasks.iter().any(|other| other.digest == task.digest) {
            return;
        }
        waiting.tasks.push_back(task);
        if waiting.is_running {
            return;
        }
        let weak = Arc::downgrade(shared);
        match thread::Builder::new().name("optimise".to_owned()).spawn(move || work(&weak)) {
            Ok(_) => waiting.is_running = true,
            // The next file that comes tries again; what runs goes on as it is.
            Err(error) => tracing::warn!(%error, "no thread to optimise on"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A task is pushed or removed in one step, so a poisoned lock still guards good data.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bytes of the next task; its digest stays, so that nobody asks for it again meanwhile.
    fn begin(&self) -> Option<Task> {
        let mut waiting = self.lock();
        let Some(task) = waiting.tasks.front_mut() else {
            waiting.is_running = false;
            return None;
        };
        Some(Task { digest: task.digest, label: task.label.clone(), wasm: std::mem::take(&mut task.wasm) })
    }
}

/// Optimises until nothing waits, or the sandbox is gone.
fn work(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let Some(task) = shared.optimiser.begin() else { return };
        let (start, digest) = (Instant::now(), task.digest.short());
        match shared.optimise(&task) {
            Ok(()) => tracing::info!(digest, took = ?start.elapsed(), "optimised code takes over"),
            Err(error) => tracing::warn!(digest, %error, "code not optimised, it goes on as it is"),
        }
        shared.optimiser.lock().tasks.pop_front();
    }
}
