//! Campaigns: real hosts and a real Redis under faults, and what must hold afterwards.
//!
//! Every campaign has two sizes. The short ones run with all other tests. The long ones run by `make torture`, which
//! prints a table; `make torture CAMPAIGN=kill` runs one of them. Random choices follow from `TORTURE_SEED`, which every
//! campaign prints.
//!
//! Next: `plan` for what jobs do, `invariants` for what must hold, `workers`, `servers`, `timing` and `adopted` for
//! the campaigns.

mod adopted;
mod fleet;
mod invariants;
mod plan;
mod report;
mod servers;
mod sink;
mod timing;
mod workers;
mod world;

use std::pin::Pin;

use report::Row;
use wasmhost::clock::Timestamp;

/// How much of a campaign is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Some seconds, with all other tests.
    Short,
    /// Minutes, by `make torture`.
    Long,
}

impl Size {
    /// One of two values.
    fn of<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

/// The seed of random choices.
fn seed() -> u64 {
    let given = std::env::var("TORTURE_SEED").ok().filter(|seed| !seed.is_empty());
    given.map_or_else(
        || Timestamp::now().nanos().unsigned_abs() % 1_000_000,
        |seed| seed.parse().expect("TORTURE_SEED is a number"),
    )
}

type Campaign = fn(Size) -> Pin<Box<dyn Future<Output = Row>>>;

/// Every campaign by its name.
const CAMPAIGNS: [(&str, Campaign); 14] = [
    ("none", |size| Box::pin(workers::no_faults(size))),
    ("kill", |size| Box::pin(workers::kill(size))),
    ("stop", |size| Box::pin(workers::stop(size))),
    ("hiccup", |size| Box::pin(workers::hiccup(size))),
    ("poison", |size| Box::pin(workers::poison(size))),
    ("rolling", |size| Box::pin(workers::rolling(size))),
    ("lost-answers", |size| Box::pin(servers::lost_answers(size))),
    ("restarts", |size| Box::pin(servers::restarts(size))),
    ("redis-kill", |size| Box::pin(servers::redis_kill(size))),
    ("full", |size| Box::pin(servers::full(size))),
    ("instant", |size| Box::pin(timing::instant(size))),
    ("downstream", |size| Box::pin(timing::downstream(size))),
    ("drain", |size| Box::pin(timing::drain(size))),
    ("hero", |size| Box::pin(adopted::hero(size))),
];

/// Plays one campaign in a runtime of its own.
fn play(campaign: Campaign, size: Size) -> Row {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(campaign(size))
}

/// Plays the short version of the campaign with this name.
fn short(name: &str) {
    let (_, campaign) = CAMPAIGNS.iter().find(|(found, _)| *found == name).expect("a campaign of this name");
    let row = play(*campaign, Size::Short);
    println!("{}", report::table(&[("", Ok(row))]));
}

#[test]
fn without_faults_every_job_runs_exactly_as_often_as_it_asks_for() {
    short("none");
}

#[test]
fn hosts_killed_at_random_lose_no_job() {
    short("kill");
}

#[test]
fn hosts_that_stand_still_beyond_their_lease_end_no_job_twice() {
    short("stop");
}

#[test]
fn hosts_that_stand_still_within_their_lease_lose_nothing() {
    short("hiccup");
}

#[test]
fn jobs_that_trap_die_and_harm_no_other() {
    short("poison");
}

#[test]
fn hosts_that_are_replaced_end_what_they_run() {
    short("rolling");
}

#[test]
fn answers_of_redis_that_are_lost_lose_no_job() {
    short("lost-answers");
}

#[test]
fn hosts_come_back_after_redis_forgets_cuts_and_restarts() {
    short("restarts");
}

#[test]
fn a_killed_redis_that_syncs_always_loses_no_job() {
    short("redis-kill");
}

#[test]
fn a_full_redis_still_drains_and_keeps_leases() {
    short("full");
}

#[test]
fn jobs_that_are_due_at_one_instant_all_run_once() {
    short("instant");
}

#[test]
fn a_dead_downstream_costs_no_job() {
    short("downstream");
}

#[test]
fn a_drain_whose_host_is_killed_is_finished_by_another() {
    short("drain");
}

#[test]
fn what_hero_pushes_is_answered_once_while_hosts_are_killed() {
    short("hero");
}

/// The long versions, one after the other, and the table. `CAMPAIGN` names the one to play; none plays all.
#[test]
#[ignore = "takes the better part of an hour; make torture plays it"]
fn at_length() {
    let wanted = std::env::var("CAMPAIGN").unwrap_or_default();
    let chosen: Vec<_> = CAMPAIGNS.iter().filter(|(name, _)| wanted.is_empty() || *name == wanted).collect();
    let names = CAMPAIGNS.map(|(name, _)| name).join(", ");
    assert!(!chosen.is_empty(), "there is no campaign `{wanted}`; there are {names}");
    let mut rows = Vec::new();
    for (name, campaign) in chosen {
        // A thread of its own: a campaign that fails does not keep the others from being played.
        let played = std::thread::spawn(|| play(*campaign, Size::Long)).join();
        let row = played.map_err(|why| {
            let text = why.downcast_ref::<String>().cloned();
            text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
        rows.push((*name, row));
        println!("{}", report::table(&rows[rows.len() - 1..]));
    }
    println!("\n{}", report::table(&rows));
    let failed: Vec<&str> = rows.iter().filter(|(_, row)| row.is_err()).map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "campaigns that failed: {}", failed.join(", "));
}
