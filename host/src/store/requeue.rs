//! What people do with dead jobs: bring them back, remove them, take them along to another Redis.
//!
//! Invariant: every call is bounded by the entries of the DLQ that it walks over, however many jobs it names.

use redis::Value;

use super::link::Script;
use super::list::Filter;
use super::script::{self, Call, Lanes, Reply};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::job::JobId;

/// What became of what was asked for a dead job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfDead {
    /// It is done: the job waits again, or its row is gone.
    Applied,
    /// There is no such job.
    NotFound,
    /// It is not in the dead-letter queue.
    NotDead,
    /// It belongs to this queue, not to the one that was named.
    OtherQueue(String),
}

/// How many entries of an id are taken from the DLQ: of one that a person names all, of one found there the first,
/// which is the one that was found.
const ALL: u8 = 0;
const FIRST: u8 = 1;
/// Ids in one call.
const IDS_MAX: usize = 500;
/// Entries of a DLQ that the removals of one call walk over.
const STEPS_MAX: usize = 200_000;

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
    ) -> Result<OfDead, Error> {
        let mut answers = self.requeue_some(queue, std::slice::from_ref(id), run_at, is_reset, ALL).await?;
        Ok(answers.pop().unwrap_or(OfDead::NotFound))
    }

    /// Brings the jobs of one batch of a [`DeadWalk`] back, as [`Store::requeue`] does; one answer each.
    ///
    /// # Errors
    /// As [`Store::requeue`].
    pub async fn requeue_found(
        &self,
        queue: &str,
        ids: &[JobId],
        run_at: Option<Timestamp>,
        is_reset: bool,
    ) -> Result<Vec<OfDead>, Error> {
        self.requeue_some(queue, ids, run_at, is_reset, FIRST).await
    }

    async fn requeue_some(
        &self,
        queue: &str,
        ids: &[JobId],
        run_at: Option<Timestamp>,
        is_reset: bool,
        n_entries: u8,
    ) -> Result<Vec<OfDead>, Error> {
        let more = |call: &mut Call| {
            match run_at {
                None => call.arg("").arg(""),
                Some(at) => call.arg(at.seconds()).arg(format!("{:09}", at.nanos_in_second())),
            };
            call.arg(u8::from(is_reset));
        };
        self.ask_of_dead("a requeue", &script::REQUEUE, queue, ids, n_entries, more).await
    }

    /// Calls a script for dead jobs; `more` is what it takes before them.
    async fn ask_of_dead(
        &self,
        what: &'static str,
        script: &'static Script,
        queue: &str,
        ids: &[JobId],
        n_entries: u8,
        more: impl FnOnce(&mut Call),
    ) -> Result<Vec<OfDead>, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(script, &lanes, &[]);
        self.sign(&mut call);
        more(&mut call);
        call.arg(n_entries).arg(ids.len());
        for id in ids {
            call.arg(id.as_bytes());
        }
        let mut reply = self.send(what, script, &call).await?;
        ids.iter().map(|_| reply.nested().and_then(of_dead)).collect()
    }

    /// Removes a dead job of `queue` for good, with its row and its idempotency key.
    ///
    /// # Errors
    /// As [`Store::requeue`].
    pub async fn drop_dead(&self, queue: &str, id: &JobId) -> Result<OfDead, Error> {
        let mut answers = self.drop_some(queue, std::slice::from_ref(id), ALL).await?;
        Ok(answers.pop().unwrap_or(OfDead::NotFound))
    }

    /// Removes the jobs of one batch of a [`DeadWalk`], as [`Store::drop_dead`] does; one answer each.
    ///
    /// # Errors
    /// As [`Store::requeue`].
    pub async fn drop_found(&self, queue: &str, ids: &[JobId]) -> Result<Vec<OfDead>, Error> {
        self.drop_some(queue, ids, FIRST).await
    }

    async fn drop_some(&self, queue: &str, ids: &[JobId], n_entries: u8) -> Result<Vec<OfDead>, Error> {
        self.ask_of_dead("a removal of dead jobs", &script::DROP, queue, ids, n_entries, |_| ()).await
    }

    /// Begins a walk over the dead jobs that the DLQ of `queue` has now, the oldest first.
    ///
    /// # Errors
    /// When the queue's name breaks the rules, its DLQ is no list, or Redis cannot be reached.
    pub async fn walk_dead(&self, queue: &str, filter: Filter) -> Result<DeadWalk, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        let mut command = redis::cmd("LLEN");
        command.arg(self.keys.dlq(queue));
        let answer = self.link.command("the length of a DLQ", &command).await?;
        let left = Reply::new(answer, self.address(), "the length of a DLQ").count()? as usize;
        Ok(DeadWalk { store: self.clone(), queue: queue.to_owned(), filter, at: 0, left })
    }

    /// Every field of a job's row, names and values byte for byte; nothing when there is no such job.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the key is not a hash.
    pub async fn row(&self, id: &JobId) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.job(id));
        let answer = self.link.command("a job's row", &command).await?;
        let mut reply = Reply::new(answer, self.address(), "a job's row");
        let mut fields = Vec::with_capacity(reply.len() / 2);
        while !reply.is_empty() {
            fields.push((reply.bytes()?, reply.bytes()?));
        }
        Ok(fields)
    }

    /// Writes a dead job with these fields into the DLQ of `queue`. Its state, queue and lease are set here, and its
    /// days in the DLQ begin anew. `false` when there is a job of this id, in whatever state: nothing is written then.
    ///
    /// # Errors
    /// When the queue's name breaks the rules, its DLQ is full, a key is of the wrong type, or Redis cannot be reached.
    pub async fn import_dead(&self, queue: &str, id: &JobId, fields: &[(Vec<u8>, Vec<u8>)]) -> Result<bool, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::IMPORT_DEAD, &lanes, &[]);
        self.sign(&mut call);
        call.arg(id.as_bytes()).arg(fields.len());
        for (name, value) in fields {
            call.arg(name.as_slice()).arg(value.as_slice());
        }
        let mut reply = self.send("an import", &script::IMPORT_DEAD, &call).await?;
        match reply.next()? {
            Value::Int(n) => Ok(n == 1),
            Value::BulkString(reason) => Err(Error::Refused(String::from_utf8_lossy(&reason).into_owned())),
            other => Err(reply.odd(&format!("{other:?}"))),
        }
    }
}

/// What a script says of one dead job.
fn of_dead(mut answer: Reply) -> Result<OfDead, Error> {
    match answer.next()? {
        Value::Int(1) => Ok(OfDead::Applied),
        Value::Int(0) => Ok(OfDead::NotFound),
        Value::Int(-2) => Ok(OfDead::OtherQueue(answer.text()?)),
        Value::BulkString(reason) => Err(Error::Refused(String::from_utf8_lossy(&reason).into_owned())),
        _ => Ok(OfDead::NotDead),
    }
}

/// A walk over a DLQ from its oldest job to the youngest that was there at the start. What is taken out on the way must
/// be told with [`DeadWalk::removed`]. It can be left at any time.
#[derive(Debug)]
pub struct DeadWalk {
    store: Store,
    queue: String,
    filter: Filter,
    /// Where it stands: so many entries before it were left where they are.
    at: usize,
    /// Entries that were there at the start and have not been looked at.
    left: usize,
}

impl DeadWalk {
    /// The next dead jobs that fit the filter, of at most 500 entries; perhaps none. `None` at the end.
    ///
    /// # Errors
    /// When a key is of the wrong type, or Redis cannot be reached.
    pub async fn next(&mut self) -> Result<Option<Vec<JobId>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let most = self.left.min(IDS_MAX);
        // To take one out, Redis walks over the entries before it.
        let rows_most = (STEPS_MAX / (self.at + 1)).clamp(1, IDS_MAX);
        let found = self.store.dead_from(&self.queue, &self.filter, self.at, most, rows_most).await?;
        self.at += found.n_looked;
        self.left = if found.is_end { 0 } else { self.left.saturating_sub(found.n_looked) };
        Ok(Some(found.jobs.into_iter().filter_map(|job| job.id).collect()))
    }

    /// Tells that so many of the jobs found so far have left the DLQ.
    pub fn removed(&mut self, n: usize) {
        self.at = self.at.saturating_sub(n);
    }
}
