//! The composition root: from a configuration to running services, and back to silence.
//!
//! This is the only file that names every service. They start in the order in which they need each other and stop in
//! reverse: first nothing new is taken, then what runs ends or is released, then the node's hashes are cleaned, last
//! the private Redis goes.
//!
//! Invariant: a host is whole or not there. When a service ends on its own, all others are stopped and the program
//! ends with an error; nothing half-alive keeps its place in the fleet.

mod past;
mod signing;
mod source;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bridge::{self, Bridge};
use crate::config::{self, Config, Sources};
use crate::executor::permits::{self, Permits};
use crate::executor::wasm::{WasmExecutor, WasmOptions};
use crate::facts::Component;
use crate::http;
use crate::job::{StoreId, visible};
use crate::jumpscript::{Digest, Manifest, ScriptName};
use crate::maintenance::Maintenance;
use crate::node;
use crate::permissions::{Ceiling, KeepOut};
use crate::ports::{BoxFuture, Candidate, PublishError, PublishRule, Published, Publisher, Pulse};
use crate::protocol::Protocol;
use crate::sandbox::{self, Compiler, FirstTier, Sandbox};
use crate::scripts_folder::{self, Params, ScriptsFolder};
use crate::signatures::{Gate, Signature, SigningKey};
use crate::store::embedded::{self, Embedded};
use crate::store::{self, Act, How, NewJumpscript, Store};
use crate::supplies::Supplies;
use crate::telemetry::LevelHandle;
use crate::worker::{self, Worker};

pub use self::past::Back;
pub use self::signing::{digest_of_file, file_as_published, gate_of_command, sign_file};
use self::signing::{identity, whole};
pub use self::source::shipped_interpreter;

/// How long a job of an unknown type waits for its jumpscript.
pub const UNKNOWN_TYPE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a host did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The engine.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// Anything else, as a sentence; a line `hint: ...` may follow.
    #[error("{0}")]
    Other(String),
}

/// A running host.
pub struct Host {
    store: Store,
    publisher: StorePublisher,
    services: JoinSet<&'static str>,
    stop_worker: watch::Sender<bool>,
    stop_rest: watch::Sender<bool>,
    worker_done: Option<tokio::task::JoinHandle<worker::Totals>>,
    embedded: Option<Embedded>,
    redis_url: String,
    http_address: Option<SocketAddr>,
}

impl Host {
    /// Starts every service. Must be called inside a current-thread runtime: it becomes the I/O thread.
    ///
    /// `compiler` is the program that compiles jumpscripts as a child process; normally this one.
    ///
    /// # Errors
    /// When Redis, the engine, the scripts folder or the private Redis cannot be used; nothing is left running.
    pub async fn start(config: &Config, compiler: Compiler, extras: Extras) -> Result<Self, Error> {
        let embedded = if config.redis.is_embedded {
            Some(Embedded::start(&config.data).await.map_err(Error::Other)?)
        } else {
            None
        };
        let mut options = store_options(config);
        if let Some(embedded) = &embedded {
            options.url.clone_from(&embedded.address().url);
        }
        match Self::start_on(config, compiler, extras, &options).await {
            Ok(host) => Ok(Self { embedded, ..host }),
            Err(error) => {
                if let Some(embedded) = embedded {
                    embedded.stop().await;
                }
                Err(error)
            }
        }
    }

    async fn start_on(
        config: &Config,
        compiler: Compiler,
        extras: Extras,
        options: &store::Options,
    ) -> Result<Self, Error> {
        let store = Store::connect(StoreId::default(), options).await?.acting_as(&format!("node {}", config.node));
        refuse_on_cluster(config, &store)?;
        store.server_notes().iter().for_each(|note| tracing::warn!(note, "redis is usable, but"));
        let wanted = sandbox_options(config, compiler);
        let sandbox = sandbox_beside(&store, sandbox::Options { has_source_lines: extras.has_source_lines, ..wanted })?;
        let pool_size = sandbox.pool_size();
        let concurrency = concurrency_within(pool_size, config);
        let gate = host_gate(config)?;
        let publisher = StorePublisher::new(store.clone(), config.ceiling.clone()).with_gate(Arc::clone(&gate));
        let publisher = publisher.checking(sandbox.clone());
        let supplies = supplies_beside(&store, config);
        let executor = wasm_executor(config, sandbox, &store, &supplies, &options.url, concurrency)?;
        let executor = Arc::new(executor.with_gate(Arc::clone(&gate)));
        let pulse = Arc::new(Pulse::new());
        let running = Arc::clone(&executor);
        let (bridges, taking) = bridges(config, &store);
        let mut worker = Worker::new(taking, executor.clone(), worker_options(config, concurrency), Arc::clone(&pulse));
        extras.on_attempt.into_iter().for_each(|on_attempt| worker.tell_ends(on_attempt));
        let (stop_worker, worker_stopped) = watch::channel(false);
        let (stop_rest, rest_stopped) = watch::channel(false);
        let (tell_faults, file_faults) = watch::channel(Vec::new());
        let (tell_denied, denied) = watch::channel(Vec::new());
        let (tell_code_faults, code_faults) = watch::channel(Vec::new());
        let list_faults = bridge::Faults::default();
        let (tell_limits, limits) = watch::channel(config.health);
        let folder = scripts_folder(config, publisher.clone(), tell_faults)?;
        let restorer = folder.as_ref().map(ScriptsFolder::restorer);
        let (watchdog, health, board) = node::services(node::Params {
            store: store.clone(),
            node: config.node.clone(),
            gid: config.gid,
            nid: config.nid,
            roles: config.roles.clone(),
            queues: config.served_queues().into_iter().map(|queue| queue.name).collect(),
            loops: vec![node::Loop { name: "worker".to_owned(), queue: None, pulse: Arc::clone(&pulse) }],
            data: config.data.clone(),
            pool_size,
            file_faults,
            denied,
            code_faults,
            queue_faults: worker.faults(),
            list_faults: list_faults.subscribe(),
            limits,
        });
        let http = http_server(config, options, || http::Facts {
            node: config.node.clone(),
            board: board.clone(),
            worker: worker.metrics(),
            pulse: Arc::clone(&pulse),
            running: Box::new(move || running.running()),
            signatures: Arc::clone(&gate),
            pool_size,
            stopping: worker_stopped.clone(),
        })
        .await?;
        let on_flushed = Box::new(move || {
            board.nudge();
            if let Some(restorer) = &restorer {
                restorer.restore();
            }
        });
        let (seen, done_ttl) = (worker.seen(), config.limits.done_ttl);
        let maintenance = Maintenance::new(store.clone(), executor, seen, on_flushed, tell_denied, done_ttl)
            .with_gate(gate, tell_code_faults);
        let mut services = Services { tasks: JoinSet::new(), stopped: rest_stopped };
        services.start("watchdog", |stopped| watchdog.run(stopped));
        services.start("health", |stopped| health.run(stopped));
        services.start("maintenance", |stopped| maintenance.run(stopped));
        let http_address = http.map(|http| services.start_http(http));
        if let Some(folder) = folder {
            services.start("scripts folder", |stopped| folder.run(stopped));
        }
        if let Some(Reload { sources, level }) = extras.reload {
            let reloader = node::Reloader::new(config.clone(), sources, tell_limits, supplies, level)
                .map_err(|error| Error::Other(format!("SIGHUP cannot be handled: {error}")))?;
            services.start("reloader", |stopped| reloader.run(stopped));
        }
        for bridge in bridges {
            let bridge = bridge::Service::new(store.clone(), bridge, &config.node, list_faults.clone());
            services.start("bridge", |stopped| bridge.beside(worker.drawn()).run(stopped));
        }
        let worker_done = tokio::spawn(worker.run(worker_stopped));
        Ok(Self {
            store,
            publisher,
            services: services.tasks,
            stop_worker,
            stop_rest,
            worker_done: Some(worker_done),
            embedded: None,
            redis_url: options.url.clone(),
            http_address,
        })
    }

    /// The store that the host works on.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Who publishes into its store.
    #[must_use]
    pub fn publisher(&self) -> StorePublisher {
        self.publisher.clone()
    }

    /// Where its private Redis is, when it has one.
    #[must_use]
    pub fn embedded(&self) -> Option<&embedded::Address> {
        self.embedded.as_ref().map(Embedded::address)
    }

    /// Where its Redis is, without password.
    #[must_use]
    pub fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// Where it serves HTTP, when it does.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Resolves when a part of the host ended that must not, with a sentence. Cancel-safe.
    pub async fn failed(&mut self) -> String {
        let embedded = self.embedded.as_mut();
        tokio::select! {
            ended = self.services.join_next() => match ended {
                Some(Ok(name)) => format!("the service `{name}` ended; this is a bug, please report it with the log"),
                _ => "a service failed; this is a bug, please report it with the log".to_owned(),
            },
            ended = joined(self.worker_done.as_mut()) => match ended {
                Ok(_) => "the worker ended; this is a bug, please report it with the log".to_owned(),
                Err(error) => format!("the worker failed ({error}); this is a bug, please report it with the log"),
            },
            text = died(embedded) => text,
        }
    }

    /// Drains and stops: running jobs get the grace, then they are released to the head of their queues.
    pub async fn stop(mut self) -> worker::Totals {
        // A receiver that is gone means a service that has ended: nothing to stop there.
        let _ = self.stop_worker.send(true);
        let totals = match self.worker_done.take() {
            Some(worker) => worker.await.unwrap_or_default(),
            None => worker::Totals::default(),
        };
        let _ = self.stop_rest.send(true);
        while self.services.join_next().await.is_some() {}
        if let Some(embedded) = self.embedded.take() {
            embedded.stop().await;
        }
        totals
    }
}

/// What only some hosts have.
#[derive(Default)]
pub struct Extras {
    /// A changed configuration is taken on SIGHUP.
    pub reload: Option<Reload>,
    /// Who shows each attempt that has ended.
    pub on_attempt: Option<worker::OnAttempt>,
    /// Whether backtraces name source lines, where the code has debug information.
    pub has_source_lines: bool,
}

/// Where a changed configuration comes from, and what takes a new log level.
#[derive(Debug)]
pub struct Reload {
    /// The sources that were read at the start.
    pub sources: Sources,
    /// The filter of the log.
    pub level: Option<LevelHandle>,
}

/// The services beside the worker.
struct Services {
    tasks: JoinSet<&'static str>,
    stopped: watch::Receiver<bool>,
}

impl Services {
    /// Starts the HTTP server; where it listens.
    fn start_http(&mut self, server: http::Server) -> SocketAddr {
        let address = server.address();
        self.start("http", |stopped| server.run(stopped));
        address
    }

    /// Starts a service; its name is said when it ends although nobody asked it to.
    fn start<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        run: impl FnOnce(watch::Receiver<bool>) -> F,
    ) {
        let service = run(self.stopped.clone());
        self.tasks.spawn(async move {
            service.await;
            name
        });
    }
}

/// The engine of a host that works on `store`, whose servers no jumpscript reaches.
fn sandbox_beside(store: &Store, mut options: sandbox::Options) -> Result<Sandbox, Error> {
    // Behind Sentinels and on a Cluster the configuration does not name every server.
    let found = store.setup().servers.into_iter();
    options.http.keep_out.extend(found.map(|(host, port)| KeepOut { what: OWN_REDIS, host, port: Some(port) }));
    let sandbox = Sandbox::new(options)?;
    sandbox.notes().iter().for_each(|note| tracing::warn!(note, "engine is usable, but"));
    Ok(sandbox)
}

/// What jumpscripts are given; the health hashes are read on this thread, the I/O thread.
fn supplies_beside(store: &Store, config: &Config) -> Arc<Supplies> {
    let (store, io) = (store.clone(), tokio::runtime::Handle::current());
    let read = move || -> BoxFuture<'static, Result<Vec<Component>, String>> {
        let store = store.clone();
        let read = io.spawn(async move { store.health_components().await });
        Box::pin(async move {
            let away = |error: &dyn std::fmt::Display| {
                tracing::warn!(%error, "health hashes not read for a jumpscript");
                "the health hashes cannot be read now: Redis does not answer, or refuses; the host's log says why"
                    .to_owned()
            };
            match read.await {
                Ok(found) => found.map_err(|error| away(&error)),
                Err(error) => Err(away(&error)),
            }
        })
    };
    Arc::new(Supplies::new(config.supplies.clone()).with_health(Arc::new(read)))
}

/// How many jobs may run at once: as many as were asked for, if the pool has an instance for each.
fn concurrency_within(pool_size: usize, config: &Config) -> usize {
    let concurrency = config.concurrency.min(pool_size);
    if concurrency < config.concurrency {
        tracing::warn!(asked = config.concurrency, concurrency, "concurrency lowered to the pool's size");
    }
    concurrency
}

/// The guest threads. Must be called on the I/O thread, where code is fetched.
fn wasm_executor(
    config: &Config,
    sandbox: Sandbox,
    store: &Store,
    supplies: &Arc<Supplies>,
    redis_url: &str,
    concurrency: usize,
) -> Result<WasmExecutor, Error> {
    let options = WasmOptions {
        threads: guest_threads(redis_url),
        concurrency,
        memory_bytes_max: config.limits.memory_bytes_max,
        node: config.node.clone(),
    };
    let (code, state) = (Arc::new(store.clone()), Arc::new(store.clone()));
    let permits = Permits::new(config.ceiling.clone(), code.clone());
    let (supply, io) = (Arc::clone(supplies), tokio::runtime::Handle::current());
    WasmExecutor::start_threads(sandbox, code, state, supply, permits, io, options)
        .map_err(|error| Error::Other(format!("cannot start the threads for guests: {error}")))
}

/// What decides whose code is published and run.
fn host_gate(config: &Config) -> Result<Arc<Gate>, Error> {
    let config::Signatures { policy, trusted } = config.signatures.clone();
    Gate::of_host(policy, trusted, &config.data).map(Arc::new).map_err(Error::Other)
}

/// The HTTP server, when an address is named for it.
async fn http_server(
    config: &Config,
    redis: &store::Options,
    facts: impl FnOnce() -> http::Facts,
) -> Result<Option<http::Server>, Error> {
    let Some(listen) = config.http.listen else { return Ok(None) };
    let (token, open) = (config.http.token.clone(), config.http.open.clone());
    let server = http::Server::start(http::Params { listen, token, open, redis: redis.clone(), facts: facts() });
    server.await.map(Some).map_err(Error::Other)
}

/// The service of the scripts folder, when one is named, which tells its faults to the health checks.
fn scripts_folder(
    config: &Config,
    publisher: StorePublisher,
    faults: watch::Sender<Vec<String>>,
) -> Result<Option<ScriptsFolder>, Error> {
    let Some(folder) = config.scripts.clone() else { return Ok(None) };
    let on_state = move |state: &scripts_folder::State| {
        let told = state.faults.values().cloned().collect::<Vec<_>>();
        faults.send_if_modified(|old| std::mem::replace(old, told.clone()) != told);
    };
    ScriptsFolder::new(Params {
        folder,
        publisher: Arc::new(publisher),
        on_state: Arc::new(on_state),
        options: crate::watch::Options::default(),
    })
    .map(Some)
    .map_err(Error::Other)
}

async fn joined(
    worker: Option<&mut tokio::task::JoinHandle<worker::Totals>>,
) -> Result<worker::Totals, tokio::task::JoinError> {
    match worker {
        Some(worker) => worker.await,
        None => std::future::pending().await,
    }
}

async fn died(embedded: Option<&mut Embedded>) -> String {
    match embedded {
        Some(embedded) => embedded.died().await,
        None => std::future::pending().await,
    }
}

/// How the store is reached.
#[must_use]
pub fn store_options(config: &Config) -> store::Options {
    store::Options {
        url: config.redis.url.clone(),
        password: config.redis.password.as_ref().map(|secret| secret.reveal().to_owned()),
        prefix: config.prefix.clone(),
        node_prefix: config.node_prefix.clone(),
        connect_timeout: config.redis.connect_timeout,
        command_timeout: config.redis.command_timeout,
        pool: config.redis.pool,
        tls: config.redis.tls.clone(),
        sentinel_password: config.redis.sentinel_password.as_ref().map(|secret| secret.reveal().to_owned()),
    }
}

/// How the sandbox is set up.
#[must_use]
pub fn sandbox_options(config: &Config, compiler: Compiler) -> sandbox::Options {
    sandbox::Options {
        pool_size: if config.sandbox.pool_size == 0 { config.concurrency } else { config.sandbox.pool_size },
        memory_bytes_max: config.limits.memory_bytes_max,
        artifacts: Some(config.data.join("artifacts")),
        compiler,
        first_tier: FirstTier { from_bytes: config.sandbox.first_tier_kib * 1024, is_optimised: true },
        hardening: match config.sandbox.hardening {
            config::Hardening::Default => sandbox::Hardening::Default,
            config::Hardening::Strict => sandbox::Hardening::Strict,
        },
        http: http_options(config),
        ..sandbox::Options::default()
    }
}

/// What a jumpscript that asks for it is told.
const OWN_REDIS: &str = "the node's own Redis";

/// Where jumpscripts may send HTTP requests: what is allowed, but never to the node's own services.
#[must_use]
pub fn http_options(config: &Config) -> sandbox::HttpOptions {
    let url = Some(&config.redis.url).filter(|_| !config.redis.is_embedded);
    let named = url.map(|url| config::hosts_and_ports(url)).unwrap_or_default();
    let private = embedded::address(&config.data).map(|address| ("127.0.0.1".to_owned(), address.port));
    let redis = named.into_iter().chain(private).map(|place| (OWN_REDIS, place));
    let kubernetes = config.kubernetes_api.clone().map(|place| ("the API of Kubernetes", place));
    let keep_out = redis.chain(kubernetes);
    sandbox::HttpOptions {
        allow: config.allow_http.clone(),
        keep_out: keep_out.map(|(what, (host, port))| KeepOut { what, host, port: Some(port) }).collect(),
    }
}

/// This program as the compiler. The link of the kernel works even after the file was replaced by an upgrade.
#[must_use]
pub fn own_compiler() -> Compiler {
    Compiler::Child { program: PathBuf::from("/proc/self/exe") }
}

fn worker_options(config: &Config, concurrency: usize) -> worker::Options {
    worker::Options {
        queues: config.served_queues().into_iter().map(|queue| (queue.name, queue.weight)).collect(),
        is_strict: config.is_strict,
        concurrency,
        lease: config.lease,
        heartbeat: config.heartbeat,
        grace: config.grace,
        node: config.node.clone(),
        done_ttl: config.limits.done_ttl,
        retry: config.retry,
        unknown_type_wait: UNKNOWN_TYPE_WAIT,
    }
}

/// The keys of other systems have no hash tag: on a Cluster they lie with other nodes than ours, and no script reaches
/// both.
fn refuse_on_cluster(config: &Config, store: &Store) -> Result<(), Error> {
    match config.protocols.first().filter(|_| store.is_cluster()) {
        None => Ok(()),
        Some(protocol) => Err(Error::Other(format!(
            "protocol `{protocol}` cannot be served on a Redis Cluster: its keys and ours lie with different nodes\n\
             hint: leave `--protocol` out, or name a Redis that is no Cluster, which its programs push to"
        ))),
    }
}

/// The bridges to the systems that the configuration names, and the store of a worker that takes from their lists.
fn bridges(config: &Config, store: &Store) -> (Vec<Arc<dyn Bridge>>, Store) {
    let bridge = |protocol: &Protocol| match protocol {
        Protocol::Hero => Arc::new(bridge::Hero::new(&config.hero_types)) as Arc<dyn Bridge>,
    };
    let bridges: Vec<_> = config.protocols.iter().map(bridge).collect();
    let taking = store.taking_from(bridges.iter().flat_map(|bridge| bridge.sources()).cloned());
    (bridges, taking)
}

/// One thread for guests per core; one core is left to Redis when it runs here. A second guest thread on two cores
/// beside Redis loses a sixth of the throughput.
pub(crate) fn guest_threads(redis_url: &str) -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let host = redis_url.split("://").nth(1).unwrap_or(redis_url);
    let host = host.rsplit('@').next().unwrap_or(host);
    let is_local =
        redis_url.starts_with("unix:") || ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local));
    NonZeroUsize::new(if is_local { cores - 1 } else { cores }).unwrap_or(NonZeroUsize::MIN)
}

/// Why code may not be published under a name.
enum Refusal {
    /// It requests what nobody has granted: a sentence with a hint.
    Denied(String),
    /// Redis did not say what is granted.
    Store(store::Error),
}

/// Publishes files into the store, after the sandbox has looked at them.
#[derive(Clone)]
pub struct StorePublisher {
    store: Store,
    /// Where scripts' texts are read by their interpreters.
    sandbox: Option<Sandbox>,
    ceiling: Ceiling,
    gate: Arc<Gate>,
    signer: Option<Arc<SigningKey>>,
    warn: Arc<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for StorePublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gate, signer, .. } = self;
        f.debug_struct("StorePublisher").field("gate", gate).field("signer", signer).finish_non_exhaustive()
    }
}

impl StorePublisher {
    /// Publishes into `store` what `ceiling` and the grants there allow, whoever signed or did not.
    #[must_use]
    pub fn new(store: Store, ceiling: Ceiling) -> Self {
        let warn = Arc::new(|warning: &str| tracing::warn!(warning, "jumpscript published all the same"));
        Self { store, gate: Arc::new(Gate::off()), signer: None, warn, sandbox: None, ceiling }
    }

    /// Has a gate decide what is published.
    #[must_use]
    pub fn with_gate(self, gate: Arc<Gate>) -> Self {
        Self { gate, ..self }
    }

    /// Signs what is published.
    #[must_use]
    pub fn signing(self, signer: SigningKey) -> Self {
        Self { signer: Some(Arc::new(signer)), ..self }
    }

    /// Tells warnings to `warn` in place of the log.
    #[must_use]
    pub fn warning(self, warn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { warn: Arc::new(warn), ..self }
    }

    /// Has the interpreters in `sandbox` read a script's text before it is published.
    #[must_use]
    pub fn checking(self, sandbox: Sandbox) -> Self {
        Self { sandbox: Some(sandbox), ..self }
    }

    /// Compares what code requests with what it is allowed under its name.
    async fn check_permissions(&self, name: &ScriptName, digest: &Digest, manifest: &Manifest) -> Result<(), Refusal> {
        if manifest.permissions.is_empty() {
            return Ok(());
        }
        let mut found = self.store.code_grants(digest).await.map_err(Refusal::Store)?;
        found.names.push(name.to_string());
        permits::permit(&self.ceiling, &found, digest, &manifest.permissions).map(drop).map_err(|denied| {
            let what = denied.what();
            Refusal::Denied(format!("{what}\nhint: {}; or allow it in the host's configuration", denied.command()))
        })
    }

    async fn publish(&self, candidate: Candidate, how: How) -> Result<Published, PublishError> {
        let file = visible(&candidate.file);
        let refused = |text: String| PublishError::Refused(format!("`{file}`: {text}"));
        let default_name = candidate.default_name.clone();
        let beside = candidate.signature.clone();
        let wasm = match self.source(&candidate).await? {
            Some(source) => source.encode(),
            None => whole(candidate).map_err(refused)?,
        };
        let digest = Digest::of(&wasm);
        let given = self.given(beside.as_deref(), &digest).map_err(refused)?;
        let identity = identity(&wasm, &default_name).map_err(refused)?;
        // What was live goes live again as it is.
        if let Some(import) = identity.unrequested_http.as_ref().filter(|_| how.act != Act::RolledBack) {
            return Err(refused(format!(
                "it imports `{import}`, and its manifest does not say where its requests go\n\
                 hint: put this under [permissions] in its jumpscript.toml: `http = [\"api.example.com:443\"]` with the hosts \
                 that it calls, or `http = []` when it calls none"
            )));
        }
        let (name, version) = (identity.name.clone(), identity.version());
        let signature = match &self.signer {
            Some(key) => Some(Signature::new(identity.statement(&digest, &how), key)),
            None => given.filter(|given| given.statement.name == name.to_string()),
        };
        self.check_permissions(&name, &digest, &identity.manifest).await.map_err(|refusal| match refusal {
            Refusal::Denied(text) => refused(text),
            Refusal::Store(error) => PublishError::of_store(&file, &error),
        })?;
        self.look(&name, signature.as_ref(), &digest, &how).await.map_err(|error| error.about(&file))?;
        let script = NewJumpscript { name: name.clone(), kind: identity.kind, manifest: identity.manifest };
        let published = self.store.publish(&script, &wasm, How { signature, ..how }).await;
        let published = published.map_err(|error| PublishError::of_store(&file, &error))?;
        let is_live = published.digest == digest;
        let version = if is_live {
            version
        } else {
            self.store.script(&name).await.ok().flatten().map_or_else(String::new, |live| live.version)
        };
        Ok(Published { name, digest: published.digest, version, is_new: published.is_new, is_live })
    }
}

impl PublishError {
    /// What the store says about `thing`, a file or a name.
    fn of_store(thing: &str, error: &store::Error) -> Self {
        let text = match error.hint() {
            Some(hint) => format!("`{thing}`: {error}\nhint: {hint}"),
            None => format!("`{thing}`: {error}"),
        };
        if error.is_transient() { Self::Unavailable(text) } else { Self::Refused(text) }
    }

    /// With the file that it is about.
    fn about(self, file: &str) -> Self {
        match self {
            Self::Refused(text) => Self::Refused(format!("`{file}`: {text}")),
            Self::Unavailable(text) => Self::Unavailable(format!("`{file}`: {text}")),
        }
    }
}

impl Publisher for StorePublisher {
    fn publish(&self, candidate: Candidate, rule: PublishRule) -> BoxFuture<'_, Result<Published, PublishError>> {
        Box::pin(self.publish(candidate, rule.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_left_to_a_redis_on_this_machine() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let local = NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN);
        for url in ["redis://127.0.0.1:6379", "unix:///run/redis.sock", "redis://u:p@localhost/0", "redis://[::1]:1"] {
            assert_eq!(guest_threads(url), local, "{url}");
        }
        assert_eq!(guest_threads("redis://10.0.0.7:6379").get(), cores);
    }
}
