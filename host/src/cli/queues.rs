//! `wasmhost queues`: what waits where, and what holds for a queue.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Failure, Global, Output, print};
use crate::clock::{format_duration, parse_duration};
use crate::store::{OnFull, QueueChange, QueueInfo, QueueSettings};

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
    /// Change the limits of a queue, for all hosts at once; `none` takes one away
    Set(SetArgs),
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
            let queues = global.connect().await?.queues().await?;
            let Some(info) = queues.iter().find(|info| info.name == queue) else {
                return Err(Failure::new(format!("there is no queue `{}`", crate::job::visible(&queue)))
                    .hint("`wasmhost queues ls` lists them; a queue begins with its first job"));
            };
            show(global.output, info);
            return Ok(ExitCode::SUCCESS);
        }
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
    let settings = global.connect().await?.set_queue(&queue, &change).await?;
    match global.output {
        Output::Json => print::json(&json!({ "name": queue, "settings": settings_shape(&settings) })),
        Output::Text => {
            print::line(&format!("queue {queue}"));
            settings_lines(&settings);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn settings_shape(settings: &QueueSettings) -> Value {
    json!({
        "paused_since": settings.paused_since.map(|time| time.to_string()),
        "concurrency": settings.concurrency,
        "key_concurrency": settings.key_concurrency,
        "key_rate": settings.key_rate.map(|(n, period)| format!("{n}/{}", format_duration(period))),
        "key_order": if settings.is_key_order_strict { "strict" } else { "any" },
        "capacity": settings.capacity,
        "on_full": settings.on_full.as_str(),
    })
}

fn settings_lines(settings: &QueueSettings) {
    if let Value::Object(shape) = settings_shape(settings) {
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

fn parked(info: &QueueInfo) -> u64 {
    info.counters.iter().find(|(name, _)| name == "parked").map_or(0, |(_, n)| *n)
}

fn list(output: Output, queues: &[QueueInfo]) {
    if output == Output::Json {
        return queues.iter().for_each(|info| print::json_line(&shape(info)));
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
        let numbers = [info.ready, parked(info), info.scheduled, info.inflight, info.dlq, info.done];
        let numbers: Vec<String> = numbers.iter().map(|n| format!("{n:>10}")).collect();
        let state = if info.settings.paused_since.is_some() { "paused" } else { "open" };
        print::line(&format!("{:<width$} {}  {state}", info.name, numbers.join(" ")));
    }
}

fn shape(info: &QueueInfo) -> Value {
    let totals: serde_json::Map<String, Value> = info
        .counters
        .iter()
        .filter(|(name, _)| name != "parked")
        .map(|(name, n)| (name.clone(), (*n).into()))
        .collect();
    json!({
        "name": info.name,
        "ready": info.ready,
        "parked": parked(info),
        "scheduled": info.scheduled,
        "inflight": info.inflight,
        "dlq": info.dlq,
        "done": info.done,
        "cancelled": info.cancelled,
        "totals": totals,
        "settings": settings_shape(&info.settings),
    })
}

fn show(output: Output, info: &QueueInfo) {
    if output == Output::Json {
        return print::json(&shape(info));
    }
    print::line(&format!("queue {}", info.name));
    for (name, n) in [
        ("ready", info.ready),
        ("parked", parked(info)),
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
