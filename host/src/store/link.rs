//! The connection: one multiplexed socket, made again when it breaks, with a deadline on everything.
//!
//! Invariant: a call either answers within its deadline or returns an error that names the address. After a failed
//! attempt to connect the next one waits a little, longer each time, so that a dead server is not hammered.
//! Invariant: connections are made in a task of their own, and no lock is held across an await: a caller whose future
//! is not polled for a while keeps no other caller waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
};

use super::{Error, Options};

/// First pause after a failed attempt to connect.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between attempts to connect.
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// A script: its text and its SHA-1, computed once.
pub(super) type Script = LazyLock<redis::Script>;

/// The connection of a store.
pub(super) struct Link {
    client: Client,
    address: String,
    connect_timeout: Duration,
    command_timeout: Duration,
    state: Mutex<State>,
    /// Counts connections, so that whoever sees one break does not close its successor.
    generation: AtomicU64,
}

/// A connection and its number.
type Numbered = (u64, MultiplexedConnection);

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
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// Reads the options; connects to nothing yet.
    pub(super) fn new(options: &Options) -> Result<Arc<Self>, Error> {
        let url = normal_url(&options.url);
        let bad = |reason: String| Error::Url { url: without_password(&options.url), reason };
        let client = Client::open(url.as_str()).map_err(|error| bad(words(&error)))?;
        let info = client.get_connection_info().clone();
        let mut settings = info.redis_settings().clone();
        if let Some(password) = &options.password {
            settings = settings.set_password(password);
        }
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            other => other.to_string(),
        };
        let client = Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
            .map_err(|error| bad(words(&error)))?;
        Ok(Arc::new(Self {
            client,
            address,
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            state: Mutex::default(),
            generation: AtomicU64::new(0),
        }))
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A connection of its own, for calls that block. It has no deadline for answers: the caller sets one.
    pub(super) async fn own(&self) -> Result<MultiplexedConnection, Error> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect_timeout)).set_response_timeout(None);
        match tokio::time::timeout(
            self.connect_timeout,
            self.client.get_multiplexed_async_connection_with_config(&config),
        )
        .await
        {
            Ok(result) => result.map_err(|error| self.connect_error(&error)),
            Err(_) => Err(self.unreachable(format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    /// A connection that listens to channels.
    pub(super) async fn listen(&self, channel: &str) -> Result<redis::aio::PubSub, Error> {
        let subscribed = async {
            let mut listener = self.client.get_async_pubsub().await?;
            listener.subscribe(channel).await?;
            Ok(listener)
        };
        match tokio::time::timeout(self.connect_timeout, subscribed).await {
            Ok(result) => result.map_err(|error: RedisError| self.connect_error(&error)),
            Err(_) => Err(self.unreachable(format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    /// A connection that is told every command the server receives.
    pub(super) async fn monitor(&self) -> Result<redis::aio::Monitor, Error> {
        match tokio::time::timeout(self.connect_timeout, self.client.get_async_monitor()).await {
            Ok(result) => result.map_err(|error| self.connect_error(&error)),
            Err(_) => Err(self.unreachable(format!("no connection within {:?}", self.connect_timeout))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single assignment, so a poisoned lock still guards good data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(self: &Arc<Self>) -> Result<Numbered, Error> {
        let connecting = {
            let mut state = self.state();
            if let Some(connection) = &state.connection {
                return Ok(connection.clone());
            }
            state.connecting.get_or_insert_with(|| self.connect()).clone()
        };
        connecting.await
    }

    /// Makes the connection, in a task of its own.
    fn connect(self: &Arc<Self>) -> Shared<BoxFuture<'static, Result<Numbered, Error>>> {
        let link = Arc::clone(self);
        let task = tokio::spawn(async move {
            let not_before = link.state().not_before;
            if let Some(not_before) = not_before {
                tokio::time::sleep_until(not_before.into()).await;
            }
            let result = link.own().await;
            let mut state = link.state();
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

    fn give_up(&self, generation: u64) {
        let mut state = self.state();
        if state.connection.as_ref().is_some_and(|(current, _)| *current == generation) {
            state.connection = None;
        }
    }

    /// One command. `what` is for error texts.
    pub(super) async fn command(self: &Arc<Self>, what: &'static str, command: &Cmd) -> Result<Value, Error> {
        let (generation, mut connection) = self.ready().await?;
        self.answer(what, generation, send(&mut connection, command)).await
    }

    /// Several commands in one round trip; an error of one of them is an error of all.
    pub(super) async fn pipeline(
        self: &Arc<Self>,
        what: &'static str,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, Error> {
        let (generation, mut connection) = self.ready().await?;
        let sent = connection.send_packed_commands(pipeline, 0, pipeline.len());
        let values = self.answer(what, generation, sent).await?;
        for value in &values {
            if let Value::ServerError(error) = value {
                let error = error.clone().into();
                if is_gone(&error) {
                    self.give_up(generation);
                }
                return Err(self.error(what, &error));
            }
        }
        Ok(values)
    }

    /// A script: by its hash, and with its text when the server does not know it (restart, failover, SCRIPT FLUSH).
    pub(super) async fn script(
        self: &Arc<Self>,
        what: &'static str,
        script: &Script,
        command: &Cmd,
    ) -> Result<Value, Error> {
        let (generation, mut connection) = self.ready().await?;
        let sent = async {
            match send(&mut connection, command).await {
                Err(error) if is_no_script(&error) => {
                    script.load_async(&mut connection).await?;
                    send(&mut connection, command).await
                }
                other => other,
            }
        };
        self.answer(what, generation, sent).await
    }

    /// The connection, made when there is none.
    async fn ready(self: &Arc<Self>) -> Result<Numbered, Error> {
        let limit = self.connect_timeout.saturating_add(BACKOFF_LAST);
        match tokio::time::timeout(limit, self.connection()).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(format!("no connection within {limit:?}"))),
        }
    }

    /// Waits for an answer within the deadline; a connection that broke is given up.
    async fn answer<T>(
        &self,
        what: &'static str,
        generation: u64,
        sent: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.command_timeout, sent).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if is_gone(&error) {
                    self.give_up(generation);
                }
                Err(self.error(what, &error))
            }
            Err(_) => {
                // The answer may still come; a fresh connection keeps others from waiting behind it.
                self.give_up(generation);
                Err(Error::TimedOut { address: self.address.clone(), what, after: self.command_timeout })
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
            Err(_) => Err(Error::TimedOut { address: self.address.clone(), what, after }),
        }
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { address: self.address.clone(), reason }
    }

    fn connect_error(&self, error: &RedisError) -> Error {
        let address = self.address.clone();
        let code = error.code().unwrap_or_default();
        if error.kind() == ErrorKind::AuthenticationFailed || matches!(code, "WRONGPASS" | "NOAUTH" | "NOPERM") {
            return Error::Login { address, reason: login_words(error) };
        }
        match error.kind() {
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Error::NotRedis { address, reason: words(error) },
            ErrorKind::Server(ServerErrorKind::ResponseError) => {
                Error::Server { address, what: "the connection", reason: words(error) }
            }
            _ => self.unreachable(words(error)),
        }
    }

    /// What an error of the crate means to a caller.
    pub(super) fn error(&self, what: &'static str, error: &RedisError) -> Error {
        let address = self.address.clone();
        match (error.kind(), error.code().unwrap_or_default()) {
            (_, "OOM") => Error::Full { address, what },
            (_, "NOAUTH" | "WRONGPASS" | "NOPERM") => Error::Login { address, reason: login_words(error) },
            (ErrorKind::Parse, _) => Error::NotRedis { address, reason: words(error) },
            (_, "QUEUEFULL") => Error::QueueFull(error.detail().unwrap_or("the queue is full").to_owned()),
            (_, "REFUSED") => {
                Error::Server { address, what, reason: error.detail().unwrap_or("no reason given").to_owned() }
            }
            (_, code) if is_gone(error) => {
                let reason = if code.is_empty() { words(error) } else { format!("the server says {}", words(error)) };
                self.unreachable(reason)
            }
            _ => Error::Server { address, what, reason: words(error) },
        }
    }
}

/// One command; an error that the server answers is an error.
async fn send(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    match connection.send_packed_command(command).await? {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// Whether trying again on a new connection, or later, is what helps.
fn is_gone(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly)
        )
        // A blocked connection of a server that has become a replica.
        || error.code() == Some("UNBLOCKED")
}

pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// Half of a pause to all of it, so that hosts which lost the same server do not come back in step.
pub(super) fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + crate::retry::chance() / 2.0)
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The crate's words without what it repeats.
fn words(error: &RedisError) -> String {
    crate::job::visible(error.to_string().trim())
}

/// The server's words on a login, which never repeat the password.
fn login_words(error: &RedisError) -> String {
    match error.code() {
        Some("NOAUTH") => "it wants a password, none was given".to_owned(),
        Some("NOPERM") => format!("the user may not do this: {}", error.detail().unwrap_or_default()),
        _ => "wrong user or password".to_owned(),
    }
}

/// Accepts `host:port` and a socket's path beside URLs.
fn normal_url(url: &str) -> String {
    if url.contains("://") {
        url.to_owned()
    } else if url.starts_with('/') {
        format!("unix://{url}")
    } else {
        format!("redis://{url}")
    }
}

/// The URL with `***` in place of a password, for texts.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return crate::job::visible(url) };
    let (authority, tail) = rest.split_at(rest.rfind('@').map_or(0, |at| at));
    let shown = match authority.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{tail}"),
        None => format!("{scheme}://{authority}{tail}"),
    };
    // `unix:///path?pass=...`
    let shown = match shown.find("pass=") {
        Some(at) => {
            let end = shown[at..].find('&').map_or(shown.len(), |n| at + n);
            format!("{}pass=***{}", &shown[..at], &shown[end..])
        }
        None => shown,
    };
    crate::job::visible(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(without_password("redis://:s3cret@h:1/2"), "redis://:***@h:1/2");
        assert_eq!(without_password("redis://me:s3:c@ret@h:1"), "redis://me:***@h:1");
        assert_eq!(without_password("unix:///s?pass=s3cret&db=1"), "unix:///s?pass=***&db=1");
        assert_eq!(without_password("redis://h:1"), "redis://h:1");
    }

    #[test]
    fn a_wrong_url_is_refused_by_name() {
        let options = Options { url: "http://user:s3cret@h".to_owned(), ..Options::default() };
        let error = Link::new(&options).unwrap_err().to_string();
        assert!(error.contains("http://user:***@h") && !error.contains("s3cret"), "{error}");
    }
}
