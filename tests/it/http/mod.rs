//! The HTTP server of the built program, asked over plain sockets.

mod abuse;
mod auth;
mod documents;
mod events;
mod jobs;
mod probes;

use std::net::SocketAddr;
use std::time::Duration;

use wasmhost::store::Store;

use crate::support::guests;
use crate::support::program::{Host, Invocation};
use crate::support::redis::RedisServer;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "t0ken-of-the-tests-0123456789";

/// A host that serves HTTP, on a prefix of its own of the shared Redis.
struct World {
    host: Host,
    http: SocketAddr,
    prefix: String,
    store: Store,
    redis: &'static RedisServer,
}

impl World {
    /// Without a token, with the guests `echo` and `end`.
    async fn new() -> Self {
        let world = Self::with(&[]).await;
        world.publish("echo");
        world.publish("end");
        world
    }

    async fn with(arguments: &[&str]) -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        let (host, http) = start(redis.url(), &prefix, arguments);
        Self { host, http, prefix, store, redis }
    }

    /// With a token, which the requests of a test may bring.
    async fn with_token(arguments: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
        let arguments = [&["--http-token-file", file.path().to_str().unwrap()], arguments].concat();
        Self::with(&arguments).await
    }

    fn publish(&self, guest: &str) {
        let file = guests::path(guest);
        let publish = Invocation::new(["publish", file.to_str().unwrap()]);
        publish.on(self.redis.url(), &self.prefix).run().ok();
    }
}

/// Starts a host with HTTP on a free port.
fn start(redis: &str, prefix: &str, arguments: &[&str]) -> (Host, SocketAddr) {
    let arguments = [&["--http", "127.0.0.1:0"], arguments].concat();
    let mut host = Host::start(redis, prefix, &arguments);
    let http = address(&mut host);
    (host, http)
}

/// Where a host serves HTTP.
pub(crate) fn address(host: &mut Host) -> SocketAddr {
    let line = host.wait_for_line("http ready");
    let address = line.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next());
    address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
}
