//! The hot path: settle a batch of ended attempts and take a batch of jobs, in one script call.
//!
//! Invariant: every write of a holder carries its token and is refused once the lease has ended by the server's
//! clock; a batch never stops at a bad record.
//!
//! Next: `lua/settle.lua` and `lua/reserve.lua` for the two halves, `worker` for who calls.

use std::collections::HashSet;
use std::time::Duration;

use redis::Value;

use super::keys::Keys;
use super::script::{self, Call, Lanes, Reply};
use super::{Error, RESERVE_MAX, SETTLE_MAX, Store, foreign};
use crate::clock::Timestamp;
use crate::effects::{Effect, Effects};
use crate::job::{JobId, Reserved, TIMEOUT_MAX};
use crate::jumpscript::Digest;
use crate::protocol::Source;
use crate::retry::RetryWish;

/// Longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(3600);
/// Longest delay or time to live of one write: a hundred years, so that sums stay exact in a script.
const DELAY_MS_MAX: u64 = 100 * 365 * 86_400 * 1000;
/// Entries of one job in the answer of `lua/reserve.lua`.
const JOB_ENTRIES: usize = 5;
/// Entries of one job that says more than others.
const EXTRA_ENTRIES: usize = 8;
/// Longest value that is compared itself; of a longer one it is the SHA-1.
const SEEN_BYTES_MAX: usize = 64;
/// Most fields one command of a script sets; longer lists are split. Lua's stack holds some thousand values.
const FIELDS_MAX: usize = 1000;

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
    /// Queues that give nothing at the moment, because they are paused or their concurrency is used up.
    pub closed: Vec<String>,
    /// What came of the lists of other systems that belong to these queues ([`Store::taking_from`]).
    pub drawn: Vec<(String, Drawn)>,
    /// Whether more jobs may be waiting in the queues that are open: ask again at once when there is room.
    pub is_more: bool,
    /// The revision of the published jumpscripts; compare for equality only. 0 when nothing is published.
    pub rev: u64,
    /// When something becomes due in these queues; only known when [`Reserve::sweep`] was asked for.
    pub next_due_ms: Option<i64>,
    /// The server's clock.
    pub now_ms: i64,
}

/// How a reserve fared with a list of another system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drawn {
    /// It cannot take what comes next in the list, or nothing at all now: that is for [`Store::take_over`].
    #[default]
    Left,
    /// It has emptied the list.
    Empty,
    /// It got as much as it had room for.
    More,
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
    /// State that the attempt has read changed before it ended: nothing of it was written, and the job waits to be run
    /// again, without counting the attempt.
    Conflict,
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
    /// Settles a batch (at most [`SETTLE_MAX`]), then reserves a batch, in one script.
    ///
    /// A call whose answer was lost is repeated without its reserve; settles are safe to repeat. What the lost answer
    /// had handed out comes back when its lease ends.
    ///
    /// # Errors
    /// When Redis cannot be reached; then nothing or everything was written, and the same settles may be sent again.
    /// When there are more settles than [`SETTLE_MAX`]; then nothing was sent.
    pub async fn turn(&self, settles: &[Settle], reserve: Option<&Reserve>) -> Result<Turn, Error> {
        if settles.len() > SETTLE_MAX {
            return Err(Error::Refused(format!("{} settles in one turn, at most {SETTLE_MAX}", settles.len())));
        }
        if let Some(reserve) = reserve {
            lease_ms(reserve.lease)?;
        }
        let (call, lanes) = self.turn_call(settles, reserve);
        let answer = match self.link.script("a turn", &script::TURN, call.command()).await {
            Err(Error::Unreachable { .. }) if !settles.is_empty() => {
                let (again, _) = self.turn_call(settles, None);
                self.link.script("a turn", &script::TURN, again.command()).await
            }
            other => other,
        };
        let mut reply = Reply::new(answer?, self.address(), "a turn");
        let settled = read_settled(settles, &mut reply.nested()?)?;
        let reserved = self.reservation(reply.nested()?, &lanes, reserve)?;
        Ok(Turn { settled, reserved })
    }

    /// The call of a turn, and its queues.
    pub(super) fn turn_call<'a>(&self, settles: &'a [Settle], reserve: Option<&'a Reserve>) -> (Call, Lanes<'a>) {
        let mut lanes = Lanes::default();
        for settle in settles {
            lanes.place(&settle.queue);
            for effect in settle.effects.as_slice() {
                if let Effect::Enqueue(job) = effect {
                    lanes.place(&job.queue);
                }
            }
        }
        for share in reserve.iter().flat_map(|reserve| &reserve.queues) {
            lanes.place(&share.queue);
        }
        let asked = |source: &&Source| {
            reserve.is_some_and(|reserve| reserve.queues.iter().any(|share| share.queue == source.queue))
        };
        let sources: Vec<&Source> = self.sources.iter().filter(asked).collect();
        let lists: Vec<String> =
            sources.iter().map(|source| String::from_utf8_lossy(source.list.as_bytes()).into_owned()).collect();
        let mut call = self.call(&script::TURN, &lanes, &lists);
        call.arg(sources.len());
        for source in sources {
            write_source(&mut call, lanes.known(&source.queue), source);
        }
        write_settles(&mut call, &self.keys, &mut lanes, settles);
        match reserve {
            None => {
                call.arg(0);
            }
            Some(reserve) => write_reserve(&mut call, &mut lanes, reserve),
        }
        (call, lanes)
    }

    /// Reads the answer of `lua/reserve.lua`.
    pub(super) fn reservation(
        &self,
        mut reply: Reply,
        lanes: &Lanes<'_>,
        reserve: Option<&Reserve>,
    ) -> Result<Reservation, Error> {
        if reply.is_empty() {
            return Ok(Reservation::default());
        }
        let token = reserve.map(|reserve| reserve.token.as_str()).unwrap_or_default();
        let now_ms = reply.number()?;
        let rev = reply.text()?.parse().unwrap_or(0);
        let next_due_ms = reply.text()?.parse().ok();
        let kinds = kinds(reply.nested()?, lanes)?;
        let mut entries = reply.nested()?;
        let mut extras = extras(reply.nested()?)?;
        let mut jobs = Vec::with_capacity(entries.len() / JOB_ENTRIES);
        while !entries.is_empty() {
            jobs.push(self.reserved(&mut entries, &kinds, &mut extras, token)?);
        }
        let mut taken = reply.nested()?;
        let mut taken_per_queue = Vec::with_capacity(taken.len());
        while !taken.is_empty() {
            taken_per_queue.push(taken.count()?);
        }
        let set_aside = set_aside(reply.nested()?, lanes)?;
        let broken = reasons(reply.nested()?, lanes)?;
        let closed = reasons(reply.nested()?, lanes)?.into_iter().map(|(queue, _)| queue).collect();
        let is_more = reply.count()? == 1;
        let drawn = drawn(reply.nested()?, lanes)?;
        Ok(Reservation { jobs, taken_per_queue, set_aside, broken, closed, drawn, is_more, rev, next_due_ms, now_ms })
    }

    fn reserved(
        &self,
        entries: &mut Reply,
        kinds: &[Kind],
        extras: &mut [Extra],
        token: &str,
    ) -> Result<Reserved, Error> {
        let place = entries.count()? as usize;
        let kind = kinds.get(place.wrapping_sub(1)).ok_or_else(|| entries.odd("an unknown kind"))?;
        let id = JobId::from_bytes(&entries.bytes()?);
        let payload = entries.bytes()?;
        let created_at = entries.number().ok().filter(|nanos| *nanos > 0).map(Timestamp::from_nanos);
        let extra = match entries.count()? as usize {
            0 => Extra::default(),
            n => std::mem::take(extras.get_mut(n - 1).ok_or_else(|| entries.odd("an unknown extra"))?),
        };
        Ok(Reserved {
            store: self.id,
            id,
            queue: kind.queue.clone(),
            job_type: kind.job_type.clone(),
            payload,
            content_type: extra.content_type,
            token: token.to_owned(),
            attempts: extra.attempts,
            retry: extra.retry,
            deliveries: extra.deliveries,
            timeout: extra.timeout,
            created_at,
            digest: kind.digest,
            metadata: extra.metadata,
        })
    }

    /// Moves the end of leases to `lease` from now. One answer per lease, in their order.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the lease is shorter than a millisecond.
    pub async fn extend(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Settled>, Error> {
        let mut answers = Vec::with_capacity(leases.len());
        let length = lease_ms(lease)?;
        for piece in leases.chunks(SETTLE_MAX) {
            let mut lanes = Lanes::default();
            let places: Vec<usize> = piece.iter().map(|lease| lanes.place(&lease.queue)).collect();
            let mut call = self.call(&script::EXTEND, &lanes, &[]);
            call.arg(length).arg(piece.len());
            for (lease, place) in piece.iter().zip(places) {
                call.arg(place).arg(lease.id.as_bytes()).arg(&lease.token);
            }
            let mut reply = self.send("a lease extension", &script::EXTEND, &call).await?;
            for _ in piece {
                answers.push(settled(&mut reply)?);
            }
        }
        Ok(answers)
    }

    /// Notes how far a running job has come, if the lease still holds.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn progress(&self, lease: &Lease, percent: u8, message: &str) -> Result<Settled, Error> {
        let mut lanes = Lanes::default();
        lanes.place(&lease.queue);
        let mut call = self.call(&script::PROGRESS, &lanes, &[]);
        call.arg(lease.id.as_bytes()).arg(&lease.token).arg(percent.min(100)).arg(message);
        settled(&mut self.send("a progress note", &script::PROGRESS, &call).await?)
    }
}

/// A lease in milliseconds.
fn lease_ms(lease: Duration) -> Result<u64, Error> {
    match u64::try_from(lease.as_millis()) {
        Ok(ms) if ms > 0 && lease <= LEASE_MAX => Ok(ms),
        _ => Err(Error::Refused(format!("the lease is {lease:?}, must be between 1ms and {LEASE_MAX:?}"))),
    }
}

/// The field that nearly every done row gets; it has a place of its own among the arguments.
const USAGE: &str = "usage";

/// What settles of one group share.
#[derive(PartialEq)]
struct Group<'a> {
    queue: &'a str,
    token: &'a str,
    code: &'static str,
    digest: Option<Digest>,
    ttl_seconds: u64,
}

impl<'a> Group<'a> {
    fn of(settle: &'a Settle) -> Self {
        let (code, ttl_seconds) = match &settle.end {
            End::Done { ttl, .. } => ("D", ttl.as_secs().max(1)),
            End::Retry { .. } => ("R", 0),
            End::Dlq { .. } => ("F", 0),
            End::Release => ("L", 0),
        };
        Self { queue: &settle.queue, token: &settle.token, code, digest: settle.digest, ttl_seconds }
    }
}

/// The places of settles by group, in the order of their first members. Both the call and the reading of its answer
/// go through it, so that an answer finds its settle. A second settle of a job stays behind the first one.
fn groups(settles: &[Settle]) -> Vec<(Group<'_>, Vec<usize>)> {
    let mut groups: Vec<(Group<'_>, Vec<usize>)> = Vec::new();
    let mut seen = HashSet::with_capacity(settles.len());
    for (place, settle) in settles.iter().enumerate() {
        let group = Group::of(settle);
        let is_first = seen.insert(&settle.id);
        // From the end: neighbours mostly belong together.
        match groups.iter_mut().rev().find(|(known, _)| is_first && *known == group) {
            Some((_, places)) => places.push(place),
            None => groups.push((group, vec![place])),
        }
    }
    groups
}

fn write_settles<'a>(call: &mut Call, keys: &Keys, lanes: &mut Lanes<'a>, settles: &'a [Settle]) {
    let groups = groups(settles);
    call.arg(groups.len());
    for (group, places) in groups {
        call.arg(lanes.place(group.queue)).arg(group.token).arg(group.code);
        match group.digest {
            None => call.arg(""),
            Some(digest) => call.arg(digest.to_string()),
        };
        call.arg(group.ttl_seconds).arg(places.len());
        for place in places {
            write_settle(call, keys, lanes, &settles[place]);
        }
    }
}

fn write_settle<'a>(call: &mut Call, keys: &Keys, lanes: &mut Lanes<'a>, settle: &'a Settle) {
    call.arg(settle.id.as_bytes());
    let usage = settle.fields.iter().find(|(name, _)| *name == USAGE).map_or(&[][..], |(_, value)| value);
    let is_usage_told = matches!(settle.end, End::Done { .. });
    match &settle.end {
        End::Done { result, .. } => call.arg(result).arg(usage),
        End::Retry { attempts, error, kind, after } => {
            let delay = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).min(DELAY_MS_MAX);
            call.arg(*attempts).arg(error).arg(*kind).arg(delay)
        }
        End::Dlq { attempts, error, kind, reason } => {
            let reason = if reason.is_empty() { "failed" } else { reason };
            call.arg(*attempts).arg(error).arg(*kind).arg(reason)
        }
        End::Release => call,
    };
    let fields = || settle.fields.iter().filter(|(name, _)| !(is_usage_told && *name == USAGE));
    let n_fields = fields().count();
    if n_fields == 0 && settle.effects.is_empty() {
        call.arg("");
        return;
    }
    call.arg(n_fields);
    for (name, value) in fields() {
        call.arg(*name).arg(value);
    }
    write_effects(call, keys, lanes, &settle.effects);
}

/// The answers of `lua/settle.lua`, in the order of the settles.
fn read_settled(settles: &[Settle], answers: &mut Reply) -> Result<Vec<Settled>, Error> {
    let mut settled_by_place = vec![Settled::Repeated; settles.len()];
    for place in groups(settles).into_iter().flat_map(|(_, places)| places) {
        settled_by_place[place] = settled(answers)?;
    }
    Ok(settled_by_place)
}

/// What jobs of one reserve share.
struct Kind {
    queue: String,
    job_type: String,
    digest: Option<Digest>,
}

fn kinds(mut reply: Reply, lanes: &Lanes<'_>) -> Result<Vec<Kind>, Error> {
    let mut kinds = Vec::with_capacity(reply.len() / 3);
    while !reply.is_empty() {
        let queue = lanes.name(reply.count()? as usize);
        kinds.push(Kind { queue, job_type: reply.text()?, digest: reply.text()?.parse().ok() });
    }
    Ok(kinds)
}

/// What only some jobs say.
struct Extra {
    attempts: u32,
    retry: RetryWish,
    timeout: Option<Duration>,
    deliveries: u32,
    content_type: String,
    metadata: Vec<(String, String)>,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            attempts: 0,
            retry: RetryWish::default(),
            timeout: None,
            deliveries: 1,
            content_type: String::new(),
            metadata: Vec::new(),
        }
    }
}

fn extras(mut reply: Reply) -> Result<Vec<Extra>, Error> {
    let mut extras = Vec::with_capacity(reply.len() / EXTRA_ENTRIES);
    while !reply.is_empty() {
        let attempts = reply.count()?;
        let max_attempts = Some(reply.count()?).filter(|n| *n > 0);
        // The script let digits through only; more of them than a number holds are more than the longest timeout.
        let timeout = match reply.text()?.parse::<u64>() {
            Ok(0) => None,
            Ok(nanos) => Some(Duration::from_nanos(nanos).min(TIMEOUT_MAX)),
            Err(_) => Some(TIMEOUT_MAX),
        };
        let (deliveries, content_type) = (reply.count()?, reply.text()?);
        let metadata = script::metadata_pairs(&reply.bytes()?);
        let (base, cap) = (milliseconds(&reply.text()?), milliseconds(&reply.text()?));
        let retry = RetryWish { base, cap, max_attempts }.clamped();
        extras.push(Extra { attempts, retry, timeout, deliveries, content_type, metadata });
    }
    Ok(extras)
}

/// A delay in a record; the script let digits through only, and what is more than a number holds is clamped later.
fn milliseconds(text: &str) -> Option<Duration> {
    (!text.is_empty()).then(|| Duration::from_millis(text.parse().unwrap_or(u64::MAX)))
}

/// Effects as `lua/effects.lua` reads them.
fn write_effects<'a>(call: &mut Call, keys: &Keys, lanes: &mut Lanes<'a>, effects: &'a Effects) {
    let (effects, reads) = (effects.as_slice(), effects.reads());
    let pieces = |effect: &Effect| match effect {
        Effect::SetFields { fields, .. } => fields.len().div_ceil(FIELDS_MAX),
        _ => 1,
    };
    call.arg(reads.len() + effects.iter().map(pieces).sum::<usize>());
    for read in reads {
        call.arg("R").arg(keys.bucket(&read.bucket)).arg(read.values.len());
        for (key, _) in &read.values {
            call.arg(key);
        }
        for (_, value) in &read.values {
            call.arg(seen(value.as_deref()));
        }
    }
    for effect in effects {
        match effect {
            Effect::SetFields { key, fields } => {
                for piece in fields.chunks(FIELDS_MAX) {
                    call.arg("F").arg(key.as_bytes()).arg(piece.len());
                    for (name, value) in piece {
                        call.arg(name).arg(value);
                    }
                }
            }
            Effect::SetString { key, value } => {
                call.arg("S").arg(key.as_bytes()).arg(value);
            }
            Effect::Push { key, value, cap } => {
                call.arg("P").arg(key.as_bytes()).arg(value).arg(*cap);
            }
            Effect::Publish { channel, message } => {
                call.arg("U").arg(channel.as_bytes()).arg(message);
            }
            Effect::Expire { key, ttl } => {
                let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, DELAY_MS_MAX);
                call.arg("X").arg(key.as_bytes()).arg(ms);
            }
            Effect::Delete { key } => {
                call.arg("D").arg(key.as_bytes());
            }
            Effect::Enqueue(job) => {
                let id = job.id.clone().unwrap_or_else(JobId::generate);
                let place = lanes.place(&job.queue);
                call.arg("E").job(place, id.as_bytes(), job);
            }
            Effect::State { bucket, ttl, values } => {
                let ttl = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
                call.arg("T").arg(keys.bucket(bucket)).arg(ttl.min(DELAY_MS_MAX));
                let set = || values.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
                call.arg(set().count());
                for (key, value) in set() {
                    call.arg(key).arg(value);
                }
                let removed = || values.iter().filter(|(_, value)| value.is_none());
                call.arg(removed().count());
                for (key, _) in removed() {
                    call.arg(key);
                }
            }
        }
    }
}

/// What `lua/effects.lua` compares a value with.
fn seen(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        None => b"-".to_vec(),
        Some(value) if value.len() <= SEEN_BYTES_MAX => [b"=", value].concat(),
        Some(value) => format!("#{}", sha1_smol::Sha1::from(value).digest()).into_bytes(),
    }
}

fn write_reserve<'a>(call: &mut Call, lanes: &mut Lanes<'a>, reserve: &'a Reserve) {
    // A lease out of range is brought into it: the configuration has refused it long before.
    let lease = lease_ms(reserve.lease.clamp(Duration::from_millis(1), LEASE_MAX)).unwrap_or(1);
    call.arg(1).arg(reserve.limit.min(RESERVE_MAX)).arg(lease).arg(&reserve.token).arg(&reserve.node);
    call.arg(u8::from(reserve.sweep)).arg(reserve.queues.len());
    for share in &reserve.queues {
        let place = lanes.place(&share.queue);
        call.arg(place).arg(share.take);
    }
}

/// A list of another system as `lua/direct.lua` reads it.
fn write_source(call: &mut Call, place: usize, source: &Source) {
    let Some(plain) = &source.plain else { return };
    let state = source.fields.first().copied().unwrap_or_default();
    call.arg(place).arg(source.protocol.word()).arg(foreign::told(source.protocol));
    call.arg(&source.kind).arg(source.record_prefix);
    call.arg(4 + plain.empty.len() + plain.metadata.len()).arg(plain.empty.len());
    call.arg(state).arg(plain.payload).arg(plain.timeout).arg(plain.retries).arg(plain.empty).arg(plain.metadata);
    call.arg(plain.ended.len()).arg(plain.ended).arg(plain.answered.len()).arg(plain.answered);
}

/// What came of the lists of other systems.
fn drawn(mut reply: Reply, lanes: &Lanes<'_>) -> Result<Vec<(String, Drawn)>, Error> {
    let mut found = Vec::with_capacity(reply.len() / 2);
    while !reply.is_empty() {
        let queue = lanes.name(reply.count()? as usize);
        let drawn = match reply.count()? {
            1 => Drawn::Empty,
            2 => Drawn::More,
            _ => Drawn::Left,
        };
        found.push((queue, drawn));
    }
    Ok(found)
}

/// One answer of `lua/settle.lua` or `lua/fence.lua`.
fn settled(reply: &mut Reply) -> Result<Settled, Error> {
    let answer = match reply.next()? {
        Value::Int(0) => Settled::Applied,
        Value::Int(1) => Settled::Repeated,
        Value::Int(2) => Settled::LeaseLost(Lost::NotInflight),
        Value::Int(3) => Settled::LeaseLost(Lost::Expired),
        Value::Int(5) => Settled::Conflict,
        Value::Int(_) => Settled::LeaseLost(Lost::Mismatch),
        Value::BulkString(text) => Settled::Refused(String::from_utf8_lossy(&text).into_owned()),
        other => Settled::Refused(format!("{other:?}")),
    };
    Ok(answer)
}

/// The `asides` of a script.
pub(super) fn set_aside(mut reply: Reply, lanes: &Lanes<'_>) -> Result<Vec<SetAside>, Error> {
    let mut found = Vec::with_capacity(reply.len() / 4);
    while !reply.is_empty() {
        let queue = lanes.name(reply.count()? as usize);
        let id = JobId::from_bytes(&reply.bytes()?);
        let reason = crate::job::visible(&reply.text()?);
        let is_dead = reply.text()? == "1";
        found.push(SetAside { id, queue, reason, is_dead });
    }
    Ok(found)
}

/// Queues and reasons as a script answers them.
pub(super) fn reasons(mut reply: Reply, lanes: &Lanes<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    while !reply.is_empty() {
        found.push((lanes.name(reply.count()? as usize), reply.text()?));
    }
    Ok(found)
}
