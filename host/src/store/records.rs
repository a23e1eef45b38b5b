//! Reading: one job, the queues in numbers, the end of a job.
//!
//! Next: `list` for pages of jobs.

use std::future::ready;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::script::{self, Lanes, Reply};
use super::{Error, Listed, QueueSettings, Store, queue_settings};
use crate::clock::Timestamp;
use crate::job::{JobId, JobState, check_name};
use crate::jumpscript::Digest;

/// Everything a job's hash says. Numbers that do not parse are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: Option<JobId>,
    /// The hash, field by field, as it lies in Redis; payload and result included.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl JobRecord {
    /// The bytes of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// The text of a field; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.field(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// A field as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.field(name)?).ok()?.parse().ok()
    }

    /// A `*_nano` field as a time; `None` when it is 0 or absent. TaskHarbor writes one of them in the form of a
    /// floating point number, which is exact to 256 ns.
    #[must_use]
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        let nanos = self.number(name).or_else(|| {
            let float: f64 = std::str::from_utf8(self.field(name)?).ok()?.parse().ok()?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a float beyond the range becomes the nearest end of it"
            )]
            Some(float as i64)
        });
        nanos.filter(|nanos| *nanos != 0).map(Timestamp::from_nanos)
    }

    /// Where the job stands; `None` when the word is not known.
    #[must_use]
    pub fn state(&self) -> Option<JobState> {
        JobState::parse(&self.text("status")?)
    }

    /// The queue it belongs to; empty when the hash does not say.
    #[must_use]
    pub fn queue(&self) -> String {
        self.text("queue").unwrap_or_default()
    }

    /// Its type; empty when the hash does not say.
    #[must_use]
    pub fn job_type(&self) -> String {
        self.text("type").unwrap_or_default()
    }

    /// Name and value pairs of the producer.
    #[must_use]
    pub fn metadata(&self) -> Vec<(String, String)> {
        script::metadata_pairs(self.field("metadata").unwrap_or_default())
    }

    /// Failed executions so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.number("attempts").and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// The code of the last attempt.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.text("digest")?.parse().ok()
    }
}

/// One queue in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Jobs that wait for a worker.
    pub ready: u64,
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs that a worker holds.
    pub inflight: u64,
    /// Ids in the list of done jobs (capped; rows expire).
    pub done: u64,
    /// Dead jobs.
    pub dlq: u64,
    /// Ids in the list of cancelled jobs (capped; rows expire).
    pub cancelled: u64,
    /// Totals since the queue was made (`done`, `retried`, `dead`, ...); `parked` is how many jobs wait for a limit.
    pub counters: Vec<(String, u64)>,
    /// What is set for it.
    pub settings: QueueSettings,
    /// Since when the job at its head could run; `None` when none waits, or when its row does not say.
    pub waiting_since: Option<Timestamp>,
}

impl QueueInfo {
    /// Jobs that wait for the limit of their key.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.counters.iter().find(|(name, _)| name == "parked").map_or(0, |(_, n)| *n)
    }
}

/// Queues asked for their numbers in one call.
const QUEUES_MAX: usize = 50;
/// Entries at each end of the list of a limit key among which a parked job is looked for.
const PARKED_LOOKED_MAX: u32 = 50_000;
/// The longest wait; a longer one that is asked for is as long.
const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Pause between two looks at a job that is waited for: other programs end jobs without a word, and a message can be lost.
const WAIT_PAUSE: Duration = Duration::from_secs(2);
/// The same while the channel of ended jobs cannot be listened to.
const DEAF_PAUSE: Duration = Duration::from_millis(250);

impl Store {
    /// One job with every field; `None` when there is no such job. The status of a parked one says `parked`, as far as
    /// it stands among the first or last 50,000 of its key.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the key is not a hash.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobRecord>, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.job(id));
        let answer = self.link.command("a job's record", &command).await?;
        let mut reply = Reply::new(answer, self.address(), "a job's record");
        let mut fields = Vec::with_capacity(reply.len() / 2);
        while !reply.is_empty() {
            fields.push((reply.text()?, reply.bytes()?));
        }
        if fields.is_empty() {
            return Ok(None);
        }
        let mut record = JobRecord { id: Some(id.clone()), fields };
        if self.is_parked(id, &record).await? {
            record.fields.iter_mut().filter(|(name, _)| name == "status").for_each(|(_, value)| {
                *value = Listed::Parked.as_str().into();
            });
        }
        Ok(Some(record))
    }

    /// Whether a job waits in the list of its limit key. Its row does not say so: it is `ready`.
    async fn is_parked(&self, id: &JobId, record: &JobRecord) -> Result<bool, Error> {
        let (queue, limit_key) = (record.queue(), record.text("limit_key").unwrap_or_default());
        if record.state() != Some(JobState::Ready) || check_name("queue", &queue).is_err() || limit_key.is_empty() {
            return Ok(false);
        }
        for rank in [1, -1] {
            let mut place = redis::cmd("LPOS");
            place.arg(self.keys.parked(&queue, &limit_key)).arg(id.as_bytes());
            place.arg("RANK").arg(rank).arg("MAXLEN").arg(PARKED_LOOKED_MAX);
            match self.link.command("a job's place", &place).await {
                Ok(redis::Value::Int(_)) => return Ok(true),
                Ok(_) => {}
                // No list, or not for this user: the row has the word.
                Err(Error::Server { .. } | Error::NotAllowed { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Some fields of a job; `None` when there is no such job. Those that it does not have are left out.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the key is not a hash.
    pub async fn job_fields(&self, id: &JobId, names: &[&str]) -> Result<Option<JobRecord>, Error> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.job(id)).arg(names);
        let answer = self.link.command("some fields of a job", &command).await?;
        let mut reply = Reply::new(answer, self.address(), "some fields of a job");
        let mut fields = Vec::with_capacity(names.len());
        for name in names {
            if let redis::Value::BulkString(value) = reply.next()? {
                fields.push(((*name).to_owned(), value));
            }
        }
        Ok((!fields.is_empty()).then(|| JobRecord { id: Some(id.clone()), fields }))
    }

    /// The names of the known queues, sorted.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn queue_names(&self) -> Result<Vec<String>, Error> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(self.keys.queues());
        let answer = self.link.command("the list of queues", &command).await?;
        let mut reply = Reply::new(answer, self.address(), "the list of queues");
        let mut names = Vec::with_capacity(reply.len());
        while !reply.is_empty() {
            names.push(reply.text()?);
        }
        names.retain(|name| check_name("queue", name).is_ok());
        names.sort();
        Ok(names)
    }

    /// Every known queue in numbers, by name.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let names = self.queue_names().await?;
        let mut found = Vec::with_capacity(names.len());
        for piece in names.chunks(QUEUES_MAX) {
            let mut lanes = Lanes::default();
            for name in piece {
                lanes.place(name);
            }
            let call = self.call(&script::QUEUES, &lanes, &[]);
            let mut reply = self.send("the queues' numbers", &script::QUEUES, &call).await?;
            for name in piece {
                let mut row = reply.nested()?;
                let mut number = || row.number().map(i64::unsigned_abs);
                let (ready, scheduled, inflight) = (number()?, number()?, number()?);
                let (done, dlq, cancelled) = (number()?, number()?, number()?);
                let mut totals = row.nested()?;
                let mut counters = Vec::new();
                while !totals.is_empty() {
                    counters.push((totals.text()?, totals.text()?.parse().unwrap_or(0)));
                }
                counters.sort();
                let settings = queue_settings::read(row.nested()?)?;
                let waiting_since = row.text()?.parse().ok().map(Timestamp::from_nanos);
                found.push(QueueInfo {
                    name: name.clone(),
                    ready,
                    scheduled,
                    inflight,
                    done,
                    dlq,
                    cancelled,
                    counters,
                    settings,
                    waiting_since,
                });
            }
        }
        Ok(found)
    }

    /// Waits until the job has ended, at most `limit`; answers its record as it is then, `None` when there is no such job
    /// (any more). A connection of its own listens for the end; a job that another program ends is seen within 2 s.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait_final(&self, id: &JobId, limit: Duration) -> Result<Option<JobRecord>, Error> {
        let deadline = Instant::now() + limit.min(WAIT_MAX);
        let mut ended = None;
        loop {
            if self.has_ended(id).await? || Instant::now() >= deadline {
                return self.job(id).await;
            }
            let Some(stream) = &mut ended else {
                ended = match timeout_at(deadline, self.link.listen(&self.keys.ended())).await {
                    // It may have ended before the subscription: look once more.
                    Ok(Ok(listener)) => Some(listener.into_on_message()),
                    _ => {
                        sleep_until(deadline.min(Instant::now() + DEAF_PAUSE)).await;
                        None
                    }
                };
                continue;
            };
            let is_it = |message: redis::Msg| ready(message.get_payload_bytes() == id.as_bytes());
            let pause = deadline.min(Instant::now() + WAIT_PAUSE);
            if let Ok(false) = timeout_at(pause, stream.any(is_it)).await {
                // The stream is over without it: the connection broke.
                ended = None;
            }
        }
    }

    /// Whether a job has ended, or is not there (any more).
    async fn has_ended(&self, id: &JobId) -> Result<bool, Error> {
        let mut status = redis::cmd("HGET");
        status.arg(self.keys.job(id)).arg("status");
        Ok(match self.link.command("a job's status", &status).await? {
            redis::Value::BulkString(word) => {
                std::str::from_utf8(&word).ok().and_then(JobState::parse).is_some_and(JobState::is_final)
            }
            _ => true,
        })
    }
}
