//! `wasmhost bench`: what this machine does, measured with a private Redis, or with the one that `--redis` names.
//!
//! Native and sandboxed drains alternate, so that a neighbour's noise hits both; the medians are printed. The native
//! handler shows what the queue alone costs: it is an executor that nothing but this command uses.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Notify, watch};

use super::exec::read_file;
use super::{Failure, Global, Output, print};
use crate::clock::Timestamp;
use crate::executor::native::NativeExecutor;
use crate::executor::wasm::{WasmExecutor, WasmOptions};
use crate::executor::{Attempt, Executor};
use crate::host::{UNKNOWN_TYPE_WAIT, guest_threads};
use crate::job::{NewJob, Reserved, StoreId};
use crate::jumpscript::{Digest, Manifest, ScriptName, WASM_BYTES_MAX};
use crate::outcome::Outcome;
use crate::ports::{JobSink, Level, PublishRule, Pulse};
use crate::retry::RetryPolicy;
use crate::sandbox::{Compiler, MEMORY_BYTES_MAX, Options, Sandbox};
use crate::store::embedded::Embedded;
use crate::store::{self, NewJumpscript, Store};
use crate::worker::{self, Worker};

/// Arguments of `wasmhost bench`.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Jobs of one drain
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
    jobs: u64,
    /// Drains of each sort; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// The no-op jumpscript [default: the shipped `echo` of `make build`]
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Keep Redis's append-only file on (everysec) while measuring
    #[arg(long)]
    append_only: bool,
    /// Seconds of the latency and idle measurements
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Most jobs that run at once [default: 8 per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// Leave out the idle host
    #[arg(long)]
    no_idle: bool,
}

/// Where the figures go, from the workspace's root.
const FIGURES: &str = "target/bench/queue.json";
/// Jobs a second while latency is measured.
const LATENCY_RATE: u32 = 500;
/// Queues of the idle host.
const IDLE_QUEUES: usize = 10;

/// What is written to [`FIGURES`]. Units are in the names.
#[derive(Debug, Default, Serialize)]
struct Figures {
    native_jobs_per_s: f64,
    wasm_jobs_per_s: f64,
    native_host_us_per_job: f64,
    host_us_per_job: f64,
    native_redis_us_per_job: f64,
    redis_us_per_job: f64,
    latency_ms_p50: f64,
    latency_ms_p99: f64,
    wasm_latency_ms_p50: f64,
    wasm_latency_ms_p99: f64,
    enqueue_jobs_per_s: f64,
    #[serde(flatten)]
    idle: Option<Idle>,
    jobs: u64,
    rounds: u32,
    append_only: bool,
    others_cores: f64,
}

/// One drain.
#[derive(Clone, Copy, Debug)]
struct Drain {
    jobs_per_s: f64,
    host_us: f64,
    redis_us: f64,
    enqueue_per_s: f64,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: BenchArgs) -> Result<ExitCode, Failure> {
    if global.redis.is_some() && args.append_only {
        return Err(Failure::usage("--append-only changes a private Redis only, and --redis names another")
            .hint("leave one of them out; the Redis of --redis is measured as it is configured"));
    }
    let script = script_file(args.script.as_deref())?;
    let wasm = read_file(&script, WASM_BYTES_MAX)?;
    let data = std::env::temp_dir().join(format!("wasmhost-bench-{}", std::process::id()));
    // A Redis that was named is used as it is; the jobs' rows stay in it for their hour.
    let result = if let Some(url) = &global.redis {
        measure(&args, &connect(url).await?, url, &wasm, &data).await
    } else {
        let embedded = Embedded::start(&data).await.map_err(|text| Failure::from_text(&text))?;
        let result = measure_private(&args, &embedded.address().url, &wasm, &data).await;
        embedded.stop().await;
        result
    };
    // A folder in the system's temporary files that cannot be removed is the system's to remove.
    let _removed = std::fs::remove_dir_all(&data).is_ok();
    let figures = result?;
    report(global.output, &figures)?;
    Ok(ExitCode::SUCCESS)
}

async fn connect(url: &str) -> Result<Store, Failure> {
    let options = store::Options { url: url.to_owned(), prefix: "bench".to_owned(), ..store::Options::default() };
    Ok(Store::connect(StoreId::default(), &options).await?)
}

async fn measure_private(args: &BenchArgs, url: &str, wasm: &[u8], data: &Path) -> Result<Figures, Failure> {
    let store = connect(url).await?;
    store.set_append_only(args.append_only).await?;
    measure(args, &store, url, wasm, data).await
}

async fn measure(args: &BenchArgs, store: &Store, url: &str, wasm: &[u8], data: &Path) -> Result<Figures, Failure> {
    let concurrency = args.concurrency.map_or_else(concurrency, usize::from);
    let bench = Bench { store: store.clone(), url: url.to_owned(), n_jobs: args.jobs, concurrency };
    let wasm_executor = bench.wasm_executor(wasm).await?;
    let (busy, redis_before) = (Busy::start(), store.server_cpu().await?);

    print::note(&format!("draining {} jobs, native and sandboxed in turn, {} rounds", args.jobs, args.rounds));
    let (mut native, mut sandboxed) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        native.push(bench.drain(|counted| Arc::new(NativeExecutor::new(counted))).await?);
        let inner: Arc<dyn Executor> = wasm_executor.clone();
        sandboxed.push(bench.drain(|counted| Arc::new(Counted { inner: inner.clone(), started: counted })).await?);
    }
    print::note(&format!("latency at {LATENCY_RATE} jobs/s for {} s", args.seconds));
    let native_latency = bench
        .latency(args.seconds, |waits| {
            Arc::new(NativeExecutor::new(move |job: &Reserved| {
                waits.add(sent_at(job));
                Outcome::Done { result: Vec::new() }
            }))
        })
        .await?;
    let wasm_latency = bench.latency(args.seconds, |waits| Arc::new(Watched { inner: wasm_executor, waits })).await?;
    let idle = if args.no_idle {
        None
    } else {
        print::note(&format!("an idle host with {IDLE_QUEUES} queues for {} s", args.seconds));
        Some(bench.idle(data, args.seconds).await?)
    };

    let of = |drains: &[Drain], figure: fn(&Drain) -> f64| median(drains.iter().map(figure).collect());
    Ok(Figures {
        native_jobs_per_s: of(&native, |d| d.jobs_per_s),
        wasm_jobs_per_s: of(&sandboxed, |d| d.jobs_per_s),
        native_host_us_per_job: of(&native, |d| d.host_us),
        host_us_per_job: of(&sandboxed, |d| d.host_us),
        native_redis_us_per_job: of(&native, |d| d.redis_us),
        redis_us_per_job: of(&sandboxed, |d| d.redis_us),
        latency_ms_p50: native_latency.0,
        latency_ms_p99: native_latency.1,
        wasm_latency_ms_p50: wasm_latency.0,
        wasm_latency_ms_p99: wasm_latency.1,
        enqueue_jobs_per_s: of(&native, |d| d.enqueue_per_s),
        idle,
        jobs: args.jobs,
        rounds: args.rounds,
        append_only: args.append_only,
        others_cores: busy.others_cores(store.server_cpu().await?.saturating_sub(redis_before)),
    })
}

struct Bench {
    store: Store,
    url: String,
    n_jobs: u64,
    concurrency: usize,
}

/// The name under which the no-op jumpscript is published.
const TYPE: &str = "bench-noop";
/// Jobs of one enqueue call.
const BULK: usize = 500;

impl Bench {
    async fn wasm_executor(&self, wasm: &[u8]) -> Result<Arc<WasmExecutor>, Failure> {
        let inspection = Sandbox::inspect(wasm)?;
        let name = ScriptName::new("wasmhost", TYPE).map_err(Failure::new)?;
        let script = NewJumpscript { name, kind: inspection.kind, manifest: Manifest::default() };
        self.store.publish(&script, wasm, PublishRule::Always).await?;
        let sandbox = Sandbox::new(Options { compiler: Compiler::InProcess, ..Options::default() })?;
        sandbox.load(Digest::of(wasm), wasm)?;
        let options = WasmOptions {
            threads: guest_threads(&self.url),
            concurrency: self.concurrency,
            memory_bytes_max: MEMORY_BYTES_MAX,
            node: "bench".to_owned(),
        };
        let io = tokio::runtime::Handle::current();
        Ok(Arc::new(WasmExecutor::start_threads(sandbox, Arc::new(self.store.clone()), io, options)?))
    }

    /// Fills the queue, then measures a worker until everything is settled.
    async fn drain(&self, executor: impl FnOnce(Handler) -> Arc<dyn Executor>) -> Result<Drain, Failure> {
        let enqueue_started = Instant::now();
        let mut left = self.n_jobs;
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(BULK).min(BULK);
            let jobs: Vec<NewJob> = (0..n).map(|_| NewJob::new("drain", TYPE, "null")).collect();
            self.store.enqueue(&jobs).await?;
            left -= n as u64;
        }
        let enqueue_per_s = per_s(self.n_jobs, enqueue_started.elapsed());

        let handled = Arc::new(Handled { n: AtomicU64::new(0), until: self.n_jobs, all: Notify::new() });
        let counter = Arc::clone(&handled);
        let handler: Handler = Box::new(move |_| {
            counter.count();
            Outcome::Done { result: Vec::new() }
        });
        let worker = self.worker("drain", executor(handler));
        let (stop, stopped) = watch::channel(false);
        let (host_before, redis_before, started) = (own_cpu(), self.store.server_cpu().await?, Instant::now());
        let running = tokio::spawn(worker.run(stopped));
        handled.all.notified().await;
        stop.send_replace(true);
        let totals = running.await.map_err(|error| Failure::new(format!("the worker failed: {error}")))?;
        let elapsed = started.elapsed();
        let (host, redis) = (own_cpu() - host_before, self.store.server_cpu().await? - redis_before);
        if totals.done != self.n_jobs {
            return Err(Failure::new(format!("{} of {} jobs were done; the rest failed", totals.done, self.n_jobs)));
        }
        Ok(Drain {
            jobs_per_s: per_s(self.n_jobs, elapsed),
            host_us: us_per(self.n_jobs, host),
            redis_us: us_per(self.n_jobs, redis),
            enqueue_per_s,
        })
    }

    fn worker(&self, queue: &str, executor: Arc<dyn Executor>) -> Worker {
        let options = worker::Options {
            queues: vec![(queue.to_owned(), 1)],
            is_strict: false,
            concurrency: self.concurrency,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            node: "bench".to_owned(),
            done_ttl: Duration::from_secs(3600),
            retry: RetryPolicy::default(),
            unknown_type_wait: UNKNOWN_TYPE_WAIT,
        };
        Worker::new(self.store.clone(), executor, options, Arc::new(Pulse::new()))
    }

    /// Enqueues at a steady rate from a thread of its own onto an idle worker: p50 and p99 of the waits, in
    /// milliseconds. The first second is for warming up and does not count.
    async fn latency(
        &self,
        seconds: u64,
        executor: impl FnOnce(Arc<Waits>) -> Arc<dyn Executor>,
    ) -> Result<(f64, f64), Failure> {
        let n = (seconds + 1) * u64::from(LATENCY_RATE);
        let handled = Handled { n: AtomicU64::new(0), until: n, all: Notify::new() };
        let waits = Arc::new(Waits { handled, ms: Mutex::default() });
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(self.worker("latency", executor(Arc::clone(&waits))).run(stopped));
        let url = self.url.clone();
        let producer = std::thread::spawn(move || produce(&url, n));
        waits.handled.all.notified().await;
        stop.send_replace(true);
        running.await.map_err(|error| Failure::new(format!("the worker failed: {error}")))?;
        producer.join().map_err(|_| Failure::new("the producer failed"))??;
        let mut waits = waits.lock().split_off(LATENCY_RATE as usize);
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place in a list of some thousand"
            )]
            let place = (waits.len() as f64 * share) as usize;
            waits.get(place.min(waits.len().saturating_sub(1))).copied().unwrap_or(0.0)
        };
        Ok((at(0.5), at(0.99)))
    }

    /// A host of its own with every service, and nothing to do.
    async fn idle(&self, data: &Path, seconds: u64) -> Result<Idle, Failure> {
        let queues = (0..IDLE_QUEUES).flat_map(|n| ["--queue".to_owned(), format!("idle-{n}")]);
        let mut host = tokio::process::Command::new("/proc/self/exe")
            .args(["run", "--redis", &self.url, "--prefix", "idle", "--node-prefix", "idle-", "--data"])
            .arg(data.join("idle"))
            .args(queues)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = host.stderr.take().ok_or_else(|| Failure::new("the idle host has no stderr"))?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        while !said.contains("host ready") {
            let Some(line) = lines.next_line().await? else {
                return Err(Failure::new(format!("the idle host did not start: {said}")));
            };
            said = line;
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let pid = host.id().ok_or_else(|| Failure::new("the idle host has ended"))?;
        // Connections, first checks and first heartbeats belong to the start, not to idling.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let period = Duration::from_secs(seconds.max(10));
        let before = cpu_of(pid);
        let commands = self.store.count_commands(period).await?;
        let cpu = cpu_of(pid).saturating_sub(before);
        let pss_mb = pss_mb_of(pid);
        rustix::process::kill_process(pid_of(pid)?, rustix::process::Signal::TERM)
            .map_err(|error| Failure::new(format!("the idle host cannot be stopped: {error}")))?;
        host.wait().await?;
        Ok(Idle {
            commands_per_s: per_s(commands, period),
            cpu_percent: cpu.as_secs_f64() / period.as_secs_f64() * 100.0,
            pss_mb,
        })
    }
}

type Handler = Box<dyn Fn(&Reserved) -> Outcome + Send + Sync>;

struct Handled {
    n: AtomicU64,
    until: u64,
    all: Notify,
}

impl Handled {
    fn count(&self) {
        if self.n.fetch_add(1, Ordering::Relaxed) + 1 == self.until {
            self.all.notify_one();
        }
    }
}

/// How long jobs waited, from before the enqueue call.
struct Waits {
    handled: Handled,
    ms: Mutex<Vec<f64>>,
}

impl Waits {
    fn add(&self, sent: Timestamp) {
        let waited = Timestamp::now().since(sent);
        self.lock().push(waited.as_secs_f64() * 1e3);
        self.handled.count();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<f64>> {
        self.ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a job of [`produce`] was sent.
fn sent_at(job: &Reserved) -> Timestamp {
    let nanos = std::str::from_utf8(&job.payload).ok().and_then(|text| text.parse().ok());
    Timestamp::from_nanos(nanos.unwrap_or(0))
}

/// Sees when the attempts of another executor are over. That is later than their start by a whole run in the sandbox.
struct Watched {
    inner: Arc<dyn Executor>,
    waits: Arc<Waits>,
}

impl Executor for Watched {
    fn start(&self, mut attempt: Attempt) {
        let (sent, waits) = (sent_at(&attempt.job), Arc::clone(&self.waits));
        attempt.sink = Arc::new(UntilEnd { sink: attempt.sink.clone(), sent, waits });
        self.inner.start(attempt);
    }
}

/// A sink in an attempt. Nobody else has it, so it is dropped when the attempt ends, on the guest's thread.
struct UntilEnd {
    sink: Arc<dyn JobSink>,
    sent: Timestamp,
    waits: Arc<Waits>,
}

impl JobSink for UntilEnd {
    fn log(&self, level: Level, context: &str, message: &str) {
        self.sink.log(level, context, message);
    }

    fn progress(&self, percent: u8, message: &str) {
        self.sink.progress(percent, message);
    }
}

impl Drop for UntilEnd {
    fn drop(&mut self) {
        self.waits.add(self.sent);
    }
}

/// Counts the attempts that another executor is given.
struct Counted {
    inner: Arc<dyn Executor>,
    started: Handler,
}

impl Executor for Counted {
    fn start(&self, attempt: Attempt) {
        // The worker ends only when all are settled, so counting starts ends the drain at the right moment.
        let _done = (self.started)(&attempt.job);
        self.inner.start(attempt);
    }
}

/// What a host does that has nothing to do.
#[derive(Debug, Serialize)]
struct Idle {
    #[serde(rename = "idle_commands_per_s")]
    commands_per_s: f64,
    #[serde(rename = "idle_cpu_percent")]
    cpu_percent: f64,
    pss_mb: f64,
}

/// Enqueues `n` jobs at [`LATENCY_RATE`], each with its time as payload.
fn produce(url: &str, n: u64) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = connect(url).await?;
        let mut pace = tokio::time::interval(Duration::from_secs(1) / LATENCY_RATE);
        for _ in 0..n {
            pace.tick().await;
            store.enqueue(&[NewJob::new("latency", TYPE, Timestamp::now().nanos().to_string())]).await?;
        }
        Ok(())
    })
}

fn concurrency() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) * 8
}

/// The file of the shipped `echo`, beside this program or below the current folder.
fn script_file(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("scripts/echo.wasm")));
    let here = PathBuf::from("target/scripts/echo.wasm");
    beside.into_iter().chain([here]).find(|path| path.is_file()).ok_or_else(|| {
        Failure::usage("the no-op jumpscript `echo.wasm` was not found")
            .hint("run `make build` first, or name one with --script FILE")
    })
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn per_s(n: u64, elapsed: Duration) -> f64 {
    n as f64 / elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn us_per(n: u64, cpu: Duration) -> f64 {
    cpu.as_secs_f64() * 1e6 / n as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// CPU time of this process, all threads.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn pid_of(pid: u32) -> Result<rustix::process::Pid, Failure> {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    raw.ok_or_else(|| Failure::new("the idle host has ended"))
}

/// CPU time of another process, from the scheduler's counters of its threads (nanoseconds).
fn cpu_of(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let run_ns = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(|thread| run_ns(thread.path())).sum())
}

/// Proportional memory of another process in MB.
#[expect(clippy::cast_precision_loss, reason = "a size in KiB fits a double exactly")]
fn pss_mb_of(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(|rest| rest.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) as f64 * 1024.0 / 1e6
}

/// What else the machine did meanwhile.
struct Busy {
    started: Instant,
    all_before: Duration,
    own_before: Duration,
}

impl Busy {
    fn start() -> Self {
        Self { started: Instant::now(), all_before: machine_cpu(), own_before: own_cpu() }
    }

    /// Cores that neither this process nor Redis used, on average.
    fn others_cores(&self, redis: Duration) -> f64 {
        let all = machine_cpu().saturating_sub(self.all_before);
        let ours = own_cpu().saturating_sub(self.own_before) + redis;
        all.saturating_sub(ours).as_secs_f64() / self.started.elapsed().as_secs_f64()
    }
}

/// Busy time of all cores since the machine started: user, nice, system, interrupts, in hundredths of a second.
fn machine_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|n| fields.get(*n)).sum();
    Duration::from_millis(busy * 10)
}

fn report(output: Output, figures: &Figures) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(figures).map_err(|error| Failure::new(error.to_string()))?;
    if output == Output::Json {
        print::line(&text);
    } else {
        let f = figures;
        print::table(
            ["", "NATIVE", "SANDBOX"],
            [
                ["jobs/s".into(), format!("{:.0}", f.native_jobs_per_s), format!("{:.0}", f.wasm_jobs_per_s)],
                ["host us/job".into(), format!("{:.1}", f.native_host_us_per_job), format!("{:.1}", f.host_us_per_job)],
                [
                    "Redis us/job".into(),
                    format!("{:.1}", f.native_redis_us_per_job),
                    format!("{:.1}", f.redis_us_per_job),
                ],
            ],
        );
        print::line(&format!("enqueue, bulk of {BULK}    {:.0} jobs/s", f.enqueue_jobs_per_s));
        print::line(&format!(
            "latency at {LATENCY_RATE}/s       p50 {:.3} ms, p99 {:.3} ms to the start of a native handler",
            f.latency_ms_p50, f.latency_ms_p99
        ));
        print::line(&format!(
            "                       p50 {:.3} ms, p99 {:.3} ms to the end of a sandbox",
            f.wasm_latency_ms_p50, f.wasm_latency_ms_p99
        ));
        if let Some(idle) = &f.idle {
            print::line(&format!(
                "idle, {IDLE_QUEUES} queues         {:.2} commands/s, {:.2} % CPU, {:.1} MB PSS",
                idle.commands_per_s, idle.cpu_percent, idle.pss_mb
            ));
        }
        print::line(&format!("others on this machine  {:.2} cores", f.others_cores));
    }
    let path = Path::new(FIGURES);
    if Path::new("Cargo.toml").is_file() {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::fs::write(path, text + "\n")?;
        print::note(&format!("written to {FIGURES}"));
    }
    Ok(())
}
