//! Where the jobs' effects go: an HTTP server in the test process that remembers who began and who was done, when and
//! on which host. No queue can make up for it: what it has not seen has not happened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wasmhost::clock::Timestamp;

/// Longest head of a request that is read.
const HEAD_MAX: usize = 16 * 1024;

/// One call of a job.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Unix time in nanoseconds. The Redis server runs on this machine, so its clock is the same.
    pub(super) at: i64,
    /// Whether the job began; otherwise it was done.
    pub(super) is_start: bool,
    pub(super) job: String,
    /// The host that ran it.
    pub(super) node: String,
}

/// A running sink; it ends with the test's runtime.
pub(super) struct Sink {
    url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_dead: AtomicBool,
    events: Mutex<Vec<Event>>,
    /// What came while the sink was dead.
    refused: Mutex<Vec<Event>>,
}

impl Sink {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/effects", listener.local_addr().expect("an address"));
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state }
    }

    /// The address that jobs are given.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// While it is dead every connection is cut without an answer.
    pub(super) fn set_dead(&self, is_dead: bool) {
        self.state.is_dead.store(is_dead, Ordering::SeqCst);
    }

    /// Everything that was seen, in the order of arrival.
    pub(super) fn events(&self) -> Vec<Event> {
        self.state.events.lock().unwrap().clone()
    }

    /// When a job first began after this time.
    pub(super) fn first_start_after(&self, at: i64) -> Option<i64> {
        let events = self.state.events.lock().unwrap();
        events.iter().filter(|event| event.is_start && event.at > at).map(|event| event.at).min()
    }

    /// The calls that came while it was dead, in the order of arrival.
    pub(super) fn refused(&self) -> Vec<Event> {
        self.state.refused.lock().unwrap().clone()
    }
}

/// Answers the one request of a connection.
async fn answer(mut stream: TcpStream, state: Arc<State>) {
    let Some(target) = read_request(&mut stream).await else { return };
    let at = Timestamp::now().nanos();
    let event = event(&target, at);
    if state.is_dead.load(Ordering::SeqCst) {
        return state.refused.lock().unwrap().extend(event);
    }
    let status = if let Some(event) = event {
        state.events.lock().unwrap().push(event);
        "200 OK"
    } else {
        "400 Bad Request"
    };
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // A host that was killed meanwhile reads no answer.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Reads a whole request, and answers what it asks for.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 || bytes.len() > HEAD_MAX {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
        };
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let is_whole = match header("transfer-encoding") {
            Some(_) => body.ends_with("0\r\n\r\n"),
            None => body.len() >= length,
        };
        if is_whole {
            return head.split_whitespace().nth(1).map(str::to_owned);
        }
    }
}

/// Reads `/effects?k=start&j=JOB&w=NODE`.
fn event(target: &str, at: i64) -> Option<Event> {
    let (_, query) = target.split_once('?')?;
    let value = |name: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name));
    let (_, kind) = value("k")?;
    let (_, job) = value("j")?;
    let (_, node) = value("w")?;
    Some(Event { at, is_start: kind == "start", job: job.to_owned(), node: node.to_owned() })
}
