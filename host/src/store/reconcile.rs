//! Finds jobs that are in no structure, and entries without a job, and puts them right.
//!
//! Transitions are atomic, so this finds nothing unless a program died between two commands of its own, a person
//! removed a key, or a server lost its last writes. A pass walks every structure in slices, then every row; rows that
//! must be in a structure and were in none are looked at once more after a grace, and put back by a script that makes
//! sure in one moment. Structures are found by what lies in Redis, not by a list of names.
//!
//! Invariant: no id is put into a structure that it stands in, and a job that moves between the two looks is left
//! alone. No call looks at more than some hundred entries.
//!
//! Next: `lua/reconcile.lua` for what is put where, `maintenance` for who calls it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::Value;

use super::script::{self, Lanes, Reply};
use super::{Error, SetAside, Store, turn};
use crate::job::{ID_BYTES_MAX, JobId, JobState, check_name};

/// Entries of a structure, or keys, that one command looks at.
const SLICE: usize = 250;
/// Rows that one script looks at.
const ROWS_MAX: usize = 50;
/// Jobs that one script puts back: it may look through both ends of a long list for each.
const BACK_MAX: usize = 5;
/// Jobs that are looked at a second time in one pass; more are left for the next one.
const SUSPECTS_MAX: usize = 10_000;

/// How fast a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between the two looks at a job that seems lost. A producer that writes its job in two commands has both
    /// behind it by then.
    pub grace: Duration,
    /// Pause after each slice.
    pub pause: Duration,
    /// Life of a done row that has none.
    pub done_ttl: Duration,
}

impl Default for Pace {
    /// Slow enough to go unnoticed: 250 entries every 20 ms.
    fn default() -> Self {
        Self { grace: Duration::from_secs(60), pause: Duration::from_millis(20), done_ttl: crate::config::DONE_TTL }
    }
}

/// A job that was lost and is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// The job.
    pub id: JobId,
    /// Its queue.
    pub queue: String,
    /// Where it is now: in flight (until the end of the lease that its row names), ready, scheduled, or dead.
    pub state: JobState,
}

/// What a pass found and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Rows that must be in a structure, looked at.
    pub rows: u64,
    /// Jobs that were in no structure and are back in the one that fits their state.
    pub put_back: Vec<PutBack>,
    /// Leases and scheduled entries whose job is gone or in another state, removed.
    pub entries_removed: u32,
    /// Done rows without a time to live that have one now.
    pub timed: u32,
    /// Rows that live again and have lost the time to live of their first end.
    pub persisted: u32,
    /// Rows in a state that nobody knows, or without a queue that can be named: left alone.
    pub odd: u32,
    /// Entries that were set aside, with the reason.
    pub set_aside: Vec<SetAside>,
    /// Whether more jobs seemed lost than one pass looks at.
    pub is_more: bool,
}

impl Reconciled {
    /// Whether everything was as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { rows: self.rows, odd: self.odd, ..Self::default() }
    }
}

/// A job that was in no structure when it was looked at.
struct Suspect {
    id: Vec<u8>,
    queue: String,
    marks: Vec<u8>,
}

impl Store {
    /// Takes the right to make a pass in this period, once for all hosts; `who` is kept for people.
    ///
    /// # Errors
    /// When Redis cannot be reached or is full.
    pub async fn claim_reconcile(&self, who: &str, period: Duration) -> Result<bool, Error> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.reconcile()).arg(who).arg("NX").arg("EX").arg(period.as_secs().max(1));
        Ok(self.link.command("a claim", &command).await? != Value::Nil)
    }

    /// Makes a pass over everything under the prefix. May be dropped at any point.
    ///
    /// # Errors
    /// When Redis cannot be reached or is full; what was put right until then stays so.
    pub async fn reconcile(&self, pace: &Pace) -> Result<Reconciled, Error> {
        let mut found = Reconciled::default();
        let hasher = RandomState::new();
        let began = self.server_nanos().await?;
        let mut seen = HashSet::new();
        for (key, kind) in self.structures(pace).await? {
            self.walk(&key, &kind, pace, Some(&mut found), &mut |id| {
                seen.insert(hasher.hash_one(id));
            })
            .await?;
        }
        let mut suspects = self.look_at_rows(pace, began, &mut found, |id| seen.contains(&hasher.hash_one(id))).await?;
        drop(seen);
        if suspects.is_empty() {
            return Ok(found);
        }
        tokio::time::sleep(pace.grace).await;
        let mut lost: HashSet<u64> = suspects.iter().map(|suspect| hasher.hash_one(suspect.id.as_slice())).collect();
        for (key, kind) in self.structures(pace).await? {
            self.walk(&key, &kind, pace, None, &mut |id| {
                lost.remove(&hasher.hash_one(id));
            })
            .await?;
        }
        suspects.retain(|suspect| lost.contains(&hasher.hash_one(suspect.id.as_slice())));
        for piece in suspects.chunks(BACK_MAX) {
            self.put_back(piece, &mut found).await?;
            tokio::time::sleep(pace.pause).await;
        }
        Ok(found)
    }

    async fn server_nanos(&self) -> Result<i64, Error> {
        let answer = self.link.command("the time", &redis::cmd("TIME")).await?;
        let mut reply = Reply::new(answer, self.address(), "the time");
        let (seconds, micros) = (reply.number()?, reply.number()?);
        Ok(seconds.saturating_mul(1_000_000).saturating_add(micros).saturating_mul(1000))
    }

    /// One slice of SCAN, ZSCAN or SSCAN: the next cursor and what was found. SCAN has no key.
    async fn slice(
        &self,
        word: &str,
        key: Option<&[u8]>,
        cursor: &str,
        pattern: Option<&str>,
    ) -> Result<(String, Reply), Error> {
        let mut command = redis::cmd(word);
        if let Some(key) = key {
            command.arg(key);
        }
        command.arg(cursor);
        if let Some(pattern) = pattern {
            command.arg("MATCH").arg(pattern);
        }
        command.arg("COUNT").arg(SLICE);
        let answer = self.link.command("a slice of keys", &command).await?;
        let mut reply = Reply::new(answer, self.address(), "a slice of keys");
        Ok((reply.text()?, reply.nested()?))
    }

    /// Every key that may hold ids, with its type.
    async fn structures(&self, pace: &Pace) -> Result<Vec<(Vec<u8>, String)>, Error> {
        let (pattern, mut keys) = (self.keys.structures_pattern(), HashSet::new());
        let mut cursor = "0".to_owned();
        loop {
            let (next, mut page) = self.slice("SCAN", None, &cursor, Some(&pattern)).await?;
            while !page.is_empty() {
                keys.insert(page.bytes()?);
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
            tokio::time::sleep(pace.pause).await;
        }
        let mut structures = Vec::new();
        for key in keys {
            // Ids that were set aside, and those of done jobs, are in no structure.
            if self.keys.structure_of(&key).is_some_and(|(_, part)| matches!(part, "aside" | "done" | "bell")) {
                continue;
            }
            let mut command = redis::cmd("TYPE");
            command.arg(&key);
            let kind = Reply::new(self.link.command("a type", &command).await?, self.address(), "a type").text()?;
            if matches!(kind.as_str(), "list" | "zset" | "set") {
                structures.push((key, kind));
            }
        }
        Ok(structures)
    }

    /// Shows `see` every id in a structure that stands there all the while. With `found` it also removes entries
    /// without a job.
    async fn walk(
        &self,
        key: &[u8],
        kind: &str,
        pace: &Pace,
        mut found: Option<&mut Reconciled>,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        // Lists are walked from the tail: what is taken at the head does not move what is left, and what is added at
        // the tail is seen twice rather than never.
        let mut from_tail: i64 = 0;
        loop {
            let mut members = Vec::new();
            let is_last = if kind == "list" {
                let slice = SLICE as i64;
                let mut command = redis::cmd("LRANGE");
                command.arg(key).arg(-from_tail - slice).arg(-from_tail - 1);
                let answer = self.link.command("a slice of a list", &command).await?;
                let mut reply = Reply::new(answer, self.address(), "a slice of a list");
                while !reply.is_empty() {
                    members.push(reply.bytes()?);
                }
                from_tail += slice;
                members.len() < SLICE
            } else {
                let word = if kind == "zset" { "ZSCAN" } else { "SSCAN" };
                let (next, mut page) = self.slice(word, Some(key), &cursor, None).await?;
                while !page.is_empty() {
                    members.push(page.bytes()?);
                    if kind == "zset" {
                        page.next()?;
                    }
                }
                cursor = next;
                cursor == "0"
            };
            for member in &members {
                see(member);
                // `nanos:id` and the like: an id may stand behind something.
                if let Some(at) = member.iter().position(|byte| *byte == b':') {
                    see(&member[at + 1..]);
                }
            }
            if let Some(found) = found.as_deref_mut()
                && let Some((queue, part @ ("inflight" | "scheduled"))) = self.keys.structure_of(key)
                && check_name("queue", queue).is_ok()
            {
                for piece in members.chunks(ROWS_MAX) {
                    self.remove_entries(queue, part, piece, found).await?;
                }
            }
            if is_last {
                return Ok(());
            }
            tokio::time::sleep(pace.pause).await;
        }
    }

    async fn remove_entries(
        &self,
        queue: &str,
        part: &str,
        members: &[Vec<u8>],
        found: &mut Reconciled,
    ) -> Result<(), Error> {
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::ENTRIES, &lanes, &[]);
        call.arg(part).arg(members.len());
        for member in members {
            call.arg(member.as_slice());
        }
        let mut reply = self.send("a look at entries", &script::ENTRIES, &call).await?;
        found.entries_removed += reply.count()?;
        found.set_aside.extend(turn::set_aside(reply.nested()?, &lanes)?);
        Ok(())
    }

    /// Looks at every row; answers those that must be in a structure and were not seen in one.
    async fn look_at_rows(
        &self,
        pace: &Pace,
        began: i64,
        found: &mut Reconciled,
        is_seen: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Suspect>, Error> {
        let (pattern, mut cursor) = (self.keys.jobs_pattern(), "0".to_owned());
        let mut suspects: Vec<Suspect> = Vec::new();
        // SCAN may show a key twice.
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        loop {
            let (next, mut page) = self.slice("SCAN", None, &cursor, Some(&pattern)).await?;
            let mut ids = Vec::new();
            while !page.is_empty() {
                let key = page.bytes()?;
                ids.extend(self.keys.id_of(&key).filter(|id| id.len() <= ID_BYTES_MAX).map(<[u8]>::to_vec));
            }
            for piece in ids.chunks(ROWS_MAX) {
                let mut call = self.call(&script::ROWS, &Lanes::default(), &[]);
                call.arg(pace.done_ttl.as_secs().max(1)).arg(piece.len());
                for id in piece {
                    call.arg(id.as_slice());
                }
                let mut reply = self.send("a look at rows", &script::ROWS, &call).await?;
                found.timed += reply.count()?;
                found.persisted += reply.count()?;
                found.odd += reply.count()?;
                while !reply.is_empty() {
                    let (id, queue, created, marks) = (reply.bytes()?, reply.text()?, reply.text()?, reply.bytes()?);
                    found.rows += 1;
                    // What was made after the walk began cannot have been seen in it.
                    if is_seen(&id) || created.parse::<i64>().is_ok_and(|created| created >= began) {
                        continue;
                    }
                    if check_name("queue", &queue).is_err() {
                        found.odd += 1;
                    } else if suspects.len() >= SUSPECTS_MAX {
                        found.is_more = true;
                    } else if known.insert(id.clone()) {
                        suspects.push(Suspect { id, queue, marks });
                    }
                }
            }
            cursor = next;
            if cursor == "0" {
                return Ok(suspects);
            }
            tokio::time::sleep(pace.pause).await;
        }
    }

    async fn put_back(&self, suspects: &[Suspect], found: &mut Reconciled) -> Result<(), Error> {
        let mut lanes = Lanes::default();
        let places: Vec<usize> = suspects.iter().map(|suspect| lanes.place(&suspect.queue)).collect();
        let mut call = self.call(&script::RECONCILE, &lanes, &[]);
        call.arg(suspects.len());
        for (suspect, place) in suspects.iter().zip(places) {
            call.arg(place).arg(suspect.id.as_slice()).arg(suspect.marks.as_slice());
        }
        let mut reply = self.send("a repair", &script::RECONCILE, &call).await?;
        for suspect in suspects {
            let state = match reply.count()? {
                1 => JobState::Inflight,
                2 => JobState::Ready,
                3 => JobState::Scheduled,
                4 => JobState::Dlq,
                _ => continue,
            };
            let id = JobId::from_bytes(&suspect.id);
            found.put_back.push(PutBack { id, queue: suspect.queue.clone(), state });
        }
        Ok(())
    }
}
