//! What the guest's calls of the host cost: a log line and a progress report, and state on a Redis on this machine.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wasmhost::executor::permits::Permits;
use wasmhost::executor::wasm::{WasmExecutor, WasmOptions};
use wasmhost::executor::{Attempt, Completions, Executor as _};
use wasmhost::job::{NewJob, Reserved, StoreId};
use wasmhost::jumpscript::{Digest, Kind, Manifest, embed_manifest};
use wasmhost::outcome::Outcome;
use wasmhost::permissions::Ceiling;
use wasmhost::ports::{NoSink, PublishRule};
use wasmhost::sandbox::{Call, CancelFlag, Options, Sandbox};
use wasmhost::store::{self, End, NewJumpscript, QueueShare, Reserve, Settle, Settled, Store, new_token};
use wasmhost::supplies::Supplies;

use super::{guests, load, rounded};

/// Calls of one job, to be divided by.
const CALLS: u32 = 400;

/// Measures, prints a table, and adds the figures.
pub(super) async fn measure(jobs: usize, figures: &mut serde_json::Map<String, serde_json::Value>) {
    println!("\n{:<50} {:>9}", "host calls", "p50 µs");
    let mut told = |key: &str, what: &str, us: f64| {
        println!("{what:<50} {us:>9.2}");
        figures.insert(key.to_owned(), rounded(us));
    };
    told("log_and_progress_us", "a log line and a progress report", log_and_progress(jobs / 10).await);
    let Some(redis) = Redis::start() else {
        println!("state: not measured, there is no redis-server");
        return;
    };
    let state = State::new(&redis).await;
    let (bare, without, with) = state.measure(jobs).await;
    told("two_round_trips_us", "a bare HGET and a bare HSET", bare);
    told("attempt_us", "an attempt and its end, without state", without);
    told("attempt_with_state_us", "the same with a get and a set of state", with);
    told("state_us", "the get and the set", with - without);
    let ratio = (with - without) / bare;
    println!("{:<50} {ratio:>9.2}", "the get and the set / the bare round trips");
    figures.insert("state_to_round_trips".to_owned(), rounded(ratio));
}

fn median(mut micros: Vec<f64>) -> f64 {
    micros.sort_by(f64::total_cmp);
    micros[micros.len() / 2]
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// One log line and one report, guest's side included.
async fn log_and_progress(jobs: usize) -> f64 {
    let sandbox = super::sandbox(super::Hardening::Default);
    let script = load(&sandbox, "say");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..jobs.max(10) {
        for (calls, times) in [(0, &mut without), (CALLS, &mut with)] {
            let start = Instant::now();
            let finished = sandbox.run(&script, Call::new(format!("calls {calls}"))).await;
            times.push(micros(start));
            assert!(matches!(finished.outcome, Outcome::Done { .. }), "{finished:?}");
        }
    }
    (median(with) - median(without)) / f64::from(CALLS)
}

/// A private Redis that ends with this.
struct Redis {
    child: Child,
    dir: tempfile::TempDir,
}

impl Redis {
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "16399", "--bind", "127.0.0.1", "--save", "", "--unixsocket"]).arg(&socket);
        let child = command.arg("--dir").arg(dir.path()).stdout(Stdio::null()).spawn().ok()?;
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "redis-server does not start");
            std::thread::yield_now();
        }
        Some(Self { child, dir })
    }

    /// TCP, as most have it.
    fn url(&self) -> String {
        assert!(self.dir.path().exists());
        "redis://127.0.0.1:16399".to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Attempts of the guest `keep`, as a host runs and ends them.
struct State {
    store: Store,
    executor: WasmExecutor,
    completions: Arc<Completions>,
    raw: redis::aio::MultiplexedConnection,
}

impl State {
    async fn new(redis: &Redis) -> Self {
        let options = store::Options { url: redis.url(), ..store::Options::default() };
        let store = Store::connect(StoreId::default(), &options).await.unwrap();
        let manifest = "name = \"keep\"\n[permissions]\nstate = [\"b\"]\n";
        let wasm = embed_manifest(&guests::wasm("keep"), manifest);
        let script = NewJumpscript {
            name: "keep".parse().unwrap(),
            kind: Kind::Component,
            manifest: Manifest::parse(manifest).unwrap(),
        };
        store.publish(&script, &wasm, PublishRule::Always).await.unwrap();
        let sandbox = Sandbox::new(Options { pool_size: 10, ..Options::default() }).unwrap();
        sandbox.load(Digest::of(&wasm), &wasm).unwrap();
        let options = WasmOptions {
            threads: std::num::NonZeroUsize::MIN,
            concurrency: 1,
            memory_bytes_max: 64 << 20,
            node: "bench".to_owned(),
        };
        let (code, state) = (Arc::new(store.clone()), Arc::new(store.clone()));
        let mut ceiling = Ceiling::default();
        ceiling.allow_requested();
        let permits = Permits::new(ceiling, code.clone());
        let supply = Arc::new(Supplies::default());
        let io = Handle::current();
        let executor = WasmExecutor::start_threads(sandbox, code, state, supply, permits, io, options).unwrap();
        let raw = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        Self { store, executor, completions: Completions::new(), raw }
    }

    /// Median times: two bare round trips, an attempt without state, one with a get and a set.
    async fn measure(mut self, jobs: usize) -> (f64, f64, f64) {
        let (mut bare, mut without, mut with) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..jobs + 50 {
            let start = Instant::now();
            let _: Option<String> = redis::cmd("HGET").arg("bare").arg("a").query_async(&mut self.raw).await.unwrap();
            let _: i64 = redis::cmd("HSET").arg("bare").arg("a").arg(n).query_async(&mut self.raw).await.unwrap();
            let two_trips = micros(start);
            let idle = self.attempt("open b").await;
            let busy = self.attempt(&format!("open b\nget a\nset a {n}")).await;
            // The first ones warm caches and connections.
            if n >= 50 {
                bare.push(two_trips);
                without.push(idle);
                with.push(busy);
            }
        }
        (median(bare), median(without), median(with))
    }

    /// The time from the start of an attempt until its end is committed.
    async fn attempt(&self, payload: &str) -> f64 {
        let job = self.take(payload).await;
        let (id, token, digest) = (job.id.clone(), job.token.clone(), job.digest);
        let start = Instant::now();
        self.executor.start(Attempt::new(job, Arc::new(NoSink), CancelFlag::new(), &self.completions));
        let mut ended = Vec::new();
        while ended.is_empty() {
            self.completions.wait().await;
            self.completions.take(&mut ended);
        }
        let end = ended.remove(0);
        let Outcome::Done { result } = end.outcome else { panic!("{:?}", end.outcome) };
        let end = Settle {
            id,
            queue: "q".to_owned(),
            token,
            end: End::Done { result, ttl: Duration::from_secs(10) },
            fields: Vec::new(),
            effects: end.effects,
            digest,
        };
        let turn = self.store.turn(&[end], None).await.unwrap();
        let took = micros(start);
        assert_eq!(turn.settled, [Settled::Applied]);
        took
    }

    async fn take(&self, payload: &str) -> Reserved {
        self.store.enqueue(&[NewJob::new("q", "keep", payload)]).await.unwrap();
        let reserve = Reserve {
            queues: vec![QueueShare { queue: "q".to_owned(), take: 1 }],
            limit: 1,
            lease: Duration::from_secs(60),
            token: new_token(),
            node: String::new(),
            sweep: false,
        };
        self.store.turn(&[], Some(&reserve)).await.unwrap().reserved.jobs.remove(0)
    }
}
