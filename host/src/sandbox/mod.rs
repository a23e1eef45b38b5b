//! The Wasm engine: compiles jumpscripts, and runs each job in a fresh instance under hard limits.
//!
//! Invariant: an instance serves one job and is dropped; what the guest can reach is what the linker was given
//! (clocks, random, stdio, logging, progress) and what was granted to it (state, queues, HTTP, directories, variables, configuration,
//! secrets, facts about the node), never a socket. Every way to die becomes an `Outcome` with a text for the author of the jumpscript; no error of the engine
//! leaves this folder.
//!
//! Next: `inspect` for what is refused before anything is compiled, `run` for the life of one attempt, `engine` for
//! the settings that make a fresh instance cheap.

mod artifact;
mod cache;
mod cancel;
mod compile;
mod contract;
mod engine;
mod error;
mod guest;
mod host_calls;
mod http;
mod inspect;
mod limits;
mod options;
mod output;
mod run;
mod script;
mod signature;
mod state;
mod supply;
mod ticker;
mod tier;
mod verdict;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use artifact::DIRECTORY_BYTES_MAX;
pub use cache::NATIVE_BYTES_MAX;
pub use cancel::CancelFlag;
pub use compile::compile_artifact;
pub use engine::{
    CORE_INSTANCES_MAX, MAPS_FOR_THE_REST, MAPS_PER_INSTANCE, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX, Tier,
};
pub use error::Error;
pub use guest::{HOSTCALL_FUEL, RANDOM_BYTES_MAX, RESOURCES_MAX};
pub use host_calls::HostCalls;
pub use http::{
    HTTP_CONNECT_TIMEOUT, HTTP_CONNECTIONS_MAX, HTTP_FIELDS_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX,
    HTTP_REQUEST_BYTES_MAX, HTTP_REQUESTS_MAX, HTTP_RESPONSE_BYTES_MAX, HttpOptions,
};
pub use inspect::{Import, Inspection};
pub use options::{
    CompileLimits, Compiler, FirstTier, HOST_CALLS_MAX, Hardening, MEMORY_BYTES_MAX, Options, POOL_SIZE,
};
pub use output::{LOG_BYTES_MAX, LOG_LINES_MAX, PROGRESS_REPORTS_MAX, TAIL_BYTES_MAX};
pub use run::{Call, Finished};
pub use script::Script;
pub use ticker::TICK;
pub use tier::WAITING_BYTES_MAX;

use crate::jumpscript::{Digest, Source};
use crate::outcome::Outcome;
use cache::Cache;
use engine::Pool;
use http::Network;
use script::Label;
use ticker::Ticker;
use tier::{Bench, Optimiser, Task};

/// The engine of one host: a pool of instances, the code in memory, and the native artifacts on disk. Cheap to
/// clone; all clones are the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    pool: Pool,
    network: Arc<Network>,
    optimised: Bench,
    /// Made for the first file that wants it; `None` when this machine has none.
    first: OnceLock<Option<Bench>>,
    optimiser: Optimiser,
    cache: Cache,
    ticker: Ticker,
    /// One permit for each instance of the pool, which itself answers with an error when it is empty.
    free: tokio::sync::Semaphore,
}

impl Sandbox {
    /// Makes the engine and its pool.
    ///
    /// The pool is clamped by `vm.max_map_count`; what was clamped or switched off is said by [`Sandbox::notes`].
    ///
    /// # Errors
    /// [`Error::Host`] when the address space is too small for the pool, or the directory of artifacts is not ours
    /// alone.
    pub fn new(options: Options) -> Result<Self, Error> {
        let pool = Pool::new(&options)?;
        let optimised = Bench::optimised(&pool.engine, &options)?;
        let ticker = Ticker::start(&pool.engine)?;
        let free = tokio::sync::Semaphore::new(pool.size);
        let network = Network::new(options.http.clone());
        let shared = Shared {
            options,
            pool,
            network,
            optimised,
            first: OnceLock::new(),
            optimiser: Optimiser::default(),
            cache: Cache::default(),
            ticker,
            free,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What was clamped or switched off on this machine, one sentence each, for the log and `doctor`.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.shared.pool.notes
    }

    /// How many jobs can hold an instance at once; further calls of [`Sandbox::run`] wait.
    #[must_use]
    pub fn pool_size(&self) -> usize {
        self.shared.pool.size
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
    pub fn cached(&self, digest: &Digest) -> Option<Arc<Script>> {
        self.shared.cache.get(digest)
    }

    /// The linked script of a digest from memory, or its optimised code from the artifacts on disk. Blocks: reads a
    /// file.
    #[must_use]
    pub fn load_artifact(&self, digest: &Digest) -> Option<Arc<Script>> {
        self.cached(digest).or_else(|| {
            let _flight = self.shared.cache.flight(digest);
            self.cached(digest).or_else(|| self.shared.read_artifact(&self.shared.optimised, digest))
        })
    }

    /// The linked script of a Wasm file: from memory, from the artifacts on disk, or compiled now. Blocks for as long
    /// as the compiler takes; concurrent calls for one digest compile once. A large file is answered on the first tier
    /// (see [`FirstTier`]); later calls answer its optimised code.
    ///
    /// # Errors
    /// [`Error::Refused`] when the bytes can never run, [`Error::Digest`] when they are not what the digest says,
    /// [`Error::Host`] when this host could not compile them and another may.
    pub fn load(&self, digest: Digest, wasm: &[u8]) -> Result<Arc<Script>, Error> {
        // Before anything else looks at the bytes: whoever could write them into Redis is not to be trusted with more.
        inspect::check_head(wasm)?;
        let found = Digest::of(wasm);
        if found != digest {
            return Err(Error::Digest { expected: digest, found });
        }
        if let Some(script) = self.load_artifact(&digest) {
            return Ok(script);
        }
        let _flight = self.shared.cache.flight(&digest);
        match self.cached(&digest) {
            Some(script) => Ok(script),
            None => self.compile(digest, wasm),
        }
    }

    fn compile(&self, digest: Digest, wasm: &[u8]) -> Result<Arc<Script>, Error> {
        let shared = &self.shared;
        let inspection = Inspection::of(wasm)?;
        let label = Label { shape: inspection.shape, manifest: inspection.manifest.unwrap_or_default() };
        let FirstTier { from_bytes, is_optimised } = shared.options.first_tier;
        let may_wait = !is_optimised || shared.optimiser.has_room(wasm.len());
        if wasm.len() >= from_bytes
            && may_wait
            && let Some(script) = shared.make_first(digest, &label, wasm)
        {
            if is_optimised {
                Optimiser::add(shared, Task { digest, label, wasm: wasm.to_vec() });
            }
            return Ok(script);
        }
        Ok(shared.cache.insert(shared.make(&shared.optimised, digest, &label, wasm, false)?))
    }

    /// A script's text on the code of its interpreter, kept in memory under its own digest.
    ///
    /// # Errors
    /// As [`Sandbox::load`].
    pub fn link_source(&self, digest: Digest, bytes: &[u8], interpreter: &Script) -> Result<Arc<Script>, Error> {
        let found = Digest::of(bytes);
        if found != digest {
            return Err(Error::Digest { expected: digest, found });
        }
        let unreadable = |error| Error::refused(format!("its bytes cannot be read: {error}"), "publish the file again");
        let source = Source::decode(bytes).map_err(unreadable)?;
        Ok(self.shared.cache.insert(Script::of_source(digest, source, interpreter)?))
    }

    /// Drops the scripts that are texts from memory, because their interpreters may have changed. Running attempts keep
    /// theirs until they end.
    pub fn forget_sources(&self) {
        self.shared.cache.remove_sources();
    }

    /// Drops a script from memory, for example when its digest is gone. Running attempts keep it until they end.
    pub fn forget(&self, digest: &Digest) {
        self.shared.cache.remove(digest);
    }

    /// Runs one attempt in a fresh instance. To be polled on a thread for guests, inside a tokio runtime with time
    /// enabled: between two of its 10 ms turns a computing guest holds the thread.
    ///
    /// Waits while all instances of the pool are taken. Dropping the future ends the guest.
    pub async fn run(&self, script: &Script, call: Call) -> Finished {
        // Never closed, so an error cannot be; if it were, the pool would answer for itself.
        let _permit = match self.shared.free.try_acquire() {
            Ok(permit) => Ok(permit),
            Err(_) => tokio::select! {
                permit = self.shared.free.acquire() => permit,
                () = call.cancel.cancelled() => {
                    return Finished::nothing(Outcome::Cancelled);
                }
            },
        };
        let _running = self.shared.ticker.running();
        run::run(script, call, &self.shared.options).await
    }

    /// As [`Sandbox::run`], and counts the calls of host functions. For the tools of an author: ordinary attempts count
    /// nothing, and pay nothing for it.
    pub async fn run_counted(&self, script: &Script, call: Call) -> (Finished, HostCalls) {
        host_calls::counted(self.run(script, call)).await
    }

    /// Runs a tiny job some hundred times and gives the median time of one, for `doctor`. To be called in a tokio
    /// runtime with time enabled; takes a few milliseconds once the code is compiled.
    ///
    /// # Errors
    /// [`Error::Host`] when the job does not end well: this machine cannot run any.
    pub async fn self_check(&self) -> Result<Duration, Error> {
        const ROUNDS: usize = 500;
        let script = self.load(Digest::of(SELF_CHECK), SELF_CHECK)?;
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let finished = self.run(&script, Call::new("")).await;
            times.push(start.elapsed());
            if !matches!(finished.outcome, Outcome::Done { .. }) {
                let text = finished.outcome.error_text();
                return Err(Error::host(format!("a job that does nothing did not end well: {text}"), ""));
            }
        }
        times.sort_unstable();
        Ok(times[ROUNDS / 2])
    }
}

/// `(module (memory (export "memory") 1) (func (export "_start")))`, a command that does nothing.
const SELF_CHECK: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

impl Shared {
    fn read_artifact(&self, bench: &Bench, digest: &Digest) -> Option<Arc<Script>> {
        let (label, native) = bench.artifacts.as_ref()?.read(digest)?;
        // An artifact that does not load is compiled again; the compiler has the better words.
        let code = artifact::load(&bench.engine, label.shape, &native).ok()?;
        let script = Script::link(*digest, label, &code, bench, &self.network).ok()?;
        Some(self.cache.insert(script))
    }

    /// The script on the first tier. What goes wrong here is left to the optimising compiler, which knows more of
    /// Wasm and has the last word.
    fn make_first(&self, digest: Digest, label: &Label, wasm: &[u8]) -> Option<Arc<Script>> {
        let make = || Bench::first(&self.options, self.pool.memory_reservation, &self.optimised, &self.ticker);
        let bench = self.first.get_or_init(make).as_ref()?;
        if let Some(script) = self.read_artifact(bench, &digest) {
            return Some(script);
        }
        match self.make(bench, digest, label, wasm, false) {
            Ok(script) => Some(self.cache.insert(script)),
            Err(error) => {
                tracing::info!(digest = %digest.short(), %error, "not for the first tier, optimised at once");
                None
            }
        }
    }

    /// Has the optimised code take the place of what is in memory; attempts that run keep what they began with.
    fn optimise(&self, task: &Task) -> Result<(), Error> {
        let script = self.make(&self.optimised, task.digest, &task.label, &task.wasm, true)?;
        self.cache.replace(script);
        Ok(())
    }

    /// Compiles and links, and keeps the native code on disk.
    fn make(
        &self,
        bench: &Bench,
        digest: Digest,
        label: &Label,
        wasm: &[u8],
        is_background: bool,
    ) -> Result<Script, Error> {
        let job = compile::Job {
            engine: &bench.engine,
            tier: bench.tier,
            memory_reservation: self.pool.memory_reservation,
            is_background,
            shape: label.shape,
            wasm,
        };
        let native = compile::compile(&job, &self.options)?;
        let code = artifact::load(&bench.engine, label.shape, &native)?;
        let script = Script::link(digest, label.clone(), &code, bench, &self.network)?;
        if let Some(artifacts) = &bench.artifacts
            && let Err(error) = artifacts.write(&digest, label, &native)
        {
            // The script runs all the same; the next start compiles it again.
            tracing::warn!(digest = %digest.short(), %error, "artifact not kept");
        }
        Ok(script)
    }
}
