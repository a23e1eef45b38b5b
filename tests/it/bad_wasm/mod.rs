//! Broken and hostile Wasm against the built program (list W of the bad inputs, `docs/bad-wasm.md`): every case has its
//! stated end while good jobs run beside it, all of them well.

mod files;
mod network;
mod output;
mod running;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::jumpscript::{Kind, Manifest, ScriptName};
use wasmhost::ports::PublishRule;
use wasmhost::store::{JobRecord, NewJumpscript, Store};

use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation};
use crate::support::redis::{RedisServer, keys_under, wait_until};

/// How long a test waits for the end of a job.
const PATIENCE: Duration = Duration::from_secs(120);

/// A host with a stream of good jobs, ten a second.
struct Stage {
    store: Store,
    prefix: String,
    host: Host,
    is_over: Arc<AtomicBool>,
    good: tokio::task::JoinHandle<Vec<JobId>>,
    folder: tempfile::TempDir,
    published: AtomicUsize,
}

impl Stage {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A host with more arguments.
    async fn with(arguments: &[&str]) -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        let folder = tempfile::tempdir().unwrap();
        let publish = Invocation::new(["publish", guests::path("echo").to_str().unwrap()]);
        publish.on(redis.url(), &prefix).run().ok();
        let queues = ["--queue", "good", "--queue", "bad", "--concurrency", "8", "--log", "debug"];
        let host = Host::start(redis.url(), &prefix, &[queues.as_slice(), arguments].concat());
        let is_over = Arc::new(AtomicBool::new(false));
        let good = tokio::spawn(canaries(store.clone(), Arc::clone(&is_over)));
        Self { store, prefix, host, is_over, good, folder, published: AtomicUsize::new(0) }
    }

    fn cli(&self, arguments: &[&str]) -> Ended {
        Invocation::new(arguments.iter().copied()).on(RedisServer::shared().url(), &self.prefix).run()
    }

    fn name(&self) -> String {
        format!("bad{}", self.published.fetch_add(1, Ordering::Relaxed))
    }

    /// Publishes a file as a person does.
    fn publish(&self, wasm: &[u8]) -> Ended {
        let file = self.folder.path().join(format!("{}.wasm", self.name()));
        std::fs::write(&file, wasm).unwrap();
        self.cli(&["publish", file.to_str().unwrap()])
    }

    /// Puts bytes where jumpscripts are kept, as a program does that checks nothing; tells their type.
    async fn plant(&self, wasm: &[u8], kind: Kind) -> String {
        let name = self.name();
        let script =
            NewJumpscript { name: ScriptName::new("wasmhost", &name).unwrap(), kind, manifest: Manifest::default() };
        self.store.publish(&script, wasm, PublishRule::Always).await.unwrap();
        name
    }

    async fn submit(&self, job_type: &str, payload: &str, timeout: Duration) -> JobId {
        let job = NewJob { timeout: Some(timeout), max_attempts: Some(1), ..NewJob::new("bad", job_type, payload) };
        self.store.enqueue(&[job]).await.unwrap().remove(0).id
    }

    async fn end(&self, id: &JobId) -> JobRecord {
        self.store.wait_final(id, PATIENCE).await.unwrap().unwrap_or_else(|| panic!("job {id} has a record"))
    }

    /// Runs code once, and tells how that ended.
    async fn run(&self, wasm: &[u8], payload: &str, timeout: Duration) -> JobRecord {
        let job_type = self.plant(wasm, Kind::Component).await;
        self.end(&self.submit(&job_type, payload, timeout).await).await
    }

    /// Refused when it is published, with these words and a hint, and nothing is written; put there by force it runs
    /// no job, and the job says the same.
    async fn refuses(&self, wasm: &[u8], words: &[&str]) {
        let said = self.publish(wasm).fails(2);
        for word in words {
            assert!(said.contains(word), "`{word}` in: {said}");
        }
        assert!(said.contains("hint: "), "{said}");
        let last = format!("bad{}", self.published.load(Ordering::Relaxed) - 1);
        assert_eq!(self.store.route(&last).await.unwrap(), None, "nothing is published");
        let record = self.run(wasm, "", Duration::from_secs(5)).await;
        let error = is_dead(&record, "rejected");
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} in: {error}");
    }

    /// What must be true in the end: the good jobs are done, the host is up and ends well, and nothing that people see
    /// has a raw control character.
    async fn ends_well(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let good = self.good.await.unwrap();
        for (n, id) in good.iter().enumerate() {
            let record = self.store.wait_final(id, PATIENCE).await.unwrap().unwrap();
            assert_eq!(record.state(), Some(JobState::Done), "good job {n}: {:?}\n{}", record, self.host.said());
            assert_eq!(record.text("result"), Some(n.to_string()), "good job {n}");
        }
        assert!(!good.is_empty());
        let on =
            |words: &[&str]| Invocation::new(words.iter().copied()).on(RedisServer::shared().url(), &self.prefix).run();
        for words in [&["jobs", "ls"][..], &["dlq", "ls", "bad"], &["scripts", "ls"], &["health"]] {
            for output in ["text", "json"] {
                let shown = on(&[words, &["--output", output]].concat());
                is_visible(&shown.stdout);
                is_visible(&shown.stderr);
            }
        }
        let said = self.host.said();
        // A guest's panic is told in the line about its attempt.
        let panic = said.lines().find(|line| line.contains("panicked at") && !line.contains("attempt ended"));
        assert_eq!(panic, None, "{said}");
        is_visible(&said);
        assert_eq!(self.host.stop(), 0);
        let mut raw = RedisServer::shared().raw().await;
        for key in keys_under(&mut raw, &self.prefix).await {
            let known = wasmhost::store::keys::find(&self.prefix, &self.prefix, &key);
            assert!(known.is_some(), "key `{key}` is not in the table");
        }
    }
}

/// Ten good jobs a second, each with its number, until it is over; at least one.
async fn canaries(store: Store, is_over: Arc<AtomicBool>) -> Vec<JobId> {
    let mut ids = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while ids.is_empty() || !is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let job = NewJob::new("good", "echo", ids.len().to_string());
        ids.push(store.enqueue(&[job]).await.expect("redis answers").remove(0).id);
    }
    ids
}

/// The error of a job that is dead, of this kind.
#[track_caller]
fn is_dead(record: &JobRecord, kind: &str) -> String {
    let error = record.text("last_error").unwrap_or_default();
    assert_eq!(record.state(), Some(JobState::Dlq), "{error}");
    assert_eq!(record.text("error_kind").as_deref(), Some(kind), "{error}");
    error
}

/// The result of a job that is done.
#[track_caller]
fn is_done(record: &JobRecord) -> String {
    assert_eq!(record.state(), Some(JobState::Done), "{:?}", record.text("last_error"));
    record.text("result").unwrap_or_default()
}

/// Has no character that a terminal would act on.
#[track_caller]
fn is_visible(text: &str) {
    let is_raw = |c: &char| c.is_control() && !"\n\t".contains(*c) || ('\u{202a}'..='\u{202e}').contains(c);
    assert_eq!(text.chars().find(is_raw), None, "{}", text.escape_debug());
}

/// Waits until a file of a scripts folder is named in a line of the host with `word`.
async fn says(host: &mut Host, file: &Path, word: &str) -> String {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    wait_until(&format!("the host says `{word}` of {name}"), PATIENCE, || {
        let said = host.said();
        let line = said.lines().find(|line| line.contains(&name) && line.contains(word)).map(str::to_owned);
        async move { line }
    })
    .await
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
