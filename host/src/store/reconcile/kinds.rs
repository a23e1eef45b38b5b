//! What a pass can find: one table, which is also the page `docs/doctor.md`.
//!
//! Invariant: the scripts name a fault by the first word of its row here.
//!
//! Next: `lua/entries.lua` and `lua/rows.lua` for how a fault is seen, `lua/repair.lua` for what is done about it.

use std::fmt::Write as _;

/// Who repairs a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repairer {
    /// Every host's hourly pass, and `wasmhost doctor --fix`.
    Host,
    /// `wasmhost doctor --fix` only.
    Doctor,
    /// A person: nobody else can know what was meant.
    Person,
    /// Nobody has to: it may belong to another program. Told, and not counted as a fault.
    Nobody,
}

/// One kind of fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name, for people and programs.
    pub name: &'static str,
    /// What is wrong.
    pub meaning: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What the repair does, or what a person is to do.
    pub repair: &'static str,
    /// Who repairs it.
    pub repairer: Repairer,
}

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Whether it is about a job that no walk over the structures has met.
    pub(super) fn is_of_unseen(&self) -> bool {
        self.name.starts_with("lost-") || matches!(self.name, "cancelled-endless" | "queue-unnamed")
    }

    /// How many of them one script looks at: some search both ends of long lists, or count all slots of a queue.
    pub(super) fn batch(&self) -> usize {
        let is_cheap = ["lease-", "scheduled-"].iter().any(|word| self.name.starts_with(word))
            || self.name.ends_with("-endless")
            || matches!(self.name, "watch-stale" | "queue-unknown" | "row-mortal" | "state-unknown" | "key-unknown");
        if is_cheap { 50 } else { 3 }
    }
}

const fn kind(
    name: &'static str,
    repairer: Repairer,
    meaning: &'static str,
    cause: &'static str,
    repair: &'static str,
) -> Kind {
    Kind { name, meaning, cause, repair, repairer }
}

use Repairer::{Doctor, Host, Nobody, Person};

/// Every kind. A structure of the wrong type comes first: what else is wrong shows when it is out of the way.
pub static KINDS: &[Kind] = &[
    kind(
        "wrong-type",
        Doctor,
        "a key of ours has another type than it must have; its queue stands still",
        "another program or a person wrote to it",
        "renamed to `{prefix}:wrong:..`, kept there for 30 days; jobs that stood in it are found as lost and put back",
    ),
    kind(
        "lost-ready",
        Host,
        "a job says that it waits, and stands in no list",
        "a producer died between its two commands, or the list was deleted",
        "put at the end of its list",
    ),
    kind(
        "lost-scheduled",
        Host,
        "a job says that it is scheduled, and is not among the scheduled ones",
        "a producer died between its two commands, or the entry was deleted",
        "scheduled at the time that its row says",
    ),
    kind(
        "lost-inflight",
        Host,
        "a job says that it runs, and has no lease",
        "the lease was deleted by hand, or a server lost its last writes",
        "gets a lease that ends when its row says; then it runs again",
    ),
    kind(
        "lost-dead",
        Host,
        "a job says that it is dead, and is not in the dead-letter queue",
        "the list was deleted, or a program died between two commands",
        "put at the end of the dead-letter queue",
    ),
    kind(
        "ready-ghost",
        Host,
        "an id waits, and there is no such job",
        "a row was deleted or has expired, or a producer died before it wrote one",
        "taken out of the list and set aside",
    ),
    kind(
        "ready-misfit",
        Host,
        "an id waits, and its job runs or has ended",
        "a producer pushed it once more",
        "taken out of the list and set aside; the job is not touched",
    ),
    kind("ready-twice", Host, "an id waits twice", "a producer pushed it twice", "the later entry is taken out"),
    kind(
        "lease-ghost",
        Host,
        "a lease is held for a job that does not exist",
        "the row was deleted while the job ran",
        "the lease is removed, the id set aside",
    ),
    kind(
        "lease-misfit",
        Host,
        "a lease is held for a job that does not run",
        "another program changed the row without its lease",
        "the lease is removed; the job is not touched",
    ),
    kind(
        "lease-expired",
        Host,
        "a lease ended more than 10 s ago, and nobody has taken the job back",
        "its worker is lost, and no host serves the queue",
        "back to the head of its queue, or dead when it was handed out too often",
    ),
    kind(
        "scheduled-ghost",
        Host,
        "an entry is scheduled for a job that does not exist",
        "the row was deleted or has expired",
        "the entry is removed, the id set aside",
    ),
    kind(
        "scheduled-misfit",
        Host,
        "an entry is scheduled for a job that runs or has ended",
        "another program changed the row without its entry",
        "the entry is removed; the job is not touched",
    ),
    kind(
        "scheduled-malformed",
        Host,
        "an entry of `scheduled` is not `nanos:id` with nine digits",
        "another program wrote it",
        "the entry is removed and set aside; its job, if there is one, is found as lost and put back",
    ),
    kind(
        "dead-ghost",
        Host,
        "an id is in the dead-letter queue, and there is no such job",
        "the row was deleted",
        "taken out of the list",
    ),
    kind(
        "dead-misfit",
        Host,
        "an id is in the dead-letter queue, and its job is not dead",
        "another program brought it back without taking it out",
        "taken out of the list; the job is not touched",
    ),
    kind(
        "done-endless",
        Host,
        "a done job has no time to live",
        "another program ended it",
        "it lives for `limits.done_ttl` from now",
    ),
    kind(
        "cancelled-endless",
        Host,
        "a cancelled job has no time to live, and waits nowhere",
        "the list in which it was left was deleted",
        "it lives for 24 h from now",
    ),
    kind(
        "row-mortal",
        Host,
        "a job that runs, or has not ended again after it had once, has a time to live and would vanish",
        "a producer wrote the id of a done job once more, or set an expiry that the job outlived in its queue",
        "the time to live is taken away",
    ),
    kind(
        "state-unknown",
        Person,
        "a job is in a state that nobody knows",
        "another program, or a newer wasmhost, wrote it",
        "`redis-cli HSET KEY status ready` has it put back by the next repair; `redis-cli DEL KEY` removes it",
    ),
    kind(
        "queue-unnamed",
        Person,
        "a job waits nowhere, and its row names no queue that could be",
        "a producer left the field out",
        "`redis-cli HSET KEY queue NAME` has it put back by the next repair; `redis-cli DEL KEY` removes it",
    ),
    kind(
        "slot-leaked",
        Host,
        "a job counts against the limit of its key and does not run",
        "the row was deleted, or another program ended the job",
        "the slot is given back, and the next job of the key is let in",
    ),
    kind(
        "key-count",
        Host,
        "what is counted for a limit key is not what runs and waits",
        "a list of parked jobs or the counts were deleted or changed by hand",
        "counted anew, and as many jobs let in as the limit allows",
    ),
    kind(
        "parked-stuck",
        Host,
        "jobs are parked for a limit key that has room",
        "its limit was raised and no host serves the queue, or a slot was deleted by hand",
        "let in as far as the limit allows",
    ),
    kind(
        "parked-count",
        Host,
        "the number of parked jobs of a queue is not how many are parked",
        "a list of parked jobs or the counters were changed by hand",
        "counted anew (in queues with at most 1,000 limit keys in use)",
    ),
    kind(
        "priority-hidden",
        Host,
        "jobs wait with a priority that the settings of their queue do not name, so nobody takes them",
        "the settings were deleted, or another program filled the list",
        "the priority is named",
    ),
    kind(
        "queue-unknown",
        Host,
        "a queue has jobs and is not in the set of queues, so no list shows it",
        "another program filled it, and no host serves it",
        "added to the set",
    ),
    kind(
        "list-endless",
        Host,
        "a list of jobs that have ended, or a bell, has no time to live",
        "another program pushed to it",
        "it lives as long as its last entries may",
    ),
    kind(
        "key-endless",
        Host,
        "an idempotency or supersede key has no time to live, and its job is gone",
        "another program wrote it",
        "it lives for 7 days from now",
    ),
    kind(
        "claim-endless",
        Host,
        "the claim of the hourly pass has no time to live, so no host makes one",
        "the key was written by hand",
        "it lives for 1 h from now",
    ),
    kind(
        "watch-stale",
        Host,
        "the watch of a queue ended more than an hour ago, or cannot be read",
        "its host died, and no host serves the queue",
        "removed",
    ),
    kind(
        "host-dead",
        Doctor,
        "a host is registered and has been silent for more than an hour",
        "it died, and no other host runs that would remove it",
        "its entry and its fields in the hashes of the node are removed; a user who may not write those leaves it to a host",
    ),
    kind(
        "key-unknown",
        Nobody,
        "a key under the prefix is none of ours",
        "another program, or a newer wasmhost, keeps something here",
        "nothing; it is no fault",
    ),
];

/// The text of `docs/doctor.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(HEAD);
    for kind in KINDS {
        let who = match kind.repairer {
            Host => "hosts, `--fix`",
            Doctor => "`--fix`",
            Person => "a person",
            Nobody => "-",
        };
        let _ = writeln!(text, "| `{}` | {} | {} | {} | {who} |", kind.name, kind.meaning, kind.cause, kind.repair);
    }
    text
}

const HEAD: &str = "# What the doctor finds in the queues

The table is made from the program's own; a test compares them.

- `wasmhost doctor` looks at the configuration, the machine, the engine and the server.
- `wasmhost doctor --jobs` looks at every job and every structure under the prefix, and changes nothing.
- `wasmhost doctor --fix` does the same and then repairs: on a terminal it asks, elsewhere it wants `--yes` and else is
  the same as `--jobs`.

Both are safe while hosts and producers work. Nothing counts as found that a second look after `--grace` (60 s) does
not confirm: a producer that writes its job in two commands has both behind it by then. Each repair is one script, which
looks once more in the moment in which it writes. No call looks at more than some hundred entries; lists of more than
20,000 ids are searched from both ends only, so what is wrong deep inside is found when it comes nearer to one.
After a repair the doctor looks again, until a look finds nothing new: one fault may have hidden another.

Exit codes: 0 nothing is wrong, or everything is repaired; 1 something is left; 75 Redis is away. With `--output json`
one document names every finding; the text names `--examples` (5) of each kind.

Every host makes the same pass once an hour and repairs what the last column says. Structures of other systems are
never removed, and a job that never ran keeps a time to live that its producer gave it.

| kind | what is wrong | how it happens | the repair | by |
| --- | --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_scripts_use_no_other() {
        for kind in KINDS {
            assert!(std::ptr::eq(Kind::named(kind.name).unwrap(), kind), "{}", kind.name);
        }
        let repair = include_str!("../lua/repair.lua");
        for kind in KINDS.iter().filter(|kind| kind.name != "host-dead") {
            assert!(repair.contains(&format!("['{}']", kind.name)), "lua/repair.lua does not know {}", kind.name);
        }
        for script in [include_str!("../lua/entries.lua"), include_str!("../lua/rows.lua")] {
            for word in script.split('\'').skip(1).step_by(2).filter(|word| word.contains('-') && !word.contains(' ')) {
                assert!(Kind::named(word).is_some(), "`{word}` is no kind");
            }
        }
    }
}
