//! The main job, end to end: a producer pushes, the built program takes, runs and answers.

use std::time::Duration;

use redis::AsyncCommands;
use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::jumpscript::{Digest, Kind, Manifest, ScriptName};
use wasmhost::ports::PublishRule;
use wasmhost::store::{JobRecord, NewJumpscript, Store};

use crate::support::guests;
use crate::support::program::{Host, Invocation, program};
use crate::support::redis::{RedisServer, wait_until};

/// Longer than anything a healthy host needs, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis, a prefix of its own, and a store to look at it with.
struct World {
    redis: &'static RedisServer,
    prefix: String,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let redis = RedisServer::shared();
        let (store, prefix) = redis.store().await;
        Self { redis, prefix, store }
    }

    fn host(&self, arguments: &[&str]) -> Host {
        Host::start(self.redis.url(), &self.prefix, arguments)
    }

    fn cli(&self, arguments: &[&str]) -> Invocation {
        Invocation::new(arguments.iter().copied()).on(self.redis.url(), &self.prefix)
    }

    /// Publishes a guest of the tests under `wasmhost/<name>`.
    fn publish(&self, guest: &str) {
        let file = guests::path(guest);
        self.cli(&["publish", file.to_str().expect("a UTF-8 path")]).run().ok();
    }

    async fn ended(&self, id: &JobId) -> JobRecord {
        let record = self.store.wait_final(id, PATIENCE).await.expect("redis answers");
        let record = record.unwrap_or_else(|| panic!("job `{id}` is gone"));
        assert!(record.state().is_some_and(JobState::is_final), "job `{id}` did not end: {record:?}");
        record
    }

    async fn submit(&self, job: NewJob) -> JobId {
        self.store.enqueue(&[job]).await.expect("redis answers").remove(0).id
    }
}

/// The minimal foreign job: four fields and a push, by a client that knows nothing of wasmhost.
#[tokio::test]
async fn a_job_written_with_plain_redis_commands_runs_and_its_hash_says_so() {
    let world = World::new().await;
    world.publish("echo");
    let _host = world.host(&[]);
    let mut raw = world.redis.raw().await;
    let row = format!("{}:job:by-hand", world.prefix);
    let fields = [("type", "echo"), ("queue", "default"), ("payload", "{\"a\": 1e400}"), ("status", "ready")];
    let _: () = raw.hset_multiple(&row, &fields).await.unwrap();
    let _: i64 = raw.rpush(format!("{}:queue:default:ready", world.prefix), "by-hand").await.unwrap();

    let record = world.ended(&JobId::from("by-hand")).await;
    assert_eq!(record.state(), Some(JobState::Done), "{record:?}");
    assert_eq!(record.text("result").as_deref(), Some("{\"a\": 1e400}"), "the payload is passed byte for byte");
    assert!(record.digest().is_some(), "the row names the code that ran");
}

#[tokio::test]
async fn a_file_dropped_into_the_scripts_folder_can_be_called_at_once() {
    let world = World::new().await;
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("scripts")).unwrap();
    let mut command = program();
    command.current_dir(here.path()).args(["run", "--scripts", "scripts", "--data", "data"]);
    command.args(["--redis", world.redis.url(), "--prefix", &world.prefix, "--node-prefix", &world.prefix]);
    let mut host = Host::spawn(command);
    host.wait_for_line("host ready");
    std::fs::copy(guests::path("echo"), here.path().join("scripts/echo.wasm")).unwrap();
    let record = world.ended(&world.submit(NewJob::new("default", "echo", "hi")).await).await;
    assert_eq!(record.text("result").as_deref(), Some("hi"), "{}", host.said());
}

#[tokio::test]
async fn submit_with_wait_prints_the_result_or_fails_with_the_reason() {
    let world = World::new().await;
    world.publish("echo");
    world.publish("end");
    let _host = world.host(&[]);
    let printed = world.cli(&["submit", "--type", "echo", "--payload", "[1,2]", "--wait"]).run().ok();
    assert_eq!(printed, "[1,2]\n");
    let said =
        world.cli(&["submit", "--type", "end", "--payload", "failed", "--max-attempts", "1", "--wait"]).run().fails(1);
    assert!(said.contains("ended as `dlq`"), "{said}");
}

#[tokio::test]
async fn a_type_that_nobody_serves_ends_in_the_dlq_with_its_name() {
    let world = World::new().await;
    let _host = world.host(&[]);
    let record = world.ended(&world.submit(NewJob::new("default", "no-such-script", "")).await).await;
    assert_eq!(record.state(), Some(JobState::Dlq));
    assert!(record.text("dlq_reason").unwrap().contains("`no-such-script`"), "{record:?}");
}

#[tokio::test]
async fn a_type_published_while_its_job_waits_is_found() {
    let world = World::new().await;
    let mut host = world.host(&["--log", "debug"]);
    let id = world.submit(NewJob::new("default", "echo", "late")).await;
    wait_until("the job is in flight", PATIENCE, async || {
        let record = world.store.job(&id).await.ok()??;
        (record.state() == Some(JobState::Inflight)).then_some(())
    })
    .await;
    world.publish("echo");
    let record = world.ended(&id).await;
    assert_eq!(record.text("result").as_deref(), Some("late"), "{}", host.said());
}

#[tokio::test]
async fn a_failing_job_is_retried_until_its_attempts_are_used_up() {
    let world = World::new().await;
    world.publish("end");
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[retry]\nbase = '1ms'\ncap = '5ms'\n").unwrap();
    let _host = world.host(&["--config", config.path().to_str().unwrap()]);
    let job = NewJob { max_attempts: Some(3), ..NewJob::new("default", "end", "failed") };
    let record = world.ended(&world.submit(job).await).await;
    assert_eq!((record.state(), record.attempts()), (Some(JobState::Dlq), 3), "{record:?}");
    assert_eq!(record.number("deliveries"), Some(3));
}

#[tokio::test]
async fn a_manifest_says_how_its_jobs_are_retried_and_a_job_may_say_otherwise() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, manifest) = (folder.path().join("end.wasm"), folder.path().join("end.toml"));
    std::fs::copy(guests::path("end"), &file).unwrap();
    let publish = || world.cli(&["publish", file.to_str().unwrap()]).run();
    std::fs::write(&manifest, "[retry]\nbase = '0s'\n").unwrap();
    let said = publish().fails(2);
    assert!(said.contains("`retry.base`"), "{said}");
    std::fs::write(&manifest, "[retry]\nbase = '1ms'\ncap = '5ms'\nmax_attempts = 7\n").unwrap();
    publish().ok();
    // The host's own policy would take minutes.
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[retry]\nbase = '1h'\ncap = '24h'\n").unwrap();
    let _host = world.host(&["--config", config.path().to_str().unwrap()]);
    let failing = || NewJob::new("default", "end", "failed");
    let by_manifest = world.ended(&world.submit(failing()).await).await;
    assert_eq!((by_manifest.state(), by_manifest.attempts()), (Some(JobState::Dlq), 7), "{by_manifest:?}");
    assert_eq!(by_manifest.number("deliveries"), Some(7));
    let by_job = world.ended(&world.submit(NewJob { max_attempts: Some(2), ..failing() }).await).await;
    assert_eq!((by_job.state(), by_job.attempts()), (Some(JobState::Dlq), 2), "{by_job:?}");
    let arguments = [
        "submit",
        "--type",
        "end",
        "--payload",
        "failed",
        "--retry-base",
        "1h",
        "--retry-cap",
        "24h",
        "--output",
        "json",
    ];
    let shown: serde_json::Value = serde_json::from_str(&world.cli(&arguments).run().ok()).unwrap();
    let waits = JobId::from(shown["id"].as_str().unwrap());
    let record = wait_until("the job waits for its second attempt", PATIENCE, async || {
        world.store.job(&waits).await.ok()?.filter(|record| record.attempts() == 1)
    })
    .await;
    assert_eq!(record.state(), Some(JobState::Scheduled), "an hour, however the dice fall: {record:?}");
}

#[tokio::test]
async fn what_a_guest_says_of_its_next_attempt_is_done() {
    let world = World::new().await;
    world.publish("end");
    // Preview 2 has no exit codes but 0 and 1.
    world.publish("command-preview1");
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[retry]\nbase = '1ms'\ncap = '5ms'\n").unwrap();
    let _host = world.host(&["--config", config.path().to_str().unwrap()]);
    let submit = async |job_type: &str, payload: &str| {
        world.submit(NewJob { max_attempts: Some(2), ..NewJob::new("default", job_type, payload) }).await
    };
    let later = submit("end", "later").await;
    let record = wait_until("the job waits for its second attempt", PATIENCE, async || {
        world.store.job(&later).await.ok()?.filter(|record| record.state() == Some(JobState::Scheduled))
    })
    .await;
    let (failed, due) = (record.time("failed_at_nano").unwrap(), record.time("run_at_nano").unwrap());
    assert_eq!(due.since(failed), Duration::from_millis(1_500), "{record:?}");
    let record = world.ended(&submit("end", "reject").await).await;
    assert_eq!((record.state(), record.attempts()), (Some(JobState::Dlq), 1), "{record:?}");
    assert_eq!(record.text("error_kind").as_deref(), Some("rejected"));
    assert_eq!(record.text("dlq_reason").as_deref(), Some("makes no sense"));
    for (job_type, payload, words) in [("end", "retry", "busy"), ("command", "exit 75", "exit code 75")] {
        let record = world.ended(&submit(job_type, payload).await).await;
        assert_eq!((record.state(), record.attempts()), (Some(JobState::Dlq), 2), "{record:?}");
        assert_eq!(record.text("error_kind").as_deref(), Some("retry"));
        assert!(record.text("last_error").unwrap().contains(words), "{record:?}");
    }
    let record = world.ended(&later).await;
    assert_eq!((record.state(), record.attempts()), (Some(JobState::Dlq), 2), "{record:?}");
}

/// A host is killed with signal 9 in the middle of a thousand jobs; a second one finishes all of them.
#[tokio::test]
async fn jobs_of_a_killed_host_are_finished_by_another_and_none_is_lost() {
    let world = World::new().await;
    world.publish("echo");
    let jobs: Vec<NewJob> = (0..1000).map(|n| NewJob::new("default", "echo", format!("{n}"))).collect();
    let first = world.host(&["--lease", "1s"]);
    let ids: Vec<JobId> = world.store.enqueue(&jobs).await.unwrap().into_iter().map(|job| job.id).collect();
    wait_until("some jobs are done", PATIENCE, async || {
        let queues = world.store.queues().await.ok()?;
        queues.iter().any(|queue| queue.done > 100).then_some(())
    })
    .await;
    first.signal("KILL");
    drop(first);
    let _second = world.host(&["--lease", "1s"]);
    for (n, id) in ids.iter().enumerate() {
        let record = world.ended(id).await;
        assert_eq!(record.state(), Some(JobState::Done), "{record:?}");
        assert_eq!(record.text("result"), Some(n.to_string()));
    }
}

#[tokio::test]
async fn a_stopped_host_lets_running_jobs_end_and_leaves_the_others_in_the_queue() {
    let world = World::new().await;
    world.publish("end");
    let mut host = world.host(&["--concurrency", "1", "--grace", "20s"]);
    let running = world.submit(NewJob::new("default", "end", "long nap")).await;
    wait_until("the job is in flight", PATIENCE, async || {
        (world.store.job(&running).await.ok()??.state() == Some(JobState::Inflight)).then_some(())
    })
    .await;
    let waiting = world.submit(NewJob::new("default", "end", "long nap")).await;
    host.signal("TERM");
    assert_eq!(host.wait(), 0, "{}", host.said());
    assert_eq!(world.store.job(&running).await.unwrap().unwrap().state(), Some(JobState::Done));
    let left = world.store.job(&waiting).await.unwrap().unwrap();
    assert_eq!(left.state(), Some(JobState::Ready), "{left:?}");
}

#[tokio::test]
async fn a_job_that_outlives_the_grace_is_released_without_counting_against_it() {
    let world = World::new().await;
    world.publish("end");
    let mut host = world.host(&["--grace", "100ms"]);
    let id = world.submit(NewJob::new("default", "end", "sleep")).await;
    wait_until("the job is in flight", PATIENCE, async || {
        (world.store.job(&id).await.ok()??.state() == Some(JobState::Inflight)).then_some(())
    })
    .await;
    host.signal("TERM");
    assert_eq!(host.wait(), 0, "{}", host.said());
    let record = world.store.job(&id).await.unwrap().unwrap();
    assert_eq!(record.state(), Some(JobState::Ready), "{record:?}");
    assert_eq!((record.attempts(), record.number("deliveries")), (0, Some(0)), "{record:?}");
}

/// Every slot holds a guest that never returns; the node's heartbeats keep their period all the same.
#[tokio::test]
async fn endless_loops_in_every_slot_do_not_delay_a_heartbeat() {
    let world = World::new().await;
    world.publish("die");
    let _host = world.host(&["--concurrency", "8", "--node", "busy", "--lease", "1s"]);
    let jobs: Vec<NewJob> = (0..8)
        .map(|_| NewJob {
            timeout: Some(Duration::from_secs(12)),
            max_attempts: Some(1),
            ..NewJob::new("default", "die", "loop")
        })
        .collect();
    let ids: Vec<JobId> = world.store.enqueue(&jobs).await.unwrap().into_iter().map(|job| job.id).collect();
    // A lease of one second that is still held after many times that long was extended all along.
    for id in &ids {
        let record = world.ended(id).await;
        assert_eq!(record.text("error_kind").as_deref(), Some("timed_out"), "{record:?}");
        assert_eq!(record.number("deliveries"), Some(1), "its lease never ran out: {record:?}");
    }
}

#[tokio::test]
async fn a_new_version_is_live_for_the_next_job_and_both_digests_are_known() {
    let world = World::new().await;
    world.publish("echo");
    let _host = world.host(&[]);
    let first = world.ended(&world.submit(NewJob::new("default", "echo", "1")).await).await;
    // Another file under the same name: what matters is that its digest differs.
    let folder = tempfile::tempdir().unwrap();
    let mut other = guests::wasm("echo");
    other.extend_from_slice(&[0, 2, 1, b'x']);
    let file = folder.path().join("echo.wasm");
    std::fs::write(&file, &other).unwrap();
    world.cli(&["publish", file.to_str().unwrap()]).run().ok();
    let second = world.ended(&world.submit(NewJob::new("default", "echo", "2")).await).await;
    let name: ScriptName = "echo".parse().unwrap();
    let live = world.store.script(&name).await.unwrap().unwrap();
    assert_eq!(second.digest(), Some(live.digest));
    assert_ne!(first.digest(), second.digest());
}

#[tokio::test]
async fn a_job_that_waited_for_its_type_says_which_code_it_ran() {
    let world = World::new().await;
    let wasm = guests::wasm("echo");
    let _host = world.host(&[]);
    let id = world.submit(NewJob::new("default", "echo", "early")).await;
    wait_until("the job was handed out, with no code for it", PATIENCE, async || {
        let record = world.store.job(&id).await.ok()??;
        (record.state() == Some(JobState::Inflight)).then_some(())
    })
    .await;
    // Not by the program: a host waits for some seconds only.
    let echo = NewJumpscript { name: "echo".parse().unwrap(), kind: Kind::Component, manifest: Manifest::default() };
    world.store.publish(&echo, &wasm, PublishRule::Always).await.unwrap();
    let record = world.ended(&id).await;
    assert_eq!(record.text("result").as_deref(), Some("early"), "{record:?}");
    assert_eq!(record.digest(), Some(Digest::of(&wasm)), "{record:?}");
}

#[tokio::test]
async fn a_pinned_job_runs_the_code_it_names() {
    let world = World::new().await;
    world.publish("echo");
    let name: ScriptName = "echo".parse().unwrap();
    let pinned = world.store.script(&name).await.unwrap().unwrap().digest;
    world.publish("end");
    let _host = world.host(&[]);
    let job = NewJob { pin: Some(pinned), ..NewJob::new("default", "end", "kept") };
    let record = world.ended(&world.submit(job).await).await;
    assert_eq!(record.text("result").as_deref(), Some("kept"), "{record:?}");
}

#[tokio::test]
async fn a_host_outlives_a_redis_that_restarts() {
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let options = redis.options();
    let cli = |arguments: &[&str]| Invocation::new(arguments.iter().copied()).on(redis.url(), &options.prefix);
    let echo = guests::path("echo");
    cli(&["publish", echo.to_str().unwrap()]).run().ok();
    let mut host = Host::start(redis.url(), &options.prefix, &[]);
    assert_eq!(cli(&["submit", "--type", "echo", "--payload", "1", "--wait"]).run().ok(), "1\n");
    redis.kill();
    host.wait_for_line("redis does not answer");
    redis.restart();
    assert_eq!(cli(&["submit", "--type", "echo", "--payload", "2", "--wait"]).run().ok(), "2\n");
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn a_folder_is_published_again_after_redis_lost_everything() {
    let redis = RedisServer::start();
    let options = redis.options();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(guests::path("echo"), folder.path().join("echo.wasm")).unwrap();
    let _host = Host::start(redis.url(), &options.prefix, &["--scripts", folder.path().to_str().unwrap()]);
    let cli = |arguments: &[&str]| Invocation::new(arguments.iter().copied()).on(redis.url(), &options.prefix);
    assert_eq!(cli(&["submit", "--type", "echo", "--payload", "1", "--wait"]).run().ok(), "1\n");
    let mut raw = redis.raw().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    assert_eq!(cli(&["submit", "--type", "echo", "--payload", "2", "--wait"]).run().ok(), "2\n");
}

/// Queue records Q28: one queue's list is a set. It is said once, health is red, and the other queue goes on.
#[tokio::test]
async fn a_queue_with_a_key_of_the_wrong_type_is_left_alone_until_it_is_mended() {
    let world = World::new().await;
    world.publish("echo");
    let mut raw = world.redis.raw().await;
    let ready = format!("{}:queue:broken:ready", world.prefix);
    let _: i64 = raw.sadd(&ready, "not-a-list").await.unwrap();
    let mut host = world.host(&["--queue", "broken", "--queue", "good"]);
    host.wait_for_line("queue cannot be served");
    host.wait_for_line("queues: 1 that cannot be served");
    let record = world.ended(&world.submit(NewJob::new("good", "echo", "1")).await).await;
    assert_eq!(record.state(), Some(JobState::Done));
    let _: i64 = raw.del(&ready).await.unwrap();
    host.wait_for_line("queue can be served again");
    let record = world.ended(&world.submit(NewJob::new("broken", "echo", "2")).await).await;
    assert_eq!(record.text("result").as_deref(), Some("2"));
    let said = host.said();
    assert_eq!(said.matches("queue cannot be served").count(), 1, "it is said once: {said}");
}

/// `wasmhost dev .`: the program, in the folder where a person stands.
#[tokio::test]
async fn dev_reloads_a_file_of_the_folder_it_was_started_in() {
    let here = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut command = program();
    command.current_dir(here.path()).args(["dev", ".", "--data"]).arg(data.path());
    let mut dev = Host::spawn(command);
    dev.wait_for_line("watching");
    let mut wasm = guests::wasm("echo");
    std::fs::write(here.path().join("mine.wasm"), &wasm).unwrap();
    let first = dev.wait_for_line("reloaded echo");
    // The same code with a custom section more: another digest.
    wasm.extend_from_slice(&[0, 2, 1, b'x']);
    std::fs::write(here.path().join("mine.wasm"), &wasm).unwrap();
    dev.wait_for_line_after(&first, "reloaded echo");
    dev.signal("INT");
    assert_eq!(dev.wait(), 0, "{}", dev.said());
}
