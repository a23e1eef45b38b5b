//! A small HTTP client over plain sockets, so that a test decides about every byte of a request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer as it came over the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The lines of the head below the first.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        super::http::header(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?} {}", self.text()))
    }

    /// Its JSON; fails when the status is another one.
    #[track_caller]
    pub fn ok(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Its detail; fails when it is not a problem with this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let shape = self.json();
        assert!(shape["type"].as_str().is_some_and(|kind| kind.starts_with("urn:wasmhost:problem:")), "{shape}");
        assert_eq!(shape["status"], status);
        shape["detail"].as_str().expect("a detail").to_owned()
    }
}

/// A request that is being put together.
#[must_use]
#[derive(Clone, Debug)]
pub struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            line: format!("{method} {path} HTTP/1.1"),
            headers: vec!["Host: localhost".to_owned()],
            body: Vec::new(),
        }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// With this JSON as its body.
    pub fn post(path: &str, json: impl ToString) -> Self {
        Self::new("POST", path).header("Content-Type: application/json").body(json.to_string())
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// Without the fields that every request has.
    pub fn bare(mut self) -> Self {
        self.headers.clear();
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.headers.push(format!("Content-Length: {}", self.body.len()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let head: String = std::iter::once(&self.line).chain(&self.headers).map(|line| format!("{line}\r\n")).collect();
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it on a connection of its own.
    #[track_caller]
    pub fn send(&self, to: SocketAddr) -> Answer {
        exchange(to, &self.bytes())
    }
}

/// A connection that waits for answers.
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("an option can be set");
    stream
}

/// Sends bytes and reads one answer.
#[track_caller]
pub fn exchange(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(to);
    // A server that refuses a large request closes while it is being sent; its answer counts.
    let _sent = stream.write_all(bytes);
    read(&mut stream).expect("an answer")
}

/// Reads one answer; `None` when the connection ends before its head does.
pub fn read(stream: &mut TcpStream) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(byte(stream)?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) {
        answer.body = vec![0; length];
        let n = stream.read_exact(&mut answer.body).map_or(0, |()| length);
        answer.body.truncate(n);
    }
    Some(answer)
}

fn byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

/// Reads what comes, until it has `part`; fails with what came when the stream ends before.
#[track_caller]
pub fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(part) {
        match byte(stream) {
            Some(byte) => text.push(byte),
            None => panic!("`{part}` never came: {}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
