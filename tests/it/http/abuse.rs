//! Requests that mean no good: list A of the bad inputs that do not concern tokens or origins.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use wasmhost::http::{BODY_BYTES_MAX, STREAMS_MAX};
use wasmhost::job::NewJob;

use super::World;
use crate::support::client::{Request, connect, exchange, read};

/// How long `/healthz` took.
fn healthz(http: SocketAddr) -> Duration {
    let began = Instant::now();
    assert_eq!(Request::get("/healthz").send(http).status, 200);
    began.elapsed()
}

fn memory_bytes(world: &World) -> u64 {
    let text = Request::get("/metrics").send(world.http).text();
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|n| n.parse().ok()).unwrap()
}

/// A1: an announced body over the cap is refused at once, one without end when the cap is read, and neither costs more.
#[tokio::test]
async fn a_body_over_the_cap_is_refused_and_costs_no_more_than_the_cap() {
    let world = World::with(&[]).await;
    let before = memory_bytes(&world);
    let announced =
        Request::new("POST", "/v1/jobs").header("Content-Type: application/json").header("Content-Length: 1073741824");
    let began = Instant::now();
    assert!(announced.send(world.http).problem(413).contains("16 MiB"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let endless =
        Request::new("POST", "/v1/jobs").header("Content-Type: application/json").header("Transfer-Encoding: chunked");
    let mut stream = connect(world.http);
    stream.write_all(&endless.bytes()).unwrap();
    let piece = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    // The server stops reading soon after the cap; then a write fails, or the answer is there.
    while sent < 4 * BODY_BYTES_MAX && stream.write_all(&piece).is_ok() {
        sent += 0x10000;
    }
    assert!(sent >= BODY_BYTES_MAX, "{sent}");
    if let Some(answer) = read(&mut stream) {
        answer.problem(413);
    }
    let cost = memory_bytes(&world).saturating_sub(before);
    assert!(cost < 2 * BODY_BYTES_MAX as u64, "{cost}");
    assert_eq!(healthz(world.http).as_secs(), 0);
}

/// A2 and A3: two thousand sockets that send half a head, nothing, or a body byte by byte leave the server its second,
/// and are closed.
#[tokio::test]
async fn two_thousand_slow_connections_leave_healthz_under_a_second() {
    let world = World::with(&[]).await;
    let slow_body =
        Request::new("POST", "/v1/jobs").header("Content-Type: application/json").header("Content-Length: 1000");
    let mut slow: Vec<TcpStream> = (0..2000)
        .map(|n| {
            let mut stream = connect(world.http);
            match n % 3 {
                0 => stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap(),
                1 => stream.write_all(&slow_body.bytes()).unwrap(),
                _ => {}
            }
            stream
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut is_closed = false;
    while !is_closed {
        assert!(Instant::now() < deadline, "a socket with half a head is closed");
        let took = healthz(world.http);
        assert!(took < Duration::from_secs(1), "{took:?}");
        // One byte more does not start the time anew.
        for stream in slow.iter_mut().step_by(3).take(5) {
            let _sent = stream.write_all(b"h");
        }
        for stream in slow.iter_mut().skip(1).step_by(3).take(5) {
            let _sent = stream.write_all(b" ");
        }
        slow[0].set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        is_closed = match slow[0].read(&mut [0; 512]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
    }
    slow[2].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(slow[2].read(&mut [0; 16]).unwrap_or(0), 0, "one that says nothing is closed as well");
}

/// A4: streams have a limit, and those that are open cost the others nothing.
#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_others_stay() {
    let world = World::with(&[]).await;
    let id = world.store.enqueue(&[NewJob::new("idle", "echo", "")]).await.unwrap().remove(0).id;
    let request = Request::get(&format!("/v1/jobs/{id}/logs")).bytes();
    let mut statuses = Vec::new();
    let streams: Vec<TcpStream> = (0..STREAMS_MAX + 50)
        .map(|_| {
            let mut stream = connect(world.http);
            stream.write_all(&request).unwrap();
            statuses.push(read(&mut stream).unwrap().status);
            stream
        })
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), STREAMS_MAX);
    assert!(statuses[STREAMS_MAX..].iter().all(|status| *status == 503), "{statuses:?}");
    let took = healthz(world.http);
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(streams);
    let free = async || (exchange(world.http, &request).status == 200).then_some(());
    crate::support::redis::wait_until("closed streams give their places back", super::PATIENCE, free).await;
}

/// A5: paths lead nowhere but to routes.
#[tokio::test]
async fn odd_paths_find_nothing() {
    let world = World::with(&[]).await;
    for path in [
        "/../../etc/passwd",
        "/%2e%2e%2f%2e%2e%2fetc/passwd",
        "/v1/../healthz",
        "/v1/jobs/../../healthz",
        "//healthz",
        "/healthz/",
        "/healthz%00",
        "/HEALTHZ",
        "/v1/jobs/",
        "/v1/jobs/x/",
        "/v1/jobs/x/cancel/y",
        "/v1",
        "/",
    ] {
        Request::get(path).send(world.http).problem(404);
    }
    for path in ["/v1/jobs/%", "/v1/jobs/%zz", "/v1/jobs/x?%ff=1"] {
        Request::get(path).send(world.http).problem(400);
    }
    for path in ["/\\..\\healthz", "*", "healthz"] {
        let answer = Request::get(path).send(world.http);
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
    }
}

/// A6: what is not one JSON text in UTF-8 is refused, and nothing is made.
#[tokio::test]
async fn bodies_that_are_not_json_are_refused() {
    let world = World::with(&[]).await;
    let good = r#"{"type":"echo"}"#;
    let bodies: [Vec<u8>; 9] = [
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{'type':'echo'}".to_vec(),
        format!("{good} {good}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        [b"{\"type\":\"".to_vec(), vec![0xff], b"\"}".to_vec()].concat(),
    ];
    // It is JSON, and no text.
    let deep = format!("{{\"type\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes();
    for (body, status) in bodies.into_iter().map(|body| (body, 400)).chain([(deep, 422)]) {
        let request = Request::new("POST", "/v1/jobs").header("Content-Type: application/json").body(body.clone());
        let answer = request.send(world.http);
        assert_eq!(answer.status, status, "{:?}: {}", String::from_utf8_lossy(&body).get(..60), answer.text());
    }
    assert!(world.store.jobs(None, None, None, 10).await.unwrap().jobs.is_empty(), "nothing was made");
    assert_eq!(healthz(world.http).as_secs(), 0);
}

/// A14: a head that is too large, and one with too many fields.
#[tokio::test]
async fn a_flood_of_header_fields_is_refused() {
    let world = World::with(&[]).await;
    let large = Request::get("/healthz").header(&format!("X-Large: {}", "x".repeat(1024 * 1024)));
    assert_eq!(large.send(world.http).status, 431);
    let many = (0..10_000).fold(Request::get("/healthz"), |request, n| request.header(&format!("X-{n}: y")));
    assert_eq!(many.send(world.http).status, 431);
    let long = Request::get(&format!("/v1/jobs/{}", "x".repeat(100_000)));
    assert!([414, 431].contains(&long.send(world.http).status));
    // What is no HTTP at all.
    for bytes in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PING\r\n\r\n"] {
        let mut stream = connect(world.http);
        stream.write_all(bytes).unwrap();
        assert!(read(&mut stream).is_none_or(|answer| answer.status == 400));
    }
    // Two lengths, or a length beside chunks: the way to smuggle a second request.
    let twice = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}";
    assert_eq!(exchange(world.http, twice).status, 400);
    assert_eq!(healthz(world.http).as_secs(), 0);
}
