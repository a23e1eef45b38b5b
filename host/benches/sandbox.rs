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

mod calls;
mod turns;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use wasmhost::jumpscript::Digest;
use wasmhost::ports::{JobSink, Level};
use wasmhost::sandbox::{Call, Hardening, Options, Sandbox, Script};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use turns::{Plain, ROUNDS, Variant, answers, rounded, take_turns};

/// Instances that wait at once in the last measurement.
const SUSPENDED: usize = 10_000;

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
            variants.retain(|variant| variant.key == *wanted);
        }
        take_turns(&mut variants, rounds).await;
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
    turns::write(&figures, "sandbox.json");
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

/// Our own way.
fn ours(key: &str, what: &str, sandbox: &Sandbox, guest: &str) -> Variant {
    Variant::ours(key, what, sandbox, &load(sandbox, guest))
}

/// A fresh instance with somebody else's settings.
fn plain(key: &str, what: &str, config: &Config, wasm: &[u8]) -> Variant {
    Variant::plain(key, what, &Engine::new(config).unwrap(), wasm)
}

/// One instance for all jobs: what isolation is measured against.
async fn reused(wasm: &[u8]) -> Variant {
    let engine = Engine::new(&Config::new()).unwrap();
    let pre = Plain::pre(&engine, wasm);
    let mut store = Plain::store(&engine);
    let instance = pre.instantiate_async(&mut store).await.unwrap();
    let shared = Arc::new(tokio::sync::Mutex::new((store, instance)));
    Variant::new("reused", "one instance for all jobs, no isolation", move || {
        let shared = Arc::clone(&shared);
        async move {
            let (store, instance) = &mut *shared.lock().await;
            answers(instance, store).await;
        }
    })
}

fn print_table(variants: &[Variant], figures: &mut serde_json::Map<String, serde_json::Value>) {
    let ours = variants[0].tell(figures).0;
    println!("{:<50} {:>9} {:>9} {:>9}", "", "p50 µs", "p99 µs", "× ours");
    for variant in variants {
        let (p50, p99) = variant.tell(figures);
        println!("{:<50} {p50:>9.2} {p99:>9.2} {:>9.2}", variant.what, p50 / ours);
    }
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
