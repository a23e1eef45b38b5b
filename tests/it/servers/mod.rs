//! Set-ups of Redis, each with real servers: TLS, users, timeouts, Sentinels, a Cluster.

mod cluster;
mod connections;
mod container;
mod roles;
mod sentinel;
mod tls;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::Store;

use crate::support::guests;
use crate::support::program::{Host, Invocation, program};

/// Longer than anything here needs, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a program reaches the Redis of a test.
#[derive(Clone)]
struct Way {
    url: String,
    prefix: String,
    environment: Vec<(&'static str, String)>,
}

impl Way {
    fn new(url: &str, prefix: &str) -> Self {
        Self { url: url.to_owned(), prefix: prefix.to_owned(), environment: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// A command, run to its end.
    fn cli(&self, arguments: &[&str]) -> Invocation {
        let global = ["--redis", &self.url, "--prefix", &self.prefix];
        let mut invocation = Invocation::new(arguments.iter().copied().chain(global));
        for (name, value) in &self.environment {
            invocation = invocation.env(name, value);
        }
        invocation
    }

    /// A host that is ready.
    fn host(&self, arguments: &[&str]) -> Host {
        let data = std::env::temp_dir().join(format!("wasmhost-test-data-{}", std::process::id()));
        let mut command = program();
        command.args(["run", "--redis", &self.url, "--prefix", &self.prefix, "--data"]).arg(data).args(arguments);
        command.env("WASMHOST_LOG", "info");
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        let mut host = Host::spawn(command);
        host.wait_for_line("host ready");
        host
    }

    fn publish(&self, guest: &str) {
        let file = guests::path(guest);
        self.cli(&["publish", file.to_str().expect("a UTF-8 path")]).run().ok();
    }

    /// Has a job run by a host that is there, with the commands that people use.
    fn runs_a_job(&self) {
        let said = self.cli(&["submit", "--type", "echo", "--payload", "over and out", "--wait"]).run().ok();
        assert!(said.contains("over and out"), "{said}");
    }
}

/// Enqueues echo jobs one by one, however often Redis says no; each answers with its number.
async fn feed(store: &Store, from: u32, n_jobs: u32) -> Vec<JobId> {
    let mut ids = Vec::new();
    for n in from..from + n_jobs {
        let job = NewJob { id: Some(JobId::generate()), ..NewJob::new("default", "echo", n.to_string()) };
        let deadline = std::time::Instant::now() + PATIENCE;
        while let Err(error) = store.enqueue(std::slice::from_ref(&job)).await {
            assert!(error.is_transient() && std::time::Instant::now() < deadline, "{error}");
        }
        ids.push(job.id.expect("it was given"));
    }
    ids
}

/// Waits until every job is done.
async fn all_done(store: &Store, ids: &[JobId]) {
    for id in ids {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match store.wait_final(id, Duration::from_secs(2)).await {
                Ok(Some(record)) if record.state() == Some(JobState::Done) => break,
                Ok(None) => panic!("job `{id}` is lost"),
                other => assert!(std::time::Instant::now() < deadline, "job `{id}`: {other:?}"),
            }
        }
    }
}

/// A raw command at a URL.
async fn ask<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> redis::RedisResult<T> {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await
}

/// The first block of shell under a heading of a page.
fn block(page: &str, heading: &str) -> String {
    let text = fs::read_to_string(guests::root().join(page)).unwrap();
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{page} has no `{heading}`"));
    let (_, rest) = rest.split_once("```sh\n").unwrap_or_else(|| panic!("{page} has no shell under `{heading}`"));
    rest.split_once("```").unwrap().0.to_owned()
}

fn shell(text: &str, folder: &Path) {
    let output = Command::new("sh").args(["-euc", text]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
