//! Enqueueing: what is accepted, what is written, what is not written twice.

use std::time::Duration;

use wasmhost::clock::Timestamp;
use wasmhost::job::{JobId, NewJob};
use wasmhost::store::{Error, Signal};

use super::{Bench, done, end, job, moment, take, take_one};
use crate::support::redis::RedisServer;

#[tokio::test]
async fn a_bad_job_is_refused_with_its_field_and_nothing_is_written() {
    let mut bench = Bench::new().await;
    let long = "x".repeat(300 * 1024);
    let mut bad: Vec<(NewJob, &str)> = vec![
        (job("", "q"), "id"),
        (job("a", ""), "queue"),
        (job("a", "default:ready"), "default:ready"),
        (job("a", "q\n"), "queue"),
        (NewJob { job_type: String::new(), ..job("a", "q") }, "type"),
        (NewJob { max_attempts: Some(0), ..job("a", "q") }, "attempts"),
        (NewJob { timeout: Some(Duration::ZERO), ..job("a", "q") }, "timeout"),
        (NewJob { retry_base: Some(Duration::ZERO), ..job("a", "q") }, "retry base"),
        (NewJob { retry_cap: Some(Duration::from_secs(90_000)), ..job("a", "q") }, "retry cap"),
        (NewJob { idempotency_key: Some(long), ..job("a", "q") }, "idempotency key"),
        (NewJob { payload: vec![b'x'; 8 * 1024 * 1024 + 1], ..job("a", "q") }, "8388609"),
        (NewJob { run_at: Some(Timestamp::from_nanos(-1)), ..job("a", "q") }, "1970"),
        (NewJob { run_at: Some(Timestamp::from_nanos(i64::MAX)), ..job("a", "q") }, "100 years"),
        (NewJob { max_attempts: Some(u32::MAX), ..job("a", "q") }, "4294967295"),
        (NewJob { timeout: Some(Duration::MAX), ..job("a", "q") }, "at most 24h"),
    ];
    // Every name, every way in which it can be bad, each with the rule it breaks.
    type Make = fn(String) -> NewJob;
    let names: [(&str, Make); 4] = [
        ("id", |name| job(&name, "q")),
        ("queue", |name| job("a", &name)),
        ("type", |name| NewJob { job_type: name, ..job("a", "q") }),
        ("idempotency key", |name| NewJob { idempotency_key: Some(name), ..job("a", "q") }),
    ];
    let rules = [
        (String::new(), "must not be empty"),
        (" \t ".to_owned(), "must not be empty"),
        ("default:ready".to_owned(), "must not contain `:`"),
        ("a\0b".to_owned(), "must not contain the character"),
        ("a\u{1b}[2J".to_owned(), "must not contain the character"),
        ("a\u{202e}b".to_owned(), "must not contain the character"),
        ("x".repeat(201), "201 bytes"),
    ];
    for (what, make) in names {
        for (name, rule) in &rules {
            let made = make(name.clone());
            let error = made.check().unwrap_err();
            assert!(error.starts_with(what), "{error}");
            bad.push((made, rule));
        }
        assert_eq!(make("x".repeat(200)).check(), Ok(()), "{what}");
    }
    for (bad, word) in bad {
        // The good one beside it is not written either.
        let error = bench.store.enqueue(&[job("good", "q"), bad]).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)) && error.to_string().contains(word), "{error}");
    }
    let prefix = bench.prefix.clone();
    let keys = crate::support::redis::keys_under(&mut bench.raw, &prefix).await;
    assert_eq!(keys, [format!("{prefix}:meta")]);
}

#[tokio::test]
async fn a_ready_job_has_its_given_id_and_is_reserved_at_once() {
    let mut bench = Bench::new().await;
    let enqueued = bench.store.enqueue(&[job("chosen", "q")]).await.unwrap();
    assert_eq!((enqueued[0].id.clone(), enqueued[0].is_new), (JobId::from("chosen"), true));
    let reserved = take_one(&bench.store, "q").await;
    assert_eq!(reserved.id, JobId::from("chosen"));
    end(&bench.store, &reserved, done("")).await;
    bench.check().await;
}

#[tokio::test]
async fn only_what_the_producer_said_is_written() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let mut fields: Vec<String> = bench.raw(&["HKEYS", &bench.job_key("a")]).await;
    fields.sort();
    assert_eq!(fields, ["created_at_nano", "payload", "queue", "status", "type"]);
}

#[tokio::test]
async fn everything_the_producer_said_comes_back_at_the_reserve() {
    let bench = Bench::new().await;
    let asked = NewJob {
        payload: vec![0, 159, 146, 150, 13, 10],
        content_type: "image/png".to_owned(),
        timeout: Some(Duration::from_millis(1500)),
        max_attempts: Some(7),
        retry_base: Some(Duration::from_millis(2)),
        retry_cap: Some(Duration::from_secs(3)),
        metadata: vec![("trace".to_owned(), "ünïcode \"quoted\"".to_owned())],
        ..job("a", "q")
    };
    bench.store.enqueue(std::slice::from_ref(&asked)).await.unwrap();
    let found = take_one(&bench.store, "q").await;
    assert_eq!(found.payload, asked.payload);
    assert_eq!(found.content_type, asked.content_type);
    assert_eq!(found.timeout, asked.timeout);
    assert_eq!(found.retry, asked.retry());
    assert_eq!(found.retry.max_attempts, Some(7));
    assert_eq!(found.metadata, asked.metadata);
    assert!(found.created_at.is_some());
}

/// Numbers that a JSON round trip inside Redis would change.
#[tokio::test]
async fn a_payload_is_kept_byte_for_byte() {
    let bench = Bench::new().await;
    let payload = r#"{"a":1e400,"a":9223372036854775808,"b":0.1000000000000000055}"#;
    bench.store.enqueue(&[NewJob { payload: payload.into(), ..job("a", "q") }]).await.unwrap();
    assert_eq!(take_one(&bench.store, "q").await.payload, payload.as_bytes());
}

#[tokio::test]
async fn jobs_come_out_in_the_order_they_went_in() {
    let bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..600).map(|n| job(&format!("{n:04}"), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 600 {
        found.extend(take(&bench.store, "q", 128).await.iter().map(|job| job.id.to_string()));
    }
    assert!(found.is_sorted(), "{found:?}");
}

#[tokio::test]
async fn the_same_idempotency_key_answers_the_first_id() {
    let mut bench = Bench::new().await;
    let keyed = |id: &str, payload: &str| NewJob {
        idempotency_key: Some("order-1".to_owned()),
        payload: payload.into(),
        ..job(id, "q")
    };
    let first = bench.store.enqueue(&[keyed("a", "first"), keyed("b", "in the same batch")]).await.unwrap();
    assert_eq!((first[0].is_new, first[1].is_new), (true, false));
    assert_eq!(first[1].id, first[0].id);
    let reserved = take_one(&bench.store, "q").await;
    assert_eq!(reserved.payload, b"first", "the payload is not overwritten");
    end(&bench.store, &reserved, done("")).await;
    let late = bench.store.enqueue(&[keyed("c", "late")]).await.unwrap();
    assert_eq!((late[0].is_new, late[0].id.clone()), (false, first[0].id.clone()), "also after it is done");
    let other = bench.store.enqueue(&[NewJob { queue: "other".to_owned(), ..keyed("d", "") }]).await.unwrap();
    assert!(other[0].is_new, "a key belongs to its queue");
    let ttl: i64 = bench.raw(&["TTL", &format!("{}:idem:q:order-1", bench.prefix)]).await;
    assert!(ttl > 6 * 86_400, "{ttl}");
    bench.check().await;
}

#[tokio::test]
async fn an_id_that_is_there_is_neither_overwritten_nor_pushed_again() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let again = bench.store.enqueue(&[NewJob { payload: b"other".to_vec(), ..job("a", "q") }]).await.unwrap();
    assert!(!again[0].is_new);
    assert_eq!(take(&bench.store, "q", 10).await.len(), 1);
    bench.check().await;
}

#[tokio::test]
async fn a_scheduled_job_waits_until_exactly_its_time() {
    let bench = Bench::new().await;
    let due = moment(5_000);
    bench.at(0).enqueue(&[NewJob { run_at: Some(due), ..job("a", "q") }]).await.unwrap();
    let just_before = Timestamp::from_nanos(due.nanos() - 1);
    assert!(take(&bench.store.at(just_before), "q", 1).await.is_empty());
    assert_eq!(take_one(&bench.store.at(due), "q").await.id, JobId::from("a"));
}

#[tokio::test]
async fn a_ready_job_goes_before_one_that_is_scheduled_for_later() {
    let bench = Bench::new().await;
    let later = NewJob { run_at: Some(moment(60_000)), ..job("later", "q") };
    bench.at(0).enqueue(&[later, job("now", "q")]).await.unwrap();
    let now = take_one(&bench.at(0), "q").await;
    assert_eq!(now.id, JobId::from("now"));
    end(&bench.at(0), &now, done("")).await;
    assert!(take(&bench.at(1), "q", 1).await.is_empty());
    assert_eq!(take_one(&bench.at(60_000), "q").await.id, JobId::from("later"));
}

#[tokio::test]
async fn a_time_in_the_past_is_ready_at_once() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[NewJob { run_at: Some(moment(-1)), ..job("a", "q") }]).await.unwrap();
    assert_eq!(take(&bench.at(0), "q", 1).await.len(), 1);
}

#[tokio::test]
async fn a_sooner_due_time_is_told_on_the_wake_channel() {
    let bench = Bench::new().await;
    let mut signals = bench.store.subscribe();
    assert_eq!(signals.next().await, Signal::Resubscribed);
    bench.at(0).enqueue(&[NewJob { run_at: Some(moment(9_000)), ..job("a", "q") }]).await.unwrap();
    bench.at(0).enqueue(&[NewJob { run_at: Some(moment(8_000)), ..job("b", "q") }]).await.unwrap();
    let (first, second) = (signals.next().await, signals.next().await);
    // Rounded up, so that nobody looks a moment too early.
    assert_eq!(first, Signal::Due(moment(9_000).millis() + 1));
    assert_eq!(second, Signal::Due(moment(8_000).millis() + 1));
}

#[tokio::test]
async fn a_ready_key_of_the_wrong_type_refuses_the_batch_by_name() {
    let mut bench = Bench::new().await;
    let key = bench.key("q", "ready");
    bench.raw::<i64>(&["SADD", &key, "x"]).await;
    let error = bench.store.enqueue(&[job("a", "fine"), job("b", "q")]).await.unwrap_err().to_string();
    assert!(error.contains(&key) && error.contains("set"), "{error}");
    assert!(bench.store.job(&JobId::from("a")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_full_server_refuses_new_jobs_and_still_takes_acknowledgements() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
    let mut bench = Bench::on(&server).await;
    bench.store.enqueue(&[job("a", "q"), job("b", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    bench.raw::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = bench.store.enqueue(&[job("c", "q")]).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(end(&bench.store, &reserved, done("x")).await, wasmhost::store::Settled::Applied);
    assert_eq!(take(&bench.store, "q", 1).await.len(), 1, "what is queued is still handed out");
    bench.raw::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(bench.store.job(&JobId::from("c")).await.unwrap().is_none());
    bench.check().await;
}
