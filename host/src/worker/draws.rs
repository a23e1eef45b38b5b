//! How a worker's reserves fare with the lists of other systems, for the bridges that take over what it leaves.

use std::collections::HashMap;

use tokio::sync::watch;

use super::Worker;
use crate::store::{Drawn, Store};

/// By queue, where another system's list belongs to it: how the last reserve fared with that.
pub(super) struct Draws(HashMap<String, watch::Sender<Drawn>>);

impl Draws {
    /// Of a worker on this store: nothing is told so far.
    pub(super) fn of(store: &Store) -> Self {
        Self(store.queues_taken_from().map(|queue| (queue.to_owned(), watch::Sender::default())).collect())
    }

    /// Tells what a reserve says.
    pub(super) fn tell(&self, drawn: &[(String, Drawn)]) {
        for (queue, drawn) in drawn {
            if let Some(told) = self.0.get(queue) {
                told.send_replace(*drawn);
            }
        }
    }
}

impl Worker {
    /// How its reserves fare with the lists of other systems that they take from, by queue; told after each.
    #[must_use]
    pub fn drawn(&self) -> HashMap<String, watch::Receiver<Drawn>> {
        self.draws.0.iter().map(|(queue, told)| (queue.clone(), told.subscribe())).collect()
    }
}
