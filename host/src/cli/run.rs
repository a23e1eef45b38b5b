//! `wasmhost run`: the host of a node.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::FAILED;
use super::{Failure, Global, print};
use crate::clock::parse_duration;
use crate::config::{Config, Given, Hardening, LogFormat, Queue, environment};
use crate::host::{Extras, Host, Reload, own_compiler};
use crate::permissions::HttpPattern;
use crate::protocol::Protocol;
use crate::telemetry;

/// Arguments of `wasmhost run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Start a private Redis in the data folder instead of using one
    #[arg(long, conflicts_with = "redis")]
    embedded: bool,
    /// Queue to serve, with its share under backlog (repeatable) [default: default=1]
    #[arg(long = "queue", value_name = "NAME[=WEIGHT]")]
    queues: Vec<Queue>,
    /// Serve the queues in the order given: a later one only gets what those before it leave over
    #[arg(long)]
    strict: bool,
    /// Other systems whose messages are taken over: hero (a list, or repeated) [env: WASMHOST_PROTOCOL]
    #[arg(long = "protocol", value_name = "NAME", value_delimiter = ',')]
    protocols: Vec<Protocol>,
    /// Jobs that run at once [default: 8 per core]
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// How long a job belongs to a silent host [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    lease: Option<Duration>,
    /// How long running jobs may take to end after SIGTERM [default: 25s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Number of the grid [default: 1]
    #[arg(long, value_name = "N")]
    gid: Option<u64>,
    /// Number of the node [default: made from its name]
    #[arg(long, value_name = "N")]
    nid: Option<u64>,
    /// Role of this node (repeatable)
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Folder whose Wasm files are published, at start and whenever one changes
    #[arg(long, value_name = "DIR")]
    scripts: Option<PathBuf>,
    /// Serve health, metrics and the job API here, such as 127.0.0.1:8080 [env: WASMHOST_HTTP] [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// File with the token that HTTP requests must bring; needed when others can reach the address
    #[arg(long, value_name = "FILE")]
    http_token_file: Option<PathBuf>,
    /// Where jumpscripts may send HTTP requests, such as api.example.com:443, *.example.com:443 or 127.0.0.1:* (repeatable) [env: WASMHOST_ALLOW_HTTP]
    #[arg(long = "allow-http", value_name = "HOST:PORT")]
    allow_http: Vec<HttpPattern>,
    /// Defence in depth for speed: default, or strict, which wipes native stacks between jobs and trusts no report about written pages [default: default]
    #[arg(long, value_name = "LEVEL")]
    hardening: Option<Hardening>,
    /// Log lines: error, warn, info, debug, trace, or directives [env: WASMHOST_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How log lines look: auto, text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl RunArgs {
    fn given(self, global: &Global) -> Given {
        Given {
            redis_embedded: self.embedded.then_some(true),
            queues: some(self.queues),
            strict: self.strict.then_some(true),
            protocols: some(self.protocols),
            concurrency: self.concurrency,
            lease: self.lease,
            grace: self.grace,
            node: self.node,
            gid: self.gid,
            nid: self.nid,
            roles: some(self.roles),
            scripts: self.scripts,
            http_listen: self.http,
            http_token_file: self.http_token_file,
            allow_http: some(self.allow_http),
            sandbox_hardening: self.hardening,
            log_level: self.log,
            log_format: self.log_format,
            ..global.given()
        }
    }
}

/// The values of a flag that may be repeated; `None` when it was not given.
pub(super) fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

/// Runs the command.
pub(super) async fn run(global: Global, args: RunArgs) -> Result<ExitCode, Failure> {
    let given = args.given(&global);
    let sources = global.sources(given);
    let config = Config::load(&sources)?;
    let level = telemetry::start(&config.log, &environment()).map_err(Failure::usage)?;
    config.notes.iter().for_each(|note| tracing::warn!(note, "configuration is usable, but"));
    let extras = Extras { reload: Some(Reload { sources, level: Some(level) }), ..Extras::default() };
    let host = Host::start(&config, own_compiler(), extras).await?;
    until_stopped(host, &config).await
}

/// Says that the host is ready, waits for a signal, drains. A second signal ends at once.
pub(super) async fn until_stopped(mut host: Host, config: &Config) -> Result<ExitCode, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let served = config.served_queues();
    let queues = served.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>().join(",");
    tracing::info!(node = %config.node, redis = host.redis_url(), %queues, concurrency = config.concurrency, "host ready");
    if let Some(address) = host.http_address() {
        tracing::info!(%address, has_token = config.http.token.is_some(), "http ready");
    }
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        text = host.failed() => Some(text),
    };
    if let Some(text) = &failed {
        tracing::error!(%text, "host fails, stopping");
    } else {
        tracing::info!(grace = ?config.grace, "stopping; a second signal ends at once");
    }
    tokio::select! {
        totals = host.stop() => {
            tracing::info!(done = totals.done, retried = totals.retried, dead = totals.dead, released = totals.released, "host stopped");
        }
        _ = terminate.recv() => return Ok(ended_at_once()),
        _ = interrupt.recv() => return Ok(ended_at_once()),
    }
    match failed {
        Some(text) => Err(Failure::new(text)),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn ended_at_once() -> ExitCode {
    print::note("ended at once; jobs that were running come back when their leases end");
    ExitCode::from(FAILED)
}
