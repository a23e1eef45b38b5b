//! The HTTP server: health, metrics and the job API, for programs that are not on this machine or speak no Redis.
//!
//! It has a thread, a runtime and a connection to Redis of its own, so that no load of requests delays a lease or a
//! heartbeat, and no guest delays an answer.
//!
//! Invariant: everything that a stranger can make grow has a limit (below): connections, heads, bodies, waits, streams.
//! Invariant: a request changes something only with POST, JSON and, where a token is set, the token. What jobs say goes
//! out as JSON text with `nosniff`, never as a page.
//!
//! Next: `http/routes.rs` for what is served, `http/auth.rs` for who may ask, `docs/http.md` for people.

mod answer;
mod app;
mod auth;
mod body;
mod connection;
mod ended;
mod events;
mod jobs;
mod openapi;
mod probes;
mod routes;
mod scrape;
mod submit;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

pub use self::openapi::openapi_json;

use self::app::App;
use crate::config::Secret;
use crate::job::StoreId;
use crate::metrics::WorkerMetrics;
use crate::node::Board;
use crate::ports::Pulse;
use crate::shutdown;
use crate::signatures::Gate;
use crate::store::{self, Store};

/// Most connections at once, also no more than half the files that the process may open; further ones are closed.
pub const CONNECTIONS_MAX: usize = 4096;
/// Longest wait for the head of a request, the pause before it included.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most header fields of a request.
pub const HEADERS_MAX: usize = 64;
/// Largest body of a request in bytes: a payload of 8 MiB in base64, and more.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of all bodies that are being read and answers that are being written.
pub const BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Longest time for the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take nothing of an answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most requests that wait for the end of a job.
pub const WAITS_MAX: usize = 1000;
/// Most streams of events.
pub const STREAMS_MAX: usize = 256;
/// How long a request waits for the end of a job when it says nothing.
pub const WAIT: Duration = Duration::from_secs(30);
/// Longest time that it may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(300);
/// Longest life of a stream of events.
pub const STREAM_LIFE: Duration = Duration::from_secs(900);
/// Most jobs of one request.
pub const BULK_MAX: usize = 1000;
/// Longest time in which Redis must have answered what a request asks.
pub const REDIS_TIMEOUT: Duration = Duration::from_millis(1800);
/// Wrong tokens of one peer that are answered at once; then one a second.
pub const WRONG_TOKENS_MAX: u32 = 20;
/// How old numbers of the queues may be.
pub const SCRAPE_AGE_MAX: Duration = Duration::from_secs(1);
/// How long the loop of the worker may be silent before the process counts as dead.
pub const LOOP_SILENCE_MAX: Duration = Duration::from_secs(60);
/// A stream says at least so often that it is alive.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(15);
/// How often a job that is waited for is looked at when nobody says that it has ended.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// Larger bodies are read beside the thread of the server.
const PARSED_HERE_BYTES_MAX: usize = 256 * 1024;
/// Longest wait for an answer of Redis to one command.
const COMMAND_TIMEOUT_MAX: Duration = Duration::from_millis(1500);
/// How long connections may go on after a stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// Files that the server asks the system for, where it may.
const FILES_WANTED: u64 = 65_536;

/// What the server tells of the host.
pub struct Facts {
    /// The name of the node.
    pub node: String,
    /// What the node's services know.
    pub board: Board,
    /// What the worker counts.
    pub worker: Arc<WorkerMetrics>,
    /// The pulse of the worker's loop.
    pub pulse: Arc<Pulse>,
    /// How many attempts run now.
    pub running: Box<dyn Fn() -> usize + Send + Sync>,
    /// What decides on code, and counts what it refuses.
    pub signatures: Arc<Gate>,
    /// Sandboxes that can exist at once.
    pub pool_size: usize,
    /// Turns true when the host takes no more jobs.
    pub stopping: watch::Receiver<bool>,
}

/// What a server is made of.
pub struct Params {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What requests must bring; on loopback they may bring nothing.
    pub token: Option<Secret>,
    /// Paths that need no token.
    pub open: Vec<String>,
    /// The host's Redis.
    pub redis: store::Options,
    /// What it tells of the host.
    pub facts: Facts,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Server {
    /// Listens, connects to Redis and starts its thread.
    ///
    /// # Errors
    /// A sentence when the address cannot be had, the system gives no thread, or Redis cannot be used.
    pub async fn start(params: Params) -> Result<Self, String> {
        let asked = params.listen;
        let no_listener = |error: std::io::Error| {
            format!(
                "cannot listen for HTTP on {asked}: {error}\nhint: name another address with --http, or stop what listens there"
            )
        };
        let listener = std::net::TcpListener::bind(asked).map_err(no_listener)?;
        listener.set_nonblocking(true).map_err(no_listener)?;
        let address = listener.local_addr().map_err(no_listener)?;
        let connections_max = connections_max();
        let (stop, stopped) = watch::channel(false);
        let (tell_ready, ready) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                // The receiver waits for either word; it is gone only when the start was given up.
                Err(error) => return drop(tell_ready.send(Err(error.to_string()))),
            };
            runtime.block_on(async {
                let started = async {
                    let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
                    let store = Store::connect(StoreId::default(), &impatient(&params.redis)).await;
                    let store = store.map_err(|error| error.to_string())?;
                    Ok((listener, App::new(store, params)))
                };
                match started.await {
                    Ok((listener, app)) => {
                        let _told = tell_ready.send(Ok(()));
                        connection::serve(listener, Arc::new(app), connections_max, stopped).await;
                    }
                    Err(text) => drop(tell_ready.send(Err(text))),
                }
            });
            runtime.shutdown_background();
            let _told = tell_ended.send(());
        };
        std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(run)
            .map_err(|error| format!("cannot start the thread for HTTP: {error}"))?;
        match ready.await {
            Ok(Ok(())) => Ok(Self { address, stop, ended }),
            Ok(Err(text)) => Err(format!("HTTP cannot be served: {text}")),
            Err(_) => Err("the thread for HTTP ended at its start; this is a bug, please report it".to_owned()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until `shutdown` turns true, then stops it; returns earlier only when its thread has ended by itself.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = shutdown::requested(&mut shutdown) => {}
            _ = &mut self.ended => return,
        }
        self.stop.send_replace(true);
        // Whether it said so or just ended: it is over.
        let _either = self.ended.await.is_ok();
    }
}

/// How the server reaches Redis. A command is given up before the request that waits for it is: a connection that died
/// without a word is found out by that.
fn impatient(redis: &store::Options) -> store::Options {
    store::Options { command_timeout: redis.command_timeout.min(COMMAND_TIMEOUT_MAX), ..redis.clone() }
}

/// How many connections there is room for, once the process may open as many files as the system lets it.
fn connections_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    let current = limit.current.unwrap_or(FILES_WANTED);
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    let files = if current < most && setrlimit(Resource::Nofile, raised).is_ok() { most } else { current };
    usize::try_from(files / 2).unwrap_or(CONNECTIONS_MAX).clamp(1, CONNECTIONS_MAX)
}
