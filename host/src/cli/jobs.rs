//! `wasmhost jobs`: what became of jobs.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::exec::json_or_text;
use super::failure::FAILED;
use super::{Failure, Global, Output, print};
use crate::job::{JobId, JobState, visible, visible_lines};
use crate::store::JobRecord;

/// The verbs of `wasmhost jobs`.
#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs, newest states first
    Ls {
        /// Only this queue
        #[arg(long)]
        queue: Option<String>,
        /// Only jobs in this state
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Jobs on a page
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page begins: what the page before it ended with
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show everything about one job
    Show {
        /// The job's id
        id: String,
    },
}

/// The states, as words of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum StateArg {
    Scheduled,
    Ready,
    Inflight,
    Done,
    Dlq,
    Cancelled,
}

impl From<StateArg> for JobState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Scheduled => Self::Scheduled,
            StateArg::Ready => Self::Ready,
            StateArg::Inflight => Self::Inflight,
            StateArg::Done => Self::Done,
            StateArg::Dlq => Self::Dlq,
            StateArg::Cancelled => Self::Cancelled,
        }
    }
}

/// Runs the command.
pub(super) async fn run(global: Global, command: JobsCommand) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    match command {
        JobsCommand::Ls { queue, state, limit, cursor } => {
            let page = store.jobs(queue.as_deref(), state.map(Into::into), cursor.as_deref(), limit as usize).await?;
            if global.output == Output::Json {
                let jobs: Vec<Value> = page.jobs.iter().map(|job| shape(&id_of(job), job, false)).collect();
                print::json(&json!({ "jobs": jobs, "next_cursor": page.next }));
                return Ok(ExitCode::SUCCESS);
            }
            print::table(["ID", "STATE", "QUEUE", "TYPE", "ATTEMPTS", "CREATED", "ERROR"], page.jobs.iter().map(row));
            if let Some(next) = page.next {
                print::note(&format!("there is more: --cursor {next}"));
            }
        }
        JobsCommand::Show { id } => {
            let id = JobId::from(id.as_str());
            let Some(record) = store.job(&id).await? else {
                return Err(Failure::new(format!("there is no job `{id}` under this prefix"))
                    .hint("done jobs are removed after 24 h; `wasmhost jobs ls` lists those that are there"));
            };
            match global.output {
                Output::Json => print::json(&shape(&id, &record, true)),
                Output::Text => show(&id, &record),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(job: &JobRecord) -> [String; 7] {
    let text = |name| visible(&job.text(name).unwrap_or_default());
    let first_line = |name| text_line(&job.text(name).unwrap_or_default(), 60);
    [
        id_of(job).to_string(),
        text("status"),
        visible(&job.queue()),
        visible(&job.job_type()),
        job.attempts().to_string(),
        job.time("created_at_nano").map_or_else(|| "-".to_owned(), |time| time.to_string()),
        first_line("last_error"),
    ]
}

fn id_of(job: &JobRecord) -> JobId {
    job.id.clone().unwrap_or_else(|| JobId::from(""))
}

/// The first line of a text, cut at a number of characters.
fn text_line(text: &str, chars_max: usize) -> String {
    let line = visible(text.lines().next().unwrap_or_default());
    if line.chars().count() <= chars_max { line } else { line.chars().take(chars_max).chain(['…']).collect() }
}

/// Fields with a form of their own; all others are shown as they lie in the hash.
const BODIES: [&str; 5] = ["payload", "result", "log", "last_error", "metadata"];
/// Fields that are proofs, not facts for people.
const HIDDEN: [&str; 2] = ["lease_token", "done_token"];

fn show(id: &JobId, record: &JobRecord) {
    print::line(&format!("{:<24} {id}", "id"));
    for (name, value) in record.fields.iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str())) {
        let is_time = name.ends_with("_nano") && name != "timeout_nano";
        if BODIES.contains(&name.as_str()) {
            continue;
        }
        let text = match record.time(name) {
            Some(time) if is_time => time.to_string(),
            None if is_time => "-".to_owned(),
            _ => visible(&String::from_utf8_lossy(value)),
        };
        print::line(&format!("{:<24} {text}", visible(name)));
    }
    for name in BODIES {
        if let Some(value) = record.field(name).filter(|value| !value.is_empty()) {
            print::line(&format!("{name} ({} bytes)", value.len()));
            let text = visible_lines(String::from_utf8_lossy(value).trim_end());
            text.lines().for_each(|line| print::line(&format!("  {line}")));
        }
    }
}

/// A job as JSON: the hash's fields under their names, numbers as numbers, times also as text.
pub(super) fn shape(id: &JobId, record: &JobRecord, with_bodies: bool) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), id.to_string().into());
    for (name, value) in &record.fields {
        let is_body = BODIES.contains(&name.as_str());
        if HIDDEN.contains(&name.as_str()) || (is_body && !with_bodies && name != "last_error") {
            continue;
        }
        let shaped = match name.as_str() {
            "payload" | "result" | "metadata" => json_or_text(value),
            _ => match record.number(name) {
                // A type or an error that happens to be digits stays text.
                Some(number) if !is_body && name != "type" && name != "queue" => number.into(),
                _ => String::from_utf8_lossy(value).into_owned().into(),
            },
        };
        map.insert(name.clone(), shaped);
    }
    Value::Object(map)
}

/// Prints how a job that has ended came out, and gives the exit code that says so.
pub(super) fn show_end(output: Output, id: &JobId, record: &JobRecord) -> ExitCode {
    let is_done = record.state() == Some(JobState::Done);
    if output == Output::Text {
        if is_done {
            let result = record.field("result").unwrap_or_default();
            print::bytes(result);
            if !result.is_empty() && !result.ends_with(b"\n") {
                print::bytes(b"\n");
            }
        } else {
            let error = record.text("last_error").filter(|error| !error.is_empty());
            let reason = error.or_else(|| record.text("dlq_reason")).unwrap_or_else(|| "no reason given".to_owned());
            print::note(&format!("error: job `{id}` ended as `{}`", record.text("status").unwrap_or_default()));
            print::note(&format!("  caused by: {}", visible_lines(&reason)));
            print::note(&format!("hint: see `wasmhost jobs show {id}`"));
        }
    }
    ExitCode::from(if is_done { 0 } else { FAILED })
}
