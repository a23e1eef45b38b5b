//! What an actor of another system does with a script: a few words of it, else the script in capitals.
use std::thread::sleep;
use std::time::Duration;
use wasmhost_guest::{Job, JobError, Raw};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let script = String::from_utf8_lossy(&job.args.0).into_owned();
    match script.split_once(' ') {
        Some(("fail", why)) => return Err(JobError::failed(why)),
        Some(("nap", ms)) => sleep(Duration::from_millis(ms.parse()?)),
        Some(("large", bytes)) => return Ok(Raw(vec![b'x'; bytes.parse()?])),
        _ if script == "record" => return Ok(Raw(format!("{:?}", job.metadata).into_bytes())),
        _ => (),
    }
    Ok(Raw(script.to_uppercase().into_bytes()))
}
