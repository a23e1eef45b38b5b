//! From the engine's error to an outcome with a text for the author of the jumpscript.
//!
//! Invariant: every error of a running guest ends here, and no text names a path or an address of the host.

use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::guest::{HOSTCALL_FUEL, RESOURCES_MAX};
use super::limits::{HostCallLimit, MemoryLimit, ResultLimit};
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
        Some(trap) => format!("trapped: {trap}"),
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

fn out_of_stack(frames: &[String]) -> String {
    let who = recursing(frames)
        .map_or_else(|| "it calls itself too deeply".to_owned(), |name| format!("`{name}` calls itself too deeply"));
    format!("ran out of stack: {who}; recurse less, or link it with a larger stack (`-zstack-size=1048576`)")
}

fn recursing(frames: &[String]) -> Option<&str> {
    let first = frames.get(1).or_else(|| frames.first())?;
    let same = frames.iter().filter(|frame| *frame == first).count();
    (same >= RECURSION_FRAMES_MIN).then_some(first.as_str())
}

/// The demangled functions from the innermost outwards.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
        None => format!("function {}", frame.func_index()),
    };
    let names: Vec<String> = backtrace.frames().iter().map(name).collect();
    let is_noise = |name: &String| PANIC_FRAMES.iter().any(|prefix| name.starts_with(prefix));
    let start = names.iter().position(|name| !is_noise(name)).unwrap_or(0);
    names[start..].to_vec()
}

fn write_frames(frames: &[String]) -> String {
    let mut text = String::new();
    let mut rest = frames;
    while let Some(name) = rest.first() {
        let same = rest.iter().take_while(|other| *other == name).count();
        let times = if same > 1 { format!(" ({same} times)") } else { String::new() };
        text.push_str(&format!("  at {name}{times}\n"));
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
        let names: Vec<String> = ["leaf", "dive", "dive", "run"].map(String::from).to_vec();
        assert_eq!(write_frames(&names), "  at leaf\n  at dive (2 times)\n  at run");
        assert_eq!(recursing(&names), None);
        assert_eq!(recursing(&vec!["dive".to_owned(); 8]), Some("dive"));
    }
}
