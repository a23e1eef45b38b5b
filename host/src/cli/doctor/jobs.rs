//! `wasmhost doctor --jobs` and `--fix`: what is wrong with the jobs and structures in Redis, and its repair.
//!
//! Invariant: nothing is changed without `--yes` or the word of a person at a terminal.
//!
//! Next: `store/reconcile` for what is looked at, and docs/doctor.md for what can be found.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::{Failure, Output, print, redis_of_command};
use crate::clock::format_duration;
use crate::config::Config;
use crate::job::{StoreId, visible};
use crate::store::{Finding, KINDS, Kind, Pace, Repairer, Store, Survey};

/// Looks in one call: each may bring to light what another fault had hidden.
const LOOKS_MAX: u32 = 20;
/// Pause after each slice: a person waits for the end.
const PAUSE: Duration = Duration::from_millis(1);

/// What is asked for.
pub(super) struct Wish {
    pub(super) is_fix: bool,
    pub(super) is_asked: bool,
    pub(super) grace: Duration,
    pub(super) examples: usize,
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    looks: u32,
    /// The last look, with what is left.
    last: Survey,
    repaired: Vec<Finding>,
}

impl Outcome {
    /// Faults that are left.
    fn n_left(&self) -> usize {
        self.last.findings.iter().filter(|finding| finding.kind.repairer != Repairer::Nobody).count()
    }

    fn is_clean(&self) -> bool {
        self.last.is_clean()
    }
}

/// Runs the command.
pub(super) async fn run(config: &Config, output: Output, wish: &Wish) -> Result<ExitCode, Failure> {
    let store = Store::connect(StoreId::default(), &redis_of_command(config)).await?;
    let pace = Pace { grace: wish.grace, pause: PAUSE, done_ttl: config.limits.done_ttl };
    let outcome = look_and_repair(&store, &pace, wish, output).await?;
    match output {
        Output::Json => print_json(&outcome),
        Output::Text => print_text(&outcome, wish),
    }
    Ok(ExitCode::from(u8::from(!outcome.is_clean())))
}

async fn look_and_repair(store: &Store, pace: &Pace, wish: &Wish, output: Output) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let mut may_repair = wish.is_fix && !wish.is_asked;
    loop {
        outcome.looks += 1;
        let suspected = store.suspect(pace).await?;
        let n = suspected.findings.len();
        if n > 0 && !pace.grace.is_zero() && output == Output::Text {
            print::note(&format!("what seems wrong: {n}; looking again in {}", format_duration(pace.grace)));
        }
        outcome.last = store.confirm(suspected, pace).await?;
        let is_ours = |finding: &&Finding| matches!(finding.kind.repairer, Repairer::Host | Repairer::Doctor);
        let ours: Vec<Finding> = outcome.last.findings.iter().filter(is_ours).cloned().collect();
        if ours.is_empty() || !wish.is_fix {
            return Ok(outcome);
        }
        if !may_repair {
            may_repair = asks(&outcome, ours.len(), wish.examples, output);
            if !may_repair {
                print::note("nothing was changed; --yes repairs without asking");
                return Ok(outcome);
            }
        }
        let repaired = store.repair(ours, pace).await?;
        outcome.last.findings.retain(|finding| !repaired.contains(finding));
        let is_stuck = repaired.is_empty();
        outcome.repaired.extend(repaired);
        if is_stuck || outcome.looks == LOOKS_MAX {
            return Ok(outcome);
        }
    }
}

/// Shows what was found and asks whether it is to be repaired.
fn asks(outcome: &Outcome, n: usize, examples: usize, output: Output) -> bool {
    if !print::is_person_there() {
        return false;
    }
    if output == Output::Text {
        print_findings(outcome, examples);
    }
    print::confirms(&format!("repair {n} findings? [y/N]"))
}

fn of<'a>(findings: &'a [Finding], kind: &'static Kind) -> impl Iterator<Item = &'a Finding> {
    findings.iter().filter(move |finding| finding.kind == kind)
}

fn print_findings(outcome: &Outcome, examples: usize) {
    for kind in KINDS {
        let (left, repaired) = (of(&outcome.last.findings, kind).count(), of(&outcome.repaired, kind).count());
        if left + repaired == 0 {
            continue;
        }
        let numbers = match (left, repaired) {
            (left, 0) => format!("{left} found"),
            (0, repaired) => format!("{repaired} repaired"),
            (left, repaired) => format!("{repaired} repaired, {left} left"),
        };
        print::line(&format!("{}: {numbers}", kind.name));
        print::line(&format!("  {}", kind.meaning));
        let word = match kind.repairer {
            Repairer::Host | Repairer::Doctor => "repair",
            Repairer::Person => "remedy",
            Repairer::Nobody => "to do",
        };
        print::line(&format!("  {word}: {}", kind.repair));
        let all = of(&outcome.last.findings, kind).chain(of(&outcome.repaired, kind));
        for finding in all.take(examples) {
            print::line(&format!("    {}", about(finding)));
        }
        if left + repaired > examples {
            print::line(&format!("    and {} more (--output json names all)", left + repaired - examples));
        }
        print::line("");
    }
}

/// What a finding is about, in one line.
fn about(finding: &Finding) -> String {
    let mut parts = Vec::new();
    if !finding.queue.is_empty() {
        parts.push(format!("queue {}", visible(&finding.queue)));
    }
    if !finding.entry.is_empty() {
        parts.push(finding.entry_text());
    }
    parts.push(format!("key `{}`", finding.key_text()));
    parts.join(", ")
}

fn print_text(outcome: &Outcome, wish: &Wish) {
    print_findings(outcome, wish.examples);
    let Survey { rows, keys, .. } = outcome.last;
    let looked = format!("jobs: {rows}, other keys: {keys}");
    let (left, repaired) = (outcome.n_left(), outcome.repaired.len());
    print::line(&match (left, repaired) {
        (0, 0) => format!("{looked}; nothing is wrong"),
        (0, _) => format!("{looked}; repaired: {repaired}, nothing is left"),
        (_, 0) => format!("{looked}; wrong: {left}"),
        _ => format!("{looked}; repaired: {repaired}, left: {left}"),
    });
    if outcome.last.is_more {
        print::line("there are more of a kind than one look takes in; look again");
    }
    if left > 0 && !wish.is_fix {
        print::note("`wasmhost doctor --fix` repairs");
    }
}

fn print_json(outcome: &Outcome) {
    let shape = |finding: &Finding, is_repaired: bool| {
        json!({
            "kind": finding.kind.name,
            "queue": finding.queue,
            "key": finding.key_text(),
            "entry": finding.entry_text(),
            "text": finding.text(),
            "repair": finding.kind.repair,
            "is_repaired": is_repaired,
            "is_fault": finding.kind.repairer != Repairer::Nobody,
        })
    };
    let left = outcome.last.findings.iter().map(|finding| shape(finding, false));
    let findings: Vec<Value> = left.chain(outcome.repaired.iter().map(|finding| shape(finding, true))).collect();
    let mut counts = Map::new();
    for kind in KINDS {
        let (left, repaired) = (of(&outcome.last.findings, kind).count(), of(&outcome.repaired, kind).count());
        if left + repaired > 0 {
            counts.insert(kind.name.to_owned(), json!({ "repaired": repaired, "left": left }));
        }
    }
    print::json(&json!({
        "is_clean": outcome.is_clean(),
        "jobs": outcome.last.rows,
        "other_keys": outcome.last.keys,
        "looks": outcome.looks,
        "repaired": outcome.repaired.len(),
        "left": outcome.n_left(),
        "is_more": outcome.last.is_more,
        "counts": counts,
        "findings": findings,
    }));
}
