//! What the jobs of a campaign do, and what must become of them.

use std::time::Duration;

use wasmhost::clock::Timestamp;
use wasmhost::job::{JobId, JobState, NewJob};

/// The queue of every campaign.
pub(super) const QUEUE: &str = "torture";

/// Attempts of a job that ends as dead.
const ATTEMPTS_OF_THE_DEAD: u32 = 3;
/// Attempts of a job that ends as done: so many that lost hosts do not use them up.
const ATTEMPTS_OF_THE_DONE: u32 = 60;

/// What a job is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It ends well.
    Ok,
    /// It fails so many times, then ends well.
    Fails(u32),
    /// It fails every time.
    AlwaysFails,
    /// It traps every time.
    Poison,
}

/// Which jumpscript runs the jobs, and so where their effects are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// `scripts/torture` tells the sink when it begins and when it is done.
    Torture,
    /// `scripts/echo`, the cheapest one: the effect is the result in the row, and hand-outs are counted by Redis. Every
    /// job ends well.
    Echo,
}

impl Work {
    /// The name of the guest, which is also the type of its jobs.
    pub(super) const fn guest(self) -> &'static str {
        match self {
            Self::Torture => "torture",
            Self::Echo => "echo",
        }
    }
}

/// A job of a campaign.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What the job calls itself at the sink.
    pub(super) name: String,
    pub(super) mode: Mode,
    /// How long it works.
    pub(super) ms: u64,
    /// Not before this time.
    pub(super) run_at: Option<Timestamp>,
    /// Whether it has an idempotency key in place of an id.
    pub(super) is_keyed: bool,
}

impl Plan {
    pub(super) fn new(number: usize, mode: Mode, ms: u64) -> Self {
        Self { name: format!("j{number}"), mode, ms, run_at: None, is_keyed: false }
    }

    /// Where it must be in the end.
    pub(super) const fn ends_as(&self) -> JobState {
        match self.mode {
            Mode::Ok | Mode::Fails(_) => JobState::Done,
            Mode::AlwaysFails | Mode::Poison => JobState::Dlq,
        }
    }

    /// Executions that it takes; each one more is a duplicate.
    pub(super) const fn executions(&self) -> u32 {
        match self.mode {
            Mode::Ok => 1,
            Mode::Fails(n) => n + 1,
            Mode::AlwaysFails | Mode::Poison => ATTEMPTS_OF_THE_DEAD,
        }
    }

    /// The job as a producer enqueues it.
    pub(super) fn job(&self, work: Work, sink: &str) -> NewJob {
        let max_attempts = match self.ends_as() {
            JobState::Done => ATTEMPTS_OF_THE_DONE,
            _ => ATTEMPTS_OF_THE_DEAD,
        };
        NewJob {
            id: (!self.is_keyed).then(|| JobId::from(self.name.as_str())),
            idempotency_key: self.is_keyed.then(|| self.name.clone()),
            run_at: self.run_at,
            max_attempts: Some(max_attempts),
            timeout: Some(Duration::from_secs(20)),
            ..NewJob::new(QUEUE, work.guest(), self.payload(work, sink))
        }
    }

    /// What the jumpscript is given.
    pub(super) fn payload(&self, work: Work, sink: &str) -> String {
        let (mode, n) = match self.mode {
            Mode::Ok => ("ok", 0),
            Mode::Fails(n) => ("fail_n", n),
            Mode::AlwaysFails => ("always_fail", 0),
            Mode::Poison => ("poison", 0),
        };
        match work {
            Work::Torture => {
                serde_json::json!({ "id": self.name, "mode": mode, "ms": self.ms, "n": n, "sink": sink }).to_string()
            }
            Work::Echo => self.name.clone(),
        }
    }
}
