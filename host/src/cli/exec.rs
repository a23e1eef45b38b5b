//! `wasmhost exec`: one attempt on this machine, without Redis.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::failure::FAILED;
use super::run::some;
use super::{Failure, Global, Output, print};
use crate::clock::{Timestamp, format_duration, parse_duration};
use crate::config::Given;
use crate::job::{JobId, PAYLOAD_BYTES_MAX, visible_lines};
use crate::jumpscript::{Digest, WASM_BYTES_MAX};
use crate::outcome::Outcome;
use crate::permissions::HttpPattern;
use crate::ports::{JobSink, Level};
use crate::sandbox::{Call, Compiler, Finished, MEMORY_BYTES_MAX, Options, Sandbox};
use crate::views;

/// Arguments of `wasmhost exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The Wasm file: a jumpscript component, or a WASI command
    file: PathBuf,
    /// The payload: text, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-", conflicts_with = "payload_file")]
    payload: Option<String>,
    /// File with the payload
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// Wall time [default: the manifest's, else 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Linear memory in MiB [default: the manifest's, else 64]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4096))]
    memory: Option<u32>,
    /// The number of the attempt that the job is told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Where it may send HTTP requests, when its manifest asks for it (repeatable) [env: WASMHOST_ALLOW_HTTP]
    #[arg(long = "allow-http", value_name = "HOST:PORT")]
    allow_http: Vec<HttpPattern>,
}

/// Runs the command.
pub(super) fn run(global: &Global, args: ExecArgs) -> Result<ExitCode, Failure> {
    let wasm = read_file(&args.file, WASM_BYTES_MAX)?;
    let payload = match (&args.payload, &args.payload_file) {
        (Some(text), _) => read_payload(text)?,
        (None, Some(file)) => read_file(file, PAYLOAD_BYTES_MAX)?,
        (None, None) => Vec::new(),
    };
    let memory_bytes_max = args.memory.map_or(MEMORY_BYTES_MAX, |mib| mib as usize * 1024 * 1024);
    let config = global.load(Given { allow_http: some(args.allow_http), ..global.given() })?;
    config.notes.iter().for_each(|note| print::note(&format!("warning: {note}")));
    let http = crate::host::http_options(&config);
    let options = Options { pool_size: 1, memory_bytes_max, compiler: Compiler::InProcess, http, ..Options::default() };
    let sandbox = Sandbox::new(options)?;
    let script = sandbox.load(Digest::of(&wasm), &wasm)?;

    let now = Timestamp::now();
    let timeout = args.timeout.or_else(|| script.manifest().attempt_timeout()).unwrap_or(crate::job::TIMEOUT);
    let name = args.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let call = Call {
        id: JobId::generate().to_string(),
        queue: "exec".to_owned(),
        job_type: name,
        node: "exec".to_owned(),
        attempt: args.attempt,
        max_attempts: args.attempt,
        deadline_ms: now.after(timeout).millis(),
        enqueued_at_ms: now.millis(),
        timeout,
        memory_bytes_max: match args.memory {
            Some(_) => memory_bytes_max,
            None => script.manifest().memory_bytes().unwrap_or(memory_bytes_max),
        },
        sink: Arc::new(Stderr),
        ..Call::new(payload)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let finished = runtime.block_on(sandbox.run(&script, call));
    Ok(report(global.output, &finished))
}

/// Shows a guest's log and progress as they come.
struct Stderr;

impl JobSink for Stderr {
    fn log(&self, level: Level, context: &str, message: &str) {
        let context = if context.is_empty() { String::new() } else { format!(" {context}:") };
        print::note(&visible_lines(&format!("[{}]{context} {message}", level.as_str())));
    }

    fn progress(&self, percent: u8, message: &str) {
        print::note(&visible_lines(&format!("[progress] {percent} % {message}")));
    }
}

#[derive(Serialize)]
struct Report<'a> {
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    wall_us: u64,
    cpu_us: u64,
    memory_bytes_peak: u64,
    log: &'a str,
}

fn report(output: Output, finished: &Finished) -> ExitCode {
    let Finished { outcome, usage } = finished;
    let result = if let Outcome::Done { result } = outcome { Some(result.as_slice()) } else { None };
    if output == Output::Json {
        print::json(&Report {
            outcome: outcome.kind(),
            result: result.map(views::json_or_text),
            error: outcome.error_text(),
            wall_us: usage.wall_us,
            cpu_us: usage.cpu_us,
            memory_bytes_peak: usage.memory_bytes_peak,
            log: &usage.log_tail,
        });
    } else {
        if let Some(result) = result {
            print::bytes(result);
            if !result.is_empty() && !result.ends_with(b"\n") {
                print::bytes(b"\n");
            }
        }
        let micros = |us| format_duration(Duration::from_micros(us));
        print::note(&format!(
            "{} in {}, {} computing, peak memory {} KiB",
            outcome.kind(),
            micros(usage.wall_us),
            micros(usage.cpu_us),
            usage.memory_bytes_peak.div_ceil(1024)
        ));
        if result.is_none() {
            print::note(&format!("error: {}", visible_lines(&outcome.error_text())));
        }
    }
    ExitCode::from(if result.is_some() { 0 } else { FAILED })
}

/// The payload that an argument stands for: `@FILE`, `-` for stdin, else the text itself.
pub(super) fn read_payload(argument: &str) -> Result<Vec<u8>, Failure> {
    if argument == "-" {
        let mut payload = Vec::new();
        std::io::stdin().lock().take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut payload)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Failure::usage(format!("the payload on stdin has more than {PAYLOAD_BYTES_MAX} bytes")));
        }
        return Ok(payload);
    }
    match argument.strip_prefix('@') {
        Some(file) => read_file(Path::new(file), PAYLOAD_BYTES_MAX),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

/// A regular file of at most `bytes_max` bytes.
pub(super) fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let size = check_regular(path)?;
    if size > bytes_max as u64 {
        let shown = path.display();
        return Err(Failure::usage(format!("`{shown}` has {size} bytes, at most {bytes_max} are allowed")));
    }
    std::fs::read(path).map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", path.display())))
}

/// Checks that a path names a regular file, and gives its size.
pub(super) fn check_regular(path: &Path) -> Result<u64, Failure> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| Failure::usage(format!("cannot read `{shown}`: {error}")))?;
    if meta.is_dir() {
        return Err(Failure::usage(format!("`{shown}` is a directory")).hint("name a file"));
    }
    // A FIFO would block for ever, and a device has no end.
    if !meta.is_file() {
        return Err(Failure::usage(format!("`{shown}` is not a regular file")).hint("use `-` to read from stdin"));
    }
    Ok(meta.len())
}
