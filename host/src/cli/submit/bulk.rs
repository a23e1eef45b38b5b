//! `wasmhost submit --lines`: many jobs, one JSON line each.
//!
//! Invariant: jobs are sent in the order of their lines, in batches of which each is enqueued whole or not at all; every
//! way to end says how far it came.

use std::fmt::Write as _;
use std::future::pending;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::cli::failure::{INTERRUPTED, USAGE};
use crate::cli::lines::{Lines, refused};
use crate::cli::{Failure, Global, Output, print};
use crate::clock::format_duration;
use crate::job::NewJob;
use crate::job::submission::read_job;
use crate::store::{ENQUEUE_MAX, Replicas, Store};

/// Longest line in bytes: the largest payload in base64, or as text with some escapes.
pub(in crate::cli) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A batch with this many bytes of payload is sent, however few jobs it has.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a job waits for others to be sent with it.
const LINGER: Duration = Duration::from_millis(50);
/// Wrong lines that a dry run shows.
const SHOWN_MAX: u64 = 20;

/// Enqueues the jobs of a file; `template` is what a line that says nothing is like.
pub(super) async fn run(
    global: &Global,
    file: &Path,
    replicas: Option<Replicas>,
    template: impl Fn() -> NewJob,
) -> Result<ExitCode, Failure> {
    let mut lines = Lines::open(file, LINE_BYTES_MAX).await?;
    let mut sender = Sender::new(global.connect().await?, global.output, replicas);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        let linger = async {
            match sender.sent_at() {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let step = tokio::select! {
            biased;
            _ = &mut interrupt => Step::Interrupted,
            () = linger => Step::Send,
            found = lines.advance() => match found {
                Ok(true) => match read_job(lines.text(), &template()) {
                    Ok(job) => Step::Job(Box::new(job)),
                    Err(why) => Step::Refused(refused(lines.number(), &why)),
                },
                Ok(false) => Step::End,
                Err(failure) => Step::Refused(failure),
            },
        };
        match step {
            Step::Send => sender.send().await?,
            Step::Job(job) => sender.add(lines.number(), *job).await?,
            Step::Refused(failure) => {
                sender.send().await?;
                let hint = sender.progress(Some(lines.number()), "mend the line and go on there");
                return Err(failure.hint(hint));
            }
            Step::Interrupted => {
                print::note(&format!("interrupted: {}", sender.progress(sender.first_unsent(), "go on there")));
                return Ok(ExitCode::from(INTERRUPTED));
            }
            Step::End => {
                sender.send().await?;
                print::note(&sender.counts());
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// What is to be done next.
enum Step {
    Job(Box<NewJob>),
    Send,
    Refused(Failure),
    Interrupted,
    End,
}

/// Reads all lines and says which are wrong; nothing is sent.
pub(super) async fn check(global: &Global, file: &Path, template: &NewJob) -> Result<ExitCode, Failure> {
    let mut lines = Lines::open(file, LINE_BYTES_MAX).await?;
    let (mut n_good, mut n_bad) = (0_u64, 0_u64);
    while lines.advance().await? {
        match read_job(lines.text(), template) {
            Ok(_) => n_good += 1,
            Err(why) => {
                n_bad += 1;
                if n_bad <= SHOWN_MAX {
                    print::note(&format!("line {}: {why}", lines.number()));
                } else if n_bad == SHOWN_MAX + 1 {
                    print::note("further ones are only counted");
                }
            }
        }
    }
    match global.output {
        Output::Json => print::json_line(&json!({ "good": n_good, "bad": n_bad, "is_dry_run": true })),
        Output::Text => print::line(&format!("good lines {n_good}, bad lines {n_bad} (dry run: nothing was sent)")),
    }
    Ok(if n_bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(USAGE) })
}

/// Sends jobs in batches, prints their ids, and knows how far it came.
struct Sender {
    store: Store,
    output: Output,
    /// How many replicas must have a batch before the next one is sent.
    replicas: Option<Replicas>,
    jobs: Vec<NewJob>,
    /// The line of each job.
    numbers: Vec<u64>,
    n_bytes: usize,
    /// When the batch is sent at the latest.
    sent_at: Option<Instant>,
    n_new: u64,
    n_known: u64,
}

impl Sender {
    const fn new(store: Store, output: Output, replicas: Option<Replicas>) -> Self {
        let (n_new, n_known) = (0, 0);
        Self {
            store,
            output,
            replicas,
            jobs: Vec::new(),
            numbers: Vec::new(),
            n_bytes: 0,
            sent_at: None,
            n_new,
            n_known,
        }
    }

    const fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    fn first_unsent(&self) -> Option<u64> {
        self.numbers.first().copied()
    }

    async fn add(&mut self, number: u64, job: NewJob) -> Result<(), Failure> {
        self.sent_at.get_or_insert_with(|| Instant::now() + LINGER);
        self.n_bytes += job.payload.len();
        self.jobs.push(job);
        self.numbers.push(number);
        if self.jobs.len() >= ENQUEUE_MAX || self.n_bytes >= BATCH_BYTES_MAX { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), Failure> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let (answers, n_replicas) = match self.store.enqueue_with(&self.jobs, self.replicas).await {
            Ok(answers) => answers,
            Err(error) => return Err(self.failed(error)),
        };
        let mut text = String::new();
        for ((number, job), answer) in self.numbers.iter().zip(&self.jobs).zip(&answers) {
            // Writing to a text cannot fail.
            let _ = match self.output {
                Output::Text => writeln!(text, "{}", answer.id),
                Output::Json => writeln!(
                    text,
                    "{}",
                    json!({ "line": number, "id": answer.id.to_string(), "queue": job.queue, "type": job.job_type, "is_new": answer.is_new })
                ),
            };
            if answer.is_new {
                self.n_new += 1;
            } else {
                self.n_known += 1;
            }
        }
        print::bytes(text.as_bytes());
        let (first, last) = self.ends();
        self.jobs.clear();
        self.numbers.clear();
        (self.n_bytes, self.sent_at) = (0, None);
        match self.replicas.filter(|replicas| n_replicas < replicas.count) {
            None => Ok(()),
            Some(Replicas { count, timeout }) => Err(Failure::new(format!(
                "the jobs of lines {first} to {last} are enqueued, but not replicated: {n_replicas} of {count} replicas had \
                 them after {}",
                format_duration(timeout)
            ))
            .hint(self.progress(Some(last + 1), "when there are enough replicas go on there"))),
        }
    }

    /// The first and the last line of the batch.
    fn ends(&self) -> (u64, u64) {
        let end = |number: Option<&u64>| number.copied().unwrap_or_default();
        (end(self.numbers.first()), end(self.numbers.last()))
    }

    /// The failure of a batch, with what is known of its lines.
    fn failed(&self, error: crate::store::Error) -> Failure {
        let is_unsure = matches!(error, crate::store::Error::Unreachable { .. } | crate::store::Error::TimedOut { .. });
        let way_out =
            error.hint().map(|hint| format!("{hint}; then go on there")).unwrap_or_else(|| "go on there".to_owned());
        let (first, last) = self.ends();
        let mut hint = self.progress(Some(first), &way_out);
        if is_unsure {
            let _ = write!(
                hint,
                "; lines {first} to {last} may be in already, which does no harm where each has an `idempotency_key` or an `id`"
            );
        }
        Failure::from(error).hint(hint)
    }

    /// How far it came, and how to go on at the first line that is not in.
    fn progress(&self, next: Option<u64>, way_out: &str) -> String {
        let counts = self.counts();
        match next {
            Some(next) => format!(
                "{counts}, nothing from line {next} on; {way_out}: tail -n +{next} FILE | wasmhost submit --lines -"
            ),
            None => counts,
        }
    }

    fn counts(&self) -> String {
        let jobs = if self.n_new == 1 { "job" } else { "jobs" };
        match self.n_known {
            0 => format!("{} {jobs} enqueued", self.n_new),
            n_known => format!("{} {jobs} enqueued, {n_known} there already", self.n_new),
        }
    }
}
