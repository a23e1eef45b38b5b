//! The script that producers of other languages load, and the producers of `examples/producers`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use redis::{RedisResult, Script};
use wasmhost::job::JobId;
use wasmhost::store::PRODUCER_SCRIPT;

use crate::engine::{Bench, take};
use crate::support::guests;
use crate::support::program::Host;
use crate::support::redis::RedisServer;

/// A call of the contract: its number, the jobs, and what is said of each.
async fn call(bench: &mut Bench, arguments: &[&str]) -> RedisResult<Vec<(String, bool)>> {
    let script = Script::new(PRODUCER_SCRIPT);
    let mut call = script.key(bench.prefix.as_str());
    for argument in arguments {
        call.arg(*argument);
    }
    call.invoke_async(&mut bench.raw).await
}

/// The refusal of a call; nothing may have been written.
async fn refusal(bench: &mut Bench, arguments: &[&str]) -> String {
    let error = call(bench, arguments).await.expect_err("it is refused").to_string();
    let mut pattern = redis::cmd("KEYS");
    pattern.arg(format!("{}:[^m]*", bench.prefix));
    let keys: Vec<String> = pattern.query_async(&mut bench.raw).await.unwrap();
    assert!(keys.is_empty(), "{error}, but {keys:?} were written");
    error
}

#[tokio::test]
async fn a_batch_of_a_foreign_producer_is_as_good_as_one_of_ours() {
    let mut bench = Bench::new().await;
    let batch = [
        "1",
        "3", // contract, jobs
        "one",
        "mail",
        "echo",
        "{}",
        "0", //
        "two",
        "mail",
        "echo",
        "\0\u{ff}",
        "2",
        "priority",
        "9",
        "max_attempts",
        "0007", //
        "three",
        "bulk",
        "echo",
        "",
        "1",
        "idempotency_key",
        "only once",
    ];
    let new = [("one".to_owned(), true), ("two".to_owned(), true), ("three".to_owned(), true)];
    assert_eq!(call(&mut bench, &batch).await.unwrap(), new);
    let again = call(&mut bench, &["1", "1", "four", "bulk", "echo", "", "1", "idempotency_key", "only once"]).await;
    assert_eq!(again.unwrap(), [("three".to_owned(), false)], "the key is known: the first one's id");
    let same = call(&mut bench, &["1", "1", "one", "mail", "echo", "other", "0"]).await.unwrap();
    assert_eq!(same, [("one".to_owned(), false)], "an answer that was lost does not enqueue twice");
    let mail = take(&bench.store, "mail", 9).await;
    assert_eq!(mail.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), ["two", "one"]);
    assert_eq!((mail[0].payload.as_slice(), mail[0].retry.max_attempts), ("\0\u{ff}".as_bytes(), Some(7)));
    bench.check().await;
}

#[tokio::test]
async fn times_are_given_in_milliseconds_and_a_delay_counts_by_the_servers_clock() {
    let mut bench = Bench::new().await;
    let job = ["1", "1", "late", "q", "echo", "", "2", "delay_ms", "3600000", "timeout_ms", "1500"];
    call(&mut bench, &job).await.unwrap();
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut bench.raw).await.unwrap();
    let record = bench.store.job(&JobId::from("late")).await.unwrap().unwrap();
    let run_at = record.number("run_at_nano").unwrap();
    assert!((3_590..=3_600).contains(&(run_at / 1_000_000_000 - seconds)), "{run_at}");
    assert_eq!(record.number("timeout_nano"), Some(1_500_000_000));
    assert_eq!(record.text("status").as_deref(), Some("scheduled"));
    bench.check().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_whole_with_the_place_and_the_rule() {
    let mut bench = Bench::new().await;
    let long = "x".repeat(201);
    let good = ["good", "q", "echo", "", "0"];
    for (arguments, says) in [
        (vec!["2", "1", "a", "q", "echo", "", "0"], "contract `2`"),
        (vec![], "contract `"),
        (vec!["1", "0"], "number of jobs is `0`"),
        (vec!["1", "257"], "must be 1 to 256"),
        (vec!["1", "1", "a", "q:ready", "echo", "", "0"], "queue `q:ready`, which must not contain `:`"),
        (vec!["1", "1", "", "q", "echo", "", "0"], "id ``, which must not be empty"),
        (vec!["1", "1", "a", "q", "ec\u{1b}ho", "", "0"], "must not contain control characters"),
        (vec!["1", "1", "a", "q\u{202e}", "echo", "", "0"], "must not contain control characters"),
        (vec!["1", "1", "a", &long, "echo", "", "0"], "has 201 bytes"),
        (vec!["1", "1", "a", "q", "echo", "", "1", "prio", "1"], "unknown option `prio`"),
        (vec!["1", "1", "a", "q", "echo", "", "1", "priority", "10"], "must be a whole number from 0 to 9"),
        (vec!["1", "1", "a", "q", "echo", "", "1", "delay_ms", "-1"], "`-1` for option `delay_ms`"),
        (vec!["1", "1", "a", "q", "echo", "", "1", "timeout_ms", "0"], "from 1 to 86400000"),
        (vec!["1", "1", "a", "q", "echo", "", "2", "delay_ms", "1", "run_at_ms", "1"], "says twice"),
        (vec!["1", "1", "a", "q", "echo", "", "1", "priority"], "no value for its option `priority`"),
        (vec!["1", "1", "a", "q", "echo", ""], "no number of options"),
        (vec!["1", "1", "a", "q", "echo", "", "0", "more"], "1 arguments behind the last job"),
    ] {
        let error = refusal(&mut bench, &arguments).await;
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
    // The good job before a bad one is not written either.
    let both = [&["1", "2"][..], &good, &["b", "q", "echo", "", "1", "priority", "x"]].concat();
    let error = refusal(&mut bench, &both).await;
    assert!(error.contains("job 2 has `x` for option `priority`"), "{error}");
    let _: () = redis::cmd("HSET")
        .arg(format!("{}:meta", bench.prefix))
        .arg("layout")
        .arg("99")
        .query_async(&mut bench.raw)
        .await
        .unwrap();
    let error = refusal(&mut bench, &[&["1", "1"][..], &good].concat()).await;
    assert!(error.contains("another layout"), "{error}");
}

#[tokio::test]
async fn a_full_queue_takes_none_of_the_batch() {
    let mut bench = Bench::new().await;
    let change = wasmhost::store::QueueChange { capacity: Some(Some(1)), ..Default::default() };
    bench.store.set_queue("q", &change).await.unwrap();
    let batch = ["1", "2", "a", "q", "echo", "", "0", "b", "q", "echo", "", "0"];
    let error = call(&mut bench, &batch).await.unwrap_err().to_string();
    assert!(error.contains("QUEUEFULL"), "{error}");
    assert!(bench.store.job(&JobId::from("a")).await.unwrap().is_none());
}

#[test]
fn the_contract_on_paper_has_the_options_of_the_script() {
    let table = PRODUCER_SCRIPT.split("local OPTIONS = {").nth(1).unwrap().split("\n}").next().unwrap();
    let options: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(" = {")).map(|(name, _)| name).collect();
    let text = std::fs::read_to_string(folder("docs/producers.md")).unwrap();
    let rows = text.split("| option | value |").nth(1).unwrap().split("\n\n").next().unwrap();
    let told: BTreeSet<&str> = rows
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    assert!(options.len() > 10);
    assert_eq!(told, options);
}

/// A folder of the repository.
fn folder(name: &str) -> PathBuf {
    guests::root().join(name)
}

/// Runs a producer and has a host run its job. Says so when the tool it needs is not on this machine.
async fn produce(language: &str, tool: &Path, arguments: &[&str], dir: &Path) {
    if tool.is_absolute() && !tool.exists() {
        println!("skipped the producer in {language}: `{}` is not there; `make setup` installs it", tool.display());
        return;
    }
    let bench = Bench::new().await;
    let url = RedisServer::shared().url();
    let scripts = tempfile::tempdir().unwrap();
    std::fs::copy(guests::path("echo"), scripts.path().join("echo.wasm")).unwrap();
    let output = Command::new(tool)
        .args(arguments)
        .args(["mail", "echo", "{\"to\": \"grüße\"}", "max_attempts=2", "idempotency_key=k"])
        .current_dir(dir)
        .env("REDIS_URL", url)
        .env("WASMHOST_PREFIX", &bench.prefix)
        .env("GOCACHE", folder("target/tools/go-cache"))
        .env("GOTOOLCHAIN", "local")
        .env("CARGO_TARGET_DIR", folder("target"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{language}: {said}");
    let id = JobId::from(String::from_utf8(output.stdout).unwrap().trim());
    let host = Host::start(url, &bench.prefix, &["--queue", "mail", "--scripts", scripts.path().to_str().unwrap()]);
    let job = bench.store.wait_final(&id, Duration::from_secs(30)).await.unwrap().expect("its row is there");
    assert_eq!((job.text("status").as_deref(), job.number("max_attempts")), (Some("done"), Some(2)), "{job:?}");
    assert!(job.text("result").unwrap().contains("grüße"), "{job:?}");
    assert_eq!(host.stop(), 0);
}

#[tokio::test]
async fn the_producer_in_python_enqueues() {
    let python = folder("target/tools/python/bin/python");
    let program = folder("examples/producers/producer.py");
    produce("python", &python, &[program.to_str().unwrap()], &folder(".")).await;
}

#[tokio::test]
async fn the_producer_in_javascript_enqueues() {
    let modules = folder("target/tools/node");
    if !modules.join("node_modules/redis").exists() {
        println!("skipped the producer in JavaScript: its library is not there; `make setup` installs it");
        return;
    }
    // Modules are looked for beside the program.
    let dir = tempfile::tempdir_in(&modules).unwrap();
    for file in ["producer.mjs", "enqueue.lua"] {
        std::fs::copy(folder("examples/producers").join(file), dir.path().join(file)).unwrap();
    }
    produce("javascript", Path::new("node"), &["producer.mjs"], dir.path()).await;
}

#[tokio::test]
async fn the_producer_in_go_enqueues() {
    let go = folder("target/tools/bin/go");
    produce("go", &go, &["run", "producer.go"], &folder("examples/producers")).await;
}

#[tokio::test]
async fn the_producer_in_rust_enqueues() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["run", "--quiet", "--package", "wasmhost-example-producer", "--"];
    produce("rust", Path::new(&cargo), &arguments, &folder(".")).await;
}
