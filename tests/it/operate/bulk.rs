//! Many jobs from a file: `submit --lines`.

use std::io::Write as _;
use std::process::Stdio;

use super::{json, run};
use crate::engine::{Bench, job};
use crate::support::program::{Host, program};
use crate::support::redis::RedisServer;

/// A file with these bytes.
fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// `submit --lines` of these bytes, with further words.
fn submit(bench: &Bench, bytes: &[u8], more: &[&str]) -> crate::support::program::Ended {
    let file = file(bytes);
    let words = ["submit", "--lines", file.path().to_str().unwrap()];
    run(bench, &words.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

#[tokio::test]
async fn every_line_is_a_job_and_flags_are_what_it_does_not_say() {
    let mut bench = Bench::new().await;
    let lines = "\u{feff}{\"id\":\"a\",\"payload\":\"to be\"}\r\n\r\n\
                 {\"id\":\"b\",\"queue\":\"bulk\",\"type\":\"other\",\"payload\":{\"n\": 1.50},\"metadata\":{\"k\":\"v\"}}\n\
                 {\"id\":\"c\",\"payload_base64\":\"AP8=\",\"delay\":\"1h\",\"max_attempts\":7}";
    let ended = submit(&bench, lines.as_bytes(), &["--type", "echo", "--queue", "q", "--max-attempts", "2"]);
    assert_eq!((ended.stderr.as_str(), ended.code), ("3 jobs enqueued\n", 0));
    assert_eq!(ended.stdout, "a\nb\nc\n");
    for (id, field, value) in [
        ("a", "payload", "to be"),
        ("a", "queue", "q"),
        ("a", "max_attempts", "2"),
        ("b", "payload", r#"{"n": 1.50}"#),
        ("b", "queue", "bulk"),
        ("b", "type", "other"),
        ("b", "content_type", "application/json"),
        ("b", "metadata", r#"{"k":"v"}"#),
        ("c", "status", "scheduled"),
        ("c", "max_attempts", "7"),
    ] {
        assert_eq!(bench.field(id, field).await, value, "{id} {field}");
    }
    let payload: Vec<u8> = {
        let key = bench.job_key("c");
        bench.raw(&["HGET", &key, "payload"]).await
    };
    assert_eq!(payload, [0, 255]);
    bench.check().await;
}

#[tokio::test]
async fn a_bad_line_is_named_with_what_is_wrong_and_those_before_it_are_in() {
    let mut bench = Bench::new().await;
    let good = |n: usize| format!("{{\"id\":\"{n:03}\",\"type\":\"echo\",\"queue\":\"q\"}}\n");
    let lines: String = (1..=300).map(good).collect::<String>() + "{\"tpye\":\"x\"}\n" + &good(302);
    let ended = submit(&bench, lines.as_bytes(), &[]);
    assert_eq!(ended.stdout.lines().count(), 300, "also those of the batch that the bad line would have been in");
    let said = ended.fails(2);
    for part in ["line 301 was refused", "`tpye`", "did you mean `type`?", "300 jobs enqueued", "tail -n +301"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let ready: i64 = {
        let key = bench.key("q", "ready");
        bench.raw(&["LLEN", &key]).await
    };
    assert_eq!((ready, bench.field("302", "status").await.as_str()), (300, ""));

    for (line, why) in [
        ("{\"type\":\"t\"", "no JSON"),
        ("[1]", "no JSON object"),
        ("{\"payload\":1}", "it has no `type`"),
        ("\u{0}", "no JSON"),
        ("{\"type\":\"t\",\"priority\":11}", "the priority is 11"),
    ] {
        let said = submit(&bench, format!("\n{line}\n").as_bytes(), &[]).fails(2);
        assert!(said.contains("line 2 was refused") && said.contains(why), "{said}");
        assert!(said.contains("0 jobs enqueued"), "{said}");
    }
    bench.check().await;
}

#[tokio::test]
async fn repeating_lines_with_keys_enqueues_nothing_twice() {
    let mut bench = Bench::new().await;
    let lines: String =
        (0..5).map(|n| format!("{{\"type\":\"echo\",\"queue\":\"q\",\"idempotency_key\":\"k{}\"}}\n", n % 3)).collect();
    let first = submit(&bench, lines.as_bytes(), &["--output", "json"]);
    let read = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let found = read(&first.ok());
    let flags: Vec<(u64, bool)> =
        found.iter().map(|job| (job["line"].as_u64().unwrap(), job["is_new"].as_bool().unwrap())).collect();
    assert_eq!(flags, [(1, true), (2, true), (3, true), (4, false), (5, false)]);
    assert_eq!(found[0]["id"], found[3]["id"]);
    let again = submit(&bench, lines.as_bytes(), &[]);
    assert_eq!(again.stderr, "0 jobs enqueued, 5 there already\n");
    assert_eq!(json(&bench, &["queues", "show", "q"])["ready"], 3);
    bench.check().await;
}

#[tokio::test]
async fn a_dry_run_names_every_bad_line_and_sends_nothing() {
    let bench = Bench::new().await;
    let lines = b"{\"type\":\"t\"}\n{\"type\":5}\nx\n{\"type\":\"t\"}\n";
    let ended = submit(&bench, lines, &["--dry-run"]);
    assert_eq!(ended.stdout, "good lines 2, bad lines 2 (dry run: nothing was sent)\n");
    let said = ended.fails(2);
    assert!(said.contains("line 2: its `type` is `5`") && said.contains("line 3: it is no JSON"), "{said}");
    assert_eq!(
        submit(&bench, b"{\"type\":\"t\"}", &["--dry-run"]).ok(),
        "good lines 1, bad lines 0 (dry run: nothing was sent)\n"
    );
    assert!(json(&bench, &["jobs", "ls"])["jobs"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_line_over_the_cap_is_refused_before_it_is_read_to_its_end() {
    let bench = Bench::new().await;
    let mut command = program();
    command.args(["submit", "--type", "t", "--queue", "q", "--lines", "-"]);
    command.args(["--redis", RedisServer::shared().url(), "--prefix", &bench.prefix]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{}\n{\"payload\":\"").unwrap();
    // No end of the line, and no end of the input: it must not wait for either.
    let piece = vec![b'x'; 1 << 20];
    let n_written = (0..64).take_while(|_| input.write_all(&piece).is_ok()).count();
    assert!(n_written < 20, "it has read {n_written} MiB of a line");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("line 2 was refused: it has more than 16777216 bytes"), "{said}");
    assert!(said.contains("1 job enqueued"), "{said}");
    assert_eq!(json(&bench, &["queues", "show", "q"])["ready"], 1);
}

/// A producer that writes now and then, as `tail -f` does.
#[tokio::test]
async fn a_line_on_a_pipe_does_not_wait_for_the_next_one() {
    let bench = Bench::new().await;
    let mut command = program();
    command.args(["submit", "--type", "t", "--lines", "-", "--redis", RedisServer::shared().url()]);
    command.args(["--prefix", &bench.prefix]).stdin(Stdio::piped());
    let mut submit = Host::spawn(command);
    let mut input = submit.input();
    for n in 0..3 {
        let id = format!("job-{n}");
        writeln!(input, "{{\"id\":\"{id}\"}}").unwrap();
        submit.wait_for_line(&id);
    }
    submit.signal("INT");
    assert_eq!(submit.wait(), 130);
    submit.wait_for_line("interrupted: 3 jobs enqueued");
}

#[tokio::test]
async fn a_full_queue_takes_whole_batches_and_says_where_to_go_on() {
    let mut bench = Bench::new().await;
    run(&bench, &["queues", "set", "q", "--capacity", "300"]).ok();
    let lines = "{\"type\":\"echo\",\"queue\":\"q\"}\n".repeat(600);
    let ended = submit(&bench, lines.as_bytes(), &[]);
    assert_eq!(ended.stdout.lines().count(), 256);
    let said = ended.fails(1);
    for part in ["queue `q` is full", "256 jobs enqueued", "nothing from line 257 on", "tail -n +257"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(json(&bench, &["queues", "show", "q"])["ready"], 256);
    bench.check().await;
}

#[test]
fn a_redis_that_goes_away_in_the_middle_is_told_with_what_is_in() {
    let redis = RedisServer::start();
    let mut command = program();
    command.args(["submit", "--type", "t", "--lines", "-", "--redis", redis.url()]);
    command.stdin(Stdio::piped());
    let mut submit = Host::spawn(command);
    let mut input = submit.input();
    writeln!(input, "{{\"id\":\"first\"}}").unwrap();
    submit.wait_for_line("first");
    redis.kill();
    writeln!(input, "{{\"id\":\"second\"}}").unwrap();
    assert_eq!(submit.wait(), 75);
    let said = submit.wait_for_line("hint: ");
    for part in ["1 job enqueued", "line 2 on", "lines 2 to 2 may be in already", "`idempotency_key`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A server without replicas: no batch ever has one.
#[tokio::test]
async fn a_batch_that_too_few_replicas_have_is_in_and_the_next_is_not_sent() {
    let bench = Bench::new().await;
    let lines = "{\"type\":\"echo\",\"queue\":\"q\"}\n".repeat(300);
    let ended = submit(&bench, lines.as_bytes(), &["--wait-replicas", "1", "--wait-replicas-timeout", "20ms"]);
    assert_eq!(ended.stdout.lines().count(), 256);
    let said = ended.fails(1);
    for part in ["lines 1 to 256 are enqueued, but not replicated: 0 of 1", "nothing from line 257 on"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(json(&bench, &["queues", "show", "q"])["ready"], 256);
}

#[tokio::test]
async fn flags_that_cannot_be_meant_for_every_line_are_refused() {
    let bench = Bench::new().await;
    for flags in [&["--payload", "x"][..], &["--idempotency-key", "k"], &["--wait"]] {
        let said = submit(&bench, b"{}", flags).fails(2);
        assert!(said.contains(flags[0]) && said.contains("--lines"), "{said}");
    }
    assert!(run(&bench, &["submit", "--type", "t", "--dry-run"]).fails(2).contains("--lines"));
    assert!(run(&bench, &["submit", "--lines", "no-such-file"]).fails(2).contains("no-such-file"));
    assert!(run(&bench, &["submit", "--lines", "/"]).fails(2).contains("is a directory"));
    // An id in a line is the job's own: one that is there is left alone.
    bench.store.enqueue(&[job("here", "q")]).await.unwrap();
    let ended = submit(&bench, b"{\"id\":\"here\",\"type\":\"t\",\"queue\":\"q\"}", &[]);
    assert_eq!(ended.stderr, "0 jobs enqueued, 1 there already\n");
}
