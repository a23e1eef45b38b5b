//! The guest of the fault campaigns does what its payload says, and its sink hears of it.

use wasmhost::jumpscript::Digest;
use wasmhost::outcome::Outcome;
use wasmhost::sandbox::Call;

use super::block_on;
use super::http::node;
use crate::support::guests;
use crate::support::http::Server;
use crate::support::program::{Host, Invocation};
use crate::support::redis::{RedisServer, random_prefix};

/// The outcome of an attempt, and the queries that its sink got.
fn torture(payload: &str, attempt: u32) -> (Outcome, Vec<String>) {
    let sink = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let node = node(&["127.0.0.1:*"], vec![]);
    let wasm = guests::wasm("torture");
    let script = node.load(Digest::of(&wasm), &wasm).unwrap();
    let payload = payload.replace("SINK", &format!("{}/sink", sink.url()));
    let call = Call { id: "own".to_owned(), node: "node-a".to_owned(), attempt, ..Call::new(payload) };
    let outcome = block_on(node.run(&script, call)).outcome;
    let heard = sink.received().into_iter().map(|request| {
        let line = request.line.strip_prefix("POST /sink?").and_then(|line| line.strip_suffix(" HTTP/1.1"));
        line.unwrap_or_else(|| panic!("{request:?}")).to_owned()
    });
    (outcome, heard.collect())
}

#[test]
fn a_good_job_tells_its_start_and_its_end() {
    let (outcome, heard) = torture(r#"{"id":"j 1","ms":1,"sink":"SINK"}"#, 1);
    assert_eq!(outcome, Outcome::Done { result: b"j 1".to_vec() });
    assert_eq!(heard, ["k=start&j=j%201&w=node-a", "k=end&j=j%201&w=node-a"]);
}

#[test]
fn each_mode_ends_as_it_says() {
    let only_start = |mode: &str, attempt| {
        let (outcome, heard) = torture(&format!(r#"{{"id":7,"sink":"SINK","n":2,"mode":"{mode}"}}"#), attempt);
        assert_eq!(heard, ["k=start&j=7&w=node-a"], "{mode}");
        outcome
    };
    assert!(matches!(only_start("always_fail", 9), Outcome::Failed { .. }));
    assert!(matches!(only_start("fail_n", 2), Outcome::Failed { .. }));
    assert!(matches!(only_start("poison", 1), Outcome::Trapped { .. }));
    let (outcome, heard) = torture(r#"{"sink":"SINK","n":2,"mode":"fail_n"}"#, 3);
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    assert_eq!(heard, ["k=start&j=own&w=node-a", "k=end&j=own&w=node-a"]);
}

#[test]
fn without_a_sink_nothing_is_sent_and_without_an_object_nothing_runs() {
    assert_eq!(torture("{}", 1), (Outcome::Done { result: b"own".to_vec() }, vec![]));
    for payload in ["", "[]", "7", "{"] {
        let (outcome, _) = torture(payload, 1);
        assert!(matches!(outcome, Outcome::Rejected { .. }), "{payload}: {outcome:?}");
    }
}

#[test]
fn a_sink_that_does_not_hear_fails_the_attempt() {
    let (outcome, _) = torture(r#"{"sink":"http://127.0.0.1:1/"}"#, 1);
    assert!(matches!(&outcome, Outcome::Failed { message } if message.contains("connection-refused")), "{outcome:?}");
}

#[test]
fn a_host_runs_it_from_its_folder_and_tells_of_denied_places() {
    let sink = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let (redis, prefix) = (RedisServer::shared(), random_prefix());
    let scripts = tempfile::tempdir().unwrap();
    std::fs::copy(guests::path("torture"), scripts.path().join("torture.wasm")).unwrap();
    let folder = scripts.path().to_str().unwrap();
    let arguments = ["--scripts", folder, "--allow-http", "127.0.0.1:*", "--node", "node-b"];
    let mut host = Host::start(redis.url(), &prefix, &arguments);
    let submit = |payload: &str| {
        let arguments = ["submit", "--type", "torture", "--max-attempts", "1", "--wait", "--payload", payload];
        Invocation::new(arguments).on(redis.url(), &prefix).run()
    };
    submit(&format!(r#"{{"id":"a","sink":"{}/s"}}"#, sink.url())).ok();
    let heard: Vec<String> = sink.received().into_iter().map(|request| request.line).collect();
    assert_eq!(heard, ["POST /s?k=start&j=a&w=node-b HTTP/1.1", "POST /s?k=end&j=a&w=node-b HTTP/1.1"]);

    let own = redis.url().trim_start_matches("redis://").split('/').next().unwrap().to_owned();
    submit(&format!(r#"{{"sink":"http://{own}/"}}"#)).fails(1);
    host.wait_for_line("the node's own Redis");
    submit(r#"{"sink":"http://127.0.0.2:1/"}"#).fails(1);
    let line = host.wait_for_line("127.0.0.2:1");
    assert!(line.contains("--allow-http 127.0.0.2:1"), "{line}");

    let shown = Invocation::new(["scripts", "show", "torture"]).on(redis.url(), &prefix).run().ok();
    assert!(shown.contains("http         *:*"), "{shown}");
}
