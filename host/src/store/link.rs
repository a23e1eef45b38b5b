//! The connections: few multiplexed sockets, made again when they break, with a deadline on everything.
//!
//! Invariant: a call either answers within its deadline or returns an error that names the address. After a failed
//! attempt to connect the next one waits a little, longer each time, so that a dead server is not hammered.
//! Invariant: connections are made in a task of their own, and no lock is held across an await: a caller whose future
//! is not polled for a while keeps no other caller waiting.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, Value};
use tokio::sync::watch;

use super::meaning::is_no_script;
use super::place::{Found, Lost, Place};
use super::slots::Node;
use super::{Error, Options};

/// First pause after a failed attempt to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between attempts to connect.
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// A connection without anything to do for this long may have been closed: the least `timeout` of a server is 1 s.
pub(super) const REST: Duration = Duration::from_millis(500);
/// Most connections that are kept for commands which wait.
const SPARE_MAX: usize = 16;

/// A script: its text and its SHA-1, computed once.
pub(super) type Script = LazyLock<redis::Script>;

/// The connections of a store.
pub(super) struct Link {
    place: Place,
    connect_timeout: Duration,
    command_timeout: Duration,
    /// Connections that short commands share; the first idle one is taken, so the later ones may never be made.
    shared: Vec<Slot>,
    made_at: Instant,
    /// Counts connections, so that whoever sees one break does not close its successor.
    generation: AtomicU64,
    /// The server that the last connection was made to, where it is looked for each time.
    at: watch::Sender<Option<Node>>,
    /// Connections for commands that wait, while nobody uses them.
    spare: Mutex<Vec<MultiplexedConnection>>,
}

/// A place for a connection that commands share.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// Commands that are under way.
    n_under_way: AtomicUsize,
    /// When the last answer came, in milliseconds since the link was made.
    answered_ms: AtomicU64,
}

/// What is sent over a shared connection.
#[derive(Clone, Copy)]
enum Request<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    Script(&'a Script, &'a Cmd),
}

impl Request<'_> {
    /// Sends it; the answers of a pipeline are an array, errors of its commands included.
    async fn send(self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => send(connection, command).await,
            Self::Script(script, command) => evaluate(connection, script, command).await,
            Self::Pipeline(pipeline) => {
                connection.send_packed_commands(pipeline, 0, pipeline.len()).await.map(Value::Array)
            }
        }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single assignment, so a poisoned lock still guards good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection and its number.
type Numbered = (u64, MultiplexedConnection);

/// Which shared connection: its place, and its number there.
#[derive(Clone, Copy)]
struct Which {
    slot: usize,
    generation: u64,
}

/// Counts a command that is under way.
struct UnderWay<'a>(&'a Slot);

impl<'a> UnderWay<'a> {
    fn begin(slot: &'a Slot) -> Self {
        slot.n_under_way.fetch_add(1, Ordering::Relaxed);
        Self(slot)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.n_under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct State {
    connection: Option<Numbered>,
    /// A connection that is being made.
    connecting: Option<Shared<BoxFuture<'static, Result<Numbered, Error>>>>,
    failures: u32,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Link {
    /// Reads the options; connects to nothing yet.
    pub(super) fn new(options: &Options) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            place: Place::new(options)?,
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            shared: (0..options.pool.max(1)).map(|_| Slot::default()).collect(),
            made_at: Instant::now(),
            generation: AtomicU64::new(0),
            at: watch::Sender::new(None),
            spare: Mutex::default(),
        }))
    }

    /// What the server is called in texts.
    pub(super) fn address(&self) -> &str {
        self.place.name()
    }

    /// Where the server is.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// The server that was connected to last, where it is looked for each time.
    pub(super) fn at(&self) -> Option<Node> {
        self.at.borrow().clone()
    }

    /// Tells when a connection was made to another server than the ones before.
    pub(super) fn moves(&self) -> watch::Receiver<Option<Node>> {
        self.at.subscribe()
    }

    /// A connection of its own, for calls that block. It has no deadline for answers: the caller sets one.
    pub(super) async fn own(&self) -> Result<MultiplexedConnection, Error> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = async {
            let Found { client, at } = self.find().await?;
            let connection = client.get_multiplexed_async_connection_with_config(&config).await;
            let mut connection = connection.map_err(|error| self.connect_error(&error, at.as_ref()))?;
            if let Some(trouble) = self.place.trouble(&mut connection).await {
                return Err(self.unreachable(trouble));
            }
            self.at.send_if_modified(|known| {
                let has_moved = *known != at;
                *known = at;
                has_moved
            });
            Ok(connection)
        };
        self.connecting(connected).await
    }

    /// A connection that listens to channels.
    pub(super) async fn listen(&self, channel: &str) -> Result<redis::aio::PubSub, Error> {
        let subscribed = async {
            let Found { client, at } = self.find().await?;
            let listener = async {
                let mut listener = client.get_async_pubsub().await?;
                listener.subscribe(channel).await?;
                Ok(listener)
            };
            listener.await.map_err(|error: RedisError| self.connect_error(&error, at.as_ref()))
        };
        self.connecting(subscribed).await
    }

    /// A connection that is told every command the server receives.
    pub(super) async fn monitor(&self) -> Result<redis::aio::Monitor, Error> {
        let connected = async {
            let Found { client, at } = self.find().await?;
            client.get_async_monitor().await.map_err(|error| self.connect_error(&error, at.as_ref()))
        };
        self.connecting(connected).await
    }

    async fn find(&self) -> Result<Found, Error> {
        self.place.find().await.map_err(|lost| match lost {
            Lost::Away(reason) => self.unreachable(reason),
            Lost::Tls(reason) => self.place.tls_error(reason),
            Lost::Refused(error) => self.connect_error(&error, None),
        })
    }

    async fn connecting<T>(&self, connected: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.connect_timeout, connected).await {
            Ok(result) => result,
            Err(_) => {
                // A server that speaks no TLS waits for the rest of what it takes for a command.
                let perhaps = if self.place.is_tls() { ", or no TLS there" } else { "" };
                Err(self.unreachable(format!("no connection within {:?}{perhaps}", self.connect_timeout)))
            }
        }
    }

    async fn connection(self: &Arc<Self>, slot: usize) -> Result<Numbered, Error> {
        let connecting = {
            let mut state = self.shared[slot].state();
            if let Some(connection) = &state.connection {
                return Ok(connection.clone());
            }
            state.connecting.get_or_insert_with(|| self.connect(slot)).clone()
        };
        connecting.await
    }

    /// Makes a shared connection, in a task of its own.
    fn connect(self: &Arc<Self>, slot: usize) -> Shared<BoxFuture<'static, Result<Numbered, Error>>> {
        let link = Arc::clone(self);
        let task = tokio::spawn(async move {
            let not_before = link.shared[slot].state().not_before;
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before.into()).await;
            }
            let result = link.own().await;
            let mut state = link.shared[slot].state();
            state.connecting = None;
            match result {
                Ok(connection) => {
                    let generation = link.generation.fetch_add(1, Ordering::Relaxed) + 1;
                    *state = State { connection: Some((generation, connection.clone())), ..State::default() };
                    Ok((generation, connection))
                }
                Err(error) => {
                    let pause = BACKOFF_FIRST.saturating_mul(1 << state.failures.min(10)).min(BACKOFF_LAST);
                    state.failures = state.failures.saturating_add(1);
                    state.not_before = Some(Instant::now() + with_jitter(pause));
                    Err(error)
                }
            }
        });
        let link = Arc::clone(self);
        let ended = async move { task.await.unwrap_or_else(|error| Err(link.unreachable(error.to_string()))) };
        ended.boxed().shared()
    }

    fn give_up(&self, which: Which) {
        let mut state = self.shared[which.slot].state();
        if state.connection.as_ref().is_some_and(|(current, _)| *current == which.generation) {
            state.connection = None;
        }
    }

    /// Gives every connection up, so that the next commands look for the server anew.
    pub(super) fn start_anew(&self) {
        self.shared.iter().for_each(|slot| slot.state().connection = None);
    }

    /// One command. `what` is for error texts.
    pub(super) async fn command(self: &Arc<Self>, what: &'static str, command: &Cmd) -> Result<Value, Error> {
        self.request(what, Request::Command(command)).await
    }

    /// Several commands in one round trip; an error of one of them is an error of all.
    pub(super) async fn pipeline(
        self: &Arc<Self>,
        what: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        match self.request(what, Request::Pipeline(pipeline)).await? {
            Value::Array(values) => Ok(values),
            other => Ok(vec![other]),
        }
    }

    /// A script: by its hash, and with its text when the server does not know it (restart, failover, SCRIPT FLUSH).
    pub(super) async fn script(
        self: &Arc<Self>,
        what: &'static str,
        script: &Script,
        command: &Cmd,
    ) -> Result<Value, Error> {
        self.request(what, Request::Script(script, command)).await
    }

    /// Sends over the shared connection that has the least to do. One that breaks after a rest was most likely closed
    /// meanwhile, by the server's `timeout` or something between: the request is sent once more, over a new one.
    async fn request(self: &Arc<Self>, what: &'static str, request: Request<'_>) -> Result<Value, Error> {
        let load = |slot: &usize| self.shared[*slot].n_under_way.load(Ordering::Relaxed);
        let slot = (0..self.shared.len()).min_by_key(load).unwrap_or(0);
        let _under_way = UnderWay::begin(&self.shared[slot]);
        let has_rested = self.shared[slot].state().connection.is_some() && self.rest_of(slot) > REST;
        match self.request_on(slot, what, request).await {
            Err(Error::Unreachable { .. }) if has_rested => self.request_on(slot, what, request).await,
            other => other,
        }
    }

    async fn request_on(
        self: &Arc<Self>,
        slot: usize,
        what: &'static str,
        request: Request<'_>,
    ) -> Result<Value, Error> {
        let (generation, mut connection) = self.ready(slot).await?;
        let which = Which { slot, generation };
        let answer = self.answer(what, which, request.send(&mut connection)).await?;
        self.shared[slot].answered_ms.store(self.age_ms(), Ordering::Relaxed);
        let parts: &[Value] = match (request, &answer) {
            (Request::Pipeline(_), Value::Array(values)) => values,
            _ => &[],
        };
        for value in parts {
            if let Value::ServerError(error) = value {
                let error = error.clone().into();
                if self.is_gone(&error) {
                    self.give_up(which);
                }
                return Err(self.error(what, &error));
            }
        }
        Ok(answer)
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long a shared connection has had nothing to do.
    fn rest_of(&self, slot: usize) -> Duration {
        Duration::from_millis(self.age_ms().saturating_sub(self.shared[slot].answered_ms.load(Ordering::Relaxed)))
    }

    /// A script on a connection that nobody shares, and then the wait until that many replicas have what it wrote:
    /// its answer, and how many have it.
    pub(super) async fn script_and_wait(
        &self,
        what: &'static str,
        script: &Script,
        command: &Cmd,
        n_replicas: u32,
        timeout: Duration,
    ) -> Result<(Value, u32), Error> {
        let spare = self.spare().pop();
        // A spare connection may have been closed meanwhile; then the script goes once more over a new one.
        if let Some(mut connection) = spare {
            match self.in_time(what, evaluate(&mut connection, script, command)).await {
                Err(Error::Unreachable { .. }) => {}
                other => return self.wait_after(connection, other?, n_replicas, timeout).await,
            }
        }
        let mut connection = self.own().await?;
        let answer = self.in_time(what, evaluate(&mut connection, script, command)).await?;
        self.wait_after(connection, answer, n_replicas, timeout).await
    }

    async fn wait_after(
        &self,
        mut connection: MultiplexedConnection,
        answer: Value,
        n_replicas: u32,
        timeout: Duration,
    ) -> Result<(Value, u32), Error> {
        let mut wait = redis::cmd("WAIT");
        // 0 would wait for ever.
        wait.arg(n_replicas).arg(timeout.as_millis().max(1).min(u128::from(u32::MAX)) as u64);
        let n_acknowledged: u32 =
            self.blocked("a wait for replicas", timeout, wait.query_async(&mut connection)).await?;
        let mut spare = self.spare();
        if spare.len() < SPARE_MAX {
            spare.push(connection);
        }
        Ok((answer, n_acknowledged))
    }

    fn spare(&self) -> MutexGuard<'_, Vec<MultiplexedConnection>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shared connection, made when there is none.
    async fn ready(self: &Arc<Self>, slot: usize) -> Result<Numbered, Error> {
        let limit = self.connect_timeout.saturating_add(BACKOFF_LAST);
        match tokio::time::timeout(limit, self.connection(slot)).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(format!("no connection within {limit:?}"))),
        }
    }

    /// Waits for an answer within the deadline; a connection that broke is given up.
    async fn answer<T>(
        &self,
        what: &'static str,
        which: Which,
        sent: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.command_timeout, sent).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if self.is_gone(&error) {
                    self.give_up(which);
                }
                Err(self.error(what, &error))
            }
            Err(_) => {
                // The answer may still come; a fresh connection keeps others from waiting behind it.
                self.give_up(which);
                Err(self.timed_out(what, self.command_timeout))
            }
        }
    }

    /// Waits for an answer on a connection of the caller's own within the deadline.
    pub(super) async fn in_time<T>(
        &self,
        what: &'static str,
        sent: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        self.blocked(what, Duration::ZERO, sent).await
    }

    /// Waits for the answer of a command that blocks for up to `timeout`, and the deadline on top.
    pub(super) async fn blocked<T>(
        &self,
        what: &'static str,
        timeout: Duration,
        sent: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        let after = timeout.saturating_add(self.command_timeout);
        match tokio::time::timeout(after, sent).await {
            Ok(result) => result.map_err(|error| self.error(what, &error)),
            Err(_) => Err(self.timed_out(what, after)),
        }
    }
}

/// A script by its hash, and again with its text when the server does not know it.
async fn evaluate(connection: &mut MultiplexedConnection, script: &Script, command: &Cmd) -> Result<Value, RedisError> {
    match send(connection, command).await {
        Err(error) if is_no_script(&error) => {
            script.load_async(connection).await?;
            send(connection, command).await
        }
        other => other,
    }
}

/// One command; an error that the server answers is an error.
async fn send(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    match connection.send_packed_command(command).await? {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// Half of a pause to all of it, so that hosts which lost the same server do not come back in step.
pub(super) fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + crate::retry::chance() / 2.0)
}
