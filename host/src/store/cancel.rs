//! Cancelling a job before it has ended.
//!
//! A running job is cancelled at once: its lease is taken away, so nothing of it commits any more. Its worker hears of
//! it over the wake channel and stops the attempt; if the message is lost, the next lease extension tells it.

use redis::Value;

use super::script::{self, Lanes};
use super::{Error, Store};
use crate::job::{JobId, JobState};

/// What became of a cancellation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled; it was in this state before.
    Applied(JobState),
    /// There is no such job.
    NotFound,
    /// It had ended before, in the state of this word.
    Ended(String),
    /// It belongs to this queue, not to the one that was named.
    OtherQueue(String),
}

impl Store {
    /// Cancels a job of `queue` that is scheduled, ready or in flight. `reason` becomes its error text.
    ///
    /// # Errors
    /// When the queue's name breaks the rules, a key is of the wrong type, or Redis cannot be reached.
    pub async fn cancel(&self, queue: &str, id: &JobId, reason: &str) -> Result<Cancelled, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::CANCEL, &lanes, &[]);
        self.sign(&mut call);
        call.arg(id.as_bytes()).arg(reason);
        let mut reply = self.send("a cancellation", &script::CANCEL, &call).await?;
        match reply.next()? {
            Value::Int(1) => {
                let word = reply.text()?;
                JobState::parse(&word).map(Cancelled::Applied).ok_or_else(|| reply.odd(&word))
            }
            Value::Int(0) => Ok(Cancelled::NotFound),
            Value::Int(-2) => Ok(Cancelled::OtherQueue(reply.text()?)),
            Value::BulkString(reason) => Err(Error::Refused(String::from_utf8_lossy(&reason).into_owned())),
            _ => Ok(Cancelled::Ended(reply.text()?)),
        }
    }
}
