//! `wasmhost jobs`: what became of jobs.

mod replay;
pub(super) mod wait;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::failure::FAILED;
use super::filter::{FilterArgs, MadeArgs, PageArgs, page_end};
use super::{Failure, Global, Output, print};
use crate::clock::{Timestamp, parse_duration, parse_timestamp};
use crate::job::{JobId, JobState, visible, visible_lines};
use crate::store::{Cancelled, Filter, JobRecord, Listed, OfDead};
use crate::views::{self, BODIES, facts, id_of};

const LS_EXAMPLES: &str = "Examples:
  wasmhost jobs ls --queue mail --state parked
  wasmhost jobs ls --error timeout --since 2h --until 1h
  wasmhost jobs ls --type send --payload '\"customer\": 7'";

const WAIT_EXAMPLES: &str = "Examples:
  wasmhost jobs wait AXk3f0aZ1b2C3d4E --timeout 10m
  wasmhost submit --lines jobs.jsonl | xargs wasmhost jobs wait";

/// The verbs of `wasmhost jobs`.
#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs
    #[command(after_help = LS_EXAMPLES)]
    Ls {
        /// Only this queue
        #[arg(long)]
        queue: Option<String>,
        /// Only jobs in this state; parked ones wait for the limit of their key
        #[arg(long, value_parser = listed_parser())]
        state: Option<Listed>,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        times: MadeArgs,
        /// Only jobs with this text in their payload, byte for byte
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        payload: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show everything about one job
    Show {
        /// The job's id
        id: String,
    },
    /// Wait until jobs have ended, and print their results; exit code 1 when one failed or has not ended
    #[command(after_help = WAIT_EXAMPLES)]
    Wait {
        /// Ids of jobs
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// How long to wait, for all of them together
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
        timeout: Duration,
    },
    /// Show what the last attempt of a job that has ended logged
    Logs {
        /// The job's id
        id: String,
        /// Wait until the job has ended
        #[arg(long)]
        follow: bool,
    },
    /// Cancel a job that has not ended; one that runs is stopped
    Cancel {
        /// The job's id
        id: String,
        /// Why, for the job's record
        #[arg(long, default_value = "cancelled by hand")]
        reason: String,
    },
    /// Run what a job ran again on this machine: same code, input and attempt; nothing is written
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Bring a dead job back to its queue
    Retry {
        /// The job's id
        id: String,
        /// Forget its failed attempts
        #[arg(long)]
        reset_attempts: bool,
        /// Run it at this time: RFC 3339, Unix seconds, or milliseconds
        #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
        run_at: Option<Timestamp>,
    },
}

/// Reads a state by its word; a wrong one is refused with all of them and the nearest.
pub(super) fn listed_parser() -> impl TypedValueParser<Value = Listed> {
    PossibleValuesParser::new(Listed::ALL.map(Listed::as_str))
        .try_map(|word| Listed::parse(&word).ok_or_else(|| format!("`{word}` is no state")))
}

/// Runs the command.
pub(super) async fn run(global: Global, command: JobsCommand) -> Result<ExitCode, Failure> {
    match &command {
        JobsCommand::Ls { queue, state, filter, times, payload, page } => {
            let filter = Filter { listed: *state, payload: payload.clone(), ..filter.made(queue.as_deref(), times)? };
            return list(&global, &filter, page).await;
        }
        JobsCommand::Wait { ids, timeout } => return wait::run(&global, ids, *timeout).await,
        JobsCommand::Logs { id, follow } => return wait::logs(&global, &JobId::from(id.as_str()), *follow).await,
        JobsCommand::Replay(args) => return replay::run(&global, args).await,
        JobsCommand::Show { .. } | JobsCommand::Cancel { .. } | JobsCommand::Retry { .. } => {}
    }
    let store = global.connect().await?;
    match command {
        JobsCommand::Ls { .. } | JobsCommand::Wait { .. } | JobsCommand::Logs { .. } | JobsCommand::Replay(_) => {}
        JobsCommand::Show { id } => {
            let id = JobId::from(id.as_str());
            let record = store.job(&id).await?.ok_or_else(|| no_job(&id))?;
            match global.output {
                Output::Json => print::json(&views::job(&id, &record, true)),
                Output::Text => show(&id, &record),
            }
        }
        JobsCommand::Cancel { id, reason } => {
            let id = JobId::from(id.as_str());
            let queue = store.job(&id).await?.ok_or_else(|| no_job(&id))?.queue();
            match store.cancel(&queue, &id, &visible_lines(&reason)).await? {
                Cancelled::Applied(before) => changed(global.output, &id, "cancelled", &format!("it was {before}")),
                Cancelled::NotFound => return Err(no_job(&id)),
                Cancelled::Ended(state) => {
                    return Err(Failure::new(format!("job `{id}` has ended already: it is `{}`", visible(&state))));
                }
                Cancelled::OtherQueue(_) => return Err(moved(&id)),
            }
        }
        JobsCommand::Retry { id, reset_attempts, run_at } => {
            let id = JobId::from(id.as_str());
            let record = store.job(&id).await?.ok_or_else(|| no_job(&id))?;
            match store.requeue(&record.queue(), &id, run_at, reset_attempts).await? {
                OfDead::Applied => changed(global.output, &id, "requeued", "it was dead"),
                OfDead::NotFound => return Err(no_job(&id)),
                OfDead::NotDead => {
                    let state = visible(&record.text("status").unwrap_or_default());
                    return Err(Failure::new(format!("job `{id}` is not dead: it is `{state}`"))
                        .hint("only a job of the dead-letter queue can be retried; submit a new one"));
                }
                OfDead::OtherQueue(_) => return Err(moved(&id)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A page of jobs.
async fn list(global: &Global, filter: &Filter, args: &PageArgs) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let page = store.find(filter, args.cursor.as_deref(), args.limit as usize).await?;
    if global.output == Output::Json {
        print::json(&views::page(&page, args.limit));
    } else {
        print::table(["ID", "STATE", "QUEUE", "TYPE", "FAILED", "CREATED", "ERROR"], page.jobs.iter().map(row));
        page_end(&store, &page, filter.queue.as_deref(), args).await?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn no_job(id: &JobId) -> Failure {
    Failure::new(format!("there is no job `{id}` under this prefix"))
        .hint("done jobs are removed after 24 h, purged ones at once; `wasmhost jobs ls` lists those that are there")
}

fn moved(id: &JobId) -> Failure {
    Failure::new(format!("job `{id}` went to another queue just now")).hint("try again")
}

/// Says what was done to a job.
fn changed(output: Output, id: &JobId, what: &str, before: &str) {
    match output {
        Output::Json => print::json_line(&json!({ "id": id.to_string(), "did": what })),
        Output::Text => print::line(&format!("{id} {what} ({before})")),
    }
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

/// The first line of a text, cut at a number of characters.
pub(super) fn text_line(text: &str, chars_max: usize) -> String {
    let line = visible(text.lines().next().unwrap_or_default());
    if line.chars().count() <= chars_max { line } else { line.chars().take(chars_max).chain(['…']).collect() }
}

/// Prints everything about a job, for people.
pub(super) fn show(id: &JobId, record: &JobRecord) {
    print::line(&format!("{:<18} {id}", "id"));
    for (name, text) in facts(record) {
        print::line(&format!("{name:<18} {text}"));
    }
    for name in BODIES {
        if let Some(value) = record.field(name).filter(|value| !value.is_empty()) {
            print::line(&format!("{name} ({} bytes)", value.len()));
            let text = visible_lines(String::from_utf8_lossy(value).trim_end());
            text.lines().for_each(|line| print::line(&format!("  {line}")));
        }
    }
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
