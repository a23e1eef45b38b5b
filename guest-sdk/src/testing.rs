//! What a job function says, for its native tests.
//!
//! ```
//! use wasmhost_guest::testing::capture;
//! use wasmhost_guest::{Job, JobError, log, progress};
//!
//! fn run(job: Job<u32>) -> Result<u32, JobError> {
//!     if job.args == 0 {
//!         return Err(JobError::reject("nothing to halve"));
//!     }
//!     log::warn(format!("halving {}", job.args));
//!     progress::report(100, "halved");
//!     Ok(job.args / 2)
//! }
//!
//! let ran = capture(|| run(Job::test(8)));
//! assert_eq!(ran.output, Ok(4));
//! assert!(ran.has_logged("halving 8"));
//! assert_eq!(ran.progress, [(100, "halved".to_owned())]);
//!
//! let error = run(Job { attempt: 2, max_attempts: 5, ..Job::test(0) }).unwrap_err();
//! assert!(error.is_reject());
//! assert_eq!(error.message(), "nothing to halve");
//! ```
//!
//! Invariant: what one thread captures is what that thread said; tests that run side by side do not mix.

use std::cell::RefCell;

use crate::log::Level;

/// A log line of a job function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How serious it is.
    pub level: Level,
    /// The word that groups lines; empty for `log::info` and the like.
    pub context: String,
    /// The text.
    pub message: String,
}

/// What a job function returned and said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured<T> {
    /// What it returned.
    pub output: T,
    /// Its log lines, in their order. What it printed is not among them.
    pub log: Vec<Line>,
    /// Its progress reports: percent and words.
    pub progress: Vec<(u8, String)>,
}

impl<T> Captured<T> {
    /// Whether a log line has this text.
    #[must_use]
    pub fn has_logged(&self, part: &str) -> bool {
        self.log.iter().any(|line| line.message.contains(part))
    }
}

/// Calls a job function and gives what it returned and said. Its log goes to stderr as well.
///
/// A panic goes on to the test, and nothing is captured of it.
pub fn capture<T>(run: impl FnOnce() -> T) -> Captured<T> {
    /// Puts back what was being captured around it, also when `run` panics.
    struct Around(Option<Said>);
    impl Drop for Around {
        fn drop(&mut self) {
            SAID.replace(self.0.take());
        }
    }
    let around = Around(SAID.replace(Some(Said::default())));
    let output = run();
    let said = SAID.take().unwrap_or_default();
    drop(around);
    Captured { output, log: said.log, progress: said.progress }
}

#[derive(Default)]
struct Said {
    log: Vec<Line>,
    progress: Vec<(u8, String)>,
}

thread_local! {
    static SAID: RefCell<Option<Said>> = const { RefCell::new(None) };
}

pub(crate) fn hear_log(level: Level, context: &str, message: &str) {
    hear(|said| said.log.push(Line { level, context: context.to_owned(), message: message.to_owned() }));
}

pub(crate) fn hear_progress(percent: u8, message: &str) {
    hear(|said| said.progress.push((percent, message.to_owned())));
}

fn hear(note: impl FnOnce(&mut Said)) {
    SAID.with_borrow_mut(|said| said.as_mut().map(note));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log, progress};

    #[test]
    fn a_capture_holds_what_was_said_inside_it_only() {
        log::info("before");
        let outer = capture(|| {
            log::log(Level::Warn, "disk", "nearly full");
            let inner = capture(|| progress::report(200, "beyond"));
            assert_eq!(inner.progress, [(100, "beyond".to_owned())]);
            log::error("after the inner one");
        });
        log::info("after");
        let line = Line { level: Level::Warn, context: "disk".to_owned(), message: "nearly full".to_owned() };
        assert_eq!(outer.log[0], line);
        assert_eq!((outer.log.len(), outer.progress.len()), (2, 0));
        assert!(outer.has_logged("inner") && !outer.has_logged("before"));
    }

    #[test]
    fn a_panic_ends_its_capture() {
        let outer = capture(|| {
            let broke = std::panic::catch_unwind(|| capture(|| panic!("broke")));
            assert!(broke.is_err());
            log::info("still heard");
        });
        assert!(outer.has_logged("still heard"));
    }
}
