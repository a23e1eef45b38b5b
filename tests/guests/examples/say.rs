//! Everything a job can say: logs, output, progress, and too much of each.

use wasmhost_guest::{Job, JobError, Raw, log, progress};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let payload = String::from_utf8(job.args.0)?;
    let (word, number) = payload.split_once(' ').unwrap_or((&payload, "0"));
    let number: usize = number.parse()?;
    match word {
        "levels" => {
            log::debug("a decision");
            log::log(log::Level::Warn, "disk", "nearly full");
            println!("on stdout");
            eprint!("on stderr, without a line end");
        }
        "progress" => (0..=number).for_each(|n| progress::report((n * 50) as u8, format!("step {n}"))),
        "calls" => (0..number).for_each(|n| {
            log::info("a line of usual length for a log");
            progress::report((n % 100) as u8, "half of it");
        }),
        "lines" => (0..number).for_each(|n| log::info(format!("line {n}"))),
        "stderr" => (0..number).for_each(|n| eprintln!("{n:0>1023}")),
        "stderr and panic" | "flood" => {
            (0..number).for_each(|n| eprintln!("{n:0>1023}"));
            panic!("after the flood");
        }
        "hidden" => eprintln!("\u{1b}[31mred\u{202e}"),
        "result" => return Ok(Raw(vec![b'x'; number])),
        word => return Err(JobError::reject(format!("unknown word {word}"))),
    }
    Ok(Raw(b"said".to_vec()))
}
