//! Every way to end without dying, and what a job can see of its surroundings.
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;
use wasmhost_guest::{Job, JobError, Raw, log};

static CALLS: AtomicU32 = AtomicU32::new(0);

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let mut text = String::new();
    match String::from_utf8(job.args.0.clone())?.as_str() {
        "failed" => return Err(JobError::failed("no luck")),
        "retry" => return Err(JobError::retry("busy")),
        "later" => return Err(JobError::retry_after(Duration::from_millis(1_500), "busy")),
        "reject" => return Err(JobError::reject("makes no sense")),
        "question" => text = "x".parse::<u8>()?.to_string(),
        "sleep" => [log::info("good night"), sleep(Duration::from_secs(3_600))].into_iter().collect(),
        "nap" => sleep(Duration::from_millis(30)),
        "long nap" => sleep(Duration::from_secs(1)),
        "residue" => text = CALLS.fetch_add(1, Ordering::Relaxed).to_string(),
        "environment" => text = format!("{} {}", std::env::vars().count(), std::env::args().count()),
        "files" => text = format!("{} {}", std::fs::read_dir("/").is_err(), std::fs::write("x", "y").is_err()),
        "random" => text = RandomState::new().hash_one(1).to_string(),
        "record" => text = format!("{job:?}"),
        word => return Err(JobError::reject(format!("unknown word {word}"))),
    };
    Ok(Raw(text.into_bytes()))
}
