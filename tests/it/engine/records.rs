//! Reading jobs and queues.

use std::time::Duration;

use futures_util::StreamExt as _;
use wasmhost::clock::Timestamp;
use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::{JobRecord, Store};

use super::{Bench, dlq, done, end, job, take, take_one};
use crate::support::redis::RedisServer;

fn ids(jobs: &[JobRecord]) -> Vec<String> {
    jobs.iter().map(|job| job.id.as_ref().unwrap().to_string()).collect()
}

/// Reads every page and checks that none is longer than asked.
async fn all(store: &Store, queue: Option<&str>, state: Option<JobState>, limit: usize) -> Vec<JobRecord> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = store.jobs(queue, state, cursor.as_deref(), limit).await.unwrap();
        assert!(page.jobs.len() <= limit);
        found.extend(page.jobs);
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// One job in every state, in two queues.
async fn in_every_state(bench: &Bench) {
    let later = Timestamp::now().after(Duration::from_secs(3600));
    for queue in ["a", "b"] {
        let name = |state: &str| format!("{queue}-{state}");
        for state in ["done", "dlq", "inflight"] {
            bench.store.enqueue(&[job(&name(state), queue)]).await.unwrap();
            let reserved = take_one(&bench.store, queue).await;
            match state {
                "done" => drop(end(&bench.store, &reserved, done("the result")).await),
                "dlq" => drop(end(&bench.store, &reserved, dlq(1, "no use")).await),
                _ => {}
            }
        }
        let scheduled = NewJob { run_at: Some(later), ..job(&name("scheduled"), queue) };
        bench.store.enqueue(&[job(&name("ready"), queue), scheduled]).await.unwrap();
    }
}

#[tokio::test]
async fn jobs_are_listed_by_queue_and_state() {
    let mut bench = Bench::new().await;
    in_every_state(&bench).await;
    for state in [JobState::Ready, JobState::Scheduled, JobState::Inflight, JobState::Done, JobState::Dlq] {
        let found = all(&bench.store, Some("a"), Some(state), 10).await;
        assert_eq!(ids(&found), [format!("a-{state}")]);
        assert_eq!(found[0].state(), Some(state));
        assert_eq!((found[0].queue(), found[0].job_type()), ("a".to_owned(), "echo".to_owned()));
        assert!(found[0].field("payload").is_none(), "a page does not carry payloads");
    }
    for limit in [1, 3, 100] {
        let mut found = ids(&all(&bench.store, None, None, limit).await);
        found.sort();
        assert_eq!(found.len(), 10, "pages of {limit}: {found:?}");
        found.dedup();
        assert_eq!(found.len(), 10, "none twice");
    }
    bench.check().await;
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended_and_the_newest_end_first() {
    let bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..25).map(|n| job(&format!("{n:02}"), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let ready = ids(&all(&bench.store, Some("q"), Some(JobState::Ready), 10).await);
    assert_eq!(ready.len(), 25);
    assert!(ready.is_sorted(), "the next one to run first");
    for _ in 0..25 {
        let reserved = take_one(&bench.store, "q").await;
        end(&bench.store, &reserved, done("")).await;
    }
    let ended = ids(&all(&bench.store, Some("q"), Some(JobState::Done), 10).await);
    assert_eq!(ended, (0..25).rev().map(|n| format!("{n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_bad_record_or_one_that_is_gone_does_not_stop_a_page() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("1", "q"), job("2", "q"), job("3", "q"), job("4", "q")]).await.unwrap();
    let (gone, text) = (bench.job_key("2"), bench.job_key("3"));
    bench.raw::<i64>(&["DEL", &gone, &text]).await;
    bench.raw::<()>(&["SET", &text, "x"]).await;
    assert_eq!(ids(&all(&bench.store, Some("q"), None, 1).await), ["1", "4"]);
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let bench = Bench::new().await;
    for cursor in ["", "x", "ready", "ready.x.q"] {
        let error = bench.store.jobs(None, None, Some(cursor), 10).await.unwrap_err().to_string();
        assert!(error.contains("cursor"), "{error}");
    }
}

#[tokio::test]
async fn queues_are_known_by_name_and_number() {
    let bench = Bench::new().await;
    in_every_state(&bench).await;
    let queues = bench.store.queues().await.unwrap();
    assert_eq!(queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    for queue in queues {
        assert_eq!((queue.ready, queue.scheduled, queue.inflight, queue.done, queue.dlq), (1, 1, 1, 1, 1));
        assert_eq!(queue.counters, [("dead".to_owned(), 1), ("done".to_owned(), 1)]);
    }
}

#[tokio::test]
async fn who_listens_is_told_of_every_end_and_of_nothing_else() {
    let server = RedisServer::shared();
    let bench = Bench::on(server).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.subscribe(format!("{}:ended", bench.prefix)).await.unwrap();
    let jobs: Vec<NewJob> = ["done", "dead", "again", "stopped", "waits"].map(|id| job(id, "q")).into();
    bench.store.enqueue(&jobs).await.unwrap();
    for held in take(&bench.store, "q", 3).await {
        let how = match held.id.to_string().as_str() {
            "done" => done(""),
            "dead" => dlq(1, "no"),
            _ => super::retry(1, Duration::from_secs(60)),
        };
        end(&bench.store, &held, how).await;
    }
    bench.store.cancel("q", &JobId::from("stopped"), "a person").await.unwrap();
    let newer = |id: &str| NewJob { supersede_key: Some("k".to_owned()), ..job(id, "other") };
    bench.store.enqueue(&[newer("first")]).await.unwrap();
    bench.store.enqueue(&[newer("second")]).await.unwrap();
    let messages = listener.into_on_message().take(4).map(|message| message.get_payload::<String>().unwrap());
    let told = tokio::time::timeout(Duration::from_secs(30), messages.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(told, ["done", "dead", "stopped", "first"]);
}

#[tokio::test]
async fn waiting_ends_with_the_job_or_with_the_limit() {
    let bench = Bench::new().await;
    let nobody = bench.store.wait_final(&JobId::from("nobody"), Duration::from_secs(5)).await.unwrap();
    assert!(nobody.is_none());
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let id = JobId::from("a");
    let early = bench.store.wait_final(&id, Duration::from_millis(60)).await.unwrap().unwrap();
    assert_eq!(early.state(), Some(JobState::Ready), "the limit has passed");
    let ending = async {
        let reserved = take_one(&bench.store, "q").await;
        end(&bench.store, &reserved, done("42")).await;
    };
    let (waited, ()) = tokio::join!(bench.store.wait_final(&id, Duration::from_secs(5)), ending);
    assert_eq!(waited.unwrap().unwrap().text("result").as_deref(), Some("42"));
}
