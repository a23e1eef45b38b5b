//! What a worker does while Redis does not answer.

use std::time::Instant;

use super::{BACKOFF_MAX, BACKOFF_MIN, Worker};
use crate::store::Error;

impl Worker {
    pub(super) fn redis_answered(&mut self) {
        if self.backoff > BACKOFF_MIN {
            tracing::info!("redis answers again");
            // What was pushed meanwhile woke nobody here.
            self.is_hot = true;
        }
        self.backoff = BACKOFF_MIN;
    }

    pub(super) fn redis_failed(&mut self, error: &Error) {
        if self.backoff == BACKOFF_MIN {
            tracing::error!(%error, "redis does not answer, trying again");
        }
        self.paused_until = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.is_hot = true;
    }
}
