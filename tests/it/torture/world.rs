//! What a campaign plays in: a Redis of its own, a fleet, a sink, and everything that was accepted.

use std::time::{Duration, Instant};

use wasmhost::job::{JobId, NewJob, StoreId};
use wasmhost::retry::RetryPolicy;
use wasmhost::store::{Error, Options, QueueInfo, Store};

use super::fleet::{Fleet, GRACE};
use super::plan::{Mode, Plan, QUEUE, Work};
use super::seed;
use super::sink::Sink;
use crate::support::dice::Dice;
use crate::support::guests;
use crate::support::program::Invocation;
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;

/// Jobs of one enqueue.
const BATCH: usize = 128;
/// The number of the job that is run before the others.
const WARM_UP: usize = 10_000_000;
/// Longest time without any job ending before a campaign is given up.
const STALL: Duration = Duration::from_secs(60);

/// What a campaign asks for.
pub(super) struct Setup<'a> {
    /// Options of redis-server.
    pub(super) redis: &'a [&'a str],
    pub(super) hosts: usize,
    /// Jobs that one host runs at once.
    pub(super) slots: usize,
    pub(super) lease: Duration,
    /// First delay of a retry; none leaves the default.
    pub(super) retry_base: Option<Duration>,
    pub(super) work: Work,
    /// Whether a proxy stands between Redis and those who use it.
    pub(super) is_proxied: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            redis: &[],
            hosts: 6,
            slots: 4,
            lease: Duration::from_secs(1),
            retry_base: Some(Duration::from_millis(100)),
            work: Work::Torture,
            is_proxied: false,
        }
    }
}

/// A job that Redis has taken.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) plan: Plan,
    pub(super) id: JobId,
}

/// A campaign under way.
pub(super) struct World {
    pub(super) name: &'static str,
    pub(super) redis: RedisServer,
    pub(super) prefix: String,
    /// A store of this process, straight to the server.
    pub(super) store: Store,
    pub(super) sink: Sink,
    pub(super) fleet: Fleet,
    pub(super) seed: u64,
    pub(super) dice: Dice,
    pub(super) lease: Duration,
    pub(super) slots: usize,
    pub(super) work: Work,
    pub(super) accepted: Vec<Accepted>,
    pub(super) n_faults: usize,
    pub(super) started: Instant,
    producer: Producer,
    pub(super) proxy: Option<Proxy>,
}

impl World {
    /// Starts everything but the hosts.
    pub(super) async fn new(name: &'static str, setup: Setup<'_>) -> Self {
        let seed = seed();
        println!("campaign {name}: TORTURE_SEED={seed}");
        let redis = RedisServer::start_with(setup.redis);
        let options = redis.options();
        let store = connect(&options).await;
        let sink = Sink::start().await;
        let proxy = if setup.is_proxied { Some(Proxy::before(redis.url()).await) } else { None };
        let url = proxy.as_ref().map_or(redis.url(), Proxy::url).to_owned();
        let producer = Producer {
            store: connect(&Options { url: url.clone(), ..options.clone() }).await,
            work: setup.work,
            sink: sink.url().to_owned(),
        };
        let guest = guests::path(setup.work.guest());
        let publish = ["publish", guest.to_str().expect("a UTF-8 path")];
        Invocation::new(publish).on(redis.url(), &options.prefix).run().ok();
        let mut arguments: Vec<String> = ["--redis", &url, "--prefix", &options.prefix, "--node-prefix"]
            .into_iter()
            .chain([options.prefix.as_str(), "--queue", QUEUE])
            .map(str::to_owned)
            .collect();
        arguments.extend(["--lease".to_owned(), format!("{}ms", setup.lease.as_millis())]);
        arguments.extend(["--grace".to_owned(), format!("{}ms", GRACE.as_millis())]);
        arguments.extend(["--concurrency".to_owned(), setup.slots.to_string()]);
        if setup.work == Work::Torture {
            arguments.extend(["--allow-http".to_owned(), "127.0.0.1:*".to_owned()]);
        }
        let mut variables = Vec::new();
        if let Some(base) = setup.retry_base {
            variables.push(("WASMHOST_RETRY_BASE".to_owned(), format!("{}ms", base.as_millis())));
            variables.push(("WASMHOST_RETRY_CAP".to_owned(), format!("{}ms", (base * 20).as_millis())));
        }
        Self {
            name,
            prefix: options.prefix,
            store,
            sink,
            fleet: Fleet::new(arguments, variables),
            seed,
            dice: Dice::of(seed),
            lease: setup.lease,
            slots: setup.slots,
            work: setup.work,
            accepted: Vec::new(),
            n_faults: 0,
            started: Instant::now(),
            producer,
            proxy,
            redis,
        }
    }

    /// Starts everything, with so many hosts that are ready.
    pub(super) async fn with_hosts(name: &'static str, setup: Setup<'_>) -> Self {
        let n_hosts = setup.hosts;
        let mut world = Self::new(name, setup).await;
        // The first host compiles the jumpscript; the others find its code on the disk.
        world.fleet.start(1);
        world.feed(vec![Plan::new(WARM_UP, Mode::Ok, 0)]).await;
        world.drained().await;
        world.fleet.start(n_hosts - 1);
        world
    }

    /// Enqueues jobs, as fast as it goes.
    pub(super) async fn feed(&mut self, plans: Vec<Plan>) {
        let (accepted, _) = self.producer.clone().feed(plans, Duration::ZERO).await;
        self.accepted.extend(accepted);
    }

    /// Enqueues jobs in the background, spread over a time. [`World::fed`] waits for the end.
    pub(super) fn feed_over(&self, plans: Vec<Plan>, time: Duration) -> Feeding {
        tokio::spawn(self.producer.clone().feed(plans, time))
    }

    /// Waits until everything is enqueued, and answers how often Redis was full.
    pub(super) async fn fed(&mut self, feeding: Feeding) -> usize {
        let (accepted, n_full) = feeding.await.expect("the producer");
        self.accepted.extend(accepted);
        n_full
    }

    /// The queue in numbers; nothing while Redis is away.
    pub(super) async fn queue(&self) -> Option<QueueInfo> {
        self.store.queues().await.ok()?.into_iter().find(|queue| queue.name == QUEUE)
    }

    /// Waits until every accepted job has ended and nothing waits any more.
    pub(super) async fn drained(&mut self) {
        let mut last = (0, Instant::now());
        loop {
            let queue = self.queue().await.unwrap_or_default();
            let n_ended = ended(&queue);
            let n_waiting = queue.ready + queue.scheduled + queue.inflight;
            if n_ended >= self.accepted.len() as u64 && n_waiting == 0 {
                return;
            }
            if n_ended > last.0 {
                last = (n_ended, Instant::now());
            }
            // A job that has failed often may wait for its next attempt as long as the host's policy says.
            let is_all_later = queue.ready + queue.inflight == 0 && queue.scheduled > 0;
            let limit = if is_all_later { STALL + RetryPolicy::default().cap } else { STALL };
            assert!(
                last.1.elapsed() < limit,
                "{} of {} jobs ended, and for {limit:?} none did: {queue:?}\n{}",
                n_ended,
                self.accepted.len(),
                self.fleet.last_words()
            );
            pause(Duration::from_millis(10)).await;
        }
    }
}

/// A producer that works in the background.
pub(super) type Feeding = tokio::task::JoinHandle<(Vec<Accepted>, usize)>;

/// Who enqueues.
#[derive(Clone)]
struct Producer {
    store: Store,
    work: Work,
    sink: String,
}

impl Producer {
    /// Enqueues jobs spread over a time. A call that failed for a reason that passes is made again, as a producer
    /// does; ids and idempotency keys make that safe. Answers what was accepted, and how often Redis was full.
    async fn feed(self, plans: Vec<Plan>, time: Duration) -> (Vec<Accepted>, usize) {
        let started = Instant::now();
        let n_plans = plans.len();
        let mut accepted = Vec::with_capacity(n_plans);
        let mut n_full = 0;
        let n_pieces = if time.is_zero() { n_plans.div_ceil(BATCH) } else { n_plans.min(1000) }.max(1);
        for piece in plans.chunks(n_plans.div_ceil(n_pieces).max(1)) {
            let share = u32::try_from(accepted.len()).unwrap_or(0);
            let due = time * share / u32::try_from(n_plans).unwrap_or(1).max(1);
            pause(due.saturating_sub(started.elapsed())).await;
            let jobs: Vec<NewJob> = piece.iter().map(|plan| plan.job(self.work, &self.sink)).collect();
            let answers = loop {
                match self.store.enqueue(&jobs).await {
                    Ok(answers) => break answers,
                    Err(error) => {
                        assert!(error.is_transient(), "an enqueue fails for good: {error}");
                        n_full += usize::from(matches!(error, Error::Full { .. }));
                        pause(Duration::from_millis(20)).await;
                    }
                }
            };
            let ids = answers.into_iter().map(|answer| answer.id);
            accepted.extend(piece.iter().cloned().zip(ids).map(|(plan, id)| Accepted { plan, id }));
        }
        (accepted, n_full)
    }
}

/// Jobs that have ended since the queue was made: every accepted end counts once.
pub(super) fn ended(queue: &QueueInfo) -> u64 {
    total(queue, "done") + total(queue, "dead")
}

/// A total of a queue.
pub(super) fn total(queue: &QueueInfo, name: &str) -> u64 {
    queue.counters.iter().find(|(found, _)| found == name).map_or(0, |(_, total)| *total)
}

/// The load's own rhythm: the time between two faults, or two batches of jobs.
pub(super) async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

async fn connect(options: &Options) -> Store {
    Store::connect(StoreId(0), options).await.expect("the store connects")
}
