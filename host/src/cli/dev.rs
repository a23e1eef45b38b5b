//! `wasmhost dev`: a private Redis, a host, and a line for every change that is live.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, watch};

use super::run::{some, until_stopped};
use super::{Failure, Global, print};
use crate::config::{Given, environment};
use crate::dev::{Dev, Event, Params};
use crate::host::{Host, StorePublisher, own_compiler};
use crate::job::{visible, visible_lines};
use crate::permissions::HttpPattern;
use crate::telemetry;

/// Files from this size on are compiled quickly first: measured, 70 KiB of Rust take 30 ms instead of 60.
const FIRST_TIER_KIB: usize = 32;

/// Arguments of `wasmhost dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Folder with Rust projects and Wasm files
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// Serve health, metrics and the job API here, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Where jumpscripts may send HTTP requests, such as api.example.com:443 or 127.0.0.1:* (repeatable) [env: WASMHOST_ALLOW_HTTP]
    #[arg(long = "allow-http", value_name = "HOST:PORT")]
    allow_http: Vec<HttpPattern>,
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
        ..global.given()
    };
    let mut config = global.load(given)?;
    // What is published here comes from the folder of the developer alone.
    config.scripts = None;
    // Who edits waits for the first run; smaller files compile just as fast either way.
    config.sandbox.first_tier_kib = config.sandbox.first_tier_kib.min(FIRST_TIER_KIB);
    telemetry::start(&config.log, &environment()).map_err(Failure::usage)?;
    config.notes.iter().for_each(|note| tracing::warn!(note, "configuration is usable, but"));
    let host = Host::start(&config, own_compiler(), None).await?;
    if let Some(address) = host.embedded() {
        print::note(&format!("redis on port {} (redis-cli -p {}), {}", address.port, address.port, address.url));
    }
    if let Some(address) = host.http_address() {
        print::note(&format!("http on http://{address}"));
    }
    let (outbox, mut events) = mpsc::channel(64);
    let publisher = Arc::new(StorePublisher::new(host.store().clone()));
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
    let ended = until_stopped(host, &config).await;
    stop.send_replace(true);
    // Neither can fail but by a bug, which the log has then.
    let _ = dev.await;
    let _ = printer.await;
    ended
}

/// The line of an event. Names and texts may come from a stranger's file.
fn line(event: &Event) -> String {
    match event {
        Event::Watching { folder, projects } if projects.is_empty() => {
            format!("watching {} for Wasm files and Rust projects", visible(&folder.display().to_string()))
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
            shown(*took)
        ),
        Event::Reloaded { name, digest, took, build } => {
            let build = build.map_or_else(String::new, |build| format!(" (build {})", shown(build)));
            format!("reloaded {} {} in {}{build}", name.short(), &digest.short()[..8], shown(*took))
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

/// A time with two or three digits: `41 ms`, `1.9 s`.
fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jumpscript::Digest;

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

    #[test]
    fn what_a_file_is_called_cannot_write_on_the_terminal() {
        let event = Event::Removed { file: "a\u{1b}[2J.wasm".into() };
        assert!(line(&event).contains("\\u{1b}"));
    }
}
