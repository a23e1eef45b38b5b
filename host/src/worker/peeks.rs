//! One blocked connection for each quiet queue.
//!
//! A waiting peek has been promised room: when it wakes, the reserve pipelined behind the block has already taken
//! jobs. So it is not just dropped: a drain asks each to end, and takes what had been handed out by then.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::store::{Error, Peek, PeekStop, Reservation, Reserve, Store};

/// How long one block lasts when nothing is pushed. Redis forgets nothing meanwhile; the end of a block only shows
/// that the connection still works.
const BLOCK: Duration = Duration::from_secs(60);

/// How a peek ended.
pub(super) enum PeekEnd {
    /// It woke, or its time was up.
    Answer {
        /// Jobs it might have taken.
        limit: usize,
        /// What it took.
        reservation: Reservation,
    },
    /// Its connection broke.
    Failed(Error),
}

struct Ended {
    queue: usize,
    peek: Peek,
    limit: usize,
    result: Result<Reservation, Error>,
}

/// The blocked connections of a worker.
pub(super) struct Peeks {
    /// By queue: a connection that is not blocked.
    idle: Vec<Option<Peek>>,
    /// By queue: what ends its block.
    stops: Vec<PeekStop>,
    waiting: FuturesUnordered<BoxFuture<'static, Ended>>,
    promised: usize,
}

impl Peeks {
    pub(super) fn new(store: &Store, queues: &[(String, u32)]) -> Self {
        let idle: Vec<Peek> = queues.iter().map(|(queue, _)| store.peek(queue)).collect();
        Self {
            stops: idle.iter().map(Peek::stopper).collect(),
            idle: idle.into_iter().map(Some).collect(),
            waiting: FuturesUnordered::new(),
            promised: 0,
        }
    }

    /// Jobs that waiting peeks may still bring.
    pub(super) fn promised(&self) -> usize {
        self.promised
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The queues that nobody watches at the moment.
    pub(super) fn quiet(&self) -> Vec<usize> {
        (0..self.idle.len()).filter(|n| self.idle[*n].is_some()).collect()
    }

    /// Blocks on a queue's list until a job is pushed, then reserves.
    pub(super) fn wait(&mut self, queue: usize, request: Reserve) {
        let Some(mut peek) = self.idle[queue].take() else { return };
        let limit = request.limit as usize;
        self.promised += limit;
        self.waiting.push(Box::pin(async move {
            let result = peek.wait(BLOCK, &request).await;
            Ended { queue, peek, limit, result }
        }));
    }

    /// The next peek that ends. Cancel-safe.
    pub(super) async fn next(&mut self) -> PeekEnd {
        let Some(Ended { queue, peek, limit, result }) = self.waiting.next().await else {
            return std::future::pending().await;
        };
        self.promised -= limit;
        self.idle[queue] = Some(peek);
        match result {
            Ok(reservation) => PeekEnd::Answer { limit, reservation },
            Err(error) => PeekEnd::Failed(error),
        }
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
