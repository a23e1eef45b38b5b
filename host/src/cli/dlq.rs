//! `wasmhost dlq`: dead jobs: look at them, bring them back, remove them, take them along.

mod files;

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use futures_util::FutureExt as _;
use serde_json::json;

use super::failure::{FAILED, INTERRUPTED};
use super::filter::{self, DiedArgs, FilterArgs, PageArgs};
use super::jobs::{no_job, show, text_line};
use super::{Failure, Global, Output, print};
use crate::clock::{Timestamp, parse_timestamp};
use crate::job::{JobId, JobState, visible};
use crate::store::{Filter, JobRecord, OfDead, Store};
use crate::views;

const LS_EXAMPLES: &str = "Examples:
  wasmhost dlq ls
  wasmhost dlq ls --queue mail --error timeout --since 2h
  wasmhost dlq ls --output json --limit 1000";
const REQUEUE_EXAMPLES: &str = "Examples:
  wasmhost dlq requeue AXk3f0aZ1b2C3d4E
  wasmhost dlq requeue --queue mail --error 'connection refused' --dry-run
  wasmhost dlq requeue --queue mail --error 'connection refused' --all --reset";
const DROP_EXAMPLES: &str = "Examples:
  wasmhost dlq drop AXk3f0aZ1b2C3d4E
  wasmhost dlq drop --queue mail --until '7 days' --all --dry-run
  wasmhost dlq drop --queue mail --until '7 days' --all";
const EXPORT_EXAMPLES: &str = "Examples:
  wasmhost dlq export dead.jsonl
  wasmhost dlq export --queue mail | gzip > mail.jsonl.gz";
const IMPORT_EXAMPLES: &str = "Examples:
  wasmhost dlq import dead.jsonl
  zcat mail.jsonl.gz | wasmhost dlq import -";

/// The verbs of `wasmhost dlq`.
#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List dead jobs, the newest first
    #[command(after_help = LS_EXAMPLES)]
    Ls {
        #[command(flatten)]
        among: Among,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show everything about one dead job
    Show {
        /// The job's id
        id: String,
    },
    /// Bring dead jobs back to their queue: some by their ids, or all of a queue that fit
    #[command(after_help = REQUEUE_EXAMPLES)]
    Requeue {
        #[command(flatten)]
        which: Which,
        /// Forget their failed attempts
        #[arg(long)]
        reset: bool,
        /// Run them at this time: RFC 3339, Unix seconds, or milliseconds
        #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
        run_at: Option<Timestamp>,
    },
    /// Remove dead jobs for good: some by their ids, or all of a queue that fit
    #[command(after_help = DROP_EXAMPLES)]
    Drop {
        #[command(flatten)]
        which: Which,
    },
    /// Write dead jobs to a file, one JSON line each; they stay in the DLQ
    #[command(after_help = EXPORT_EXAMPLES)]
    Export {
        /// File, which must not exist yet; - or nothing for stdout
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        among: Among,
    },
    /// Put the dead jobs of an exported file into the DLQ; a job whose id is there already is left alone
    #[command(after_help = IMPORT_EXAMPLES)]
    Import {
        /// File, or - for stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Which dead jobs are looked at.
#[derive(Debug, Args)]
pub(super) struct Among {
    /// Only this queue
    #[arg(long)]
    queue: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    times: DiedArgs,
}

impl Among {
    fn filter(self) -> Result<Filter, Failure> {
        self.filter.dead(self.queue.as_deref(), &self.times)
    }
}

/// Which dead jobs are to be changed.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Ids of jobs
    #[arg(value_name = "ID", conflicts_with_all = ["queue", "all", "job_type", "error", "since", "until"])]
    ids: Vec<String>,
    /// All dead jobs of this queue, as far as they fit; asks for --all
    #[arg(long)]
    queue: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    times: DiedArgs,
    /// Yes, all of the queue that fit
    #[arg(long, requires = "queue")]
    all: bool,
    /// Only say how many there are, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is done with dead jobs.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Requeue { run_at: Option<Timestamp>, is_reset: bool },
    Drop,
}

impl Deed {
    const fn verb(self) -> &'static str {
        match self {
            Self::Requeue { .. } => "requeue",
            Self::Drop => "drop",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Requeue { .. } => "requeued",
            Self::Drop => "dropped",
        }
    }
}

/// Runs the command.
pub(super) async fn run(global: Global, command: DlqCommand) -> Result<ExitCode, Failure> {
    match command {
        DlqCommand::Ls { among, page } => list(&global, &among.filter()?, &page).await,
        DlqCommand::Show { id } => {
            let (store, id) = (global.connect().await?, JobId::from(id.as_str()));
            let record = find(&store, &id).await?;
            match global.output {
                Output::Json => print::json(&views::job(&id, &record, true)),
                Output::Text => show(&id, &record),
            }
            Ok(ExitCode::SUCCESS)
        }
        DlqCommand::Requeue { which, reset, run_at } => {
            change(&global, which, Deed::Requeue { run_at, is_reset: reset }).await
        }
        DlqCommand::Drop { which } => change(&global, which, Deed::Drop).await,
        DlqCommand::Export { file, among } => {
            let file = file.filter(|file| file.as_os_str() != "-");
            files::export(&global, &among.filter()?, file.as_deref()).await
        }
        DlqCommand::Import { file } => files::import(&global, &file).await,
    }
}

async fn list(global: &Global, filter: &Filter, args: &PageArgs) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let page = store.find(filter, args.cursor.as_deref(), args.limit as usize).await?;
    if global.output == Output::Json {
        print::json(&views::page(&page, args.limit));
        return Ok(ExitCode::SUCCESS);
    }
    let row = |job: &JobRecord| {
        let error = job.text("last_error").filter(|error| !error.is_empty()).or_else(|| job.text("dlq_reason"));
        [
            job.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            visible(&job.queue()),
            visible(&job.job_type()),
            job.attempts().to_string(),
            job.time("dlq_failed_at_nano").map_or_else(|| "-".to_owned(), |time| time.to_string()),
            text_line(&error.unwrap_or_default(), 60),
        ]
    };
    print::table(["ID", "QUEUE", "TYPE", "ATTEMPTS", "DIED", "ERROR"], page.jobs.iter().map(row));
    filter::page_end(&store, &page, filter.queue.as_deref(), args).await?;
    Ok(ExitCode::SUCCESS)
}

/// A job that is dead; anything else is refused.
async fn find(store: &Store, id: &JobId) -> Result<JobRecord, Failure> {
    let record = store.job(id).await?.ok_or_else(|| no_job(id))?;
    if record.state() == Some(JobState::Dlq) {
        return Ok(record);
    }
    let state = visible(&record.text("status").unwrap_or_default());
    Err(Failure::new(format!("job `{id}` is not dead: it is `{state}`"))
        .hint(format!("`wasmhost jobs show {id}` shows it; `wasmhost dlq ls` lists the dead ones")))
}

async fn change(global: &Global, which: Which, deed: Deed) -> Result<ExitCode, Failure> {
    let verb = deed.verb();
    if !which.ids.is_empty() {
        return change_named(global, &which, deed).await;
    }
    let Some(queue) = &which.queue else {
        let what = if which.filter.is_empty() { "no job was named" } else { "no queue was named" };
        return Err(Failure::usage(what).hint(format!(
            "name ids, `wasmhost dlq {verb} ID...`, or a queue, `wasmhost dlq {verb} --queue QUEUE --all`"
        )));
    };
    if !which.all && !which.dry_run {
        return Err(Failure::usage(format!(
            "to {verb} all dead jobs of queue `{}` that fit takes --all",
            visible(queue)
        ))
        .hint("--dry-run says how many there are, and changes nothing"));
    }
    let filter = which.filter.dead(Some(queue), &which.times)?;
    let store = global.connect().await?;
    change_all(global.output, &store, queue, filter, deed, which.dry_run).await
}

/// Changes the jobs with the ids that were named; the good ones also when others are not.
async fn change_named(global: &Global, which: &Which, deed: Deed) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let mut code = ExitCode::SUCCESS;
    for id in &which.ids {
        let id = JobId::from(id.as_str());
        match change_one(&store, &id, deed, which.dry_run).await {
            Ok(()) if global.output == Output::Json => {
                print::json_line(&json!({ "id": id.to_string(), "did": deed.done(), "is_dry_run": which.dry_run }));
            }
            Ok(()) if which.dry_run => print::line(&format!("{id} would be {} (dry run)", deed.done())),
            Ok(()) => print::line(&format!("{id} {}", deed.done())),
            // The others are told of one by one; of a Redis that is away, once.
            Err(failure) if failure.code() == FAILED && which.ids.len() > 1 => {
                code = failure.print(global.output);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(code)
}

async fn change_one(store: &Store, id: &JobId, deed: Deed, is_dry_run: bool) -> Result<(), Failure> {
    let queue = find(store, id).await?.queue();
    if is_dry_run {
        return Ok(());
    }
    let answer = match deed {
        Deed::Requeue { run_at, is_reset } => store.requeue(&queue, id, run_at, is_reset).await?,
        Deed::Drop => store.drop_dead(&queue, id).await?,
    };
    if answer == OfDead::Applied {
        Ok(())
    } else {
        Err(Failure::new(format!("job `{id}` was changed just now")).hint("try again"))
    }
}

/// Changes all dead jobs of a queue that fit, batch by batch. An interrupt ends it between two batches.
async fn change_all(
    output: Output,
    store: &Store,
    queue: &str,
    filter: Filter,
    deed: Deed,
    is_dry_run: bool,
) -> Result<ExitCode, Failure> {
    let mut walk = store.walk_dead(queue, filter).await?;
    let (mut n_done, mut is_interrupted) = (0, false);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let outcome: Result<(), Failure> = async {
        loop {
            if interrupt.as_mut().now_or_never().is_some() {
                is_interrupted = true;
                return Ok(());
            }
            let Some(ids) = walk.next().await? else { return Ok(()) };
            if ids.is_empty() {
                continue;
            }
            let n = if is_dry_run {
                ids.len()
            } else {
                let answers = match deed {
                    Deed::Requeue { run_at, is_reset } => store.requeue_found(queue, &ids, run_at, is_reset).await?,
                    Deed::Drop => store.drop_found(queue, &ids).await?,
                };
                answers.iter().filter(|answer| **answer == OfDead::Applied).count()
            };
            n_done += n;
            if !is_dry_run {
                walk.removed(n);
            }
        }
    }
    .await;
    if n_done == 0 && outcome.is_ok() && !is_interrupted {
        filter::known(store, queue).await?;
    }
    say(output, queue, deed, n_done, is_dry_run, is_interrupted);
    outcome?;
    Ok(if is_interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Says how many there were, also when the command ended early.
fn say(output: Output, queue: &str, deed: Deed, n: usize, is_dry_run: bool, is_interrupted: bool) {
    let done = deed.done();
    if output == Output::Json {
        let shape = json!({ "queue": queue, done: n, "is_dry_run": is_dry_run, "is_interrupted": is_interrupted });
        return print::json(&shape);
    }
    let jobs = if n == 1 { "dead job" } else { "dead jobs" };
    print::line(&if is_dry_run {
        format!("{n} {jobs} of queue {queue} would be {done} (dry run: nothing was changed)")
    } else {
        format!("{n} {jobs} of queue {queue} {done}")
    });
    if is_interrupted {
        print::note("interrupted: the others are still dead; the same command goes on with them");
    }
}
