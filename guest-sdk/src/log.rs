//! Log lines with a level. `println!` and `eprintln!` are captured too, as lines of level info.

use std::fmt;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// Decisions.
    Debug,
    /// Life-cycle.
    Info,
    /// Recovered or degraded.
    Warn,
    /// Something failed.
    Error,
    /// It cannot go on.
    Critical,
}

/// Logs a line with a context: a word that groups lines, such as a part of the program.
pub fn log(level: Level, context: &str, message: impl fmt::Display) {
    emit(level, context, &message.to_string());
}

/// Logs every step.
pub fn trace(message: impl fmt::Display) {
    log(Level::Trace, "", message);
}

/// Logs a decision.
pub fn debug(message: impl fmt::Display) {
    log(Level::Debug, "", message);
}

/// Logs what a person who watches wants to know.
pub fn info(message: impl fmt::Display) {
    log(Level::Info, "", message);
}

/// Logs that something was recovered or is degraded.
pub fn warn(message: impl fmt::Display) {
    log(Level::Warn, "", message);
}

/// Logs that something failed.
pub fn error(message: impl fmt::Display) {
    log(Level::Error, "", message);
}

/// Logs that the job cannot go on.
pub fn critical(message: impl fmt::Display) {
    log(Level::Critical, "", message);
}

#[cfg(target_family = "wasm")]
fn emit(level: Level, context: &str, message: &str) {
    use crate::contract::wasi::logging::logging;
    let level = match level {
        Level::Trace => logging::Level::Trace,
        Level::Debug => logging::Level::Debug,
        Level::Info => logging::Level::Info,
        Level::Warn => logging::Level::Warn,
        Level::Error => logging::Level::Error,
        Level::Critical => logging::Level::Critical,
    };
    logging::log(level, context, message);
}

#[cfg(not(target_family = "wasm"))]
#[expect(clippy::print_stderr, reason = "a native test of a job function shows its log on stderr")]
fn emit(level: Level, context: &str, message: &str) {
    crate::testing::hear_log(level, context, message);
    eprintln!("{level:?} {context} {message}");
}
