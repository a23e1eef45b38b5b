//! The driver of `make demo`: one job for every text file of a repository, through Redis and a running host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;

use super::failure::FAILED;
use super::{Failure, Global, print};
use crate::job::{JobId, JobState, NewJob, PAYLOAD_BYTES_MAX, visible};

/// The jumpscript that the demo runs.
const SCRIPT: &str = "text-stats";
/// Rows of the table; the rest is summed up.
const ROWS_MAX: usize = 40;
/// Longest wait for one job.
const WAIT: Duration = Duration::from_secs(60);

/// Arguments of `wasmhost demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The repository
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
}

/// What text-stats answers.
#[derive(Debug, Deserialize)]
struct Stats {
    bytes: u64,
    lines: u64,
    words: u64,
    sha256: String,
    top: Vec<(String, u64)>,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: DemoArgs) -> Result<ExitCode, Failure> {
    let (files, left_out) = text_files(&args.folder).await?;
    if files.is_empty() {
        return Err(Failure::usage(format!("`{}` has no text file that git knows", args.folder.display())));
    }
    let store = global.connect().await?;
    let jobs: Vec<NewJob> = files
        .iter()
        .map(|(_, payload)| NewJob {
            content_type: "application/json".to_owned(),
            ..NewJob::new("default", SCRIPT, payload.clone())
        })
        .collect();
    let start = Instant::now();
    let enqueued = store.enqueue(&jobs).await?;
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for ((path, _), job) in files.iter().zip(&enqueued) {
        match ended(&store, &job.id).await? {
            Ok(stats) => rows.push((path, stats)),
            Err(why) => failures.push(format!("{}: {why}", visible(path))),
        }
    }
    let took = start.elapsed();

    print_table(&rows);
    for failure in &failures {
        print::note(&format!("failed {failure}"));
    }
    let n = files.len();
    let rate = n as u128 * 1000 / took.as_millis().max(1);
    print::line(&format!(
        "\n{n} text files, one job each, each in a fresh sandbox: {} done, {} failed in {} ms, {rate} jobs/s",
        rows.len(),
        failures.len(),
        took.as_millis()
    ));
    if left_out > 0 {
        print::line(&format!("{left_out} files are no text, or too large for a job, and were left out"));
    }
    Ok(ExitCode::from(if failures.is_empty() { 0 } else { FAILED }))
}

/// Waits for the end of a job: its answer, or why there is none.
async fn ended(store: &crate::store::Store, id: &JobId) -> Result<Result<Stats, String>, Failure> {
    let Some(record) = store.wait_final(id, WAIT).await? else { return Ok(Err("its record is gone".to_owned())) };
    Ok(match record.state() {
        Some(JobState::Done) => {
            let result = record.field("result").unwrap_or_default();
            serde_json::from_slice(result).map_err(|error| format!("its result cannot be read: {error}"))
        }
        state => {
            let state = state.map_or_else(|| "in no known state".to_owned(), |state| format!("`{state}`"));
            Err(format!("it is {state}: {}", visible(&record.text("last_error").unwrap_or_default())))
        }
    })
}

/// The largest files, and what all have together.
fn print_table(rows: &[(&String, Stats)]) {
    let mut sorted: Vec<&(&String, Stats)> = rows.iter().collect();
    sorted.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then_with(|| a.0.cmp(b.0)));
    let shown = sorted.iter().take(ROWS_MAX).map(|(path, stats)| {
        let top: Vec<String> = stats.top.iter().map(|(word, n)| format!("{} {n}", visible(word))).collect();
        [
            visible(path),
            stats.bytes.to_string(),
            stats.lines.to_string(),
            stats.words.to_string(),
            stats.sha256.chars().take(12).collect(),
            top.join(", "),
        ]
    });
    print::table(["FILE", "BYTES", "LINES", "WORDS", "SHA-256", "MOST FREQUENT WORDS"], shown);
    if let Some(rest) = sorted.get(ROWS_MAX..)
        && !rest.is_empty()
    {
        let bytes: u64 = rest.iter().map(|(_, stats)| stats.bytes).sum();
        print::line(&format!("... and {} smaller files with {bytes} bytes", rest.len()));
    }
    let sum = |pick: fn(&Stats) -> u64| rows.iter().map(|(_, stats)| pick(stats)).sum::<u64>();
    print::line(&format!(
        "in all {} bytes, {} lines, {} words",
        sum(|stats| stats.bytes),
        sum(|stats| stats.lines),
        sum(|stats| stats.words)
    ));
}

/// The text files that git knows in `folder` with the payload of their job, and how many files are no text.
async fn text_files(folder: &std::path::Path) -> Result<(Vec<(String, String)>, usize), Failure> {
    let output = tokio::process::Command::new("git").arg("-C").arg(folder).args(["ls-files", "-z"]).output().await;
    let output = output.map_err(|error| Failure::new(format!("cannot run `git`: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::usage(format!("`git ls-files` failed: {text}")));
    }
    let names: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let files: Vec<(String, String)> = names.iter().filter_map(|name| payload_of(folder, name)).collect();
    let left_out = names.len() - files.len();
    Ok((files, left_out))
}

/// Name and payload of a text file; `None` for other files, and for what is too large for a job.
fn payload_of(folder: &std::path::Path, name: &[u8]) -> Option<(String, String)> {
    // A name that is not UTF-8 cannot travel in JSON.
    let name = std::str::from_utf8(name).ok()?;
    let path = folder.join(name);
    let size = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?.len();
    if size > PAYLOAD_BYTES_MAX as u64 {
        return None;
    }
    let text = std::fs::read_to_string(&path).ok().filter(|text| !text.contains('\0'))?;
    let payload = serde_json::json!({ "path": name, "text": text }).to_string();
    (payload.len() <= PAYLOAD_BYTES_MAX).then(|| (name.to_owned(), payload))
}
