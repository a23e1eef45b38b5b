//! Measures wasmhost and other job queues side by side, on one private Redis, in turn.
//!
//! To be run from the repository's root by `make bench-peers`; `../README.md` says how and why. Everything is bounded:
//! the jobs by the command line, each step by a time limit, and no process that is started here outlives this one.
//!
//! Next: `contest.rs` for what is done to a peer, `report.rs` for what is printed.

mod contest;
mod process;
mod redis;
mod report;

use std::path::Path;
use std::process::ExitCode;

use contest::{Contest, Entrant, Program};
use redis::Redis;
use report::{Busy, Row};

/// Any failure ends the step with its text.
type Error = Box<dyn std::error::Error>;

/// What a peer is skipped for is written here, one file each, by what installs them.
const SKIPPED: &str = "target/peers/skipped";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Jobs of one drain.
    jobs: u64,
    /// How often all take their turn.
    rounds: usize,
    /// Seconds of latency, one more to warm up not counted.
    seconds: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let size = size(std::env::args().skip(1))?;
    let (entrants, mut notes) = entrants();
    let redis = Redis::start()?;
    let busy = Busy::start();
    let contest = Contest { redis: &redis, size };
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..size.rounds {
        for place in 0..entrants.len() {
            // Each begins once: whatever is special about a place in the order hits all.
            let entrant = &entrants[(round + place) % entrants.len()];
            eprintln!("round {} of {}: {}", round + 1, size.rounds, entrant.name);
            redis.clear()?;
            match contest.measure(entrant) {
                Ok(turns) => turns.into_iter().for_each(|(name, turn)| Row::add(&mut rows, name, turn)),
                Err(error) if entrant.is_ours() => return Err(error),
                Err(error) => {
                    eprintln!("  left out: {error}");
                    notes.push(format!("{}: a turn was left out: {error}", entrant.name));
                }
            }
        }
    }
    redis.stop();
    let wanted = entrants.iter().filter(|entrant| !entrant.is_ours()).map(|entrant| entrant.name);
    for missing in wanted.filter(|name| !rows.iter().any(|row| row.name == *name)) {
        notes.push(format!("{missing}: skipped, no turn of it succeeded"));
    }
    let apalis = entrants.iter().filter_map(|entrant| entrant.jobs_max.map(|jobs| (entrant.name, jobs)));
    notes.extend(
        apalis
            .filter(|(_, jobs)| *jobs < size.jobs)
            .map(|(name, jobs)| format!("{name}: drains of {jobs} jobs, its worker ends on a larger backlog")),
    );
    report::print(&rows, size, &busy, &notes);
    report::write(&rows)
}

/// Reads `--jobs N --rounds N --seconds N`.
fn size(mut words: impl Iterator<Item = String>) -> Result<Size, Error> {
    let mut size = Size { jobs: 50_000, rounds: 5, seconds: 3 };
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse::<u64>().ok());
        match (word.as_str(), value) {
            ("--jobs", Some(n @ 1_000..=500_000)) => size.jobs = n,
            ("--rounds", Some(n @ 1..=25)) => size.rounds = usize::try_from(n)?,
            ("--seconds", Some(n @ 1..=60)) => size.seconds = n,
            _ => {
                let usage = "--jobs N (1000 to 500000), --rounds N (1 to 25), --seconds N (1 to 60)";
                return Err(format!("cannot take `{word}` so; what there is: {usage}").into());
            }
        }
    }
    Ok(size)
}

/// All that are measured, and why others are not.
fn entrants() -> (Vec<Entrant>, Vec<String>) {
    let all = [
        Entrant { name: "wasmhost", program: Program::Ours, jobs_max: None },
        Entrant { name: "bullmq-official", program: Program::Rust("peer-bullmq"), jobs_max: None },
        Entrant { name: "bee-queue", program: Program::Node("bee-queue.cjs"), jobs_max: None },
        Entrant { name: "bullmq", program: Program::Node("bullmq.cjs"), jobs_max: None },
        // Its fetch script unpacks all due jobs at once, and Lua ends at about 8,000.
        Entrant { name: "apalis-redis", program: Program::Rust("peer-apalis"), jobs_max: Some(7_000) },
    ];
    let (mut entrants, mut notes) = (Vec::new(), Vec::new());
    for entrant in all {
        match std::fs::read_to_string(Path::new(SKIPPED).join(entrant.name)) {
            Ok(reason) => notes.push(format!("{}: skipped, {}", entrant.name, reason.trim())),
            Err(_) => entrants.push(entrant),
        }
    }
    (entrants, notes)
}
