//! Says that it waits, and waits.

use std::time::Duration;
use wasmhost_guest::{Job, JobError, Raw, log};

#[wasmhost_guest::job]
fn run(_job: Job<Raw>) -> Result<Raw, JobError> {
    log::info("waiting");
    std::thread::sleep(Duration::from_secs(3_600));
    Ok(Raw::default())
}
