//! Pages of jobs, as far as they fit a filter.
//!
//! Invariant: a page is bounded, also one that finds nothing: after [`LOOKED_MAX`] rows it ends and says where the next
//! one begins. One bad record never stops it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::records::JobRecord;
use super::script::{self, Call, Lanes};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::job::{JobId, JobState, visible};

/// Where jobs are listed: by their state, and those apart that wait for the limit of their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// In the structure of a state.
    State(JobState),
    /// Parked: over the limit of their key. Their rows say `ready`.
    Parked,
}

impl Listed {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::State(JobState::Inflight),
        Self::State(JobState::Ready),
        Self::Parked,
        Self::State(JobState::Scheduled),
        Self::State(JobState::Dlq),
        Self::State(JobState::Done),
        Self::State(JobState::Cancelled),
    ];

    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State(state) => state.as_str(),
            Self::Parked => "parked",
        }
    }

    /// What a word means, if it is known.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|listed| listed.as_str() == word)
    }
}

/// Which time of a job a filter looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeOf {
    /// When its producer made it.
    #[default]
    Creation,
    /// When it went to the DLQ.
    Death,
}

/// Which jobs are listed; all of them unless something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this queue.
    pub queue: Option<String>,
    /// In this state.
    pub listed: Option<Listed>,
    /// Of exactly this type.
    pub job_type: Option<String>,
    /// With this text in their error, kind of error or reason; small and large letters of ASCII are the same.
    pub error: Option<String>,
    /// With this text in their payload, byte for byte.
    pub payload: Option<String>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// What these times are of. A job that does not say has none, and fits no time.
    pub time_of: TimeOf,
}

impl Filter {
    /// The filter as `lua/list.lua` reads it.
    fn write(&self, call: &mut Call) {
        let nanos = |time: Option<Timestamp>| time.map(|time| time.nanos().to_string()).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        call.arg(text(&self.job_type)).arg(text(&self.error)).arg(text(&self.payload));
        call.arg(nanos(self.since)).arg(nanos(self.until));
        call.arg(match self.time_of {
            TimeOf::Creation => "created",
            TimeOf::Death => "died",
        });
    }
}

/// A page of jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The jobs, without payload and result. The status of a parked one says `parked`.
    pub jobs: Vec<JobRecord>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<String>,
    /// Entries that were looked at.
    pub looked: usize,
}

/// What a page shows of a row: everything but payload, result and log, which may be large.
const PAGE_FIELDS: &[&str] = &[
    "type",
    "queue",
    "status",
    "run_at_nano",
    "timeout_nano",
    "created_at_nano",
    "attempts",
    "max_attempts",
    "last_error",
    "error_kind",
    "failed_at_nano",
    "deliveries",
    "lease_expires_at_nano",
    "digest",
    "node",
    "finished_at_nano",
    "dlq_reason",
    "dlq_failed_at_nano",
    "idempotency_key",
    "limit_key",
    "progress",
    "progress_message",
    "usage",
];
/// Most rows of a page.
pub const PAGE_MAX: usize = 1000;
/// Most entries looked at for a page.
pub const LOOKED_MAX: usize = 5000;
/// Most entries looked at by one script call.
const CALL_MAX: usize = 500;
/// Most script calls for a page; empty structures cost one each.
const CALLS_MAX: usize = 50;

/// A place in one structure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    offset: usize,
    /// Of parked jobs: their limit key, and the step in which keys are asked for.
    key: String,
    step: u64,
}

impl Place {
    const START: Self = Self { offset: 0, key: String::new(), step: 0 };
}

/// What one script call found.
pub(super) struct Found {
    pub(super) jobs: Vec<JobRecord>,
    pub(super) n_looked: usize,
    pub(super) is_end: bool,
    next: Place,
}

/// What one script call is asked for.
struct Ask<'a> {
    structure: &'a str,
    place: &'a Place,
    is_walk: bool,
    most: usize,
    rows_most: usize,
    fields: &'a [&'a str],
}

impl Store {
    /// A page of jobs: of one queue or of all known ones, in one state or in all, at most `limit` (up to 1,000).
    /// As [`Store::find`] with no further filter.
    ///
    /// # Errors
    /// When the cursor is not one of ours, or Redis cannot be reached.
    pub async fn jobs(
        &self,
        queue: Option<&str>,
        state: Option<JobState>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, Error> {
        let filter = Filter { queue: queue.map(str::to_owned), listed: state.map(Listed::State), ..Filter::default() };
        self.find(&filter, cursor, limit).await
    }

    /// A page of the jobs that fit a filter, at most `limit` (up to 1,000). Done, dead and cancelled jobs come with the
    /// newest first. While jobs move, a page may miss or repeat one. A page that is not full and has a next one has
    /// looked at as many rows as a page may.
    ///
    /// # Errors
    /// When the cursor is not one of ours or of another filter, or Redis cannot be reached.
    pub async fn find(&self, filter: &Filter, cursor: Option<&str>, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, PAGE_MAX);
        let begin = cursor.map(|cursor| Cursor::parse(cursor, filter)).transpose()?;
        let queues = match &filter.queue {
            Some(queue) => {
                crate::job::check_name("queue", queue).map_err(Error::Refused)?;
                vec![queue.clone()]
            }
            None => self.queue_names().await?,
        };
        let listed = Listed::ALL.into_iter().filter(|listed| filter.listed.is_none_or(|wanted| wanted == *listed));
        let places: Vec<(Listed, &String)> =
            listed.flat_map(|listed| queues.iter().map(move |queue| (listed, queue))).collect();
        let (mut at, mut place) = begin.map_or((0, Place::START), |cursor| cursor.find(&places));
        let mut page = Page::default();
        for _ in 0..CALLS_MAX {
            let Some((listed, queue)) = places.get(at) else { return Ok(page) };
            let ask = Ask {
                structure: listed.as_str(),
                place: &place,
                is_walk: false,
                most: CALL_MAX.min(LOOKED_MAX - page.looked),
                rows_most: limit - page.jobs.len(),
                fields: PAGE_FIELDS,
            };
            let mut found = self.look(queue, filter, &ask).await?;
            if *listed == Listed::Parked {
                for (_, value) in found.jobs.iter_mut().flat_map(|job| &mut job.fields).filter(|(n, _)| n == "status") {
                    *value = listed.as_str().into();
                }
            }
            page.looked += found.n_looked;
            page.jobs.append(&mut found.jobs);
            place = if found.is_end { Place::START } else { found.next };
            at += usize::from(found.is_end);
            if page.jobs.len() >= limit || page.looked >= LOOKED_MAX {
                break;
            }
        }
        page.next = places
            .get(at)
            .map(|(listed, queue)| Cursor { listed: *listed, queue: (*queue).clone(), place }.text(filter));
        Ok(page)
    }

    /// Dead jobs of a queue that fit, from an entry on, counted from the oldest; without fields.
    pub(super) async fn dead_from(
        &self,
        queue: &str,
        filter: &Filter,
        offset: usize,
        most: usize,
        rows_most: usize,
    ) -> Result<Found, Error> {
        let place = Place { offset, ..Place::START };
        let structure = JobState::Dlq.as_str();
        self.look(queue, filter, &Ask { structure, place: &place, is_walk: true, most, rows_most, fields: &[] }).await
    }

    async fn look(&self, queue: &str, filter: &Filter, ask: &Ask<'_>) -> Result<Found, Error> {
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::LIST, &lanes, &[]);
        call.arg(ask.structure).arg(ask.place.offset).arg(&ask.place.key).arg(ask.place.step);
        call.arg(u8::from(ask.is_walk)).arg(ask.most).arg(ask.rows_most);
        filter.write(&mut call);
        call.arg(ask.fields.len());
        for field in ask.fields {
            call.arg(*field);
        }
        let mut reply = self.send("a page of jobs", &script::LIST, &call).await?;
        let (n_looked, is_end) = (reply.count()? as usize, reply.number()? == 1);
        let next = Place {
            offset: reply.count()? as usize,
            key: reply.text()?,
            step: reply.text()?.parse().map_err(|_| reply.odd("a step that is no number"))?,
        };
        let mut jobs = Vec::with_capacity(reply.len() / 2);
        while !reply.is_empty() {
            let id = JobId::from_bytes(&reply.bytes()?);
            let mut row = reply.nested()?;
            let mut fields = Vec::new();
            for name in ask.fields {
                if let redis::Value::BulkString(value) = row.next()? {
                    fields.push(((*name).to_owned(), value));
                }
            }
            jobs.push(JobRecord { id: Some(id), fields });
        }
        Ok(Found { jobs, n_looked, is_end, next })
    }
}

/// Where the next page begins. As text: its parts, and a check that it was written here for this filter.
struct Cursor {
    listed: Listed,
    queue: String,
    place: Place,
}

impl Cursor {
    fn text(&self, filter: &Filter) -> String {
        let Place { offset, key, step } = &self.place;
        let body = format!("{}.{offset}.{step}.{}.{}", self.listed.as_str(), escaped(key), escaped(&self.queue));
        let check = check(&body, filter);
        format!("{body}.{check}")
    }

    fn parse(text: &str, filter: &Filter) -> Result<Self, Error> {
        let read = || {
            let (body, found) = text.rsplit_once('.')?;
            let parts: Vec<&str> = body.split('.').collect();
            let [listed, offset, step, key, queue] = parts.as_slice() else { return None };
            let place = Place { offset: offset.parse().ok()?, key: unescaped(key)?, step: step.parse().ok()? };
            let cursor = Self { listed: Listed::parse(listed)?, queue: unescaped(queue)?, place };
            (found == check(body, filter)).then_some(cursor)
        };
        read().ok_or_else(|| {
            let shown: String = visible(text).chars().take(100).collect();
            Error::Cursor(shown)
        })
    }

    /// The place among those that are listed now. A queue may have appeared or gone since: it goes on at the next place
    /// in the same order.
    fn find(self, places: &[(Listed, &String)]) -> (usize, Place) {
        let rank = |listed: Listed| Listed::ALL.iter().position(|known| *known == listed);
        let own = (rank(self.listed), self.queue.as_str());
        let at = places.iter().position(|(listed, queue)| (rank(*listed), queue.as_str()) >= own);
        let at = at.unwrap_or(places.len());
        let is_same = places.get(at).is_some_and(|(listed, queue)| *listed == self.listed && **queue == self.queue);
        (at, if is_same { self.place } else { Place::START })
    }
}

/// Eight digits that change with the cursor and with what is asked. Times are left out: `2h` ago moves on.
fn check(body: &str, filter: &Filter) -> String {
    let mut hash = Sha256::new();
    let texts = [&filter.queue, &filter.job_type, &filter.error, &filter.payload];
    let texts = texts.into_iter().map(|text| text.as_deref());
    for part in [Some(body), filter.listed.map(Listed::as_str)].into_iter().chain(texts) {
        // The length before each text: two different filters are never the same bytes.
        hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().iter().take(4).fold(String::new(), |mut out, byte| {
        let _written = write!(out, "{byte:02x}");
        out
    })
}

/// A name without characters that mean something to a shell or to the cursor.
fn escaped(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            let _written = write!(out, "%{byte:02x}");
        }
        out
    })
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_holds_for_its_filter_only() {
        let filter = Filter { queue: Some("a b.c%".to_owned()), ..Filter::default() };
        let place = Place { offset: 7, key: "käse".to_owned(), step: 96 };
        let text = Cursor { listed: Listed::Parked, queue: "a b.c%".to_owned(), place: place.clone() }.text(&filter);
        assert!(!text.contains(' '), "{text}");
        let read = Cursor::parse(&text, &filter).ok().unwrap();
        assert_eq!((read.listed, read.queue.as_str(), read.place), (Listed::Parked, "a b.c%", place));
        assert!(Cursor::parse(&text, &Filter { error: Some("x".to_owned()), ..filter.clone() }).is_err());
        let forged = text.replacen('7', "8", 1);
        assert!(Cursor::parse(&forged, &filter).is_err());
        for wrong in ["", "x", "ready", "ready.x.q", "parked.0.0.%.q.00000000", "....."] {
            assert!(Cursor::parse(wrong, &filter).is_err(), "{wrong}");
        }
    }
}
