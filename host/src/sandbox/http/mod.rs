//! Outgoing HTTP of components: `wasi:http` 0.2 and `wasmhost:jumpscript/http`, answered by a client of our own.
//!
//! Invariant: a request leaves only when the manifest requests its host, the node allows it, and every address of the
//! host may be reached (`guard`); the connection goes to an address that was checked, and nothing follows a redirect.
//! Sockets live on one thread of their own that starts with the first request: a job that sends none pays nothing, and
//! neither a guest nor a slow server holds up the thread of Redis.
//!
//! Next: `guard` for what may be reached, `send` for one request and its answer, `whole` for both in one call,
//! `crate::permissions` for patterns.

mod body;
mod guard;
mod send;
mod whole;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::{Method, Request};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::rustls::ClientConfig;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

use super::output::Log;
use crate::permissions::{Granted, HttpPattern, KeepOut, Target};
use crate::ports::Level;

/// Outgoing requests of one attempt, refused ones included.
pub const HTTP_REQUESTS_MAX: u32 = 50;
/// Bytes of a request's body.
pub const HTTP_REQUEST_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of a response's body.
pub const HTTP_RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a response's status line and headers together.
pub const HTTP_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of a response.
pub const HTTP_HEADERS_MAX: usize = 128;
/// Bytes of the headers that a guest makes for one request, with what they take in memory.
pub const HTTP_FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Finding a host's addresses, connecting and the handshake of TLS, all together.
pub const HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that a host has open at once; further requests wait.
pub const HTTP_CONNECTIONS_MAX: usize = 512;
/// Names that are looked up at once; the system's resolver blocks a thread for each.
const LOOKUPS_MAX: usize = 16;
/// Bytes that a body takes from the guest at once. Two such pieces wait in every body that a guest has open, and it may
/// open some hundred before it sends one.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Denied places that the host's own log remembers to have told.
const TOLD_MAX: usize = 1_000;

type Sent = Result<send::Answer, Error>;
type SentFuture = Box<dyn Future<Output = Sent> + Send>;

/// Where jumpscripts of this node may send requests.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// What the operator allows; a manifest must request it too.
    pub allow: Vec<HttpPattern>,
    /// What nothing reaches, whatever is allowed.
    pub keep_out: Vec<KeepOut>,
}

/// The network as one node sees it.
pub(super) struct Network {
    options: HttpOptions,
    connections: Arc<Semaphore>,
    thread: Mutex<Option<Thread>>,
    tls: OnceLock<Arc<ClientConfig>>,
    /// Denied places that the host's log has: each is told once, however often jobs try.
    told: Mutex<HashSet<String>>,
}

impl Network {
    pub(super) fn new(options: HttpOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            connections: Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX)),
            thread: Mutex::default(),
            tls: OnceLock::new(),
            told: Mutex::default(),
        })
    }

    /// The runtime of the sockets; starts its thread for the first request.
    fn runtime(&self) -> Result<Handle, Error> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.as_ref() {
            return Ok(thread.handle.clone());
        }
        let started = Thread::start().map_err(|error| {
            tracing::error!(%error, "the thread for HTTP requests of jumpscripts does not start");
            Error::InternalError(Some("the host has no thread for HTTP".to_owned()))
        })?;
        Ok(thread.insert(started).handle.clone())
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(send::tls_config(&send::public_roots())?);
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }

    /// Tells the operator of a denied place, once; `log` is that of the attempt.
    fn tell(&self, target: &Target, why: &str, log: &Log) {
        let target = target.to_string();
        let (target, why) = (log.without_secrets(&target), log.without_secrets(why));
        let place = target.clone().into_owned();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert(place) {
            tracing::warn!(%target, "http request of a jumpscript denied: {why}");
        }
    }
}

/// The thread of the sockets; it ends when this is dropped.
struct Thread {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS_MAX).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            // Either end of the channel means the same: the sandbox is gone.
            let _ = runtime.block_on(stopped);
            // A resolver that hangs must not hold up the end of the program.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _stop: stop })
    }
}

/// What one attempt may reach: what the manifest requests, on this node, with what was granted to its code.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) requested: Arc<[HttpPattern]>,
    pub(super) granted: Arc<Granted>,
    pub(super) network: Arc<Network>,
}

impl Grant {
    /// What node and grants allow.
    fn allowed(&self) -> impl Iterator<Item = &HttpPattern> + Clone {
        self.network.options.allow.iter().chain(self.granted.http_allowed())
    }

    /// Whether a place is requested and allowed; else what would have to change.
    fn check(&self, target: &Target) -> Result<(), String> {
        let flag = format!("start the host with `--allow-http {target}`");
        let key = format!("add \"{target}\" to `http` under [permissions] in its jumpscript.toml");
        let is_requested = self.requested.iter().any(|pattern| pattern.matches(target));
        match (is_requested, self.allowed().any(|pattern| pattern.matches(target))) {
            (true, true) => Ok(()),
            (true, false) => Err(format!("this node does not allow it; {flag}")),
            (false, true) => Err(format!("the jumpscript does not request it; {key}")),
            (false, false) => {
                Err(format!("the jumpscript does not request it and this node does not allow it; {key}, and {flag}"))
            }
        }
    }
}

/// The HTTP of one attempt. Some languages import it whether a program sends requests or not, so the client is made for
/// the first of them.
#[derive(Default)]
pub(super) struct Http {
    grant: Option<Grant>,
    client: Option<Box<Client>>,
}

impl Http {
    pub(super) const fn granted(grant: Grant) -> Self {
        Self { grant: Some(grant), client: None }
    }

    /// The client; without a grant every request is denied.
    pub(super) fn client(&mut self, log: &Log) -> &mut Client {
        self.client.get_or_insert_with(|| Box::new(Client::new(self.grant.take().map(Arc::new), log)))
    }
}

/// The client of one attempt.
pub(super) struct Client {
    pub(super) context: WasiHttpCtx,
    pub(super) calls: Calls,
}

impl Client {
    /// The client of an attempt; without a grant every request is denied.
    pub(super) fn new(grant: Option<Arc<Grant>>, log: &Log) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HTTP_FIELDS_BYTES_MAX);
        Self { context, calls: Calls { grant, log: log.clone(), n_left: HTTP_REQUESTS_MAX } }
    }
}

/// The requests of one attempt.
pub(super) struct Calls {
    grant: Option<Arc<Grant>>,
    log: Log,
    n_left: u32,
}

impl Calls {
    /// Decides everything that can be decided without looking up a name.
    fn admit<B>(&mut self, request: &Request<B>) -> Result<(Arc<Grant>, Target), Error> {
        let warn = |text: String| self.log.line(Level::Warn, "http", &text);
        if self.n_left == 0 {
            warn(format!("request refused: an attempt sends at most {HTTP_REQUESTS_MAX}"));
            return Err(Error::ConnectionLimitReached);
        }
        self.n_left -= 1;
        if *request.method() == Method::CONNECT {
            warn("request refused: CONNECT would make a tunnel".to_owned());
            return Err(Error::HttpRequestMethodInvalid);
        }
        let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?.as_str();
        let default_port = if send::is_tls(request) { 443 } else { 80 };
        let target = Target::parse(authority, default_port).map_err(|why| {
            warn(format!("request denied: the host `{authority}` {why}"));
            Error::HttpRequestDenied
        })?;
        let Some(grant) = &self.grant else {
            warn(format!("request to {target} denied: nothing is granted"));
            return Err(Error::HttpRequestDenied);
        };
        grant.check(&target).map_err(|why| {
            warn(format!("request to {target} denied: {why}"));
            grant.network.tell(&target, &why, &self.log);
            Error::HttpRequestDenied
        })?;
        Ok((Arc::clone(grant), target))
    }
}

impl WasiHttpHooks for Calls {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> SentFuture {
        let admitted = self.admit(&request);
        let log = self.log.clone();
        Box::new(async move {
            let (grant, target) = admitted?;
            let runtime = grant.network.runtime()?;
            let options = options.unwrap_or_default();
            send::Task(runtime.spawn(send::send(request, options, target, grant, log))).await?
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PIECE_BYTES_MAX
    }

    // What goes wrong between a guest and a server is told to the guest; the host's log is not theirs to fill.
    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        if error.is_parse_too_large() {
            return ErrorCode::HttpResponseHeaderSectionSize(None);
        }
        if error.is_timeout() {
            return ErrorCode::HttpResponseTimeout;
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return ErrorCode::HttpResponseIncomplete;
        }
        ErrorCode::HttpProtocolError
    }

    fn p2_error_from_connect(&mut self, _error: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionTerminated
    }

    fn p2_error_from_tls(&mut self, _error: &std::io::Error) -> ErrorCode {
        ErrorCode::TlsProtocolError
    }
}
