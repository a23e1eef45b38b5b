//! `wasmhost doctor`: prints what the node's doctor found; with `--jobs` and `--fix`, what is wrong in the queues.

mod jobs;

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;

use super::{Failure, Global, Output, print};
use crate::clock::parse_duration;
use crate::config::{Given, Origin, Queue};
use crate::node::State;
use crate::node::doctor::{self, Diagnosis, Engine};

const EXAMPLES: &str = "Examples:
  wasmhost doctor
  wasmhost doctor --jobs
  wasmhost doctor --fix
  wasmhost doctor --fix --yes --output json";

/// Arguments of `wasmhost doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("walk").multiple(true)))]
pub(super) struct DoctorArgs {
    /// Look at the private Redis of `wasmhost run --embedded`
    #[arg(long)]
    embedded: bool,
    /// The scripts folder that a host would serve
    #[arg(long, value_name = "DIR")]
    scripts: Option<std::path::PathBuf>,
    /// The queues that a host would serve
    #[arg(long = "queue", value_name = "NAME[=WEIGHT]")]
    queues: Vec<Queue>,
    /// How many jobs a host would run at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Show only the configuration in force, without looking at anything
    #[arg(long)]
    settings: bool,
    /// Look at every job and every structure in Redis, and change nothing
    #[arg(long, group = "walk", conflicts_with = "settings")]
    jobs: bool,
    /// The same, and repair what is wrong: asks on a terminal; elsewhere it changes nothing without --yes
    #[arg(long, group = "walk", conflicts_with = "settings")]
    fix: bool,
    /// Repair without asking
    #[arg(long, requires = "fix")]
    yes: bool,
    /// Time between the two looks at whatever seems wrong. Longer than a producer takes between the commands with which
    /// it writes one job: nothing that is on its way is then taken for lost
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s", requires = "walk")]
    grace: Duration,
    /// How many findings of each kind the text names; JSON names all
    #[arg(long, value_name = "N", default_value_t = 5, requires = "walk")]
    examples: usize,
}

/// Runs the command: exit code 1 when something is red, or left.
pub(super) async fn run(global: Global, args: DoctorArgs) -> Result<ExitCode, Failure> {
    let walk = (args.jobs || args.fix).then_some(jobs::Wish {
        is_fix: args.fix,
        is_asked: !args.yes,
        grace: args.grace,
        examples: args.examples,
    });
    let given = Given {
        redis_embedded: args.embedded.then_some(true),
        scripts: args.scripts,
        queues: (!args.queues.is_empty()).then_some(args.queues),
        concurrency: args.concurrency,
        ..global.given()
    };
    let config = global.load(given)?;
    if let Some(wish) = walk {
        return jobs::run(&config, global.output, &wish).await;
    }
    let diagnosis = if args.settings {
        Diagnosis { settings: config.settings.clone(), findings: Vec::new() }
    } else {
        let engine = start_engine(&config);
        doctor::diagnose(&config, &super::redis_of_command(&config), engine).await
    };
    match global.output {
        Output::Json => print_json(&diagnosis),
        Output::Text => print_text(&diagnosis),
    }
    Ok(ExitCode::from(u8::from(diagnosis.state() == State::Error)))
}

fn start_engine(config: &crate::config::Config) -> Engine {
    let options = crate::host::sandbox_options(config, crate::host::own_compiler());
    // Nothing is compiled here: the doctor leaves no file behind.
    let options = crate::sandbox::Options { artifacts: None, ..options };
    match crate::sandbox::Sandbox::new(options) {
        Ok(sandbox) => Engine::Starts { pool_size: sandbox.pool_size(), notes: sandbox.notes().to_vec() },
        Err(error) => Engine::Fails {
            text: error.to_string(),
            remedy: error.hint().unwrap_or("see docs/configuration.md for the keys under `sandbox`").to_owned(),
        },
    }
}

fn print_text(diagnosis: &Diagnosis) {
    let origin = |origin: &Origin| origin.to_string();
    let rows = diagnosis.settings.iter().map(|s| [s.key.to_owned(), s.value.clone(), origin(&s.origin)]);
    print::table(["KEY", "VALUE", "FROM"], rows);
    if diagnosis.findings.is_empty() {
        return;
    }
    print::line("");
    for finding in &diagnosis.findings {
        print::line(&format!("{:<7}  {}", finding.state.as_str(), finding.text));
        if !finding.remedy.is_empty() {
            print::line(&format!("         remedy: {}", finding.remedy));
        }
    }
    let count = |state| diagnosis.findings.iter().filter(|finding| finding.state == state).count();
    print::line("");
    print::line(&format!(
        "{} in order, {} to look at, {} broken",
        count(State::Ok),
        count(State::Warning),
        count(State::Error)
    ));
}

fn print_json(diagnosis: &Diagnosis) {
    let settings: Vec<_> = diagnosis
        .settings
        .iter()
        .map(|s| json!({ "key": s.key, "value": s.value, "origin": s.origin.to_string() }))
        .collect();
    let findings: Vec<_> = diagnosis
        .findings
        .iter()
        .map(|f| json!({ "name": f.name, "state": f.state.as_str(), "text": f.text, "remedy": f.remedy }))
        .collect();
    print::json(&json!({ "state": diagnosis.state().as_str(), "settings": settings, "findings": findings }));
}
