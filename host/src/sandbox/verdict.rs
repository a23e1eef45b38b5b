//! From the engine's error to an outcome with a text for the author of the jumpscript.
//!
//! Invariant: every error of a running guest ends here, and no text names a path or an address of the host.

use std::path::Path;
use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::guest::{HOSTCALL_FUEL, RESOURCES_MAX};
use super::limits::{HostCallLimit, MemoryLimit, ResultLimit};
use super::state::StateMoved;
use crate::job::RESULT_BYTES_MAX;
use crate::outcome::Outcome;

/// When a host without a free instance is asked again.
const POOL_RETRY: Duration = Duration::from_millis(250);
/// So many frames of one function in a backtrace mean runaway recursion.
const RECURSION_FRAMES_MIN: usize = 6;
/// Frames that say how Rust panics, not where.
const PANIC_FRAMES: [&str; 11] = [
    "abort",
    "rust_panic",
    "std::process::",
    "std::panicking::",
    "core::panicking::",
    "std::sys::",
    "rust_begin_unwind",
    "__rustc::",
    "__rust_",
    "core::option::",
    "core::result::",
];

/// What is known about an attempt that ended with an error of the engine.
pub(super) struct Circumstances {
    pub(super) is_cancelled: bool,
    pub(super) is_command: bool,
    pub(super) timeout: Duration,
    pub(super) last_words: String,
}

/// How it ended.
pub(super) fn outcome(error: &Error, circumstances: &Circumstances) -> Outcome {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return exited(*code, circumstances);
    }
    let frames = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    let backtrace = write_frames(&frames);
    if let Some(limit) = error.downcast_ref::<MemoryLimit>() {
        return Outcome::OutOfMemory { limit: limit.limit, backtrace };
    }
    if error.downcast_ref::<StateMoved>().is_some() {
        return Outcome::Conflict;
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Outcome::Retry { after: Some(POOL_RETRY), reason: "the host had no free sandbox".to_owned() };
    }
    if let Some(limit) = error.downcast_ref::<ResultLimit>() {
        return Outcome::Trapped { message: limit.to_string(), backtrace };
    }
    if let Some(limit) = error.downcast_ref::<HostCallLimit>() {
        return Outcome::Trapped { message: limit.to_string(), backtrace };
    }
    let message = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) if circumstances.is_cancelled => return Outcome::Cancelled,
        Some(Trap::Interrupt) => return Outcome::TimedOut { limit: circumstances.timeout, backtrace },
        Some(Trap::UnreachableCodeReached) => stopped_itself(&circumstances.last_words),
        Some(Trap::StackOverflow) => out_of_stack(&frames),
        // A guest with its stack at the bottom of the memory runs below address 0 when it recurses too deeply.
        Some(Trap::MemoryOutOfBounds) if recursing(&frames).is_some() => out_of_stack(&frames),
        Some(trap) => format!("trapped: {}", trap.to_string().trim_start_matches("wasm trap: ")),
        None => stopped_by_the_host(error),
    };
    Outcome::Trapped { message, backtrace }
}

/// The text for a result that is too large.
pub(super) fn result_too_large(bytes: usize) -> Outcome {
    let message = format!("the result has {bytes} bytes, at most {RESULT_BYTES_MAX} are allowed; store it elsewhere");
    Outcome::Trapped { message, backtrace: String::new() }
}

/// A guest that called `exit`.
pub(super) fn exited(code: i32, circumstances: &Circumstances) -> Outcome {
    let last_line = circumstances.last_words.trim_end().rsplit('\n').next().unwrap_or_default().to_owned();
    let with_last_line =
        |text: String| if last_line.is_empty() { text } else { format!("{text}; stderr ends with: {last_line}") };
    if circumstances.is_command {
        return match code {
            // The caller puts in what was written to stdout.
            0 => Outcome::Done { result: Vec::new() },
            75 => Outcome::Retry { after: None, reason: with_last_line("exit code 75".to_owned()) },
            _ => Outcome::Failed { message: with_last_line(format!("exit code {code}")) },
        };
    }
    Outcome::Failed { message: with_last_line(format!("it called exit({code}) instead of returning from `run`")) }
}

/// A limit that the engine holds, in our words where its own do not say what to do.
fn stopped_by_the_host(error: &Error) -> String {
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return format!(
            "stopped by the host: it holds {RESOURCES_MAX} streams, pollables or headers, the most that is allowed; \
             drop those it needs no more"
        );
    }
    let cause = error.root_cause().to_string();
    // The engine's own type for this is private.
    if cause.contains("fuel") {
        return format!(
            "stopped by the host: it handed more than {} MiB to the host in one call, the most that is allowed",
            HOSTCALL_FUEL >> 20
        );
    }
    format!("stopped by the host: {cause}")
}

/// A panic, an abort, or an assertion of a language runtime: what stderr says, without the advice for terminals.
fn stopped_itself(last_words: &str) -> String {
    let Some(start) = last_words.rfind("panicked at ") else {
        let words = last_words.trim();
        if words.is_empty() {
            return "aborted without a word on stderr (the `unreachable` instruction was executed)".to_owned();
        }
        return format!("aborted; stderr ends with: {}", end_of(words));
    };
    let text = &last_words[start..];
    let text = text.split("\nnote: run with `RUST_BACKTRACE").next().unwrap_or(text);
    text.trim_end().to_owned()
}

/// The last lines of a text.
fn end_of(words: &str) -> String {
    let lines: Vec<&str> = words.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn out_of_stack(frames: &[Frame]) -> String {
    let who = recursing(frames)
        .map_or_else(|| "it calls itself too deeply".to_owned(), |name| format!("`{name}` calls itself too deeply"));
    format!("ran out of stack: {who}; recurse less, or link it with a larger stack (`-zstack-size=1048576`)")
}

fn recursing(frames: &[Frame]) -> Option<&str> {
    let first = frames.get(1).or_else(|| frames.first())?;
    let same = frames.iter().filter(|frame| frame.name == first.name).count();
    (same >= RECURSION_FRAMES_MIN).then_some(first.name.as_str())
}

/// One function of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    /// Demangled.
    name: String,
    /// `src/lib.rs:14:27`, when the code has debug information and the engine reads it; empty otherwise.
    place: String,
}

impl Frame {
    /// Whether it lies in a source file that is not the standard library's.
    fn is_authors(&self) -> bool {
        let library = ["core/src/", "std/src/", "alloc/src/"];
        !self.place.is_empty()
            && !self.place.contains("wasi-libc")
            && !library.iter().any(|l| self.place.starts_with(l))
    }
}

/// The functions from the innermost outwards.
fn frames(backtrace: &WasmBacktrace) -> Vec<Frame> {
    let frames: Vec<Frame> = backtrace.frames().iter().flat_map(functions).collect();
    let is_noise = |frame: &Frame| PANIC_FRAMES.iter().any(|prefix| frame.name.starts_with(prefix));
    let start = frames.iter().position(|frame| !is_noise(frame)).unwrap_or(0);
    let frames = &frames[start..];
    // Where places are known, only the author's own code and what it calls back through is worth reading.
    let Some(first) = frames.iter().position(Frame::is_authors) else { return frames.to_vec() };
    let last = frames.iter().rposition(Frame::is_authors).unwrap_or(first);
    frames[first..=last].to_vec()
}

/// A function of the code and, where debug information tells, those that were inlined into it.
fn functions(frame: &wasmtime::FrameInfo) -> Vec<Frame> {
    let demangled = |name: &str| format!("{:#}", rustc_demangle::demangle(name));
    let own = match frame.func_name() {
        Some(name) => demangled(name),
        None => format!("function {}", frame.func_index()),
    };
    if frame.symbols().is_empty() {
        return vec![Frame { name: own, place: String::new() }];
    }
    let function = |symbol: &wasmtime::FrameSymbol| Frame {
        name: symbol.name().map_or_else(|| own.clone(), demangled),
        place: symbol.file().zip(symbol.line()).map_or_else(String::new, |(file, line)| {
            let column = symbol.column().map_or_else(String::new, |column| format!(":{column}"));
            format!("{}:{line}{column}", shown_path(file))
        }),
    };
    frame.symbols().iter().map(function).collect()
}

/// A source file as its author knows it: the folders of the machine that built it say nothing.
fn shown_path(file: &str) -> &str {
    if let Some((_, inside)) = file.split_once("/registry/src/") {
        // The name of the registry's folder, then the package.
        return inside.split_once('/').map_or(inside, |(_, inside)| inside);
    }
    if let Some((_, library)) = file.split_once("/library/") {
        return library;
    }
    let here = std::env::current_dir().unwrap_or_default();
    Path::new(file).strip_prefix(&here).ok().and_then(Path::to_str).unwrap_or(file)
}

fn write_frames(frames: &[Frame]) -> String {
    let mut text = String::new();
    let mut rest = frames;
    while let Some(frame) = rest.first() {
        let same = rest.iter().take_while(|other| *other == frame).count();
        let times = if same > 1 { format!(" ({same} times)") } else { String::new() };
        let place = if frame.place.is_empty() { String::new() } else { format!(" ({})", frame.place) };
        text.push_str(&format!("  at {}{place}{times}\n", frame.name));
        rest = &rest[same..];
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_without_the_advice_for_terminals() {
        let stderr = "log\nthread '<unnamed>' (1) panicked at src/lib.rs:9:20:\nthe spring broke\n\
                      note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(stopped_itself(stderr), "panicked at src/lib.rs:9:20:\nthe spring broke");
        assert!(stopped_itself("").contains("unreachable"));
        assert_eq!(stopped_itself("Traceback\nKeyError: 'x'\n"), "aborted; stderr ends with: Traceback\nKeyError: 'x'");
    }

    #[test]
    fn repeated_frames_are_counted() {
        let frame = |name: &str| Frame { name: name.to_owned(), place: String::new() };
        let frames = ["leaf", "dive", "dive", "run"].map(frame);
        assert_eq!(write_frames(&frames), "  at leaf\n  at dive (2 times)\n  at run");
        assert_eq!(recursing(&frames), None);
        assert_eq!(recursing(&vec![frame("dive"); 8]), Some("dive"));
    }

    #[test]
    fn a_place_is_shown_without_the_folders_of_the_machine_that_built_it() {
        let run = Frame { name: "run".to_owned(), place: "src/lib.rs:7:5".to_owned() };
        assert_eq!(write_frames(&[run]), "  at run (src/lib.rs:7:5)");
        let here = std::env::current_dir().unwrap();
        assert_eq!(shown_path(here.join("src/lib.rs").to_str().unwrap()), "src/lib.rs");
        assert_eq!(shown_path("/rustc/59807616e/library/core/src/option.rs"), "core/src/option.rs");
        assert_eq!(shown_path("/c/registry/src/index-1f/serde-1.0.0/src/de.rs"), "serde-1.0.0/src/de.rs");
        assert_eq!(shown_path("/elsewhere/lib.rs"), "/elsewhere/lib.rs");
    }
}
