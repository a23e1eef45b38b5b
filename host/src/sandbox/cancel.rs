//! Stopping a running attempt from any thread: first it may be asked, then it is stopped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Set once, from any thread: a computing guest is stopped at the next tick, a waiting one is woken and dropped.
#[derive(Clone, Default)]
pub struct CancelFlag {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_set: AtomicBool,
    is_asked: AtomicBool,
    wake: Notify,
}

impl CancelFlag {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels. Further calls do nothing.
    pub fn cancel(&self) {
        self.shared.is_set.store(true, Ordering::Release);
        self.shared.wake.notify_waiters();
    }

    /// Asks the attempt to come to its end; it goes on until it looks.
    pub fn ask(&self) {
        self.shared.is_asked.store(true, Ordering::Release);
    }

    /// Whether it was asked to come to its end, or cancelled.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.shared.is_asked.load(Ordering::Acquire) || self.is_cancelled()
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_set.load(Ordering::Acquire)
    }

    /// Resolves when it is cancelled. Cancel-safe.
    pub async fn cancelled(&self) {
        // Made before the flag is read: a `cancel` between the two is not missed.
        let woken = self.shared.wake.notified();
        if !self.is_cancelled() {
            woken.await;
        }
    }
}

impl fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelFlag").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_woken_and_a_late_one_does_not_wait() {
        let flag = CancelFlag::new();
        let other = flag.clone();
        tokio::join!(flag.cancelled(), async move { other.cancel() });
        flag.cancelled().await;
        assert!(flag.is_cancelled());
    }
}
