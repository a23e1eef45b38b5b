//! `wasmhost jobs replay`: what a job did, done again on this machine by the same code.
//!
//! Invariant: Redis is only read. The job, its queue and whoever waits for it see nothing of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::super::exec::{read_file, read_payload};
use super::super::local::{Listener, Local};
use super::super::profile::{self, Profile};
use super::super::{Failure, Global, Output, print};
use super::no_job;
use crate::clock::Timestamp;
use crate::job::{JobId, JobState, TIMEOUT, visible, visible_lines};
use crate::jumpscript::{Digest, Source, WASM_BYTES_MAX};
use crate::permissions::HttpPattern;
use crate::retry::RetryWish;
use crate::sandbox::{Call, MEMORY_BYTES_MAX};
use crate::store::{JobRecord, Store};

pub(super) const EXAMPLES: &str = "Examples:
  wasmhost jobs replay AXk3f0aZ1b2C3d4E
  wasmhost jobs replay AXk3f0aZ1b2C3d4E --file target/wasm32-wasip2/release/fixed.wasm
  wasmhost dlq ls --queue mail                    # ids of jobs that died";

/// Arguments of `wasmhost jobs replay`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReplayArgs {
    /// The job's id
    id: String,
    /// Run this Wasm file instead of the code that the job ran
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Another payload: text, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-")]
    payload: Option<String>,
    /// The number of the attempt that it is told [default: that of its last one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Where it may send HTTP requests, which are real ones (repeatable) [default: nowhere, whatever is configured]
    #[arg(long = "allow-http", value_name = "HOST:PORT")]
    allow_http: Vec<HttpPattern>,
}

#[derive(Serialize)]
struct Document<'a> {
    id: String,
    attempt: u32,
    /// Of the code that was run here.
    digest: Digest,
    /// Of the code that the job ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_digest: Option<Digest>,
    recorded_status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_error: Option<String>,
    profile: Profile<'a>,
}

/// Runs the command.
pub(super) async fn run(global: &Global, args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let mut config = global.load(global.given())?;
    // A request of a replay reaches the world as that of the job did: only who says so sends it again.
    config.allow_http.clone_from(&args.allow_http);
    let store = global.connect().await?;
    let id = JobId::from(args.id.as_str());
    let record = store.job(&id).await?.ok_or_else(|| no_job(&id))?;
    let wasm = match &args.file {
        Some(file) => read_file(file, WASM_BYTES_MAX)?,
        None => recorded_code(&store, &id, &record).await?,
    };
    let payload = match &args.payload {
        Some(text) => read_payload(text)?,
        None => record.field("payload").unwrap_or_default().to_vec(),
    };
    let local = Local::new(&config, config.limits.memory_bytes_max.max(MEMORY_BYTES_MAX))?;
    let code = if Source::is_source(&wasm) {
        local.load_source(&wasm, &interpreter_of(&store, &wasm).await?)?
    } else {
        local.load(&wasm)?
    };
    let manifest = code.script.manifest();
    let attempt = args.attempt.unwrap_or_else(|| last_attempt(&record));
    let most = record.number("max_attempts").and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let wish = RetryWish { max_attempts: most, ..RetryWish::default() };
    let nanos = record.number("timeout_nano").and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
    let timeout = nanos.map(Duration::from_nanos).or_else(|| manifest.attempt_timeout()).unwrap_or(TIMEOUT);
    let now = Timestamp::now();
    let call = Call {
        id: id.to_string(),
        queue: record.queue(),
        job_type: record.job_type(),
        node: record.text("node").unwrap_or_default(),
        attempt,
        max_attempts: wish.or(manifest.retry_wish()).executions().max(attempt),
        deadline_ms: now.after(timeout).millis(),
        enqueued_at_ms: record.time("created_at_nano").unwrap_or(now).millis(),
        content_type: record.text("content_type").unwrap_or_default(),
        metadata: record.metadata(),
        state: Some(Arc::new(store.clone())),
        timeout,
        memory_bytes_max: manifest
            .memory_bytes()
            .map_or(config.limits.memory_bytes_max, |asked| asked.min(config.limits.memory_bytes_max)),
        ..Call::new(payload)
    };
    let digest = *code.script.digest();
    print::note(&said_before(&id, &record, attempt, &digest));
    let ran = local.run(&code, call, &Listener::shown()).await;
    if global.output == Output::Json {
        let recorded_error = record.text("last_error").filter(|error| !error.is_empty());
        print::json(&Document {
            id: id.to_string(),
            attempt,
            digest,
            recorded_digest: record.digest(),
            recorded_status: record.text("status").unwrap_or_default(),
            recorded_error,
            profile: Profile::of(&code, &ran),
        });
        return Ok(profile::exit_code(&ran));
    }
    let code = profile::report(global.output, &code, &ran);
    print::note("the job itself is as it was: nothing of this was written");
    Ok(code)
}

/// The number of the last attempt of a job. Its row counts the failed ones.
fn last_attempt(record: &JobRecord) -> u32 {
    let failed = record.attempts();
    match record.state() {
        // The one that ended well, or runs now, failed not.
        Some(JobState::Done | JobState::Inflight) => failed.saturating_add(1),
        _ => failed.max(1),
    }
}

/// The code that a job ran, by its recorded digest.
async fn recorded_code(store: &Store, id: &JobId, record: &JobRecord) -> Result<Vec<u8>, Failure> {
    let with_file = "name a build of it: --file FILE.wasm runs it on the same input";
    let Some(digest) = record.digest() else {
        let status = visible(&record.text("status").unwrap_or_default());
        return Err(Failure::new(format!(
            "no code is recorded for job `{id}`: it is `{status}`, and no jumpscript has run it"
        ))
        .hint(with_file));
    };
    store.wasm(&digest).await?.ok_or_else(|| {
        Failure::new(format!("the code {} that job `{id}` ran is not in Redis any more", digest.short()))
            .hint(format!("{with_file}; the same source, built the same way, has the same digest"))
    })
}

/// The code that runs a script's text now.
async fn interpreter_of(store: &Store, source: &[u8]) -> Result<Vec<u8>, Failure> {
    let source = Source::decode(source).map_err(|error| Failure::new(format!("the script cannot be read: {error}")))?;
    let name = source.interpreter.to_string();
    let missing = || Failure::new(format!("the interpreter `{name}` of the script is not published"));
    let digest = store.route(&name).await?.ok_or_else(missing)?;
    store.wasm(&digest).await?.ok_or_else(missing)
}

/// What is replayed, and how it came out then.
fn said_before(id: &JobId, record: &JobRecord, attempt: u32, digest: &Digest) -> String {
    let is_same = record.digest() == Some(*digest);
    let code = if is_same { "the code that it ran" } else { "other code than it ran" };
    let status = visible(&record.text("status").unwrap_or_default());
    let error = record.text("last_error").unwrap_or_default();
    let error = visible_lines(error.lines().next().unwrap_or_default());
    let then = if error.is_empty() { status } else { format!("{status}, its last error: {error}") };
    format!(
        "replaying attempt {attempt} of job {id} ({}) on {}, {code}; it is {then}",
        visible(&record.job_type()),
        digest.short()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_is_the_one_that_ended_it() {
        let record = |status: &str, attempts: &str| JobRecord {
            id: None,
            fields: vec![("status".to_owned(), status.into()), ("attempts".to_owned(), attempts.into())],
        };
        assert_eq!(last_attempt(&record("done", "0")), 1);
        assert_eq!(last_attempt(&record("done", "2")), 3);
        assert_eq!(last_attempt(&record("dlq", "3")), 3);
        assert_eq!(last_attempt(&record("scheduled", "1")), 1);
        assert_eq!(last_attempt(&record("inflight", "1")), 2);
        assert_eq!(last_attempt(&record("ready", "0")), 1);
    }
}
