//! Waiting for the end of jobs: `wasmhost jobs wait`, `wasmhost jobs logs`, and `wasmhost submit --wait`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{no_job, show_end, text_line};
use crate::cli::failure::FAILED;
use crate::cli::{Failure, Global, Output, print};
use crate::clock::format_duration;
use crate::job::{JobId, JobState, visible, visible_lines};
use crate::store::{JobRecord, Store};
use crate::views;

/// Most characters of a result in a line.
const RESULT_CHARS_MAX: usize = 200;
/// How long `jobs logs --follow` waits before it asks again; it has no end of its own.
const FOLLOW: Duration = Duration::from_secs(3600);

/// Waits for the end of one job that was just submitted, and prints how it came out.
pub(in crate::cli) async fn one(
    output: Output,
    store: &Store,
    id: &JobId,
    limit: Duration,
) -> Result<ExitCode, Failure> {
    let record = store.wait_final(id, limit).await?.ok_or_else(|| {
        Failure::new(format!("job `{id}` is gone: its row was removed before it ended"))
            .hint("somebody purged its queue, or its record has expired")
    })?;
    ended(id, &record, limit)?;
    if output == Output::Json {
        print::json(&views::job(id, &record, true));
    }
    Ok(show_end(output, id, &record))
}

/// Fails when a job has not ended.
fn ended(id: &JobId, record: &JobRecord, limit: Duration) -> Result<(), Failure> {
    if record.state().is_some_and(JobState::is_final) {
        return Ok(());
    }
    let state = visible(&record.text("status").unwrap_or_default());
    Err(Failure::new(format!("job `{id}` is still `{state}` after {}", format_duration(limit)))
        .hint(outlook(id, record)))
}

/// What a job that has not ended waits for, and how to see more.
fn outlook(id: &JobId, record: &JobRecord) -> String {
    let queue = visible(&record.queue());
    match record.state() {
        Some(JobState::Ready) => format!(
            "no host has taken it: is one there that serves queue `{queue}`, and is the queue paused or busy? \
             `wasmhost queues show {queue}`"
        ),
        Some(JobState::Scheduled) => {
            let time = record.time("run_at_nano").map(|time| format!(" at {time}")).unwrap_or_default();
            format!("it runs{time}; wait for it with `wasmhost jobs wait {id}`")
        }
        // Parked, or a word of another program.
        None => format!("it waits for the jobs of its limit key; `wasmhost jobs show {id}`"),
        Some(_) => format!("it runs on; wait for it with `wasmhost jobs wait {id}`"),
    }
}

/// Waits for jobs in their order, all of them together at most `limit`. Each is told of, also when others failed.
pub(super) async fn run(global: &Global, ids: &[String], limit: Duration) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let ids: Vec<JobId> = ids.iter().map(|id| JobId::from(id.as_str())).collect();
    if let [id] = ids.as_slice() {
        store.job(id).await?.ok_or_else(|| no_job(id))?;
        return one(global.output, &store, id, limit).await;
    }
    let begin = Instant::now();
    let mut code = ExitCode::SUCCESS;
    for id in &ids {
        let record = store.wait_final(id, limit.saturating_sub(begin.elapsed())).await?;
        let outcome = match &record {
            Some(record) => ended(id, record, limit).map(|()| record),
            None => Err(no_job(id)),
        };
        match outcome {
            Ok(record) => {
                if record.state() != Some(JobState::Done) {
                    code = ExitCode::from(FAILED);
                }
                match global.output {
                    Output::Json => print::json_line(&views::job(id, record, true)),
                    Output::Text => print::line(&line(id, record)),
                }
            }
            Err(failure) => code = failure.print(global.output),
        }
    }
    Ok(code)
}

/// How a job came out, in a line.
fn line(id: &JobId, record: &JobRecord) -> String {
    let state = record.text("status").unwrap_or_default();
    let name = if record.state() == Some(JobState::Done) { "result" } else { "last_error" };
    let said = text_line(&record.text(name).unwrap_or_default(), RESULT_CHARS_MAX);
    format!("{id} {state} {said}").trim_end().to_owned()
}

/// Prints what the last attempt of a job logged; with `is_follow` once the job has ended.
pub(super) async fn logs(global: &Global, id: &JobId, is_follow: bool) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let mut record = store.job(id).await?.ok_or_else(|| no_job(id))?;
    while is_follow && !record.state().is_some_and(JobState::is_final) {
        record = store.wait_final(id, FOLLOW).await?.ok_or_else(|| no_job(id))?;
    }
    let (log, state) = (record.text("log").unwrap_or_default(), visible(&record.text("status").unwrap_or_default()));
    match global.output {
        Output::Json => print::json(&json!({
            "id": id.to_string(), "status": state, "attempts": record.attempts(), "log": log,
        })),
        Output::Text if log.is_empty() => print::note(&match record.state() {
            Some(state) if state.is_final() => format!("job `{id}` is `{state}`; its last attempt logged nothing"),
            _ => format!(
                "job `{id}` is `{state}` and has no log yet: an attempt's log is kept when it ends (see --follow)"
            ),
        }),
        Output::Text => print::line(visible_lines(&log).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
