//! `wasmhost submit`: a producer for the shell.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exec::read_payload;
use super::jobs::{shape, show_end};
use super::{Failure, Global, Output, print};
use crate::clock::{Timestamp, format_duration, parse_duration, parse_timestamp};
use crate::job::{JobState, NewJob, QUEUE};
use crate::jumpscript::Digest;
use crate::store::Replicas;

/// Arguments of `wasmhost submit`.
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// Queue
    #[arg(long, default_value = QUEUE)]
    queue: String,
    /// Which jumpscript runs it: organization/name, or a bare word
    #[arg(long = "type", value_name = "TYPE")]
    job_type: String,
    /// The payload: text, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-", default_value = "")]
    payload: String,
    /// What the payload is [default: application/json when it is JSON, else nothing]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Run after this much time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Run at this time: RFC 3339, Unix seconds, or milliseconds
    #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
    run_at: Option<Timestamp>,
    /// Executions in all [default: the manifest's, else 5]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Delay before the second execution, before jitter [default: the manifest's, else the host's retry.base]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retry_base: Option<Duration>,
    /// Longest delay between two executions [default: the manifest's, else the host's retry.cap]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    retry_cap: Option<Duration>,
    /// Wall time of one attempt [default: the manifest's, else 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Two jobs of a queue with the same key are one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// 0 to 9: before all jobs without one, 9 first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Whose limits it counts against (`wasmhost queues set`)
    #[arg(long, value_name = "KEY")]
    limit_key: Option<String>,
    /// Cancel the jobs of the queue with the same key that still wait
    #[arg(long, value_name = "KEY")]
    supersede_key: Option<String>,
    /// Name and value that travel with the job (repeatable)
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// Run exactly this code, whatever is published meanwhile
    #[arg(long, value_name = "DIGEST")]
    pin: Option<Digest>,
    /// Wait until so many replicas have the job; exit code 1 when fewer do
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    wait_replicas: Option<u32>,
    /// How long the replicas may take
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s", requires = "wait_replicas")]
    wait_replicas_timeout: Duration,
    /// Wait for the end and print the result; exit code 1 when the job fails
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s", requires = "wait")]
    wait_timeout: Duration,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not NAME=VALUE")),
    }
}

/// Runs the command.
pub(super) async fn run(global: Global, args: SubmitArgs) -> Result<ExitCode, Failure> {
    let payload = read_payload(&args.payload)?;
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_ok();
    let content_type = match args.content_type {
        Some(content_type) => content_type,
        None if !payload.is_empty() && is_json() => "application/json".to_owned(),
        None => String::new(),
    };
    let job = NewJob {
        content_type,
        run_at: args.run_at.or_else(|| args.delay.map(|delay| Timestamp::now().after(delay))),
        timeout: args.timeout,
        max_attempts: args.max_attempts,
        retry_base: args.retry_base,
        retry_cap: args.retry_cap,
        idempotency_key: args.idempotency_key,
        pin: args.pin,
        metadata: args.metadata,
        priority: args.priority,
        limit_key: args.limit_key,
        supersede_key: args.supersede_key,
        ..NewJob::new(args.queue, args.job_type, payload)
    };
    job.check().map_err(Failure::usage)?;
    let store = global.connect().await?;
    let replicas = args.wait_replicas.map(|count| Replicas { count, timeout: args.wait_replicas_timeout });
    let (enqueued, n_replicas) = store.enqueue_with(std::slice::from_ref(&job), replicas).await?;
    let Some(first) = enqueued.first() else {
        return Err(Failure::new("Redis answered without an id"));
    };
    if let Some(Replicas { count, timeout }) = replicas.filter(|replicas| n_replicas < replicas.count) {
        let (id, waited) = (&first.id, format_duration(timeout));
        return Err(Failure::new(format!(
            "job `{id}` is enqueued, but not replicated: {n_replicas} of {count} replicas had it after {waited}"
        ))
        .hint("it runs, and is lost when the master fails now; submit it again with the same --idempotency-key to wait once more"));
    }
    if !args.wait {
        match global.output {
            Output::Text => print::line(&first.id.to_string()),
            Output::Json => print::json_line(&serde_json::json!({
                "id": first.id.to_string(), "queue": job.queue, "type": job.job_type, "is_new": first.is_new,
            })),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let record = store.wait_final(&first.id, args.wait_timeout).await?;
    let Some(record) = record else {
        return Err(Failure::new(format!("job `{}` is gone: its row was removed before it ended", first.id)));
    };
    if !record.state().is_some_and(JobState::is_final) {
        let waited = format_duration(args.wait_timeout);
        let state = record.text("status").unwrap_or_default();
        return Err(Failure::new(format!("job `{}` is still `{state}` after {waited}", first.id))
            .hint(format!("it goes on; look again with `wasmhost jobs show {}`", first.id)));
    }
    if global.output == Output::Json {
        print::json(&shape(&first.id, &record, true));
    }
    Ok(show_end(global.output, &first.id, &record))
}
