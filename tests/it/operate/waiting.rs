//! Waiting for jobs, their logs, and jobs that are parked.

use super::{ids, json, keyed, run};
use crate::engine::{Bench, dlq, done, end, job, take, take_one};
use crate::support::program::{Host, program};
use crate::support::redis::RedisServer;
use wasmhost::store::QueueChange;

/// A command in the background, on the prefix of a bench.
fn begin(bench: &Bench, words: &[&str]) -> Host {
    let mut command = program();
    command.args(words).args(["--redis", RedisServer::shared().url(), "--prefix", &bench.prefix]);
    Host::spawn(command)
}

#[tokio::test]
async fn wait_prints_the_result_when_the_job_ends() {
    let bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let taken = take_one(&bench.store, "q").await;
    let mut waiting = begin(&bench, &["jobs", "wait", "a", "--timeout", "30s"]);
    end(&bench.store, &taken, done("the result")).await;
    waiting.wait_for_line("the result");
    assert_eq!(waiting.wait(), 0);
    assert_eq!(run(&bench, &["jobs", "wait", "a"]).ok(), "the result\n", "one that has ended already");
    assert_eq!(json(&bench, &["jobs", "wait", "a"])["result"], "the result");
}

#[tokio::test]
async fn wait_tells_of_each_of_many_and_fails_when_one_does() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q"), job("b", "q"), job("c", "q")]).await.unwrap();
    let taken = take(&bench.store, "q", 2).await;
    end(&bench.store, &taken[0], done("1\n2")).await;
    end(&bench.store, &taken[1], dlq(5, "attempts")).await;
    let ended = run(&bench, &["jobs", "wait", "a", "b", "c", "nope", "--timeout", "10ms"]);
    assert_eq!(ended.stdout, "a done 1\nb dlq no luck\n");
    let said = ended.fails(1);
    assert!(said.contains("job `c` is still `ready` after 10ms") && said.contains("no job `nope`"), "{said}");
    assert!(said.contains("serves queue `q`") && said.contains("queues show q"), "{said}");
    assert_eq!(run(&bench, &["jobs", "wait", "a", "a"]).ok(), "a done 1\na done 1\n");
    let both = run(&bench, &["jobs", "wait", "a", "b", "--output", "json"]);
    assert!(both.stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{both:?}");
    assert_eq!((both.stdout.lines().count(), both.fails(1).as_str()), (2, ""));
    assert!(run(&bench, &["jobs", "wait", "b"]).fails(1).contains("caused by: no luck"));
    assert!(run(&bench, &["jobs", "wait", "nope"]).fails(1).contains("no job `nope`"));
    assert!(run(&bench, &["jobs", "wait"]).fails(2).contains("<ID>"));
    bench.check().await;
}

#[tokio::test]
async fn the_longest_timeout_that_can_be_written_is_waited_for() {
    let bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let taken = take_one(&bench.store, "q").await;
    let mut waiting = begin(&bench, &["jobs", "wait", "a", "--timeout", "9223372036854775807s"]);
    end(&bench.store, &taken, done("ok")).await;
    waiting.wait_for_line("ok");
    assert_eq!(waiting.wait(), 0);
}

#[tokio::test]
async fn the_log_of_the_last_attempt_is_shown_and_followed_to_the_end() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let said = run(&bench, &["jobs", "logs", "a"]);
    assert!(said.stdout.is_empty() && said.stderr.contains("is `ready`"), "{said:?}");
    let taken = take_one(&bench.store, "q").await;
    let mut following = begin(&bench, &["jobs", "logs", "a", "--follow"]);
    let key = bench.job_key("a");
    bench.raw::<i64>(&["HSET", &key, "log", "[info] one\n[warn] \u{1b}[2Jtwo\n"]).await;
    end(&bench.store, &taken, done("ok")).await;
    following.wait_for_line("[info] one");
    following.wait_for_line("[warn] \\u{1b}[2Jtwo");
    assert_eq!(following.wait(), 0);
    assert_eq!(json(&bench, &["jobs", "logs", "a"])["status"], "done");
    assert!(run(&bench, &["jobs", "logs", "nope"]).fails(1).contains("no job `nope`"));
}

#[tokio::test]
async fn a_parked_job_is_shown_as_parked_until_its_turn() {
    let mut bench = Bench::new().await;
    let change = QueueChange { key_concurrency: Some(Some(1)), ..QueueChange::default() };
    bench.store.set_queue("q", &change).await.unwrap();
    bench.store.enqueue(&keyed(&["a", "b"], "k", "q")).await.unwrap();
    assert_eq!(json(&bench, &["jobs", "show", "b"])["status"], "ready", "nobody has looked at it");
    let taken = take(&bench.store, "q", 2).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(json(&bench, &["jobs", "show", "a"])["status"], "inflight");
    assert_eq!(json(&bench, &["jobs", "show", "b"])["status"], "parked");
    assert_eq!(ids(&json(&bench, &["jobs", "ls", "--state", "parked"])), ["b"]);
    assert!(run(&bench, &["jobs", "retry", "b"]).fails(1).contains("it is `parked`"));
    assert!(run(&bench, &["jobs", "wait", "b", "--timeout", "1ms"]).fails(1).contains("still `parked`"));
    end(&bench.store, &taken[0], done("")).await;
    assert_eq!(json(&bench, &["jobs", "show", "b"])["status"], "ready");
    bench.check().await;
}

#[tokio::test]
async fn a_pause_says_what_it_means_and_names_a_queue_that_may_be_meant() {
    let bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "mail")]).await.unwrap();
    let paused = run(&bench, &["queues", "pause", "mail"]);
    assert_eq!((paused.stderr.as_str(), paused.code), ("", 0));
    assert!(paused.stdout.contains("is paused: what runs goes on") && paused.stdout.contains("queues resume mail"));
    assert!(run(&bench, &["queues", "resume", "mail"]).ok().contains("is not paused"));
    let misspelt = run(&bench, &["queues", "pause", "mial"]);
    assert_eq!(misspelt.code, 0, "a queue may be paused before its first job");
    assert!(misspelt.stderr.contains("`mial` is new") && misspelt.stderr.contains("`mail`"), "{misspelt:?}");
}

/// The row of another program: the name of its key is not built from words that are none.
#[tokio::test]
async fn a_row_with_a_strange_queue_or_a_list_that_is_none_is_shown_as_it_says() {
    let mut bench = Bench::new().await;
    let (row, odd) = (bench.job_key("a"), format!("{}:queue:q:parked:k", bench.prefix));
    bench.raw::<i64>(&["HSET", &row, "type", "t", "queue", "x:y", "status", "ready", "limit_key", "k"]).await;
    assert_eq!(json(&bench, &["jobs", "show", "a"])["status"], "ready");
    bench.raw::<()>(&["SET", &odd, "no list"]).await;
    bench.raw::<i64>(&["HSET", &row, "queue", "q"]).await;
    assert_eq!(json(&bench, &["jobs", "show", "a"])["status"], "ready");
}

#[test]
fn a_page_of_an_absurd_size_or_a_forged_cursor_is_refused_in_one_sentence() {
    let server = RedisServer::shared();
    let prefix = crate::support::redis::random_prefix();
    let refuse = |words: &[&str]| {
        let all = ["--redis", server.url(), "--prefix", &prefix];
        crate::support::program::Invocation::new(words.iter().copied().chain(all)).run().fails(2)
    };
    for list in ["jobs", "dlq"] {
        for limit in ["0", "-1", "1001", "4294967296", "99999999999999999999", "1e3", "ten", ""] {
            let said = refuse(&[list, "ls", "--limit", limit]);
            assert!(said.contains(&format!("invalid value '{limit}' for '--limit <N>'")), "{limit}: {said}");
            let sentences = said.lines().filter(|line| line.starts_with("error: ")).count();
            assert_eq!(sentences, 1, "{said}");
        }
        for cursor in ["", "x", "ready.0.0..q.00000000", "dlq.18446744073709551615.0..q.00000000", "\u{1b}[2J"] {
            let said = refuse(&[list, "ls", "--cursor", cursor]);
            assert!(said.contains("is no cursor of this list") && said.contains("hint: "), "{cursor}: {said}");
            assert!(!said.contains('\u{1b}'), "{said}");
        }
        assert!(refuse(&[list, "ls", "--tpye", "x"]).contains("--type"));
        assert!(refuse(&[list, "ls", "--since", "soon"]).contains("`soon` is not a time"));
    }
    assert!(refuse(&["jobs", "ls", "--state", "redy"]).contains("ready"));
    assert!(refuse(&["jobs", "ls", "--queue", "a:b"]).contains("must not contain `:`"));
}
