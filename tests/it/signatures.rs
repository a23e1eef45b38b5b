//! Signed code: what is published and run under each policy, and what somebody with Redis alone cannot do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::Store;

use crate::support::client::Request;
use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation, program};
use crate::support::redis::{RedisServer, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis, a folder for files and data, and one key that is trusted.
struct World {
    store: Store,
    prefix: String,
    raw: MultiplexedConnection,
    folder: TempDir,
    trusted: String,
}

impl World {
    async fn new() -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { store, prefix, raw: redis.raw().await, folder, trusted: String::new() };
        world.trusted = world.new_key("trusted.key");
        world
    }

    /// Makes a key; its public half.
    fn new_key(&self, name: &str) -> String {
        let said = self.off(&["keys", "new", "--out", self.at(name).to_str().unwrap()]).ok();
        said.lines().find_map(|line| line.strip_prefix("public ")).expect("the public key").to_owned()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// A file of `acme/NAME` in this version.
    fn file(&self, name: &str, version: &str) -> String {
        let place = self.at(version);
        std::fs::create_dir_all(&place).unwrap();
        let file = place.join(format!("{name}.wasm"));
        std::fs::copy(guests::path("echo"), &file).unwrap();
        let manifest = format!("organization = \"acme\"\nname = \"{name}\"\nversion = \"{version}\"\n");
        std::fs::write(file.with_extension("toml"), manifest).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// A command on a machine that asks for no signatures.
    fn off(&self, words: &[&str]) -> Ended {
        Invocation::new(words.iter().copied()).on(RedisServer::shared().url(), &self.prefix).run()
    }

    /// A command on a machine that requires them.
    fn require(&self, words: &[&str]) -> Ended {
        Invocation::new(words.iter().copied())
            .on(RedisServer::shared().url(), &self.prefix)
            .env("WASMHOST_SIGNATURES_POLICY", "require")
            .env("WASMHOST_SIGNATURES_TRUSTED", &self.trusted)
            .run()
    }

    fn host(&self, policy: &str, more: &[&str]) -> Host {
        let mut command = program();
        command.args(["run", "--redis", RedisServer::shared().url(), "--prefix", &self.prefix]);
        command.args(["--node-prefix", &self.prefix, "--data"]).arg(self.at("data")).args(more);
        command.env("WASMHOST_LOG", "info").env("WASMHOST_SIGNATURES_POLICY", policy);
        command.env("WASMHOST_SIGNATURES_TRUSTED", &self.trusted);
        let mut host = Host::spawn(command);
        host.wait_for_line("host ready");
        host
    }

    async fn submit(&self, job_type: &str) -> JobId {
        let job = NewJob { max_attempts: Some(1), ..NewJob::new("default", job_type, "x") };
        self.store.enqueue(&[job]).await.unwrap().remove(0).id
    }

    /// Runs a job to this end; its error.
    async fn job(&self, job_type: &str, state: JobState) -> String {
        let id = self.submit(job_type).await;
        wait_until(&format!("a job of {job_type} is {state}"), PATIENCE, async || {
            let record = self.store.job(&id).await.ok()??;
            (record.state() == Some(state)).then(|| record.text("last_error").unwrap_or_default())
        })
        .await
    }

    /// A hash, as somebody with Redis alone copies it.
    async fn copy(&mut self, key: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        redis::cmd("HGETALL").arg(key).query_async(&mut self.raw).await.unwrap()
    }

    async fn put(&mut self, key: &str, fields: &[(Vec<u8>, Vec<u8>)]) {
        let mut command = redis::cmd("HSET");
        command.arg(key);
        for (field, value) in fields {
            command.arg(field).arg(value);
        }
        command.query_async::<()>(&mut self.raw).await.unwrap();
    }

    /// Every hash about jumpscripts.
    fn hashes(&self) -> [String; 6] {
        let keys = self.store.keys();
        [keys.scripts_by_id(), keys.scripts_by_name(), keys.route(), keys.wasm(), keys.owners(), keys.signatures()]
    }
}

fn beside(file: &str) -> String {
    format!("{file}.sig")
}

#[tokio::test]
async fn under_require_only_code_with_a_trusted_signature_of_its_own_is_published() {
    let world = World::new().await;
    let (one, two, other) = (world.file("resize", "1.0.0"), world.file("resize", "2.0.0"), world.file("wipe", "1.0.0"));
    world.new_key("foreign.key");
    let said = world.require(&["publish", &one]).fails(2);
    assert!(said.contains("it is not signed") && said.contains("hint: sign it"), "{said}");
    let said = world.require(&["publish", &one, "--sign", &world.key("foreign.key")]).fails(2);
    assert!(said.contains("which is not in `signatures.trusted`"), "{said}");
    // A signature of another module.
    world.off(&["keys", "sign", &other, "--key", &world.key("trusted.key")]).ok();
    std::fs::rename(beside(&other), beside(&one)).unwrap();
    let said = world.require(&["publish", &one]).fails(2);
    assert!(said.contains("signature is one of other code"), "{said}");
    let said = world.off(&["inspect", &one]).ok();
    assert!(said.contains("not of this file"), "{said}");
    assert!(world.store.index().await.unwrap().scripts.is_empty(), "nothing was published");

    for file in [&one, &two] {
        world.off(&["keys", "sign", file, "--key", &world.key("trusted.key")]).ok();
    }
    world.require(&["publish", &one]).ok();
    world.require(&["publish", &two]).ok();
    let said = world.off(&["scripts", "show", "acme/resize"]).ok();
    assert!(said.contains("signed by") && said.contains("key ") && !said.contains("not one of this code"), "{said}");
    let id = world.off(&["keys", "show", &world.key("trusted.key")]).ok();
    let id = id.lines().find_map(|line| line.strip_prefix("id     ")).unwrap().to_owned();
    for words in [["scripts", "ls", ""], ["scripts", "history", "acme/resize"]] {
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        assert!(world.off(&words).ok().contains(&id), "{words:?}");
    }
    assert!(world.off(&["inspect", &one]).ok().contains(&format!("key {id} for acme/resize 1.0.0")));
    // The older file again: its signature is older, and signed anew its version is lower.
    let said = world.require(&["publish", &one]).fails(2);
    assert!(said.contains("before that of") && said.contains("scripts rollback --sign"), "{said}");
    let said = world.require(&["publish", &one, "--sign", &world.key("trusted.key")]).fails(2);
    assert!(said.contains("version 1.0.0 is lower than 2.0.0"), "{said}");
    let said = world.require(&["scripts", "rollback", "acme/resize"]).fails(1);
    assert!(said.contains("it is not signed"), "{said}");
    world.require(&["scripts", "rollback", "acme/resize", "--sign", &world.key("trusted.key")]).ok();
    let live = world.store.script(&"acme/resize".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(live.version, "1.0.0");
}

#[tokio::test]
async fn code_re_signed_by_another_trusted_key_is_refused_until_the_first_is_not_trusted() {
    let mut world = World::new().await;
    let one = world.file("resize", "1.0.0");
    let other = world.new_key("other.key");
    let first = std::mem::take(&mut world.trusted);
    world.trusted = format!("{first},{other}");
    world.require(&["publish", &one, "--sign", &world.key("trusted.key")]).ok();
    let said = world.require(&["publish", &one, "--sign", &world.key("other.key")]).fails(2);
    assert!(said.contains("and what was live by key"), "{said}");
    world.trusted = other;
    world.require(&["publish", &one, "--sign", &world.key("other.key")]).ok();
}

#[tokio::test]
async fn a_host_rejects_jobs_of_unsigned_code_says_so_and_runs_the_others() {
    let world = World::new().await;
    let (good, bad) = (world.file("good", "1.0.0"), world.file("bad", "1.0.0"));
    world.off(&["publish", &good, "--sign", &world.key("trusted.key")]).ok();
    let mut host = world.host("require", &["--http", "127.0.0.1:0"]);
    let http = crate::http::address(&mut host);
    world.job("acme/good", JobState::Done).await;
    world.off(&["publish", &bad]).ok();
    let why = world.job("acme/bad", JobState::Dlq).await;
    assert!(why.contains("is refused") && why.contains("it is not signed"), "{why}");
    let metrics = Request::get("/metrics").send(http).text();
    assert!(metrics.contains("wasmhost_code_refused_total{reason=\"unsigned\"} 1\n"), "{metrics}");
    assert!(metrics.contains("wasmhost_code_refused_total{reason=\"older\"} 0\n"), "{metrics}");
    let red = host.wait_for_line("\"component\":\"signatures\"");
    assert!(red.contains("health check turned red") && red.contains("acme/bad"), "{red}");
    world.job("acme/good", JobState::Done).await;
    world.off(&["publish", &bad, "--sign", &world.key("trusted.key")]).ok();
    world.job("acme/bad", JobState::Done).await;
    let green = host.wait_for_line_after(&red, "\"component\":\"signatures\"");
    assert!(green.contains("turned green"), "{green}");
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn under_warn_unsigned_code_runs_and_health_is_amber() {
    let world = World::new().await;
    world.off(&["publish", &world.file("bad", "1.0.0")]).ok();
    let mut host = world.host("warn", &[]);
    world.job("acme/bad", JobState::Done).await;
    let line = host.wait_for_line("\"component\":\"signatures\"");
    assert!(line.contains("health check turned amber") && line.contains("acme/bad"), "{line}");
    assert_eq!(host.stop(), 0);
}

/// The attack: somebody who can write everything in Redis, and has no key, puts back all that was there while an older
/// version was live, with its signature.
#[tokio::test]
async fn old_signed_code_that_is_put_back_into_redis_is_not_run_until_the_key_says_so() {
    let mut world = World::new().await;
    world.off(&["publish", &world.file("resize", "1.0.0"), "--sign", &world.key("trusted.key")]).ok();
    let host = world.host("require", &[]);
    world.job("acme/resize", JobState::Done).await;
    let mut before = Vec::new();
    for key in world.hashes() {
        before.push((key.clone(), world.copy(&key).await));
    }
    world.off(&["publish", &world.file("resize", "2.0.0"), "--sign", &world.key("trusted.key")]).ok();
    world.job("acme/resize", JobState::Done).await;
    assert_eq!(host.stop(), 0);
    for (key, fields) in &before {
        world.put(key, fields).await;
    }
    // It remembers what was live although it was started anew.
    let host = world.host("require", &[]);
    let why = world.job("acme/resize", JobState::Dlq).await;
    assert!(why.contains("is refused") && why.contains("before that of"), "{why}");
    // With the key one may go anywhere, also back.
    world.off(&["scripts", "rollback", "acme/resize", "--to", "2.0.0", "--sign", &world.key("trusted.key")]).ok();
    world.job("acme/resize", JobState::Done).await;
    world.off(&["scripts", "rollback", "acme/resize", "--to", "1.0.0", "--sign", &world.key("trusted.key")]).ok();
    world.job("acme/resize", JobState::Done).await;
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_name_cannot_be_made_to_mean_code_that_was_signed_for_another() {
    let mut world = World::new().await;
    world.off(&["publish", &world.file("resize", "1.0.0"), "--sign", &world.key("trusted.key")]).ok();
    world.off(&["publish", &world.file("wipe", "1.0.0"), "--sign", &world.key("trusted.key")]).ok();
    let host = world.host("require", &[]);
    world.job("acme/resize", JobState::Done).await;
    world.job("acme/wipe", JobState::Done).await;
    let route = world.store.keys().route();
    let wipe = world.store.route("acme/wipe").await.unwrap().unwrap();
    let forged = format!("{wipe} acme/resize").into_bytes();
    world.put(&route, &[(b"acme/resize".to_vec(), forged)]).await;
    let why = world.job("acme/resize", JobState::Dlq).await;
    assert!(why.contains("signed for another name"), "{why}");
    world.job("acme/wipe", JobState::Done).await;
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_record_of_another_program_takes_effect_under_require_only_when_it_is_signed() {
    let mut world = World::new().await;
    world.off(&["publish", &world.file("resize", "1.0.0"), "--sign", &world.key("trusted.key")]).ok();
    let mut host = world.host("require", &[]);
    world.job("acme/resize", JobState::Done).await;
    let names = world.store.keys().scripts_by_name();
    let record = world.copy(&names).await.remove(0).1;
    let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["name"] = "copy".into();
    world.put(&names, &[(b"acme__copy".to_vec(), record.to_string().into_bytes())]).await;
    let line = host.wait_for_line("acme__copy");
    assert!(line.contains("skipped") && line.contains("for the name `acme/resize`"), "{line}");
    assert_eq!(world.store.route("acme/copy").await.unwrap(), None);
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_folder_publishes_files_with_their_signatures_beside_them() {
    let world = World::new().await;
    let (signed, bare) = (world.file("signed", "1.0.0"), world.file("bare", "1.0.0"));
    world.off(&["keys", "sign", &signed, "--key", &world.key("trusted.key")]).ok();
    let folder = Path::new(&signed).parent().unwrap().to_str().unwrap().to_owned();
    let mut host = world.host("require", &["--scripts", &folder]);
    world.job("acme/signed", JobState::Done).await;
    let line = host.wait_for_line("file refused");
    assert!(line.contains("bare.wasm") && line.contains("it is not signed"), "{line}");
    // The signature comes after the file.
    world.off(&["keys", "sign", &bare, "--key", &world.key("trusted.key")]).ok();
    host.wait_for_line("acme/bare");
    world.job("acme/bare", JobState::Done).await;
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_key_file_is_never_overwritten_and_a_policy_without_keys_is_refused() {
    let world = World::new().await;
    let said = world.off(&["keys", "new", "--out", &world.key("trusted.key")]).fails(2);
    assert!(said.contains("never overwritten") && said.contains("--out"), "{said}");
    let said = Invocation::new(["scripts", "ls"])
        .on(RedisServer::shared().url(), &world.prefix)
        .env("WASMHOST_SIGNATURES_POLICY", "require")
        .run()
        .fails(2);
    assert!(said.contains("`signatures.trusted` names no key") && said.contains("keys new"), "{said}");
    let said = Invocation::new(["scripts", "ls"])
        .on(RedisServer::shared().url(), &world.prefix)
        .env("WASMHOST_SIGNATURES_TRUSTED", "/nowhere/key.pub")
        .run()
        .fails(2);
    assert!(said.contains("neither a public key nor a file"), "{said}");
}
