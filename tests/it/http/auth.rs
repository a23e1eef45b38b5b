//! Who may ask: tokens and origins.

use super::{TOKEN, World};
use crate::support::client::{self, Request, connect};

fn with(request: Request, token: &str) -> Request {
    request.header(&format!("Authorization: Bearer {token}"))
}

#[tokio::test]
async fn with_a_token_only_the_probes_are_open() {
    let world = World::with_token(&[]).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(Request::get(path).send(world.http).status, 200, "{path}");
    }
    for path in ["/metrics", "/v1/queues", "/v1/jobs", "/v1/jobs/x", "/v1/jobs/x/logs", "/v1/openapi.json", "/nowhere"]
    {
        let answer = Request::get(path).send(world.http);
        answer.problem(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{path}");
        let status = with(Request::get(path), TOKEN).send(world.http).status;
        assert!([200, 404].contains(&status), "{path}: {status}");
    }
    // What an open page says to a stranger names components, no addresses.
    let open = Request::get("/readyz").send(world.http).text();
    let full = with(Request::get("/readyz"), TOKEN).send(world.http).text();
    assert!(!open.contains("127.0.0.1") && !open.contains("remedy"), "{open}");
    assert!(full.contains("\"warnings\""), "{full}");
}

#[tokio::test]
async fn what_is_open_is_a_setting() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[http]\nopen = [\"/metrics\"]\n").unwrap();
    let world = World::with_token(&["--config", config.path().to_str().unwrap()]).await;
    assert_eq!(Request::get("/metrics").send(world.http).status, 200);
    assert_eq!(Request::get("/healthz").send(world.http).status, 401);
}

/// A9: no token, an empty one, `Bearer` only, more than the token, another length, ten thousand wrong ones.
#[tokio::test]
async fn a_wrong_token_is_refused_without_a_word_about_it() {
    let mut world = World::with_token(&[]).await;
    let longer = format!("{TOKEN}x");
    let twice = format!("{TOKEN} {TOKEN}");
    for token in ["", " ", "x", &TOKEN[1..], &longer, &twice] {
        let answer = with(Request::get("/v1/queues"), token).send(world.http);
        answer.problem(401);
        assert!(!answer.text().contains(TOKEN), "{}", answer.text());
    }
    for line in
        ["Authorization: Bearer", "Authorization: Basic dDpu", "Authorization:", &format!("Authorization: {TOKEN}")]
    {
        Request::get("/v1/queues").header(line).send(world.http).problem(401);
    }
    let wrong = with(Request::get("/v1/queues"), "wrong-wrong-wrong-wrong").bytes();
    let mut n_slowed = 0;
    for _ in 0..10_000 {
        let status = client::exchange(world.http, &wrong).status;
        assert!([401, 429].contains(&status), "{status}");
        n_slowed += usize::from(status == 429);
    }
    assert!(n_slowed > 9_000, "{n_slowed} of 10,000 were slowed down");
    assert_eq!(with(Request::get("/v1/queues"), TOKEN).send(world.http).status, 200, "the right one is let in");
    let said = world.host.said();
    assert!(!said.contains("wrong-wrong") && !said.contains(TOKEN), "{said}");
}

/// A10.
#[tokio::test]
async fn a_token_in_the_address_is_refused_even_when_it_is_right() {
    let world = World::with_token(&[]).await;
    for query in [format!("token={TOKEN}"), format!("a=b&access_token={TOKEN}"), format!("%74oken={TOKEN}")] {
        let answer = with(Request::get(&format!("/v1/queues?{query}")), TOKEN).send(world.http);
        answer.problem(400);
        assert!(answer.text().contains("Authorization") && !answer.text().contains(TOKEN), "{}", answer.text());
    }
}

/// A8 and A7: what a page of another site can send is refused, and nothing is made.
#[tokio::test]
async fn a_page_of_another_site_makes_no_job() {
    let world = World::with(&[]).await;
    let job = r#"{"type":"echo"}"#;
    let own = format!("Origin: http://{}", world.http);
    let post = || Request::new("POST", "/v1/jobs").bare().header(&format!("Host: {}", world.http)).body(job);
    let json = || post().header("Content-Type: application/json");
    for header in
        ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
    {
        json().header(header).send(world.http).problem(403);
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
    ] {
        post().header(&format!("Content-Type: {kind}")).send(world.http).problem(415);
    }
    post().send(world.http).problem(415);
    json().header("Content-Encoding: gzip").send(world.http).problem(415);
    // A name that was made to lead to this machine.
    let rebound = Request::post("/v1/jobs", job).bare().header("Host: evil.example").header("Content-Length: 0");
    rebound.send(world.http).problem(403);
    let preflight = Request::new("OPTIONS", "/v1/jobs").header("Origin: https://evil.example");
    let answer = preflight.send(world.http);
    assert_eq!(answer.status, 405);
    assert!(answer.headers.iter().all(|line| !line.to_lowercase().starts_with("access-control-")), "{answer:?}");
    assert_eq!(world.store.jobs(None, None, None, 10).await.unwrap().jobs.len(), 0, "nothing was made");
    let answer = json().header(&own).header("Sec-Fetch-Site: same-origin").send(world.http);
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// A23: a stream is no way around the token, and no other site reads one.
#[tokio::test]
async fn a_stream_needs_the_token_and_the_right_origin() {
    let world = World::with_token(&[]).await;
    Request::get("/v1/jobs/x/logs").send(world.http).problem(401);
    let other = with(Request::get("/v1/jobs/x/logs"), TOKEN).header("Origin: https://evil.example");
    other.send(world.http).problem(403);
    let upgrade =
        with(Request::get("/v1/jobs/x/logs"), TOKEN).header("Connection: Upgrade").header("Upgrade: websocket");
    upgrade.send(world.http).problem(404);
}

/// A11 and A12: GET changes nothing, and no header makes a GET into something else.
#[tokio::test]
async fn only_post_changes_anything() {
    let world = World::with(&[]).await;
    let id = world.store.enqueue(&[wasmhost::job::NewJob::new("idle", "echo", "")]).await.unwrap().remove(0).id;
    let cancel = format!("/v1/jobs/{id}/cancel");
    Request::get(&cancel).send(world.http).problem(405);
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"] {
        let answer = Request::new(method, &cancel).send(world.http);
        assert!([400, 405].contains(&answer.status), "{method}: {}", answer.status);
    }
    for header in ["X-HTTP-Method-Override: POST", "X-Method-Override: POST", "X-HTTP-Method: POST"] {
        Request::get(&cancel).header(header).header("Content-Type: application/json").send(world.http).problem(405);
    }
    let head = Request::new("HEAD", "/v1/queues").send(world.http);
    assert_eq!(head.status, 200);
    let record = world.store.job(&id).await.unwrap().unwrap();
    assert_eq!(record.text("status").as_deref(), Some("ready"), "{record:?}");
    // A message in absolute form is for a proxy.
    let mut stream = connect(world.http);
    std::io::Write::write_all(&mut stream, b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    client::read(&mut stream).unwrap().problem(400);
}
