//! The blocked connections: one for each queue that this host watches, and one at the bells of the others.
//!
//! A waiting peek may have been promised room: when it wakes, the reserve pipelined behind the block has already taken
//! jobs. So it is not just dropped: a drain asks each to end, and takes what had been handed out by then.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::store::{Bell, Error, Peek, PeekStop, Peeked, Reserve, Ring, Store};

/// How long one block lasts when nothing is pushed. Redis forgets nothing meanwhile; the end of a block only shows
/// that the connection still works.
const BLOCK: Duration = Duration::from_secs(60);
/// A peek that wakes sooner than this found jobs that were there before.
const AT_ONCE: Duration = Duration::from_millis(2);

/// How a peek ended.
pub(super) struct PeekEnd {
    /// The queue, by its place in the options.
    pub(super) queue: usize,
    /// Jobs it might have taken; 0 when it was to look only.
    pub(super) limit: usize,
    /// Whether it ended as soon as it began.
    pub(super) is_at_once: bool,
    /// What it found, or why its connection broke.
    pub(super) result: Result<Peeked, Error>,
}

struct Ended {
    peek: Peek,
    end: PeekEnd,
}

/// The connections blocked on lists.
pub(super) struct Peeks {
    /// By queue: a connection that is not blocked.
    idle: Vec<Option<Peek>>,
    /// By queue: what ends its block.
    stops: Vec<PeekStop>,
    /// By queue: the room it was promised.
    promises: Vec<usize>,
    waiting: FuturesUnordered<BoxFuture<'static, Ended>>,
    is_taking_back: bool,
}

impl Peeks {
    pub(super) fn new(store: &Store, queues: &[(String, u32)]) -> Self {
        let idle: Vec<Peek> = queues.iter().map(|(queue, _)| store.peek(queue)).collect();
        Self {
            stops: idle.iter().map(Peek::stopper).collect(),
            promises: vec![0; idle.len()],
            idle: idle.into_iter().map(Some).collect(),
            waiting: FuturesUnordered::new(),
            is_taking_back: false,
        }
    }

    /// Jobs that waiting peeks may still bring.
    pub(super) fn promised(&self) -> usize {
        self.promises.iter().sum()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nobody here is blocked on the queue's list at the moment.
    pub(super) fn is_quiet(&self, queue: usize) -> bool {
        self.idle[queue].is_some()
    }

    /// Blocks on a queue's list until a job is pushed, then reserves, if asked to.
    pub(super) fn wait(&mut self, queue: usize, request: Option<Reserve>) {
        let Some(mut peek) = self.idle[queue].take() else { return };
        let limit = request.as_ref().map_or(0, |request| request.limit as usize);
        self.promises[queue] = limit;
        self.waiting.push(Box::pin(async move {
            let started = Instant::now();
            let result = peek.wait(BLOCK, request.as_ref()).await;
            Ended { peek, end: PeekEnd { queue, limit, is_at_once: started.elapsed() < AT_ONCE, result } }
        }));
    }

    /// The next peek that ends. Cancel-safe.
    pub(super) async fn next(&mut self) -> PeekEnd {
        let Some(Ended { peek, end }) = self.waiting.next().await else {
            return std::future::pending().await;
        };
        self.promises[end.queue] = 0;
        self.idle[end.queue] = Some(peek);
        self.is_taking_back &= self.promised() > 0;
        end
    }

    /// Leaves a queue to another host: a waiting peek is woken, an idle connection closed.
    pub(super) fn leave(&mut self, queue: usize) {
        match &mut self.idle[queue] {
            Some(peek) => peek.close(),
            None => self.wake(queue),
        }
    }

    /// Has the peeks that were promised room give it back.
    pub(super) fn take_back(&mut self) {
        if !self.is_taking_back {
            self.is_taking_back = true;
            (0..self.promises.len()).filter(|queue| self.promises[*queue] > 0).for_each(|queue| self.wake(queue));
        }
    }

    /// A peek that had not fallen asleep yet missed the first call: the next one is made again.
    pub(super) fn forget_take_back(&mut self) {
        self.is_taking_back = false;
    }

    fn wake(&self, queue: usize) {
        let stop = self.stops[queue].clone();
        tokio::spawn(async move {
            if let Err(error) = stop.wake().await {
                tracing::debug!(%error, "blocked connection not woken");
            }
        });
    }

    /// Asks every waiting peek to end. What it had been given by then still arrives.
    pub(super) fn stop(&self) {
        for stop in self.stops.clone() {
            tokio::spawn(async move {
                if let Err(error) = stop.stop().await {
                    tracing::debug!(%error, "blocked connection not closed");
                }
            });
        }
    }
}

/// How a wait at the bells ended: the queue whose bell rang, and what for.
pub(super) type BellEnd = Result<Option<(usize, Ring)>, Error>;

/// The connection at the bells of the queues that other hosts watch.
pub(super) struct Bells {
    store: Store,
    idle: Option<Bell>,
    /// The queues of the last wait.
    queues: Vec<usize>,
    waiting: Option<BoxFuture<'static, (Bell, BellEnd)>>,
}

impl Bells {
    pub(super) fn new(store: &Store) -> Self {
        Self { store: store.clone(), idle: None, queues: Vec::new(), waiting: None }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Waits at the bells of these queues; a wait that leaves one of them out begins anew. Without any it ends.
    pub(super) fn listen(&mut self, queues: Vec<usize>, names: &[(String, u32)]) {
        if queues.is_empty() {
            return self.stop();
        }
        if self.is_waiting() && queues.iter().all(|queue| self.queues.contains(queue)) {
            return;
        }
        self.waiting = None;
        let names: Vec<String> = queues.iter().map(|queue| names[*queue].0.clone()).collect();
        self.queues = queues;
        let mut bell = self.idle.take().unwrap_or_else(|| self.store.bell());
        self.waiting = Some(Box::pin(async move {
            let result = bell.wait(&names, BLOCK).await;
            (bell, result)
        }));
    }

    /// The end of the wait. Cancel-safe.
    pub(super) async fn next(&mut self) -> BellEnd {
        let Some(waiting) = &mut self.waiting else { return std::future::pending().await };
        let (bell, result) = waiting.await;
        self.waiting = None;
        self.idle = Some(bell);
        Ok(result?.and_then(|(place, ring)| Some((*self.queues.get(place)?, ring))))
    }

    /// Closes the connection.
    pub(super) fn stop(&mut self) {
        (self.waiting, self.idle) = (None, None);
    }
}
