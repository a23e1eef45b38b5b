//! What a node says about itself: heartbeats, sessions, health, and the doctor.

mod doctor;
mod faults;
mod formats;
mod life;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wasmhost::config::Health;
use wasmhost::job::StoreId;
use wasmhost::node::{Board, Loop, Params, State, services};
use wasmhost::ports::Pulse;
use wasmhost::store::{Options, Store};

use crate::support::redis::wait_until;

/// Longest time a test waits for something that takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The services of a node, as a host starts them, with a worker loop that the test beats.
struct Node {
    board: Board,
    pulse: Arc<Pulse>,
    limits: watch::Sender<Health>,
    session: String,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Thresholds that no machine meets by chance, checked often.
fn calm() -> Health {
    Health {
        interval: Duration::from_millis(50),
        disk_bytes_min: 0,
        memory_bytes_min: 0,
        stall: Duration::from_secs(60),
        clock_skew: Duration::from_secs(3600),
    }
}

/// What a test may choose about a node.
struct Plan<'a> {
    options: &'a Options,
    name: &'a str,
    nid: u32,
    queues: &'a [&'a str],
    data: PathBuf,
    limits: Health,
}

impl<'a> Plan<'a> {
    fn new(options: &'a Options, name: &'a str) -> Self {
        let nid = name.bytes().fold(1, |sum, byte| sum * 31 % 1_000_003 + u32::from(byte));
        Self { options, name, nid, queues: &["mail"], data: std::env::temp_dir(), limits: calm() }
    }

    async fn start(self) -> Node {
        let store = Store::connect(StoreId(0), self.options).await.expect("the store connects");
        let pulse = Arc::new(Pulse::new());
        let (limits, limits_seen) = watch::channel(self.limits);
        let (watchdog, health, board) = services(Params {
            store,
            node: self.name.to_owned(),
            gid: 1,
            nid: self.nid,
            roles: vec!["node".to_owned()],
            queues: self.queues.iter().map(|&queue| queue.to_owned()).collect(),
            loops: vec![Loop { name: "reserve".to_owned(), queue: None, pulse: Arc::clone(&pulse) }],
            data: self.data,
            pool_size: 8,
            file_faults: watch::channel(Vec::new()).1,
            denied: watch::channel(Vec::new()).1,
            code_faults: watch::channel(Vec::new()).1,
            queue_faults: watch::channel(Vec::new()).1,
            list_faults: watch::channel(Vec::new()).1,
            limits: limits_seen,
        });
        let session = watchdog.session().to_owned();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(watchdog.run(stopped.clone()));
        tasks.spawn(health.run(stopped));
        let node = Node { board, pulse, limits, session, stop, tasks };
        wait_until("the first report is written", LIMIT, async || {
            node.board.report()?;
            node.board.beat().number
        })
        .await;
        node
    }
}

impl Node {
    /// Stops the services as a host does.
    async fn stop(mut self) {
        self.stop.send(true).expect("the services run");
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a service ends well");
        }
    }

    /// The state and text of a component.
    fn check(&self, component: &str) -> Option<(State, String)> {
        let report = self.board.report()?;
        let check = report.checks.iter().find(|check| check.component == component)?;
        Some((check.state, check.text.clone()))
    }

    /// Waits until a component has a state; its text then.
    async fn wait_for(&self, component: &str, state: State) -> String {
        wait_until(&format!("{component} is {}", state.as_str()), LIMIT, async || {
            let found = self.check(component)?;
            (found.0 == state).then_some(found.1)
        })
        .await
    }
}

async fn hash(raw: &mut MultiplexedConnection, key: &str) -> BTreeMap<String, String> {
    raw.hgetall(key).await.unwrap_or_else(|error| panic!("HGETALL {key}: {error}"))
}

/// Waits, with a heartbeat asked for at each look, until a field of a hash satisfies `is_right`.
async fn wait_for_field(
    node: &Node,
    raw: &mut MultiplexedConnection,
    key: &str,
    field: &str,
    is_right: impl Fn(Option<&str>) -> bool,
) {
    let raw = raw.clone();
    wait_until(&format!("{key} {field}"), LIMIT, async || {
        let mut raw = raw.clone();
        node.board.nudge();
        let value: Option<String> = raw.hget(key, field).await.ok()?;
        is_right(value.as_deref()).then_some(())
    })
    .await;
}

/// The server's time in seconds.
async fn server_seconds(raw: &mut MultiplexedConnection) -> i64 {
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(raw).await.expect("TIME");
    seconds
}
