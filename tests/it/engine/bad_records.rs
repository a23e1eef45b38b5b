//! Records of foreign or buggy producers: each has its stated end, and the good jobs around it run.

use std::time::Duration;

use wasmhost::job::JobId;
use wasmhost::store::SetAside;

use super::{Bench, ask, done, end};

/// How a bad record ends.
#[derive(Clone, Copy)]
enum Fate {
    /// In the DLQ, with a reason that has this word.
    Dead(&'static str),
    /// In the `aside` list, its record untouched.
    Aside(&'static str),
    /// It runs.
    Runs,
}
use Fate::{Aside, Dead, Runs};

const SOUND: [&str; 8] = ["type", "echo", "queue", "q", "payload", "{}", "status", "ready"];

/// A record made of the sound fields, without one, with others.
fn record(without: &str, more: &[&'static str]) -> Vec<&'static str> {
    let mut fields: Vec<&str> =
        SOUND.chunks(2).filter(|pair| pair[0] != without).flat_map(|pair| pair.iter().copied()).collect();
    fields.extend(more);
    fields
}

#[tokio::test]
async fn every_bad_record_has_its_end_and_the_good_jobs_run() {
    let cases: Vec<(&str, Vec<&'static str>, Fate)> = vec![
        ("no hash", vec![], Aside("no record")),
        ("no type", record("type", &[]), Dead("`type`")),
        ("empty type", record("type", &["type", ""]), Dead("`type`")),
        ("no payload", record("payload", &[]), Runs),
        ("no queue", record("queue", &[]), Dead("`queue`")),
        ("no status", record("status", &[]), Runs),
        ("no attempts", record("", &[]), Runs),
        ("no max attempts", record("", &["attempts", "1"]), Runs),
        ("another queue", record("queue", &["queue", "elsewhere"]), Runs),
        ("attempts -1", record("", &["attempts", "-1"]), Dead("`attempts`")),
        ("attempts 2^63", record("", &["attempts", "9223372036854775808"]), Dead("`attempts`")),
        ("attempts NaN", record("", &["attempts", "NaN"]), Dead("`attempts`")),
        ("attempts empty", record("", &["attempts", ""]), Dead("`attempts`")),
        ("max attempts x", record("", &["max_attempts", "x"]), Dead("`max_attempts`")),
        ("max attempts 0", record("", &["max_attempts", "0"]), Runs),
        ("max attempts 2^31", record("", &["max_attempts", "2147483648"]), Runs),
        ("retry base x", record("", &["retry_base_ms", "x"]), Dead("`retry_base_ms`")),
        ("retry cap -1", record("", &["retry_cap_ms", "-1"]), Dead("`retry_cap_ms`")),
        (
            "retry delays beyond u64",
            record("", &["retry_base_ms", "99999999999999999999999", "retry_cap_ms", "0"]),
            Runs,
        ),
        ("timeout -5", record("", &["timeout_nano", "-5"]), Dead("`timeout_nano`")),
        ("timeout 0", record("", &["timeout_nano", "0"]), Runs),
        ("timeout i64 max", record("", &["timeout_nano", "9223372036854775807"]), Runs),
        ("timeout beyond u64", record("", &["timeout_nano", "99999999999999999999999"]), Runs),
        ("run at inf", record("", &["run_at_nano", "inf"]), Dead("`run_at_nano`")),
        ("status done", record("status", &["status", "done"]), Aside("`done`")),
        ("status banana", record("status", &["status", "banana"]), Aside("`banana`")),
        ("a:queue:b:ready", record("", &[]), Runs),
        ("nul \0 line \n esc \u{1b}[2J", record("", &[]), Runs),
        ("status dlq", record("status", &["status", "dlq"]), Aside("`dlq`")),
        ("bad metadata", record("", &["metadata", "{not json"]), Runs),
        ("empty field name", record("", &["", "x"]), Runs),
        ("control field name", record("", &["a\u{0}\n\u{1b}b", "\u{1}"]), Runs),
        ("twin keys", record("payload", &["payload", r#"{"a":1,"a":2}"#]), Runs),
        ("numbers", record("payload", &["payload", "[1e400,9223372036854775808,0.1000000000000000055]"]), Runs),
    ];
    let mut bench = Bench::new().await;
    let ready = bench.key("q", "ready");
    for (n, (id, fields, _)) in cases.iter().enumerate() {
        bench.foreign("q", &format!("good{n}"), &[]).await;
        if !fields.is_empty() {
            let key = bench.job_key(id);
            let mut words = vec!["HSET", key.as_str()];
            words.extend(fields);
            bench.raw::<i64>(&words).await;
        }
        bench.raw::<i64>(&["RPUSH", &ready, id]).await;
    }
    let (mut ran, mut set_aside): (Vec<JobId>, Vec<SetAside>) = (Vec::new(), Vec::new());
    loop {
        let turn = bench.store.turn(&[], Some(&ask("q", 16))).await.unwrap();
        if turn.reserved.jobs.is_empty() && turn.reserved.set_aside.is_empty() {
            break;
        }
        set_aside.extend(turn.reserved.set_aside);
        for job in turn.reserved.jobs {
            assert_eq!(end(&bench.store, &job, done("")).await, wasmhost::store::Settled::Applied, "{}", job.id);
            match job.id.to_string().as_str() {
                "max attempts 0" => assert_eq!(job.retry.executions(), 1, "TaskHarbor's default runs once"),
                "max attempts 2^31" => assert_eq!(job.retry.executions(), 1000),
                "timeout 0" => assert_eq!(job.timeout, None),
                "timeout i64 max" | "timeout beyond u64" => assert_eq!(job.timeout.unwrap().as_secs(), 86_400),
                "no payload" => assert!(job.payload.is_empty()),
                "retry delays beyond u64" => {
                    let (hour, least) = (Duration::from_secs(3600), Duration::from_millis(1));
                    assert_eq!((job.retry.base, job.retry.cap), (Some(hour), Some(least)));
                }
                "no attempts" => assert_eq!((job.attempts, job.retry.executions()), (0, 5)),
                "no max attempts" => assert_eq!((job.attempts, job.retry.executions()), (1, 5)),
                "twin keys" => assert_eq!(job.payload, br#"{"a":1,"a":2}"#),
                "numbers" => assert_eq!(job.payload, b"[1e400,9223372036854775808,0.1000000000000000055]"),
                _ => {}
            }
            ran.push(job.id);
        }
    }
    for (n, (id, _, fate)) in cases.iter().enumerate() {
        assert!(ran.contains(&JobId::from(format!("good{n}").as_str())), "the good job before `{id}`");
        let has_run = ran.contains(&JobId::from(*id));
        let aside = set_aside.iter().find(|aside| aside.id == JobId::from(*id));
        match fate {
            Runs => assert!(has_run && aside.is_none(), "`{id}` runs: {aside:?}"),
            Dead(word) => {
                let aside = aside.unwrap_or_else(|| panic!("`{id}` is reported"));
                assert!(!has_run && aside.is_dead && aside.reason.contains(word), "`{id}`: {aside:?}");
                assert!(bench.field(id, "dlq_reason").await.contains(word), "`{id}`");
            }
            Aside(word) => {
                let aside = aside.unwrap_or_else(|| panic!("`{id}` is reported"));
                assert!(!has_run && !aside.is_dead && aside.reason.contains(word), "`{id}`: {aside:?}");
            }
        }
    }
    assert!(bench.store.job(&JobId::from("no hash")).await.unwrap().is_none(), "no hash is made for an id without one");
    let n_aside = cases.iter().filter(|case| matches!(case.2, Aside(_))).count();
    // A queue that only foreign producers use is known from the first sweep on.
    bench.store.sweep(&["q".to_owned()]).await.unwrap();
    let info = bench.store.queues().await.unwrap();
    let counted = info.iter().find(|info| info.name == "q").unwrap().counters.clone();
    assert!(counted.contains(&("set_aside".to_owned(), n_aside as u64)), "{counted:?}");
    // What was set aside was not changed, so these are as their producer left them: in no structure.
    for id in ["status done", "status dlq", "status banana"] {
        let key = bench.job_key(id);
        bench.raw::<i64>(&["DEL", &key]).await;
    }
    bench.check().await;
}

#[tokio::test]
async fn an_id_that_stands_twice_runs_once() {
    let mut bench = Bench::new().await;
    let ready = bench.key("q", "ready");
    bench.foreign("q", "twin", &[]).await;
    bench.raw::<i64>(&["RPUSH", &ready, "twin"]).await;
    let first = bench.store.turn(&[], Some(&ask("q", 1))).await.unwrap().reserved;
    assert_eq!(first.jobs.len(), 1);
    let second = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap().reserved;
    assert!(second.jobs.is_empty());
    assert!(second.set_aside[0].reason.contains("twice"), "{:?}", second.set_aside);
    end(&bench.store, &first.jobs[0], done("")).await;
    bench.check().await;
    // Also within one batch.
    bench.foreign("q", "pair", &[]).await;
    bench.raw::<i64>(&["RPUSH", &ready, "pair"]).await;
    let batch = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap().reserved;
    assert_eq!((batch.jobs.len(), batch.set_aside.len()), (1, 1));
    bench.check().await;
}

#[tokio::test]
async fn keys_of_the_wrong_type_are_set_aside() {
    let mut bench = Bench::new().await;
    let ready = bench.key("q", "ready");
    let (text, list) = (bench.job_key("text"), bench.job_key("list"));
    bench.raw::<()>(&["SET", &text, "x"]).await;
    bench.raw::<i64>(&["RPUSH", &list, "x"]).await;
    for id in ["text", "list"] {
        bench.raw::<i64>(&["RPUSH", &ready, id]).await;
    }
    bench.foreign("q", "good", &[]).await;
    let reserved = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap().reserved;
    assert_eq!(reserved.jobs.len(), 1);
    assert_eq!(reserved.set_aside.len(), 2);
    assert!(reserved.set_aside.iter().all(|aside| aside.reason.contains("not a hash") && !aside.is_dead));
    assert_eq!(bench.raw::<String>(&["GET", &text]).await, "x", "it is not ours to change");
}

#[tokio::test]
async fn an_id_that_is_empty_or_too_long_is_set_aside() {
    let mut bench = Bench::new().await;
    let ready = bench.key("q", "ready");
    let long = "x".repeat(1024 * 1024);
    for id in ["", &long] {
        bench.raw::<i64>(&["RPUSH", &ready, id]).await;
    }
    bench.foreign("q", "good", &[]).await;
    let reserved = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap().reserved;
    assert_eq!(reserved.jobs.len(), 1);
    let lengths: Vec<usize> = reserved.set_aside.iter().map(|aside| aside.id.as_bytes().len()).collect();
    assert_eq!(lengths, [0, 1024], "what is kept of it is bounded");
}

#[tokio::test]
async fn a_payload_over_the_limit_is_dead_with_its_size() {
    let mut bench = Bench::new().await;
    let huge = "x".repeat(8 * 1024 * 1024 + 1);
    bench.foreign("q", "huge", &["payload", &huge]).await;
    let reserved = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap().reserved;
    assert!(reserved.jobs.is_empty());
    assert!(reserved.set_aside[0].is_dead && reserved.set_aside[0].reason.contains("8388609"));
    bench.check().await;
}

/// An operator moves a queue by renaming its list, under load.
#[tokio::test]
async fn a_renamed_list_is_served_where_it_lies() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[super::job("a", "old"), super::job("b", "old")]).await.unwrap();
    bench.raw::<()>(&["RENAME", &bench.key("old", "ready"), &bench.key("new", "ready")]).await;
    let reserved = super::take(&bench.store, "new", 8).await;
    assert_eq!(reserved.len(), 2);
    assert_eq!(bench.field("a", "queue").await, "new");
    for job in &reserved {
        end(&bench.store, job, done("")).await;
    }
    bench.check().await;
}

/// Its record says nothing of its queue: the list it came from is what counts, and its lease is gone.
#[tokio::test]
async fn a_record_without_a_queue_is_dead_in_the_queue_of_its_list() {
    let mut bench = Bench::new().await;
    let (row, ready) = (bench.job_key("lost"), bench.key("q", "ready"));
    bench.raw::<i64>(&["HSET", &row, "type", "echo", "payload", "{}", "status", "ready"]).await;
    bench.raw::<i64>(&["RPUSH", &ready, "lost"]).await;
    bench.raw::<i64>(&["ZADD", &bench.key("q", "inflight"), "1000", "lost"]).await;
    assert!(super::take(&bench.store, "q", 8).await.is_empty());
    assert_eq!((bench.field("lost", "status").await, bench.field("lost", "queue").await), ("dlq".into(), "q".into()));
    assert_eq!(bench.raw::<i64>(&["ZCARD", &bench.key("q", "inflight")]).await, 0);
    bench.check().await;
}

/// Bytes that are no text in every place that a producer fills: payload, name of a field, id.
#[tokio::test]
async fn bytes_that_are_no_text_are_passed_as_they_are() {
    let mut bench = Bench::new().await;
    let (id, payload) = (b"\xff\xfe\x00id", b"\x00\xc3\x28\xff");
    let row = [bench.job_key("").as_bytes(), id].concat();
    let mut set = redis::cmd("HSET");
    set.arg(&row).arg("type").arg("echo").arg("queue").arg("q").arg("status").arg("ready");
    set.arg("payload").arg(payload).arg(b"\xff\x00").arg(b"\xfe");
    set.query_async::<()>(&mut bench.raw).await.unwrap();
    let mut push = redis::cmd("RPUSH");
    push.arg(bench.key("q", "ready")).arg(id).query_async::<()>(&mut bench.raw).await.unwrap();
    let reserved = super::take_one(&bench.store, "q").await;
    assert_eq!((reserved.id.as_bytes(), reserved.payload.as_slice()), (id.as_slice(), payload.as_slice()));
    let shown = reserved.id.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert!(bench.store.job(&reserved.id).await.unwrap().is_some(), "its record can be read");
    assert_eq!(end(&bench.store, &reserved, done("")).await, wasmhost::store::Settled::Applied);
}

/// An id that looks like another key of ours names its own record and nothing else.
#[tokio::test]
async fn an_id_with_colons_never_meets_another_key() {
    let mut bench = Bench::new().await;
    bench.foreign("b", "bystander", &[]).await;
    bench.foreign("a", "x:queue:b:ready", &[]).await;
    bench.foreign("a", "queue:b:ready", &[]).await;
    for reserved in super::take(&bench.store, "a", 8).await {
        end(&bench.store, &reserved, super::dlq(1, "x")).await;
    }
    let waiting: Vec<String> = bench.raw(&["LRANGE", &bench.key("b", "ready"), "0", "-1"]).await;
    assert_eq!(waiting, ["bystander"]);
    bench.check().await;
}

/// 64 MiB in a record of another producer: dead with the size in the reason, and nothing of it comes to the host.
#[tokio::test]
async fn a_payload_of_64_mib_is_dead_and_does_not_travel() {
    let mut bench = Bench::new().await;
    bench.foreign("q", "huge", &[]).await;
    let row = bench.job_key("huge");
    bench.raw::<i64>(&["HDEL", &row, "payload"]).await;
    let grow = "redis.call('HSET', KEYS[1], 'payload', string.rep('x', 67108864))";
    bench.raw::<()>(&["EVAL", grow, "1", &row]).await;
    bench.foreign("q", "good", &[]).await;
    let reserved = bench.store.turn(&[], Some(&ask("q", 8))).await.unwrap().reserved;
    assert_eq!(reserved.jobs.len(), 1);
    assert!(reserved.set_aside[0].is_dead && reserved.set_aside[0].reason.contains("67108864"), "{reserved:?}");
    let page = bench.store.jobs(Some("q"), None, None, 10).await.unwrap();
    assert!(page.jobs.iter().all(|job| job.field("payload").is_none()), "pages do not carry it either");
    bench.raw::<i64>(&["DEL", &row, &bench.key("q", "dlq")]).await;
}

/// A record says that its result is compressed. Nothing here inflates it: it is shown as the bytes it is.
#[tokio::test]
async fn a_result_that_claims_to_be_compressed_is_kept_as_bytes() {
    let mut bench = Bench::new().await;
    let row = bench.job_key("a");
    for (id, result) in [("a", "not gzip at all"), ("b", "\u{1f}\u{8b}\u{8} and so on")] {
        let row = row.replace(":job:a", &format!(":job:{id}"));
        let more = ["result", result, "result_type", "application/gzip"];
        let fields = ["HSET", &row, "type", "echo", "queue", "q", "status", "done"];
        bench.raw::<i64>(&[&fields[..], &more].concat()).await;
        let record = bench.store.job(&JobId::from(id)).await.unwrap().unwrap();
        assert_eq!(record.text("result").as_deref(), Some(result));
    }
}

/// FLUSHALL while a job runs.
#[tokio::test]
async fn everything_is_lost_at_once_and_the_next_job_runs() {
    let server = crate::support::redis::RedisServer::start();
    let mut bench = Bench::on(&server).await;
    bench.store.enqueue(&[super::job("a", "q"), super::job("b", "q")]).await.unwrap();
    let held = super::take_one(&bench.store, "q").await;
    bench.raw::<()>(&["FLUSHALL"]).await;
    let late = end(&bench.store, &held, done("")).await;
    assert_eq!(late, wasmhost::store::Settled::LeaseLost(wasmhost::store::Lost::NotInflight));
    assert!(bench.store.job(&held.id).await.unwrap().is_none(), "no row is made of an answer");
    bench.store.enqueue(&[super::job("c", "q")]).await.unwrap();
    let next = super::take_one(&bench.store, "q").await;
    assert_eq!(end(&bench.store, &next, done("")).await, wasmhost::store::Settled::Applied);
    bench.check().await;
}
