//! The walk over everything under the prefix: structures, limits, single keys, rows.
//!
//! Invariant: an id that stands in a structure all the while is seen. Nothing here writes, and no command looks at more
//! than some hundred entries.

use std::collections::{BTreeMap, HashMap, HashSet};

use redis::Value;

use super::{Finding, Gathered, Kind, Pace};
use crate::job::{ID_BYTES_MAX, check_name};
use crate::store::script::{self, Lanes, Reply};
use crate::store::{CANCELLED_HOURS, DLQ_DAYS, Error, IDEMPOTENCY_DAYS, Store};

/// Entries of a structure, or keys, that one command looks at.
const SLICE: usize = 250;
/// Rows that one script looks at.
const ROWS_MAX: usize = 50;
/// Ids that seem to wait twice and are looked up in one pass: a list that grows during the walk shows some twice.
const TWICE_MAX: usize = 1000;
/// Seconds that a bell lies unheard, and that the claim of a pass holds.
const HOUR: u64 = 3600;

/// A key that is no job's, with its type.
struct Structure {
    key: Vec<u8>,
    kind: String,
}

/// What the walk over the structures has met.
pub(super) struct Seen {
    /// Hashes of ids, with the list that serves workers in which they stand, if it is one.
    ids: HashMap<u64, Option<u32>>,
    /// Those lists.
    lists: Vec<Vec<u8>>,
    /// Ids that were met in two such lists, or twice in one.
    twice: Vec<Finding>,
}

/// What the keys of a queue are looked at as, by `lua/look_at_entries.lua`; empty when their entries are no jobs or keys.
fn looked_at_as(part: &str) -> &'static str {
    match part {
        "ready" => "ready",
        "inflight" => "inflight",
        "scheduled" => "scheduled",
        "dlq" => "dlq",
        "slots" => "slots",
        "keys" => "keys",
        _ if part.starts_with("prio:") || part.starts_with("parked:") => "ready",
        _ => "",
    }
}

impl Store {
    pub(super) async fn server_nanos(&self) -> Result<i64, Error> {
        let answer = self.link.command("the time", &redis::cmd("TIME")).await?;
        let mut reply = Reply::new(answer, self.address(), "the time");
        let (seconds, micros) = (reply.number()?, reply.number()?);
        Ok(seconds.saturating_mul(1_000_000).saturating_add(micros).saturating_mul(1000))
    }

    fn finding(&self, kind: &str, queue: &str, key: &[u8], entry: &[u8], more: &[u8]) -> Result<Finding, Error> {
        let unknown = || Error::Refused(format!("`{kind}` is not among the faults that this version knows"));
        let kind = Kind::named(kind).ok_or_else(unknown)?;
        let queue = if check_name("queue", queue).is_ok() { queue.to_owned() } else { String::new() };
        Ok(Finding { kind, queue, key: key.to_owned(), entry: entry.to_owned(), more: more.to_owned() })
    }

    /// One slice of SCAN, ZSCAN, SSCAN or HSCAN: the next cursor and what was found. SCAN has no key.
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

    /// Every key that fits a pattern, page by page; SCAN may show one twice.
    async fn next_keys(&self, pattern: &str, cursor: &mut String, pace: &Pace) -> Result<Option<Vec<Vec<u8>>>, Error> {
        if cursor.is_empty() {
            "0".clone_into(cursor);
        } else if cursor == "0" {
            return Ok(None);
        } else {
            tokio::time::sleep(pace.pause).await;
        }
        let (next, mut page) = self.slice("SCAN", None, cursor, Some(pattern)).await?;
        *cursor = next;
        let mut keys = Vec::with_capacity(page.len());
        while !page.is_empty() {
            keys.push(page.bytes()?);
        }
        Ok(Some(keys))
    }

    /// The types of keys, in their order; those that are gone are left out.
    async fn with_types(&self, keys: HashSet<Vec<u8>>, pace: &Pace) -> Result<Vec<Structure>, Error> {
        let mut keys: Vec<Vec<u8>> = keys.into_iter().collect();
        keys.sort_unstable();
        let mut structures = Vec::with_capacity(keys.len());
        for piece in keys.chunks(SLICE) {
            let mut pipeline = redis::pipe();
            for key in piece {
                pipeline.cmd("TYPE").arg(key.as_slice());
            }
            let values = self.link.pipeline("the types of keys", &pipeline).await?;
            let mut reply = Reply::new(Value::Array(values), self.address(), "the types of keys");
            for key in piece {
                structures.push(Structure { key: key.clone(), kind: reply.text()? });
            }
            tokio::time::sleep(pace.pause).await;
        }
        structures.retain(|structure| structure.kind != "none");
        Ok(structures)
    }

    /// Shows `see` every id in a structure that stands there all the while.
    pub(super) async fn walk_structures(&self, pace: &Pace, see: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), Error> {
        let (mut keys, mut cursor) = (HashSet::new(), String::new());
        let pattern = self.keys.structures_pattern();
        while let Some(page) = self.next_keys(&pattern, &mut cursor, pace).await? {
            keys.extend(page);
        }
        for structure in self.with_types(keys, pace).await? {
            if self.holds_ids(&structure) {
                let mut at = Place::default();
                while let Some(members) = self.next_members(&structure, &mut at, pace).await? {
                    members.iter().for_each(|member| see_ids(member, see));
                }
            }
        }
        Ok(())
    }

    /// Whether an id in this key counts as standing somewhere. Ids that were set aside, and those of jobs that have
    /// ended, do not; nor do those in a key that was taken out of the way.
    fn holds_ids(&self, structure: &Structure) -> bool {
        matches!(structure.kind.as_str(), "list" | "zset" | "set")
            && !self.keys.is_wrong(&structure.key)
            && !self.keys.is_of_one_job(&structure.key)
            && !self
                .keys
                .structure_of(&structure.key)
                .is_some_and(|(_, part)| matches!(part, "aside" | "done" | "cancelled" | "bell"))
    }

    /// The next entries of a list, a set or a sorted set, or the next fields of a hash.
    async fn next_members(
        &self,
        Structure { key, kind }: &Structure,
        at: &mut Place,
        pace: &Pace,
    ) -> Result<Option<Vec<Vec<u8>>>, Error> {
        if at.is_end {
            return Ok(None);
        } else if at.is_under_way {
            tokio::time::sleep(pace.pause).await;
        }
        at.is_under_way = true;
        let mut members = Vec::new();
        if kind == "list" {
            let slice = SLICE as i64;
            let mut command = redis::cmd("LRANGE");
            command.arg(key.as_slice()).arg(-at.from_tail - slice).arg(-at.from_tail - 1);
            let answer = self.link.command("a slice of a list", &command).await?;
            let mut reply = Reply::new(answer, self.address(), "a slice of a list");
            while !reply.is_empty() {
                members.push(reply.bytes()?);
            }
            at.from_tail += slice;
            at.is_end = members.len() < SLICE;
            return Ok(Some(members));
        }
        let word = match kind.as_str() {
            "zset" => "ZSCAN",
            "hash" => "HSCAN",
            _ => "SSCAN",
        };
        let (next, mut page) = self.slice(word, Some(key), &at.cursor, None).await?;
        while !page.is_empty() {
            members.push(page.bytes()?);
            if kind != "set" {
                page.next()?;
            }
        }
        at.is_end = next == "0";
        at.cursor = next;
        Ok(Some(members))
    }

    /// Looks at every key that is no job's, and at the entries of the structures.
    pub(super) async fn look_at_structures(&self, pace: &Pace, gathered: &mut Gathered) -> Result<Seen, Error> {
        let (mut keys, mut cursor) = (HashSet::new(), String::new());
        let pattern = self.keys.others_pattern();
        while let Some(page) = self.next_keys(&pattern, &mut cursor, pace).await? {
            let (single, others): (Vec<_>, Vec<_>) = page.into_iter().partition(|key| self.keys.is_of_one_job(key));
            let seconds = (u64::from(IDEMPOTENCY_DAYS) * 24 * HOUR).to_string();
            let candidates: Result<Vec<_>, _> =
                single.iter().map(|key| self.finding("key-endless", "", key, b"", seconds.as_bytes())).collect();
            gathered.found.keys += single.len() as u64;
            self.add_holding(candidates?, pace, gathered).await?;
            keys.extend(others);
        }
        let mut seen = Seen { ids: HashMap::new(), lists: Vec::new(), twice: Vec::new() };
        let (mut candidates, mut queues) = (Vec::new(), BTreeMap::new());
        for structure in self.with_types(keys, pace).await? {
            gathered.found.keys += 1;
            self.look_at_key(&structure, pace, gathered, &mut candidates, &mut queues).await?;
            let is_wrong = gathered.found.findings.last().is_some_and(|last| last.key == structure.key);
            self.look_at_entries(&structure, is_wrong, pace, gathered, &mut seen).await?;
        }
        for (queue, limit_keys) in queues {
            for piece in limit_keys.chunks(SLICE) {
                self.look_at_members(&queue, "keys", self.keys.queue_part(&queue, "keys").as_bytes(), piece, gathered)
                    .await?;
            }
            let known = self.keys.queues();
            candidates.push(self.finding("queue-unknown", &queue, known.as_bytes(), queue.as_bytes(), b"")?);
            let counters = self.keys.queue_part(&queue, "counters");
            candidates.push(self.finding("parked-count", &queue, counters.as_bytes(), b"", b"")?);
        }
        candidates.append(&mut seen.twice);
        self.add_holding(candidates, pace, gathered).await?;
        Ok(seen)
    }

    /// Looks at a key as a whole: its type, its time to live, its queue.
    async fn look_at_key(
        &self,
        structure: &Structure,
        pace: &Pace,
        gathered: &mut Gathered,
        candidates: &mut Vec<Finding>,
        queues: &mut BTreeMap<String, Vec<Vec<u8>>>,
    ) -> Result<(), Error> {
        let Structure { key, kind } = structure;
        match self.keys.row_of(key) {
            None => gathered.add(self.finding("key-unknown", "", key, b"", b"")?),
            Some(row) if row.kind != kind && row.kind != "any" => {
                let queue = self.keys.structure_of(key).map_or("", |(queue, _)| queue);
                gathered.add(self.finding("wrong-type", queue, key, b"", row.kind.as_bytes())?);
            }
            Some(_) => {}
        }
        let hours = |n: u64| (n * HOUR).to_string();
        if key == self.keys.reconcile().as_bytes() {
            candidates.push(self.finding("claim-endless", "", key, b"", hours(1).as_bytes())?);
        } else if self.keys.is_wrong(key) {
            candidates.push(self.finding("list-endless", "", key, b"", hours(u64::from(DLQ_DAYS) * 24).as_bytes())?);
        } else if key == self.keys.watchers().as_bytes() && kind == "hash" {
            let mut at = Place::default();
            while let Some(fields) = self.next_members(structure, &mut at, pace).await? {
                for queue in fields {
                    candidates.push(self.finding("watch-stale", &String::from_utf8_lossy(&queue), key, &queue, b"")?);
                }
            }
        }
        let Some((queue, part)) = self.keys.structure_of(key).filter(|(queue, _)| check_name("queue", queue).is_ok())
        else {
            return Ok(());
        };
        let limit_keys = queues.entry(queue.to_owned()).or_default();
        if let Some(limit_key) = part.strip_prefix("parked:") {
            limit_keys.push(limit_key.as_bytes().to_owned());
        } else if let Some(priority) = part.strip_prefix("prio:") {
            candidates.push(self.finding("priority-hidden", queue, key, priority.as_bytes(), b"")?);
        }
        let seconds = match part {
            "done" => pace.done_ttl.as_secs().max(1).to_string(),
            "cancelled" => hours(u64::from(CANCELLED_HOURS)),
            "aside" => hours(u64::from(DLQ_DAYS) * 24),
            "bell" => hours(1),
            _ => return Ok(()),
        };
        candidates.push(self.finding("list-endless", queue, key, b"", seconds.as_bytes())?);
        Ok(())
    }

    /// Looks at the entries of a structure, and remembers the ids in it.
    async fn look_at_entries(
        &self,
        structure: &Structure,
        is_wrong: bool,
        pace: &Pace,
        gathered: &mut Gathered,
        seen: &mut Seen,
    ) -> Result<(), Error> {
        let (queue, part) = self.keys.structure_of(&structure.key).unwrap_or_default();
        let is_known = !is_wrong && check_name("queue", queue).is_ok();
        let word = if is_known { looked_at_as(part) } else { "" };
        let holds_ids = self.holds_ids(structure);
        if !holds_ids && word.is_empty() {
            return Ok(());
        }
        let list = (word == "ready").then(|| {
            seen.lists.push(structure.key.clone());
            (seen.lists.len() - 1) as u32
        });
        let mut at = Place::default();
        while let Some(members) = self.next_members(structure, &mut at, pace).await? {
            for member in members.iter().filter(|_| holds_ids) {
                see_ids(member, &mut |id| {
                    seen.ids.entry(gathered.hash(id)).or_insert(None);
                });
                let Some(list) = list else { continue };
                let before = seen.ids.insert(gathered.hash(member), Some(list)).flatten();
                if let Some(before) = before.and_then(|before| seen.lists.get(before as usize))
                    && seen.twice.len() < TWICE_MAX
                {
                    seen.twice.push(self.finding("ready-twice", queue, &structure.key, member, before)?);
                }
            }
            if !word.is_empty() && !members.is_empty() {
                self.look_at_members(queue, word, &structure.key, &members, gathered).await?;
            }
        }
        Ok(())
    }

    /// One call of `lua/look_at_entries.lua`.
    async fn look_at_members(
        &self,
        queue: &str,
        word: &str,
        key: &[u8],
        members: &[Vec<u8>],
        gathered: &mut Gathered,
    ) -> Result<(), Error> {
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::LOOK_AT_ENTRIES, &lanes, &[]);
        call.arg(word).arg(members.len());
        for member in members {
            call.arg(member.as_slice());
        }
        let mut reply = self.send("a look at entries", &script::LOOK_AT_ENTRIES, &call).await?;
        while !reply.is_empty() {
            let (place, fault) = (reply.count()? as usize, reply.text()?);
            if let Some(member) = members.get(place.wrapping_sub(1)) {
                gathered.add(self.finding(&fault, queue, key, member, b"")?);
            }
        }
        Ok(())
    }

    /// Adds those of `candidates` that are so.
    async fn add_holding(
        &self,
        mut candidates: Vec<Finding>,
        pace: &Pace,
        gathered: &mut Gathered,
    ) -> Result<(), Error> {
        candidates.sort_by_key(|finding| finding.kind.name);
        for finding in self.those_that_hold(candidates, pace, false).await? {
            gathered.add(finding);
        }
        Ok(())
    }

    /// Looks at every row. What must be in a structure and was seen in one is in order.
    pub(super) async fn look_at_rows(
        &self,
        pace: &Pace,
        began: i64,
        gathered: &mut Gathered,
        seen: &Seen,
    ) -> Result<(), Error> {
        let (pattern, mut cursor) = (self.keys.jobs_pattern(), String::new());
        while let Some(keys) = self.next_keys(&pattern, &mut cursor, pace).await? {
            let ids = keys.iter().filter_map(|key| self.keys.id_of(key)).filter(|id| id.len() <= ID_BYTES_MAX);
            let ids: Vec<&[u8]> = ids.collect();
            gathered.found.rows += ids.len() as u64;
            for piece in ids.chunks(ROWS_MAX) {
                let mut call = self.call(&script::ROWS, &Lanes::default(), &[]);
                call.arg(piece.len());
                for id in piece {
                    call.arg(*id);
                }
                let mut reply = self.send("a look at rows", &script::ROWS, &call).await?;
                while !reply.is_empty() {
                    let (id, fault, queue) = (reply.bytes()?, reply.text()?, reply.text()?);
                    let (created, more) = (reply.text()?, reply.bytes()?);
                    let key = self.keys.job(&crate::job::JobId::from_bytes(&id));
                    // What was made after the walk began cannot have been seen in it.
                    let is_new = || created.parse::<i64>().is_ok_and(|created| created >= began);
                    let is_seen = || seen.ids.contains_key(&gathered.hash(&id));
                    gathered.add(match fault.as_str() {
                        "wrong-type" => self.finding(&fault, "", &key, &id, b"hash")?,
                        "done-endless" => {
                            let seconds = pace.done_ttl.as_secs().max(1).to_string();
                            self.finding(&fault, &queue, &key, &id, seconds.as_bytes())?
                        }
                        "row-mortal" | "state-unknown" => self.finding(&fault, &queue, &key, &id, &more)?,
                        _ if is_seen() || is_new() => continue,
                        "cancelled-endless" => {
                            let seconds = (u64::from(CANCELLED_HOURS) * HOUR).to_string();
                            self.finding(&fault, &queue, &key, &id, seconds.as_bytes())?
                        }
                        _ if check_name("queue", &queue).is_err() => {
                            self.finding("queue-unnamed", "", &key, &id, &more)?
                        }
                        _ => self.finding(&fault, &queue, &key, &id, &more)?,
                    });
                }
            }
        }
        Ok(())
    }
}

/// How far the walk over one structure has come. Lists are walked from the tail: what is taken at the head does not
/// move what is left, and what is added at the tail is seen twice rather than never.
struct Place {
    cursor: String,
    from_tail: i64,
    is_under_way: bool,
    is_end: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self { cursor: "0".to_owned(), from_tail: 0, is_under_way: false, is_end: false }
    }
}

/// The ids that an entry may mean: `nanos:id` and the like have one behind something.
fn see_ids(member: &[u8], see: &mut (dyn FnMut(&[u8]) + Send)) {
    see(member);
    if let Some(at) = member.iter().position(|byte| *byte == b':') {
        see(&member[at + 1..]);
    }
}
