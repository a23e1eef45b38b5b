//! Every Redis key of ours, in one table, and the only place where one is spelt.
//!
//! Invariant: a key begins with the prefix (or, for the node's hashes, the node prefix), and the variable parts have
//! passed [`crate::job::check_name`], so two different things never meet in one key. A test prints [`TABLE`] into
//! `docs/keys.md`; another finds no other key after everything ran.

mod document;

pub use self::document::{document, find};
use crate::effects::{Bucket, Key};
use crate::job::JobId;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key; `{..}` are the variable parts.
    pub key: &'static str,
    /// The Redis type; `-` for a channel.
    pub kind: &'static str,
    /// What is in it.
    pub content: &'static str,
    /// Who writes it.
    pub writer: &'static str,
    /// How long it lives, or how large it grows.
    pub bound: &'static str,
}

const fn row(
    key: &'static str,
    kind: &'static str,
    content: &'static str,
    writer: &'static str,
    bound: &'static str,
) -> Row {
    Row { key, kind, content, writer, bound }
}

/// Everything wasmhost keeps in Redis.
pub const TABLE: &[Row] = &[
    // Ours, under the prefix. The first seven are TaskHarbor's layout.
    row(
        "{prefix}:job:{id}",
        "hash",
        "the job. From the producer: type queue payload status created_at_nano, and where given run_at_nano timeout_nano \
         max_attempts retry_base_ms retry_cap_ms idempotency_key content_type pin metadata priority limit_key \
         supersede_key. While it lives: attempts deliveries conflicts lease_token \
         lease_expires_at_nano digest node last_error error_kind failed_at_nano progress progress_message limit_paid limit_slot. At its end: \
         result result_type finished_at_nano done_token usage (wall µs, CPU µs, peak memory in bytes) log dlq_reason dlq_failed_at_nano",
        "enqueue, turn, extend, sweep, progress, requeue, cancel, import_dead; removed by drop, purge; other producers",
        "done, cancelled: 24 h; dead: as its place in the DLQ; else until it ends",
    ),
    row(
        "{prefix}:queue:{queue}:ready",
        "list",
        "ids that wait for a worker, the next one at the head",
        "enqueue, turn, sweep; other producers",
        "as many jobs as wait",
    ),
    row(
        "{prefix}:queue:{queue}:scheduled",
        "zset",
        "`nanos:id` (nine digits) by Unix seconds; also read: `id` by Unix nanoseconds",
        "enqueue, turn; other producers",
        "as many jobs as wait",
    ),
    row(
        "{prefix}:queue:{queue}:inflight",
        "zset",
        "ids by the end of their lease in Unix milliseconds; also read: nanoseconds",
        "turn, extend, sweep",
        "as many jobs as run",
    ),
    row(
        "{prefix}:queue:{queue}:dlq",
        "list",
        "ids of dead jobs, the oldest at the head",
        "turn, sweep, requeue, drop, import_dead, purge",
        "10,000 per queue or 30 days; dropped rows are counted",
    ),
    row(
        "{prefix}:queue:{queue}:done",
        "list",
        "ids of done jobs, the newest at the tail",
        "turn",
        "100,000 per queue; as long as the last row in it",
    ),
    row(
        "{prefix}:idem:{queue}:{key}",
        "string",
        "the id of the first job with this idempotency key",
        "enqueue, turn (effects)",
        "7 days",
    ),
    row(
        "{prefix}:queue:{queue}:aside",
        "list",
        "`reason`, a line feed, `id`: ids that could not be run and whose record is not ours to change",
        "turn, sweep",
        "1,000 per queue; 30 days",
    ),
    row(
        "{prefix}:queue:{queue}:counters",
        "hash",
        "totals: done retried dead reclaimed set_aside dlq_dropped cancelled dropped purged unanswered; parked: how many are parked now",
        "turn, sweep, cancel, enqueue, drop, purge, take_over",
        "one per queue",
    ),
    row(
        "{prefix}:queue:{queue}:bell",
        "list",
        "what the next idle host is to do: `more` (take jobs), `watch` (watch the `ready` list)",
        "ring",
        "two per queue; taken by one host, or 1 h",
    ),
    row(
        "{prefix}:watchers",
        "hash",
        "queue -> Unix milliseconds and the session (`random@node`) of the one host that is blocked on its `ready` list \
         until then; the same by the name of another system's list",
        "sweep, ring, watch_lists",
        "one field per queue or list; removed on a clean stop",
    ),
    row(
        "{prefix}:protocols",
        "hash",
        "protocol -> what its programs are told of a job, and when: one write a line (`answer.lua`)",
        "turn, take_over",
        "one field per protocol",
    ),
    row(
        "{prefix}:queue:{queue}:prio:{n}",
        "list",
        "ids of jobs with priority n (0 to 9) that wait for a worker; 9 is served first, `ready` last",
        "enqueue, turn, sweep, requeue",
        "as many jobs as wait",
    ),
    row(
        "{prefix}:queue:{queue}:cancelled",
        "list",
        "ids of cancelled jobs, the newest at the tail",
        "cancel, enqueue",
        "10,000 per queue; 24 h after the last one",
    ),
    row(
        "{prefix}:queue:{queue}:settings",
        "hash",
        "paused (Unix nanoseconds since when) concurrency key_concurrency key_rate key_rate_ms key_order capacity on_full; \
         priorities: the digits in use",
        "set_queue, enqueue",
        "one per queue",
    ),
    row(
        "{prefix}:queue:{queue}:keys",
        "hash",
        "limit key -> jobs that run, jobs that are parked, Unix milliseconds of its next start at a steady rate; empty -> padding",
        "turn, sweep, cancel",
        "a field while jobs of the key run, wait or came too fast",
    ),
    row(
        "{prefix}:queue:{queue}:slots",
        "hash",
        "id -> limit key of every job that counts as running; empty -> padding",
        "turn, sweep, cancel",
        "a field while the job runs",
    ),
    row(
        "{prefix}:queue:{queue}:parked:{key}",
        "list",
        "ids of jobs that wait until a job of their limit key ends",
        "turn, sweep, cancel",
        "as many jobs as wait",
    ),
    row(
        "{prefix}:latest:{queue}:{key}",
        "string",
        "the id of the newest job with this supersede key",
        "enqueue, turn (effects)",
        "7 days",
    ),
    row(
        "{prefix}:state:{id}",
        "hash",
        "the job's own bucket: key -> value; empty -> changes when a key is added or removed",
        "turn (effects)",
        "2 h after the last write",
    ),
    row(
        "{prefix}:bucket:{organization}:{bucket}",
        "hash",
        "a bucket of an organization's jumpscripts: key -> value; empty -> changes when a key is added or removed",
        "turn (effects)",
        "until it has no key, or as long after a write as the manifest of its writer says (1 min to 365 days)",
    ),
    row(
        "{prefix}:queues",
        "set",
        "names of the queues that are known",
        "enqueue, sweep, turn (effects)",
        "one per queue",
    ),
    row(
        "{prefix}:reconcile",
        "string",
        "the session that looks for lost jobs in this period",
        "maintenance",
        "until the next period begins (1 h)",
    ),
    row(
        "{prefix}:wrong:{key}",
        "any",
        "a key that had another type than it must have, under its own name behind the prefix",
        "`wasmhost doctor --fix`",
        "30 days",
    ),
    row(
        "{prefix}:grants",
        "hash",
        "digest -> what was granted to this very code (JSON): digest, permissions (as in a manifest), name, by, at (Unix \
         seconds)",
        "grant",
        "one field per digest; until it is revoked",
    ),
    row("{prefix}:meta", "hash", "layout: the version of this table", "start of a host", "one"),
    row(
        "{prefix}:wake",
        "-",
        "channel: `due MS` when something is due earlier than before, `rev N` after a publish, `watch SESSION QUEUE` when \
         another host watches a queue, `push QUEUE` when a queue that hosts hold back from has jobs or room again, \
         `cancel ID` when a running job was cancelled",
        "enqueue, turn, publish, sweep, cancel, set_queue",
        "-",
    ),
    row(
        "{prefix}:ended",
        "-",
        "channel: the id of every job that ended (done, dead, cancelled), while somebody listens",
        "turn, sweep, cancel, enqueue",
        "-",
    ),
    row(
        "{prefix}:audit",
        "stream",
        "who did what: who, act, target, n, detail",
        "publish, adopt, unpublish, requeue, drop, import_dead, purge, cancel, set_queue, repair",
        "10,000 entries or some more",
    ),
    row(
        "{prefix}:nodes",
        "zset",
        "`node/n/session` of every host by the Unix milliseconds of its last beat",
        "node",
        "one member per process; removed on a clean stop, after 1 h of silence by others",
    ),
    row(
        "{prefix}:nodes:info",
        "hash",
        "session id -> JSON: pid gid nid app started queues components roles version",
        "node",
        "as the zset",
    ),
    // The node's, which other programs read: no prefix unless a node prefix is set.
    row(
        "workers:jumpscripts:id",
        "hash",
        "number -> the jumpscript's record (JSON)",
        "publish; other programs",
        "one field per name",
    ),
    row(
        "workers:jumpscripts:name",
        "hash",
        "`organization__name` -> the same record",
        "publish; other programs",
        "one field per name",
    ),
    row(
        "workers:jumpscripts:wasm",
        "hash",
        "digest -> Wasm bytes, or a script as text",
        "publish; other programs",
        "removed when no name means it, no history tells of it and no row may name it",
    ),
    row(
        "workers:jumpscripts:route",
        "hash",
        "what a job's type may say -> digest, a space, `organization/name`",
        "publish, adopt",
        "some fields per name",
    ),
    row("workers:jumpscripts:published", "hash", "digest -> names we published it under", "publish", "as code"),
    row(
        "workers:jumpscripts:keep",
        "hash",
        "digest -> Unix seconds until which a row may name it",
        "publish, turn, enqueue",
        "one field per digest",
    ),
    row(
        "workers:jumpscripts:history",
        "hash",
        "`organization__name` -> what was live, the newest first, a line of JSON each: at, act, by, digest, version, size, \
         signed_by",
        "publish, adopt, unpublish",
        "20 lines per name; of a removed name 30 days",
    ),
    row(
        "workers:jumpscripts:owners",
        "hash",
        "digest -> the fields of the names that it was live under",
        "publish, adopt",
        "one field per digest",
    ),
    row(
        "workers:jumpscripts:signatures",
        "hash",
        "digest, a space, `organization__name` -> its signature (JSON)",
        "publish, adopt",
        "as the digest",
    ),
    row(
        "workers:jumpscripts:rev",
        "string",
        "revision; grows with every publish, also after FLUSHALL",
        "publish, adopt",
        "one",
    ),
    row(
        "workers:jumpscriptlastid",
        "string",
        "the last number given to a jumpscript, from 1000001",
        "publish; JumpScale's clients",
        "one",
    ),
    row(
        "workers:watchdog",
        "hash",
        "`worker_{queue}_{node}.{n}` -> Unix seconds of its last beat; 0 while it starts",
        "node",
        "one field per slot group; removed on a clean stop",
    ),
    row(
        "workers:heartbeat",
        "hash",
        "queue -> Unix seconds of the last beat of any worker of it",
        "node",
        "one field per queue",
    ),
    row(
        "workers:sessions",
        "hash",
        "session id -> JSON `{start,gid,nid,pid,appname}`",
        "node",
        "one field per process; removed on a clean stop",
    ),
    row("healthcheck:status", "hash", "component -> `True` or `False`", "node", "one field per component"),
    row(
        "healthcheck:lastcheck",
        "hash",
        "component -> Unix seconds with a fraction",
        "node",
        "one field per component",
    ),
    row("healthcheck:monitoring", "hash", "results and errors (JSON), lastcheck", "node", "one"),
    row(
        "application",
        "hash",
        "application -> JSON list of process ids",
        "node",
        "one field per application; removed on a clean stop",
    ),
];

/// Queue structures in the order in which scripts get them (`lua/head.lua`).
pub(super) const PARTS: [&str; 11] =
    ["ready", "scheduled", "inflight", "done", "dlq", "aside", "counters", "cancelled", "settings", "keys", "slots"];

/// The keys of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    /// Empty, or the node prefix and a colon.
    node: String,
}

impl Keys {
    /// The keys under a prefix and a node prefix (which may be empty).
    ///
    /// # Errors
    /// A sentence when the prefix is empty or has characters that would make keys ambiguous.
    pub fn new(prefix: &str, node_prefix: &str) -> Result<Self, String> {
        crate::job::check_name("prefix", prefix)?;
        if prefix.contains(['*', '?', '[', ' ']) {
            return Err(format!("prefix `{prefix}` must not contain spaces or any of `*?[`"));
        }
        let node = if node_prefix.is_empty() {
            String::new()
        } else {
            crate::job::check_name("node prefix", node_prefix)?;
            format!("{node_prefix}:")
        };
        Ok(Self { prefix: prefix.to_owned(), node })
    }

    /// The prefix itself; scripts compose job hashes and idempotency keys from it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The hash of a job.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Vec<u8> {
        [self.prefix.as_bytes(), b":job:", id.as_bytes()].concat()
    }

    /// The hash of a bucket. Organization and name have passed the checks of a manifest.
    #[must_use]
    pub fn bucket(&self, bucket: &Bucket) -> Vec<u8> {
        match bucket {
            Bucket::Own(id) => [self.prefix.as_bytes(), b":state:", id.as_bytes()].concat(),
            Bucket::Named { organization, name } => {
                format!("{}:bucket:{organization}:{name}", self.prefix).into_bytes()
            }
        }
    }

    /// The structures of a queue, in the order of `lua/head.lua`.
    #[must_use]
    pub fn queue(&self, queue: &str) -> [String; PARTS.len()] {
        PARTS.map(|part| format!("{}:queue:{queue}:{part}", self.prefix))
    }

    /// One structure of a queue.
    #[must_use]
    pub fn queue_part(&self, queue: &str, part: &'static str) -> String {
        format!("{}:queue:{queue}:{part}", self.prefix)
    }

    /// The list of a queue that workers wait on.
    #[must_use]
    pub fn ready(&self, queue: &str) -> String {
        format!("{}:queue:{queue}:ready", self.prefix)
    }

    /// The list of a queue's jobs that wait for the limit of a key.
    #[must_use]
    pub fn parked(&self, queue: &str, limit_key: &str) -> String {
        format!("{}:queue:{queue}:parked:{limit_key}", self.prefix)
    }

    /// The list of a queue's dead jobs.
    #[must_use]
    pub fn dlq(&self, queue: &str) -> String {
        format!("{}:queue:{queue}:dlq", self.prefix)
    }

    /// Who looks for lost jobs in this period.
    #[must_use]
    pub fn reconcile(&self) -> String {
        format!("{}:reconcile", self.prefix)
    }

    /// A pattern for every job, for SCAN.
    #[must_use]
    pub fn jobs_pattern(&self) -> String {
        format!("{}:job:*", escaped(&self.prefix))
    }

    /// A pattern for everything but jobs, for SCAN.
    #[must_use]
    pub fn others_pattern(&self) -> String {
        format!("{}:[^j]*", escaped(&self.prefix))
    }

    /// A pattern for whatever may hold ids: everything but jobs and idempotency keys.
    #[must_use]
    pub fn structures_pattern(&self) -> String {
        format!("{}:[^ji]*", escaped(&self.prefix))
    }

    /// The row of [`TABLE`] that a key belongs to.
    #[must_use]
    pub fn row_of(&self, key: &[u8]) -> Option<&'static Row> {
        find(&self.prefix, self.node.trim_end_matches(':'), std::str::from_utf8(key).ok()?)
    }

    /// Whether a key stands for one job: an idempotency or a supersede key.
    #[must_use]
    pub fn is_of_one_job(&self, key: &[u8]) -> bool {
        let rest = key.strip_prefix(self.prefix.as_bytes()).unwrap_or_default();
        rest.starts_with(b":idem:") || rest.starts_with(b":latest:")
    }

    /// Whether a key was of the wrong type and lies there renamed.
    #[must_use]
    pub fn is_wrong(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_bytes()).is_some_and(|rest| rest.starts_with(b":wrong:"))
    }

    /// Who watches the lists.
    #[must_use]
    pub fn watchers(&self) -> String {
        format!("{}:watchers", self.prefix)
    }

    /// The id in the key of a job.
    #[must_use]
    pub fn id_of<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":job:")
    }

    /// Queue and part of a structure.
    #[must_use]
    pub fn structure_of<'a>(&self, key: &'a [u8]) -> Option<(&'a str, &'a str)> {
        let key = std::str::from_utf8(key.strip_prefix(self.prefix.as_bytes())?).ok()?;
        key.strip_prefix(":queue:")?.split_once(':')
    }

    /// The list that idle hosts wait on which do not watch the queue.
    #[must_use]
    pub fn bell(&self, queue: &str) -> String {
        format!("{}:queue:{queue}:bell", self.prefix)
    }

    /// The set of known queues.
    #[must_use]
    pub fn queues(&self) -> String {
        format!("{}:queues", self.prefix)
    }

    /// The version of the layout.
    #[must_use]
    pub fn meta(&self) -> String {
        format!("{}:meta", self.prefix)
    }

    /// The hosts by the time of their last beat.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    /// What is known of each host.
    #[must_use]
    pub fn nodes_info(&self) -> String {
        format!("{}:nodes:info", self.prefix)
    }

    /// The channel that wakes hosts.
    #[must_use]
    pub fn wake(&self) -> String {
        format!("{}:wake", self.prefix)
    }

    /// Who did what.
    #[must_use]
    pub fn audit(&self) -> String {
        format!("{}:audit", self.prefix)
    }

    /// The channel that tells of ended jobs.
    #[must_use]
    pub fn ended(&self) -> String {
        format!("{}:ended", self.prefix)
    }

    /// Jumpscript records by number.
    #[must_use]
    pub fn scripts_by_id(&self) -> String {
        format!("{}workers:jumpscripts:id", self.node)
    }

    /// Jumpscript records by name.
    #[must_use]
    pub fn scripts_by_name(&self) -> String {
        format!("{}workers:jumpscripts:name", self.node)
    }

    /// Code by digest.
    #[must_use]
    pub fn wasm(&self) -> String {
        format!("{}workers:jumpscripts:wasm", self.node)
    }

    /// The names under which code was published, by digest.
    #[must_use]
    pub fn published(&self) -> String {
        format!("{}workers:jumpscripts:published", self.node)
    }

    /// What was granted, by digest.
    #[must_use]
    pub fn grants(&self) -> String {
        format!("{}:grants", self.prefix)
    }

    /// What a type means.
    #[must_use]
    pub fn route(&self) -> String {
        format!("{}workers:jumpscripts:route", self.node)
    }

    /// Until when a digest is kept.
    #[must_use]
    pub fn keep(&self) -> String {
        format!("{}workers:jumpscripts:keep", self.node)
    }

    /// What was live under each name.
    #[must_use]
    pub fn history(&self) -> String {
        format!("{}workers:jumpscripts:history", self.node)
    }

    /// The names that a digest was live under.
    #[must_use]
    pub fn owners(&self) -> String {
        format!("{}workers:jumpscripts:owners", self.node)
    }

    /// The signatures of digests.
    #[must_use]
    pub fn signatures(&self) -> String {
        format!("{}workers:jumpscripts:signatures", self.node)
    }

    /// The revision of the jumpscripts.
    #[must_use]
    pub fn rev(&self) -> String {
        format!("{}workers:jumpscripts:rev", self.node)
    }

    /// The last number given to a jumpscript.
    #[must_use]
    pub fn last_id(&self) -> String {
        format!("{}workers:jumpscriptlastid", self.node)
    }

    /// Beats of the worker loops.
    #[must_use]
    pub fn watchdog(&self) -> String {
        format!("{}workers:watchdog", self.node)
    }

    /// Beats of the queues.
    #[must_use]
    pub fn heartbeat(&self) -> String {
        format!("{}workers:heartbeat", self.node)
    }

    /// Running processes.
    #[must_use]
    pub fn sessions(&self) -> String {
        format!("{}workers:sessions", self.node)
    }

    /// `status`, `lastcheck` or `monitoring` of the health checks.
    #[must_use]
    pub fn healthcheck(&self, part: &'static str) -> String {
        format!("{}healthcheck:{part}", self.node)
    }

    /// Process ids by application.
    #[must_use]
    pub fn application(&self) -> String {
        format!("{}application", self.node)
    }

    /// A key of a jumpscript's own, under the prefix, for effects.
    #[must_use]
    pub fn effect(&self, queue: &str, part: &'static str) -> Key {
        Key::spelt(format!("{}:queue:{queue}:{part}", self.prefix))
    }
}

/// Text without a meaning of its own in a pattern.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_could_match_others_is_refused() {
        assert!(Keys::new("", "").is_err());
        assert!(Keys::new("a:b", "").is_err());
        assert!(Keys::new("a*", "").is_err());
        assert!(Keys::new("{wasmhost}", "{wasmhost}").is_ok());
    }
}
