//! What must hold after every campaign, whatever happened in it.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use wasmhost::job::JobState;

use super::plan::{Mode, QUEUE, Work};
use super::report::{Row, percentile};
use super::world::{Accepted, World, total};
use crate::support::redis::assert_consistent;

/// What one campaign allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Executions more than the jobs asked for.
    pub(super) duplicates: u64,
    /// Longest recovery of ninety-nine jobs in a hundred.
    pub(super) recovery: Duration,
}

impl Bounds {
    /// No duplicates, and the recovery that is promised.
    pub(super) fn of(world: &World) -> Self {
        Self { duplicates: 0, recovery: world.lease + Duration::from_secs(5) }
    }
}

/// How often jobs were executed, and how long those of silent hosts waited.
#[derive(Default)]
struct Seen {
    starts: Vec<(i64, String)>,
    ends: Vec<i64>,
}

/// A job's row, as far as it matters here.
struct JobRow {
    status: String,
    deliveries: u32,
    result: Vec<u8>,
}

impl World {
    /// Stops the hosts and checks every invariant.
    ///
    /// # Panics
    /// When one does not hold, with all that do not.
    pub(super) async fn finish(mut self, bounds: Bounds) -> Row {
        self.fleet.stop();
        let mut wrong: Vec<String> = self.fleet.wrong().to_vec();
        let mut raw = self.redis.raw().await;
        let rows = rows(&mut raw, &self.prefix, &self.accepted).await;
        let mut row = Row { campaign: self.name, jobs: self.accepted.len(), faults: self.n_faults, ..Row::default() };
        match self.work {
            Work::Torture => self.check_sink(&mut row, &mut wrong),
            Work::Echo => self.check_results(&rows, &mut row, &mut wrong),
        }
        self.check_ends(&rows, &mut wrong);
        self.check_structures(&mut raw, &mut wrong).await;
        if row.duplicates > bounds.duplicates {
            wrong.push(format!("{} duplicate executions, at most {} are allowed", row.duplicates, bounds.duplicates));
        }
        if let Some(slow) = percentile(&row.recovery, 99).filter(|slow| *slow > bounds.recovery) {
            wrong.push(format!("recovery p99 is {slow:?}, at most {:?} is allowed", bounds.recovery));
        }
        let shown = wrong.iter().take(30).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{}: {} invariants do not hold\n{shown}", self.name, wrong.len());
        assert_consistent(&mut raw, &self.prefix).await;
        row.took = self.started.elapsed();
        row
    }

    /// Every job is where it must be, and every end was accepted once.
    fn check_ends(&self, rows: &[Option<JobRow>], wrong: &mut Vec<String>) {
        for (Accepted { plan, id }, row) in self.accepted.iter().zip(rows) {
            let expected = plan.ends_as().as_str();
            match row {
                None => wrong.push(format!("job `{id}` ({plan:?}) is lost")),
                Some(row) if row.status != expected => {
                    wrong.push(format!("job `{id}` ({plan:?}) is `{}`, must be `{expected}`", row.status));
                }
                Some(_) => {}
            }
        }
    }

    /// Nothing waits, ids are listed once, and the totals say that each end was written once.
    async fn check_structures(&self, raw: &mut MultiplexedConnection, wrong: &mut Vec<String>) {
        let expected =
            |state: JobState| self.accepted.iter().filter(|accepted| accepted.plan.ends_as() == state).count() as u64;
        // The first call may find a connection of before the last restart.
        let queue = match self.queue().await {
            Some(queue) => queue,
            None => self.queue().await.unwrap_or_default(),
        };
        for (structure, length) in
            [("ready", queue.ready), ("scheduled", queue.scheduled), ("inflight", queue.inflight)]
        {
            if length > 0 {
                wrong.push(format!("`{structure}` has {length} entries after the drain"));
            }
        }
        let (done, dead) = (expected(JobState::Done), expected(JobState::Dlq));
        for (name, found, expected) in [
            ("accepted acks", total(&queue, "done"), done),
            ("accepted deaths", total(&queue, "dead"), dead),
            ("records set aside", total(&queue, "set_aside"), 0),
            ("entries in the list of done jobs", queue.done, done),
            ("entries in the DLQ", queue.dlq, dead),
        ] {
            if found != expected {
                wrong.push(format!("{found} {name}, must be {expected}"));
            }
        }
        for list in ["done", "dlq"] {
            let key = format!("{}:queue:{QUEUE}:{list}", self.prefix);
            let mut ids: Vec<Vec<u8>> =
                redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query_async(raw).await.expect("a list");
            let n_ids = ids.len();
            ids.sort_unstable();
            ids.dedup();
            if ids.len() < n_ids {
                wrong.push(format!("{} ids stand twice in `{list}`", n_ids - ids.len()));
            }
        }
    }

    /// What the sink saw: effects, executions, starts before their time, recovery.
    fn check_sink(&self, row: &mut Row, wrong: &mut Vec<String>) {
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        for event in self.sink.events() {
            let job = seen.entry(event.job).or_default();
            if event.is_start {
                job.starts.push((event.at, event.node));
            } else {
                job.ends.push(event.at);
            }
        }
        let nothing = Seen::default();
        for Accepted { plan, id } in &self.accepted {
            let job = seen.get(&plan.name).unwrap_or(&nothing);
            let n_starts = u32::try_from(job.starts.len()).unwrap_or(u32::MAX);
            if plan.ends_as() == JobState::Done && job.ends.is_empty() {
                wrong.push(format!("job `{id}` ({plan:?}) had no effect, with {n_starts} starts"));
            } else if n_starts == 0 {
                wrong.push(format!("job `{id}` ({plan:?}) never started"));
            }
            row.duplicates += u64::from(n_starts.saturating_sub(plan.executions()));
            if let Some(run_at) = plan.run_at
                && let Some((early, _)) = job.starts.iter().find(|(at, _)| *at < run_at.nanos())
            {
                wrong.push(format!("job `{id}` started {} ns before its time", run_at.nanos() - early));
            }
            if plan.mode == Mode::Ok {
                row.recovery.extend(job.starts.windows(2).filter_map(|pair| self.recovery(job, &pair[0], &pair[1])));
            }
        }
        for Accepted { plan, .. } in &self.accepted {
            seen.remove(&plan.name);
        }
        wrong.extend(seen.keys().map(|job| format!("job `{job}` had effects, and nobody enqueued it")));
    }

    /// How long a job waited for its second start after the host of the first one fell silent.
    fn recovery(&self, job: &Seen, first: &(i64, String), second: &(i64, String)) -> Option<Duration> {
        let is_between = |at: &i64| first.0 < *at && *at < second.0;
        let silence = *self.fleet.silences_of(&first.1).iter().rfind(|at| is_between(at))?;
        let had_ended = job.ends.iter().any(|end| is_between(end) && *end < silence);
        (!had_ended).then(|| Duration::from_nanos(u64::try_from(second.0 - silence).unwrap_or(0)))
    }

    /// What the rows say when there is no sink: the result is the effect, a hand-out more is a duplicate.
    fn check_results(&self, rows: &[Option<JobRow>], row: &mut Row, wrong: &mut Vec<String>) {
        for (Accepted { plan, id }, found) in self.accepted.iter().zip(rows) {
            let Some(found) = found else { continue };
            if found.result != plan.payload(self.work, "").as_bytes() {
                wrong.push(format!("job `{id}` is done without its effect"));
            }
            row.duplicates += u64::from(found.deliveries.saturating_sub(plan.executions()));
        }
    }
}

/// Status, deliveries and result, where the row has them.
type Fields = (Option<String>, Option<u32>, Option<Vec<u8>>);

/// The rows of all accepted jobs, in their order.
async fn rows(raw: &mut MultiplexedConnection, prefix: &str, accepted: &[Accepted]) -> Vec<Option<JobRow>> {
    let mut rows = Vec::with_capacity(accepted.len());
    for piece in accepted.chunks(1000) {
        let mut pipeline = redis::pipe();
        for Accepted { id, .. } in piece {
            let key = [prefix.as_bytes(), b":job:", id.as_bytes()].concat();
            pipeline.cmd("HMGET").arg(key).arg(&["status", "deliveries", "result"]);
        }
        let found: Vec<Fields> = pipeline.query_async(raw).await.expect("the rows");
        rows.extend(found.into_iter().map(|(status, deliveries, result)| {
            let (deliveries, result) = (deliveries.unwrap_or(0), result.unwrap_or_default());
            status.map(|status| JobRow { status, deliveries, result })
        }));
    }
    rows
}
