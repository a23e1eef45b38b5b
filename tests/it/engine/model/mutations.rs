//! Would the model notice? One check at a time is taken out of the engine's Lua, and a short run must then fail.
//!
//! The product has no hook for this: a wire between store and server swaps the hash of each script for that of the
//! mutated one, which the server was given beforehand.

use super::{Arena, SEQUENCES};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;

macro_rules! lua {
    ($($file:literal)+) => {
        &[$(($file, include_str!(concat!("../../../../host/src/store/lua/", $file)))),+]
    };
}

/// Sequences that are played at the same time; most checks are missed by the first few.
const BATCH: usize = 8;

/// A script as a list of its files: name and text.
type Files = &'static [(&'static str, &'static str)];

/// The scripts of the model's operations, joined as the store joins them.
const SCRIPTS: [Files; 5] = [
    lua!("head.lua" "limits.lua" "withdraw.lua" "write_job.lua" "answer.lua" "enqueue.lua"),
    lua!("head.lua" "dead.lua" "limits.lua" "withdraw.lua" "write_job.lua" "effects.lua" "answer.lua" "fence.lua" "settle.lua" "due.lua" "checked.lua" "direct.lua" "reserve.lua" "turn.lua"),
    lua!("head.lua" "fence.lua" "extend.lua"),
    lua!("head.lua" "dead.lua" "limits.lua" "answer.lua" "due.lua" "watch.lua" "sweep.lua"),
    lua!("head.lua" "answer.lua" "of_dead.lua" "audit.lua" "requeue.lua"),
];

/// One check, and what stands there without it.
struct Mutation {
    what: &'static str,
    file: &'static str,
    check: &'static str,
    without: &'static str,
}

const fn mutation(what: &'static str, file: &'static str, check: &'static str, without: &'static str) -> Mutation {
    Mutation { what, file, check, without }
}

const MUTATIONS: &[Mutation] = &[
    mutation("any token holds the job", "settle.lua", "try('HGET', row, 'lease_token') ~= token", "false"),
    mutation(
        "the end of a lease is not asked for",
        "fence.lua",
        "'LIMIT', '0', '1')[1] ~= nil",
        "'LIMIT', '0', '1')[1] == false",
    ),
    mutation("a late end is accepted", "fence.lua", "return is_over and EXPIRED or nil", "return nil"),
    mutation(
        "a repeated end is not known",
        "fence.lua",
        "elseif found[3] == token and token ~= '' then",
        "elseif false then",
    ),
    mutation("a late ack is not told of another holder", "fence.lua", "is_over and not is_ack", "is_over"),
    mutation("a batch ends a job twice", "settle.lua", "accepted[row] == token and REPEATED or broken", "broken"),
    mutation("an end leaves the lease behind", "settle.lua", "call('ZREM', q.inflight, unpack(q.free))", ""),
    mutation("a release counts as a delivery", "settle.lua", "deliveries - 1", "deliveries"),
    mutation("an ended job is extended", "extend.lua", "answer = NOT_INFLIGHT", "answer = 0"),
    mutation(
        "an idempotency key is not looked up",
        "write_job.lua",
        "planned[job.idempotency] or try('GET', job.idempotency)",
        "nil",
    ),
    mutation(
        "an id is written twice",
        "write_job.lua",
        "planned[row] or not is_free and call('EXISTS', row) == 1",
        "false",
    ),
    mutation("lost workers are not counted", "due.lua", "deliveries >= deliveries_max(row[3])", "false"),
    mutation("reclaimed jobs go to the tail", "due.lua", "to_head(q, id, row[4])", "to_tail(q, id, row[4])"),
    mutation("a lease is reclaimed before its end", "due.lua", "whole(now_ms), 'LIMIT'", "whole(now_ms + 1), 'LIMIT'"),
    mutation("a job is promoted early", "due.lua", "score < tonumber(now_s) or nanos <= now_n", "true"),
    mutation(
        "dead rows of any age are dropped",
        "due.lua",
        "failed / 1e9 < tonumber(now_s) - DLQ_DAYS * 86400",
        "true",
    ),
    mutation("quotas are not kept", "reserve.lua", "math.min(share.quota, limit - r.n_jobs)", "limit - r.n_jobs"),
    mutation("a living job is requeued", "of_dead.lua", "row[1] ~= 'dlq'", "false"),
    mutation("a requeue ignores the queue", "of_dead.lua", "row[2] and row[2] ~= q.name", "false"),
];

/// The hashes of the scripts that a mutation changes, old and new; the new scripts are loaded.
async fn mutated(server: &RedisServer, mutation: &Mutation) -> Vec<(String, String)> {
    let mut raw = server.raw().await;
    let mut swaps = Vec::new();
    for files in SCRIPTS {
        if !files.iter().any(|(name, _)| *name == mutation.file) {
            continue;
        }
        let join = |change: &dyn Fn(&str, &str) -> String| -> redis::Script {
            let texts: Vec<String> = files.iter().map(|(name, text)| change(name, text)).collect();
            redis::Script::new(&format!("{}return (function()\n{}end)()\n", texts[0], texts[1..].concat()))
        };
        let old = join(&|_, text| text.to_owned());
        let new = join(&|name, text| {
            if name != mutation.file {
                return text.to_owned();
            }
            assert_eq!(text.matches(mutation.check).count(), 1, "`{}` in {}", mutation.check, mutation.file);
            text.replace(mutation.check, mutation.without)
        });
        new.load_async(&mut raw).await.unwrap_or_else(|error| panic!("{}: {error}", mutation.what));
        swaps.push((old.get_hash().to_owned(), new.get_hash().to_owned()));
    }
    swaps
}

/// Plays up to `n` sequences until the model sees a difference; nothing when it sees none.
async fn first_difference(arena: &Arena, n: u64) -> Option<String> {
    for start in (0..n).step_by(BATCH) {
        for (seed, result) in arena.play_all(1 + start..1 + start + BATCH as u64).await {
            match result {
                Err(found) if found.is_error => panic!("the mutated script is broken: {found}"),
                Err(found) => return Some(format!("seed {seed}, {found}")),
                Ok(_) => {}
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_is_taken_out_is_missed() {
    let server = RedisServer::shared();
    let mut survivors = Vec::new();
    for mutation in MUTATIONS {
        let proxy = Proxy::swapping(server.url(), mutated(server, mutation).await).await;
        let mut arena = Arena::at(proxy.url(), server.raw().await).await;
        match first_difference(&arena, SEQUENCES).await {
            Some(found) => println!("{}: {}", mutation.what, found.lines().next().unwrap_or_default()),
            None => survivors.push(mutation.what),
        }
        assert!(proxy.swapped() > 0, "{}: the store joins its scripts in another way", mutation.what);
        arena.clear().await;
    }
    assert!(survivors.is_empty(), "the model does not notice: {survivors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_alone_changes_nothing() {
    let server = RedisServer::shared();
    let proxy = Proxy::swapping(server.url(), Vec::new()).await;
    let mut arena = Arena::at(proxy.url(), server.raw().await).await;
    assert_eq!(first_difference(&arena, 32).await, None);
    arena.clear().await;
}
