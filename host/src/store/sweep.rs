//! Bounded housekeeping of the queues: what is due comes back.
//!
//! Next: `lua/sweep.lua`, and `maintenance` for who calls it.

use super::script::{self, Lanes, Reply};
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

/// What a sweep tells a host that waits for jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// What was swept.
    pub swept: Swept,
    /// Per queue: whether this host is the one of the fleet that watches its list.
    pub is_ours: Vec<bool>,
    /// Per queue: whether it has ready jobs.
    pub has_ready: Vec<bool>,
}

impl Store {
    /// Brings back what is due in `queues`: jobs whose lease ended (to the head), scheduled jobs whose time has come.
    /// Bounded: at most some hundred jobs a call.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn sweep(&self, queues: &[String]) -> Result<Swept, Error> {
        Ok(self.sweep_for(queues, "", false).await?.swept)
    }

    /// A [`Store::sweep`] that also takes or renews the watch of these queues for `session`, one word, as far as no
    /// other host has it. A host without room takes none.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn sweep_for(&self, queues: &[String], session: &str, has_room: bool) -> Result<Watched, Error> {
        let mut lanes = Lanes::default();
        let places: Vec<usize> = queues.iter().map(|queue| lanes.place(queue)).collect();
        let mut call = self.call(&script::SWEEP, &lanes, &[]);
        call.arg(session).arg(u8::from(has_room));
        let mut reply = self.send("a sweep", &script::SWEEP, &call).await?;
        let swept = Swept {
            now_ms: reply.number()?,
            rev: reply.text()?.parse().unwrap_or(0),
            scripts_check: reply.text()?,
            next_due_ms: reply.text()?.parse().ok(),
            reclaimed: reply.count()?,
            promoted: reply.count()?,
            dropped: reply.count()?,
            is_more: reply.count()? == 1,
            set_aside: turn::set_aside(reply.nested()?, &lanes)?,
            broken: turn::reasons(reply.nested()?, &lanes)?,
        };
        let is_ours = marked(reply.nested()?, &places)?;
        let has_ready = marked(reply.nested()?, &places)?;
        Ok(Watched { swept, is_ours, has_ready })
    }
}

/// Which of `places` an answer names.
fn marked(mut reply: Reply, places: &[usize]) -> Result<Vec<bool>, Error> {
    let mut named = Vec::with_capacity(reply.len());
    while !reply.is_empty() {
        named.push(reply.count()? as usize);
    }
    Ok(places.iter().map(|place| named.contains(place)).collect())
}
