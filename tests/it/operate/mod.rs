//! What operators do from the shell, against a real Redis and the built program.

mod bulk;
mod dlq;
mod doctor;
mod files;
mod filters;
mod purge;
mod scripts;
mod waiting;

use wasmhost::job::NewJob;

use crate::engine::{Bench, job};
use crate::support::program::{Ended, Invocation};
use crate::support::redis::RedisServer;

/// Runs a command of the program on the prefix of a bench.
fn run(bench: &Bench, words: &[&str]) -> Ended {
    Invocation::new(words.iter().copied()).on(RedisServer::shared().url(), &bench.prefix).run()
}

/// The same with `--output json`, read.
#[track_caller]
fn json(bench: &Bench, words: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = words.iter().copied().chain(["--output", "json"]).collect();
    serde_json::from_str(&run(bench, &all).ok()).expect("JSON")
}

/// The ids on a page of a list.
fn ids(page: &serde_json::Value) -> Vec<String> {
    page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

/// Writes dead jobs as another program may: for each an id, a type, and an error.
async fn dead(bench: &mut Bench, queue: &str, jobs: &[(String, &str, &str)]) {
    let mut pipe = redis::pipe();
    for (n, (id, job_type, error)) in jobs.iter().enumerate() {
        let died = (1_800_000_000 + n as u64).to_string() + "000000000";
        let row = bench.job_key(id);
        pipe.cmd("HSET").arg(row).arg(&["type", *job_type, "queue", queue, "payload", "{}", "status", "dlq"]);
        pipe.cmd("HSET").arg(bench.job_key(id)).arg(&[
            "last_error",
            *error,
            "dlq_failed_at_nano",
            &died,
            "attempts",
            "5",
        ]);
        pipe.cmd("RPUSH").arg(bench.key(queue, "dlq")).arg(id);
    }
    pipe.cmd("SADD").arg(format!("{}:queues", bench.prefix)).arg(queue);
    bench.pipe(&pipe).await;
}

/// So many dead jobs, of which every third has the error `time out`; the others `no luck`.
async fn many_dead(bench: &mut Bench, queue: &str, n: usize) {
    let error = |n: usize| if n.is_multiple_of(3) { "Time Out" } else { "no luck" };
    let jobs: Vec<(String, &str, &str)> = (0..n).map(|n| (format!("{n:05}"), "echo", error(n))).collect();
    dead(bench, queue, &jobs).await;
}

/// Jobs with ids and one limit key each.
fn keyed(ids: &[&str], key: &str, queue: &str) -> Vec<NewJob> {
    ids.iter().map(|id| NewJob { limit_key: Some(key.to_owned()), ..job(id, queue) }).collect()
}
