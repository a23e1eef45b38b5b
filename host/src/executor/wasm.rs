//! Runs attempts in the sandbox, on threads of their own.
//!
//! The life of an attempt here: [`WasmExecutor::start`] finds the code by its digest (in memory, else on disk, else in
//! Redis, once for all attempts that wait for it), puts the attempt into one queue, and a guest thread takes it, runs
//! it in a fresh instance and ends it. A guest thread polls an attempt once; one that waits (or computes for longer
//! than a tick of the epoch) is set aside as a task and the thread goes on with the next.
//!
//! Invariant: guests run on guest threads only. Whatever a guest does, the I/O thread with its heartbeats and lease
//! extensions keeps running.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;

use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::permits::{Permit, Permits};
use super::{Attempt, Executor};
use crate::clock::Timestamp;
use crate::effects::Bucket;
use crate::job::{Reserved, TIMEOUT};
use crate::jumpscript::{Digest, Source};
use crate::outcome::{Outcome, Usage};
use crate::ports::{BoxFuture, CodeSource, State, StatePage, StateValues, Supply};
use crate::sandbox::{Call, Finished, Sandbox, Script};
use crate::signatures::{Doubt, Gate, Policy, Reason};

/// How often, in polls, a guest thread looks at timers. Tokio's own 61 would let computing guests delay a wake-up by
/// 61 ticks of the epoch, 0.6 s.
const EVENT_INTERVAL: u32 = 4;
/// Attempts a guest thread starts before those it has set aside get a turn.
const STARTS_PER_TURN: u32 = 8;

/// What an attempt may use, and who it is told it runs on.
#[derive(Clone, Debug)]
pub struct WasmOptions {
    /// Guest threads.
    pub threads: NonZeroUsize,
    /// Most attempts that run at once, over all threads.
    pub concurrency: usize,
    /// Linear memory of one attempt, in bytes.
    pub memory_bytes_max: usize,
    /// The node's name, for the job record.
    pub node: String,
}

/// An executor for jumpscripts.
pub struct WasmExecutor {
    shared: Arc<Shared>,
    code: Arc<dyn CodeSource>,
    permits: Arc<Permits>,
    io: tokio::runtime::Handle,
    /// Attempts that wait for their code, by digest: one fetch and one compilation serve them all.
    loading: Arc<Mutex<HashMap<Digest, Vec<Attempt>>>>,
    threads: Vec<JoinHandle<()>>,
    gate: Arc<Gate>,
}

struct Shared {
    sandbox: Sandbox,
    state: Arc<dyn State>,
    supply: Arc<dyn Supply>,
    options: WasmOptions,
    queue: Mutex<VecDeque<(Attempt, Arc<Script>)>>,
    wake: Notify,
    /// Attempts between their start and their end.
    live: AtomicUsize,
    is_closed: AtomicBool,
}

impl WasmExecutor {
    /// Attempts that run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Starts the guest threads. `code` is asked for what this node does not have, `state` for what jumpscripts read,
    /// `permits` for what code may do; all of it, and compiling, run on `io`. `supply` is asked for what the node gives.
    ///
    /// # Errors
    /// The system's own when it gives no thread.
    pub fn start_threads(
        sandbox: Sandbox,
        code: Arc<dyn CodeSource>,
        state: Arc<dyn State>,
        supply: Arc<dyn Supply>,
        permits: Permits,
        io: tokio::runtime::Handle,
        options: WasmOptions,
    ) -> std::io::Result<Self> {
        let n_threads = options.threads.get();
        let shared = Arc::new(Shared {
            sandbox,
            state: Arc::new(OnIo { state, io: io.clone() }),
            supply,
            options,
            queue: Mutex::new(VecDeque::new()),
            wake: Notify::new(),
            live: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        });
        let threads = (0..n_threads)
            .map(|n| {
                let shared = Arc::clone(&shared);
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .event_interval(EVENT_INTERVAL)
                    .build()?;
                std::thread::Builder::new()
                    .name(format!("guest-{n}"))
                    .spawn(move || LocalSet::new().block_on(&runtime, run_guests(&shared)))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        let gate = Arc::new(Gate::off());
        Ok(Self { shared, code, permits: Arc::new(permits), io, loading: Arc::default(), threads, gate })
    }

    /// Has a gate decide what code is loaded and run.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<Gate>) -> Self {
        self.gate = gate;
        self
    }

    /// The sandbox that runs the attempts.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.shared.sandbox
    }

    /// What decides on the permissions of code.
    #[must_use]
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Has code ready in memory before a job asks for it.
    pub fn prepare(&self, digest: Digest) {
        if self.shared.sandbox.cached(&digest).is_none() {
            self.load(digest, None);
        }
    }

    /// Fetches, compiles and links code, asks what it may do, then runs the attempts that wait for it.
    fn load(&self, digest: Digest, attempt: Option<Attempt>) {
        let mut loading = lock(&self.loading);
        if let Some(waiting) = loading.get_mut(&digest) {
            waiting.extend(attempt);
            return;
        }
        loading.insert(digest, attempt.into_iter().collect());
        drop(loading);

        let (shared, code, loading) = (Arc::clone(&self.shared), Arc::clone(&self.code), Arc::clone(&self.loading));
        let (gate, permits) = (Arc::clone(&self.gate), Arc::clone(&self.permits));
        self.io.spawn(async move {
            let loaded = match pass(&gate, code.as_ref(), digest).await {
                Ok(()) => load_code_if(&gate, &shared.sandbox, code.as_ref(), digest).await,
                Err(error) => Err(error),
            };
            let waiting = lock(&loading).remove(&digest).unwrap_or_default();
            for attempt in waiting {
                match &loaded {
                    Ok(script) => {
                        if let Some(doubt) = refused(&gate, &digest, script, &attempt) {
                            gate.count(&doubt);
                            attempt.finish(Outcome::Rejected { reason: doubt.text }, Usage::default());
                            continue;
                        }
                        let permit = match permits.known(&digest, script.manifest(), attempt.rev) {
                            Some(permit) => Ok(permit),
                            None => permits.look_up(&digest, script.manifest()).await,
                        };
                        match permit {
                            Ok(permit) => shared.admit(attempt, Arc::clone(script), permit),
                            Err(reason) => {
                                attempt.finish(Outcome::Retry { after: None, reason }, Usage::default());
                            }
                        }
                    }
                    Err(LoadError::Away(message)) => {
                        let outcome = Outcome::Retry { after: None, reason: message.clone() };
                        attempt.finish(outcome, Usage::default());
                    }
                    Err(LoadError::Doubted(doubt)) => {
                        gate.count(doubt);
                        attempt.finish(Outcome::Rejected { reason: doubt.text.clone() }, Usage::default());
                    }
                    Err(LoadError::Bad(message)) => {
                        attempt.finish(Outcome::Rejected { reason: message.clone() }, Usage::default());
                    }
                }
            }
        });
    }
}

impl Executor for WasmExecutor {
    fn start(&self, attempt: Attempt) {
        let Some(digest) = attempt.job.digest else {
            let reason = format!("no jumpscript serves the type `{}`", crate::job::visible(&attempt.job.job_type));
            return attempt.finish(Outcome::Rejected { reason }, Usage::default());
        };
        // Under `require` code in memory is looked at again: older code may be there from before.
        let script = self.shared.sandbox.cached(&digest);
        let script = script.filter(|script| refused(&self.gate, &digest, script, &attempt).is_none());
        let permit = script.as_ref().and_then(|script| self.permits.known(&digest, script.manifest(), attempt.rev));
        match (script, permit) {
            (Some(script), Some(permit)) => self.shared.admit(attempt, script, permit),
            _ => self.load(digest, Some(attempt)),
        }
    }
}

impl Drop for WasmExecutor {
    /// Ends the guest threads: what they run is stopped, what waits is dropped (and so ends as a failure). The worker
    /// drains before this; it is the floor, not the way out.
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        for (attempt, _) in lock(&self.shared.queue).drain(..) {
            attempt.cancel.cancel();
        }
        for _ in &self.threads {
            self.shared.wake.notify_one();
        }
        self.shared.wake.notify_waiters();
        for thread in self.threads.drain(..) {
            // A guest thread that panicked has told its attempts so; there is nothing to add here.
            drop(thread.join());
        }
    }
}

/// State that is read on the I/O thread, wherever the one who asks runs.
struct OnIo {
    state: Arc<dyn State>,
    io: tokio::runtime::Handle,
}

impl OnIo {
    fn spawn<T: Send + 'static>(
        &self,
        read: BoxFuture<'static, Result<T, String>>,
    ) -> BoxFuture<'static, Result<T, String>> {
        let read = self.io.spawn(read);
        let stopped = |_| Err("the state cannot be read: the host stops".to_owned());
        Box::pin(async move { read.await.unwrap_or_else(stopped) })
    }
}

impl State for OnIo {
    fn values(&self, bucket: Bucket, keys: Vec<String>) -> BoxFuture<'static, Result<StateValues, String>> {
        self.spawn(self.state.values(bucket, keys))
    }

    fn keys(&self, bucket: Bucket, cursor: u64) -> BoxFuture<'static, Result<StatePage, String>> {
        self.spawn(self.state.keys(bucket, cursor))
    }
}

/// Why code could not be had.
#[derive(Debug)]
pub enum LoadError {
    /// The store did not answer, or this host cannot compile now: another try may help.
    Away(String),
    /// The code is missing or unusable: no further try helps.
    Bad(String),
    /// No trusted key vouches for the code, and the policy wants one.
    Doubted(Doubt),
}

/// Whether the gate lets code pass: before a byte of it is parsed.
async fn pass(gate: &Gate, code: &dyn CodeSource, digest: Digest) -> Result<(), LoadError> {
    if gate.policy() != Policy::Require {
        return Ok(());
    }
    let signatures = code.signatures(&digest).await.map_err(LoadError::Away)?;
    let mut why = Doubt::unsigned();
    for signature in &signatures {
        let Ok(name) = signature.statement.name.parse() else { continue };
        match gate.accept(&name, Some(signature), &digest) {
            Ok(()) => return Ok(()),
            Err(doubt) => why = doubt,
        }
    }
    Err(LoadError::Doubted(told(why, &digest)))
}

/// Why code that has passed does not run this attempt, if so: a name may not be made to mean code that was signed for
/// another one.
fn refused(gate: &Gate, digest: &Digest, script: &Script, attempt: &Attempt) -> Option<Doubt> {
    foreign(gate, digest, script, &attempt.job.job_type)
}

/// Why code that has passed does not serve a word, if so.
fn foreign(gate: &Gate, digest: &Digest, script: &Script, word: &str) -> Option<Doubt> {
    if gate.policy() != Policy::Require {
        return None;
    }
    match gate.serves(digest, script.manifest(), word) {
        Some(true) => None,
        Some(false) => {
            Some(told(Doubt::new(Reason::Name, "it is signed for another name than the job's type"), digest))
        }
        None => Some(told(Doubt::new(Reason::Replaced, "it was replaced"), digest)),
    }
}

/// A doubt with the code that it is about, and the policy.
fn told(doubt: Doubt, digest: &Digest) -> Doubt {
    let (code, why) = (digest.short(), doubt.text);
    Doubt::new(doubt.reason, format!("the code {code} is refused (`signatures.policy` is `require`): {why}"))
}

impl LoadError {
    fn of_sandbox(error: &crate::sandbox::Error) -> Self {
        let text = error.to_string();
        if error.is_permanent() { Self::Bad(text) } else { Self::Away(text) }
    }
}

/// Code from disk, else from the store; compiled off the calling thread. A script's text comes with the code of its
/// interpreter.
///
/// # Errors
/// See [`LoadError`].
pub async fn load_code(sandbox: &Sandbox, code: &dyn CodeSource, digest: Digest) -> Result<Arc<Script>, LoadError> {
    load_code_if(&Gate::off(), sandbox, code, digest).await
}

/// As [`load_code`], of an interpreter that the gate lets pass.
async fn load_code_if(
    gate: &Gate,
    sandbox: &Sandbox,
    code: &dyn CodeSource,
    digest: Digest,
) -> Result<Arc<Script>, LoadError> {
    let bytes = match load_or_fetch(sandbox, code, digest).await? {
        Loaded::Script(script) => return Ok(script),
        Loaded::Source(bytes) => bytes,
    };
    let source = Source::decode(&bytes).map_err(|error| {
        LoadError::Bad(format!("the source {} cannot be read: {error}; publish it again", digest.short()))
    })?;
    let name = source.interpreter.to_string();
    let interpreter = code.resolve(&name).await.map_err(LoadError::Away)?;
    let interpreter = interpreter.ok_or_else(|| {
        LoadError::Away(format!("its interpreter `{name}` is not published; publish it: wasmhost publish FILE"))
    })?;
    pass(gate, code, interpreter).await?;
    match load_or_fetch(sandbox, code, interpreter).await? {
        Loaded::Script(script) => match foreign(gate, &interpreter, &script, &name) {
            Some(doubt) => Err(LoadError::Doubted(doubt)),
            None => sandbox.link_source(digest, &bytes, &script).map_err(|error| LoadError::of_sandbox(&error)),
        },
        Loaded::Source(_) => Err(LoadError::Bad(format!("its interpreter `{name}` is a script itself"))),
    }
}

/// What the code of a digest is.
enum Loaded {
    Script(Arc<Script>),
    /// The bytes of a script's text.
    Source(Vec<u8>),
}

async fn load_or_fetch(sandbox: &Sandbox, code: &dyn CodeSource, digest: Digest) -> Result<Loaded, LoadError> {
    let on_disk = {
        let sandbox = sandbox.clone();
        tokio::task::spawn_blocking(move || sandbox.load_artifact(&digest)).await
    };
    if let Ok(Some(script)) = on_disk {
        return Ok(Loaded::Script(script));
    }
    let wasm = code.fetch(&digest).await.map_err(LoadError::Away)?.ok_or_else(|| {
        LoadError::Bad(format!(
            "the code {} is not in `workers:jumpscripts:wasm` any more; publish it again",
            digest.short()
        ))
    })?;
    if Source::is_source(&wasm) {
        return Ok(Loaded::Source(wasm));
    }
    let sandbox = sandbox.clone();
    let load = move || sandbox.load(digest, &wasm).map_err(|error| LoadError::of_sandbox(&error));
    let loaded = tokio::task::spawn_blocking(load).await.unwrap_or_else(|_| {
        Err(LoadError::Bad(format!("loading the code {} failed in wasmhost itself", digest.short())))
    });
    loaded.map(Loaded::Script)
}

impl Shared {
    /// Has an attempt run with its permissions, or ends it for want of them.
    fn admit(&self, mut attempt: Attempt, script: Arc<Script>, permit: Permit) {
        match permit {
            Ok(granted) => {
                attempt.granted = granted;
                self.push(attempt, script);
            }
            Err(denied) => {
                attempt.finish(Outcome::Rejected { reason: denied.to_string() }, Usage::default());
            }
        }
    }

    fn push(&self, attempt: Attempt, script: Arc<Script>) {
        lock(&self.queue).push_back((attempt, script));
        self.wake.notify_one();
    }

    /// The next attempt, as soon as there is one and room to run it; `None` when the executor closes.
    async fn next(&self) -> Option<(Attempt, Arc<Script>)> {
        loop {
            let wake = self.wake.notified();
            if self.is_closed.load(Ordering::Acquire) {
                return None;
            }
            if self.live.load(Ordering::Acquire) < self.options.concurrency {
                let mut queue = lock(&self.queue);
                if let Some(next) = queue.pop_front() {
                    self.live.fetch_add(1, Ordering::AcqRel);
                    if !queue.is_empty() && self.options.threads.get() > 1 {
                        self.wake.notify_one();
                    }
                    return Some(next);
                }
            }
            wake.await;
        }
    }

    /// Runs one attempt to its end.
    async fn run(&self, mut attempt: Attempt, script: Arc<Script>) {
        let mut call = call_of(&mut attempt, &self.options, &script);
        if script.is_supplied() {
            call.supply = Some(Arc::clone(&self.supply));
        }
        if script.has_effects() {
            call.state = Some(Arc::clone(&self.state));
        }
        let Finished { outcome, usage, effects } = self.sandbox.run(&script, call).await;
        attempt.finish_with(outcome, usage, effects);
        let was_full = self.live.fetch_sub(1, Ordering::AcqRel) >= self.options.concurrency;
        if was_full {
            self.wake.notify_one();
        }
    }
}

/// The loop of one guest thread.
async fn run_guests(shared: &Arc<Shared>) {
    let n_parked = Rc::new(Cell::new(0_usize));
    let mut started = 0_u32;
    while let Some((attempt, script)) = shared.next().await {
        let running = Arc::clone(shared);
        let mut run: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move { running.run(attempt, script).await });
        let polled = poll_fn(|context| Poll::Ready(run.as_mut().poll(context))).await;
        if polled.is_pending() {
            let n_parked = Rc::clone(&n_parked);
            n_parked.set(n_parked.get() + 1);
            tokio::task::spawn_local(async move {
                run.await;
                n_parked.set(n_parked.get() - 1);
            });
        }
        started += 1;
        if n_parked.get() > 0 && (polled.is_pending() || started.is_multiple_of(STARTS_PER_TURN)) {
            tokio::task::yield_now().await;
        }
    }
}

fn call_of(attempt: &mut Attempt, options: &WasmOptions, script: &Script) -> Call {
    let manifest = script.manifest();
    attempt.manifest_retry = manifest.retry_wish();
    let job: &mut Reserved = &mut attempt.job;
    let number = job.attempt();
    let now = Timestamp::now();
    let timeout = job.timeout.or_else(|| manifest.attempt_timeout()).unwrap_or(TIMEOUT);
    Call {
        id: job.id.to_string(),
        queue: std::mem::take(&mut job.queue),
        job_type: std::mem::take(&mut job.job_type),
        node: options.node.clone(),
        attempt: number,
        max_attempts: job.retry.or(attempt.manifest_retry).executions(),
        deadline_ms: now.after(timeout).millis(),
        enqueued_at_ms: job.created_at.unwrap_or(now).millis(),
        content_type: std::mem::take(&mut job.content_type),
        payload: std::mem::take(&mut job.payload),
        metadata: std::mem::take(&mut job.metadata),
        timeout,
        memory_bytes_max: manifest
            .memory_bytes()
            .map_or(options.memory_bytes_max, |asked| asked.min(options.memory_bytes_max)),
        granted: Arc::clone(&attempt.granted),
        state: None,
        supply: None,
        sink: Arc::clone(&attempt.sink),
        cancel: attempt.cancel.clone(),
        is_check: false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can be left half-changed by a panic, so the data is good even if one was poisoned.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
