//! What a fresh sandbox per job costs: `cargo bench --bench sandbox`.
//!
//! Builds its guests itself, prints a table, and writes the same figures to `target/bench/sandbox.json`. The variants
//! take turns in short rounds, so that a noisy neighbour meets all of them. A job is everything from the call to its
//! outcome: limits, WASI, instance, `run`, result, and dropping all of it.
//!
//! Compared are the engine's own settings with the same guest: on-demand allocation, and its pool with default knobs,
//! both in the fewest lines that an embedder would write, without limits and log.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a benchmark is a program of its own")]
#![allow(clippy::print_stdout, reason = "its table is its result")]

#[path = "../../tests/it/support/guests.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use more of it")]
mod guests;

use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::ports::{JobSink, Level};
use wasmhost::sandbox::{Call, Hardening, Options, Sandbox, Script};
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

mod calls;

mod contract {
    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "jumpscript",
        exports: { default: async },
    });
}

/// Rounds that the variants take in turn.
const ROUNDS: usize = 20;
/// Jobs of one variant in one round.
const JOBS: usize = 500;
/// What every job is given.
const PAYLOAD: &[u8] = br#"{"n":1}"#;
/// Instances that wait at once in the last measurement.
const SUSPENDED: usize = 10_000;

/// One way to run the job.
struct Variant {
    key: &'static str,
    what: &'static str,
    run: Box<dyn FnMut() -> Pin<Box<dyn Future<Output = ()>>>>,
    micros: Vec<f64>,
}

impl Variant {
    fn new<F: Future<Output = ()> + 'static>(
        key: &'static str,
        what: &'static str,
        mut run: impl FnMut() -> F + 'static,
    ) -> Self {
        Self { key, what, run: Box::new(move || Box::pin(run())), micros: Vec::with_capacity(ROUNDS * JOBS) }
    }

    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.micros.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "thousands of samples")]
        let index = (sorted.len() as f64 * share) as usize;
        sorted[index.min(sorted.len() - 1)]
    }
}

fn main() {
    // `cargo test --benches` runs it too, to see that it still works.
    let is_test = std::env::args().any(|arg| arg == "--test");
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let rounds = if is_test { 1 } else { ROUNDS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut figures = serde_json::Map::new();
    runtime.block_on(async {
        let mut variants = variants().await;
        // `cargo bench --bench sandbox -- component` runs one variant, for a profiler.
        if let Some(wanted) = &only {
            variants.retain(|variant| variant.key == wanted);
        }
        for round in 0..=rounds {
            for variant in &mut variants {
                for _ in 0..JOBS {
                    let job = (variant.run)();
                    let start = Instant::now();
                    job.await;
                    let took = start.elapsed();
                    // The first round warms caches and pools.
                    if round > 0 {
                        variant.micros.push(took.as_secs_f64() * 1e6);
                    }
                }
            }
        }
        print_table(&variants, &mut figures);
        if only.is_none() {
            calls::measure(if is_test { 20 } else { 2_000 }, &mut figures).await;
        }
    });
    drop(runtime);
    if is_test || only.is_some() {
        return;
    }
    suspend(&mut figures);
    let path = guests::root().join("target/bench");
    fs::create_dir_all(&path).unwrap();
    let path = path.join("sandbox.json");
    fs::write(&path, serde_json::to_string_pretty(&figures).unwrap() + "\n").unwrap();
    println!("\nwritten to target/bench/sandbox.json");
}

async fn variants() -> Vec<Variant> {
    let default = sandbox(Hardening::Default);
    let strict = sandbox(Hardening::Strict);
    let echo = guests::wasm("echo");
    let mut pool = Config::new();
    pool.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::new()));
    vec![
        ours("component", "Rust component, fresh instance per job", &default, "echo"),
        ours("component_strict", "the same, hardening = strict", &strict, "echo"),
        ours("command", "WASI preview 1 command, fresh instance per job", &default, "command-preview1"),
        ours("command_preview2", "WASI 0.2 command, fresh instance per job", &default, "command"),
        reused(&echo).await,
        plain("default_pooling", "wasmtime's pool with default knobs", &pool, &echo),
        plain("on_demand", "wasmtime's default, on-demand allocation", &Config::new(), &echo),
    ]
}

fn sandbox(hardening: Hardening) -> Sandbox {
    Sandbox::new(Options { pool_size: 100, hardening, ..Options::default() }).unwrap()
}

fn load(sandbox: &Sandbox, guest: &str) -> Arc<Script> {
    let wasm = guests::wasm(guest);
    sandbox.load(Digest::of(&wasm), &wasm).unwrap()
}

/// The product's own way.
fn ours(key: &'static str, what: &'static str, sandbox: &Sandbox, guest: &str) -> Variant {
    let script = load(sandbox, guest);
    let sandbox = sandbox.clone();
    Variant::new(key, what, move || {
        let (sandbox, script) = (sandbox.clone(), Arc::clone(&script));
        async move {
            let finished = sandbox.run(&script, Call::new(PAYLOAD)).await;
            assert!(matches!(finished.outcome, Outcome::Done { .. }), "{finished:?}");
        }
    })
}

/// The store of a plain embedder.
struct Plain {
    context: WasiCtx,
    resources: ResourceTable,
}

impl Plain {
    fn store(engine: &Engine) -> Store<Self> {
        Store::new(engine, Self { context: WasiCtxBuilder::new().build(), resources: ResourceTable::new() })
    }
}

impl WasiView for Plain {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.resources }
    }
}

impl contract::wasmhost::jumpscript::types::Host for Plain {}

impl contract::wasmhost::jumpscript::progress::Host for Plain {
    fn report(&mut self, _: u8, _: String) {}
}

impl contract::wasi::logging::logging::Host for Plain {
    fn log(&mut self, _: contract::wasi::logging::logging::Level, _: String, _: String) {}
}

fn pre(config: &Config, wasm: &[u8]) -> (Engine, contract::JumpscriptPre<Plain>) {
    let engine = Engine::new(config).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    // What the guest imports.
    contract::wasmhost::jumpscript::types::add_to_linker::<Plain, HasSelf<Plain>>(&mut linker, |state| state).unwrap();
    contract::wasmhost::jumpscript::progress::add_to_linker::<Plain, HasSelf<Plain>>(&mut linker, |state| state)
        .unwrap();
    contract::wasi::logging::logging::add_to_linker::<Plain, HasSelf<Plain>>(&mut linker, |state| state).unwrap();
    let component = Component::from_binary(&engine, wasm).unwrap();
    let pre = contract::JumpscriptPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();
    (engine, pre)
}

fn job() -> contract::wasmhost::jumpscript::types::Job {
    contract::wasmhost::jumpscript::types::Job {
        id: String::new(),
        queue: String::new(),
        job_type: String::new(),
        node: String::new(),
        attempt: 1,
        max_attempts: 1,
        deadline_ms: 0,
        enqueued_at_ms: 0,
        content_type: String::new(),
        payload: PAYLOAD.to_vec(),
        metadata: Vec::new(),
    }
}

/// A fresh instance with somebody else's settings.
fn plain(key: &'static str, what: &'static str, config: &Config, wasm: &[u8]) -> Variant {
    let (engine, pre) = pre(config, wasm);
    let pre = Arc::new(pre);
    Variant::new(key, what, move || {
        let (engine, pre) = (engine.clone(), Arc::clone(&pre));
        async move {
            let mut store = Plain::store(&engine);
            let instance = pre.instantiate_async(&mut store).await.unwrap();
            assert_eq!(instance.call_run(&mut store, &job()).await.unwrap().unwrap(), PAYLOAD);
        }
    })
}

/// One instance for all jobs: what isolation is measured against.
async fn reused(wasm: &[u8]) -> Variant {
    let (engine, pre) = pre(&Config::new(), wasm);
    let mut store = Plain::store(&engine);
    let instance = pre.instantiate_async(&mut store).await.unwrap();
    let shared = Arc::new(tokio::sync::Mutex::new((store, instance)));
    Variant::new("reused", "one instance for all jobs, no isolation", move || {
        let shared = Arc::clone(&shared);
        async move {
            let (store, instance) = &mut *shared.lock().await;
            assert_eq!(instance.call_run(store, &job()).await.unwrap().unwrap(), PAYLOAD);
        }
    })
}

fn print_table(variants: &[Variant], figures: &mut serde_json::Map<String, serde_json::Value>) {
    let ours = variants[0].percentile(0.5);
    println!("{:<50} {:>9} {:>9} {:>9}", "", "p50 µs", "p99 µs", "× ours");
    for variant in variants {
        let (p50, p99) = (variant.percentile(0.5), variant.percentile(0.99));
        println!("{:<50} {p50:>9.2} {p99:>9.2} {:>9.2}", variant.what, p50 / ours);
        figures.insert(format!("{}_p50_us", variant.key), rounded(p50));
        figures.insert(format!("{}_p99_us", variant.key), rounded(p99));
    }
}

fn rounded(figure: f64) -> serde_json::Value {
    ((figure * 100.0).round() / 100.0).into()
}

/// Counts the guests that said that they will sleep now.
#[derive(Default)]
struct Asleep(AtomicUsize);

impl JobSink for Asleep {
    fn log(&self, _: Level, _: &str, _: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn progress(&self, _: u8, _: &str) {}
}

/// How much memory ten thousand waiting jobs take, the pool included.
fn suspend(figures: &mut serde_json::Map<String, serde_json::Value>) {
    let before = resident_mb();
    let sandbox = Sandbox::new(Options { pool_size: SUSPENDED, ..Options::default() }).unwrap();
    if sandbox.pool_size() < SUSPENDED {
        println!("\n{SUSPENDED} suspended instances: refused here; {}", sandbox.notes().join("; "));
        return;
    }
    let script = load(&sandbox, "wait");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mb = runtime.block_on(async {
        let asleep = Arc::new(Asleep::default());
        let call = || Call { sink: asleep.clone(), timeout: Duration::from_secs(600), ..Call::new("") };
        let mut jobs: FuturesUnordered<_> = (0..SUSPENDED).map(|_| sandbox.run(&script, call())).collect();
        let start = Instant::now();
        while asleep.0.load(Ordering::Relaxed) < SUSPENDED {
            assert!(start.elapsed() < Duration::from_secs(120), "the guests do not fall asleep");
            // Polls whoever is not asleep yet; none ends.
            let woken = tokio::time::timeout(Duration::from_millis(10), jobs.next()).await;
            assert!(woken.is_err(), "a guest ended instead of sleeping: {woken:?}");
        }
        resident_mb() - before
    });
    println!("\n{SUSPENDED} suspended instances take {mb:.0} MB, the pool included");
    figures.insert("suspended_10000_mb".to_owned(), rounded(mb));
}

/// Memory of this process that is in RAM, in MB.
#[expect(clippy::cast_precision_loss, reason = "megabytes")]
fn resident_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib as f64 * 1024.0 / 1e6
}
