//! `wasmhost exec`: one attempt on this machine, without Redis.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::fs::OFlags;

use super::local::{Listener, Local};
use super::run::some;
use super::{Failure, Global, print, profile};
use crate::clock::{Timestamp, parse_duration};
use crate::config::Given;
use crate::job::{JobId, PAYLOAD_BYTES_MAX};
use crate::jumpscript::MANIFEST_FILE;
use crate::permissions::HttpPattern;
use crate::sandbox::{Call, MEMORY_BYTES_MAX};

/// Arguments of `wasmhost exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// The file: a jumpscript component, a WASI command, or a script (.rhai, .js, .py), with the manifest beside it
    file: PathBuf,
    /// The Wasm file of the interpreter of a script [default: the one that ships beside this program]
    #[arg(long, value_name = "FILE")]
    interpreter: Option<PathBuf>,
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
    /// Allow whatever its manifest requests, but HTTP: for code of your own [env: WASMHOST_ALLOW_REQUESTED]
    #[arg(long)]
    allow_requested: bool,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: ExecArgs) -> Result<ExitCode, Failure> {
    let candidate = super::publish::candidate(&args.file, false)?;
    let payload = match (&args.payload, &args.payload_file) {
        (Some(text), _) => read_payload(text)?,
        (None, Some(file)) => read_file(file, PAYLOAD_BYTES_MAX)?,
        (None, None) => Vec::new(),
    };
    let memory_bytes_max = args.memory.map_or(MEMORY_BYTES_MAX, |mib| mib as usize * 1024 * 1024);
    let config = global.load(Given {
        allow_http: some(args.allow_http),
        allow_requested: args.allow_requested.then_some(true),
        ..global.given()
    })?;
    config.notes.iter().for_each(|note| print::note(&format!("warning: {note}")));
    let local = Local::new(&config, memory_bytes_max)?;
    let code = local.load_candidate(candidate, args.interpreter.as_deref())?;
    let manifest = code.script.manifest();

    let now = Timestamp::now();
    let timeout = args.timeout.or_else(|| manifest.attempt_timeout()).unwrap_or(crate::job::TIMEOUT);
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
            None => manifest.memory_bytes().unwrap_or(memory_bytes_max).min(memory_bytes_max),
        },
        ..Call::new(payload)
    };
    let ran = local.run(&code, call, &Listener::shown()).await;
    Ok(profile::report(global.output, &code, &ran))
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
    check_regular(path)?;
    let shown = path.display();
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read `{shown}`: {error}"));
    // What was a file a moment ago may be a FIFO now; opened so, it does not wait for a writer.
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(cannot)?;
    let size = check_kind(path, &file.metadata().map_err(cannot)?)?;
    if size > bytes_max as u64 {
        return Err(Failure::usage(format!("`{shown}` has {size} bytes, at most {bytes_max} are allowed")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > bytes_max {
        return Err(Failure::usage(format!("`{shown}` grows while it is read, beyond {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Checks that a path names a regular file, and gives its size.
pub(super) fn check_regular(path: &Path) -> Result<u64, Failure> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| Failure::usage(format!("cannot read `{shown}`: {error}")))?;
    check_kind(path, &meta)
}

/// Refuses what is no regular file by what it is: a FIFO would block for ever, and a device has no end.
fn check_kind(path: &Path, meta: &Metadata) -> Result<u64, Failure> {
    let (shown, kind) = (path.display(), meta.file_type());
    if kind.is_dir() {
        let hint = match path.join("Cargo.toml").is_file() || path.join(MANIFEST_FILE).is_file() {
            true => format!("name the Wasm file that it builds; `wasmhost dev {shown}` builds and runs a project"),
            false => "name a file".to_owned(),
        };
        return Err(Failure::usage(format!("`{shown}` is a directory")).hint(hint));
    }
    let what = if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        return Ok(meta.len());
    };
    Err(Failure::usage(format!("`{shown}` is {what}, not a regular file"))
        .hint("write what comes from it to a file; a payload can also come from stdin, as `-`"))
}
