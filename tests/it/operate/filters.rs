//! Lists of jobs by state, type, time, error and payload.

use wasmhost::job::NewJob;
use wasmhost::store::QueueChange;

use super::{dead, ids, json, keyed, run};
use crate::engine::{Bench, job, take};

#[tokio::test]
async fn parked_jobs_are_listed_as_parked_page_by_page() {
    let mut bench = Bench::new().await;
    let change = QueueChange { key_concurrency: Some(Some(1)), ..QueueChange::default() };
    bench.store.set_queue("q", &change).await.unwrap();
    for key in ["k1", "k2", "k3"] {
        let names: Vec<String> = (0..4).map(|n| format!("{key}-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        bench.store.enqueue(&keyed(&names, key, "q")).await.unwrap();
    }
    assert_eq!(take(&bench.store, "q", 20).await.len(), 3);
    for limit in ["1", "2", "50"] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut words = vec!["jobs", "ls", "--state", "parked", "--limit", limit];
            if !cursor.is_empty() {
                words.extend(["--cursor", &cursor]);
            }
            let page = json(&bench, &words);
            assert!(page["jobs"].as_array().unwrap().iter().all(|job| job["status"] == "parked"), "{page}");
            found.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
            assert!(found.len() <= 9, "{found:?}");
        }
        found.sort();
        let expected: Vec<String> = (1..=3).flat_map(|k| (1..4).map(move |n| format!("k{k}-{n}"))).collect();
        assert_eq!(found, expected, "pages of {limit}");
    }
    assert_eq!(ids(&json(&bench, &["jobs", "ls", "--state", "ready"])), Vec::<String>::new());
    assert_eq!(ids(&json(&bench, &["jobs", "ls"])).len(), 12);
    bench.check().await;
}

#[tokio::test]
async fn jobs_are_found_by_what_their_payload_says() {
    let mut bench = Bench::new().await;
    let with = |id: &str, payload: &[u8]| NewJob { payload: payload.to_vec(), ..job(id, "q") };
    bench
        .store
        .enqueue(&[
            with("a", br#"{"customer":7}"#),
            with("b", br#"{"customer":8}"#),
            with("c", b"\xff\x00customer\":7"),
        ])
        .await
        .unwrap();
    assert_eq!(ids(&json(&bench, &["jobs", "ls", "--payload", "customer\":7"])), ["a", "c"]);
    assert_eq!(ids(&json(&bench, &["jobs", "ls", "--payload", "Customer"])), Vec::<String>::new());
    assert_eq!(ids(&json(&bench, &["jobs", "ls", "--payload", "8", "--state", "ready"])), ["b"]);
    assert!(run(&bench, &["jobs", "ls", "--payload", ""]).fails(2).contains("--payload"));
    bench.check().await;
}

/// One call reads some megabytes of payload, not five hundred times eight; the next call goes on with the next row.
#[tokio::test]
async fn a_page_over_large_payloads_misses_none() {
    let bench = Bench::new().await;
    let large = |n: usize| NewJob { payload: vec![b'x'; 2_000_000], ..job(&format!("{n:02}"), "q") };
    bench.store.enqueue(&[large(0), large(1), large(2), large(3), large(4), large(5)]).await.unwrap();
    bench.store.enqueue(&[NewJob { payload: b"needle".to_vec(), ..job("z", "q") }]).await.unwrap();
    let page = json(&bench, &["jobs", "ls", "--payload", "needle"]);
    assert_eq!((ids(&page), page["looked_at"].as_u64()), (vec!["z".to_owned()], Some(7)));
}

#[tokio::test]
async fn jobs_are_found_by_state_type_error_and_the_time_they_were_made() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("new", "q"), NewJob::new("other", "send", "")]).await.unwrap();
    dead(&mut bench, "q", &[("dead".to_owned(), "send", "Broken pipe")]).await;
    let (old, key) = ("1700000000000000000", bench.job_key("dead"));
    bench.raw::<i64>(&["HSET", &key, "created_at_nano", old]).await;
    let listed = |words: &[&str]| {
        ids(&json(&bench, &["jobs", "ls", "--queue", "q"].iter().chain(words).copied().collect::<Vec<_>>()))
    };
    assert_eq!(listed(&["--since", "1h"]), ["new"]);
    assert_eq!(listed(&["--until", "1h"]), ["dead"]);
    assert_eq!(listed(&["--since", "2023-11-14T22:13:20Z", "--until", "2023-11-14T22:13:21Z"]), ["dead"]);
    assert_eq!(listed(&["--error", "broken"]), ["dead"]);
    assert_eq!(listed(&["--type", "send"]), ["dead"]);
    assert_eq!(listed(&["--type", "send", "--state", "ready"]), Vec::<String>::new());
    assert!(run(&bench, &["jobs", "ls", "--state", "praked"]).fails(2).contains("parked"));
    assert!(run(&bench, &["jobs", "ls", "--eror", "x"]).fails(2).contains("--error"));
    assert!(run(&bench, &["jobs", "ls", "--type", "nothing"]).fails(0).contains("no job fits"));
}
