//! `wasmhost dev`: a private Redis, a host, and a line for every change that is live.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, watch};

use super::profile::{kib, rounded};
use super::run::{some, until_stopped};
use super::{Failure, Global, print};
use crate::config::{Given, environment};
use crate::dev::{Dev, Event, Params};
use crate::host::{Extras, Host, own_compiler};
use crate::job::{visible, visible_lines};
use crate::outcome::Outcome;
use crate::permissions::HttpPattern;
use crate::telemetry;
use crate::worker::{AttemptEnd, OnAttempt};

/// Files from this size on are compiled quickly first: measured, 70 KiB of Rust take 30 ms instead of 60.
const FIRST_TIER_KIB: usize = 32;

/// Arguments of `wasmhost dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Folder with projects (a Cargo.toml, or a jumpscript.toml with a build command) and Wasm files
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// Serve health, metrics and the job API here, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Where jumpscripts may send HTTP requests, such as api.example.com:443 or 127.0.0.1:* (repeatable) [env: WASMHOST_ALLOW_HTTP]
    #[arg(long = "allow-http", value_name = "HOST:PORT")]
    allow_http: Vec<HttpPattern>,
    /// Allow whatever a manifest requests, but HTTP: for code of your own [env: WASMHOST_ALLOW_REQUESTED]
    #[arg(long)]
    allow_requested: bool,
    /// Log lines of the host: error, warn, info, debug, trace, or directives
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: DevArgs) -> Result<ExitCode, Failure> {
    if global.redis.is_some() {
        return Err(Failure::usage("`wasmhost dev` always starts a Redis of its own; leave `--redis` out"));
    }
    let given = Given {
        redis_embedded: Some(true),
        log_level: Some(args.log),
        http_listen: args.http,
        allow_http: some(args.allow_http),
        allow_requested: args.allow_requested.then_some(true),
        ..global.given()
    };
    let mut config = global.load(given)?;
    // What is published here comes from the folder of the developer alone.
    config.scripts = None;
    // It is unsigned, and stays on this machine.
    config.signatures = crate::config::Signatures::default();
    // Who edits waits for the first run; smaller files compile just as fast either way.
    config.sandbox.first_tier_kib = config.sandbox.first_tier_kib.min(FIRST_TIER_KIB);
    telemetry::start(&config.log, &environment()).map_err(Failure::usage)?;
    config.notes.iter().for_each(|note| tracing::warn!(note, "configuration is usable, but"));
    let (log, mut ended) = job_log();
    let extras = Extras { on_attempt: Some(log), has_source_lines: true, ..Extras::default() };
    let host = Host::start(&config, own_compiler(), extras).await?;
    if let Some(address) = host.embedded() {
        print::note(&format!("redis on port {} (redis-cli -p {}), {}", address.port, address.port, address.url));
    }
    if let Some(address) = host.http_address() {
        print::note(&format!("http on http://{address}"));
    }
    let (outbox, mut events) = mpsc::channel(64);
    let publisher = Arc::new(host.publisher());
    let (stop, is_stopped) = watch::channel(false);
    let dev = match Dev::new(Params { folder: args.folder, publisher, events: outbox }) {
        Ok(dev) => tokio::spawn(dev.run(is_stopped)),
        Err(text) => {
            host.stop().await;
            return Err(Failure::usage(text));
        }
    };
    let printer = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            print::line(&line(&event));
        }
    });
    let job_printer = tokio::spawn(async move {
        while let Some(end) = ended.recv().await {
            job_lines(&end, print::width(), print::has_color()).iter().for_each(|line| print::line(line));
        }
    });
    let result = until_stopped(host, &config).await;
    stop.send_replace(true);
    // None can fail but by a bug, which the log has then.
    let _ = dev.await;
    let _ = printer.await;
    let _ = job_printer.await;
    result
}

/// Ends of attempts that wait to be printed, at most.
const ENDS_WAITING_MAX: usize = 1024;
/// Lines of a job's own log that are shown with its end.
const LOG_LINES_SHOWN: usize = 20;

/// What Rust says after a panic, which cannot be done here and is done already.
const RUST_ADVICE: &str = "note: run with `RUST_BACKTRACE";

/// An end to be printed, or how many came so fast that they were not.
enum Shown {
    End(Box<AttemptEnd>),
    LeftOut(u64),
}

/// Where ends of attempts go in, and where they come out to be printed. The host never waits for the screen: what it
/// has no room for is counted.
fn job_log() -> (OnAttempt, mpsc::Receiver<Shown>) {
    let (sender, receiver) = mpsc::channel(ENDS_WAITING_MAX);
    let left_out = AtomicU64::new(0);
    let log = move |end: AttemptEnd| {
        let n = left_out.load(Ordering::Relaxed);
        if n > 0 && sender.try_send(Shown::LeftOut(n)).is_ok() {
            left_out.fetch_sub(n, Ordering::Relaxed);
        }
        if sender.try_send(Shown::End(Box::new(end))).is_err() {
            left_out.fetch_add(1, Ordering::Relaxed);
        }
    };
    (Box::new(log), receiver)
}

/// The lines of an attempt that has ended: one that says all, then its log, then where it went wrong.
fn job_lines(shown: &Shown, width: usize, has_color: bool) -> Vec<String> {
    let end = match shown {
        Shown::End(end) => end,
        Shown::LeftOut(n) => return vec![format!("… {n} more attempts ended too fast to be shown")],
    };
    let (outcome, usage) = (&end.outcome, &end.usage);
    let micros = |us| rounded(Duration::from_micros(us));
    let attempt = if end.attempt > 1 { format!(" attempt {}", end.attempt) } else { String::new() };
    let used = if usage.wall_us == 0 {
        "not run".to_owned()
    } else {
        let (wall, cpu) = (micros(usage.wall_us), micros(usage.cpu_us));
        format!("{wall}, cpu {cpu}, {}", kib(usage.memory_bytes_peak))
    };
    let error = outcome.error_text();
    let mut errors = error.lines().peekable();
    let words = match outcome {
        Outcome::Done { result } => {
            String::from_utf8_lossy(&result[..result.len().min(RESULT_BYTES_SHOWN)]).into_owned()
        }
        _ => {
            let first = errors.next().unwrap_or_default();
            // A panic says where, and in the next line what.
            let what = errors.next_if(|line| first.starts_with("panicked at ") && !line.starts_with("  at "));
            what.map_or_else(|| first.to_owned(), |what| format!("{first} {what}"))
        }
    };
    let kind = outcome.kind();
    let head = format!("{kind:<8} {} {}{attempt}  {used}  ", end.id, visible(&end.job_type));
    let words = visible(words.trim_end());
    let mut lines = vec![colored(&cut(&format!("{head}{words}"), width), kind, has_color)];
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with(RUST_ADVICE);
    let log: Vec<&str> = usage.log_tail.lines().filter(is_said).collect();
    let skipped = log.len().saturating_sub(LOG_LINES_SHOWN);
    if skipped > 0 {
        lines.push(format!("  | … {skipped} lines before"));
    }
    lines.extend(log[skipped..].iter().map(|line| cut(&format!("  | {}", visible(line)), width)));
    lines.extend(errors.map(|line| cut(&format!("  {}", visible(line)), width)));
    lines
}

/// Bytes of a result that can fit any screen.
const RESULT_BYTES_SHOWN: usize = 1024;

/// At most `width` characters of a line; one more says that it goes on.
fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The word at the head of a line in the colour that people expect.
fn colored(line: &str, kind: &str, has_color: bool) -> String {
    let color = match kind {
        "done" => 32,
        "retry" | "conflict" | "cancelled" => 33,
        _ => 31,
    };
    match line.strip_prefix(kind) {
        Some(rest) if has_color => format!("\u{1b}[{color}m{kind}\u{1b}[0m{rest}"),
        _ => line.to_owned(),
    }
}

/// The line of an event. Names and texts may come from a stranger's file.
fn line(event: &Event) -> String {
    match event {
        Event::Watching { folder, projects } if projects.is_empty() => {
            format!("watching {} for Wasm files and projects", visible(&folder.display().to_string()))
        }
        Event::Watching { folder, projects } => format!(
            "watching {}: {} ({})",
            visible(&folder.display().to_string()),
            visible(&projects.join(", ")),
            if projects.len() == 1 { "1 project".to_owned() } else { format!("{} projects", projects.len()) },
        ),
        Event::Building { project } => format!("building {}", visible(project)),
        Event::BuildFailed { project, text, took } => format!(
            "{}\nbuild of {} failed after {}; the code published before stays live",
            visible_lines(text),
            visible(project),
            rounded(*took)
        ),
        Event::Reloaded { name, digest, took, build } => {
            let build = build.map_or_else(String::new, |build| format!(" (build {})", rounded(build)));
            format!("reloaded {} {} in {}{build}", name.short(), &digest.short()[..8], rounded(*took))
        }
        Event::Unchanged { name, digest } => format!("unchanged {} {}", name.short(), &digest.short()[..8]),
        Event::Refused { file, text } => format!(
            "refused {}: {}; the code published before stays live",
            visible(&file.display().to_string()),
            visible_lines(text)
        ),
        Event::Waiting { text } => format!("waiting for Redis: {}", visible_lines(text)),
        Event::Removed { file } => {
            format!("removed {}; its jumpscript stays published", visible(&file.display().to_string()))
        }
        Event::Note { text } => format!("note: {}", visible(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use crate::jumpscript::Digest;
    use crate::outcome::Usage;

    #[test]
    fn a_reload_is_one_line_with_its_times() {
        let event = Event::Reloaded {
            name: "hello".parse().unwrap(),
            digest: Digest::of(b"hello"),
            took: Duration::from_millis(41),
            build: Some(Duration::from_millis(1_900)),
        };
        assert_eq!(line(&event), "reloaded hello 2cf24dba in 41 ms (build 1.9 s)");
    }

    fn end(outcome: Outcome, log: &str) -> Shown {
        let usage = Usage {
            wall_us: 1_234,
            cpu_us: 900,
            memory_bytes_peak: 1 << 20,
            log_tail: log.to_owned(),
            is_log_cut: false,
        };
        Shown::End(Box::new(AttemptEnd {
            id: JobId::from("j1"),
            job_type: "hello".to_owned(),
            attempt: 1,
            outcome,
            usage,
        }))
    }

    #[test]
    fn an_attempt_that_is_done_is_one_line_with_its_result_cut_to_the_width() {
        let done = |result: &str| end(Outcome::Done { result: result.into() }, "");
        let lines = job_lines(&done("{\"greeting\":\"Hello\"}"), 200, false);
        assert_eq!(lines, ["done     j1 hello  1 ms, cpu 900 µs, 1 MiB  {\"greeting\":\"Hello\"}"]);
        let lines = job_lines(&done(&"x".repeat(9_999)), 60, false);
        assert_eq!((lines.len(), lines[0].chars().count(), lines[0].ends_with("x…")), (1, 60, true));
        let hidden = job_lines(&done("\u{1b}[2Ja\nb"), 200, false);
        assert!(hidden[0].ends_with("\\u{1b}[2Ja\\nb"), "{hidden:?}");
        assert!(job_lines(&done("x"), 200, true)[0].starts_with("\u{1b}[32mdone\u{1b}[0m "));
    }

    #[test]
    fn a_failed_attempt_shows_its_log_and_where_it_went_wrong() {
        let trapped = Outcome::Trapped {
            message: "panicked at src/lib.rs:7:5:\nno".into(),
            backtrace: "  at run (src/lib.rs:7:5)".into(),
        };
        let lines = job_lines(&end(trapped, "info one\ninfo two\n"), 200, false);
        let rest = ["  | info one", "  | info two", "    at run (src/lib.rs:7:5)"];
        assert!(
            lines[0].starts_with("trapped  j1 hello  ") && lines[0].ends_with("panicked at src/lib.rs:7:5: no"),
            "{lines:?}"
        );
        assert_eq!(lines[1..], rest);
    }

    #[test]
    fn ends_that_come_too_fast_are_counted_instead_of_waited_for() {
        let (log, mut shown) = job_log();
        let ended = || match end(Outcome::Cancelled, "") {
            Shown::End(end) => log(*end),
            Shown::LeftOut(_) => {}
        };
        (0..ENDS_WAITING_MAX + 7).for_each(|_| ended());
        (0..2).for_each(|_| drop(shown.try_recv().unwrap()));
        ended();
        let mut left_out = 0;
        while let Ok(next) = shown.try_recv() {
            if let Shown::LeftOut(n) = next {
                left_out += n;
            }
        }
        assert_eq!(left_out, 7);
    }

    #[test]
    fn what_a_file_is_called_cannot_write_on_the_terminal() {
        let event = Event::Removed { file: "a\u{1b}[2J.wasm".into() };
        assert!(line(&event).contains("\\u{1b}"));
    }
}
