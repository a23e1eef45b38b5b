//! Every way to end without dying, and what a job can see of its surroundings.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wasmhost_guest::{Job, JobError, Raw};

static CALLS: AtomicU32 = AtomicU32::new(0);

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let text = match String::from_utf8(job.args.0.clone())?.as_str() {
        "failed" => return Err(JobError::failed("no luck")),
        "retry" => return Err(JobError::retry("busy")),
        "later" => return Err(JobError::retry_after(Duration::from_millis(1_500), "busy")),
        "reject" => return Err(JobError::reject("makes no sense")),
        "question" => return Ok(Raw(vec!["x".parse::<u8>()?])),
        "sleep" => {
            return Ok(Raw({
                std::thread::sleep(Duration::from_secs(3_600));
                vec![]
            }));
        }
        "nap" => {
            std::thread::sleep(Duration::from_millis(30));
            "slept".to_owned()
        }
        "long nap" => {
            std::thread::sleep(Duration::from_millis(1_000));
            "slept well".to_owned()
        }
        "residue" => CALLS.fetch_add(1, Ordering::Relaxed).to_string(),
        "surroundings" => format!(
            "{:?} {:?} {:?} {:?}",
            std::env::vars().count(),
            std::env::args().count(),
            std::fs::read_dir("/").is_err(),
            std::fs::write("x", "y").is_err()
        ),
        "random" => std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 1).to_string(),
        "record" => return Ok(Raw(format!("{job:?}").into_bytes())),
        word => return Err(JobError::reject(format!("unknown word {word}"))),
    };
    Ok(Raw(text.into_bytes()))
}
