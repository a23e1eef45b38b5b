//! Hosts: real processes of the built program that are killed, stopped and replaced.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wasmhost::clock::Timestamp;

use crate::support::program::{Host, program};

/// How long hosts may take to end what they run after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(6);
/// Beyond the grace: stopping attempts, the last settles, leaving the hashes, and a busy machine.
const EXIT_SLACK: Duration = Duration::from_secs(4);

/// Hosts of one prefix.
pub(super) struct Fleet {
    /// What every host is started with.
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    members: Vec<Member>,
    n_started: usize,
    /// When hosts fell silent, by node.
    silences: BTreeMap<String, Vec<i64>>,
    /// What is wrong with hosts that have ended.
    wrong: Vec<String>,
    n_leases_lost: usize,
    slowest_exit: Duration,
    data: tempfile::TempDir,
}

/// A running host. Every process has a node name of its own, so the sink can tell them apart.
struct Member {
    node: String,
    host: Host,
}

impl Fleet {
    /// A fleet without hosts.
    pub(super) fn new(arguments: Vec<String>, variables: Vec<(String, String)>) -> Self {
        Self {
            arguments,
            variables,
            members: Vec::new(),
            n_started: 0,
            silences: BTreeMap::new(),
            wrong: Vec::new(),
            n_leases_lost: 0,
            slowest_exit: Duration::ZERO,
            data: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Starts hosts and waits until they are ready.
    pub(super) fn start(&mut self, n_hosts: usize) {
        let first = self.members.len();
        for _ in 0..n_hosts {
            let member = self.spawn();
            self.members.push(member);
        }
        for member in &mut self.members[first..] {
            member.host.wait_for_line("host ready");
        }
    }

    fn spawn(&mut self) -> Member {
        let node = format!("n{}", self.n_started);
        self.n_started += 1;
        let mut command = program();
        let log = std::env::var("TORTURE_LOG").unwrap_or_else(|_| "warn,wasmhost::cli=info".to_owned());
        command.args(["run", "--node", &node, "--log", &log, "--data"]).arg(self.data.path());
        command.args(&self.arguments).envs(self.variables.iter().cloned());
        Member { host: Host::spawn(command), node }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Kills a host with signal 9 and starts another in its place.
    pub(super) fn kill(&mut self, place: usize) {
        self.silence(place, Signal::KILL);
        self.members[place].host.wait();
        let next = self.spawn();
        let dead = std::mem::replace(&mut self.members[place], next);
        self.bury(dead);
    }

    /// Stops a host's process without ending it.
    pub(super) fn pause(&mut self, place: usize) {
        self.silence(place, Signal::STOP);
    }

    /// Ends [`Fleet::pause`].
    pub(super) fn resume(&self, place: usize) {
        self.signal(place, Signal::CONT);
    }

    /// Starts another host in the place of one, which is asked to stop and must do so in time.
    pub(super) fn replace(&mut self, place: usize) {
        let next = self.spawn();
        let mut old = std::mem::replace(&mut self.members[place], next);
        let asked = ask_to_stop(&mut old);
        self.wait_for_end(old, asked);
    }

    /// Asks every host to stop, and waits until they have.
    pub(super) fn stop(&mut self) {
        let mut members = std::mem::take(&mut self.members);
        let asked: Vec<Instant> = members.iter_mut().map(ask_to_stop).collect();
        for (member, asked) in members.into_iter().zip(asked) {
            self.wait_for_end(member, asked);
        }
    }

    fn wait_for_end(&mut self, mut member: Member, asked: Instant) {
        let code = member.host.wait();
        let took = asked.elapsed();
        self.slowest_exit = self.slowest_exit.max(took);
        if code != 0 || took > GRACE + EXIT_SLACK {
            self.wrong.push(format!(
                "host {} ended with {code} after {took:?}, its grace is {GRACE:?}; it said:\n{}",
                member.node,
                member.host.said()
            ));
        }
        self.bury(member);
    }

    fn bury(&mut self, mut member: Member) {
        let said = member.host.said();
        self.n_leases_lost += said.matches("lease lost").count();
        if said.contains("panicked at") {
            self.wrong.push(format!("host {} panicked:\n{said}", member.node));
        }
        if said.contains("redis has lost the jumpscripts") {
            self.wrong
                .push(format!("host {} believes that Redis lost its jumpscripts, which it never did", member.node));
        }
    }

    fn silence(&mut self, place: usize, with: Signal) {
        let node = self.members[place].node.clone();
        self.silences.entry(node).or_default().push(Timestamp::now().nanos());
        self.signal(place, with);
    }

    fn signal(&self, place: usize, with: Signal) {
        signal(&self.members[place].host, with);
    }

    /// When a node fell silent, in order.
    pub(super) fn silences_of(&self, node: &str) -> &[i64] {
        self.silences.get(node).map_or(&[], Vec::as_slice)
    }

    /// What is wrong with hosts that have ended.
    pub(super) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// Ends and extensions that were refused, as the hosts that have ended told.
    pub(super) const fn leases_lost(&self) -> usize {
        self.n_leases_lost
    }

    pub(super) const fn slowest_exit(&self) -> Duration {
        self.slowest_exit
    }

    /// CPU time that the running hosts have used, the largest of them.
    pub(super) fn cpu_times(&self) -> Vec<Duration> {
        self.members.iter().map(|member| cpu_time(member.host.pid())).collect()
    }

    /// What the running hosts have said last, for a failure.
    pub(super) fn last_words(&mut self) -> String {
        let words = |member: &mut Member| {
            let said = member.host.said();
            let last = said.lines().rev().take(8).collect::<Vec<_>>();
            format!("{}:\n{}", member.node, last.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        self.members.iter_mut().map(words).collect::<Vec<_>>().join("\n")
    }
}

fn ask_to_stop(member: &mut Member) -> Instant {
    // A host that has not said so yet may be starting: it would not have a handler for the signal.
    member.host.wait_for_line("host ready");
    signal(&member.host, Signal::TERM);
    Instant::now()
}

fn signal(host: &Host, signal: Signal) {
    let pid = i32::try_from(host.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    // A host that has ended already is found out by its exit code.
    let _ = kill_process(pid, signal);
}

/// CPU time of a process, from `/proc`.
fn cpu_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // User and system time, fields 14 and 15 of the line, in ticks of 10 ms.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
