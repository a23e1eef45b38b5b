//! `wasmhost bench`: what this machine does, measured with a private Redis, or with the one that `--redis` names.
//!
//! What is compared alternates, so that a neighbour's noise hits both; the medians are printed. Before the first drain
//! of a sort up to 5,000 jobs of another queue are drained, which do not count. The native handler shows what the queue
//! alone costs: it is an executor that nothing but this command uses. Limits by key are measured beside drains without
//! them, jobs of another system beside ours; `--scale` measures queues with a million rows instead, `--http` submitting
//! over HTTP, `--reload` how soon new code is live.

mod adopted;
mod costs;
mod drain;
mod endless;
mod http;
mod idle;
mod latency;
mod limits;
mod machine;
mod reload;
mod report;
mod scale;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use self::adopted::{Adopted, Pair};
use self::costs::Costs;
use self::drain::{Bench, Counted, Drain, Handler, connect, median, native, noop};
use self::idle::Idle;
use self::latency::{Watched, sent_at};
use self::limits::{Limits, Round};
use self::machine::Busy;
use super::exec::read_file;
use super::{Failure, Global, print};
use crate::executor::Executor;
use crate::executor::native::NativeExecutor;
use crate::executor::wasm::WasmExecutor;
use crate::job::Reserved;
use crate::jumpscript::WASM_BYTES_MAX;
use crate::outcome::Outcome;
use crate::store::embedded::Embedded;

/// Arguments of `wasmhost bench`.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Jobs of one drain; before the first of each sort up to 5,000 more warm up and do not count
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
    jobs: u64,
    /// Drains of each sort; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// The no-op jumpscript [default: the shipped `echo` of `make build`]
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Keep Redis's append-only file on (everysec) all the time, not for some drains only
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
    /// Drains and latency only
    #[arg(long)]
    brief: bool,
    /// Measure queues with a million due, scheduled and dead jobs instead; takes minutes and 1 GB of memory
    #[arg(long, conflicts_with_all = ["append_only", "brief"])]
    scale: bool,
    /// Measure submitting over HTTP instead
    #[arg(long, conflicts_with_all = ["append_only", "brief", "scale"])]
    http: bool,
    /// Measure how soon new code is live instead, swaps under load, a warm start, and guests without end
    #[arg(long, conflicts_with_all = ["append_only", "brief", "scale", "http"])]
    reload: bool,
    /// A jumpscript in JavaScript that answers anything, measured beside the other with --reload
    #[arg(long, value_name = "FILE", requires = "reload")]
    javascript: Option<PathBuf>,
    /// Attempts that are stopped at their deadlines with --reload
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "reload", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    time_outs: u32,
    /// Rows of each sort with --scale
    #[arg(long, value_name = "N", default_value_t = 1_000_000, requires = "scale", value_parser = clap::value_parser!(u64).range(50_000..=20_000_000))]
    rows: u64,
}

/// Where the figures go, from the workspace's root.
const FIGURES: &str = "target/bench/queue.json";
/// Waiting jobs whose memory is measured.
const WAITING: u64 = 100_000;

/// What is written to [`FIGURES`]. Units are in the names.
#[derive(Debug, Default, Serialize)]
struct Figures {
    native_jobs_per_s: f64,
    wasm_jobs_per_s: f64,
    native_host_us_per_job: f64,
    host_us_per_job: f64,
    native_redis_us_per_job: f64,
    redis_us_per_job: f64,
    #[serde(flatten)]
    append_only_drains: Option<AppendOnly>,
    latency_ms_p50: f64,
    latency_ms_p99: f64,
    wasm_latency_ms_p50: f64,
    wasm_latency_ms_p99: f64,
    enqueue_jobs_per_s: f64,
    bytes_per_waiting_job: Option<f64>,
    #[serde(flatten)]
    limits: Option<Limits>,
    #[serde(flatten)]
    adopted: Option<Adopted>,
    #[serde(flatten)]
    idle: Option<Idle>,
    /// Where Redis's time goes, by sort of drain.
    redis_costs: BTreeMap<&'static str, Costs>,
    jobs: u64,
    rounds: u32,
    append_only: bool,
    others_cores: f64,
}

/// The same drains with the append-only file on.
#[derive(Debug, Serialize)]
struct AppendOnly {
    native_jobs_per_s_aof: f64,
    wasm_jobs_per_s_aof: f64,
    native_redis_us_per_job_aof: f64,
    redis_us_per_job_aof: f64,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: BenchArgs) -> Result<ExitCode, Failure> {
    let alone = [
        ("--append-only", args.append_only),
        ("--scale", args.scale),
        ("--http", args.http),
        ("--reload", args.reload),
    ];
    if let (Some(_), Some((flag, _))) = (&global.redis, alone.iter().find(|(_, is_given)| *is_given)) {
        return Err(Failure::usage(format!("{flag} changes a private Redis only, and --redis names another"))
            .hint("leave one of them out; the Redis of --redis is measured as it is configured"));
    }
    let data = std::env::temp_dir().join(format!("wasmhost-bench-{}", std::process::id()));
    let wasm = || read_file(&script_file(args.script.as_deref())?, WASM_BYTES_MAX);
    let result = if args.http {
        run_http(&global, &args, &data).await
    } else if args.reload {
        run_reload(&global, &args, &wasm()?, &data).await
    } else if args.scale {
        run_scale(&global, &args, &wasm()?, &data).await
    } else {
        run_queue(&global, &args, &wasm()?, &data).await
    };
    // A folder in the system's temporary files that cannot be removed is the system's to remove.
    let _removed = std::fs::remove_dir_all(&data).is_ok();
    result.map(|()| ExitCode::SUCCESS)
}

async fn run_queue(global: &Global, args: &BenchArgs, wasm: &[u8], data: &Path) -> Result<(), Failure> {
    // A Redis that was named is used as it is; the jobs' rows stay in it for their hour.
    let figures = if let Some(url) = &global.redis {
        measure(args, &bench(args, url).await?, wasm, data, false).await
    } else {
        let embedded = Embedded::start(data).await.map_err(|text| Failure::from_text(&text))?;
        let result = measure_private(args, &embedded.address().url, wasm, data).await;
        embedded.stop().await;
        result
    }?;
    report::queue(global.output, &figures)
}

async fn run_http(global: &Global, args: &BenchArgs, data: &Path) -> Result<(), Failure> {
    let embedded = Embedded::start(data).await.map_err(|text| Failure::from_text(&text))?;
    let result = async { bench(args, &embedded.address().url).await?.http(data, args.jobs, args.rounds).await };
    let result = result.await;
    embedded.stop().await;
    report::http(global.output, &result?)
}

async fn run_reload(global: &Global, args: &BenchArgs, wasm: &[u8], data: &Path) -> Result<(), Failure> {
    let javascript = args.javascript.as_deref().map(|file| read_file(file, WASM_BYTES_MAX)).transpose()?;
    let embedded = Embedded::start(data).await.map_err(|text| Failure::from_text(&text))?;
    let result = async {
        let bench = bench(args, &embedded.address().url).await?;
        bench.reload(data, wasm, javascript.as_deref(), args.time_outs as usize).await
    };
    let result = result.await;
    embedded.stop().await;
    report::reload(global.output, &result?)
}

async fn run_scale(global: &Global, args: &BenchArgs, wasm: &[u8], data: &Path) -> Result<(), Failure> {
    let embedded = Embedded::start(data).await.map_err(|text| Failure::from_text(&text))?;
    let url = embedded.address().url.clone();
    let result = async {
        let bench = bench(args, &url).await?;
        bench.store.set_append_only(false).await?;
        bench.publish(wasm).await?;
        bench.measure_scale(args.rows, args.jobs, args.rounds).await
    };
    let result = result.await;
    embedded.stop().await;
    report::scale(global.output, &result?)
}

async fn bench(args: &BenchArgs, url: &str) -> Result<Bench, Failure> {
    let concurrency = args.concurrency.map_or_else(concurrency, usize::from);
    Ok(Bench { store: connect(url).await?, url: url.to_owned(), concurrency })
}

async fn measure_private(args: &BenchArgs, url: &str, wasm: &[u8], data: &Path) -> Result<Figures, Failure> {
    let bench = bench(args, url).await?;
    bench.store.set_append_only(args.append_only).await?;
    let mut figures = measure(args, &bench, wasm, data, true).await?;
    if !args.append_only && !args.brief {
        print::note("the drains again, with the append-only file");
        let executor = bench.wasm_executor(wasm).await?;
        bench.store.set_append_only(true).await?;
        let (native, sandboxed) = drains(&bench, args, &executor).await?;
        figures.redis_costs.insert("aof", Costs::of(&native));
        figures.append_only_drains = Some(AppendOnly {
            native_jobs_per_s_aof: median(native.iter().map(|drain| drain.jobs_per_s)),
            wasm_jobs_per_s_aof: median(sandboxed.iter().map(|drain| drain.jobs_per_s)),
            native_redis_us_per_job_aof: median(native.iter().map(|drain| drain.redis_us)),
            redis_us_per_job_aof: median(sandboxed.iter().map(|drain| drain.redis_us)),
        });
    }
    Ok(figures)
}

async fn measure(
    args: &BenchArgs,
    bench: &Bench,
    wasm: &[u8],
    data: &Path,
    is_private: bool,
) -> Result<Figures, Failure> {
    let (busy, redis_before) = (Busy::start(), bench.store.server_cpu().await?);
    let executor = bench.wasm_executor(wasm).await?;
    // Memory comes first: other rows would make the server's tables grow meanwhile.
    let bytes_per_waiting_job = if args.brief { None } else { Some(bench.memory().await?) };
    print::note(&format!("draining {} jobs, native and sandboxed in turn, {} rounds", args.jobs, args.rounds));
    let (mut native_drains, mut sandboxed, mut enqueued, mut limited, mut adopted) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    warm_up(bench, args, &executor).await?;
    if !args.brief {
        bench.warm_up_limited(args.jobs).await?;
    }
    for round in 0..args.rounds {
        let (unlimited, enqueue_per_s) = bench.drain(args.jobs, native).await?;
        native_drains.push(unlimited.clone());
        enqueued.push(enqueue_per_s);
        sandboxed.push(bench.drain(args.jobs, |counted| in_sandbox(&executor, counted)).await?.0);
        if !args.brief {
            let limited_drain = bench.drain_limited(args.jobs).await?;
            let pairs = if is_private { bench.drain_pairs(round, args.jobs).await? } else { Vec::new() };
            limited.push(Round { unlimited, limited: limited_drain, pairs });
            // The other system's keys have no prefix of ours: only a private Redis is filled with them.
            if is_private {
                adopted.push(bench.drain_adopted_pair(round, args.jobs, &executor).await?);
            }
        }
    }
    print::note(&format!("latency at {} jobs/s for {} s", latency::RATE, args.seconds));
    let native_latency = bench
        .latency(args.seconds, |waits| {
            Arc::new(NativeExecutor::new(move |job: &Reserved| {
                waits.add(sent_at(job));
                Outcome::Done { result: Vec::new() }
            }))
        })
        .await?;
    let wasm_latency = bench.latency(args.seconds, |waits| Arc::new(Watched { inner: executor, waits })).await?;
    let idle = if args.no_idle || args.brief {
        None
    } else {
        print::note(&format!("an idle host with {} queues", idle::QUEUES));
        Some(bench.idle(data, args.seconds).await?)
    };

    let mut redis_costs = BTreeMap::from([("native", Costs::of(&native_drains)), ("sandbox", Costs::of(&sandboxed))]);
    if !limited.is_empty() {
        redis_costs.insert("limits", Costs::of(limited.iter().map(|round| &round.limited)));
    }
    if !adopted.is_empty() {
        redis_costs.insert("hero", Costs::of(adopted.iter().map(Pair::adopted)));
    }
    let of = |drains: &[Drain], figure: fn(&Drain) -> f64| median(drains.iter().map(figure));
    Ok(Figures {
        native_jobs_per_s: of(&native_drains, |d| d.jobs_per_s),
        wasm_jobs_per_s: of(&sandboxed, |d| d.jobs_per_s),
        native_host_us_per_job: of(&native_drains, |d| d.host_us),
        host_us_per_job: of(&sandboxed, |d| d.host_us),
        native_redis_us_per_job: of(&native_drains, |d| d.redis_us),
        redis_us_per_job: of(&sandboxed, |d| d.redis_us),
        append_only_drains: None,
        latency_ms_p50: native_latency.0,
        latency_ms_p99: native_latency.1,
        wasm_latency_ms_p50: wasm_latency.0,
        wasm_latency_ms_p99: wasm_latency.1,
        enqueue_jobs_per_s: median(enqueued),
        bytes_per_waiting_job,
        limits: (!limited.is_empty()).then(|| Limits::of(&limited)),
        adopted: Adopted::of(&adopted),
        idle,
        redis_costs,
        jobs: args.jobs,
        rounds: args.rounds,
        append_only: args.append_only,
        others_cores: busy.others_cores(bench.store.server_cpu().await?.saturating_sub(redis_before)),
    })
}

/// Drains that do not count, one of each sort.
async fn warm_up(bench: &Bench, args: &BenchArgs, executor: &Arc<WasmExecutor>) -> Result<(), Failure> {
    bench.warm_up(args.jobs, native).await?;
    bench.warm_up(args.jobs, |counted| in_sandbox(executor, counted)).await
}

/// Native and sandboxed drains in turn.
async fn drains(
    bench: &Bench,
    args: &BenchArgs,
    executor: &Arc<WasmExecutor>,
) -> Result<(Vec<Drain>, Vec<Drain>), Failure> {
    warm_up(bench, args, executor).await?;
    let (mut native_drains, mut sandboxed) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        native_drains.push(bench.drain(args.jobs, native).await?.0);
        sandboxed.push(bench.drain(args.jobs, |counted| in_sandbox(executor, counted)).await?.0);
    }
    Ok((native_drains, sandboxed))
}

fn in_sandbox(executor: &Arc<WasmExecutor>, counted: Handler) -> Arc<dyn Executor> {
    Arc::new(Counted { inner: executor.clone(), started: counted })
}

impl Bench {
    /// Bytes of Redis for one waiting no-op job. Draining them is the warm-up of what follows.
    async fn memory(&self) -> Result<f64, Failure> {
        let before = self.store.used_memory().await?;
        self.fill(WAITING, |_| noop("waiting")).await?;
        let used = self.store.used_memory().await?.saturating_sub(before);
        self.drain_all("waiting", WAITING, native).await?;
        #[expect(clippy::cast_precision_loss, reason = "a size in bytes needs no more than 52 bits")]
        Ok(used as f64 / WAITING as f64)
    }
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
