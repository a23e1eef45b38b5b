//! Records of jumpscripts that make no sense (docs/bad-wasm.md, W1 to W9), while good jobs run.

use std::time::Duration;

use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::jumpscript::Digest;

use crate::engine::Bench;
use crate::support::guests;
use crate::support::program::{Host, Invocation};
use crate::support::redis::{RedisServer, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

async fn submit(bench: &Bench, job_type: &str) -> JobId {
    let job = NewJob { max_attempts: Some(1), ..NewJob::new("default", job_type, "x") };
    bench.store.enqueue(&[job]).await.unwrap().remove(0).id
}

async fn ends_as(bench: &Bench, id: &JobId, state: JobState) -> String {
    wait_until(&format!("job {id} is {state}"), PATIENCE, async || {
        let record = bench.store.job(id).await.ok()??;
        (record.state() == Some(state)).then(|| record.text("last_error").unwrap_or_default())
    })
    .await
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_skipped_with_its_reason_and_good_jobs_run() {
    let mut bench = Bench::new().await;
    let url = RedisServer::shared().url();
    let echo = guests::path("echo");
    Invocation::new(["publish", echo.to_str().unwrap()]).on(url, &bench.prefix).run().ok();
    let mut host = Host::start(url, &bench.prefix, &[]);
    let first = submit(&bench, "echo").await;
    ends_as(&bench, &first, JobState::Done).await;

    let wasm = guests::wasm("echo");
    let digest = Digest::of(&wasm).to_string();
    let record = |id: &str, name: &str| {
        format!(r#"{{"id":{id},"organization":"bad","name":"{name}","kind":"component","digest":"{digest}","size":1}}"#)
    };
    let huge = format!(r#"{{"digest":"{digest}","descr":"{}"}}"#, "x".repeat(50 * 1024 * 1024));
    let unnamed = format!(r#"{{"id":1,"organization":"bad","kind":"component","digest":"{digest}","size":1}}"#);
    let cases: [(&str, &str, String, &str); 8] = [
        ("W1", "bad__cut", record("1", "cut")[..40].to_owned(), "its JSON does not parse"),
        ("W2", "bad__list", "[]".to_owned(), "its JSON is not an object"),
        ("W2", "bad__null", "null".to_owned(), "its JSON is not an object"),
        ("W2", "bad__number", "42".to_owned(), "its JSON is not an object"),
        ("W3", "bad__unnamed", unnamed, "missing field `name`"),
        ("W4", "bad__other", record("1", "elsewhere"), "it stands under `bad__other`, but calls itself"),
        ("W6", "bad__id", record("\"seven\"", "id"), "its JSON is odd"),
        ("W7", "bad__huge", huge, "bytes, at most 262144 are allowed"),
    ];
    let (names, ids, code) =
        (bench.store.keys().scripts_by_name(), bench.store.keys().scripts_by_id(), bench.store.keys().wasm());
    for (_, field, text, _) in &cases {
        bench.raw::<i64>(&["HSET", &names, field, text]).await;
    }
    // W5: a second number for one name. W3, W8: a record of another system, whose source nobody here decodes.
    let twin = record("8000001", "twin");
    bench.raw::<i64>(&["HSET", &ids, "8000001", &twin, "8000002", &twin]).await;
    bench.raw::<i64>(&["HSET", &names, "bad__twin", &twin]).await;
    bench.raw::<i64>(&["HSET", &names, "jumpscale__source", r#"{"id":3,"name":"source","source":"YWJj="}"#]).await;
    // W9: other bytes under a digest.
    let lie = Digest::of(b"what it should be").to_string();
    let lying = record("1", "lying").replace(&digest, &lie);
    bench.raw::<i64>(&["HSET", &code, &lie, "what it is"]).await;
    bench.raw::<i64>(&["HSET", &names, "bad__lying", &lying]).await;

    for (number, field, _, reason) in &cases {
        let line = host.wait_for_line(&format!("\"field\":\"{field}\""));
        assert!(line.contains("skipped") && line.contains(reason), "{number}: {line}");
    }
    wait_until("the good one among them is live", PATIENCE, async || bench.store.route("bad/twin").await.unwrap())
        .await;
    wait_until("the lying one is routed", PATIENCE, async || bench.store.route("bad/lying").await.unwrap()).await;
    let (good, twin, lying) =
        (submit(&bench, "echo").await, submit(&bench, "bad/twin").await, submit(&bench, "bad/lying").await);
    ends_as(&bench, &good, JobState::Done).await;
    ends_as(&bench, &twin, JobState::Done).await;
    let why = ends_as(&bench, &lying, JobState::Dlq).await;
    assert!(why.contains("is not that code"), "{why}");
    let said = host.said();
    assert!(!said.contains("panicked") && !said.contains("jumpscale__source"), "{said}");
    assert_eq!(host.stop(), 0);
    bench.check().await;
}

/// The sweep of every host reads the records: one that is far too long must not hold up Redis.
#[tokio::test]
async fn a_record_of_50_mib_does_not_travel_and_can_be_replaced() {
    let mut bench = Bench::new().await;
    let names = bench.store.keys().scripts_by_name();
    let huge = "x".repeat(50 * 1024 * 1024);
    bench.raw::<i64>(&["HSET", &names, "wasmhost__echo", &huge]).await;
    let before = bench.store.sweep(&[]).await.unwrap().scripts_check;
    assert_eq!(bench.store.sweep(&[]).await.unwrap().scripts_check, before);
    let index = bench.store.index().await.unwrap();
    assert!(index.scripts.is_empty() && index.refused[0].1.contains("52428800 bytes"), "{:?}", index.refused);
    Invocation::new(["publish", guests::path("echo").to_str().unwrap()])
        .on(RedisServer::shared().url(), &bench.prefix)
        .run()
        .ok();
    assert_ne!(bench.store.sweep(&[]).await.unwrap().scripts_check, before);
    assert_eq!(bench.store.index().await.unwrap().scripts.len(), 1);
}
