//! A private Redis for one host: a `redis-server` or `valkey-server` child with its data in the host's data folder.
//!
//! It is reached through a Unix socket in a folder that only its user may enter, and through a port of the loopback
//! interface for programs that know no sockets. An address file beside its data tells the other commands where it is.
//!
//! Invariant: the server never outlives the host. A shell stands between the two: it waits on a pipe that the host
//! holds, then asks the server to stop. The kernel closes the pipe however the host ends, `kill -9` included. One data
//! folder has one server: a file lock that the kernel gives back holds that.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

/// Names of the programs that can serve, best first.
pub const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Longest start: a large append-only file takes seconds to load.
pub const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest stop before the server is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Longest path of a Unix socket that every system takes.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// The log starts anew beyond this size.
const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// How much of the log's end an error shows.
const LOG_LINES_SHOWN: usize = 8;

/// Becomes the server, after leaving a child behind that waits on standard input: a line means that the host saw the
/// end itself, the end of the pipe means that the host is gone. `$$` is the server: `exec` keeps the process.
const SUPERVISOR: &str = r#"exec 3<&0
( read -r _ <&3 || kill -TERM $$ ) </dev/null >/dev/null 2>&1 &
exec 3<&-
exec "$@" </dev/null"#;

/// What the address file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The URL of the Unix socket, for wasmhost.
    pub url: String,
    /// The port of the loopback interface, for `redis-cli -p`.
    pub port: u16,
    /// The socket itself.
    pub socket: PathBuf,
}

/// A running private server.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    /// Its end is what stops the server.
    lifeline: Option<ChildStdin>,
    address: Address,
    folder: PathBuf,
    /// Held as long as the server may write.
    _lock: File,
}

/// The address of the private server of the host that uses `data`, when one runs.
#[must_use]
pub fn address(data: &Path) -> Option<Address> {
    let folder = folder_in(data);
    let lock = File::open(folder.join("lock")).ok()?;
    // Whoever can take the lock sees that no host holds it: the address is left over.
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    read_address(&folder)
}

fn folder_in(data: &Path) -> PathBuf {
    data.join("redis")
}

fn read_address(folder: &Path) -> Option<Address> {
    serde_json::from_slice(&fs::read(folder.join("address.json")).ok()?).ok()
}

impl Embedded {
    /// Starts the server with its data below `data` and waits until it answers.
    ///
    /// # Errors
    /// A text that names the thing and the remedy: no server program, the folder in use or not writable, or the last
    /// lines of the log of a server that did not come up.
    pub async fn start(data: &Path) -> Result<Self, String> {
        let program = program().ok_or_else(|| {
            format!(
                "no private Redis can be started: neither `{}` is on the PATH\n\
                 hint: install one (`apt install redis-server`, `dnf install valkey`, `brew install redis`), or give \
                 `--redis URL`",
                PROGRAMS.join("` nor `")
            )
        })?;
        let folder = folder_in(data);
        let in_folder = |error: std::io::Error| format!("cannot use the data folder `{}`: {error}", folder.display());
        make_private_folder(&folder).map_err(in_folder)?;
        let lock = lock(&folder)?;
        let before = read_address(&folder);
        if let Some(before) = &before {
            wait_until_gone(&before.socket).await?;
        }
        let socket = socket_path(&folder, before.as_ref()).map_err(in_folder)?;
        let mut wanted_port = before.map(|address| address.port);
        // A free port can be taken by another program before the server binds it.
        for _ in 0..5 {
            let port = free_port(wanted_port.take())?;
            let address = Address { url: format!("unix://{}", socket.display()), port, socket: socket.clone() };
            let (child, lifeline) = spawn(&program, &folder, &address)?;
            let mut embedded =
                Self { child, lifeline: Some(lifeline), address, folder: folder.clone(), _lock: clone(&lock)? };
            match embedded.wait_until_ready().await {
                Ok(()) => {
                    embedded.write_address()?;
                    return Ok(embedded);
                }
                Err(text) if text.contains("Address already in use") => {}
                Err(text) => return Err(text),
            }
        }
        Err("no free port on 127.0.0.1 could be had in five tries".to_owned())
    }

    /// How it is reached.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Resolves when the server has ended by itself, with a text that shows the end of its log. Cancel-safe.
    pub async fn died(&mut self) -> String {
        let status = self.child.wait().await;
        self.call_off_supervisor().await;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("the private Redis ended ({how}){}", self.log_end())
    }

    /// Stops the server: it writes what it holds and ends. Kills it after [`STOP_LIMIT`].
    pub async fn stop(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("private redis did not stop, killed");
            let _ = self.child.kill().await;
        }
        let _ = fs::remove_file(&self.address.socket);
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.call_off_supervisor().await;
                return Err(format!("the private Redis did not start ({status}){}", self.log_end()));
            }
            if answers(&self.address.socket).await == Answer::Ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the private Redis did not answer within {} s{}",
                    START_LIMIT.as_secs(),
                    self.log_end()
                ));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process number may be given to another program now: the shell must not signal it.
    async fn call_off_supervisor(&mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(b"ended\n").await;
        }
    }

    fn write_address(&self) -> Result<(), String> {
        let path = self.folder.join("address.json");
        let partial = self.folder.join("address.json.part");
        let text = serde_json::to_vec(&self.address).map_err(|error| error.to_string())?;
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|error| format!("cannot write `{}`: {error}", path.display()))
    }

    fn log_end(&self) -> String {
        let path = log_path(&self.folder);
        let mut text = String::new();
        if let Ok(mut file) = File::open(&path) {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(4096)));
            let mut bytes = Vec::new();
            let _ = file.read_to_end(&mut bytes);
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
        format!("; the end of its log `{}`:\n  {}", path.display(), crate::job::visible_lines(&shown))
    }
}

fn clone(lock: &File) -> Result<File, String> {
    lock.try_clone().map_err(|error| format!("cannot keep the lock of the data folder: {error}"))
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("redis.log")
}

/// The program that a private Redis would be started with, if one is on the `PATH`.
#[must_use]
pub fn program() -> Option<PathBuf> {
    find_program(std::env::var_os("PATH").as_deref())
}

/// The first server program in the folders of `path`, a value of `PATH`.
fn find_program(path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(path?).collect();
    PROGRAMS.iter().flat_map(|program| folders.iter().map(move |folder| folder.join(program))).find(|candidate| {
        fs::metadata(candidate).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// Makes a folder that only its user may enter, also when it was there with wider permissions.
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

fn lock(folder: &Path) -> Result<File, String> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("cannot open `{}`: {error}", path.display()))?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        return Err(format!(
            "the data folder `{}` is in use by another host (process {})\n\
             hint: stop that one, or give this one a data folder of its own",
            folder.display(),
            holder.trim()
        ));
    }
    // For people only; the lock is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// A host that was killed leaves a server that is still writing its last bytes.
async fn wait_until_gone(socket: &Path) -> Result<(), String> {
    let deadline = Instant::now() + STOP_LIMIT;
    while answers(socket).await != Answer::Nobody {
        if Instant::now() > deadline {
            return Err(format!(
                "the private Redis of an earlier host still answers at `{}`; stop it",
                socket.display()
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The socket lies beside the data; where that path is too long for a socket, in a private folder of the system's
/// temporary folder, which a later host of the same data folder uses again.
fn socket_path(folder: &Path, before: Option<&Address>) -> std::io::Result<PathBuf> {
    let absolute = fs::canonicalize(folder)?;
    let socket = absolute.join("redis.sock");
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(socket);
    }
    if let Some(before) = before
        && before.socket.parent().is_some_and(is_private)
    {
        return Ok(before.socket.clone());
    }
    let chance = getrandom::u64().map_err(std::io::Error::other)?;
    let own = std::env::temp_dir().join(format!("wasmhost-{chance:016x}"));
    // Fails when it exists: nobody can have put it there for this host.
    fs::DirBuilder::new().mode(0o700).create(&own)?;
    Ok(own.join("redis.sock"))
}

fn is_private(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::symlink_metadata(folder).is_ok_and(|metadata| {
        metadata.is_dir()
            && metadata.permissions().mode() & 0o077 == 0
            && metadata.uid() == rustix::process::geteuid().as_raw()
    })
}

/// A port that is free now: the one used before, so that people can keep their `redis-cli -p`, else any.
fn free_port(wanted: Option<u16>) -> Result<u16, String> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match wanted.map(listen) {
        Some(Ok(listener)) => Ok(listener),
        _ => listen(0),
    };
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| format!("no free port on 127.0.0.1: {error}"))
}

fn spawn(program: &Path, folder: &Path, address: &Address) -> Result<(Child, ChildStdin), String> {
    let path = log_path(folder);
    let is_large = fs::metadata(&path).is_ok_and(|file| file.len() > LOG_BYTES_MAX);
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    if is_large {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    let log = options.open(&path).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    let errors = clone(&log)?;
    let port = address.port.to_string();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SUPERVISOR, "wasmhost-redis"]).arg(program);
    command.args(["--port", &port, "--bind", "127.0.0.1", "--protected-mode", "yes", "--daemonize", "no"]);
    command.arg("--unixsocket").arg(&address.socket).args(["--unixsocketperm", "700"]);
    command.arg("--dir").arg(folder);
    command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--logfile", ""]);
    command.args(["--maxmemory-policy", "noeviction", "--crash-log-enabled", "no"]);
    command.stdin(Stdio::piped()).stdout(log).stderr(errors);
    // Ctrl-C goes to the whole group of the terminal; the server must outlive the host's drain.
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot start `{}`: {error}", program.display()))?;
    let lifeline = child.stdin.take().ok_or("the private Redis has no standard input")?;
    Ok((child, lifeline))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ready,
    /// Somebody listens and is not ready: it loads its data.
    Busy,
    Nobody,
}

/// Asks the server at `socket` whether it is ready.
async fn answers(socket: &Path) -> Answer {
    let Ok(mut stream) = UnixStream::connect(socket).await else { return Answer::Nobody };
    let ask = async {
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0_u8; 5];
        stream.read_exact(&mut answer).await.ok()?;
        (&answer == b"+PONG").then_some(())
    };
    match tokio::time::timeout(Duration::from_secs(1), ask).await {
        Ok(Some(())) => Answer::Ready,
        _ => Answer::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_the_order_of_preference() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(find_program(Some(path)), None);
        let valkey = folder.path().join("valkey-server");
        fs::write(&valkey, "").unwrap();
        assert_eq!(find_program(Some(path)), None, "it is not executable");
        fs::set_permissions(&valkey, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program(Some(path)), Some(valkey));
    }

    #[test]
    fn a_long_data_folder_gets_a_short_private_socket() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        let socket = socket_path(&deep, None).unwrap();
        assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", socket.display());
        let own = socket.parent().unwrap();
        assert!(is_private(own));
        let before = Address { url: String::new(), port: 1, socket: socket.clone() };
        assert_eq!(socket_path(&deep, Some(&before)).unwrap(), socket);
        fs::remove_dir(own).unwrap();
    }
}
