//! Child processes with a time limit, ended when they are dropped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::Error;

/// Longest wait for the next line or the end of any child.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its end tells the child that this program is gone.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it. What it says to stderr is shown as it is.
    pub fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start `{}`: {error}", command.get_program().display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Waits for a line that begins with `word` and gives the rest of it.
    pub fn expect(&self, word: &str) -> Result<String, Error> {
        let until = Instant::now() + LIMIT;
        loop {
            let line = self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .map_err(|why| format!("no `{word}` came from it: {why}"))?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// Gives it the word to start.
    pub fn go(&mut self) -> Result<(), Error> {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        Ok(input.write_all(b"go\n")?)
    }

    /// Waits for its end and gives all it said.
    pub fn finish(mut self) -> Result<String, Error> {
        let until = Instant::now() + LIMIT;
        let mut said = String::new();
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            said.push_str(&line);
            said.push('\n');
        }
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(said),
                Some(status) => return Err(format!("it ended with {status}").into()),
                None if Instant::now() > until => return Err(format!("it did not end within {LIMIT:?}").into()),
                None => pause(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        // It may have ended by itself; both calls say so, and nothing is to be done about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits where nothing can be waited for: a child's end and a server's start give no sign, an idle worker is one that
/// nothing happened to for a while.
#[expect(clippy::disallowed_methods, reason = "this program has no runtime and nothing else to do meanwhile")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
