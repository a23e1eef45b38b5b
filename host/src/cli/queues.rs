//! `wasmhost queues`: what waits where, and what holds for a queue.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::failure::INTERRUPTED;
use super::filter::{known, unknown};
use super::{Failure, Global, Output, print};
use crate::clock::{format_duration, parse_duration};
use crate::job::JobState;
use crate::store::{Listed, OnFull, QueueChange, QueueInfo, QueueSettings, Store};
use crate::views;

/// The verbs of `wasmhost queues`.
#[derive(Debug, Subcommand)]
pub(super) enum QueuesCommand {
    /// List the queues with their numbers
    Ls,
    /// Show one queue: numbers, totals, settings
    Show {
        /// Queue
        queue: String,
    },
    /// Hand out no further jobs of a queue; what runs goes on
    Pause {
        /// Queue
        queue: String,
    },
    /// Hand out jobs of a queue again
    Resume {
        /// Queue
        queue: String,
    },
    /// Remove the jobs of a queue that wait, with their rows; those that run go on
    #[command(after_help = PURGE_EXAMPLES)]
    Purge(PurgeArgs),
    /// Change the limits of a queue, for all hosts at once; `none` takes one away
    Set(SetArgs),
}

const PURGE_EXAMPLES: &str = "Examples:
  wasmhost queues purge mail
  wasmhost queues purge mail --state scheduled --yes
  wasmhost queues purge mail --state dlq --state done --yes";

/// Arguments of `wasmhost queues purge`.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// Queue
    queue: String,
    /// Jobs in this state (repeatable) [default: ready, parked and scheduled]
    #[arg(long, value_parser = purged_parser())]
    state: Vec<Listed>,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// Reads a state of jobs that do not run.
fn purged_parser() -> impl TypedValueParser<Value = Listed> {
    let words = Listed::ALL.into_iter().filter(|listed| *listed != Listed::State(JobState::Inflight));
    PossibleValuesParser::new(words.map(Listed::as_str))
        .try_map(|word| Listed::parse(&word).ok_or_else(|| format!("`{word}` is no state")))
}

/// Arguments of `wasmhost queues set`.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// Queue
    queue: String,
    /// Most jobs that run at once in the whole fleet
    #[arg(long, value_name = "N|none", value_parser = parse_count)]
    concurrency: Option<Limit<u32>>,
    /// Most jobs of one limit key that run at once
    #[arg(long, value_name = "N|none", value_parser = parse_count)]
    key_concurrency: Option<Limit<u32>>,
    /// Most jobs of one limit key that begin in a time, for example 100/1m
    #[arg(long, value_name = "N/DURATION|none", value_parser = parse_rate)]
    key_rate: Option<Limit<(u32, Duration)>>,
    /// Whether jobs of one limit key run one at a time and in order, a retry before the next
    #[arg(long, value_name = "any|strict", conflicts_with = "key_concurrency")]
    key_order: Option<KeyOrder>,
    /// Most jobs that may wait
    #[arg(long, value_name = "N|none", value_parser = parse_capacity)]
    capacity: Option<Limit<u64>>,
    /// What a full queue does with a new job
    #[arg(long, value_name = "refuse|drop-oldest")]
    on_full: Option<WhenFull>,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
struct Limit<T>(Option<T>);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyOrder {
    Any,
    Strict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhenFull {
    Refuse,
    DropOldest,
}

fn parse_count(text: &str) -> Result<Limit<u32>, String> {
    parse_capacity(text).and_then(|Limit(n)| match n.map(u32::try_from).transpose() {
        Ok(n) if n.is_none_or(|n| n <= COUNT_MAX) => Ok(Limit(n)),
        _ => Err(format!("`{text}` is more than {COUNT_MAX}")),
    })
}

fn parse_capacity(text: &str) -> Result<Limit<u64>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    match text.parse::<u64>() {
        Ok(n) if (1..=CAPACITY_MAX).contains(&n) => Ok(Limit(Some(n))),
        Ok(_) => Err(format!("`{text}` is not between 1 and {CAPACITY_MAX}")),
        Err(_) => Err(format!("`{text}` is neither a number nor `none`")),
    }
}

fn parse_rate(text: &str) -> Result<Limit<(u32, Duration)>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let (n, period) = text.split_once('/').ok_or_else(|| format!("`{text}` is not N/DURATION, for example 100/1m"))?;
    let Limit(n) = parse_count(n)?;
    let n = n.ok_or_else(|| format!("`{text}` is not N/DURATION"))?;
    // `100/s` is what people write first.
    let period =
        if period.starts_with(|c: char| c.is_ascii_digit()) { period.to_owned() } else { format!("1{period}") };
    let period = parse_duration(&period)?;
    if period < Duration::from_millis(1) || period > PERIOD_MAX {
        return Err(format!("the time of a rate is {}, must be between 1ms and 24h", format_duration(period)));
    }
    Ok(Limit(Some((n, period))))
}

/// Highest concurrency or rate.
const COUNT_MAX: u32 = 1_000_000;
/// Highest capacity.
const CAPACITY_MAX: u64 = 1_000_000_000;
/// Longest time of a rate.
const PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Runs the command.
pub(super) async fn run(global: Global, command: QueuesCommand) -> Result<ExitCode, Failure> {
    let (queue, change) = match command {
        QueuesCommand::Ls => {
            let queues = global.connect().await?.queues().await?;
            list(global.output, &queues);
            return Ok(ExitCode::SUCCESS);
        }
        QueuesCommand::Show { queue } => {
            let store = global.connect().await?;
            show(global.output, &info_of(&store, &queue).await?);
            return Ok(ExitCode::SUCCESS);
        }
        QueuesCommand::Purge(args) => return purge(&global, args).await,
        QueuesCommand::Pause { queue } => (queue, QueueChange { paused: Some(true), ..QueueChange::default() }),
        QueuesCommand::Resume { queue } => (queue, QueueChange { paused: Some(false), ..QueueChange::default() }),
        QueuesCommand::Set(args) => {
            let change = QueueChange {
                concurrency: args.concurrency.map(|limit| limit.0),
                key_concurrency: args.key_concurrency.map(|limit| limit.0),
                key_rate: args.key_rate.map(|limit| limit.0),
                is_key_order_strict: args.key_order.map(|order| matches!(order, KeyOrder::Strict)),
                capacity: args.capacity.map(|limit| limit.0),
                on_full: args.on_full.map(|on_full| match on_full {
                    WhenFull::Refuse => OnFull::Refuse,
                    WhenFull::DropOldest => OnFull::DropOldest,
                }),
                ..QueueChange::default()
            };
            if change == QueueChange::default() {
                return Err(Failure::usage("nothing to set was named")
                    .hint("for example `--concurrency 10`; `wasmhost queues set --help` lists the settings"));
            }
            (args.queue, change)
        }
    };
    let store = global.connect().await?;
    // Not refused: what holds for a queue may be said before its first job.
    let note = unknown(&store, &queue).await?;
    let settings = store.set_queue(&queue, &change).await?;
    if let Some(hint) = note {
        print::note(&format!("note: queue `{queue}` is new, it has had no job yet; {hint}"));
    }
    match (global.output, change.paused) {
        (Output::Json, _) => print::json(&json!({ "name": queue, "settings": views::settings(&settings) })),
        (Output::Text, Some(is_paused)) => print::line(&steered(&queue, is_paused)),
        (Output::Text, None) => {
            print::line(&format!("queue {queue}"));
            settings_lines(&settings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a pause or its end means.
fn steered(queue: &str, is_paused: bool) -> String {
    if is_paused {
        format!("queue {queue} is paused: what runs goes on, the others wait for `wasmhost queues resume {queue}`")
    } else {
        format!("queue {queue} is not paused: its jobs are handed out")
    }
}

/// One queue in numbers.
async fn info_of(store: &Store, queue: &str) -> Result<QueueInfo, Failure> {
    known(store, queue).await?;
    let found = store.queues().await?.into_iter().find(|info| info.name == queue);
    found.ok_or_else(|| Failure::new(format!("queue `{queue}` was removed just now")))
}

/// Removes jobs that do not run. Parked jobs first, then the others, so that none is let in on the way.
async fn purge(global: &Global, args: PurgeArgs) -> Result<ExitCode, Failure> {
    let PurgeArgs { queue, state, yes } = args;
    let is_meant = |listed: &Listed| {
        let waits = [Listed::Parked, Listed::State(JobState::Ready), Listed::State(JobState::Scheduled)];
        if state.is_empty() { waits.contains(listed) } else { state.contains(listed) }
    };
    let store = global.connect().await?;
    let info = info_of(&store, &queue).await?;
    let mut meant: Vec<Listed> = Listed::ALL.into_iter().filter(is_meant).collect();
    meant.sort_by_key(|listed| *listed != Listed::Parked);
    let counts: Vec<(Listed, u64)> = meant.into_iter().map(|listed| (listed, number(&info, listed))).collect();
    let total: u64 = counts.iter().map(|(_, n)| n).sum();
    let what = counts.iter().map(|(listed, n)| format!("{} {n}", listed.as_str())).collect::<Vec<_>>().join(", ");
    if total == 0 && !yes {
        meant_none(global.output, &queue, &what);
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && !print::confirms(&format!("remove {} of queue {queue} ({what})? [y/N]", jobs(total))) {
        return Err(Failure::usage(format!(
            "nothing was removed; it would be {} of queue {queue} ({what})",
            jobs(total)
        ))
        .hint("--yes removes them without asking; they cannot be brought back"));
    }
    let mut removed = serde_json::Map::new();
    let (mut n_removed, mut is_interrupted) = (0, false);
    let mut outcome = Ok(());
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    'all: for (listed, n) in counts {
        let mut purge = store.purge(&queue, listed, n)?;
        let mut n_of_state = 0;
        loop {
            if interrupt.as_mut().now_or_never().is_some() {
                is_interrupted = true;
                break;
            }
            match purge.next().await {
                Ok(Some(n)) => n_of_state += n,
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(Failure::from(error));
                    break;
                }
            }
        }
        n_removed += n_of_state;
        removed.insert(listed.as_str().to_owned(), n_of_state.into());
        if is_interrupted || outcome.is_err() {
            break 'all;
        }
    }
    match global.output {
        Output::Json => print::json(&json!({
            "queue": queue, "removed": removed, "total": n_removed, "is_interrupted": is_interrupted,
        })),
        Output::Text => {
            let of = removed.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ");
            print::line(&format!("{} of queue {queue} removed ({of})", jobs(n_removed)));
        }
    }
    outcome?;
    if is_interrupted {
        print::note("interrupted: the others are still there; the same command goes on with them");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// So many jobs, in words.
fn jobs(n: u64) -> String {
    format!("{n} {}", if n == 1 { "job" } else { "jobs" })
}

/// Says that there is nothing to remove.
fn meant_none(output: Output, queue: &str, what: &str) {
    match output {
        Output::Json => {
            print::json(&json!({ "queue": queue, "removed": {}, "total": 0, "is_interrupted": false }));
        }
        Output::Text => print::line(&format!("queue {queue} has nothing to remove ({what})")),
    }
}

/// How many jobs of a queue are listed so.
fn number(info: &QueueInfo, listed: Listed) -> u64 {
    match listed {
        Listed::Parked => info.parked(),
        Listed::State(JobState::Scheduled) => info.scheduled,
        Listed::State(JobState::Ready) => info.ready,
        Listed::State(JobState::Inflight) => info.inflight,
        Listed::State(JobState::Done) => info.done,
        Listed::State(JobState::Dlq) => info.dlq,
        Listed::State(JobState::Cancelled) => info.cancelled,
    }
}

fn settings_lines(settings: &QueueSettings) {
    if let Value::Object(shape) = views::settings(settings) {
        for (name, value) in shape {
            let text = match value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text,
                other => other.to_string(),
            };
            print::line(&format!("{name:<18} {text}"));
        }
    }
}

fn list(output: Output, queues: &[QueueInfo]) {
    if output == Output::Json {
        return queues.iter().for_each(|info| print::json_line(&views::queue(info)));
    }
    if queues.is_empty() {
        return print::note("no queue is known yet: the first job makes one");
    }
    let head = ["READY", "PARKED", "SCHEDULED", "INFLIGHT", "DLQ", "DONE"];
    let width = queues.iter().map(|info| info.name.chars().count()).max().unwrap_or(0).max(5);
    print::line(&format!(
        "{:<width$} {}  STATE",
        "QUEUE",
        head.iter().map(|name| format!("{name:>10}")).collect::<Vec<_>>().join(" ")
    ));
    for info in queues {
        let numbers = [info.ready, info.parked(), info.scheduled, info.inflight, info.dlq, info.done];
        let numbers: Vec<String> = numbers.iter().map(|n| format!("{n:>10}")).collect();
        let state = if info.settings.paused_since.is_some() { "paused" } else { "open" };
        print::line(&format!("{:<width$} {}  {state}", info.name, numbers.join(" ")));
    }
}

fn show(output: Output, info: &QueueInfo) {
    if output == Output::Json {
        return print::json(&views::queue(info));
    }
    print::line(&format!("queue {}", info.name));
    for (name, n) in [
        ("ready", info.ready),
        ("parked", info.parked()),
        ("scheduled", info.scheduled),
        ("inflight", info.inflight),
        ("dlq", info.dlq),
        ("done", info.done),
        ("cancelled", info.cancelled),
    ] {
        print::line(&format!("{name:<18} {n}"));
    }
    for (name, n) in info.counters.iter().filter(|(name, _)| name != "parked") {
        print::line(&format!("{:<18} {n}", format!("total {name}")));
    }
    settings_lines(&info.settings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        assert!(matches!(parse_rate("100/1m"), Ok(Limit(Some((100, period)))) if period.as_secs() == 60));
        assert!(matches!(parse_rate("5/s"), Ok(Limit(Some((5, period)))) if period.as_secs() == 1));
        assert!(matches!(parse_rate("none"), Ok(Limit(None))));
        for wrong in ["5", "0/s", "-1/s", "5/0s", "5/25h", "x/s", "none/s"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_count_is_from_one_up_or_none() {
        assert!(matches!(parse_count("none"), Ok(Limit(None))));
        for wrong in ["0", "-1", "1000001", "many"] {
            assert!(parse_count(wrong).is_err(), "{wrong}");
        }
    }
}
