//! Returns its payload byte for byte: the first job of a new installation, and the yardstick of the benchmarks.

use wasmhost_guest::{Job, JobError, Raw};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    Ok(job.args)
}
