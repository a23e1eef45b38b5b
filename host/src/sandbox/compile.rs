//! From Wasm to native code, in this process or in a child under bounds.
//!
//! Invariant: a file that makes the compiler loop, crash or eat memory costs a child process and a refusal, never the
//! host. The two ends speak over stdin and stdout: an [`Order`] as one line of JSON and the file, then one byte that
//! says what follows, native code or a refusal.

use std::io::{self, BufRead as _, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::Engine;

use super::engine::{Tier, code_config};
use super::error::Error;
use super::options::{Compiler, Options};
use super::script::Shape;

/// The hidden command of the program that calls [`compile_artifact`].
const COMMAND: &str = "compile-artifact";
const NATIVE: u8 = b'N';
const REFUSED: u8 = b'R';
/// By how much a compiler that nobody waits for gives way.
const BACKGROUND_NICE: i32 = 10;
/// Bytes of a child's last words that are read.
const LAST_WORDS_BYTES_MAX: u64 = 4 * 1024;

/// What the child is asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    tier: Tier,
    /// Whether nobody waits for it.
    is_background: bool,
    shape: Shape,
    memory_reservation: u64,
    has_source_lines: bool,
    memory_bytes_max: u64,
    cpu_seconds: u64,
}

/// What is to be compiled, and for which engine.
pub(super) struct Job<'a> {
    pub(super) engine: &'a Engine,
    pub(super) tier: Tier,
    pub(super) memory_reservation: u64,
    /// Whether nobody waits for it: it then gives way to everything else on the machine.
    pub(super) is_background: bool,
    pub(super) shape: Shape,
    pub(super) wasm: &'a [u8],
}

/// Compiles a file that `inspect` has passed.
pub(super) fn compile(job: &Job<'_>, options: &Options) -> Result<Vec<u8>, Error> {
    let limits = &options.compile_limits;
    match &options.compiler {
        Compiler::InProcess => precompile(job.engine, job.shape, job.wasm),
        Compiler::Child { program } => {
            let order = Order {
                tier: job.tier,
                is_background: job.is_background,
                shape: job.shape,
                memory_reservation: job.memory_reservation,
                has_source_lines: options.has_source_lines,
                memory_bytes_max: limits.memory_bytes_max,
                cpu_seconds: limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0),
            };
            in_child(program, &order, limits.wall, job.wasm)
        }
    }
}

fn precompile(engine: &Engine, shape: Shape, wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let native = match shape {
        Shape::Component | Shape::Command => engine.precompile_component(wasm),
        Shape::Core => engine.precompile_module(wasm),
    };
    native.map_err(|error| {
        Error::refused(format!("the compiler does not accept it: {}", error.root_cause()), "build it again")
    })
}

fn in_child(program: &Path, order: &Order, wall: Duration, wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let cannot =
        |what: &str, error: io::Error| Error::host(format!("the compiler `{}` {what}: {error}", program.display()), "");
    let mut child = Command::new(program)
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot("does not start", error))?;
    let answer = talk(&mut child, order, wall, wasm);
    // Killed whatever happened: when it has answered it has nothing left to do.
    let _ = child.kill();
    let status = child.wait().map_err(|error| cannot("cannot be awaited", error))?;
    match answer {
        Answer::Late => Err(too_hard(format!("the compiler took longer than {} s", wall.as_secs()))),
        Answer::Said { stdout, last_words } => match stdout.split_first() {
            Some((&NATIVE, native)) => Ok(native.to_vec()),
            Some((&REFUSED, reason)) => {
                Err(Error::refused(String::from_utf8_lossy(reason).into_owned(), "build it again"))
            }
            _ => Err(died(status, order, &last_words)),
        },
    }
}

enum Answer {
    Late,
    Said { stdout: Vec<u8>, last_words: String },
}

fn talk(child: &mut Child, order: &Order, wall: Duration, wasm: &[u8]) -> Answer {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut head = serde_json::to_vec(order).unwrap_or_default();
    head.push(b'\n');
    thread::scope(|scope| {
        let (say, heard) = mpsc::sync_channel(1);
        scope.spawn(move || {
            // A child that dies early closes the pipe; what it said meanwhile is the better explanation.
            let _ = stdin.map(|mut pipe| pipe.write_all(&head).and_then(|()| pipe.write_all(wasm)));
        });
        let words = scope.spawn(move || read_all(stderr, LAST_WORDS_BYTES_MAX));
        scope.spawn(move || {
            // Received or not, the thread is done; the receiver is gone only after the wall time.
            let _ = say.send(read_all(stdout, u64::MAX));
        });
        let Ok(stdout) = heard.recv_timeout(wall) else {
            // Closes the pipes that the threads of this scope wait for.
            let _ = child.kill();
            return Answer::Late;
        };
        let _ = child.kill();
        let last_words = String::from_utf8_lossy(&words.join().unwrap_or_default()).into_owned();
        Answer::Said { stdout, last_words }
    })
}

fn read_all(pipe: Option<impl Read>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // An error ends the stream like its end does: what was read is what there is.
        let _ = pipe.take(bytes_max).read_to_end(&mut bytes);
    }
    bytes
}

/// A child that answered nothing: by its status and its last words.
fn died(status: ExitStatus, order: &Order, last_words: &str) -> Error {
    use std::os::unix::process::ExitStatusExt as _;
    let last_line = last_words.trim().lines().last().unwrap_or_default();
    if status.signal() == Some(rustix::process::Signal::XCPU.as_raw()) {
        return too_hard(format!("the compiler used more than {} s of CPU time", order.cpu_seconds));
    }
    if last_words.contains("memory allocation") || last_words.contains("Cannot allocate memory") {
        return too_hard(format!("the compiler needed more than {} MiB of memory", order.memory_bytes_max >> 20));
    }
    match status.signal() {
        Some(signal) if last_line.is_empty() => too_hard(format!("the compiler died of signal {signal}")),
        Some(signal) => too_hard(format!("the compiler died of signal {signal}: {last_line}")),
        None => Error::host(
            format!("the compiler ended without an answer ({status}): {last_line}"),
            "check that `sandbox.compiler` is this version of wasmhost",
        ),
    }
}

fn too_hard(reason: String) -> Error {
    Error::refused(reason, "make the file smaller: fewer and shorter functions, release mode")
}

/// The whole of the hidden command `wasmhost compile-artifact`: reads an order and a Wasm file from stdin as
/// [`Compiler::Child`] sends them, bounds its own memory and CPU time, and writes the native code to stdout.
///
/// # Errors
/// [`Error::Host`] when a stream breaks, or stdin is not an order. A refusal is an answer, not an error.
pub fn compile_artifact() -> Result<(), Error> {
    let broken = |error: io::Error| Error::host(format!("the stream to the host broke: {error}"), "");
    let mut stdin = io::stdin().lock();
    let mut head = Vec::new();
    stdin.by_ref().take(1024).read_until(b'\n', &mut head).map_err(broken)?;
    let order: Order = serde_json::from_slice(&head).map_err(|error| {
        Error::host(format!("stdin is not an order of a host: {error}"), "`wasmhost run` calls this")
    })?;
    bound(&order).map_err(broken)?;
    let mut wasm = Vec::new();
    stdin.read_to_end(&mut wasm).map_err(broken)?;
    let engine = Engine::new(&code_config(order.memory_reservation, order.has_source_lines, order.tier))
        .map_err(|error| Error::host(format!("the compiler does not start: {error:#}"), ""))?;
    let (kind, answer) = match precompile(&engine, order.shape, &wasm) {
        Ok(native) => (NATIVE, native),
        Err(error) => (REFUSED, error.to_string().into_bytes()),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(&[kind]).and_then(|()| stdout.write_all(&answer)).and_then(|()| stdout.flush()).map_err(broken)
}

/// Bounds this process before it looks at the file.
fn bound(order: &Order) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Data, limit(order.memory_bytes_max))?;
    // The soft limit ends it with a signal that has a name, the hard one could only kill.
    setrlimit(Resource::Cpu, Rlimit { current: Some(order.cpu_seconds), maximum: Some(order.cpu_seconds + 5) })?;
    setrlimit(Resource::Core, limit(0))?;
    if order.is_background {
        rustix::process::nice(BACKGROUND_NICE)?;
    }
    // A host that dies takes its compilers along: without this they would go on for nobody.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
