//! What one instance carries: its WASI state, its limits, its log, its deadline.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::cancel::CancelFlag;
use super::http::Http;
use super::limits::Limits;
use super::output::{Log, LogStream, ResultStream, Source};
use super::run::Call;
use super::state::Transaction;
use super::supply::variables;
use crate::permissions::{Granted, GrantedDirectory};
use crate::ports::{Level, Supply};

/// Most resources (streams, pollables) that a guest holds at once.
pub const RESOURCES_MAX: usize = 1_000;
/// Most random bytes of one call.
pub const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that a guest may hand to the host in one call, its result included: more than any limit that has its own
/// text, so that the text is what the author sees.
pub const HOSTCALL_FUEL: usize = 16 * 1024 * 1024;

/// What one instance carries.
pub(super) struct Guest<W> {
    pub(super) wasi: W,
    pub(super) limits: Limits,
    pub(super) log: Log,
    pub(super) deadline: Instant,
    pub(super) cancel: CancelFlag,
    /// What it may do beyond computing.
    pub(super) granted: Arc<Granted>,
    /// What the node gives; a script that cannot ask for it has none.
    pub(super) supply: Option<Arc<dyn Supply>>,
    /// Its client, once it sends a request.
    pub(super) http: Http,
    /// Made for a script that can use state or enqueue; `None` costs the others nothing.
    pub(super) transaction: Option<Box<Transaction>>,
}

impl<W: Send + 'static> Guest<W> {
    /// The guest as a host call finds it; every way from a linker to a guest comes through here.
    pub(super) const fn called(&mut self) -> &mut Self {
        self.limits.count_host_call();
        self
    }

    /// A store with every limit armed.
    pub(super) fn into_store(self, engine: &Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            let guest = context.data();
            guest.limits.check_host_calls()?;
            let must_stop = guest.cancel.is_cancelled() || Instant::now() >= guest.deadline;
            // Yielding gives the thread to the other guests between two ticks.
            Ok(if must_stop { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        store
    }
}

/// Clocks, random, stdout and stderr into the log, and what was granted of the host's environment and directories.
fn builder(log: &Log, granted: &Granted) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stderr(LogStream { log: log.clone(), source: Source::Stderr })
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false);
    if !granted.request().env.is_empty() {
        let of_host = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        for (name, value) in of_host.filter(|(name, _)| granted.env(name)) {
            builder.env(name, value.to_string_lossy());
        }
    }
    for directory in granted.directories() {
        if let Err(why) = open_directory(&mut builder, directory) {
            log.line(Level::Warn, "files", &format!("the directory {} is not open: {why}", directory.path));
        }
    }
    builder
}

/// Opens a directory for reading, if it really lies where the node allows it.
fn open_directory(builder: &mut WasiCtxBuilder, directory: &GrantedDirectory) -> Result<(), String> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|error| error.to_string());
    let (path, within) = (real(directory.path.path())?, real(directory.within.path())?);
    if !path.starts_with(&within) {
        return Err(format!("it is a link that leads out of {}, which is what the node allows", directory.within));
    }
    let opened = builder.preopened_dir(&path, directory.path.as_str(), FsPerms::ReadOnly);
    opened.map(drop).map_err(|error| error.to_string())
}

/// The WASI of a component: no stdin, stdout into the log.
pub(super) fn component_wasi(log: &Log, granted: &Granted) -> (WasiCtx, ResourceTable) {
    let mut builder = builder(log, granted);
    builder.stdout(LogStream { log: log.clone(), source: Source::Stdout });
    wasi(&mut builder)
}

/// The WASI of a command of WASI 0.2: payload on stdin, result on stdout.
pub(super) async fn command_wasi(log: &Log, call: &mut Call, result: &ResultStream) -> (WasiCtx, ResourceTable) {
    let supplied = variables(call, log).await;
    wasi(command(log, call, result).envs(&supplied))
}

/// The WASI of a command of preview 1: the same.
pub(super) async fn core_wasi(log: &Log, call: &mut Call, result: &ResultStream) -> WasiP1Ctx {
    let supplied = variables(call, log).await;
    command(log, call, result).envs(&supplied).build_p1()
}

fn wasi(builder: &mut WasiCtxBuilder) -> (WasiCtx, ResourceTable) {
    let mut resources = ResourceTable::new();
    resources.set_max_capacity(RESOURCES_MAX);
    (builder.build(), resources)
}

fn command(log: &Log, call: &mut Call, result: &ResultStream) -> WasiCtxBuilder {
    let mut builder = builder(log, &call.granted);
    builder
        .stdin(MemoryInputPipe::new(std::mem::take(&mut call.payload)))
        .stdout(result.clone())
        .env("JOB_ID", &call.id)
        .env("JOB_QUEUE", &call.queue)
        .env("JOB_TYPE", &call.job_type)
        .env("JOB_NODE", &call.node)
        .env("JOB_ATTEMPT", call.attempt.to_string())
        .env("JOB_MAX_ATTEMPTS", call.max_attempts.to_string())
        .env("JOB_DEADLINE", call.deadline_ms.to_string())
        .env("JOB_ENQUEUED_AT", call.enqueued_at_ms.to_string())
        .env("JOB_CONTENT_TYPE", &call.content_type)
        .env("JOB_METADATA", metadata(&call.metadata));
    builder
}

/// Names and values as a JSON object; of a name that occurs twice the last value.
fn metadata(pairs: &[(String, String)]) -> String {
    let value = |text: &String| serde_json::Value::String(text.clone());
    let object: serde_json::Map<_, _> = pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    serde_json::Value::Object(object).to_string()
}

/// A store of a preview 1 command that runs nothing.
#[cfg(test)]
pub(super) fn tests_store(engine: &Engine) -> Store<Guest<WasiP1Ctx>> {
    let call = &mut Call::new("");
    let log = Log::new(Arc::clone(&call.sink));
    let wasi = command(&log, call, &ResultStream::default()).build_p1();
    let cancel = CancelFlag::new();
    Guest {
        wasi,
        limits: Limits::new(0, 0),
        log,
        deadline: Instant::now(),
        cancel,
        granted: Granted::none(),
        supply: None,
        http: Http::default(),
        transaction: None,
    }
    .into_store(engine)
}
