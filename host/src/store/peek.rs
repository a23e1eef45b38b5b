//! Waking up without polling: a blocking peek at one queue, and the wake channel.
//!
//! Invariant: neither of them decides anything. A lost message or a dead peek delays a job until the next sweep, it
//! never loses one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use super::link::{REST, with_jitter};
use super::meaning::{is_no_script, is_wrong_type};
use super::script::{self, Reply};
use super::slots::Node;
use super::{Error, Reservation, Reserve, Store};
use crate::effects::Key;
use crate::job::JobId;

/// A connection of its own that sleeps until a list has an entry: the jobs of a queue, or another system's.
#[derive(Debug)]
pub struct Peek {
    store: Store,
    list: Vec<u8>,
    connection: Rested,
    sleeper: Arc<Sleeper>,
}

/// What a peek and those who may end it share.
#[derive(Debug, Default)]
struct Sleeper {
    is_stopped: AtomicBool,
    /// The server's number of the connection; 0 when there is none.
    client: AtomicI64,
}

/// Ends a peek that sleeps, from outside: a drain calls it instead of dropping the peek, so that nothing that was
/// handed out in that very moment is lost until its lease ends.
#[derive(Clone, Debug)]
pub struct PeekStop {
    store: Store,
    sleeper: Arc<Sleeper>,
}

impl PeekStop {
    /// Has the server close the sleeping connection, over the shared one. [`Peek::wait`] then returns: with the jobs
    /// that its reserve had taken before, or with an error. It never sleeps again.
    ///
    /// # Errors
    /// When Redis cannot be reached; then the peek does not sleep for long either.
    pub async fn stop(&self) -> Result<(), Error> {
        // The peek stores its number before it looks at the flag: one of the two sees the other.
        self.sleeper.is_stopped.store(true, Ordering::SeqCst);
        let what = "the end of a peek";
        match self.tell(what, &["KILL", "ID"]).await {
            // A user of the worker's role may not kill. A wake does, but only once the sleep has begun.
            Err(Error::NotAllowed { .. }) => {}
            other => return other.map(drop),
        }
        for pause_ms in [0, 1, 5, 20, 100] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            if self.tell(what, &["UNBLOCK"]).await? != 0 {
                break;
            }
        }
        Ok(())
    }

    /// Has the server end the sleep at once, as if its time were up: [`Peek::wait`] returns, with what its reserve
    /// finds, and may be called again. Nothing happens when the peek does not sleep at that moment.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wake(&self) -> Result<(), Error> {
        self.tell("the wake of a peek", &["UNBLOCK"]).await.map(drop)
    }

    /// Has the server do something with the sleeping connection; whether it did.
    async fn tell(&self, what: &'static str, words: &[&str]) -> Result<i64, Error> {
        let client = self.sleeper.client.load(Ordering::SeqCst);
        if client == 0 {
            return Ok(1);
        }
        match self.store.link.command(what, redis::cmd("CLIENT").arg(words).arg(client)).await? {
            Value::Int(n) => Ok(n),
            _ => Ok(1),
        }
    }
}

/// How a sleep ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Peeked {
    /// Whether the list had an entry; else the time was up.
    pub has_woken: bool,
    /// What the reserve behind the sleep took; `None` when there was none.
    pub reservation: Option<Reservation>,
}

impl Peek {
    /// What ends this peek, however often it sleeps.
    #[must_use]
    pub fn stopper(&self) -> PeekStop {
        PeekStop { store: self.store.clone(), sleeper: Arc::clone(&self.sleeper) }
    }

    /// Closes the connection until the next sleep.
    pub fn close(&mut self) {
        self.connection.close();
        self.sleeper.client.store(0, Ordering::SeqCst);
    }

    /// Sleeps until the list has an entry or `timeout` has passed, then reserves, if asked to. The reserve is on its way
    /// before the sleep begins, so the slots it asks for are promised to this call until it returns.
    ///
    /// Dropping the future closes the connection, and with it the promise. Only if a job arrived in that very moment
    /// it is leased to nobody, and comes back when its lease ends. The next call opens a new connection.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait(&mut self, timeout: Duration, reserve: Option<&Reserve>) -> Result<Peeked, Error> {
        let link = &self.store.link;
        // Out of `self` for the time being: a future that is dropped half-way takes the connection with it.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        if self.sleeper.is_stopped.load(Ordering::SeqCst) {
            return Err(Error::Refused(format!("the peek at `{}` was stopped", String::from_utf8_lossy(&self.list))));
        }
        let mut peek = redis::cmd("BLMOVE");
        // From the head to the head: it takes nothing.
        peek.arg(&self.list).arg(&self.list).arg("LEFT").arg("LEFT").arg(timeout.as_secs_f64());
        let mut pipeline = redis::pipe();
        pipeline.add_command(peek);
        let settles = [];
        let call = reserve.map(|reserve| self.store.turn_call(&settles, Some(reserve)));
        let lanes = call.map(|(call, lanes)| {
            pipeline.add_command(call.into_command());
            lanes
        });
        let n_commands = pipeline.len();
        let sent = connection.send_packed_commands(&pipeline, 0, n_commands);
        let mut answers = link.blocked("a peek", timeout, sent).await?.into_iter();
        let has_woken = match answers.next().unwrap_or_default() {
            Value::Nil => false,
            Value::ServerError(error) => {
                let error = error.into();
                // The reserve says it too, and which key it is.
                if !is_wrong_type(&error) {
                    return Err(link.error("a peek", &error));
                }
                true
            }
            _ => true,
        };
        let Some((reserve, lanes)) = reserve.zip(lanes) else {
            self.connection.keep(connection);
            return Ok(Peeked { has_woken, reservation: None });
        };
        let answer = match answers.next().unwrap_or_default() {
            Value::ServerError(error) => {
                let error = error.into();
                if !is_no_script(&error) {
                    return Err(link.error("a peek", &error));
                }
                // SCRIPT FLUSH while it slept: the new connection loads the script again.
                let call = self.store.turn_call(&settles, Some(reserve)).0;
                link.script("a peek", &script::TURN, call.command()).await?
            }
            answer => {
                self.connection.keep(connection);
                answer
            }
        };
        let mut reply = Reply::new(answer, link.address(), "a peek");
        reply.next()?;
        let reservation = self.store.reservation(reply.nested()?, &lanes, Some(reserve))?;
        Ok(Peeked { has_woken, reservation: Some(reservation) })
    }

    /// A connection that knows the script, and its number where [`PeekStop`] finds it.
    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let link = &self.store.link;
        let mut connection = link.own().await?;
        let prepared = async {
            script::TURN.load_async(&mut connection).await?;
            redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await
        };
        let client = link.in_time("the start of a peek", prepared).await?;
        self.sleeper.client.store(client, Ordering::SeqCst);
        Ok(connection)
    }
}

/// What the wake channel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Something in some queue is due at this time, in milliseconds since the epoch, earlier than anything before.
    Due(i64),
    /// Jumpscripts were published: the new revision.
    Rev(u64),
    /// A host has begun to watch a queue; whoever did before leaves it alone.
    Watch {
        /// The session of that host.
        session: String,
        /// The queue.
        queue: String,
    },
    /// A queue that hosts hold back from (paused, at its limit) has room again, or a list of priorities has jobs.
    Push(String),
    /// This running job was cancelled.
    Cancel(JobId),
    /// The subscription was (re)made: anything may have happened meanwhile.
    Resubscribed,
}

/// The messages of the wake channel.
pub struct Signals {
    store: Store,
    stream: Option<redis::aio::PubSubStream>,
    moves: Moves,
    pause: Duration,
    /// When the subscription was made.
    since: Instant,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signals").field("is_subscribed", &self.stream.is_some()).finish_non_exhaustive()
    }
}

/// First and longest pause before the channel is subscribed again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Signals {
    /// The next message. Never ends: it subscribes again by itself, and says so. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.store.link.listen(&self.store.keys.wake()).await {
                    Ok(listener) => {
                        self.stream = Some(listener.into_on_message());
                        self.since = Instant::now();
                        return Signal::Resubscribed;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "wake channel not subscribed");
                        self.rest().await;
                        continue;
                    }
                }
            };
            let message = tokio::select! {
                message = stream.next() => message,
                // The old server may live on, and say nothing for ever.
                () = self.moves.wait() => {
                    self.stream = None;
                    continue;
                }
            };
            match message {
                Some(message) => {
                    if let Some(signal) = parse(message.get_payload_bytes()) {
                        return signal;
                    }
                }
                None => {
                    self.stream = None;
                    // A server that takes the subscription and closes the connection is away too.
                    if self.since.elapsed() > PAUSES.1 {
                        self.pause = PAUSES.0;
                    }
                    self.rest().await;
                }
            }
        }
    }

    /// Waits before the next try, longer each time.
    async fn rest(&mut self) {
        let pause = with_jitter(self.pause);
        self.pause = self.pause.saturating_mul(2).min(PAUSES.1);
        tokio::time::sleep(pause).await;
    }
}

/// Whether the store has turned to another server since it was asked last.
#[derive(Debug)]
pub(super) struct Moves(watch::Receiver<Option<Node>>);

impl Moves {
    pub(super) fn of(store: &Store) -> Self {
        Self(store.link.moves())
    }

    fn have_come(&mut self) -> bool {
        let has_changed = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        has_changed
    }

    async fn wait(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A connection between two sleeps. One that has rested for long may be closed, and one to a server that was left
/// would sleep there: neither is used again.
#[derive(Debug)]
pub(super) struct Rested {
    kept: Option<(Instant, MultiplexedConnection)>,
    moves: Moves,
}

impl Rested {
    pub(super) fn of(store: &Store) -> Self {
        Self { kept: None, moves: Moves::of(store) }
    }

    pub(super) fn keep(&mut self, connection: MultiplexedConnection) {
        self.kept = Some((Instant::now(), connection));
    }

    fn close(&mut self) {
        self.kept = None;
    }

    /// The connection, if it is good.
    pub(super) fn take(&mut self) -> Option<MultiplexedConnection> {
        let has_moved = self.moves.have_come();
        let (since, connection) = self.kept.take()?;
        (!has_moved && since.elapsed() < REST).then_some(connection)
    }
}

/// A message of the channel; what is not understood comes from a newer host and is skipped.
fn parse(message: &[u8]) -> Option<Signal> {
    let (word, rest) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    match word {
        "due" => rest.parse().ok().map(Signal::Due),
        "rev" => rest.parse().ok().map(Signal::Rev),
        "watch" => {
            let (session, queue) = rest.split_once(' ')?;
            Some(Signal::Watch { session: session.to_owned(), queue: queue.to_owned() })
        }
        "push" => Some(Signal::Push(rest.to_owned())),
        "cancel" => Some(Signal::Cancel(JobId::from(rest))),
        _ => None,
    }
}

impl Store {
    /// A blocking peek at `queue`; the connection is made by the first [`Peek::wait`].
    #[must_use]
    pub fn peek(&self, queue: &str) -> Peek {
        self.peek_at(self.keys.ready(queue).into_bytes())
    }

    /// A blocking peek at another system's list.
    #[must_use]
    pub fn peek_list(&self, list: &Key) -> Peek {
        self.peek_at(list.as_bytes().to_vec())
    }

    fn peek_at(&self, list: Vec<u8>) -> Peek {
        Peek { store: self.clone(), list, connection: Rested::of(self), sleeper: Arc::default() }
    }

    /// The wake channel; the connection is made by the first [`Signals::next`].
    #[must_use]
    pub fn subscribe(&self) -> Signals {
        let moves = Moves::of(self);
        Signals { store: self.clone(), stream: None, moves, pause: PAUSES.0, since: Instant::now() }
    }
}
