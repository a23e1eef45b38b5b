//! Bringing a dead job back.

use redis::Value;

use super::script::{self, Lanes};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::job::JobId;

/// What became of a requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// It waits again.
    Applied,
    /// There is no such job.
    NotFound,
    /// It is not in the dead-letter queue.
    NotDead,
    /// It belongs to this queue, not to the one that was named.
    OtherQueue(String),
}

impl Store {
    /// Brings a dead job of `queue` back: to the tail of its queue, or to `run_at`. Its hand-outs begin anew; with
    /// `is_reset` its failed attempts are forgotten too.
    ///
    /// # Errors
    /// When the queue's name breaks the rules, a key is of the wrong type, or Redis cannot be reached.
    pub async fn requeue(
        &self,
        queue: &str,
        id: &JobId,
        run_at: Option<Timestamp>,
        is_reset: bool,
    ) -> Result<Requeued, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::REQUEUE, &lanes, &[]);
        call.arg(id.as_bytes());
        match run_at {
            None => call.arg("").arg(""),
            Some(at) => call.arg(at.seconds()).arg(format!("{:09}", at.nanos_in_second())),
        };
        call.arg(u8::from(is_reset));
        let mut reply = self.send("a requeue", &script::REQUEUE, &call).await?;
        match reply.next()? {
            Value::Int(1) => Ok(Requeued::Applied),
            Value::Int(0) => Ok(Requeued::NotFound),
            Value::Int(-2) => Ok(Requeued::OtherQueue(reply.text()?)),
            Value::BulkString(reason) => Err(Error::Refused(String::from_utf8_lossy(&reason).into_owned())),
            _ => Ok(Requeued::NotDead),
        }
    }
}
