//! The Wasm engine: compiles jumpscripts, and runs each job in a fresh instance under hard limits.
//!
//! Invariant: an instance serves one job and is dropped; what the guest can reach is what the linker was given
//! (clocks, random, stdio, logging, progress), never a file, a socket, or the host's environment. Every way to die
//! becomes an `Outcome` with a text for the author of the jumpscript; no error of the engine leaves this folder.
//!
//! Next: `inspect` for what is refused before anything is compiled, `run` for the life of one attempt, `engine` for
//! the settings that make a fresh instance cheap.

mod cancel;
mod error;
mod inspect;
mod options;
mod run;
mod script;

use std::sync::Arc;

pub use cancel::CancelFlag;
pub use error::Error;
pub use inspect::{Import, Inspection};
pub use options::{CompileLimits, Compiler, Hardening, MEMORY_BYTES_MAX, Options, POOL_SIZE};
pub use run::{Call, Finished};
pub use script::Script;

use crate::jumpscript::Digest;

/// The engine of one host: a pool of instances, the code in memory, and the native artifacts on disk. Cheap to
/// clone; all clones are the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    notes: Vec<String>,
    pool_size: usize,
}

impl Sandbox {
    /// Makes the engine and its pool.
    ///
    /// The pool is clamped by `vm.max_map_count`; what was clamped or switched off is said by [`Sandbox::notes`].
    ///
    /// # Errors
    /// [`Error::Host`] when the address space is too small for the pool, or the directory of artifacts is not ours
    /// alone.
    pub fn new(_options: Options) -> Result<Self, Error> {
        unimplemented!()
    }

    /// What was clamped or switched off on this machine, one sentence each, for the log and `doctor`.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.shared.notes
    }

    /// How many jobs can hold an instance at once; further calls of [`Sandbox::run`] wait.
    #[must_use]
    pub fn pool_size(&self) -> usize {
        self.shared.pool_size
    }

    /// Reads a Wasm file without compiling it, and refuses what could never run. See [`Inspection::of`].
    ///
    /// # Errors
    /// [`Error::Refused`] with the thing, and a hint with the remedy.
    pub fn inspect(wasm: &[u8]) -> Result<Inspection, Error> {
        Inspection::of(wasm)
    }

    /// The linked script of a digest, if it is in memory. Never blocks for long.
    #[must_use]
    pub fn cached(&self, _digest: &Digest) -> Option<Arc<Script>> {
        unimplemented!()
    }

    /// The linked script of a digest from memory or from the artifacts on disk. Blocks: reads a file.
    #[must_use]
    pub fn load_artifact(&self, _digest: &Digest) -> Option<Arc<Script>> {
        unimplemented!()
    }

    /// The linked script of a Wasm file: from memory, from the artifacts on disk, or compiled now. Blocks for as long
    /// as the compiler takes; concurrent calls for one digest compile once.
    ///
    /// # Errors
    /// [`Error::Refused`] when the bytes can never run, [`Error::Digest`] when they are not what the digest says,
    /// [`Error::Host`] when this host could not compile them and another may.
    pub fn load(&self, _digest: Digest, _wasm: &[u8]) -> Result<Arc<Script>, Error> {
        unimplemented!()
    }

    /// Runs one attempt in a fresh instance. To be polled on a thread for guests, inside a tokio runtime with time
    /// enabled: between two of its 10 ms turns a computing guest holds the thread.
    ///
    /// Waits while all instances of the pool are taken. Dropping the future ends the guest.
    pub async fn run(&self, _script: &Script, _call: Call) -> Finished {
        unimplemented!()
    }
}

/// The whole of the hidden command `wasmhost compile-artifact`: reads a Wasm file from stdin as [`Compiler::Child`]
/// sends it, bounds its own memory and CPU time, and writes the artifact to stdout.
///
/// # Errors
/// [`Error::Refused`] when the engine does not accept the file, [`Error::Host`] when a stream breaks.
pub fn compile_artifact() -> Result<(), Error> {
    unimplemented!()
}
