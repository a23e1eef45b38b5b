//! The one Redis that all are measured on: a child of this program, on a loopback port, without persistence.
//!
//! Invariant: it never outlives this program. A shell waits on a pipe that this program holds; the kernel closes it
//! however the program ends, and the shell then asks the server to stop, by its process id.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;
use crate::process::pause;

/// Longest start and stop.
const LIMIT: Duration = Duration::from_secs(10);

/// Becomes the server; a child stays behind and ends it with the pipe. `$$` is the server, `exec` keeps the process.
const SUPERVISED: &str = r#"exec 3<&0
( read -r _ <&3; kill -TERM $$ ) </dev/null >/dev/null 2>&1 &
exec 3<&-
exec "$@" </dev/null >/dev/null 2>&1"#;

/// The running server.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Redis {
    /// Starts `redis-server`, else `valkey-server`, and waits until it answers.
    pub fn start() -> Result<Self, Error> {
        let folder = std::env::temp_dir().join(format!("wasmhost-peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let program = ["redis-server", "valkey-server"].into_iter().find(|name| is_on_path(name));
        let program = program.ok_or("neither `redis-server` nor `valkey-server` is on the PATH; install one")?;
        let child = Command::new("sh")
            .args(["-c", SUPERVISED, "sh", program, "--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()?;
        let redis = Self { child, port, folder };
        let until = Instant::now() + LIMIT;
        while redis.ask("PING").is_err() {
            if Instant::now() > until {
                return Err(format!("`{program}` did not answer on port {port} within {LIMIT:?}").into());
            }
            pause(Duration::from_millis(20));
        }
        Ok(redis)
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A folder for whatever the measured programs leave behind; removed at the end.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes all data.
    pub fn clear(&self) -> Result<(), Error> {
        self.ask("FLUSHALL").map(drop)
    }

    /// CPU time that it has used since it started.
    pub fn cpu(&self) -> Result<Duration, Error> {
        let info = self.ask("INFO cpu")?;
        let seconds = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<f64>().ok())
        };
        let (user, system) = (seconds("used_cpu_user"), seconds("used_cpu_sys"));
        Ok(Duration::from_secs_f64(user.ok_or("no user time")? + system.ok_or("no system time")?))
    }

    /// Ends it.
    pub fn stop(self) {
        drop(self);
    }

    /// Sends one command as a line and reads its answer.
    fn ask(&self, command: &str) -> Result<String, Error> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let head = head.trim_end();
        if let Some(bytes) = head.strip_prefix('$') {
            let mut text = vec![0; bytes.parse()?];
            reader.read_exact(&mut text)?;
            return Ok(String::from_utf8(text)?);
        }
        head.strip_prefix('+').map(str::to_owned).ok_or_else(|| format!("Redis answered `{head}`").into())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + LIMIT;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            pause(Duration::from_millis(10));
        }
        // It has most likely ended; the folder is the system's to remove if it cannot be removed here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
