//! The limits of outgoing HTTP, each attacked.

use std::io::{Read, Write};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::Duration;

use wasmhost::outcome::Outcome;
use wasmhost::sandbox::Sandbox;

use super::http::{fetch, fetch_for, node};
use super::{done, trapped};
use crate::support::http::Server;

// Written out, so that a limit that is raised fails the test that attacks it.
const HTTP_REQUESTS_MAX: u32 = 50;
const HTTP_REQUEST_BYTES_MAX: u64 = 8 * 1024 * 1024;
const HTTP_RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const HTTP_HEAD_BYTES_MAX: usize = 64 * 1024;
const HTTP_HEADERS_MAX: usize = 128;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A node that allows loopback, made once.
fn open() -> &'static Sandbox {
    static NODE: OnceLock<Sandbox> = OnceLock::new();
    NODE.get_or_init(|| node(&["127.0.0.1:*"], vec![]))
}

fn told(payload: &str) -> String {
    done(&fetch(open(), &["*"], payload))
}

#[test]
fn an_attempt_sends_so_many_requests_and_no_more() {
    let server = Server::answering(OK);
    let more = HTTP_REQUESTS_MAX + 5;
    let finished = fetch(open(), &["*"], &format!("often {} {more}", server.url()));
    assert_eq!(done(&finished), format!("{HTTP_REQUESTS_MAX} error connection-limit-reached"));
    assert!(finished.usage.log_tail.contains("at most 50"), "{}", finished.usage.log_tail);
    assert_eq!(server.received().len(), HTTP_REQUESTS_MAX as usize);
}

#[test]
fn denied_requests_count_too() {
    let server = Server::answering(OK);
    let finished = fetch(&node(&[], vec![]), &["*"], &format!("often {} 60", server.url()));
    assert_eq!(done(&finished), "0 error connection-limit-reached");
}

#[test]
fn a_body_over_the_limit_is_not_sent() {
    let server = Server::answering(OK);
    let most = HTTP_REQUEST_BYTES_MAX;
    assert_eq!(told(&format!("post {} {most}", server.url())), "200 - 2 ok");
    let text = told(&format!("post {} {}", server.url(), most + 1));
    assert!(text.starts_with("error HTTP-request-body-size"), "{text}");
    assert_eq!(server.received().len(), 1);
}

#[test]
fn an_announced_body_of_ten_gigabytes_is_refused_at_once() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
    let text = told(&format!("get {}", server.url()));
    assert!(text.starts_with("error HTTP-response-body-size(Some(10737418240))"), "{text}");
}

#[test]
fn a_body_without_end_is_cut_at_the_limit() {
    let (ended, end) = channel();
    let server = Server::start(move |mut stream| {
        let mut sent = 0_u64;
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        let mut more = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while more.is_ok() {
            more = stream.write_all(&chunk);
            sent += 0x10000;
        }
        ended.send(sent).unwrap();
    });
    let text = told(&format!("get {}", server.url()));
    assert!(text.starts_with("error the answer was cut off") && text.contains("body size"), "{text}");
    // What is under way in sockets and buffers comes on top.
    let sent = end.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(sent < HTTP_RESPONSE_BYTES_MAX + 32 * 1024 * 1024, "{sent}");
}

#[test]
fn a_response_that_drips_or_never_comes_ends_with_the_timeout_of_the_job() {
    for is_dripping in [true, false] {
        let (ended, end) = channel();
        let server = Server::start(move |mut stream| {
            if is_dripping {
                let mut more = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while more.is_ok() {
                    std::thread::park_timeout(Duration::from_millis(20));
                    more = stream.write_all(b"x");
                }
            } else {
                // Until the other side closes.
                let _ = stream.read(&mut [0]);
            }
            ended.send(()).unwrap();
        });
        let limit = Duration::from_millis(400);
        let finished = fetch_for(open(), &["*"], &format!("get {}", server.url()), limit);
        assert!(matches!(finished.outcome, Outcome::TimedOut { .. }), "{:?}", finished.outcome);
        end.recv_timeout(Duration::from_secs(30)).expect("the connection is closed with the attempt");
    }
}

#[test]
fn headers_of_a_response_are_bounded_in_number_and_bytes() {
    let many: String = (0..=HTTP_HEADERS_MAX).map(|n| format!("x-{n}: y\r\n")).collect();
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{many}\r\n"));
    assert_eq!(told(&format!("get {}", server.url())), "error HTTP-response-header-section-size(None)");
    for more in [1, 3 * HTTP_HEAD_BYTES_MAX] {
        let large = "y".repeat(HTTP_HEAD_BYTES_MAX + more);
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\nx: {large}\r\n\r\n"));
        let text = told(&format!("get {}", server.url()));
        assert!(text.starts_with("error HTTP-response-header-section-size"), "{text}");
    }
}

#[test]
fn headers_of_a_request_are_bounded() {
    let server = Server::answering(OK);
    assert_eq!(told(&format!("headers {} 100", server.url())), "200 - 2 ok");
    // Names and values together have 32 KiB.
    let with = |bytes: usize| format!("header {} x {}", server.url(), "y".repeat(bytes));
    assert_eq!(told(&with(30_000)), "200 - 2 ok");
    for attack in [with(33_000), format!("headers {} 9000", server.url())] {
        let (message, _) = trapped(&fetch(open(), &["*"], &attack));
        assert!(message.starts_with("stopped by the host: "), "{message}");
    }
    assert_eq!(server.received().len(), 2);
}

#[test]
fn nothing_smuggles_a_line_into_a_request() {
    let server = Server::answering(OK);
    let url = server.url();
    for payload in [
        format!("header {url} x aCRLFx-evil:b"),
        format!("header {url} x\r\ny: b"),
        format!("path {url}/aCRLF"),
        format!("path {url}/aSPACEHTTP/1.1"),
        format!("method {url} GET\r\nx:y"),
        format!("header {url} host other.example"),
        format!("header {url} transfer-encoding chunked"),
        format!("header {url} connection upgrade"),
        format!("method {url} CONNECT"),
    ] {
        let text = told(&payload);
        assert!(text.starts_with("error "), "{payload:?}: {text}");
    }
    assert!(server.received().is_empty(), "{:?}", server.received());
}

#[test]
fn an_answer_that_is_no_http_is_an_error() {
    for answer in ["+PONG\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nx", "\r\n\r\n\0\0"] {
        let server = Server::answering(answer);
        let text = told(&format!("get {}", server.url()));
        assert!(text.starts_with("error HTTP-"), "{answer:?}: {text}");
    }
    let short = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort");
    let text = told(&format!("get {}", short.url()));
    assert!(text.starts_with("error the answer was cut off"), "{text}");
}
