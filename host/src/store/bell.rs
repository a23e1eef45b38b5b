//! The bells: lists that wake exactly one idle host each time.
//!
//! Of all hosts that serve a queue only one watches its list ([`super::Peek`]). The others wait at the queue's bell. Who
//! has more jobs in front of it than room rings; the one that wakes does the same in its turn, so a burst spreads host
//! by host, and a single push wakes nobody for nothing.
//!
//! Invariant: a bell decides nothing. One that is not heard delays a job until the next sweep.

use std::time::Duration;

use super::peek::Rested;
use super::script::{self, Lanes, Reply};
use super::{Error, Store};

/// What a host that wakes is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Take jobs: there are more than another host has room for.
    More,
    /// Watch the queue's list: the host that did has no room, or has stopped.
    Watch,
}

impl Ring {
    const fn word(self) -> &'static str {
        match self {
            Self::More => "more",
            Self::Watch => "watch",
        }
    }
}

/// A connection of its own that sleeps at bells.
#[derive(Debug)]
pub struct Bell {
    store: Store,
    connection: Rested,
}

impl Bell {
    /// Sleeps until one of the bells rings for this caller, at most `timeout`: the place of its queue, and what for. A
    /// word that is not understood comes from a newer host and is taken for [`Ring::More`].
    ///
    /// Dropping the future closes the connection; the next call opens a new one.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait(&mut self, queues: &[String], timeout: Duration) -> Result<Option<(usize, Ring)>, Error> {
        let link = &self.store.link;
        // Out of `self` for the time being: a future that is dropped half-way takes the connection with it.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => link.own().await?,
        };
        let mut command = redis::cmd("BLPOP");
        for queue in queues {
            command.arg(self.store.keys.bell(queue));
        }
        command.arg(timeout.as_secs_f64());
        let answer = link.blocked("a wait at a bell", timeout, connection.send_packed_command(&command)).await?;
        let mut reply = Reply::new(answer, link.address(), "a wait at a bell");
        self.connection.keep(connection);
        if reply.is_empty() {
            return Ok(None);
        }
        let key = reply.bytes()?;
        let place = queues.iter().position(|queue| self.store.keys.bell(queue).as_bytes() == key).unwrap_or(0);
        Ok(Some((place, if reply.bytes()? == b"watch" { Ring::Watch } else { Ring::More })))
    }
}

impl Store {
    /// A place at the bells; the connection is made by the first [`Bell::wait`].
    #[must_use]
    pub fn bell(&self) -> Bell {
        Bell { store: self.clone(), connection: Rested::of(self) }
    }

    /// Wakes one idle host. [`Ring::More`] rings the first of `queues` that has ready jobs, and no other;
    /// [`Ring::Watch`] gives up what `session` watches of them, and rings for each that nobody watches then. Returns
    /// how many bells were rung; one that lies unheard already is not rung again.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn ring(&self, queues: &[String], session: &str, ring: Ring) -> Result<u32, Error> {
        let mut lanes = Lanes::default();
        for queue in queues {
            lanes.place(queue);
        }
        let mut call = self.call(&script::RING, &lanes, &[]);
        call.arg(session).arg(ring.word());
        self.send("the ring of a bell", &script::RING, &call).await?.count()
    }
}
