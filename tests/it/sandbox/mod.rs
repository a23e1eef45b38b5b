//! The sandbox with real guests: every way to end, every way to die, every limit.

mod artifacts;
mod bad_files;
mod compiler;
mod core_modules;
mod deaths;
mod ends;
mod http;
mod http_limits;
mod interpreters;
mod limits;
mod residue;
mod says;
mod texts;
mod tiers;
mod torture;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::ports::{JobSink, Level};
use wasmhost::sandbox::{Call, Finished, Options, Sandbox, Script};

use crate::support::guests;

/// One engine for all tests: making one per test would only measure how long that takes.
fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::new(Options { pool_size: 64, ..Options::default() }).unwrap())
}

fn load(wasm: &[u8]) -> Arc<Script> {
    sandbox().load(Digest::of(wasm), wasm).unwrap_or_else(|error| panic!("{error}; {:?}", error.hint()))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn run_call(script: &Script, call: Call) -> Finished {
    block_on(sandbox().run(script, call))
}

/// Runs a guest of `tests/guests` or `scripts` with a payload.
fn run(guest: &str, payload: &str) -> Finished {
    run_call(&load(&guests::wasm(guest)), Call { timeout: Duration::from_secs(20), ..Call::new(payload) })
}

/// Runs a module in text form as a command.
fn run_text(wat: &str, timeout: Duration) -> Finished {
    run_call(&load(&wat::parse_str(wat).unwrap()), Call { timeout, ..Call::new("") })
}

/// The result of an attempt that ended well, as text.
fn done(finished: &Finished) -> String {
    match &finished.outcome {
        Outcome::Done { result } => String::from_utf8_lossy(result).into_owned(),
        other => panic!("{other:?}\n{}", finished.usage.log_tail),
    }
}

/// The message and the backtrace of an attempt that was trapped.
fn trapped(finished: &Finished) -> (String, String) {
    match &finished.outcome {
        Outcome::Trapped { message, backtrace } => (message.clone(), backtrace.clone()),
        other => panic!("{other:?}\n{}", finished.usage.log_tail),
    }
}

/// Remembers what it hears.
#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    progress: Mutex<Vec<(u8, String)>>,
}

impl JobSink for Heard {
    fn log(&self, level: Level, context: &str, message: &str) {
        self.lines.lock().unwrap().push(format!("{}|{context}|{message}", level.as_str()));
    }

    fn progress(&self, percent: u8, message: &str) {
        self.progress.lock().unwrap().push((percent, message.to_owned()));
    }
}
