//! Bounded housekeeping of the queues: what is due comes back.
//!
//! Next: `lua/sweep.lua`, and `maintenance` for who calls it.

use super::script::{self, Lanes};
use super::{Error, SetAside, Store, turn};

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs whose lease had ended and that are ready again, at the head.
    pub reclaimed: u32,
    /// Scheduled jobs that are ready now.
    pub promoted: u32,
    /// Jobs that were handed out too often, or could not be brought back, with the reason.
    pub set_aside: Vec<SetAside>,
    /// Dead rows dropped because the DLQ is over its cap or they are too old.
    pub dropped: u32,
    /// Queues that cannot be swept, with the reason.
    pub broken: Vec<(String, String)>,
    /// Whether more is due right now: sweep again at once.
    pub is_more: bool,
    /// When the next lease ends or scheduled job is due in these queues.
    pub next_due_ms: Option<i64>,
    /// The revision of the published jumpscripts; 0 when there is none (nothing published, or FLUSHALL).
    pub rev: u64,
    /// Changes whenever a record in `workers:jumpscripts:name` does, whoever wrote it. When it differs from the last
    /// one, call [`Store::adopt_foreign`].
    pub scripts_check: String,
    /// The server's clock.
    pub now_ms: i64,
}

impl Store {
    /// Brings back what is due in `queues`: jobs whose lease ended (to the head), scheduled jobs whose time has come.
    /// Bounded: at most some hundred jobs a call.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn sweep(&self, queues: &[String]) -> Result<Swept, Error> {
        let mut lanes = Lanes::default();
        for queue in queues {
            lanes.place(queue);
        }
        let call = self.call(&script::SWEEP, &lanes, &[]);
        let mut reply = self.send("a sweep", &script::SWEEP, &call).await?;
        Ok(Swept {
            now_ms: reply.number()?,
            rev: reply.text()?.parse().unwrap_or(0),
            scripts_check: reply.text()?,
            next_due_ms: reply.text()?.parse().ok(),
            reclaimed: reply.count()?,
            promoted: reply.count()?,
            dropped: reply.count()?,
            is_more: reply.count()? == 1,
            set_aside: turn::set_aside(reply.nested()?, &lanes)?,
            broken: turn::broken(reply.nested()?, &lanes)?,
        })
    }
}
