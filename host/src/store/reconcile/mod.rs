//! Finds jobs that are in no structure, entries without a job, and what else does not fit, and puts it right.
//!
//! Transitions are atomic, so this finds nothing unless a program died between two commands of its own, a person
//! removed a key, or a server lost its last writes. A pass looks at everything twice, some time apart; a repair looks
//! once more, in a script that makes sure in one moment. Structures are found by what lies in Redis, not by a list of
//! names. [`KINDS`] says what can be found.
//!
//! Invariant: no id is put into a structure that it stands in, and what changes between the two looks is left alone.
//! No call looks at more than some hundred entries. Nothing but [`Store::repair`] writes.
//!
//! Next: `walk.rs` for how everything is looked at, `lua/repair.lua` for what is put where, `maintenance` and
//! `cli/doctor` for who calls it.

mod kinds;
mod walk;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::Value;

pub use self::kinds::{KINDS, Kind, Repairer, document as kinds_document};
use super::node::HOST_GONE;
use super::script::{self, Lanes};
use super::{Error, Store};
use crate::job::visible;

/// Faults of one kind that one pass looks at a second time; more are left for the next one.
const FAULTS_MAX: usize = 10_000;
/// What a pass calls a host that is gone; it is found and removed by the registry's own scripts.
const HOST_DEAD: &str = "host-dead";

/// How fast a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between the two looks at something that seems wrong. A producer that writes its job in two commands has
    /// both behind it by then.
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

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: &'static Kind,
    /// The queue; empty when it is about none.
    pub queue: String,
    /// The key that it is about.
    pub key: Vec<u8>,
    /// The id, entry or field that it is about; empty when it is about the whole key.
    pub entry: Vec<u8>,
    /// What `lua/repair.lua` wants to know besides.
    more: Vec<u8>,
}

impl Finding {
    /// The key, for people.
    #[must_use]
    pub fn key_text(&self) -> String {
        visible(&String::from_utf8_lossy(&self.key))
    }

    /// The id, entry or field, for people.
    #[must_use]
    pub fn entry_text(&self) -> String {
        visible(&String::from_utf8_lossy(&self.entry))
    }

    /// What is wrong, with what only this finding can say.
    #[must_use]
    pub fn text(&self) -> String {
        match self.kind.name {
            "wrong-type" => format!("{}: not a {}", self.kind.meaning, String::from_utf8_lossy(&self.more)),
            _ => self.kind.meaning.to_owned(),
        }
    }
}

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Rows that were looked at.
    pub rows: u64,
    /// Keys besides them.
    pub keys: u64,
    /// What is wrong, in the order of [`KINDS`].
    pub findings: Vec<Finding>,
    /// Whether more was wrong of a kind than one pass looks at.
    pub is_more: bool,
}

impl Survey {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.is_more && self.findings.iter().all(|finding| finding.kind.repairer == Repairer::Nobody)
    }

    /// How many findings there are of each kind, in the order of [`KINDS`].
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static Kind, usize)> {
        let of = |kind: &'static Kind| self.findings.iter().filter(|finding| finding.kind == kind).count();
        KINDS.iter().map(|kind| (kind, of(kind))).filter(|(_, n)| *n > 0).collect()
    }
}

/// What is gathered while a pass goes on: each thing once.
struct Gathered {
    found: Survey,
    known: HashSet<u64>,
    by_kind: HashMap<&'static str, usize>,
    hasher: RandomState,
}

impl Gathered {
    fn new() -> Self {
        Self { found: Survey::default(), known: HashSet::new(), by_kind: HashMap::new(), hasher: RandomState::new() }
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    fn add(&mut self, finding: Finding) {
        let n = self.by_kind.entry(finding.kind.name).or_default();
        if *n >= FAULTS_MAX {
            self.found.is_more = true;
        } else if self.known.insert(self.hasher.hash_one((finding.kind.name, &finding.key, &finding.entry))) {
            *n += 1;
            self.found.findings.push(finding);
        }
    }
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

    /// Looks at everything under the prefix, once. What seems wrong may be on its way: [`Store::confirm`] it.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn suspect(&self, pace: &Pace) -> Result<Survey, Error> {
        let mut gathered = Gathered::new();
        let began = self.server_nanos().await?;
        let seen = self.look_at_structures(pace, &mut gathered).await?;
        self.look_at_rows(pace, began, &mut gathered, &seen).await?;
        let mut found = gathered.found;
        let registry = [self.keys.nodes(), self.keys.nodes_info()];
        let is_registry_wrong = |finding: &Finding| registry.iter().any(|key| key.as_bytes() == finding.key);
        if !found.findings.iter().any(is_registry_wrong) {
            found.findings.extend(self.dead_hosts().await?);
        }
        let place = |finding: &Finding| KINDS.iter().position(|kind| kind == finding.kind);
        found.findings.sort_by_key(place);
        Ok(found)
    }

    /// Waits for the grace and keeps what is still wrong then.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn confirm(&self, mut found: Survey, pace: &Pace) -> Result<Survey, Error> {
        if found.findings.is_empty() {
            return Ok(found);
        }
        tokio::time::sleep(pace.grace).await;
        if found.findings.iter().any(|finding| finding.kind.is_of_unseen()) {
            let hasher = RandomState::new();
            let unseen = found.findings.iter().filter(|finding| finding.kind.is_of_unseen());
            let mut lost: HashSet<u64> = unseen.map(|finding| hasher.hash_one(finding.entry.as_slice())).collect();
            self.walk_structures(pace, &mut |id| {
                lost.remove(&hasher.hash_one(id));
            })
            .await?;
            found.findings.retain(|finding| {
                !finding.kind.is_of_unseen() || lost.contains(&hasher.hash_one(finding.entry.as_slice()))
            });
        }
        found.findings = self.those_that_hold(found.findings, pace, false).await?;
        Ok(found)
    }

    /// Repairs those findings that are still so and that are not for a person. Answers what it has repaired; what had
    /// settled by itself is not among it.
    ///
    /// # Errors
    /// When Redis cannot be reached or is full; what was put right until then stays so.
    pub async fn repair(&self, findings: Vec<Finding>, pace: &Pace) -> Result<Vec<Finding>, Error> {
        let is_ours = |finding: &Finding| matches!(finding.kind.repairer, Repairer::Host | Repairer::Doctor);
        self.those_that_hold(findings.into_iter().filter(is_ours).collect(), pace, true).await
    }

    /// A pass as a host makes it: two looks, and the repair of what hosts repair. Answers what was found, and what of
    /// it was repaired. May be dropped at any point.
    ///
    /// # Errors
    /// When Redis cannot be reached or is full; what was put right until then stays so.
    pub async fn reconcile(&self, pace: &Pace) -> Result<(Survey, Vec<Finding>), Error> {
        let found = self.confirm(self.suspect(pace).await?, pace).await?;
        let of_hosts = found.findings.iter().filter(|finding| finding.kind.repairer == Repairer::Host);
        let repaired = self.repair(of_hosts.cloned().collect(), pace).await?;
        Ok((found, repaired))
    }

    /// Looks at each finding once more, in a script, and keeps those that are there. With `is_fix` they are repaired.
    async fn those_that_hold(&self, findings: Vec<Finding>, pace: &Pace, is_fix: bool) -> Result<Vec<Finding>, Error> {
        let mut holding = Vec::new();
        let mut left = findings.into_iter().peekable();
        while let Some(first) = left.next() {
            let (kind, mut piece) = (first.kind, vec![first]);
            while piece.len() < kind.batch()
                && let Some(next) = left.next_if(|next| next.kind == kind)
            {
                piece.push(next);
            }
            let answers = if kind.name == HOST_DEAD {
                self.still_dead(&piece, is_fix).await?
            } else {
                self.check(&piece, is_fix).await?
            };
            holding.extend(piece.into_iter().zip(answers).filter(|(_, is_so)| *is_so).map(|(finding, _)| finding));
            tokio::time::sleep(pace.pause).await;
        }
        Ok(holding)
    }

    /// One call of `lua/repair.lua`.
    async fn check(&self, findings: &[Finding], is_fix: bool) -> Result<Vec<bool>, Error> {
        let mut lanes = Lanes::default();
        let mut place = |queue| if crate::job::check_name("queue", queue).is_ok() { lanes.place(queue) } else { 0 };
        let places: Vec<usize> = findings.iter().map(|finding| place(&finding.queue)).collect();
        let mut call = self.call(&script::REPAIR, &lanes, &[]);
        self.sign(&mut call);
        call.arg(u8::from(is_fix)).arg(findings.len());
        for (finding, place) in findings.iter().zip(places) {
            call.arg(finding.kind.name).arg(place).arg(finding.key.as_slice());
            call.arg(finding.entry.as_slice()).arg(finding.more.as_slice());
        }
        let what = if is_fix { "a repair" } else { "a second look" };
        let mut reply = self.send(what, &script::REPAIR, &call).await?;
        let mut answers = reply.nested()?;
        findings.iter().map(|_| Ok(answers.count()? == 1)).collect()
    }

    /// Hosts that are registered and have been silent for long.
    async fn dead_hosts(&self) -> Result<Vec<Finding>, Error> {
        let hosts = self.registered_hosts().await?;
        let dead = hosts.into_iter().filter(|host| host.silence > HOST_GONE);
        Ok(dead
            .filter_map(|host| {
                Some(Finding {
                    kind: Kind::named(HOST_DEAD)?,
                    queue: String::new(),
                    key: self.keys.nodes().into_bytes(),
                    entry: host.presence.session.into_bytes(),
                    more: Vec::new(),
                })
            })
            .collect())
    }

    /// Which of the hosts of `findings` are still dead; with `is_fix` they are removed.
    async fn still_dead(&self, findings: &[Finding], is_fix: bool) -> Result<Vec<bool>, Error> {
        let hosts = self.registered_hosts().await?;
        let mut answers = Vec::new();
        for finding in findings {
            let session = finding.entry.as_slice();
            let is_it = |host: &&super::node::RegisteredHost| {
                host.presence.session.as_bytes() == session && host.silence > HOST_GONE
            };
            answers.push(match hosts.iter().find(is_it) {
                Some(host) if is_fix => match self.remove_silent(&host.clone().into()).await {
                    // An operator may look after jobs without being allowed to write the node's hashes.
                    Err(Error::NotAllowed { .. }) => false,
                    removed => removed?.is_some(),
                },
                found => found.is_some(),
            });
        }
        Ok(answers)
    }
}
