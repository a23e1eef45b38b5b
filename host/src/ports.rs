//! What an attempt may reach outside its sandbox, as traits: the adapters of layer 1 call them, `host.rs` says who
//! answers.
//!
//! Invariant: a port never blocks. What a guest logs or reports is handed on at once or dropped and counted.

/// How serious a log line is; the levels of `wasi:logging`.
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

impl Level {
    /// The word on screens and in log tails.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// What a running attempt tells the world before it ends.
pub trait JobSink: Send + Sync {
    /// A log line. The text is the guest's: it may contain anything, and is bounded by the sandbox.
    fn log(&self, level: Level, context: &str, message: &str);

    /// How far it has come: 0 to 100, and a few words.
    fn progress(&self, percent: u8, message: &str);
}

/// A sink that drops everything, for attempts nobody listens to.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl JobSink for NoSink {
    fn log(&self, _level: Level, _context: &str, _message: &str) {}

    fn progress(&self, _percent: u8, _message: &str) {}
}
