//! The engine against a model of it: random sequences of operations by four clients run on a real Redis and on a small
//! reference in memory. Every answer is compared, and at the end of a sequence everything that lies in Redis.
//!
//! Invariant: a sequence follows from its seed alone. A failure prints the seed, the shortest sequence that still fails,
//! and the command that shows it again. `MODEL_SEED` is the first seed, `MODEL_SEQUENCES` the number of sequences.
//!
//! Next: `reference` for what should happen, `sequence` for what is tried, `mutations` for whether it would be noticed.

mod mutations;
mod reference;
mod sequence;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use wasmhost::clock::Timestamp;
use wasmhost::effects::Effects;
use wasmhost::job::{JobId, NewJob, Reserved, StoreId};
use wasmhost::store::{Lease, OfDead, Options, QueueShare, Reserve, Settle, Settled, Store, Turn};

use self::reference::{Queue, Reference, is_given};
use self::sequence::{Action, CLIENTS, Draft, Ending, Hold, OPERATIONS, Operation, QUEUES, Step, Token};
use super::{START, done};
use crate::support::redis::{RedisServer, assert_consistent, keys_under};

/// Sequences that every run of the tests plays.
const SEQUENCES: u64 = 320;
/// Sequences that are played at the same time, each in queues of its own.
const BATCH: u64 = 32;

/// Where sequences are played: one prefix, and a connection for each client.
#[derive(Clone)]
struct Arena {
    prefix: String,
    stores: Vec<Store>,
    raw: MultiplexedConnection,
}

/// How Redis and the reference differ.
struct Difference {
    /// The operation, by its place; none when it was found at the end.
    at: Option<usize>,
    what: String,
    /// An error of the store, where an answer was due.
    is_error: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(n) => write!(f, "at operation {n}: {}", self.what),
            None => write!(f, "at the end: {}", self.what),
        }
    }
}

/// How often something happened, over all sequences: a model that never sees a late ack says nothing about late acks.
type Coverage = BTreeMap<&'static str, u64>;

/// What has to have happened in a run of [`SEQUENCES`] sequences.
const MUST_HAPPEN: [&str; 18] = [
    "enqueued",
    "known before",
    "handed out",
    "left over went to the next queue",
    "applied",
    "repeated",
    "not in flight",
    "expired",
    "another holder",
    "extended",
    "reclaimed",
    "promoted",
    "dead after lost workers",
    "dropped",
    "requeued",
    "requeue of no job",
    "requeue of no dead job",
    "requeue in another queue",
];

impl Arena {
    /// An arena on a server that is reached at `url`.
    async fn at(url: &str, raw: MultiplexedConnection) -> Self {
        let options = Options { url: url.to_owned(), ..RedisServer::shared().options() };
        let mut stores = Vec::new();
        for _ in 0..CLIENTS {
            stores.push(Store::connect(StoreId(0), &options).await.expect("the store connects"));
        }
        Self { prefix: options.prefix, stores, raw }
    }

    /// Plays the sequences of these seeds at the same time.
    async fn play_all(&self, seeds: std::ops::Range<u64>) -> Vec<(u64, Result<Coverage, Difference>)> {
        let mut games = JoinSet::new();
        for seed in seeds {
            let arena = self.clone();
            games.spawn(async move { (seed, arena.play(&format!("s{seed}"), &sequence::sequence(seed)).await) });
        }
        games.join_all().await
    }

    /// Plays one sequence in queues and with ids that begin with `tag`.
    async fn play(&self, tag: &str, operations: &[Operation]) -> Result<Coverage, Difference> {
        let mut game = Game {
            arena: self.clone(),
            tag: tag.to_owned(),
            reference: Reference::at(START),
            held: vec![Vec::new(); CLIENTS],
            past: vec![Vec::new(); CLIENTS],
            tokens: Vec::new(),
            coverage: Coverage::new(),
        };
        for (n, operation) in operations.iter().enumerate() {
            game.pass_time(&operation.step);
            let at = |difference| Difference { at: Some(n), ..difference };
            game.run(operation.client, &operation.action).await.map_err(at)?;
        }
        game.compare_state().await?;
        Ok(game.coverage)
    }

    /// Removes everything of this arena.
    async fn clear(&mut self) {
        for keys in keys_under(&mut self.raw, &self.prefix).await.chunks(1000) {
            redis::cmd("UNLINK").arg(keys).exec_async(&mut self.raw).await.expect("UNLINK");
        }
    }
}

/// A lease as a client remembers it.
#[derive(Clone)]
struct Memory {
    id: JobId,
    queue: String,
    token: String,
    attempts: u32,
}

impl From<&Reserved> for Memory {
    fn from(job: &Reserved) -> Self {
        Self { id: job.id.clone(), queue: job.queue.clone(), token: job.token.clone(), attempts: job.attempts }
    }
}

/// A sequence that is being played.
struct Game {
    arena: Arena,
    tag: String,
    reference: Reference,
    /// Leases by client: those it believes to hold, and those it had.
    held: Vec<Vec<Memory>>,
    past: Vec<Vec<Memory>>,
    /// Every token that was given out.
    tokens: Vec<String>,
    coverage: Coverage,
}

/// Takes two answers for one operation; they must be the same.
fn same<T: PartialEq + fmt::Debug>(found: Result<T, wasmhost::store::Error>, expected: &T) -> Result<(), Difference> {
    match found {
        Err(error) => Err(Difference { at: None, what: format!("the store fails: {error}"), is_error: true }),
        Ok(found) if found == *expected => Ok(()),
        Ok(found) => Err(difference(format!("the answer is\n  {found:?}\nand should be\n  {expected:?}"))),
    }
}

fn difference(what: String) -> Difference {
    Difference { at: None, what, is_error: false }
}

impl Game {
    fn saw(&mut self, what: &'static str, times: usize) {
        *self.coverage.entry(what).or_default() += times as u64;
    }

    fn queue(&self, place: usize) -> String {
        format!("{}-{place}", self.tag)
    }

    fn id(&self, number: u64) -> JobId {
        JobId::from(format!("{}-{number}", self.tag).as_str())
    }

    fn later(&self, nanos: i64) -> Timestamp {
        Timestamp::from_nanos(self.reference.now + nanos)
    }

    fn pass_time(&mut self, step: &Step) {
        let now = self.reference.now;
        self.reference.now = match step {
            Step::By(nanos) => now + nanos,
            Step::ToEdge { pick, beside } => {
                let edges: Vec<i64> = self.reference.edges().into_iter().filter(|edge| edge + beside > now).collect();
                if edges.is_empty() { now } else { edges[pick % edges.len()] + beside }
            }
        };
    }

    async fn run(&mut self, client: usize, action: &Action) -> Result<(), Difference> {
        let store = self.arena.stores[client].at(self.later(0));
        match action {
            Action::Enqueue(drafts) => {
                let jobs: Vec<NewJob> = drafts.iter().map(|draft| self.new_job(draft)).collect();
                let expected = self.reference.enqueue(&jobs);
                self.saw("enqueued", expected.iter().filter(|job| job.is_new).count());
                self.saw("known before", expected.iter().filter(|job| !job.is_new).count());
                same(store.enqueue(&jobs).await, &expected)
            }
            Action::Turn { ends, ask } => {
                let settles: Vec<Settle> = ends.iter().filter_map(|end| self.settle(client, end)).collect();
                let reserve = ask.as_ref().map(|ask| self.reserve(client, ask));
                let expected = self.reference.turn(&settles, reserve.as_ref());
                self.remember(client, &settles, reserve.as_ref(), &expected);
                same(store.turn(&settles, reserve.as_ref()).await, &expected)
            }
            Action::Extend { holds, lease_ms } => {
                let lease =
                    |hold| self.hold(client, hold).map(|Memory { id, queue, token, .. }| Lease { id, queue, token });
                let leases: Vec<Lease> = holds.iter().filter_map(lease).collect();
                let expected = self.reference.extend(&leases, *lease_ms);
                self.saw("extended", expected.iter().filter(|answer| **answer == Settled::Applied).count());
                let length = Duration::from_millis(lease_ms.unsigned_abs());
                same(store.extend(&leases, length).await, &expected)
            }
            Action::Sweep { queues } => {
                let queues: Vec<String> = queues.iter().map(|place| self.queue(*place)).collect();
                let expected = self.reference.sweep(&queues);
                self.saw("reclaimed", expected.reclaimed as usize);
                self.saw("promoted", expected.promoted as usize);
                self.saw("dropped", expected.dropped as usize);
                self.saw("dead after lost workers", expected.set_aside.len());
                same(store.sweep(&queues).await, &expected)
            }
            Action::Requeue { pick, is_other_queue, after, is_reset } => {
                let (id, queue) = self.requeue_of(*pick, *is_other_queue);
                let run_at = after.map(|nanos| self.later(nanos));
                let expected = self.reference.requeue(&queue, &id.to_string(), run_at.map(Timestamp::nanos), *is_reset);
                let what = match &expected {
                    OfDead::Applied => "requeued",
                    OfDead::NotFound => "requeue of no job",
                    OfDead::NotDead => "requeue of no dead job",
                    OfDead::OtherQueue(_) => "requeue in another queue",
                };
                self.saw(what, 1);
                same(store.requeue(&queue, &id, run_at, *is_reset).await, &expected)
            }
        }
    }

    fn new_job(&self, draft: &Draft) -> NewJob {
        let id = self.id(draft.id);
        NewJob {
            id: Some(id.clone()),
            run_at: draft.after.map(|nanos| self.later(nanos)),
            idempotency_key: draft.key.map(|key| format!("k{key}")),
            max_attempts: draft.max_attempts,
            ..NewJob::new(self.queue(draft.queue), "echo", format!("for {id}"))
        }
    }

    /// The lease that a client means, with the token it shows; none when it never had one.
    fn hold(&self, client: usize, hold: &Hold) -> Option<Memory> {
        let (held, past) = (&self.held[client], &self.past[client]);
        let from = if hold.is_past && !past.is_empty() || held.is_empty() { past } else { held };
        let memory = from.get(hold.pick.checked_rem(from.len())?)?.clone();
        let token = match &hold.token {
            Token::Own => memory.token,
            Token::Foreign(pick) => self.tokens[pick % self.tokens.len()].clone(),
            Token::Unknown => "nobody's".to_owned(),
            Token::Empty => String::new(),
        };
        Some(Memory { token, ..memory })
    }

    fn settle(&self, client: usize, (hold, ending): &(Hold, Ending)) -> Option<Settle> {
        let Memory { id, queue, token, attempts } = self.hold(client, hold)?;
        let end = match ending {
            Ending::Done => done(&format!("by {token}")),
            Ending::Retry(after_ms) => super::retry(attempts + 1, Duration::from_millis(*after_ms)),
            Ending::Dlq => super::dlq(attempts + 1, "no use"),
            Ending::Release => wasmhost::store::End::Release,
        };
        Some(Settle { id, queue, token, end, fields: Vec::new(), effects: Effects::none(), digest: None })
    }

    fn reserve(&mut self, client: usize, ask: &sequence::Ask) -> Reserve {
        let token = format!("token{}", self.tokens.len());
        self.tokens.push(token.clone());
        Reserve {
            queues: ask.shares.iter().map(|&(place, take)| QueueShare { queue: self.queue(place), take }).collect(),
            limit: ask.limit,
            lease: Duration::from_millis(ask.lease_ms),
            token,
            node: format!("client{client}"),
            sweep: ask.is_sweep,
        }
    }

    /// What a client knows after a turn.
    fn remember(&mut self, client: usize, settles: &[Settle], reserve: Option<&Reserve>, turn: &Turn) {
        use wasmhost::store::Lost;
        for (settle, answer) in settles.iter().zip(&turn.settled) {
            let what = match answer {
                Settled::Applied => "applied",
                Settled::Repeated => "repeated",
                Settled::LeaseLost(Lost::NotInflight) => "not in flight",
                Settled::LeaseLost(Lost::Expired) => "expired",
                Settled::LeaseLost(Lost::Mismatch) => "another holder",
                Settled::Conflict => "conflict",
                Settled::Refused(_) => "refused",
            };
            self.saw(what, 1);
            let is_meant = |memory: &Memory| memory.id == settle.id && memory.token == settle.token;
            let (ended, held) = std::mem::take(&mut self.held[client]).into_iter().partition(is_meant);
            self.held[client] = held;
            self.past[client].extend::<Vec<_>>(ended);
        }
        self.held[client].extend(turn.reserved.jobs.iter().map(Memory::from));
        self.saw("handed out", turn.reserved.jobs.len());
        self.saw("dead after lost workers", turn.reserved.set_aside.len());
        let shares = reserve.iter().flat_map(|reserve| &reserve.queues).zip(&turn.reserved.taken_per_queue);
        let n_more = shares.filter(|(share, taken)| **taken > share.take).count();
        self.saw("left over went to the next queue", n_more);
    }

    /// What a requeue names: a dead job where there is one, else any id, which may not exist.
    fn requeue_of(&self, pick: usize, is_other_queue: bool) -> (JobId, String) {
        let dead: Vec<&String> = self.reference.queues.values().flat_map(|queue| &queue.dlq).collect();
        let id = match dead.get(pick % (dead.len() + 1)) {
            Some(id) => JobId::from(id.as_str()),
            None => self.id(pick as u64),
        };
        let own = self.reference.rows.get(&id.to_string()).map(|row| row.queue.clone());
        let other = self.queue(pick % QUEUES);
        (id, if is_other_queue { other } else { own.unwrap_or(other) })
    }

    /// Compares everything that lies in Redis for this sequence with the reference.
    async fn compare_state(&mut self) -> Result<(), Difference> {
        for place in 0..QUEUES {
            let name = self.queue(place);
            let found = self.arena.queue(&name).await;
            let expected = QueueState::of(&self.reference.queues.get(&name).cloned().unwrap_or_default());
            if found != expected {
                return Err(difference(format!("queue {name} is\n  {found:?}\nand should be\n  {expected:?}")));
            }
        }
        // Also ids that were never written, or dropped: they must have no hash.
        let ids: Vec<String> = (0..sequence::IDS).map(|number| self.id(number).to_string()).collect();
        let rows = self.arena.rows(&ids).await;
        for (id, (found, ttl)) in ids.iter().zip(rows) {
            let row = self.reference.rows.get(id);
            let expected = row.map(reference::Row::fields).unwrap_or_default();
            if found != expected {
                return Err(difference(format!("job {id} is\n  {found:?}\nand should be\n  {expected:?}")));
            }
            let has_ttl = ttl > 0;
            if has_ttl != row.is_some_and(|row| row.status == "done") {
                return Err(difference(format!("job {id} has the time to live {ttl}")));
            }
        }
        Ok(())
    }
}

/// The structures of a queue as they lie in Redis.
#[derive(Debug, PartialEq)]
struct QueueState {
    ready: Vec<String>,
    scheduled: Vec<(String, i64)>,
    inflight: Vec<(String, i64)>,
    done: Vec<String>,
    dlq: Vec<String>,
    aside: Vec<String>,
    counters: BTreeMap<String, u64>,
}

impl QueueState {
    /// What the reference says should lie there.
    fn of(queue: &Queue) -> Self {
        let scheduled = |(at, id): &(i64, String)| {
            let at = Timestamp::from_nanos(*at);
            (format!("{:09}:{id}", at.nanos_in_second()), at.seconds())
        };
        Self {
            ready: queue.ready.iter().cloned().collect(),
            scheduled: queue.scheduled.iter().map(scheduled).collect(),
            inflight: queue.inflight.iter().map(|(end, id)| (id.clone(), *end)).collect(),
            done: queue.done.clone(),
            dlq: queue.dlq.iter().cloned().collect(),
            aside: Vec::new(),
            counters: queue.counters.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
        }
    }
}

impl Arena {
    /// The structures of a queue, in one round trip.
    async fn queue(&self, name: &str) -> QueueState {
        let key = |part: &str| format!("{}:queue:{name}:{part}", self.prefix);
        let mut pipe = redis::pipe();
        for part in ["ready", "done", "dlq", "aside"] {
            pipe.cmd("LRANGE").arg(key(part)).arg(0).arg(-1);
        }
        for part in ["scheduled", "inflight"] {
            pipe.cmd("ZRANGE").arg(key(part)).arg(0).arg(-1).arg("WITHSCORES");
        }
        pipe.cmd("HGETALL").arg(key("counters"));
        let (ready, done, dlq, aside, scheduled, inflight, counters) =
            pipe.query_async(&mut self.raw.clone()).await.expect("the structures of a queue");
        QueueState { ready, scheduled, inflight, done, dlq, aside, counters }
    }

    /// The hashes of jobs, without empty texts and zeros, and their time to live, in one round trip.
    async fn rows(&self, ids: &[String]) -> Vec<(BTreeMap<String, String>, i64)> {
        let mut pipe = redis::pipe();
        for id in ids {
            let key = format!("{}:job:{id}", self.prefix);
            pipe.cmd("HGETALL").arg(&key).cmd("TTL").arg(&key);
        }
        let values: Vec<redis::Value> = pipe.query_async(&mut self.raw.clone()).await.expect("the hashes of jobs");
        let row = |pair: &[redis::Value]| {
            let mut fields: BTreeMap<String, String> = redis::from_redis_value_ref(&pair[0]).expect("a hash");
            fields.retain(|_, value| is_given(value));
            (fields, redis::from_redis_value_ref(&pair[1]).expect("a time to live"))
        };
        values.chunks(2).map(row).collect()
    }
}

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, must be a number")),
        Err(_) => otherwise,
    }
}

/// Ends the test with everything that is needed to see the failure again.
async fn explain(arena: &Arena, seed: u64, first: &Difference) -> ! {
    let n_replay = std::cell::Cell::new(0);
    let replay = |operations: Vec<Operation>| {
        n_replay.set(n_replay.get() + 1);
        let tag = format!("s{seed}r{}", n_replay.get());
        async move { arena.play(&tag, &operations).await.is_err() }
    };
    let short = sequence::shortened(sequence::sequence(seed), replay).await;
    let last = arena.play(&format!("s{seed}last"), &short).await.err();
    let last = last.map_or_else(|| "it does not fail again".to_owned(), |difference| difference.to_string());
    let lines: Vec<String> = short.iter().enumerate().map(|(n, operation)| format!("{n:2} {operation:?}")).collect();
    panic!(
        "seed {seed}, {first}\n\nshortened to {} operations, {last}\n{}\n\nagain: MODEL_SEED={seed} MODEL_SEQUENCES=1 \
         cargo test --package wasmhost --test it engine::model",
        short.len(),
        lines.join("\n"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_does_what_the_reference_says() {
    let (first, n) = (number("MODEL_SEED", 1), number("MODEL_SEQUENCES", SEQUENCES));
    let server = RedisServer::shared();
    let mut arena = Arena::at(server.url(), server.raw().await).await;
    let started = Instant::now();
    let mut coverage = Coverage::new();
    let mut seed = first;
    while seed < first + n {
        let next = (seed + BATCH).min(first + n);
        for (seed, result) in arena.play_all(seed..next).await {
            match result {
                Ok(seen) => seen.into_iter().for_each(|(what, n)| *coverage.entry(what).or_default() += n),
                Err(found) => explain(&arena, seed, &found).await,
            }
        }
        assert_consistent(&mut arena.raw, &arena.prefix).await;
        arena.clear().await;
        seed = next;
    }
    println!(
        "model: {n} sequences of {OPERATIONS} operations from seed {first} in {:?}\n{coverage:?}",
        started.elapsed()
    );
    if n >= SEQUENCES {
        let missing: BTreeSet<_> =
            MUST_HAPPEN.into_iter().filter(|what| coverage.get(what).is_none_or(|n| *n == 0)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn a_failing_sequence_is_made_short() {
    let operations = sequence::sequence(7);
    let is_sweep = |operation: &Operation| matches!(operation.action, Action::Sweep { .. });
    let n_sweeps = operations.iter().filter(|operation| is_sweep(operation)).count();
    assert!(n_sweeps >= 2, "the seed has two sweeps");
    let fails = |candidate: Vec<Operation>| async move { candidate.iter().filter(|one| is_sweep(one)).count() >= 2 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let short = runtime.block_on(sequence::shortened(operations, fails));
    assert_eq!(short.len(), 2, "{short:?}");
}
