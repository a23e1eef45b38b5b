//! Whoever waits for the end of a job: one subscription for all of them.
//!
//! Invariant: a message decides nothing. It makes its waiter look at the job, as does every couple of seconds without
//! one: other programs end jobs without a word, and a message can be lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::answer::{BUSY, Problem};
use super::{STREAMS_MAX, WAITS_MAX};
use crate::job::JobId;
use crate::store::Store;

/// Pause before the channel is listened to again after it could not be.
const DEAF_PAUSE: Duration = Duration::from_millis(250);

/// What a waiter is: the limits differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A request that waits for the end.
    Wait,
    /// A stream of events.
    Stream,
}

/// All waiters.
#[derive(Debug)]
pub(super) struct Waiters {
    by_id: Mutex<HashMap<JobId, Vec<Arc<Notify>>>>,
    first: Notify,
    waits: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A place among the waiters; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    waiters: Arc<Waiters>,
    id: JobId,
    notify: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Waiters {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            by_id: Mutex::default(),
            first: Notify::new(),
            waits: Arc::new(Semaphore::new(WAITS_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        WAITS_MAX + STREAMS_MAX - self.waits.available_permits() - self.streams.available_permits()
    }

    /// A place for one more.
    pub(super) fn place(self: &Arc<Self>, id: &JobId, waiter: Waiter) -> Result<Place, Problem> {
        let permits = match waiter {
            Waiter::Wait => &self.waits,
            Waiter::Stream => &self.streams,
        };
        let permit = Arc::clone(permits).try_acquire_owned().map_err(|_| {
            Problem::new(BUSY, "as many requests wait for jobs as there may be")
                .hint("wait for fewer jobs at once, or look at them now and then")
        })?;
        let notify = Arc::<Notify>::default();
        self.lock().entry(id.clone()).or_default().push(Arc::clone(&notify));
        self.first.notify_one();
        Ok(Place { waiters: Arc::clone(self), id: id.clone(), notify, _permit: permit })
    }

    /// Listens for ends as long as somebody waits; for ever.
    pub(super) async fn listen(self: Arc<Self>, store: Store) {
        loop {
            while self.lock().is_empty() {
                self.first.notified().await;
            }
            match store.listen_to_ends().await {
                Ok(mut ends) => {
                    // What ended before somebody listened is found by a look.
                    self.wake_all();
                    while !self.lock().is_empty() {
                        match ends.next().await {
                            Some(id) => self.wake(&id),
                            None => break,
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "http does not hear of ends");
                    tokio::time::sleep(DEAF_PAUSE).await;
                }
            }
        }
    }

    fn wake(&self, id: &JobId) {
        // Whoever is just looking at the job finds the word afterwards.
        self.lock().get(id).into_iter().flatten().for_each(|notify| notify.notify_one());
    }

    fn wake_all(&self) {
        self.lock().values().flatten().for_each(|notify| notify.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Vec<Arc<Notify>>>> {
        // Every change is whole, so a poisoned lock still guards good data.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when the job may have ended.
    pub(super) async fn may_have_ended(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_id = self.waiters.lock();
        if let Some(places) = by_id.get_mut(&self.id) {
            places.retain(|notify| !Arc::ptr_eq(notify, &self.notify));
            if places.is_empty() {
                by_id.remove(&self.id);
            }
        }
    }
}
