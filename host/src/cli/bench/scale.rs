//! Queues with a million rows: what lies there must neither slow a drain down nor make a script long.
//!
//! A large and a small queue of each sort are drained in turn, and who begins alternates. Slow scripts are counted by
//! the server meanwhile. Its count is by the clock on the wall, so a busy machine makes scripts longer than they are:
//! how long the server waited for a core, and how much of the cores other machines had, is told beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::drain::{Bench, Drain, Handled, TYPE, median, native, noop};
use super::machine::{Busy, stolen, waited_for_core};
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
    /// By script: how many calls took longer than 5 ms.
    pub(super) scripts_over_5_ms_by_script: BTreeMap<String, u64>,
    pub(super) scripts_over_half_a_ms: u64,
    /// All calls while scripts were counted.
    pub(super) scripts: u64,
    /// Only told when it is above half a millisecond, else 0; so are the next two.
    pub(super) script_ms_p50: f64,
    pub(super) script_ms_p99: f64,
    pub(super) script_ms_p999: f64,
    /// How long the server was ready to run and got no core while scripts were counted: it is in their times.
    pub(super) redis_waited_ms: f64,
    /// What other machines had of this machine's cores meanwhile.
    pub(super) stolen_ms: f64,
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
    pub(super) redis_us_ratio: f64,
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
            redis_us_ratio: median(pairs.iter().map(|(large, small)| large.redis_us / small.redis_us)),
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

        self.warm_up(jobs, native).await?;
        self.store.watch_scripts(SLOW_US).await?;
        let pid = self.store.server_pid().await?;
        let waited = || pid.map(waited_for_core).unwrap_or_default();
        let (calls_before, waited_before, stolen_before) = (self.store.script_calls().await?, waited(), stolen());
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
        let (waited, stolen) = (waited() - waited_before, stolen() - stolen_before);
        let scripts = self.store.script_calls().await? - calls_before;
        let slow = self.store.slow_scripts().await?;
        let (mut longest_script_ms, mut over_5_ms) = (BTreeMap::new(), BTreeMap::new());
        for (name, took) in &slow {
            let longest: &mut f64 = longest_script_ms.entry(name.clone()).or_default();
            *longest = longest.max(took.as_secs_f64() * 1e3);
            *over_5_ms.entry(name.clone()).or_default() += u64::from(*took > Duration::from_millis(5));
        }
        let mut slowest_first: Vec<f64> = slow.iter().map(|(_, took)| took.as_secs_f64() * 1e3).collect();
        slowest_first.sort_by(|a, b| b.total_cmp(a));
        // The place among the slow ones that is so far from the end of all.
        let at = |one_in: u64| {
            let place = usize::try_from(scripts / one_in).unwrap_or(usize::MAX);
            slowest_first.get(place).copied().unwrap_or(0.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "sizes in bytes need no more than 52 bits")]
        let (memory, n_rows) = (memory as f64, (3 * rows + 2 * SMALL) as f64);
        Ok(ScaleFigures {
            rows,
            small_rows: SMALL,
            due: Case::of(&due),
            scheduled: Case::of(&scheduled),
            dead: Case::of(&dead),
            longest_script_ms,
            scripts_over_5_ms: over_5_ms.values().sum(),
            scripts_over_5_ms_by_script: over_5_ms,
            scripts_over_half_a_ms: slow.len() as u64,
            scripts,
            script_ms_p50: at(2),
            script_ms_p99: at(100),
            script_ms_p999: at(1000),
            redis_waited_ms: waited.as_secs_f64() * 1e3,
            stolen_ms: stolen.as_secs_f64() * 1e3,
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
        for pair in 0..n_pairs {
            let early = if pair % 2 == 1 { Some(self.drain_some("due").await?) } else { None };
            let due = Instant::now() + SMALL_DUE_AFTER;
            let run_at = Timestamp::now().after(SMALL_DUE_AFTER);
            self.fill(SMALL, |_| at(noop("due-small"), run_at)).await?;
            tokio::time::sleep_until((due + Duration::from_millis(5)).into()).await;
            let small = self.drain_some("due-small").await?;
            let large = if let Some(large) = early { large } else { self.drain_some("due").await? };
            pairs.push((large, small));
        }
        Ok(pairs)
    }

    /// Drains ready jobs of the large and of the small queue of a sort, in turn.
    async fn pairs(&self, queue: &str, jobs: u64, rounds: u32) -> Result<Vec<(Drain, Drain)>, Failure> {
        let small = &format!("{queue}-small");
        let mut pairs = Vec::new();
        for round in 0..rounds {
            pairs.push(if round % 2 == 0 {
                let of_small = self.fill_and_drain(small, jobs).await?;
                (self.fill_and_drain(queue, jobs).await?, of_small)
            } else {
                (self.fill_and_drain(queue, jobs).await?, self.fill_and_drain(small, jobs).await?)
            });
        }
        Ok(pairs)
    }

    async fn fill_and_drain(&self, queue: &str, jobs: u64) -> Result<Drain, Failure> {
        self.fill(jobs, |_| noop(queue)).await?;
        self.drain_all(queue, jobs, native).await
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
