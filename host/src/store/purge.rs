//! Removing the jobs of a queue that do not run, with their rows.
//!
//! Invariant: a call takes at most 500 entries, and no job that runs.

use redis::Value;

use super::list::Listed;
use super::script::{self, Lanes};
use super::{Error, Store};

/// Entries of one call.
const PURGE_MAX: usize = 500;

/// A purge of one structure of a queue, step by step; it can be left at any time. It ends with as many entries as were
/// there at its start, so that it does not run after a producer.
#[derive(Debug)]
pub struct Purge {
    store: Store,
    queue: String,
    listed: Listed,
    step: String,
    left: u64,
}

impl Store {
    /// Begins a purge of the jobs of `queue` in a state, of which there are `n` now. Nothing is removed yet.
    ///
    /// # Errors
    /// When the queue's name breaks the rules, or the jobs of that state run.
    pub fn purge(&self, queue: &str, listed: Listed, n: u64) -> Result<Purge, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        if listed == Listed::State(crate::job::JobState::Inflight) {
            return Err(Error::Refused("jobs that run are not purged; `wasmhost jobs cancel` stops one".to_owned()));
        }
        // Their number is kept beside them, and may be wrong; but only hosts park jobs, from those that are ready.
        let left = if listed == Listed::Parked { u64::MAX } else { n };
        Ok(Purge { store: self.clone(), queue: queue.to_owned(), listed, step: "0".to_owned(), left })
    }
}

impl Purge {
    /// Takes the next entries; how many rows were removed. `None` at the end.
    ///
    /// # Errors
    /// When a key is of the wrong type, or Redis cannot be reached.
    pub async fn next(&mut self) -> Result<Option<u64>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut lanes = Lanes::default();
        lanes.place(&self.queue);
        let mut call = self.store.call(&script::PURGE, &lanes, &[]);
        self.store.sign(&mut call);
        call.arg(self.listed.as_str()).arg(&self.step).arg(self.left.min(PURGE_MAX as u64));
        let mut reply = self.store.send("a purge", &script::PURGE, &call).await?;
        let n_taken = match reply.next()? {
            Value::Int(n) => n.unsigned_abs(),
            Value::BulkString(reason) => return Err(Error::Refused(String::from_utf8_lossy(&reason).into_owned())),
            other => return Err(reply.odd(&format!("{other:?}"))),
        };
        let n_removed = reply.number()?.unsigned_abs();
        let is_end = reply.number()? == 1;
        self.step = reply.text()?;
        self.left = if is_end { 0 } else { self.left.saturating_sub(n_taken) };
        Ok(Some(n_removed))
    }
}
