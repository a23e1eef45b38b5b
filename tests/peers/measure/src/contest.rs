//! One turn of one entrant: a drain and a latency run, or for wasmhost the same two by its own `bench`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Process, pause};
use crate::redis::Redis;
use crate::{Error, Size};

/// Jobs that run at once, the same for all.
const CONCURRENCY: &str = "64";
/// Jobs a second while latency is measured.
const LATENCY_RATE: u64 = 500;
/// Jobs of other queues that a peer has enqueued and drained before its turn counts, at most as many as count. Enough
/// for a JIT compiler; `wasmhost bench` warms up on as many.
const WARM_UP: u64 = 5_000;
/// A worker that is to be idle when the first job comes gets this long after it has connected.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs a program that does not listen to its standard input, and ends it with that input: no program outlives this one.
const WATCHED: &str = r#"exec 3<&0
"$@" </dev/null 3<&- &
program=$!
( read -r _ <&3; kill -TERM "$program" ) >/dev/null 2>&1 &
watcher=$!
wait "$program"; status=$?
kill "$watcher"
exit "$status""#;

/// What takes part.
#[derive(Clone, Copy, Debug)]
pub struct Entrant {
    /// Its name in the table.
    pub name: &'static str,
    /// How it is run.
    pub program: Program,
    /// Jobs of a drain beyond which it fails.
    pub jobs_max: Option<u64>,
}

/// How an entrant is run.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// `wasmhost bench`.
    Ours,
    /// A program of this workspace.
    Rust(&'static str),
    /// A script beside this workspace, run by Node.js.
    Node(&'static str),
}

/// Figures of one turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub enqueue_per_s: f64,
    pub drain_per_s: f64,
    pub host_us_per_job: f64,
    pub redis_us_per_job: f64,
    pub latency_ms_p50: f64,
    pub latency_ms_p99: f64,
}

impl Entrant {
    /// Whether it is wasmhost.
    pub const fn is_ours(&self) -> bool {
        matches!(self.program, Program::Ours)
    }

    fn command(&self) -> Result<Command, Error> {
        let root = std::env::current_dir()?;
        Ok(match self.program {
            Program::Ours => {
                let mut shell = Command::new("sh");
                shell.args(["-c", WATCHED, "sh"]).arg(root.join("target/release/wasmhost"));
                shell
            }
            Program::Rust(name) => Command::new(root.join("target/peers/release").join(name)),
            Program::Node(name) => {
                let mut node = Command::new("node");
                node.arg(root.join("tests/peers/node").join(name));
                node.env("NODE_PATH", root.join("target/peers/node/node_modules")).env("NODE_ENV", "production");
                node
            }
        })
    }
}

/// What the turns have in common.
#[derive(Clone, Copy, Debug)]
pub struct Contest<'a> {
    pub redis: &'a Redis,
    pub size: Size,
}

impl Contest<'_> {
    /// One turn: one row for a peer, two for wasmhost.
    pub fn measure(&self, entrant: &Entrant) -> Result<Vec<(&'static str, Turn)>, Error> {
        if entrant.is_ours() {
            return self.measure_ours(entrant);
        }
        let n = entrant.jobs_max.map_or(self.size.jobs, |most| most.min(self.size.jobs));
        let filled = self.fill(entrant, n)?;
        let (elapsed, host, redis) = self.drain(entrant, n)?;
        let (latency_ms_p50, latency_ms_p99) = self.latency(entrant)?;
        let turn = Turn {
            enqueue_per_s: n as f64 / filled.as_secs_f64(),
            drain_per_s: n as f64 / elapsed.as_secs_f64(),
            host_us_per_job: micros_per(n, host),
            redis_us_per_job: micros_per(n, redis),
            latency_ms_p50,
            latency_ms_p99,
        };
        Ok(vec![(entrant.name, turn)])
    }

    /// How long the enqueue calls for `n` jobs took.
    fn fill(&self, entrant: &Entrant, n: u64) -> Result<Duration, Error> {
        let said = self.start(entrant, "fill", n, n.min(WARM_UP))?.finish()?;
        let micros = said.lines().find_map(|line| line.strip_prefix("filled "));
        Ok(Duration::from_micros(micros.ok_or("it did not say how long it filled")?.parse()?))
    }

    /// From the word to start until the worker says that Redis has confirmed the end of the last job: the time, and
    /// the CPU time of the worker and of Redis.
    fn drain(&self, entrant: &Entrant, n: u64) -> Result<(Duration, Duration, Duration), Error> {
        let mut worker = self.start(entrant, "drain", n, n.min(WARM_UP))?;
        worker.expect("ready")?;
        let (before, started) = (self.redis.cpu()?, Instant::now());
        worker.go()?;
        let host = Duration::from_micros(worker.expect("done")?.parse()?);
        Ok((started.elapsed(), host, self.redis.cpu()?.saturating_sub(before)))
    }

    /// p50 and p99, in milliseconds, from before the enqueue call to the start of the handler.
    fn latency(&self, entrant: &Entrant) -> Result<(f64, f64), Error> {
        let n = (self.size.seconds + 1) * LATENCY_RATE;
        let worker = self.start(entrant, "serve", n, 0)?;
        worker.expect("ready")?;
        pause(SETTLE);
        self.start(entrant, "send", n, LATENCY_RATE)?.finish()?;
        let waits: Vec<f64> = serde_json::from_str(&worker.expect("done")?)?;
        // As in `wasmhost bench`: the first second is for warming up.
        let mut waits = waits.get(usize::try_from(LATENCY_RATE)?..).unwrap_or_default().to_vec();
        waits.sort_by(f64::total_cmp);
        let at = |percent: usize| waits.get((waits.len() * percent / 100).min(waits.len().saturating_sub(1))).copied();
        Ok((at(50).ok_or("no job came")?, at(99).ok_or("no job came")?))
    }

    fn start(&self, entrant: &Entrant, role: &str, n: u64, extra: u64) -> Result<Process, Error> {
        let mut command = entrant.command()?;
        // A queue for each use: what one leaves behind is nothing to the next.
        let queue = if matches!(role, "fill" | "drain") { "drain" } else { "latency" };
        command.args([role, &self.redis.port().to_string(), queue, &n.to_string(), &extra.to_string()]);
        Process::start(command.current_dir(self.redis.folder()))
    }

    /// `wasmhost bench` on the same Redis; it warms up and measures as [`Self::fill`], [`Self::drain`] and
    /// [`Self::latency`] do. Both rows are filled by the same code, which is measured before the native drain.
    fn measure_ours(&self, entrant: &Entrant) -> Result<Vec<(&'static str, Turn)>, Error> {
        let script = Path::new("target/scripts/echo.wasm").canonicalize()?;
        let mut command = entrant.command()?;
        command
            .args(["bench", "--output", "json", "--rounds", "1", "--brief", "--concurrency", CONCURRENCY])
            .args(["--redis", &format!("redis://127.0.0.1:{}", self.redis.port())])
            .args(["--jobs", &self.size.jobs.to_string(), "--seconds", &self.size.seconds.to_string(), "--script"])
            .arg(script)
            // Not in the repository: there it would write its own figures.
            .current_dir(self.redis.folder())
            .stderr(Stdio::null());
        let said = Process::start(&mut command)?.finish().map_err(|error| format!("wasmhost bench: {error}"))?;
        let figures: Value = serde_json::from_str(&said)?;
        let of = |name: &str| {
            figures.get(name).and_then(Value::as_f64).ok_or_else(|| format!("`wasmhost bench` has no figure `{name}`"))
        };
        let enqueue_per_s = of("enqueue_jobs_per_s")?;
        let native = Turn {
            enqueue_per_s,
            drain_per_s: of("native_jobs_per_s")?,
            host_us_per_job: of("native_host_us_per_job")?,
            redis_us_per_job: of("native_redis_us_per_job")?,
            latency_ms_p50: of("latency_ms_p50")?,
            latency_ms_p99: of("latency_ms_p99")?,
        };
        let sandbox = Turn {
            enqueue_per_s,
            drain_per_s: of("wasm_jobs_per_s")?,
            host_us_per_job: of("host_us_per_job")?,
            redis_us_per_job: of("redis_us_per_job")?,
            latency_ms_p50: of("wasm_latency_ms_p50")?,
            latency_ms_p99: of("wasm_latency_ms_p99")?,
        };
        Ok(vec![("wasmhost-native", native), ("wasmhost-sandbox", sandbox)])
    }
}

fn micros_per(n: u64, time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / n as f64
}
