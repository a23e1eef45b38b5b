//! A real Redis for the tests.
//!
//! Each server is a process of its own in a directory of its own. Its life hangs on a pipe held by the test process:
//! however that ends, the pipe closes and the server is killed by its pid. With `REDIS_ADDR` set,
//! [`RedisServer::shared`] is that server, used under random prefixes and never flushed.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use wasmhost::job::StoreId;
use wasmhost::store::{Options, Store};

use super::certificates::Certificates;

/// Starts the server, says its pid, and kills it when standard input closes.
const KEEPER: &str =
    r#""$@" & pid=$!; echo "pid $pid"; read -r _; kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null"#;

/// A running server.
pub struct RedisServer {
    url: String,
    own: Option<Own>,
}

/// What belongs to a server that the tests started themselves.
struct Own {
    start: Start,
    dir: tempfile::TempDir,
    running: Mutex<Option<Running>>,
}

/// How a server of the tests is started, and started again.
#[derive(Clone)]
struct Start {
    program: PathBuf,
    port: u16,
    is_sentinel: bool,
    arguments: Vec<String>,
}

struct Running {
    keeper: Child,
    pid: i32,
    log: Arc<Mutex<String>>,
}

impl RedisServer {
    /// A private server without persistence.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A private server with further options, for example `&["--appendonly", "yes"]`. `{port}` in one of them is its
    /// port, `{bus}` a second free one, `{dir}` its directory.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_program(program(), false, arguments)
    }

    /// A private server that speaks TLS only, and its URL says so; other programs reach it by its socket.
    #[must_use]
    pub fn start_tls(certificates: &Certificates, arguments: &[&str]) -> Self {
        let file = |name: &str| certificates.path(name).display().to_string();
        let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
        let tls = ["--port", "0", "--tls-port", "{port}", "--tls-cert-file", &cert, "--tls-key-file", &key];
        let all = [&tls, ["--tls-ca-cert-file", &ca].as_slice(), arguments].concat();
        let server = Self::start_with(&all);
        Self { url: server.url.replace("redis://", "rediss://"), ..server }
    }

    /// A Sentinel that watches nothing yet.
    #[must_use]
    pub fn start_sentinel() -> Self {
        Self::start_program(program(), true, &[])
    }

    /// Any program that takes redis-server's options.
    #[must_use]
    pub fn start_program(program: PathBuf, is_sentinel: bool, arguments: &[&str]) -> Self {
        // Another process may take the port between asking for a free one and using it.
        for _ in 0..20 {
            let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
            let (bus, folder) = (free_port().to_string(), dir.path().display().to_string());
            let fill =
                |a: &&str| a.replace("{port}", &port.to_string()).replace("{bus}", &bus).replace("{dir}", &folder);
            let arguments = arguments.iter().map(fill).collect();
            let start = Start { program: program.clone(), port, is_sentinel, arguments };
            if let Ok(running) = launch(&start, dir.path()) {
                let own = Own { start, dir, running: Mutex::new(Some(running)) };
                return Self { url: format!("redis://127.0.0.1:{port}"), own: Some(own) };
            }
        }
        panic!("{} does not start; try it by hand with --port 0", program.display());
    }

    /// The server that tests share when they need nothing special: `REDIS_ADDR`, or one private server per process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("REDIS_ADDR") {
            Ok(address) if !address.is_empty() => {
                let url = if address.contains("://") { address } else { format!("redis://{address}") };
                Self { url, own: None }
            }
            _ => Self::start(),
        })
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of a private server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.own().start.port
    }

    /// The directory of a private server.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.own().dir.path().to_owned()
    }

    /// The process of a private server.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.own().running.lock().unwrap().as_ref().expect("the server runs").pid
    }

    /// What a private server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        let running = self.own().running.lock().unwrap();
        running.as_ref().map(|r| r.log.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Kills a private server (SIGKILL) and waits until it is gone. [`RedisServer::restart`] brings it back.
    pub fn kill(&self) {
        self.own().running.lock().unwrap().take();
    }

    /// Starts a killed private server again: same port, same directory, same options.
    pub fn restart(&self) {
        let own = self.own();
        let mut running = own.running.lock().unwrap();
        running.take();
        *running = Some(launch(&own.start, own.dir.path()).expect("the server starts again"));
    }

    /// Stops a private server's process without ending it (SIGSTOP): connections stay, nobody answers.
    pub fn freeze(&self) {
        signal(self.pid(), rustix::process::Signal::STOP);
    }

    /// Ends [`RedisServer::freeze`].
    pub fn thaw(&self) {
        signal(self.pid(), rustix::process::Signal::CONT);
    }

    /// Store options with a random prefix, also for the node's hashes.
    #[must_use]
    pub fn options(&self) -> Options {
        let prefix = random_prefix();
        Options { url: self.url.clone(), node_prefix: prefix.clone(), prefix, ..Options::default() }
    }

    /// A connected store under a random prefix, and that prefix.
    pub async fn store(&self) -> (Store, String) {
        let options = self.options();
        let store = Store::connect(StoreId(0), &options).await.expect("the store connects");
        (store, options.prefix)
    }

    /// A raw connection, for what other programs do.
    pub async fn raw(&self) -> MultiplexedConnection {
        let url = match &self.own {
            Some(own) if self.url.starts_with("rediss:") => {
                format!("unix://{}", own.dir.path().join("redis.sock").display())
            }
            _ => self.url.clone(),
        };
        let client = redis::Client::open(url.as_str()).expect("the URL of a test server");
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(Duration::from_secs(30)))
            .set_connection_timeout(Some(Duration::from_secs(10)));
        client.get_multiplexed_async_connection_with_config(&config).await.expect("a raw connection")
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("this test needs a server of its own: use RedisServer::start")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.pid, rustix::process::Signal::KILL);
        // The keeper reads the end of its input, sees its child gone, and ends.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A program on the path, or where `make setup` puts it.
#[must_use]
pub fn find_program(names: &[&str]) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([tools])
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)).collect::<Vec<_>>())
        .find(|program| program.is_file())
}

/// The server's program: on the path, or where `make setup` puts it.
fn program() -> PathBuf {
    find_program(&["redis-server", "valkey-server"]).expect("redis-server is installed (run `make setup`)")
}

/// Starts a server and waits for its own word that it is ready.
fn launch(start: &Start, dir: &Path) -> Result<Running, String> {
    let mut command = Command::new("sh");
    command.args(["-c", KEEPER, "sh"]).arg(&start.program);
    if start.is_sentinel {
        // What it learns it writes into this file.
        let file = dir.join("sentinel.conf");
        if !file.exists() {
            std::fs::write(&file, "").map_err(|error| error.to_string())?;
        }
        command.arg(file).arg("--sentinel").args(["--port", &start.port.to_string(), "--bind", "127.0.0.1"]);
    } else {
        command
            .args(["--port", &start.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            .args(["--unixsocket", "redis.sock", "--unixsocketperm", "700"])
            .arg("--dir")
            .arg(dir);
    }
    let ready = if start.is_sentinel { "Sentinel ID is" } else { "Ready to accept connections" };
    let mut keeper = command
        .args(&start.arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(keeper.stdout.take().expect("a pipe")).lines();
    let mut log = String::new();
    // On a busy machine the server is sometimes ready before the keeper has said its pid.
    let (mut pid, mut is_ready) = (None, false);
    while let Some(Ok(line)) = lines.next() {
        if let Some(number) = line.strip_prefix("pid ") {
            pid = number.parse().ok();
        }
        log.push_str(&line);
        log.push('\n');
        is_ready |= line.contains(ready);
        if let Some(pid) = pid.filter(|_| is_ready) {
            let log = Arc::new(Mutex::new(log));
            let sink = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let mut log = sink.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            });
            return Ok(Running { keeper, pid, log });
        }
        let is_odd = line.contains("Bad directive") || line.contains("Error loading ACLs");
        if is_odd || line.contains("Failed listening") || line.contains("Fatal") || line.contains("FATAL") {
            break;
        }
    }
    drop(keeper.stdin.take());
    let _ = keeper.wait();
    Err(log)
}

/// A prefix that no other test has.
#[must_use]
pub fn random_prefix() -> String {
    format!("t{}", wasmhost::job::JobId::generate())
}

/// Asks `condition` again and again until it answers something, at most `limit`.
///
/// # Panics
/// When the limit has passed, with `what`.
pub async fn wait_until<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Every key under `prefix`, sorted.
pub async fn keys_under(raw: &mut MultiplexedConnection, prefix: &str) -> Vec<String> {
    let mut cursor = 0_u64;
    let mut keys: Vec<String> = Vec::new();
    loop {
        let (next, page): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}:*"))
            .arg("COUNT")
            .arg(1000)
            .query_async(raw)
            .await
            .expect("SCAN");
        keys.extend(page.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Asserts that every job under a prefix is in exactly one structure, the one that fits its status, that every id in a
/// structure has its job, and that no key stands outside the table of keys. The node prefix is taken to be the prefix.
pub async fn assert_consistent(raw: &mut MultiplexedConnection, prefix: &str) {
    let mut wrong = Vec::new();
    let keys = keys_under(raw, prefix).await;
    let mut places: std::collections::BTreeMap<Vec<u8>, Vec<String>> = std::collections::BTreeMap::new();
    for key in &keys {
        if wasmhost::store::keys::find(prefix, prefix, key).is_none() {
            wrong.push(format!("key `{key}` is not in the table of keys"));
        }
        let Some(structure) = key.strip_prefix(&format!("{prefix}:queue:")) else { continue };
        // Lists of priorities and of parked jobs hold ready jobs too.
        let part = match structure.split(':').nth(1).unwrap_or_default() {
            "prio" | "parked" => "ready",
            part => part,
        };
        let command = match part {
            "ready" | "dlq" | "done" | "cancelled" => "LRANGE",
            "scheduled" | "inflight" => "ZRANGE",
            _ => continue,
        };
        let ids: Vec<Vec<u8>> =
            redis::cmd(command).arg(key).arg(0).arg(-1).query_async(raw).await.expect("the members of a structure");
        for id in ids {
            let id = if part == "scheduled" && id.get(9) == Some(&b':') { id[10..].to_vec() } else { id };
            places.entry(id).or_default().push(part.to_owned());
        }
    }
    let job_prefix = format!("{prefix}:job:");
    for key in keys.iter().filter(|key| key.starts_with(&job_prefix)) {
        let id = key.as_bytes()[job_prefix.len()..].to_vec();
        let status: Option<String> =
            redis::cmd("HGET").arg(key).arg("status").query_async(raw).await.unwrap_or_default();
        let status = status.unwrap_or_default();
        let found = places.remove(&id).unwrap_or_default();
        if found != [status.clone()] {
            wrong.push(format!("job `{}` has status `{status}` and is in {found:?}", String::from_utf8_lossy(&id)));
        }
    }
    // The lists of what has ended well outlive the rows; everything else without a row is a ghost.
    for (id, found) in places {
        if found.iter().any(|part| part != "done" && part != "cancelled") {
            wrong.push(format!("id `{}` is in {found:?} without a job", String::from_utf8_lossy(&id)));
        }
    }
    assert!(wrong.is_empty(), "prefix {prefix}:\n{}", wrong.join("\n"));
}
