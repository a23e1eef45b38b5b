//! `wasmhost test`: the cases of a jumpscript's author, each in a fresh sandbox.
//!
//! Next: `case` for the format, `judge` for what counts as equal, `subject` for how the code is found.

mod case;
mod judge;
mod stored;
mod subject;
mod update;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::case::{Case, CaseFile};
use self::judge::Difference;
use self::subject::Subjects;
use self::update::Update;
use super::failure::FAILED;
use super::local::{Code, Listener, Local, Ran};
use super::profile::{Profile, rounded};
use super::run::some;
use super::{Failure, Global, Output, print};
use crate::clock::Timestamp;
use crate::config::Given;
use crate::job::visible;
use crate::permissions::HttpPattern;
use crate::sandbox::{Call, MEMORY_BYTES_MAX};

/// The most memory that a case may ask for, in bytes.
const CASE_MEMORY_BYTES_MAX: usize = 4 << 30;

pub(super) const EXAMPLES: &str = "A case in tests/greets.toml:
  [[case]]
  name = \"greets by name\"
  payload = { name = \"Ada\" }
  expect = { result = { greeting = \"Hello, Ada!\" } }

Examples:
  wasmhost test                        # builds the project here and runs its cases
  wasmhost test --filter 'by name'
  wasmhost test --update               # writes what came as what is expected";

/// Arguments of `wasmhost test`.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Folder with a project, Wasm files or scripts (.rhai, .js, .py) and a folder `tests`, or one file of cases
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    path: PathBuf,
    /// Only cases with this text in their name or their file's
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write what came into the files as what is expected
    #[arg(long)]
    update: bool,
    /// Test this Wasm file or script, and build nothing
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// The Wasm file of the interpreter of scripts [default: the one that ships beside this program]
    #[arg(long, value_name = "FILE")]
    interpreter: Option<PathBuf>,
    /// Where it may send HTTP requests, when its manifest asks for it (repeatable) [env: WASMHOST_ALLOW_HTTP]
    #[arg(long = "allow-http", value_name = "HOST:PORT")]
    allow_http: Vec<HttpPattern>,
}

/// How one case came out.
struct Judged<'a> {
    name: &'a str,
    script: String,
    ran: Ran,
    profile: serde_json::Value,
    differences: Vec<Difference>,
    log: Vec<String>,
    /// Whether what came was written as what is expected; or why not.
    updated: Option<Result<(), String>>,
}

impl Judged<'_> {
    fn is_passed(&self) -> bool {
        self.differences.is_empty() || matches!(self.updated, Some(Ok(())))
    }
}

/// Numbers of all files.
#[derive(Default)]
struct Totals {
    passed: usize,
    failed: usize,
    updated: usize,
    left_out: usize,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: TestArgs) -> Result<ExitCode, Failure> {
    let config = global.load(Given { allow_http: some(args.allow_http.clone()), ..global.given() })?;
    config.notes.iter().for_each(|note| print::note(&format!("warning: {note}")));
    let found = subject::find(&args.path)?;
    let local = Local::new(&config, CASE_MEMORY_BYTES_MAX)?;
    let mut subjects = Subjects::new(&args.path, args.wasm.clone(), args.interpreter.clone());
    let mut totals = Totals::default();
    let mut documents = Vec::new();
    for found in &found {
        let shown = visible(&found.file.display().to_string());
        let at_fault = |error: String| Failure::usage(format!("`{shown}`: {error}"));
        let text = std::fs::read_to_string(&found.file).map_err(|error| at_fault(error.to_string()))?;
        let file = CaseFile::parse(&text).map_err(at_fault)?;
        let is_meant = |case: &Case| {
            args.filter.as_ref().is_none_or(|part| case.name.contains(part.as_str()) || shown.contains(part.as_str()))
        };
        let meant: Vec<(usize, &Case)> = file.cases.iter().enumerate().filter(|(_, case)| is_meant(case)).collect();
        totals.left_out += file.cases.len() - meant.len();
        if meant.is_empty() {
            continue;
        }
        let (script, code) = subjects.of(&local, found, file.script.as_deref()).await?;
        if global.output == Output::Text {
            print::line(&format!("{shown} ({})", visible(script)));
        }
        let folder = found.file.parent().unwrap_or(Path::new("."));
        let mut update = args.update.then(|| Update::new(&found.file, &text)).transpose().map_err(at_fault)?;
        for (n, case) in meant {
            let bad = |error: String| at_fault(format!("case `{}`: {error}", case.name));
            let mut judged = run_case(&local, script, code, case, folder).await.map_err(bad)?;
            if let Some(update) = &mut update
                && (!judged.differences.is_empty() || case.expect.is_none())
            {
                let outcome = &judged.ran.finished.outcome;
                judged.updated = Some(update.expect(n, case.expect.as_ref(), outcome));
                totals.updated += usize::from(matches!(judged.updated, Some(Ok(()))));
            }
            if judged.is_passed() {
                totals.passed += 1
            } else {
                totals.failed += 1
            }
            match global.output {
                Output::Text => show(&judged),
                Output::Json => documents.push(CaseDocument::of(&shown, &judged)),
            }
        }
        if let Some(update) = &update {
            update.save().map_err(|error| at_fault(format!("cannot be written: {error}")))?;
        }
    }
    end(global.output, &args, &totals, documents)
}

/// Says how many cases came out how.
fn end(output: Output, args: &TestArgs, totals: &Totals, documents: Vec<CaseDocument>) -> Result<ExitCode, Failure> {
    if totals.passed + totals.failed == 0 {
        let part = args.filter.as_deref().unwrap_or_default();
        return Err(Failure::usage(format!("no case fits `--filter {}`", visible(part)))
            .hint(format!("there are {} cases; without the filter all of them run", totals.left_out)));
    }
    if output == Output::Json {
        print::json(&serde_json::json!({
            "passed": totals.passed,
            "failed": totals.failed,
            "updated": totals.updated,
            "left_out": totals.left_out,
            "cases": documents,
        }));
    } else {
        let mut parts = vec![format!("{} passed", totals.passed), format!("{} failed", totals.failed)];
        for (n, what) in [(totals.updated, "updated"), (totals.left_out, "left out")] {
            if n > 0 {
                parts.push(format!("{n} {what}"));
            }
        }
        print::line(&parts.join(", "));
    }
    Ok(ExitCode::from(if totals.failed == 0 { 0 } else { FAILED }))
}

/// Runs a case and compares; `folder` is that of its file.
async fn run_case<'a>(
    local: &Local,
    script: &str,
    code: &Code,
    case: &'a Case,
    folder: &Path,
) -> Result<Judged<'a>, String> {
    let manifest = code.script.manifest();
    let now = Timestamp::now();
    let timeout = case.timeout()?.or_else(|| manifest.attempt_timeout()).unwrap_or(crate::job::TIMEOUT);
    let asked = case.memory_mib.map(|mib| mib as usize * 1024 * 1024).or_else(|| manifest.memory_bytes());
    let call = Call {
        id: case.id.clone(),
        queue: case.queue.clone(),
        job_type: case.job_type.clone().unwrap_or_else(|| script.to_owned()),
        node: "test".to_owned(),
        attempt: case.attempt,
        max_attempts: case.max_attempts.unwrap_or(case.attempt),
        deadline_ms: now.after(timeout).millis(),
        enqueued_at_ms: now.millis(),
        content_type: case.content_type.clone(),
        metadata: case.metadata.clone().into_iter().collect(),
        state: Some(Arc::new(case.stored())),
        timeout,
        memory_bytes_max: asked.unwrap_or(MEMORY_BYTES_MAX),
        ..Call::new(case.payload(folder)?)
    };
    let listener = Listener::quiet();
    let ran = local.run(code, call, &listener).await;
    let nothing = case::Expect::default();
    let differences = judge::differences(case.expect.as_ref().unwrap_or(&nothing), folder, &ran)?;
    let profile = serde_json::to_value(Profile::of(code, &ran)).map_err(|error| error.to_string())?;
    Ok(Judged {
        name: &case.name,
        script: script.to_owned(),
        ran,
        profile,
        differences,
        log: listener.take(),
        updated: None,
    })
}

/// Log lines of a failed case that are shown.
const LOG_LINES_SHOWN: usize = 20;

/// Prints a case for people.
fn show(judged: &Judged<'_>) {
    let usage = &judged.ran.finished.usage;
    let wall = rounded(Duration::from_micros(usage.wall_us));
    let name = visible(judged.name);
    let word = match (&judged.updated, judged.is_passed()) {
        (Some(Ok(())), _) => "updated",
        (_, true) => "ok",
        (_, false) => "FAILED",
    };
    print::line(&format!("  {word:<8}{name}  ({wall})"));
    if judged.is_passed() {
        return;
    }
    let has_color = print::has_color();
    for difference in &judged.differences {
        print::line(&format!("    {}", difference.key));
        for line in &difference.lines {
            print::line(&format!("      {}", colored(line, has_color)));
        }
    }
    let outcome = &judged.ran.finished.outcome;
    let is_told = judged.differences.iter().any(|difference| difference.key.starts_with("error"));
    let error = outcome.error_text();
    if !error.is_empty() && !is_told {
        print::line(&format!("    {}", outcome.kind()));
        error.lines().for_each(|line| print::line(&format!("      {}", visible(line))));
    }
    if !judged.log.is_empty() {
        print::line("    log");
        let skipped = judged.log.len().saturating_sub(LOG_LINES_SHOWN);
        if skipped > 0 {
            print::line(&format!("      … {skipped} lines before"));
        }
        judged.log[skipped..].iter().for_each(|line| print::line(&format!("      {line}")));
    }
    if let Some(Err(why)) = &judged.updated {
        print::line(&format!("    not updated: {why}"));
    }
}

/// A line of a diff in the colour that people expect.
fn colored(line: &str, has_color: bool) -> String {
    match line.chars().next() {
        Some('-') if has_color => format!("\u{1b}[31m{line}\u{1b}[0m"),
        Some('+') if has_color => format!("\u{1b}[32m{line}\u{1b}[0m"),
        _ => line.to_owned(),
    }
}

/// A case as JSON.
#[derive(Serialize)]
struct CaseDocument {
    file: String,
    script: String,
    name: String,
    passed: bool,
    updated: bool,
    differences: BTreeMap<&'static str, Vec<String>>,
    /// As `exec --output json` has it.
    profile: serde_json::Value,
}

impl CaseDocument {
    fn of(file: &str, judged: &Judged<'_>) -> Self {
        Self {
            file: file.to_owned(),
            script: judged.script.clone(),
            name: judged.name.to_owned(),
            passed: judged.is_passed(),
            updated: matches!(judged.updated, Some(Ok(()))),
            differences: judged.differences.iter().map(|d| (d.key, d.lines.clone())).collect(),
            profile: judged.profile.clone(),
        }
    }
}
