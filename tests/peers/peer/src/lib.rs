//! What every peer written in Rust says to the measurement, and hears from it.
//!
//! A peer program is started as `PROGRAM ROLE PORT QUEUE N [EXTRA]`. The roles:
//!
//! - `fill`: connect, warm up by enqueuing EXTRA jobs into a queue of its own, enqueue N no-op jobs, 500 a call, say
//!   `filled` with the microseconds of these calls, and end.
//! - `drain`: warm up on EXTRA jobs of a queue of its own, connect, say `ready`, wait for a line, work until N jobs
//!   are settled in Redis, say `done` with the CPU time used since that line.
//! - `serve`: connect, start to work, say `ready`; after N jobs say `done` with what each waited, in milliseconds.
//! - `send`: enqueue N jobs one by one, EXTRA a second, each with its time as payload.
//!
//! Next: the two programs that use it, `../bullmq-rust` and `../apalis`.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// Jobs of one enqueue call.
pub const BULK: u64 = 500;
/// Most jobs that run at once.
pub const CONCURRENCY: usize = 64;

/// Any failure ends the program with its text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The command line.
#[derive(Clone, Debug)]
pub struct Args {
    /// What to do.
    pub role: String,
    /// Where Redis is.
    pub url: String,
    /// The queue.
    pub queue: String,
    /// How many jobs.
    pub n: u64,
    /// Warm-up jobs of `fill` and `drain`, jobs a second of `send`.
    pub extra: u64,
    /// The word to start.
    pub go: Go,
}

impl Args {
    /// Reads the command line, and listens to the measurement from now on.
    ///
    /// # Errors
    /// When it is not as the head of this file says.
    pub fn read() -> Result<Self, Error> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [role, port, queue, n, extra @ ..] = words.as_slice() else {
            return Err("usage: ROLE PORT QUEUE N [EXTRA]".into());
        };
        Ok(Self {
            role: role.clone(),
            url: format!("redis://127.0.0.1:{}", port.parse::<u16>()?),
            queue: queue.clone(),
            n: n.parse()?,
            extra: extra.first().map_or(Ok(0), |extra| extra.parse())?,
            go: Go::listen(),
        })
    }

    /// What this role warms up on: a queue of its own.
    #[must_use]
    pub fn warm_up(&self) -> Self {
        Self { queue: format!("{}-{}-warm-up", self.queue, self.role), n: self.extra, ..self.clone() }
    }
}

/// Nanoseconds of a clock that all processes of the machine share.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}

/// CPU time of this process, all threads.
#[must_use]
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Tells the measurement how long the enqueue calls of `fill` took.
pub fn say_filled(took: Duration) {
    println!("filled {}", took.as_micros());
}

/// Tells the measurement that this worker is connected.
pub fn say_ready() {
    println!("ready");
}

/// The measurement's word to start: a line on standard input.
#[derive(Clone, Debug)]
pub struct Go(Arc<Notify>);

impl Go {
    /// Listens from now on. The end of standard input is the end of the measurement, and ends this process.
    fn listen() -> Self {
        let go = Arc::new(Notify::new());
        let heard = Arc::clone(&go);
        std::thread::spawn(move || {
            let mut line = String::new();
            while std::io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                heard.notify_one();
            }
            std::process::exit(1)
        });
        Self(go)
    }

    /// Waits for the word.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// Tells the measurement that all jobs are settled, and what this process computed since `before`.
pub fn say_drained(before: Duration) {
    println!("done {}", (cpu() - before).as_micros());
}

/// Calls `send` at a steady rate with the time just before the call.
///
/// # Errors
/// What `send` fails with.
pub async fn send<F: Future<Output = Result<(), Error>>>(
    args: &Args,
    mut send: impl FnMut(u64) -> F,
) -> Result<(), Error> {
    let rate = u32::try_from(args.extra.max(1))?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..args.n {
        pace.tick().await;
        send(now_ns()).await?;
    }
    Ok(())
}

/// Gathers how long the jobs waited.
#[derive(Debug)]
pub struct Waits {
    until: usize,
    ms: Mutex<Vec<f64>>,
    all: Notify,
}

impl Waits {
    /// Until `n` jobs have started.
    ///
    /// # Errors
    /// When this machine cannot count to `n`.
    pub fn new(n: u64) -> Result<Self, Error> {
        Ok(Self { until: usize::try_from(n)?, ms: Mutex::default(), all: Notify::new() })
    }

    /// A job that was sent at `sent_ns` has started.
    pub fn add(&self, sent_ns: u64) {
        let waited = Duration::from_nanos(now_ns().saturating_sub(sent_ns));
        let mut ms = self.ms.lock().unwrap_or_else(PoisonError::into_inner);
        ms.push(waited.as_secs_f64() * 1e3);
        if ms.len() == self.until {
            self.all.notify_one();
        }
    }

    /// Waits for the last job and tells the measurement.
    ///
    /// # Errors
    /// None that can happen with numbers.
    pub async fn say_all(&self) -> Result<(), Error> {
        self.all.notified().await;
        let ms = self.ms.lock().unwrap_or_else(PoisonError::into_inner);
        println!("done {}", serde_json::to_string(&*ms)?);
        Ok(())
    }
}
