//! `wasmhost submit`: a producer for the shell.

pub(super) mod bulk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exec::read_payload;
use super::jobs::wait;
use super::{Failure, Global, Output, print};
use crate::clock::{Timestamp, format_duration, parse_duration, parse_timestamp};
use crate::job::submission::content_type_of;
use crate::job::{NewJob, QUEUE};
use crate::jumpscript::Digest;
use crate::store::Replicas;

pub(super) const EXAMPLES: &str = "Examples:
  wasmhost submit --type text-stats --payload 'to be or not to be' --wait
  wasmhost submit --queue mail --type send --payload @mail.json --idempotency-key order-7
  wasmhost submit --queue mail --type send --lines jobs.jsonl
  echo '{\"type\": \"send\", \"payload\": {\"to\": 7}}' | wasmhost submit --lines -";

/// Arguments of `wasmhost submit`.
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// Queue
    #[arg(long, default_value = QUEUE)]
    queue: String,
    /// Which jumpscript runs it: organization/name, or a bare word; needed, unless each line of --lines says it
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "lines")]
    job_type: Option<String>,
    /// The payload: text, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-", default_value = "", hide_default_value = true)]
    payload: String,
    /// Many jobs, one JSON object a line with these options as its fields; flags are what a line does not say
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["payload", "idempotency_key", "wait"])]
    lines: Option<PathBuf>,
    /// Only check all lines, and send nothing
    #[arg(long, requires = "lines")]
    dry_run: bool,
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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(0..=9))]
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

/// The job that the flags describe, without a payload.
fn job_of(args: &SubmitArgs) -> NewJob {
    NewJob {
        content_type: args.content_type.clone().unwrap_or_default(),
        run_at: args.run_at.or_else(|| args.delay.map(|delay| Timestamp::now().after(delay))),
        timeout: args.timeout,
        max_attempts: args.max_attempts,
        retry_base: args.retry_base,
        retry_cap: args.retry_cap,
        idempotency_key: args.idempotency_key.clone(),
        pin: args.pin,
        metadata: args.metadata.clone(),
        priority: args.priority,
        limit_key: args.limit_key.clone(),
        supersede_key: args.supersede_key.clone(),
        ..NewJob::new(args.queue.as_str(), args.job_type.as_deref().unwrap_or_default(), "")
    }
}

/// Runs the command.
pub(super) async fn run(global: Global, args: SubmitArgs) -> Result<ExitCode, Failure> {
    let replicas = args.wait_replicas.map(|count| Replicas { count, timeout: args.wait_replicas_timeout });
    if let Some(file) = &args.lines {
        return match args.dry_run {
            true => bulk::check(&global, file, &job_of(&args)).await,
            false => bulk::run(&global, file, replicas, || job_of(&args)).await,
        };
    }
    let mut job = NewJob { payload: read_payload(&args.payload)?, ..job_of(&args) };
    if args.content_type.is_none() {
        content_type_of(&job.payload).clone_into(&mut job.content_type);
    }
    job.check().map_err(Failure::usage)?;
    let store = global.connect().await?;
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
    if args.wait {
        return wait::one(global.output, &store, &first.id, args.wait_timeout).await;
    }
    match global.output {
        Output::Text => print::line(&first.id.to_string()),
        Output::Json => print::json_line(&serde_json::json!({
            "id": first.id.to_string(), "queue": job.queue, "type": job.job_type, "is_new": first.is_new,
        })),
    }
    Ok(ExitCode::SUCCESS)
}
