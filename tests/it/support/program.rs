//! The built program: single commands, and hosts that run in the background.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The program under test, with none of this process's configuration.
pub fn program() -> Command {
    // The long campaigns are played with what users run, an optimised build; the tests with the one made beside them.
    let beside = env!("CARGO_BIN_EXE_wasmhost").into();
    let mut command = Command::new(std::env::var_os("WASMHOST_PROGRAM").unwrap_or(beside));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WASMHOST_") || name == "REDIS_ADDR" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A command of the program, run to its end.
#[must_use]
pub struct Invocation(Command);

impl Invocation {
    pub fn new<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = program();
        command.args(arguments);
        Self(command)
    }

    pub fn on(mut self, redis: &str, prefix: &str) -> Self {
        self.0.args(["--redis", redis, "--prefix", prefix, "--node-prefix", prefix]);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn dir(mut self, dir: &Path) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// The command itself, to be run in the background.
    pub fn into_command(self) -> Command {
        self.0
    }

    pub fn run(mut self) -> Ended {
        let output = self.0.output().expect("the built program starts");
        Ended::of(&output)
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its stdout; fails with everything it said when it did not end with 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its stderr; fails when it ended otherwise than with `code`, or panicked.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        self.stderr
    }
}

/// A host in the background; killed by its own process id when dropped.
pub struct Host {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// How long a host may take for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

impl Host {
    /// Starts `wasmhost run` and waits until it says that it is ready.
    pub fn start(redis: &str, prefix: &str, arguments: &[&str]) -> Self {
        let data = std::env::temp_dir().join(format!("wasmhost-test-data-{}", std::process::id()));
        let mut command = program();
        command.args(["run", "--redis", redis, "--prefix", prefix, "--node-prefix", prefix, "--data"]).arg(&data);
        command.args(arguments).env("WASMHOST_LOG", "info");
        let mut host = Self::spawn(command);
        host.wait_for_line("host ready");
        host
    }

    /// Starts any command of the program in the background.
    pub fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the built program starts");
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let other = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| other.send(line))
        });
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, said: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, which must have been piped; it ends when this is dropped.
    pub fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a piped standard input, taken once")
    }

    /// Waits for a line, said already or to come, that contains `part`.
    #[track_caller]
    pub fn wait_for_line(&mut self, part: &str) -> String {
        match self.said.iter().find(|line| line.contains(part)) {
            Some(line) => line.clone(),
            None => self.wait_for_new_line(part),
        }
    }

    /// Waits for a line after `before` that contains `part`.
    #[track_caller]
    pub fn wait_for_line_after(&mut self, before: &str, part: &str) -> String {
        let mut later = self.said.iter().skip_while(|line| *line != before).skip(1);
        match later.find(|line| line.contains(part)) {
            Some(line) => line.clone(),
            None => self.wait_for_new_line(part),
        }
    }

    /// Waits for a line that nobody has waited for or past, and that contains `part`.
    #[track_caller]
    pub fn wait_for_new_line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("the host never said `{part}`; it said:\n{}", self.said.join("\n"))
                }
            }
        }
    }

    /// Everything it has said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.join("\n")
    }

    /// Sends a signal by its name, such as `TERM` or `KILL`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success(), "signal {name}");
    }

    /// Waits for its end and gives the exit code; -1 when a signal ended it.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the host does not end; it said:\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Asks it to stop, and waits until it has.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Ended already: nothing to kill, nothing to wait for.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
