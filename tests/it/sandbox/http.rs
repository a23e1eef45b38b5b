//! Outgoing HTTP: what arrives, what is denied, and that no spelling of an address gets around it.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use wasmhost::jumpscript::{Digest, embed_manifest};
use wasmhost::permissions::KeepOut;
use wasmhost::sandbox::{Call, Finished, HttpOptions, Options, Sandbox};

use super::{block_on, done, run};
use crate::support::guests;
use crate::support::http::Server;
use crate::support::program::Invocation;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-way: back\r\n\r\nhello";

/// A sandbox of a node that allows these places.
pub(super) fn node(allow: &[&str], keep_out: Vec<KeepOut>) -> Sandbox {
    let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
    Sandbox::new(Options { pool_size: 4, http: HttpOptions { allow, keep_out }, ..Options::default() }).unwrap()
}

/// Runs `fetch` under a manifest that requests these places.
pub(super) fn fetch(node: &Sandbox, requested: &[&str], payload: &str) -> Finished {
    fetch_for(node, requested, payload, Duration::from_secs(30))
}

pub(super) fn fetch_for(node: &Sandbox, requested: &[&str], payload: &str, timeout: Duration) -> Finished {
    let manifest = format!("name = \"fetch\"\n[permissions]\nhttp = {requested:?}\n");
    let wasm = embed_manifest(&guests::wasm("fetch"), &manifest);
    let script = node.load(Digest::of(&wasm), &wasm).unwrap();
    block_on(node.run(&script, Call { timeout, ..Call::new(payload) }))
}

const DENIED: &str = "error HTTP-request-denied";

#[test]
fn a_request_and_its_answer_arrive_whole() {
    let server = Server::answering(OK);
    let node = node(&["127.0.0.1:*"], vec![]);
    let url = server.url();
    assert_eq!(done(&fetch(&node, &["*"], &format!("get {url}/a/b?c=d#e"))), "200 - 5 hello");
    assert_eq!(done(&fetch(&node, &["127.0.0.1:*"], &format!("post {url} 100000"))), "200 - 5 hello");
    assert_eq!(done(&fetch(&node, &["*"], &format!("header {url}/x authorization Bearer"))), "200 - 5 hello");
    let received = server.received();
    assert_eq!(received[0].line, "GET /a/b?c=d HTTP/1.1");
    assert_eq!(received[0].header("host"), Some(url.trim_start_matches("http://")));
    assert_eq!(received[1].line, "POST / HTTP/1.1");
    assert_eq!(received[1].header("content-length"), Some("100000"));
    assert!(received[1].body.len() == 100_000 && received[1].body.iter().all(|byte| *byte == b'x'));
    assert_eq!(received[2].header("authorization"), Some("Bearer"));
}

#[test]
fn a_command_of_wasi_0_2_sends_requests_under_the_same_rules() {
    let server = Server::answering(OK);
    let wasm = embed_manifest(&guests::wasm("command"), "[permissions]\nhttp = [\"*\"]\n");
    for (allow, told) in [(&["127.0.0.1:*"][..], "200 hello"), (&[], "HTTP-request-denied")] {
        let node = node(allow, vec![]);
        let script = node.load(Digest::of(&wasm), &wasm).unwrap();
        let text = done(&block_on(node.run(&script, Call::new(format!("get {}", server.url())))));
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn without_permission_nothing_is_sent_and_the_log_says_what_would_allow_it() {
    let server = Server::answering(OK);
    let (place, get) = (format!("127.0.0.1:{}", server.port()), format!("get {}", server.url()));
    let flag = format!("--allow-http {place}");

    // Neither requested nor allowed: the default.
    let finished = run("fetch", &get);
    assert_eq!(done(&finished), DENIED);
    assert!(finished.usage.log_tail.contains(&flag), "{}", finished.usage.log_tail);

    let finished = fetch(&node(&[], vec![]), &["*"], &get);
    assert_eq!(done(&finished), DENIED, "requested, not allowed");
    assert!(finished.usage.log_tail.contains(&format!("request to {place} denied")), "{}", finished.usage.log_tail);
    assert!(finished.usage.log_tail.contains(&flag), "{}", finished.usage.log_tail);

    let finished = fetch(&node(&["127.0.0.1:*"], vec![]), &["127.0.0.1:1"], &get);
    assert_eq!(done(&finished), DENIED, "allowed, not requested");
    assert!(finished.usage.log_tail.contains("[permissions]"), "{}", finished.usage.log_tail);
    assert!(server.received().is_empty());
}

#[test]
fn what_is_not_public_must_be_named() {
    let server = Server::answering(OK);
    let (port, get) = (server.port(), format!("get {}", server.url()));
    for allow in ["*:*", "*.0.example:*", "localhost:*", "127.0.0.2:*", "[::1]:*", "127.0.0.1:1"] {
        let finished = fetch(&node(&[allow], vec![]), &["*"], &get);
        assert_eq!(done(&finished), DENIED, "{allow}");
        assert!(finished.usage.log_tail.contains("--allow-http 127.0.0.1:"), "{}", finished.usage.log_tail);
    }
    let by_name = format!("get http://localhost:{port}");
    assert_eq!(done(&fetch(&node(&["127.0.0.1:*", "*:*"], vec![]), &["*"], &by_name)), DENIED);
    assert!(server.received().is_empty());
    assert_eq!(done(&fetch(&node(&["localhost:*"], vec![]), &["*"], &by_name)), "200 - 5 hello");
    assert_eq!(server.received()[0].header("host"), Some(format!("localhost:{port}").as_str()));
}

#[test]
fn odd_spellings_of_an_address_are_denied_whatever_is_allowed() {
    let server = Server::answering(OK);
    let port = server.port();
    let node = node(&["*:*", "127.0.0.1:*", "localhost:*", "[::1]:*", "169.254.169.254:*"], vec![]);
    for host in [
        "2130706433",
        "0",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0x7f000001",
        "0x7f.0.0.1",
        "127.0.0.1.1",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::]",
        "user@127.0.0.1",
        "127.0.0.2",
        "224.0.0.1",
        "255.255.255.255",
        "100.64.0.1",
        "10.0.0.1",
        "[fe80::1]",
    ] {
        let finished = fetch(&node, &["*"], &format!("get http://{host}:{port}/"));
        assert_eq!(done(&finished), DENIED, "{host}");
        assert!(finished.usage.log_tail.contains("denied"), "{host}: {}", finished.usage.log_tail);
    }
    for url in ["http://0/", "http://[::ffff:127.0.0.1]", "http://2130706433/", "https://127.1"] {
        assert_eq!(done(&fetch(&node, &["*"], &format!("get {url}"))), DENIED, "{url}");
    }
    assert!(server.received().is_empty());
}

#[test]
fn a_redirect_is_an_answer_and_nobody_follows_it() {
    let inner = Server::answering(OK);
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {}/secret\r\ncontent-length: 0\r\n\r\n", inner.url());
    let outer = Server::answering(head);
    let node = node(&["127.0.0.1:*"], vec![]);
    let text = done(&fetch(&node, &["*"], &format!("get {}", outer.url())));
    assert_eq!(text, format!("302 {}/secret 0 ", inner.url()));
    assert!(inner.received().is_empty());
}

#[test]
fn the_nodes_own_services_are_not_reached_even_when_allowed() {
    let server = Server::answering(OK);
    let port = server.port();
    let keep_out = |host: &str| vec![KeepOut { what: "the node's own Redis", host: host.to_owned(), port: Some(port) }];
    for own in ["127.0.0.1", "localhost", "0.0.0.0", "::1"] {
        let node = node(&["127.0.0.1:*", "localhost:*"], keep_out(own));
        for host in ["127.0.0.1", "localhost"] {
            let finished = fetch(&node, &["*"], &format!("get http://{host}:{port}"));
            assert_eq!(done(&finished), DENIED, "{own} as {host}");
            assert!(finished.usage.log_tail.contains("the node's own Redis"), "{}", finished.usage.log_tail);
        }
    }
    assert!(server.received().is_empty());
}

#[test]
fn a_server_that_is_not_there_has_its_own_error() {
    // A port that was free a moment ago: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = node(&["127.0.0.1:*", "*:*"], vec![]);
    assert_eq!(done(&fetch(&node, &["*"], &format!("get http://127.0.0.1:{port}"))), "error connection-refused");
    let unknown = done(&fetch(&node, &["*"], "get http://no-such-name.invalid/"));
    assert!(unknown.starts_with("error DNS-error"), "{unknown}");
    let closing = Server::start(drop);
    assert_eq!(done(&fetch(&node, &["*"], &format!("get {}", closing.url()))), "error HTTP-response-incomplete");
}

#[test]
fn tls_names_its_host_to_the_server_and_nothing_is_sent_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hello = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; 4096];
        let n = stream.read(&mut bytes).unwrap();
        bytes.truncate(n);
        bytes
    });
    let node = node(&["localhost:*"], vec![]);
    let text = done(&fetch(&node, &["*"], &format!("get https://localhost:{port}/secret")));
    assert!(text.starts_with("error TLS-"), "{text}");
    let hello = hello.join().unwrap();
    let has = |part: &[u8]| hello.windows(part.len()).any(|window| window == part);
    assert_eq!(hello[..2], [22, 3], "a handshake");
    assert!(has(b"localhost") && has(b"http/1.1") && !has(b"secret"));
}

#[test]
fn exec_takes_the_flag_the_variable_and_the_key_and_refuses_wrong_forms() {
    let server = Server::answering(OK);
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[permissions]\nhttp = [\"*\"]\n";
    let file = dir.path().join("fetch.wasm");
    std::fs::write(&file, embed_manifest(&guests::wasm("fetch"), manifest)).unwrap();
    let (file, payload) = (file.to_str().unwrap(), format!("get {}", server.url()));
    let exec = || Invocation::new(["exec", file, "--payload", &payload]);
    assert!(exec().run().ok().contains(DENIED));
    assert!(exec().env("WASMHOST_ALLOW_HTTP", "a.b:1,127.0.0.1:*").run().ok().contains("200 - 5 hello"));
    let config = dir.path().join("wasmhost.toml");
    std::fs::write(&config, "allow_http = [\"127.0.0.1:*\"]\n").unwrap();
    let config = config.to_str().unwrap();
    assert!(exec().env("WASMHOST_CONFIG", config).run().ok().contains("200 - 5 hello"));
    let flag = ["exec", file, "--payload", &payload, "--allow-http", "a.b:1", "--allow-http", "127.0.0.1:*"];
    assert!(Invocation::new(flag).run().ok().contains("200 - 5 hello"));
    let own = ["exec", file, "--payload", &payload, "--allow-http", "127.0.0.1:*", "--redis"];
    let redis = format!("redis://127.0.0.1:{}", server.port());
    assert!(Invocation::new(own.into_iter().chain([redis.as_str()])).run().ok().contains(DENIED));

    for command in ["run", "dev", "exec"] {
        let said = Invocation::new([command, "--allow-http", "http://a.b"]).run().fails(2);
        assert!(said.contains("HOST:PORT"), "{said}");
    }
    let said = exec().env("WASMHOST_ALLOW_HTTP", "a.b").run().fails(2);
    assert!(said.contains("WASMHOST_ALLOW_HTTP") && said.contains("names no port"), "{said}");
}

#[test]
fn inspect_shows_what_is_requested() {
    let file = guests::path("torture");
    let said = Invocation::new(["inspect", file.to_str().unwrap()]).run().ok();
    assert!(said.contains("http      *:*") && said.contains("wasi:http/outgoing-handler@0.2"), "{said}");
    let file = guests::path("fetch");
    let said = Invocation::new(["inspect", file.to_str().unwrap()]).run().ok();
    assert!(said.contains("every request is denied"), "{said}");
    let file = guests::path("echo");
    let said = Invocation::new(["inspect", file.to_str().unwrap()]).run().ok();
    assert!(said.contains("http      none") && !said.contains("wasi:http"), "{said}");
}
