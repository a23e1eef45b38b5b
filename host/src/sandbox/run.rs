//! One attempt: a fresh instance, its limits, and how it ended.
//!
//! Invariant: the instance is dropped before [`Finished`] is handed out, whatever happened; dropping the future does
//! the same.
//!
//! Next: `guest` for what the instance carries, `verdict` for how errors become outcomes.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store};

use super::cancel::CancelFlag;
use super::contract::types;
use super::guest::{Guest, command_wasi, core_wasi};
use super::http::Http;
use super::limits::Limits;
use super::options::{MEMORY_BYTES_MAX, Options};
use super::output::{Log, ResultStream};
use super::script::{Linked, Script};
use super::state::Transaction;
use super::verdict::{self, Circumstances};
use crate::effects::Effects;
use crate::job::{RESULT_BYTES_MAX, TIMEOUT};
use crate::outcome::{Outcome, Usage};
use crate::permissions::Granted;
use crate::ports::{JobSink, NoSink, State, Supply};

/// What one attempt is given.
#[derive(Clone)]
pub struct Call {
    /// The job's id as text.
    pub id: String,
    /// The lane it waited in.
    pub queue: String,
    /// The type it named.
    pub job_type: String,
    /// The node that runs it.
    pub node: String,
    /// Which execution this is, from 1.
    pub attempt: u32,
    /// Executions in all.
    pub max_attempts: u32,
    /// When it will be stopped, in milliseconds since the epoch: what the guest is told. `timeout` is what counts.
    pub deadline_ms: i64,
    /// When it was enqueued, in milliseconds since the epoch; 0 when nobody knows.
    pub enqueued_at_ms: i64,
    /// What the payload is; empty says nothing.
    pub content_type: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// Name and value pairs of the producer.
    pub metadata: Vec<(String, String)>,
    /// Wall time, counted from the moment it has an instance.
    pub timeout: Duration,
    /// Linear memory in bytes; the sandbox's own limit holds above it.
    pub memory_bytes_max: usize,
    /// What it may do beyond computing.
    pub granted: Arc<Granted>,
    /// Where its state lies; without it nothing is there, and it sees its own writes only.
    pub state: Option<Arc<dyn State>>,
    /// What its node gives; without it there are neither values nor secrets.
    pub supply: Option<Arc<dyn Supply>>,
    /// Who hears its log and its progress.
    pub sink: Arc<dyn JobSink>,
    /// Who may stop it.
    pub cancel: CancelFlag,
    /// Whether a script's text is only to be read, not run.
    pub is_check: bool,
}

impl Call {
    /// A call with nothing but the payload; everything else is the default.
    #[must_use]
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self {
            id: String::new(),
            queue: String::new(),
            job_type: String::new(),
            node: String::new(),
            attempt: 1,
            max_attempts: 1,
            deadline_ms: 0,
            enqueued_at_ms: 0,
            content_type: String::new(),
            payload: payload.into(),
            metadata: Vec::new(),
            timeout: TIMEOUT,
            memory_bytes_max: MEMORY_BYTES_MAX,
            granted: Granted::none(),
            state: None,
            supply: None,
            sink: Arc::new(NoSink),
            cancel: CancelFlag::new(),
            is_check: false,
        }
    }

    /// A call that has an interpreter read a script without running it.
    #[must_use]
    pub fn check() -> Self {
        Self { is_check: true, ..Self::new("") }
    }
}

/// How one attempt ended, and what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// What it has read of its state, and what it writes if it ended well.
    pub effects: Effects,
}

impl Finished {
    /// The end of an attempt that was not begun.
    pub(super) fn nothing(outcome: Outcome) -> Self {
        Self { outcome, usage: Usage::default(), effects: Effects::none() }
    }
}

/// Runs one attempt in a fresh instance, with no more than the options allow.
pub(super) async fn run(script: &Script, mut call: Call, options: &Options) -> Finished {
    let (start, engine) = (Instant::now(), &script.engine);
    script.brief(&mut call);
    let log = Log::new(Arc::clone(&call.sink));
    let limits = Limits::new(call.memory_bytes_max.min(options.memory_bytes_max), options.host_calls_max);
    // A timeout beyond the end of time is no timeout.
    let deadline = start.checked_add(call.timeout).unwrap_or_else(|| start + Duration::from_secs(u32::MAX.into()));
    let timeout = call.timeout;
    let cancel = call.cancel.clone();
    let mut usage = Usage::default();
    let granted = Arc::clone(&call.granted);
    let http = script.http(&granted);
    let pending = script.transaction(&call, &granted, &log);
    let supply = call.supply.clone();
    let mut attempt =
        Attempt { deadline, timeout, cancel: &cancel, log: &log, granted, supply, http, pending, usage: &mut usage };
    let mut transaction = None;

    let outcome = match &script.linked {
        Linked::Component(pre) => {
            let mut store = attempt.store(engine, None, limits);
            let job = job(call);
            let run = async |store: &mut Store<_>| {
                let instance = pre.instantiate_async(&mut *store).await?;
                instance.call_run(store, &job).await
            };
            let returned = attempt.watch(&mut store, false, run).await;
            transaction = store.data_mut().transaction.take();
            drop(store);
            returned.map_or_else(|outcome| outcome, returned_by_component)
        }
        Linked::Command(pre) => {
            let result = ResultStream::default();
            let mut store = attempt.store(engine, Some(command_wasi(&log, &mut call, &result).await), limits);
            let run = async |store: &mut Store<_>| {
                let instance = pre.instantiate_async(&mut *store).await?;
                instance.wasi_cli_run().call_run(store).await
            };
            let returned = attempt.watch(&mut store, true, run).await;
            transaction = store.data_mut().transaction.take();
            drop(store);
            match returned {
                // `exit(0)`, and returning from `main`.
                Err(Outcome::Done { .. }) | Ok(Ok(())) => Outcome::Done { result: result.take() },
                Ok(Err(())) => verdict::exited(1, &circumstances(&log, timeout, true, false)),
                Err(outcome) => outcome,
            }
        }
        Linked::Core { pre, start } => {
            let result = ResultStream::default();
            let mut store = attempt.store(engine, core_wasi(&log, &mut call, &result).await, limits);
            let run = async |store: &mut Store<_>| {
                let instance = pre.instantiate_async(&mut *store).await?;
                let function = instance.get_module_export(&mut *store, start).and_then(wasmtime::Extern::into_func);
                let function = function.ok_or_else(|| wasmtime::format_err!("`_start` is not a function"))?;
                function.typed::<(), ()>(&*store)?.call_async(store, ()).await
            };
            let returned = attempt.watch(&mut store, true, run).await;
            drop(store);
            match returned {
                Err(Outcome::Done { .. }) | Ok(()) => Outcome::Done { result: result.take() },
                Err(outcome) => outcome,
            }
        }
    };
    (usage.log_tail, usage.is_log_cut) = log.finish();
    usage.wall_us = micros(start.elapsed());
    let (mut outcome, effects) = with_effects(outcome, transaction);
    log.hide_in(&mut outcome);
    Finished { outcome, usage, effects }
}

/// What an attempt has read and would write, and how it ended when that counts.
fn with_effects(outcome: Outcome, transaction: Option<Box<Transaction>>) -> (Outcome, Effects) {
    let Some(transaction) = transaction else { return (outcome, Effects::none()) };
    let is_told_to_end = transaction.is_told_to_end;
    match (outcome, transaction.finish()) {
        (Outcome::Done { .. }, Err(message)) => (Outcome::Failed { message }, Effects::none()),
        (outcome, Err(_)) => (outcome, Effects::none()),
        // It was asked to come to its end, and did: somebody else goes on with what it left in the job's own bucket.
        (Outcome::Retry { after: None, .. }, Ok(effects)) if is_told_to_end => (Outcome::Cancelled, effects),
        (outcome @ (Outcome::Cancelled | Outcome::Conflict), Ok(_)) => (outcome, Effects::none()),
        (outcome, Ok(effects)) => (outcome, effects),
    }
}

/// What the guest returned.
fn returned_by_component(returned: Result<Vec<u8>, types::JobError>) -> Outcome {
    match returned {
        Ok(result) if result.len() > RESULT_BYTES_MAX => verdict::result_too_large(result.len()),
        Ok(result) => Outcome::Done { result },
        Err(types::JobError::Failed(message)) => Outcome::Failed { message },
        Err(types::JobError::Reject(reason)) => Outcome::Rejected { reason },
        Err(types::JobError::Retry(types::RetryInfo { after_ms, reason })) => {
            Outcome::Retry { after: after_ms.map(Duration::from_millis), reason }
        }
    }
}

/// The record that the guest is given.
fn job(call: Call) -> types::Job {
    types::Job {
        id: call.id,
        queue: call.queue,
        job_type: call.job_type,
        node: call.node,
        attempt: call.attempt,
        max_attempts: call.max_attempts,
        deadline_ms: u64::try_from(call.deadline_ms).unwrap_or(0),
        enqueued_at_ms: u64::try_from(call.enqueued_at_ms).unwrap_or(0),
        content_type: call.content_type,
        payload: call.payload,
        metadata: call.metadata,
    }
}

/// What all three shapes of code have in common.
struct Attempt<'a> {
    deadline: Instant,
    timeout: Duration,
    cancel: &'a CancelFlag,
    log: &'a Log,
    granted: Arc<Granted>,
    supply: Option<Arc<dyn Supply>>,
    http: Http,
    pending: Option<Box<Transaction>>,
    usage: &'a mut Usage,
}

impl Attempt<'_> {
    fn store<W: Send + 'static>(&mut self, engine: &Engine, wasi: W, limits: Limits) -> Store<Guest<W>> {
        let (log, cancel) = (self.log.clone(), self.cancel.clone());
        let granted = Arc::clone(&self.granted);
        let (supply, http, transaction) = (self.supply.take(), std::mem::take(&mut self.http), self.pending.take());
        Guest { wasi, limits, log, deadline: self.deadline, cancel, granted, supply, http, transaction }
            .into_store(engine)
    }

    /// Runs the guest until it returns, is stopped while computing, or is given up while waiting; and takes its
    /// measure.
    async fn watch<W: Send + 'static, R>(
        self,
        store: &mut Store<Guest<W>>,
        is_command: bool,
        run: impl AsyncFnOnce(&mut Store<Guest<W>>) -> wasmtime::Result<R>,
    ) -> Result<R, Outcome> {
        let mut cpu = Duration::ZERO;
        let ended = {
            let guest = Measured { future: pin!(run(store)), cpu: &mut cpu };
            tokio::select! {
                // The guest first: a computing one is stopped by its epoch, with a backtrace; the other two see to
                // one that waits.
                biased;
                returned = guest => Some(returned),
                () = self.cancel.cancelled() => None,
                () = tokio::time::sleep_until(self.deadline.into()) => None,
            }
        };
        self.usage.cpu_us = micros(cpu);
        self.usage.memory_bytes_peak = store.data().limits.memory_bytes_peak() as u64;
        match ended {
            Some(Ok(returned)) => Ok(returned),
            Some(Err(error)) => {
                let known = circumstances(self.log, self.timeout, is_command, self.cancel.is_cancelled());
                Err(verdict::outcome(&error, &known))
            }
            None if self.cancel.is_cancelled() => Err(Outcome::Cancelled),
            None => Err(Outcome::TimedOut { limit: self.timeout, backtrace: String::new() }),
        }
    }
}

fn circumstances(log: &Log, timeout: Duration, is_command: bool, is_cancelled: bool) -> Circumstances {
    Circumstances { is_cancelled, is_command, timeout, last_words: log.last_words() }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Adds up the time inside `poll`: what the guest and its host calls computed.
struct Measured<'a, F> {
    future: Pin<&'a mut F>,
    cpu: &'a mut Duration,
}

impl<F: Future> Future for Measured<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let start = Instant::now();
        let polled = self.future.as_mut().poll(context);
        *self.cpu += start.elapsed();
        polled
    }
}
