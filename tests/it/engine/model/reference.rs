//! What the engine should do, written down a second time: plain collections in memory, one method per transition.
//!
//! Invariant: nothing here calls the store's code; only the types of its answers are shared, so that they can be
//! compared as a whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wasmhost::clock::Timestamp;
use wasmhost::job::{JobId, NewJob, Reserved, StoreId};
use wasmhost::retry::RetryWish;
use wasmhost::store::{
    End, Enqueued, Lease, Lost, OfDead, Reservation, Reserve, SetAside, Settle, Settled, Swept, Turn,
};

const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// Executions of a job that names no number, hand-outs at least, days in the DLQ: as `docs/guarantees.md` says.
const MAX_ATTEMPTS: u32 = 5;
const DELIVERIES_MIN: u32 = 3;
const DLQ_SECONDS: i64 = 30 * 86_400;
/// Dead rows that one sweep drops from a queue.
const PRUNE_MAX: u32 = 50;

/// A job's hash. Empty texts and zeros mean the same as absent fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    job_type: String,
    payload: String,
    pub(super) queue: String,
    pub(super) status: &'static str,
    attempts: u32,
    max_attempts: u32,
    deliveries: u32,
    node: String,
    token: String,
    lease_end_ms: i64,
    run_at: i64,
    created_at: i64,
    idempotency_key: String,
    last_error: String,
    error_kind: &'static str,
    failed_at: i64,
    done_token: String,
    finished_at: i64,
    result: String,
    dlq_reason: String,
    dlq_failed_at: i64,
}

impl Row {
    /// The hash as Redis should have it, without empty texts and zeros.
    pub(super) fn fields(&self) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::from([
            ("type", self.job_type.clone()),
            ("payload", self.payload.clone()),
            ("queue", self.queue.clone()),
            ("status", self.status.to_owned()),
            ("attempts", self.attempts.to_string()),
            ("max_attempts", self.max_attempts.to_string()),
            ("deliveries", self.deliveries.to_string()),
            ("node", self.node.clone()),
            ("lease_token", self.token.clone()),
            ("lease_expires_at_nano", (self.lease_end_ms * MILLI).to_string()),
            ("run_at_nano", self.run_at.to_string()),
            ("created_at_nano", self.created_at.to_string()),
            ("idempotency_key", self.idempotency_key.clone()),
            ("last_error", self.last_error.clone()),
            ("error_kind", self.error_kind.to_owned()),
            ("failed_at_nano", self.failed_at.to_string()),
            ("done_token", self.done_token.clone()),
            ("finished_at_nano", self.finished_at.to_string()),
            ("result", self.result.clone()),
            ("dlq_reason", self.dlq_reason.clone()),
            ("dlq_failed_at_nano", self.dlq_failed_at.to_string()),
        ]);
        fields.retain(|_, value| is_given(value));
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Takes the lease away.
    fn free(&mut self, status: &'static str) {
        self.status = status;
        self.token.clear();
        self.lease_end_ms = 0;
        self.run_at = 0;
    }
}

/// Whether a field's value says something.
pub(super) fn is_given(value: &str) -> bool {
    !matches!(value, "" | "0")
}

/// The structures of a queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) ready: VecDeque<String>,
    /// By run time in nanoseconds, then id.
    pub(super) scheduled: BTreeSet<(i64, String)>,
    /// By the end of the lease in milliseconds, then id.
    pub(super) inflight: BTreeSet<(i64, String)>,
    pub(super) done: Vec<String>,
    pub(super) dlq: VecDeque<String>,
    pub(super) counters: BTreeMap<&'static str, u64>,
}

impl Queue {
    fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }

    /// Puts jobs before all others, the first one first.
    fn put_at_head(&mut self, ids: Vec<String>) {
        ids.into_iter().rev().for_each(|id| self.ready.push_front(id));
    }
}

/// What a pass over due jobs did.
#[derive(Default)]
struct Due {
    reclaimed: u32,
    promoted: u32,
    dead: Vec<SetAside>,
}

/// All queues and jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Reference {
    /// The time in nanoseconds.
    pub(super) now: i64,
    pub(super) rows: BTreeMap<String, Row>,
    pub(super) queues: BTreeMap<String, Queue>,
    /// The first id by queue and idempotency key.
    keys: BTreeMap<(String, String), String>,
}

impl Reference {
    /// Nothing, at a moment.
    pub(super) fn at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    fn now_ms(&self) -> i64 {
        self.now.div_euclid(MILLI)
    }

    fn queue(&mut self, name: &str) -> &mut Queue {
        self.queues.entry(name.to_owned()).or_default()
    }

    /// Every moment at which something changes by itself: ends of leases and run times.
    pub(super) fn edges(&self) -> Vec<i64> {
        let of = |queue: &Queue| {
            let leases = queue.inflight.iter().map(|(end, _)| end * MILLI).collect::<Vec<_>>();
            leases.into_iter().chain(queue.scheduled.iter().map(|(at, _)| *at)).collect::<Vec<_>>()
        };
        self.queues.values().flat_map(of).collect()
    }

    /// The job waits: now, or until `run_at` when that lies ahead. Answers whether it lies ahead.
    fn wait(&mut self, id: &str, queue: &str, run_at: Option<i64>) -> bool {
        match run_at.filter(|at| *at > self.now) {
            Some(at) => self.queue(queue).scheduled.insert((at, id.to_owned())),
            None => {
                self.queue(queue).ready.push_back(id.to_owned());
                false
            }
        }
    }

    pub(super) fn enqueue(&mut self, jobs: &[NewJob]) -> Vec<Enqueued> {
        jobs.iter().map(|job| self.enqueue_one(job)).collect()
    }

    fn enqueue_one(&mut self, job: &NewJob) -> Enqueued {
        let id = job.id.as_ref().expect("the model names its jobs").to_string();
        let slot = job.idempotency_key.clone().map(|key| (job.queue.clone(), key));
        let known = slot.as_ref().and_then(|slot| self.keys.get(slot)).cloned();
        if let Some(id) = known.or_else(|| self.rows.contains_key(&id).then(|| id.clone())) {
            return Enqueued { id: JobId::from(id.as_str()), is_new: false };
        }
        let run_at = job.run_at.map(Timestamp::nanos);
        let is_later = self.wait(&id, &job.queue, run_at);
        let row = Row {
            job_type: job.job_type.clone(),
            payload: String::from_utf8(job.payload.clone()).unwrap(),
            queue: job.queue.clone(),
            status: if is_later { "scheduled" } else { "ready" },
            run_at: if is_later { run_at.unwrap_or(0) } else { 0 },
            created_at: self.now,
            max_attempts: job.max_attempts.unwrap_or(0),
            idempotency_key: job.idempotency_key.clone().unwrap_or_default(),
            ..Row::default()
        };
        self.rows.insert(id.clone(), row);
        if let Some(slot) = slot {
            self.keys.insert(slot, id.clone());
        }
        Enqueued { id: JobId::from(id.as_str()), is_new: true }
    }

    /// How a caller does not hold a job, if so.
    fn fence(&self, id: &str, token: &str, is_ack: bool) -> Option<Settled> {
        let Some(row) = self.rows.get(id) else { return Some(Settled::LeaseLost(Lost::NotInflight)) };
        let is_over = row.lease_end_ms <= self.now_ms();
        let is_named = !token.is_empty();
        if is_named && row.token == token {
            is_over.then_some(Settled::LeaseLost(Lost::Expired))
        } else if is_named && row.done_token == token {
            Some(Settled::Repeated)
        } else if row.status != "inflight" {
            Some(Settled::LeaseLost(Lost::NotInflight))
        } else if is_over && !is_ack {
            Some(Settled::LeaseLost(Lost::Expired))
        } else {
            Some(Settled::LeaseLost(Lost::Mismatch))
        }
    }

    pub(super) fn turn(&mut self, settles: &[Settle], reserve: Option<&Reserve>) -> Turn {
        // A batch is judged as a whole before any of it is written.
        let mut ended: BTreeMap<String, &str> = BTreeMap::new();
        let mut settled = Vec::new();
        for settle in settles {
            let id = settle.id.to_string();
            let is_again = ended.get(&id) == Some(&settle.token.as_str());
            let lost = self.fence(&id, &settle.token, matches!(settle.end, End::Done { .. }));
            let answer = if is_again { Settled::Repeated } else { lost.unwrap_or(Settled::Applied) };
            if answer == Settled::Applied {
                ended.insert(id, &settle.token);
            }
            settled.push(answer);
        }
        let mut heads: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (settle, _) in settles.iter().zip(&settled).filter(|(_, answer)| **answer == Settled::Applied) {
            self.end(settle);
            if settle.end == End::Release {
                heads.entry(&settle.queue).or_default().push(settle.id.to_string());
            }
        }
        for (queue, ids) in heads {
            self.queue(queue).put_at_head(ids);
        }
        let reserved = reserve.map(|reserve| self.reserve(reserve)).unwrap_or_default();
        Turn { settled, reserved }
    }

    /// Writes one end; what is released is put at the head by the caller.
    fn end(&mut self, settle: &Settle) {
        let (now, id) = (self.now, settle.id.to_string());
        let row = self.rows.get_mut(&id).expect("a job that passed the fence");
        let lease_end_ms = row.lease_end_ms;
        row.done_token = settle.token.clone();
        let mut again_at = None;
        match &settle.end {
            End::Done { result, .. } => {
                row.free("done");
                row.result = String::from_utf8(result.clone()).unwrap();
                row.finished_at = now;
            }
            End::Retry { attempts, error, kind, after } => {
                row.free("ready");
                (row.attempts, row.last_error, row.error_kind, row.failed_at) = (*attempts, error.clone(), kind, now);
                let after = i64::try_from(after.as_nanos()).unwrap();
                if after > 0 {
                    (row.status, row.run_at) = ("scheduled", now + after);
                }
                again_at = Some(now + after);
            }
            End::Dlq { attempts, error, kind, reason } => {
                row.free("dlq");
                (row.attempts, row.last_error, row.error_kind, row.failed_at) = (*attempts, error.clone(), kind, now);
                (row.dlq_reason, row.dlq_failed_at, row.finished_at) = (reason.clone(), now, now);
            }
            End::Release => {
                row.free("ready");
                row.deliveries -= 1;
            }
        }
        let queue = self.queue(&settle.queue);
        assert!(queue.inflight.remove(&(lease_end_ms, id.clone())), "the reference itself: {id} is in flight");
        match &settle.end {
            End::Done { .. } => {
                queue.done.push(id);
                queue.count("done");
            }
            End::Retry { .. } => {
                queue.count("retried");
                self.wait(&id, &settle.queue, again_at);
            }
            End::Dlq { .. } => {
                queue.dlq.push_back(id);
                queue.count("dead");
            }
            End::Release => {}
        }
    }

    /// Brings back what is due in a queue.
    fn bring_back(&mut self, name: &str, due: &mut Due) {
        let (now, now_ms) = (self.now, self.now_ms());
        let queue = self.queues.entry(name.to_owned()).or_default();
        let later = queue.inflight.split_off(&(now_ms + 1, String::new()));
        let mut heads = Vec::new();
        for (_, id) in std::mem::replace(&mut queue.inflight, later) {
            let row = self.rows.get_mut(&id).expect("a job in flight");
            let most = if row.max_attempts == 0 { MAX_ATTEMPTS } else { row.max_attempts }.max(DELIVERIES_MIN);
            if row.deliveries < most {
                row.free("ready");
                queue.count("reclaimed");
                due.reclaimed += 1;
                heads.push(id);
                continue;
            }
            let times = row.deliveries;
            let reason = format!("handed out {times} times, and each time its worker was lost or its lease ran out");
            row.free("dlq");
            (row.dlq_reason, row.dlq_failed_at, row.finished_at) = (reason.clone(), now, now);
            row.error_kind = "lease_lost";
            queue.count("dead");
            due.dead.push(SetAside { id: JobId::from(id.as_str()), queue: name.to_owned(), reason, is_dead: true });
            queue.dlq.push_back(id);
        }
        queue.put_at_head(heads);
        while self.promote_one(name, due) {}
    }

    /// Makes the first scheduled job ready if it is due.
    fn promote_one(&mut self, name: &str, due: &mut Due) -> bool {
        let now = self.now;
        let queue = self.queues.entry(name.to_owned()).or_default();
        if queue.scheduled.first().is_none_or(|(at, _)| *at > now) {
            return false;
        }
        let (_, id) = queue.scheduled.pop_first().expect("it is there");
        self.rows.get_mut(&id).expect("a scheduled job").free("ready");
        due.promoted += 1;
        queue.ready.push_back(id);
        true
    }

    /// The job that is handed out next: the head of `ready`, or when that is empty the first that is due.
    fn next_of(&mut self, name: &str, due: &mut Due) -> Option<String> {
        if self.queue(name).ready.is_empty() {
            self.promote_one(name, due);
        }
        self.queue(name).ready.pop_front()
    }

    /// When something is due next in these queues.
    fn next_due<'a>(&self, queues: impl Iterator<Item = &'a String>) -> Option<i64> {
        let of = |queue: &Queue| {
            let lease = queue.inflight.first().map(|(end, _)| *end);
            let start = queue.scheduled.first().map(|(at, _)| at.div_euclid(MILLI) + 1);
            lease.into_iter().chain(start).min()
        };
        queues.filter_map(|name| self.queues.get(name)).filter_map(of).min()
    }

    fn reserve(&mut self, reserve: &Reserve) -> Reservation {
        let mut due = Due::default();
        if reserve.sweep {
            for share in &reserve.queues {
                self.bring_back(&share.queue, &mut due);
            }
        }
        // First every queue's share, then what is left over, in the order of the queues.
        let mut left = reserve.limit;
        let mut jobs = Vec::new();
        let mut taken_per_queue = vec![0; reserve.queues.len()];
        // A queue has shown that it is empty when it gave less than it was asked for.
        let mut is_known_empty = vec![false; reserve.queues.len()];
        for is_rest in [false, true] {
            for (n, (share, taken)) in reserve.queues.iter().zip(&mut taken_per_queue).enumerate() {
                let most = if is_rest { left } else { left.min(share.take) };
                for _ in 0..most {
                    let Some(id) = self.next_of(&share.queue, &mut due) else {
                        is_known_empty[n] = true;
                        break;
                    };
                    jobs.push(self.hand_out(id, &share.queue, reserve));
                    left -= 1;
                    *taken += 1;
                }
            }
        }
        Reservation {
            jobs,
            taken_per_queue,
            is_more: is_known_empty.contains(&false),
            set_aside: due.dead,
            next_due_ms: reserve
                .sweep
                .then(|| self.next_due(reserve.queues.iter().map(|share| &share.queue)))
                .flatten(),
            now_ms: self.now_ms(),
            ..Reservation::default()
        }
    }

    fn hand_out(&mut self, id: String, queue: &str, reserve: &Reserve) -> Reserved {
        let end_ms = self.now_ms() + i64::try_from(reserve.lease.as_millis()).unwrap();
        let row = self.rows.get_mut(&id).expect("a ready job");
        row.status = "inflight";
        (row.token, row.node, row.lease_end_ms) = (reserve.token.clone(), reserve.node.clone(), end_ms);
        row.deliveries += 1;
        let job = Reserved {
            store: StoreId(0),
            id: JobId::from(id.as_str()),
            queue: queue.to_owned(),
            job_type: row.job_type.clone(),
            payload: row.payload.clone().into_bytes(),
            content_type: String::new(),
            token: reserve.token.clone(),
            attempts: row.attempts,
            retry: RetryWish { max_attempts: Some(row.max_attempts).filter(|n| *n > 0), ..RetryWish::default() },
            deliveries: row.deliveries,
            timeout: None,
            created_at: Some(Timestamp::from_nanos(row.created_at)),
            digest: None,
            metadata: Vec::new(),
        };
        self.queue(queue).inflight.insert((end_ms, id));
        job
    }

    pub(super) fn extend(&mut self, leases: &[Lease], lease_ms: i64) -> Vec<Settled> {
        let end_ms = self.now_ms() + lease_ms;
        let mut answers = Vec::new();
        for lease in leases {
            let id = lease.id.to_string();
            let answer = match self.fence(&id, &lease.token, false) {
                None => {
                    let row = self.rows.get_mut(&id).expect("a job that passed the fence");
                    let old = std::mem::replace(&mut row.lease_end_ms, end_ms);
                    let queue = self.queue(&lease.queue);
                    queue.inflight.remove(&(old, id.clone()));
                    queue.inflight.insert((end_ms, id));
                    Settled::Applied
                }
                // It has ended: there is nothing to extend.
                Some(Settled::Repeated) => Settled::LeaseLost(Lost::NotInflight),
                Some(lost) => lost,
            };
            answers.push(answer);
        }
        answers
    }

    pub(super) fn sweep(&mut self, queues: &[String]) -> Swept {
        let mut due = Due::default();
        let mut swept = Swept { now_ms: self.now_ms(), scripts_check: "0".to_owned(), ..Swept::default() };
        for name in queues {
            self.bring_back(name, &mut due);
            let dropped = self.prune(name);
            swept.dropped += dropped;
            swept.is_more |= dropped == PRUNE_MAX;
        }
        (swept.reclaimed, swept.promoted, swept.set_aside) = (due.reclaimed, due.promoted, due.dead);
        swept.next_due_ms = self.next_due(queues.iter());
        swept
    }

    /// Drops the oldest dead rows that are too old.
    fn prune(&mut self, name: &str) -> u32 {
        let too_old = (self.now.div_euclid(SECOND) - DLQ_SECONDS) * SECOND;
        let mut dropped = 0;
        while dropped < PRUNE_MAX {
            let queue = self.queues.entry(name.to_owned()).or_default();
            let Some(oldest) = queue.dlq.front() else { break };
            if self.rows[oldest].dlq_failed_at >= too_old {
                break;
            }
            self.rows.remove(oldest);
            queue.dlq.pop_front();
            queue.count("dlq_dropped");
            dropped += 1;
        }
        dropped
    }

    pub(super) fn requeue(&mut self, queue: &str, id: &str, run_at: Option<i64>, is_reset: bool) -> OfDead {
        match self.rows.get(id) {
            None => return OfDead::NotFound,
            Some(row) if row.status != "dlq" => return OfDead::NotDead,
            Some(row) if row.queue != queue => return OfDead::OtherQueue(row.queue.clone()),
            Some(_) => {}
        }
        self.queue(queue).dlq.retain(|dead| dead != id);
        let is_later = self.wait(id, queue, run_at);
        let row = self.rows.get_mut(id).expect("a dead job");
        row.status = if is_later { "scheduled" } else { "ready" };
        row.run_at = if is_later { run_at.unwrap_or(0) } else { 0 };
        (row.dlq_failed_at, row.deliveries, row.finished_at) = (0, 0, 0);
        row.dlq_reason.clear();
        row.done_token.clear();
        if is_reset {
            (row.attempts, row.failed_at, row.error_kind) = (0, 0, "");
            row.last_error.clear();
        }
        OfDead::Applied
    }
}
