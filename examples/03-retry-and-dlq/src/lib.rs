//! Fails as often as its payload says, then succeeds.

use serde::{Deserialize, Serialize};
use wasmhost_guest::{Job, JobError, log};

#[derive(Deserialize)]
struct Args {
    /// Attempts that fail before one succeeds.
    #[serde(default)]
    failures: u32,
}

#[derive(Debug, PartialEq, Serialize)]
struct Success {
    attempt: u32,
}

#[wasmhost_guest::job]
fn run(job: Job<Args>) -> Result<Success, JobError> {
    log::info(format!("attempt {} of {}", job.attempt, job.max_attempts));
    if job.attempt <= job.args.failures {
        return Err(JobError::failed(format!("not in the mood on attempt {}", job.attempt)));
    }
    Ok(Success { attempt: job.attempt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_succeeds_after_its_failures() {
        let on_attempt = |attempt| run(Job { attempt, ..Job::test(Args { failures: 1 }) });
        assert_eq!(on_attempt(1).unwrap_err(), JobError::failed("not in the mood on attempt 1"));
        assert_eq!(on_attempt(2).unwrap(), Success { attempt: 2 });
    }
}
