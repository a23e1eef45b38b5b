//! Every way to die: the payload names it.

use std::hint::black_box;
use wasmhost_guest::{Job, JobError, Raw};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    match String::from_utf8(job.args.0)?.as_str() {
        "panic" => panic!("the {} broke", black_box("spring")),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "loop" => loop {
            black_box(());
        },
        "recursion" => return Ok(Raw(vec![dive(1) as u8])),
        "memory" => loop {
            std::mem::forget(black_box(vec![1_u8; 64 * 1024]));
        },
        "memory at once" => drop(black_box(vec![1_u8; 1 << 30])),
        "divide" => drop(black_box(1_u32.wrapping_div(black_box(0)))),
        word => return Err(JobError::reject(format!("unknown word {word}"))),
    }
    Ok(Raw::default())
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn dive(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    dive(depth + 1) + frame[7]
}
