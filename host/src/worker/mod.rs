//! Takes jobs under a lease, has them run, and settles them.
//!
//! One loop on the I/O thread. While there is a backlog it is *hot*: one script a turn settles what has ended and
//! reserves what there is room for, two turns in flight. Otherwise it waits: for each queue one host of the fleet is
//! blocked on the `ready` list with a reserve pipelined behind the block, so a pushed job is in hand one trip later.
//!
//! Invariant: room is taken before a job is: what is held plus what has been asked for never exceeds the limit.
//! Invariant: every write to a held job carries its token, and a job whose lease is lost is stopped, never settled.
//!
//! Next: `worker/wake.rs` for how it waits, `worker/settle.rs` for how an attempt ends, `store/lua/reserve.lua` for how one begins.

mod broken;
mod counts;
mod crowd;
mod draws;
mod held;
mod peeks;
mod redis_state;
mod settle;
mod sink;
mod unknown;
mod wake;
mod weights;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

pub use self::crowd::{DONE_PER_RETRY, RETRIES_PER_S};
pub use self::settle::{ERROR_BYTES_MAX, LOG_BYTES_MAX, SettlePolicy};
pub use self::weights::Weights;

use self::crowd::Crowd;
use self::draws::Draws;
use self::held::{Held, HeldJobs};
use self::peeks::Peeks;
use self::redis_state::RedisState;
use self::sink::{Report, Sinks};
use self::unknown::{Resolved, UnknownTypes};
use self::wake::Wake;
use crate::clock::Timestamp;
use crate::effects::Effects;
use crate::executor::{Attempt, Completion, Completions, Executor};
use crate::job::{JobId, Reserved};
use crate::metrics::WorkerMetrics;
use crate::outcome::{Outcome, Usage};
use crate::ports::{Pulse, Seen};
use crate::retry::{RetryPolicy, RetryWish};
use crate::sandbox::CancelFlag;
use crate::shutdown;
use crate::store::{Lease, QueueShare, Reservation, Reserve, Settle, Settled, Signal, Store, Turn, new_token};

/// Jobs held at once while they are short, running ones included: enough to keep both Redis and the guests busy
/// while a turn is under way (`docs/limits.md`).
pub const HELD_MAX: usize = 256;
/// Most jobs of one reserve; beyond it nothing is gained.
pub const BATCH_MAX: usize = 128;
/// Jobs count as short below this mean wall time; only then more are held than run.
const SHORT_JOB: Duration = Duration::from_millis(2);
/// Turns under way at once.
const TURNS_MAX: usize = 2;
/// How long ends are gathered before they are settled, when more are about to come.
const GATHER: Duration = Duration::from_millis(1);
/// The backstop that finds what no signal told of: due jobs, expired leases, foreign changes.
pub const SWEEP_PERIOD: Duration = Duration::from_millis(1500);
/// Least time between two sweeps folded into the turns of a hot queue.
const HOT_SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// How often progress reports are written.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);
/// The loop beats its pulse and looks at its clocks at least this often.
const TICK: Duration = Duration::from_millis(500);
/// How long a queue with a key of the wrong type is left alone before it is asked again.
const BROKEN_PAUSE: Duration = Duration::from_secs(1);
/// How long a stop may go on trying to settle after the grace, when Redis does not answer.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The queues it serves, with their weights.
    pub queues: Vec<(String, u32)>,
    /// Whether a queue only gets what those before it leave over; then the weights count for nothing.
    pub is_strict: bool,
    /// Most attempts that run at once.
    pub concurrency: usize,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How often leases are extended.
    pub heartbeat: Duration,
    /// After a stop: how long attempts may go on before they are stopped and released.
    pub grace: Duration,
    /// The node's name, written into the rows of its jobs.
    pub node: String,
    /// Time to live of a done job's row.
    pub done_ttl: Duration,
    /// When failed jobs run again.
    pub retry: RetryPolicy,
    /// How long a job of an unknown type waits for its jumpscript.
    pub unknown_type_wait: Duration,
}

/// Counts of what a worker did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Attempts settled as done.
    pub done: u64,
    /// Attempts settled for another try.
    pub retried: u64,
    /// Jobs sent to the dead-letter queue.
    pub dead: u64,
    /// Jobs released by a drain.
    pub released: u64,
    /// Attempts whose lease was lost.
    pub lost: u64,
}

/// The service that runs jobs.
pub struct Worker {
    store: Store,
    executor: Arc<dyn Executor>,
    options: Options,
    policy: SettlePolicy,
    weights: Weights,
    pulse: Arc<Pulse>,
    completions: Arc<Completions>,
    sinks: Sinks,
    reports: mpsc::Receiver<Report>,
    progress: HashMap<JobId, Report>,
    held: HeldJobs,
    unknown: UnknownTypes,
    ended: Vec<Completion>,
    settles: VecDeque<Settle>,
    /// What is needed to end attempts in another way, should their effects be refused.
    with_effects: HashMap<JobId, (Held, RetryWish)>,
    turns: FuturesUnordered<BoxFuture<'static, TurnEnd>>,
    peeks: Peeks,
    wake: Wake,
    /// Jobs asked for by turns under way.
    asked: usize,
    /// Whether the last reserve left something behind.
    is_hot: bool,
    /// Set by a stop: nothing is reserved any more.
    is_draining: bool,
    redis: RedisState,
    /// Mean wall time of recent attempts, in microseconds.
    mean_us: f64,
    /// Attempts in that mean, up to 64: the first one counts in full.
    n_measured: u32,
    /// Over what time retries are spread.
    crowd: Crowd,
    last_sweep: Instant,
    /// When everything was last looked at, foreign changes included; `None` asks for it now.
    last_check: Option<Instant>,
    /// When the next scheduled job or lease is due, as far as is known.
    next_due: Option<Instant>,
    totals: Totals,
    metrics: Arc<WorkerMetrics>,
    seen: watch::Sender<Seen>,
    /// Queues that cannot be served, with the reason, and when that was last seen.
    broken: HashMap<String, (String, Instant)>,
    faults: watch::Sender<Vec<String>>,
    draws: Draws,
    signals: mpsc::Receiver<Signal>,
    /// The server's clock in milliseconds, and when it was read.
    server_clock: Option<(i64, Instant)>,
    /// Who shows each attempt that has ended.
    on_attempt: Option<OnAttempt>,
}

/// The end of one attempt, for whoever shows it.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    /// The job.
    pub id: JobId,
    /// Its type; the producer's text.
    pub job_type: String,
    /// Which execution it was, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What it used; nothing when it never began.
    pub usage: Usage,
}

/// Called on the I/O thread at the end of each attempt: it must return at once.
pub type OnAttempt = Box<dyn Fn(AttemptEnd) + Send>;

/// What a turn under way comes back with.
struct TurnEnd {
    settles: Vec<Settle>,
    reserve: Option<(Reserve, Vec<u32>)>,
    result: Result<Turn, crate::store::Error>,
    began: Instant,
}

impl Worker {
    /// A worker that has not started. `pulse` is beaten by its loop.
    #[must_use]
    pub fn new(store: Store, executor: Arc<dyn Executor>, options: Options, pulse: Arc<Pulse>) -> Self {
        let names = options.queues.iter().map(|(queue, _)| queue.as_str());
        let metrics = Arc::new(WorkerMetrics::new(names, options.concurrency));
        let (sinks, reports) = Sinks::new(Arc::clone(&metrics));
        let policy = SettlePolicy { done_ttl: options.done_ttl, retry: options.retry };
        let weights = if options.is_strict {
            Weights::strict(options.queues.len())
        } else {
            Weights::new(options.queues.iter().map(|(_, weight)| *weight))
        };
        let peeks = Peeks::new(&store, &options.queues);
        let unknown = UnknownTypes::new(store.clone(), options.unknown_type_wait);
        Self {
            executor,
            policy,
            weights,
            pulse,
            completions: Completions::new(),
            sinks,
            reports,
            progress: HashMap::new(),
            held: HeldJobs::default(),
            unknown,
            ended: Vec::new(),
            settles: VecDeque::new(),
            with_effects: HashMap::new(),
            turns: FuturesUnordered::new(),
            peeks,
            wake: Wake::new(&store, options.queues.len(), &options.node),
            asked: 0,
            is_hot: true,
            is_draining: false,
            redis: RedisState::new(),
            mean_us: 0.0,
            n_measured: 0,
            crowd: Crowd::new(Instant::now()),
            last_sweep: Instant::now(),
            last_check: None,
            next_due: None,
            totals: Totals::default(),
            metrics,
            seen: watch::Sender::new(Seen::default()),
            broken: HashMap::new(),
            faults: watch::Sender::new(Vec::new()),
            draws: Draws::of(&store),
            signals: wake::listen(store.subscribe()),
            server_clock: None,
            on_attempt: None,
            store,
            options,
        }
    }

    /// Names who is told of each attempt that has ended.
    pub fn tell_ends(&mut self, on_attempt: OnAttempt) {
        self.on_attempt = Some(on_attempt);
    }

    /// What rides back with the answers of Redis about the published jumpscripts.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// The queues that cannot be served, each with the reason; empty while all is well.
    #[must_use]
    pub fn faults(&self) -> watch::Receiver<Vec<String>> {
        self.faults.subscribe()
    }

    /// What it counts, for whoever shows it.
    #[must_use]
    pub fn metrics(&self) -> Arc<WorkerMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Runs until `stop` turns true and everything held is settled or released.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Totals {
        let mut extend = every(self.options.heartbeat);
        let mut tick = every(TICK);
        let mut progress = every(PROGRESS_PERIOD);
        let (mut gathering, mut drain_deadline): (Option<Instant>, Option<Instant>) = (None, None);
        let mut is_grace_over = false;
        loop {
            self.pulse.beat();
            if self.go_on(gathering.is_none()) {
                // The connection writes while this loop rests. Without the rest, two answers that came together would
                // be followed by two turns in one piece, for ever: Redis would do both, answer both, and stand idle
                // while both answers are worked on.
                tokio::task::yield_now().await;
            }
            if self.is_draining && self.is_drained() {
                break;
            }
            let alarm = self.wake.alarm();
            tokio::select! {
                biased;
                Some(end) = self.turns.next(), if !self.turns.is_empty() => self.turn_ended(end),
                end = self.peeks.next(), if self.peeks.is_waiting() => self.peek_ended(end),
                end = self.wake.bells.next(), if self.wake.bells.is_waiting() => self.bell_rang(end),
                () = self.completions.wait() => {
                    // The first of a batch: a moment later more of them settle at the price of one.
                    gathering = if self.completions.is_ripe() { None } else { gathering.or(Some(Instant::now() + GATHER)) };
                }
                () = until(gathering), if gathering.is_some() => gathering = None,
                (job, resolved) = self.unknown.next(), if self.unknown.is_waiting() => self.start_resolved(job, resolved),
                Some(signal) = self.signals.recv() => {
                    let is_subscribed_anew = matches!(signal, Signal::Resubscribed);
                    self.signalled(signal);
                    if is_subscribed_anew {
                        // A job that was cancelled before anybody listened is found out by its lease.
                        self.extend_leases(Duration::ZERO).await;
                    }
                }
                _ = extend.tick() => self.extend_leases(self.options.heartbeat / 2).await,
                _ = tick.tick() => {
                    self.forget_mended();
                    self.sweep_when_due().await;
                }
                // Paused, it would be due again and again and never made.
                () = until(self.next_due), if self.next_due.is_some() && !self.redis.is_paused() => {
                    self.sweep_when_due().await;
                }
                () = until(alarm), if alarm.is_some() => self.look_around(),
                () = until(self.redis.paused_until), if self.redis.is_paused() => self.redis.paused_until = None,
                Some(report) = self.reports.recv() => { self.progress.insert(report.lease.id.clone(), report); }
                _ = progress.tick(), if !self.progress.is_empty() => self.write_progress().await,
                () = until(drain_deadline), if drain_deadline.is_some() => {
                    if is_grace_over {
                        tracing::error!(unsettled = self.settles.len(), "redis does not take the last settles, leaving");
                        break;
                    }
                    is_grace_over = true;
                    drain_deadline = Some(Instant::now() + FAREWELL);
                    self.stop_attempts();
                }
                () = shutdown::requested(&mut stop), if !self.is_draining => {
                    self.is_draining = true;
                    drain_deadline = Some(Instant::now() + self.options.grace);
                    self.begin_drain().await;
                }
            }
        }
        self.totals
    }

    /// Does whatever can be done without waiting: collects ends, sends turns, blocks on quiet queues. Answers whether a
    /// turn is to be written.
    fn go_on(&mut self, may_collect: bool) -> bool {
        if may_collect {
            self.collect();
        }
        let mut has_sent = false;
        while self.may_turn() {
            self.send_turn();
            has_sent = true;
        }
        self.claim_promises();
        if !self.is_draining && !self.is_hot && !self.redis.is_paused() {
            self.wait_for_pushes();
        }
        self.note_room();
        self.metrics.held.set(self.held.len() as u64);
        has_sent
    }

    fn collect(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        self.completions.take(&mut ended);
        if !ended.is_empty() {
            self.crowd.go_to(Instant::now());
        }
        for Completion { id, token, outcome, usage, effects, manifest_retry } in ended.drain(..) {
            let Some(held) = self.held.remove(&id, &token) else {
                self.totals.lost += 1;
                continue;
            };
            #[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 52 bits")]
            let wall_us = usage.wall_us as f64;
            self.n_measured = (self.n_measured + 1).min(64);
            self.mean_us += (wall_us - self.mean_us) / f64::from(self.n_measured);
            log_end(&held, &outcome, usage.wall_us);
            self.show_end(&held, &outcome, &usage);
            self.count_attempt(&held, &outcome, &usage);
            let settle = settle::settle(&self.policy, &held, manifest_retry, &mut self.crowd, outcome, &usage, effects);
            if let Some(settle) = settle {
                if !settle.effects.is_empty() {
                    self.with_effects.insert(held.id.clone(), (held, manifest_retry));
                }
                self.settles.push_back(settle);
            }
        }
        self.ended = ended;
    }

    /// Most jobs that may be held: what runs at once, and more while jobs are short.
    fn held_max(&self) -> usize {
        let short_us = SHORT_JOB.as_secs_f64() * 1e6;
        if self.mean_us < short_us && self.totals.done > 0 {
            self.options.concurrency.max(HELD_MAX)
        } else {
            self.options.concurrency
        }
    }

    /// Room for jobs that nobody has been promised.
    fn room(&self) -> usize {
        let taken = self.held.len() + self.asked + self.peeks.promised();
        self.held_max().saturating_sub(taken)
    }

    fn may_turn(&self) -> bool {
        if self.redis.is_paused() || self.turns.len() >= TURNS_MAX {
            return false;
        }
        let wants_jobs = self.is_hot && !self.is_draining && self.room() > 0;
        if self.turns.is_empty() {
            return !self.settles.is_empty() || wants_jobs;
        }
        // A second turn beside the first keeps Redis busy while this thread works on the answer; it pays only when it
        // carries most of a batch. With smaller ones `inflight` would also stay under 129 members, a form in which
        // Redis searches it from end to end: a third more of its time per job.
        self.settles.len() >= BATCH_MAX * 3 / 4 || (wants_jobs && self.room() >= BATCH_MAX)
    }

    fn send_turn(&mut self) {
        let n_settles = self.settles.len().min(BATCH_MAX);
        let settles: Vec<Settle> = self.settles.drain(..n_settles).collect();
        let limit = self.room().min(BATCH_MAX);
        let reserve = (self.is_hot && !self.is_draining && limit > 0).then(|| self.reserve_from_all(limit));
        self.asked += reserve.as_ref().map_or(0, |(request, _)| request.limit as usize);
        let store = self.store.clone();
        let began = Instant::now();
        let mut turn: BoxFuture<'static, TurnEnd> = Box::pin(async move {
            let result = store.turn(&settles, reserve.as_ref().map(|(request, _)| request)).await;
            TurnEnd { settles, reserve, result, began }
        });
        // The first poll hands the turn to the connection; left to the loop, it would wait for the next answer.
        self.turns.push(match turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Box::pin(std::future::ready(end)),
            Poll::Pending => turn,
        });
    }

    /// A reserve over all queues, by their weights or in their strict order, and the quotas in the order of the options.
    fn reserve_from_all(&mut self, limit: usize) -> (Reserve, Vec<u32>) {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let quotas = self.weights.quotas(limit);
        let share = |n: usize| QueueShare { queue: self.options.queues[n].0.clone(), take: quotas[n] };
        let queues = self.weights.order().into_iter().map(share).collect();
        let is_sweep_due = self.last_sweep.elapsed() >= HOT_SWEEP_PERIOD;
        if is_sweep_due {
            self.last_sweep = Instant::now();
        }
        (self.reserve(queues, limit, is_sweep_due), quotas)
    }

    fn reserve(&self, queues: Vec<QueueShare>, limit: u32, sweep: bool) -> Reserve {
        Reserve { queues, limit, lease: self.options.lease, token: new_token(), node: self.options.node.clone(), sweep }
    }

    fn turn_ended(&mut self, end: TurnEnd) {
        let TurnEnd { settles, reserve, result, began } = end;
        self.metrics.turns.observe(began.elapsed());
        if let Some((request, _)) = &reserve {
            self.asked -= request.limit as usize;
        }
        match result {
            Ok(turn) => {
                self.redis_answered();
                for (settle, settled) in settles.iter().zip(&turn.settled) {
                    self.count(settle, settled);
                    if !settle.effects.is_empty() {
                        self.effects_ended(settle, settled);
                    }
                }
                if let Some((request, quotas)) = reserve {
                    let reservation = turn.reserved;
                    self.is_hot = reservation.is_more;
                    let taken = self.taken_in_order(&request, &reservation);
                    self.weights.served(&quotas, &taken);
                    let n_taken = reservation.jobs.len();
                    self.take_in(reservation);
                    self.turn_took(request.limit as usize, n_taken);
                }
            }
            Err(error) => {
                // Settling again is safe: a transition that was made already answers "repeated".
                for settle in settles.into_iter().rev() {
                    self.settles.push_front(settle);
                }
                self.redis_failed(&error);
            }
        }
    }

    /// What each queue gave, in the order of the options.
    fn taken_in_order(&self, request: &Reserve, reservation: &Reservation) -> Vec<u32> {
        let taken_by = |queue: &str| {
            let place = request.queues.iter().position(|share| share.queue == queue);
            place.and_then(|n| reservation.taken_per_queue.get(n).copied()).unwrap_or(0)
        };
        self.options.queues.iter().map(|(queue, _)| taken_by(queue)).collect()
    }

    fn take_in(&mut self, reservation: Reservation) {
        for aside in &reservation.set_aside {
            tracing::warn!(job = %aside.id, queue = %aside.queue, reason = %aside.reason, "record set aside");
        }
        self.saw_broken(&reservation.broken);
        self.draws.tell(&reservation.drawn);
        // Else it is the answer of a turn that was repeated without its reserve: it says nothing.
        if reservation.now_ms > 0 {
            self.saw_revision(reservation.rev);
            self.due_at(reservation.next_due_ms, reservation.now_ms);
        }
        let now = Timestamp::now();
        for job in reservation.jobs {
            self.count_wait(&job, now);
            if !self.held.is_cancelled_early(&job.id) {
                self.start(job);
            }
        }
    }

    fn start(&mut self, job: Reserved) {
        if self.is_draining {
            return self.release(&job);
        }
        if job.digest.is_none() {
            let known = self.unknown.known_missing(&job.job_type, self.seen.borrow().rev);
            if let Some(why) = known {
                return self.reject(&Held::of(&job, CancelFlag::new()), &why);
            }
            self.held.insert(Held::of(&job, CancelFlag::new()));
            return self.unknown.wait(job);
        }
        let cancel = CancelFlag::new();
        self.held.insert(Held::of(&job, cancel.clone()));
        self.launch(job, cancel);
    }

    /// Starts a job whose type was unknown when it was handed out, or rejects it.
    fn start_resolved(&mut self, mut job: Reserved, resolved: Resolved) {
        let Some(mut held) = self.held.remove(&job.id, &job.token) else { return };
        if self.is_draining {
            return self.release(&job);
        }
        match resolved {
            Ok(digest) => (job.digest, held.digest) = (Some(digest), Some(digest)),
            Err(why) => {
                self.reject(&held, &why);
                let revision = self.seen.borrow().rev;
                return self.unknown.is_missing(&job.job_type, revision, why);
            }
        }
        let cancel = held.cancel.clone();
        self.held.insert(held);
        self.launch(job, cancel);
    }

    fn launch(&mut self, job: Reserved, cancel: CancelFlag) {
        let sink = self.sinks.of(Lease { id: job.id.clone(), queue: job.queue.clone(), token: job.token.clone() });
        let mut attempt = Attempt::new(job, sink, cancel, &self.completions);
        attempt.rev = self.seen.borrow().rev;
        self.executor.start(attempt);
    }

    fn release(&mut self, job: &Reserved) {
        self.end_unrun(&Held::of(job, CancelFlag::new()), Outcome::Cancelled);
    }

    fn reject(&mut self, held: &Held, why: &str) {
        let outcome = Outcome::Rejected { reason: why.to_owned() };
        log_end(held, &outcome, 0);
        self.show_end(held, &outcome, &Usage::default());
        self.end_unrun(held, outcome);
    }

    fn show_end(&self, held: &Held, outcome: &Outcome, usage: &Usage) {
        if let Some(on_attempt) = &self.on_attempt {
            on_attempt(AttemptEnd {
                id: held.id.clone(),
                job_type: held.job_type.clone(),
                attempt: held.attempts.saturating_add(1),
                outcome: outcome.clone(),
                usage: usage.clone(),
            });
        }
    }

    /// Ends an attempt that no executor was given.
    fn end_unrun(&mut self, held: &Held, outcome: Outcome) {
        let wish = RetryWish::default();
        let (usage, effects) = (Usage::default(), Effects::none());
        let settle = settle::settle(&self.policy, held, wish, &mut self.crowd, outcome, &usage, effects);
        self.settles.extend(settle);
    }

    /// What becomes of an attempt whose effects could not be made: it ends as a failure with the reason.
    fn effects_ended(&mut self, settle: &Settle, settled: &Settled) {
        let Some((held, manifest_retry)) = self.with_effects.remove(&settle.id) else { return };
        // The id may have been handed out again meanwhile.
        if held.token != settle.token {
            self.with_effects.insert(held.id.clone(), (held, manifest_retry));
            return;
        }
        if let Settled::Refused(why) = settled {
            let outcome = Outcome::Failed { message: format!("what it did could not be committed: {why}") };
            log_end(&held, &outcome, 0);
            let (usage, effects) = (Usage::default(), Effects::none());
            let settle = settle::settle(&self.policy, &held, manifest_retry, &mut self.crowd, outcome, &usage, effects);
            self.settles.extend(settle);
        }
    }

    /// Extends the leases of the jobs that are held for longer than `age`; those that are lost are stopped.
    async fn extend_leases(&mut self, age: Duration) {
        let leases = self.held.leases_older_than(age);
        if leases.is_empty() {
            return;
        }
        match self.store.extend(&leases, self.options.lease).await {
            Ok(extended) => {
                for (lease, settled) in leases.iter().zip(extended) {
                    if let Settled::LeaseLost(why) = settled
                        && let Some(held) = self.held.remove(&lease.id, &lease.token)
                    {
                        held.cancel.cancel();
                        self.totals.lost += 1;
                        tracing::warn!(job = %lease.id, queue = %lease.queue, ?why, "lease lost, attempt stopped");
                    }
                }
            }
            Err(error) => self.redis_failed(&error),
        }
    }

    async fn write_progress(&mut self) {
        for (_, report) in std::mem::take(&mut self.progress) {
            let Report { lease, percent, message } = report;
            if let Err(error) = self.store.progress(&lease, percent, &message).await {
                tracing::debug!(job = %lease.id, %error, "progress not written");
            }
        }
    }

    async fn begin_drain(&mut self) {
        tracing::info!(held = self.held.len(), "draining");
        self.held.ask_all();
        self.peeks.stop();
        for job in self.unknown.take() {
            if self.held.remove(&job.id, &job.token).is_some() {
                self.release(&job);
            }
        }
        self.stop_watching().await;
    }

    /// The grace is over: what still runs is stopped, and released when its executor says so.
    fn stop_attempts(&mut self) {
        tracing::warn!(held = self.held.len(), "grace is over, stopping attempts");
        self.held.cancel_all();
    }

    fn is_drained(&self) -> bool {
        self.held.is_empty() && self.settles.is_empty() && self.turns.is_empty() && self.peeks.promised() == 0
    }
}

fn log_end(held: &Held, outcome: &Outcome, wall_us: u64) {
    let attempt = held.attempts + 1;
    let (job, queue, script) = (&held.id, &held.queue, || crate::job::visible(&held.job_type));
    match outcome {
        Outcome::Done { .. } => {
            tracing::debug!(%job, %queue, script = %script(), attempt, %outcome, wall_us, "attempt ended")
        }
        _ => {
            let error = crate::job::visible(outcome.error_text().lines().next().unwrap_or_default());
            tracing::info!(%job, %queue, script = %script(), attempt, %outcome, wall_us, %error, "attempt ended");
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
