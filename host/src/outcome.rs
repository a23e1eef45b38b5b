//! How one attempt ended.
//!
//! Invariant: the set is closed. `worker/settle.rs` is the only code that turns an outcome into a transition, and
//! its `match` has no wildcard: a new way to end does not compile until somebody decides what it means.

use std::fmt;
use std::time::Duration;

/// The end of one attempt, as the executor saw it. Texts are for the author of the jumpscript: they name limits
/// and the guest's own words, never paths or addresses of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The jumpscript returned a result.
    Done {
        /// The result, byte for byte.
        result: Vec<u8>,
    },
    /// The jumpscript said no: try again by the retry policy.
    Failed {
        /// The jumpscript's own words.
        message: String,
    },
    /// The jumpscript asked to be run again.
    Retry {
        /// Not before this much time has passed; the retry policy decides when it named none.
        after: Option<Duration>,
        /// The jumpscript's own words.
        reason: String,
    },
    /// Running it again cannot help: to the dead-letter queue at once.
    Rejected {
        /// Who rejected it and why.
        reason: String,
    },
    /// The wall time ran out.
    TimedOut {
        /// The time it was given.
        limit: Duration,
        /// What the guest was doing: its backtrace when it was computing, empty when it was waiting.
        backtrace: String,
    },
    /// The sandbox stopped it: a panic, an illegal instruction, a limit other than time and memory.
    Trapped {
        /// One line that says what happened.
        message: String,
        /// The guest's demangled backtrace, may be empty.
        backtrace: String,
    },
    /// It asked for more memory than it may have.
    OutOfMemory {
        /// The limit in bytes.
        limit: usize,
        /// The guest's demangled backtrace, may be empty.
        backtrace: String,
    },
    /// A person stopped it.
    Cancelled,
    /// State that it read changed before it ended: run it again, without counting the attempt.
    Conflict,
    /// Another worker may hold the job now: nothing is written.
    LeaseLost,
}

impl Outcome {
    /// The word of every outcome, in the order of [`Outcome::place`].
    pub const KINDS: [&'static str; 10] = [
        "done",
        "failed",
        "retry",
        "rejected",
        "timed_out",
        "trapped",
        "out_of_memory",
        "cancelled",
        "conflict",
        "lease_lost",
    ];

    /// Its place in [`Outcome::KINDS`].
    #[must_use]
    pub const fn place(&self) -> usize {
        match self {
            Self::Done { .. } => 0,
            Self::Failed { .. } => 1,
            Self::Retry { .. } => 2,
            Self::Rejected { .. } => 3,
            Self::TimedOut { .. } => 4,
            Self::Trapped { .. } => 5,
            Self::OutOfMemory { .. } => 6,
            Self::Cancelled => 7,
            Self::Conflict => 8,
            Self::LeaseLost => 9,
        }
    }

    /// One word for logs, metrics and the hash's `error_kind`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        Self::KINDS[self.place()]
    }

    /// Every text in it that a guest may have had a say in, for whoever changes them.
    pub fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Failed { message } => vec![message],
            Self::Retry { reason, .. } | Self::Rejected { reason } => vec![reason],
            Self::TimedOut { backtrace, .. } | Self::OutOfMemory { backtrace, .. } => vec![backtrace],
            Self::Trapped { message, backtrace } => vec![message, backtrace],
            Self::Done { .. } | Self::Cancelled | Self::Conflict | Self::LeaseLost => Vec::new(),
        }
    }

    /// The text for the hash's `last_error`; empty for [`Outcome::Done`].
    #[must_use]
    pub fn error_text(&self) -> String {
        let with_backtrace = |text: String, backtrace: &str| {
            if backtrace.is_empty() { text } else { format!("{text}\n{backtrace}") }
        };
        match self {
            Self::Done { .. } => String::new(),
            Self::Failed { message } => message.clone(),
            Self::Retry { reason, .. } | Self::Rejected { reason } => reason.clone(),
            Self::TimedOut { limit, backtrace } => {
                let limit = crate::clock::format_duration(*limit);
                with_backtrace(format!("stopped after {limit}, the job's timeout"), backtrace)
            }
            Self::Trapped { message, backtrace } => with_backtrace(message.clone(), backtrace),
            Self::OutOfMemory { limit, backtrace } => with_backtrace(
                format!(
                    "needs more memory than the {} MiB it may have (`memory_mib` in the manifest)",
                    limit / (1024 * 1024)
                ),
                backtrace,
            ),
            Self::Cancelled => "cancelled".to_owned(),
            Self::Conflict => "the state it read was changed by another job before it ended".to_owned(),
            Self::LeaseLost => "its lease was lost".to_owned(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// What one attempt used, beside how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time from the start to the end, in microseconds.
    pub wall_us: u64,
    /// Time the guest and its host calls computed, in microseconds.
    pub cpu_us: u64,
    /// Most linear memory held at once, in bytes.
    pub memory_bytes_peak: u64,
    /// The end of what it logged: `wasi:logging` lines, stderr, and stdout of a component.
    pub log_tail: String,
    /// Whether more was logged than was kept.
    pub is_log_cut: bool,
}
