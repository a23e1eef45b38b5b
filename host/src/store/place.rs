//! Where the server is that a store works on: at an address, behind Sentinels, or among the nodes of a Cluster.
//!
//! Invariant: whoever makes a connection asks here first, and what is known from before only says whom to ask. So a
//! store follows a failover and a slot that moves by connecting again, and by nothing else. One server is enough on a
//! Cluster, too: all keys of a store share one hash tag, and with it one slot.
//!
//! Next: `link` for the connections, `server` for what is asked of the server that was found.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::meaning::{without_password, words};
use super::slots::{Node, hash_tag, list, node_of, read_slots, slot_of};
use super::{Error, Options};
use crate::config::{RedisTls, RedisWay, redis_parts};

/// A connection that says nothing is asked whether it lives after this long, and is given up after a minute without
/// an answer: a machine that vanished closes nothing.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(10);
/// Most nodes of a Cluster that are remembered.
const NODES_MAX: usize = 64;

/// What Sentinels are asked for.
struct Service {
    name: String,
    password: Option<String>,
}

/// Where the server of a store is.
pub(super) struct Place {
    /// The login, the database and the socket's settings of every server; the address of the first one that was named.
    info: ConnectionInfo,
    is_tls: bool,
    tls: RedisTls,
    /// For texts.
    name: String,
    service: Option<Service>,
    /// The slot of all keys; set when the server belongs to a Cluster.
    slot: OnceLock<u16>,
    prefix: String,
    /// Sentinels, or nodes of the Cluster: those that were named, and those that were heard of since.
    nodes: Mutex<Vec<Node>>,
    limit: Duration,
}

/// A server that was found.
pub(super) struct Found {
    pub(super) client: Client,
    /// Its address; `None` when it is the one that the URL names.
    pub(super) at: Option<Node>,
}

/// Why no server was found.
pub(super) enum Lost {
    /// Nobody answered, or nobody knows: a sentence.
    Away(String),
    /// The files of TLS cannot be used.
    Tls(String),
    /// A server refused the question.
    Refused(RedisError),
}

impl Place {
    /// Reads the options; asks nobody.
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let url = normal_url(&options.url);
        let bad = |reason: String| Error::Url { url: without_password(&options.url), reason };
        let is_socket = url.starts_with("unix:") || url.starts_with("redis+unix:");
        let parts = if is_socket { None } else { Some(redis_parts(&url).map_err(bad)?) };
        let nodes: Vec<Node> = parts
            .iter()
            .flat_map(|parts| &parts.hosts)
            .map(|(host, port)| Node { host: (*host).to_owned(), port: *port })
            .collect();
        let (mut plain, mut service, mut is_cluster) = (url.clone(), None, false);
        if let (Some(parts), Some(first)) = (&parts, nodes.first()) {
            match parts.way {
                RedisWay::Server => {}
                RedisWay::Cluster => is_cluster = true,
                RedisWay::Sentinel(name) => {
                    service = Some(Service { name: name.to_owned(), password: options.sentinel_password.clone() });
                }
            }
            if parts.way != RedisWay::Server {
                let at = if parts.login.is_empty() { "" } else { "@" };
                plain = format!("redis://{}{at}{first}/{}", parts.login, parts.database);
            }
        }
        let info = plain.as_str().into_connection_info().map_err(|error| bad(words(&error)))?;
        let mut settings = info.redis_settings().clone().set_lib_name("wasmhost", env!("CARGO_PKG_VERSION"));
        if settings.username().is_some() {
            // Users of a role may not say it, and each try would stand in the server's log.
            settings = settings.set_skip_set_lib_name();
        }
        match &options.password {
            Some(password) => settings = settings.set_password(password),
            // A user without a password logs in as well: nothing is ever done as another user than the one named.
            None if settings.username().is_some() && settings.password().is_none() => {
                settings = settings.set_password("");
            }
            None => {}
        }
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_PERIOD).with_retries(3);
        let tcp = info.tcp_settings().clone().set_nodelay(true).set_keepalive(keepalive);
        let name = match (&service, info.addr(), is_cluster) {
            (Some(service), _, _) => format!("{} of Sentinels {}", service.name, list(&nodes)),
            (None, _, true) => format!("cluster {}", list(&nodes)),
            (None, ConnectionAddr::Unix(path), _) => path.display().to_string(),
            (None, ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }, _) => {
                format!("{host}:{port}")
            }
            (None, other, _) => other.to_string(),
        };
        let place = Self {
            info: info.set_redis_settings(settings).set_tcp_settings(tcp),
            is_tls: parts.is_some_and(|parts| parts.is_tls),
            tls: options.tls.clone(),
            name,
            service,
            slot: OnceLock::new(),
            prefix: options.prefix.clone(),
            nodes: Mutex::new(nodes),
            limit: options.connect_timeout,
        };
        if is_cluster {
            place.join_cluster()?;
        }
        // Wrong files are told at once, not with the first connection.
        place.client(None, None).map_err(|error| place.tls_error(words(&error)))?;
        Ok(place)
    }

    /// What it is called in texts.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.slot.get().is_some()
    }

    /// The name of the service that Sentinels are asked for.
    pub(super) fn service(&self) -> Option<&str> {
        self.service.as_ref().map(|service| service.name.as_str())
    }

    /// The user who logs in.
    pub(super) fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    /// Sentinels or nodes that are known.
    pub(super) fn nodes(&self) -> Vec<Node> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn tls_error(&self, reason: String) -> Error {
        Error::Tls { address: self.name.clone(), reason }
    }

    /// What may be behind a connection that a server of TLS closed at once.
    pub(super) fn perhaps(&self, error: &RedisError) -> &'static str {
        if self.is_tls
            && self.tls.cert_file.is_none()
            && error.is_connection_dropped()
            && !error.is_connection_refusal()
        {
            "; perhaps it asks for a certificate, see redis.cert_file"
        } else {
            ""
        }
    }

    /// The server turned out to belong to a Cluster: from now on the owner of the prefix's slot is looked for.
    ///
    /// # Errors
    /// When the prefix has no hash tag, or the URL names a database.
    pub(super) fn join_cluster(&self) -> Result<(), Error> {
        let Some(tag) = hash_tag(&self.prefix) else {
            return Err(Error::NoHashTag { address: self.name.clone(), prefix: self.prefix.clone() });
        };
        // Somebody else said the same before.
        let _ = self.slot.set(slot_of(tag.as_bytes()));
        Ok(())
    }

    /// Asks whom there is to ask for the master.
    pub(super) async fn find(&self) -> Result<Found, Lost> {
        let at = match (&self.service, self.slot.get()) {
            (Some(service), _) => Some(self.master(service).await?),
            (None, Some(slot)) => Some(self.owner(*slot).await?),
            (None, None) => None,
        };
        let client = self.client(at.as_ref(), None).map_err(|error| Lost::Tls(words(&error)))?;
        Ok(Found { client, at })
    }

    /// Why the server that was found cannot be worked on, if so: Sentinels may still name a master that was.
    pub(super) async fn trouble(&self, connection: &mut MultiplexedConnection) -> Option<String> {
        self.service.as_ref()?;
        // A user who may not ask learns it from the first write: it is refused, and the connection given up.
        let answer: Value = redis::cmd("ROLE").query_async(connection).await.ok()?;
        match answer {
            Value::Array(parts) => match parts.into_iter().next() {
                Some(Value::BulkString(role)) if role == b"master" => None,
                _ => Some("the server that the Sentinels name is not the master".to_owned()),
            },
            _ => None,
        }
    }

    /// A node that MOVED named is asked first.
    pub(super) fn prefer(&self, address: &str) {
        if let (true, Some(node)) = (self.is_cluster(), Node::parse(address)) {
            self.remember(vec![node]);
        }
    }

    /// Puts nodes before all others.
    fn remember(&self, first: Vec<Node>) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = std::mem::replace(&mut *nodes, first);
        for node in rest {
            if nodes.len() < NODES_MAX && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
    }

    /// The node that most Sentinels call the master.
    async fn master(&self, service: &Service) -> Result<Node, Lost> {
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let settings = match &service.password {
            Some(password) => settings.set_password(password),
            None => settings,
        };
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&service.name);
        let sentinels = self.nodes();
        let limit = self.limit / 2;
        let mut asked: FuturesUnordered<_> =
            sentinels.iter().map(|sentinel| self.ask(sentinel, Some(&settings), &question, limit)).collect();
        let most = sentinels.len() / 2 + 1;
        let (mut votes, mut reasons): (Vec<(Node, usize)>, Vec<String>) = (Vec::new(), Vec::new());
        while let Some((sentinel, answer)) = asked.next().await {
            let node = match answer {
                Ok(Value::Array(pair)) => node_of(&pair, &sentinel.host),
                Ok(_) => {
                    reasons.push(format!("Sentinel {sentinel} knows no service `{}`", service.name));
                    continue;
                }
                Err(Lost::Tls(reason)) => return Err(Lost::Tls(reason)),
                Err(Lost::Away(reason)) => {
                    reasons.push(format!("Sentinel {sentinel}: {reason}"));
                    continue;
                }
                Err(Lost::Refused(error)) => {
                    reasons.push(format!("Sentinel {sentinel} says {}", words(&error)));
                    continue;
                }
            };
            let Some(node) = node else { continue };
            let n = match votes.iter_mut().find(|(known, _)| *known == node) {
                Some((_, n)) => {
                    *n += 1;
                    *n
                }
                None => {
                    votes.push((node.clone(), 1));
                    1
                }
            };
            if n >= most {
                return Ok(node);
            }
        }
        votes.into_iter().max_by_key(|(_, n)| *n).map(|(node, _)| node).ok_or_else(|| Lost::Away(reasons.join("; ")))
    }

    /// The node that owns a slot.
    async fn owner(&self, slot: u16) -> Result<Node, Lost> {
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let limit = (self.limit / 4).max(Duration::from_millis(100));
        let mut reasons = Vec::new();
        for node in self.nodes() {
            let answer = match self.ask(&node, None, &question, limit).await.1 {
                Ok(answer) => answer,
                Err(Lost::Away(reason)) => {
                    reasons.push(format!("node {node}: {reason}"));
                    continue;
                }
                Err(other) => return Err(other),
            };
            let (owner, mut known) = read_slots(answer, slot, &node.host);
            known.insert(0, node.clone());
            known.dedup();
            self.remember(known);
            match owner {
                Some(owner) => return Ok(owner),
                None => reasons.push(format!("node {node}: nobody serves slot {slot}")),
            }
        }
        Err(Lost::Away(reasons.join("; ")))
    }

    /// One question to one server, over a connection of its own.
    async fn ask<'a>(
        &self,
        node: &'a Node,
        login: Option<&RedisConnectionInfo>,
        question: &Cmd,
        limit: Duration,
    ) -> (&'a Node, Result<Value, Lost>) {
        let answered = async {
            let client = self.client(Some(node), login).map_err(|error| Lost::Tls(words(&error)))?;
            let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            let refused = |error: RedisError| match () {
                () if self.is_tls && is_tls_trouble(&error) => Lost::Tls(words(&error)),
                () if error.is_io_error() => Lost::Away(words(&error)),
                () => Lost::Refused(error),
            };
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(refused)?;
            match connection.send_packed_command(question).await.map_err(refused)? {
                Value::ServerError(error) => Err(Lost::Refused(error.into())),
                answer => Ok(answer),
            }
        };
        let answer = tokio::time::timeout(limit, answered).await;
        (node, answer.unwrap_or_else(|_| Err(Lost::Away(format!("no answer within {limit:?}")))))
    }

    /// What connects to a node, or to the server that the URL names. The files of TLS are read each time, so that a
    /// new certificate needs no restart.
    fn client(&self, node: Option<&Node>, login: Option<&RedisConnectionInfo>) -> Result<Client, RedisError> {
        let mut info = self.info.clone();
        if let Some(login) = login {
            info = info.set_redis_settings(login.clone());
        }
        let (host, port) = match (node, info.addr()) {
            (Some(node), _) => node.parts(),
            (None, ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) => {
                (host.clone(), *port)
            }
            (None, _) => return Client::open(info),
        };
        if !self.is_tls {
            return Client::open(info.set_addr(ConnectionAddr::Tcp(host, port)));
        }
        let client_tls = match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            _ => None,
        };
        let root_cert = self.tls.ca_file.as_deref().map(read).transpose()?;
        let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        Client::build_with_tls(info.set_addr(address), TlsCertificates { client_tls, root_cert })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RedisError> {
    let said = |reason: String| std::io::Error::other(format!("file `{}`: {reason}", path.display()));
    let text = std::fs::read(path).map_err(|error| said(error.to_string()))?;
    // What has nothing of PEM in it would count as an empty list.
    if text.windows(10).any(|part| part == b"-----BEGIN") {
        Ok(text)
    } else {
        Err(said("is not PEM".to_owned()).into())
    }
}

/// Whether a connection broke because the two sides did not agree on TLS.
pub(super) fn is_tls_trouble(error: &RedisError) -> bool {
    use std::error::Error as _;
    use std::sync::Arc;
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let inner = error.source().and_then(|source| source.downcast_ref::<Shared>());
    let io = inner.and_then(|inner| inner.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
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
