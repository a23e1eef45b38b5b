//! Hands the host lists and texts that are not what they claim: the payload names which.

use wasmhost_guest::{Job, JobError, Raw};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    match String::from_utf8(job.args.0)?.as_str() {
        "long list" => Ok(Raw(claim(1 << 30))),
        "bad text" => Err(JobError::failed(text(vec![b'a', 0xff, 0xfe]))),
        "half a pair" => Err(JobError::failed(text(vec![0xed, 0xa0, 0x80]))),
        word => Err(JobError::reject(format!("unknown word {word}"))),
    }
}

/// A list that says it has so many bytes. Nothing here may read it; the host must not either.
fn claim(bytes: usize) -> Vec<u8> {
    // SAFETY: none; that is what it is for. The instance ends before the list is freed.
    unsafe { Vec::from_raw_parts(std::ptr::without_provenance_mut(1024), bytes, bytes) }
}

fn text(bytes: Vec<u8>) -> String {
    // SAFETY: none; that is what it is for.
    unsafe { String::from_utf8_unchecked(bytes) }
}
