//! Queues with a million rows: what lies there must neither slow a drain down nor make a script long.
//!
//! A large and a small queue of each sort are drained in turn. Slow scripts are counted by the server meanwhile; its
//! count is by the clock on the wall, so a busy machine makes scripts longer than they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::drain::{Bench, Drain, Handled, TYPE, median, native, noop};
use super::machine::Busy;
use crate::cli::{Failure, print};
use crate::clock::Timestamp;
use crate::job::{JobState, NewJob};
use crate::outcome::Outcome;

/// Where the figures go, from the workspace's root.
pub(super) const FIGURES: &str = "target/bench/scale.json";
/// Rows of the small queues.
const SMALL: u64 = 10_000;
/// How long after the first enqueue jobs of the large queue become due, per million of them.
const DUE_AFTER: Duration = Duration::from_secs(60);
/// The same for a small queue.
const SMALL_DUE_AFTER: Duration = Duration::from_millis(800);
/// Jobs that are not due meanwhile.
const LATER: Duration = Duration::from_secs(86_400);
/// Only scripts above this are told of.
const SLOW_US: u64 = 500;
/// A page, as `wasmhost jobs ls` asks for it.
const PAGE: usize = 50;

/// What is written to [`FIGURES`]. Units are in the names.
#[derive(Debug, Serialize)]
pub(super) struct ScaleFigures {
    pub(super) rows: u64,
    pub(super) small_rows: u64,
    /// Drains of jobs that are all due.
    pub(super) due: Case,
    /// Drains of ready jobs beside scheduled ones.
    pub(super) scheduled: Case,
    /// Drains of ready jobs beside dead ones.
    pub(super) dead: Case,
    /// By script: how long the longest call took, where one was above half a millisecond.
    pub(super) longest_script_ms: BTreeMap<String, f64>,
    pub(super) scripts_over_5_ms: u64,
    pub(super) scripts_over_half_a_ms: u64,
    /// By structure: the first page of it at `rows` rows.
    pub(super) first_page_ms: BTreeMap<String, f64>,
    pub(super) redis_memory_mb: f64,
    pub(super) bytes_per_row: f64,
    pub(super) rounds: u32,
    pub(super) others_cores: f64,
}

/// A large queue beside a small one.
#[derive(Debug, Serialize)]
pub(super) struct Case {
    pub(super) rate_ratio: f64,
    pub(super) jobs_per_s: f64,
    pub(super) small_jobs_per_s: f64,
    pub(super) redis_us_per_job: f64,
    pub(super) small_redis_us_per_job: f64,
}

impl Case {
    /// Pairs of a large and a small drain.
    fn of(pairs: &[(Drain, Drain)]) -> Self {
        Self {
            rate_ratio: median(pairs.iter().map(|(large, small)| large.jobs_per_s / small.jobs_per_s)),
            jobs_per_s: median(pairs.iter().map(|(large, _)| large.jobs_per_s)),
            small_jobs_per_s: median(pairs.iter().map(|(_, small)| small.jobs_per_s)),
            redis_us_per_job: median(pairs.iter().map(|(large, _)| large.redis_us)),
            small_redis_us_per_job: median(pairs.iter().map(|(_, small)| small.redis_us)),
        }
    }
}

impl Bench {
    pub(super) async fn measure_scale(&self, rows: u64, jobs: u64, rounds: u32) -> Result<ScaleFigures, Failure> {
        let (busy, redis_before) = (Busy::start(), self.store.server_cpu().await?);
        let memory_before = self.store.used_memory().await?;
        print::note(&format!("writing 3 x {rows} rows"));
        #[expect(clippy::cast_precision_loss, reason = "some seconds")]
        let due_after = DUE_AFTER.mul_f64((rows as f64 / 1e6).max(0.1));
        let due = Timestamp::now().after(due_after);
        let due_at = Instant::now() + due_after;
        self.fill(rows, |_| at(noop("due"), due)).await?;
        if Instant::now() >= due_at {
            return Err(Failure::new("writing the jobs took longer than they were to wait").hint("try fewer --rows"));
        }
        let later = Timestamp::now().after(LATER);
        for (queue, n) in [("scheduled", rows), ("scheduled-small", SMALL)] {
            self.fill(n, |_| at(noop(queue), later)).await?;
        }
        for (queue, n) in [("dead", rows), ("dead-small", SMALL)] {
            self.store.write_dead(queue, TYPE, n).await?;
        }
        let memory = self.store.used_memory().await?.saturating_sub(memory_before);
        tokio::time::sleep_until((due_at + Duration::from_millis(5)).into()).await;

        self.store.watch_scripts(SLOW_US).await?;
        let first_page_ms = self.first_pages().await?;
        print::note(&format!("draining queues of {rows} and of {SMALL} rows in turn, {rounds} rounds"));
        // Each pair takes a good `SMALL` of the rows away.
        let due = self.due_pairs((rows / (2 * SMALL)).min(u64::from(3 * rounds))).await?;
        let scheduled = self.pairs("scheduled", jobs, rounds).await?;
        let dead = self.pairs("dead", jobs, rounds).await?;
        for queue in ["due", "scheduled", "dead"] {
            for _ in 0..rounds {
                self.store.sweep(&[queue.to_owned()]).await?;
            }
        }
        let slow = self.store.slow_scripts().await?;
        let mut longest_script_ms = BTreeMap::new();
        for (name, took) in &slow {
            let longest: &mut f64 = longest_script_ms.entry(name.clone()).or_default();
            *longest = longest.max(took.as_secs_f64() * 1e3);
        }
        let over_5_ms = slow.iter().filter(|(_, took)| *took > Duration::from_millis(5)).count();
        #[expect(clippy::cast_precision_loss, reason = "sizes in bytes need no more than 52 bits")]
        let (memory, n_rows) = (memory as f64, (3 * rows + 2 * SMALL) as f64);
        Ok(ScaleFigures {
            rows,
            small_rows: SMALL,
            due: Case::of(&due),
            scheduled: Case::of(&scheduled),
            dead: Case::of(&dead),
            longest_script_ms,
            scripts_over_5_ms: over_5_ms as u64,
            scripts_over_half_a_ms: slow.len() as u64,
            first_page_ms,
            redis_memory_mb: memory / 1e6,
            bytes_per_row: memory / n_rows,
            rounds,
            others_cores: busy.others_cores(self.store.server_cpu().await?.saturating_sub(redis_before)),
        })
    }

    /// Drains [`SMALL`] due jobs, of the large queue and of one that has no more, in turn.
    async fn due_pairs(&self, n_pairs: u64) -> Result<Vec<(Drain, Drain)>, Failure> {
        let mut pairs = Vec::new();
        for _ in 0..n_pairs {
            let due = Instant::now() + SMALL_DUE_AFTER;
            let run_at = Timestamp::now().after(SMALL_DUE_AFTER);
            self.fill(SMALL, |_| at(noop("due-small"), run_at)).await?;
            tokio::time::sleep_until((due + Duration::from_millis(5)).into()).await;
            let small = self.drain_some("due-small").await?;
            pairs.push((self.drain_some("due").await?, small));
        }
        Ok(pairs)
    }

    /// Drains ready jobs of the large and of the small queue of a sort, in turn.
    async fn pairs(&self, queue: &str, jobs: u64, rounds: u32) -> Result<Vec<(Drain, Drain)>, Failure> {
        let small = format!("{queue}-small");
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            self.fill(jobs, |_| noop(&small)).await?;
            let small = self.drain_all(&small, jobs, native).await?;
            self.fill(jobs, |_| noop(queue)).await?;
            pairs.push((self.drain_all(queue, jobs, native).await?, small));
        }
        Ok(pairs)
    }

    /// Works until [`SMALL`] jobs have begun.
    async fn drain_some(&self, queue: &str) -> Result<Drain, Failure> {
        let handled = Arc::new(Handled::new(SMALL));
        let counter = Arc::clone(&handled);
        let executor = native(Box::new(move |_| {
            counter.count();
            Outcome::Done { result: Vec::new() }
        }));
        Ok(self.work(queue, &handled, executor).await?.0)
    }

    /// How long the first page of each structure takes.
    async fn first_pages(&self) -> Result<BTreeMap<String, f64>, Failure> {
        let mut pages: BTreeMap<String, f64> = BTreeMap::new();
        for (what, queue, state) in [
            ("due", "due", Some(JobState::Scheduled)),
            ("scheduled", "scheduled", Some(JobState::Scheduled)),
            ("dead", "dead", Some(JobState::Dlq)),
            ("any state", "due", None),
        ] {
            let mut took = Vec::new();
            for _ in 0..5 {
                let started = Instant::now();
                let page = self.store.jobs(Some(queue), state, None, PAGE).await?;
                took.push(started.elapsed().as_secs_f64() * 1e3);
                if page.jobs.len() != PAGE {
                    return Err(Failure::new(format!("a page of queue {queue} has {} jobs", page.jobs.len())));
                }
            }
            pages.insert(what.to_owned(), median(took));
        }
        let mut took = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            self.store.queues().await?;
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
        pages.insert("queues".to_owned(), median(took));
        Ok(pages)
    }
}

fn at(job: NewJob, run_at: Timestamp) -> NewJob {
    NewJob { run_at: Some(run_at), ..job }
}
