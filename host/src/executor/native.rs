//! Runs attempts as plain Rust calls, without a sandbox.
//!
//! Only for measuring: `wasmhost bench` uses it to show what the queue alone costs. No command line, configuration or
//! message from Redis can reach it.

use super::{Attempt, Executor};
use crate::job::Reserved;
use crate::outcome::{Outcome, Usage};

/// An executor that calls a function on the I/O thread.
pub struct NativeExecutor<F>(F);

impl<F: Fn(&Reserved) -> Outcome + Send + Sync> NativeExecutor<F> {
    /// The function must not block: everything else of the host waits for it.
    pub const fn new(handler: F) -> Self {
        Self(handler)
    }
}

impl<F: Fn(&Reserved) -> Outcome + Send + Sync> Executor for NativeExecutor<F> {
    fn start(&self, attempt: Attempt) {
        let outcome = (self.0)(&attempt.job);
        attempt.finish(outcome, Usage::default());
    }
}
