//! What a Rust jumpscript imports: typed jobs, state, jobs of its own, logs, progress, HTTP, configuration, secrets,
//! facts about the node, errors.
//!
//! A jumpscript is a library (`crate-type = ["cdylib"]`) with one function, built for `wasm32-wasip2`:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use wasmhost_guest::{Job, JobError, log, progress};
//!
//! #[derive(Deserialize)]
//! struct Args {
//!     name: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Greeting {
//!     text: String,
//! }
//!
//! #[wasmhost_guest::job]
//! fn run(job: Job<Args>) -> Result<Greeting, JobError> {
//!     if job.args.name.is_empty() {
//!         return Err(JobError::reject("a greeting needs a name"));
//!     }
//!     log::info(format!("attempt {} of {}", job.attempt, job.max_attempts));
//!     progress::report(50, "halfway");
//!     Ok(Greeting { text: format!("Hello, {}!", job.args.name) })
//! }
//! ```
//!
//! - The payload is read as JSON into the type in `Job<…>`, the result is written as JSON. [`Raw`] in either place
//!   means the bytes as they are.
//! - `?` works on any error: it becomes [`JobError::failed`] with all its causes. A payload that cannot be read is
//!   [`JobError::reject`], because trying again cannot help.
//! - A `jumpscript.toml` beside the `Cargo.toml` is embedded: the lone `.wasm` file is complete. Another file:
//!   `#[wasmhost_guest::job(manifest = "path")]`.
//! - [`http`] sends requests to where the manifest asks for it and the node allows it.
//! - [`state`] keeps values beyond the job, [`jobs`] enqueues further jobs; both commit with the result.
//! - [`config`] reads values that the operator gives by key, [`secrets`] what must stay secret; the manifest requests both.
//! - [`facts`] says how the node is: disks, memory, load, processes, health.
//! - The function stays an ordinary function: test it natively with [`Job::test`] and `cargo test`;
//!   `testing::capture` gives what it logged and reported.
//!
//! Invariant: on another target than Wasm nothing here calls a host; logs and progress go to stderr, state and jobs are
//! kept in the memory of the thread, which is also where configuration and secrets come from.

pub mod config;
mod error;
pub mod facts;
pub mod http;
mod job;
pub mod jobs;
pub mod log;
pub mod progress;
pub mod secrets;
pub mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use error::JobError;
pub use job::{FromPayload, IntoResult, Job, Raw};
pub use wasmhost_guest_macros::job;

/// Ends a command (`fn main`) with an exit code: 0 is done, 75 asks to be run again, any other has failed.
///
/// [`std::process::exit`] does the same in WASI preview 1. In WASI 0.2 it tells success from failure only, and every
/// failure arrives as 1; this function passes the code on.
pub fn exit(code: u8) -> ! {
    #[cfg(all(target_family = "wasm", target_env = "p2"))]
    {
        // What is left in a buffer of the standard library would be lost.
        let _ = std::io::Write::flush(&mut std::io::stdout());
        wasip2::cli::exit::exit_with_code(code);
    }
    std::process::exit(code.into())
}

/// What the macro expands to; not for hands.
#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub mod __private {
    pub use crate::contract::wasmhost::jumpscript::types;
    pub use crate::contract::*;

    use crate::{FromPayload, IntoResult};

    /// Decodes, calls, encodes.
    pub fn call<A: FromPayload, R: IntoResult>(
        job: types::Job,
        run: impl FnOnce(crate::Job<A>) -> Result<R, crate::JobError>,
    ) -> Result<Vec<u8>, types::JobError> {
        let args = A::from_payload(job.payload).map_err(types::JobError::Reject)?;
        let job = crate::Job {
            id: job.id,
            queue: job.queue,
            job_type: job.job_type,
            node: job.node,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            deadline_ms: job.deadline_ms,
            enqueued_at_ms: job.enqueued_at_ms,
            content_type: job.content_type,
            metadata: job.metadata,
            args,
        };
        run(job).and_then(IntoResult::into_result).map_err(crate::JobError::into_contract)
    }
}

/// The host's side of the contract, from `wit/`.
#[cfg(target_family = "wasm")]
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated: the canonical ABI is raw memory")]
mod contract {
    wit_bindgen::generate!({
        path: "wit",
        world: "jumpscript",
        pub_export_macro: true,
        generate_all,
    });
}
