//! Reloading under load and by hand, with the built program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::jumpscript::{Digest, embed_manifest};
use wasmhost::store::Store;

use crate::dev::project;
use crate::support::guests;
use crate::support::program::{Host, Invocation, program};
use crate::support::redis::{RedisServer, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Code that behaves as `code` and has a digest of its own: a custom section at the end says `text`.
fn variant(code: &[u8], text: &str) -> Vec<u8> {
    let mut bytes = code.to_vec();
    bytes.extend([0, u8::try_from(text.len()).unwrap() + 2, 1, b'v']);
    bytes.extend(text.as_bytes());
    bytes
}

/// Puts `code` at `path`, in place or by renaming over it.
fn put(path: &Path, code: &[u8], in_place: bool) {
    if in_place {
        std::fs::write(path, code).unwrap();
    } else {
        let beside: PathBuf = path.with_extension("part");
        std::fs::write(&beside, code).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }
}

/// Enqueues 200 jobs a second until `is_over`, and tells their ids.
async fn load(store: Store, is_over: Arc<AtomicBool>) -> Vec<JobId> {
    let mut ids = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let job = NewJob::new("default", "reloaded", format!("{}", ids.len()));
        ids.push(store.enqueue(&[job]).await.expect("redis answers").remove(0).id);
    }
    ids
}

#[tokio::test]
async fn overwriting_a_file_a_hundred_times_under_load_fails_no_job() {
    let redis = RedisServer::shared();
    let (store, prefix) = redis.store().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reloaded.wasm");
    // A name of its own, which wins over the one inside the file.
    std::fs::write(folder.path().join("reloaded.toml"), "name = 'reloaded'").unwrap();
    let code = guests::wasm("echo");
    put(&file, &variant(&code, "first"), false);
    let _host = Host::start(redis.url(), &prefix, &["--scripts", folder.path().to_str().unwrap()]);

    let live = || async { store.route("reloaded").await.ok().flatten() };
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    known.insert(wait_until("the first code is live", LIMIT, live).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(load(store.clone(), Arc::clone(&is_over)));
    for n in 0..100 {
        put(&file, &variant(&code, &format!("{n}")), n % 2 == 0);
        let what = format!("overwrite {n} is live");
        let fresh = wait_until(&what, LIMIT, || async { live().await.filter(|digest| !known.contains(digest)) }).await;
        known.insert(fresh);
    }
    is_over.store(true, Ordering::Relaxed);
    let ids = producer.await.unwrap();
    assert!(ids.len() > 500, "{} jobs are no load", ids.len());

    let mut used = BTreeSet::new();
    for (n, id) in ids.iter().enumerate() {
        let record = store.wait_final(id, LIMIT).await.unwrap().unwrap();
        assert_eq!(record.state(), Some(JobState::Done), "job {n}: {record:?}");
        assert_eq!(record.text("result"), Some(n.to_string()), "job {n}");
        let digest = record.digest().expect("a done row names its code");
        assert!(known.contains(&digest), "job {n} ran {digest}, which nobody published");
        used.insert(digest);
    }
    assert!(used.len() > 50, "only {} of {} codes ran a job", used.len(), known.len());
}

/// Writes to the folder of a running `wasmhost dev` and reads its lines.
#[tokio::test]
async fn dev_says_one_line_for_each_reload_and_the_other_commands_find_its_redis() {
    let folder = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let code = embed_manifest(&guests::wasm("command"), "[permissions]\nhttp = []\n");
    put(&folder.path().join("mine.wasm"), &variant(&code, "1"), true);
    let mut command = program();
    command.args(["dev", "--data", data]).arg(folder.path());
    let mut dev = Host::spawn(command);
    let first = dev.wait_for_line("reloaded mine ");
    assert!(first.contains(" in ") && first.contains(" ms"), "{first}");

    let submit = ["submit", "--type", "mine", "--payload", "echo me", "--wait", "--data", data];
    Invocation::new(submit).run().ok();
    let ended = dev.wait_for_line("done ");
    assert!(ended.contains(" mine  ") && ended.contains("cpu ") && ended.ends_with("echo me"), "{ended}");
    let next = variant(&code, "2");
    put(&folder.path().join("mine.wasm"), &next, false);
    dev.wait_for_line(&Digest::of(&next).short()[..8]);

    put(&folder.path().join("mine.wasm"), b"\x7fELF", false);
    let refused = dev.wait_for_line("refused ");
    assert!(refused.contains(".cwasm") && refused.contains("stays live"), "{refused}");
    Invocation::new(submit).run().ok();
    assert_eq!(dev.stop(), 0);
}

#[tokio::test]
async fn dev_shows_where_a_job_died_in_the_source_and_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    project(folder.path(), "dies", "eprintln!(\"so far so good\");\nlet n: Option<u8> = None;\nn.unwrap();");
    let mut command = program();
    command.args(["dev", "--data", data]).current_dir(folder.path());
    let mut dev = Host::spawn(command);
    dev.wait_for_line("reloaded dies ");
    Invocation::new(["submit", "--type", "dies", "--max-attempts", "1", "--data", data]).run().ok();
    let end = dev.wait_for_line("trapped ");
    assert!(end.contains(" dies  ") && end.contains("panicked at src/main.rs:3:"), "{end}");
    dev.wait_for_line("  | so far so good");
    dev.wait_for_line("at main (src/main.rs:3:");
    assert_eq!(dev.stop(), 0);
}
