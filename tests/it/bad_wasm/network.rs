//! Requests to where nobody may go, and answers that do not end: W55 to W60.

use std::io::Write as _;
use std::time::Duration;

use wasmhost::jumpscript::embed_manifest;

use super::{Stage, is_dead, is_done};
use crate::support::guests;
use crate::support::http::Server;

const LONG: Duration = Duration::from_secs(60);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A guest that asks for every host.
fn fetch() -> Vec<u8> {
    embed_manifest(&guests::wasm("fetch"), "[permissions]\nhttp = [\"*\"]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w55_addresses_that_nobody_may_reach() {
    let stage = Stage::with(&["--allow-http", "*:*"]).await;
    for url in [
        "http://169.254.169.254/",
        "http://127.0.0.1:6379",
        "http://[::ffff:127.0.0.1]",
        "http://2130706433/",
        "http://0/",
    ] {
        let told = is_done(&stage.run(&fetch(), &format!("get {url}"), LONG).await);
        assert_eq!(told, "error HTTP-request-denied", "{url}");
    }
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w57_a_redirect_to_this_machine() {
    let inner = Server::answering(OK);
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {}/secret\r\ncontent-length: 0\r\n\r\n", inner.url());
    let outer = Server::answering(head);
    let stage = Stage::with(&["--allow-http", &format!("127.0.0.1:{}", outer.port())]).await;
    let told = is_done(&stage.run(&fetch(), &format!("get {}", outer.url()), LONG).await);
    assert!(told.starts_with("302 "), "{told}");
    let told = is_done(&stage.run(&fetch(), &format!("get {}/secret", inner.url()), LONG).await);
    assert_eq!(told, "error HTTP-request-denied", "nor may it go there itself");
    assert!(inner.received().is_empty());
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w59_a_line_end_in_the_value_of_a_header() {
    let server = Server::answering(OK);
    let stage = Stage::with(&["--allow-http", "127.0.0.1:*"]).await;
    for payload in [format!("header {} x aCRLFx-evil:b", server.url()), format!("path {}/aCRLF", server.url())] {
        let told = is_done(&stage.run(&fetch(), &payload, LONG).await);
        assert!(told.starts_with("error "), "{told}");
    }
    assert!(server.received().is_empty());
    stage.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w60_answers_without_end() {
    let announced = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
    let endless = Server::start(|mut stream| {
        let mut more = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while more.is_ok() {
            more = stream.write_all(&[b'x'; 0x10000]);
        }
    });
    let dripping = Server::start(|mut stream| {
        let mut more = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while more.is_ok() {
            std::thread::park_timeout(Duration::from_millis(50));
            more = stream.write_all(b"x");
        }
    });
    let stage = Stage::with(&["--allow-http", "127.0.0.1:*"]).await;
    let get = |server: &Server| format!("get {}", server.url());
    let told = is_done(&stage.run(&fetch(), &get(&announced), LONG).await);
    assert!(told.starts_with("error HTTP-response-body-size"), "{told}");
    let told = is_done(&stage.run(&fetch(), &get(&endless), LONG).await);
    assert!(told.starts_with("error the answer was cut off"), "{told}");
    is_dead(&stage.run(&fetch(), &get(&dripping), Duration::from_millis(500)).await, "timed_out");
    stage.ends_well().await;
}
