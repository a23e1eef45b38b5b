//! Bridges: what other systems push becomes jobs of ours.
//!
//! A [`Bridge`] names the lists of its system and says what a message means; the [`Service`] does the rest, the same for
//! all. One host of the fleet watches a list: it is blocked on it and takes messages over in batches when there are any.
//! The watch is a lease, renewed by one call for all lists of a protocol, which also tells every host which lists have
//! entries: those that nobody takes over are taken over by whoever sees them.
//!
//! A long list is left to the worker of this host for as long as that takes from it itself (`store/lua/direct.lua`),
//! which costs Redis far less: the service takes over what the worker leaves, and a first batch, which wakes it.
//!
//! Invariant: none of this decides who gets a message. A take-over is one script; two hosts at one list take nothing
//! twice, and a host that dies between two calls has taken nothing, or a job that lies in a queue of ours.
//!
//! Next: `protocol` for what messages mean, `store/lua/take_over.lua` for the take-over.

mod hero;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

pub use self::hero::Hero;

use crate::protocol::{Message, Protocol, Record, Source};
use crate::shutdown;
use crate::store::{Drawn, Error, Store, TakenOver, Told, new_token};

/// Messages of one take-over.
const BATCH: usize = 128;
/// Jobs that wait in a queue before no more are taken over into it: what is not needed yet stays where its system sees
/// it, and other programs may take it.
pub const WAITING_MAX: u32 = 4096;
/// How often the watch is renewed; a third of its length, and less than one command a second.
const WATCH_PERIOD: Duration = Duration::from_millis(1200);
/// How long one blocking call lasts.
const BLOCK: Duration = Duration::from_secs(60);
/// First and longest pause while a queue takes no more, or Redis is away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// A worker that was silent for this long takes nothing from a list at the moment.
const SILENCE: Duration = Duration::from_millis(50);
/// How long a stop waits for Redis to hear that the watch is free.
const GOODBYE: Duration = Duration::from_secs(1);

/// One system: where its messages come in, and what they mean.
pub trait Bridge: Send + Sync {
    /// Which system.
    fn protocol(&self) -> Protocol;

    /// The lists that are watched.
    fn sources(&self) -> &[Source];

    /// What a message of one of these lists means.
    fn read(&self, source: &Source, id: &[u8], record: &Record) -> Message;
}

/// What a host knows of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Duty {
    /// Whether this host watches it.
    is_ours: bool,
    /// How often it was seen to have entries: each time is a reason to look.
    n_seen: u64,
}

/// The service that works one bridge.
pub struct Service {
    store: Store,
    bridge: Arc<dyn Bridge>,
    /// This host among all, one word.
    session: String,
    faults: Faults,
    /// How the worker of this host fares with the lists, by queue.
    drawn: HashMap<String, watch::Receiver<Drawn>>,
}

impl Service {
    /// A service that has not started. `faults` hears of lists that cannot be read.
    #[must_use]
    pub fn new(store: Store, bridge: Arc<dyn Bridge>, node: &str, faults: Faults) -> Self {
        let session = format!("{}@{}", &new_token()[..12], node.replace(char::is_whitespace, "_"));
        Self { store, bridge, session, faults, drawn: HashMap::new() }
    }

    /// Leaves to a worker what it takes itself: how it fares with the lists, by queue.
    #[must_use]
    pub fn beside(self, drawn: HashMap<String, watch::Receiver<Drawn>>) -> Self {
        Self { drawn, ..self }
    }

    /// Runs until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let duties: Vec<watch::Sender<Duty>> = self.bridge.sources().iter().map(|_| watch::Sender::default()).collect();
        let lists = self.bridge.sources().iter().zip(&duties).map(|(source, duty)| {
            let drawn = self.drawn.get(&source.queue).cloned();
            let list = List { service: &self, source, drawn, pause: PAUSE.0, is_away: false };
            list.run(duty.subscribe(), stop.clone())
        });
        let lists: Vec<_> = lists.collect();
        let mut tick = interval(WATCH_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let renewing = async {
            loop {
                tokio::select! {
                    _ = tick.tick() => self.renew(&duties).await,
                    () = shutdown::requested(&mut stop) => return,
                }
            }
        };
        tokio::join!(renewing, future::join_all(lists));
        let left = self.store.leave_lists(self.bridge.sources(), &self.session);
        if !matches!(timeout(GOODBYE, left).await, Ok(Ok(()))) {
            tracing::debug!("redis was not told that nobody watches these lists any more");
        }
    }

    /// Takes or renews the watch of all lists, and learns which have entries.
    async fn renew(&self, duties: &[watch::Sender<Duty>]) {
        match self.store.watch_lists(self.bridge.sources(), &self.session).await {
            Ok(told) => {
                for (duty, Told { is_ours, has_entries }) in duties.iter().zip(told) {
                    duty.send_if_modified(|known| {
                        let new = Duty { is_ours, n_seen: known.n_seen + u64::from(has_entries) };
                        std::mem::replace(known, new) != new
                    });
                }
            }
            Err(error) => tracing::debug!(%error, protocol = %self.bridge.protocol(), "watch of lists not renewed"),
        }
    }
}

/// One list under way.
struct List<'a> {
    service: &'a Service,
    source: &'a Source,
    /// How the worker of this host fares with it, if it takes from it.
    drawn: Option<watch::Receiver<Drawn>>,
    /// How long it is left alone after a look that brought nothing.
    pause: Duration,
    /// Whether Redis did not answer the last time; told once.
    is_away: bool,
}

/// What a round of take-overs ended with.
enum Round {
    /// The list is empty.
    Empty,
    /// There is more, but not now: the queue is full, a key is broken, Redis is away.
    Later,
}

impl List<'_> {
    async fn run(mut self, mut duty: watch::Receiver<Duty>, mut stop: watch::Receiver<bool>) {
        let mut peek = self.service.store.peek_list(&self.source.list);
        let mut resting: Option<Duration> = None;
        loop {
            let Duty { is_ours, .. } = *duty.borrow_and_update();
            let is_due = tokio::select! {
                () = shutdown::requested(&mut stop) => return,
                // A peek that is dropped closes its connection; it takes nothing, so nothing is lost.
                changed = duty.changed() => match changed {
                    Ok(()) => resting.is_none(),
                    Err(_) => return,
                },
                () = sleep(resting.unwrap_or_default()), if resting.is_some() => true,
                peeked = peek.wait(BLOCK, None), if is_ours && resting.is_none() => match peeked {
                    Ok(peeked) => peeked.has_woken,
                    Err(error) => {
                        self.failed(&error);
                        resting = Some(self.longer());
                        false
                    }
                },
            };
            if is_due {
                resting = match self.take_all(&stop).await {
                    Round::Empty => None,
                    Round::Later => Some(self.longer()),
                };
            }
        }
    }

    /// The next pause, twice as long as the last one.
    fn longer(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(PAUSE.1);
        pause
    }

    /// Takes messages over until there are none, or no more can be taken now.
    async fn take_all(&mut self, stop: &watch::Receiver<bool>) -> Round {
        while !*stop.borrow() {
            if let Some(drawn) = &mut self.drawn {
                drawn.mark_unchanged();
            }
            match self.take_some().await {
                Ok(None) => {
                    self.pause = PAUSE.0;
                    return Round::Empty;
                }
                Ok(Some((taken, is_long))) => {
                    if taken.taken > 0 {
                        self.pause = PAUSE.0;
                    }
                    if taken.is_full || taken.taken == 0 {
                        return Round::Later;
                    }
                    if is_long && self.is_emptied(stop).await {
                        return Round::Empty;
                    }
                }
                Err(error) => {
                    self.failed(&error);
                    return Round::Later;
                }
            }
        }
        Round::Later
    }

    /// Leaves a long list to the worker while that takes from it. Whether it has emptied it; else the rest is for us.
    async fn is_emptied(&mut self, stop: &watch::Receiver<bool>) -> bool {
        let Some(drawn) = &mut self.drawn else { return false };
        while !*stop.borrow() && matches!(timeout(SILENCE, drawn.changed()).await, Ok(Ok(()))) {
            match *drawn.borrow_and_update() {
                Drawn::More => {}
                Drawn::Empty => return true,
                Drawn::Left => return false,
            }
        }
        false
    }

    /// One batch, and whether the list had more; `None` when it is empty.
    async fn take_some(&mut self) -> Result<Option<(TakenOver, bool)>, Error> {
        let Self { service, source, .. } = self;
        let look = service.store.look_at(source, BATCH, WAITING_MAX).await?;
        self.is_away = false;
        if look.found.is_empty() {
            service.faults.mended(source);
            // Entries that are not shown: the queue has no room for them.
            let is_full = look.length > 0;
            return Ok(is_full.then(|| (TakenOver { is_full, ..TakenOver::default() }, true)));
        }
        let is_long = look.length > look.found.len() as u64;
        let messages: Vec<_> = look
            .found
            .into_iter()
            .map(|found| {
                let message = service.bridge.read(source, &found.id, &found.record);
                (found, message)
            })
            .collect();
        let taken = service.store.take_over(service.bridge.protocol(), source, &messages, WAITING_MAX).await?;
        service.faults.mended(source);
        for aside in &taken.set_aside {
            tracing::warn!(job = %aside.id, queue = %aside.queue, reason = %aside.reason, "message not taken as a job");
        }
        if taken.taken > 0 {
            tracing::debug!(queue = %source.queue, taken = taken.taken, new = taken.new, known = taken.known, "taken over");
        }
        Ok(Some((taken, is_long)))
    }

    fn failed(&mut self, error: &Error) {
        if error.is_transient() {
            if !std::mem::replace(&mut self.is_away, true) {
                tracing::warn!(queue = %self.source.queue, %error, "messages stay in their list");
            }
        } else {
            self.service.faults.found(self.source, error.to_string());
        }
    }
}

/// What keeps lists from being read, by list: for the health checks.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    known: Arc<Mutex<BTreeMap<String, String>>>,
    told: watch::Sender<Vec<String>>,
}

impl Faults {
    /// Each fault as a sentence; empty while all is well.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Vec<String>> {
        self.told.subscribe()
    }

    fn found(&self, source: &Source, what: String) {
        let fault = format!("messages for queue `{}`: {what}", source.queue);
        self.change(|known| {
            if known.insert(source.queue.clone(), fault.clone()).as_ref() != Some(&fault) {
                tracing::error!(%fault, "list cannot be read");
            }
        });
    }

    fn mended(&self, source: &Source) {
        self.change(|known| {
            known.remove(&source.queue);
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let now: Vec<String> = known.values().cloned().collect();
        self.told.send_if_modified(|told| std::mem::replace(told, now.clone()) != now);
    }
}
