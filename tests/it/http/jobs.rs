//! The job API.

use serde_json::{Value, json};
use wasmhost::job::{JobId, JobState, NewJob};

use super::World;
use crate::support::client::Request;

fn wait(world: &World, id: &str) -> Value {
    Request::get(&format!("/v1/jobs/{id}/wait?timeout=60s")).send(world.http).ok(200)
}

#[tokio::test]
async fn a_job_is_made_waited_for_and_shown_as_the_command_line_shows_it() {
    let world = World::new().await;
    let answer = Request::post("/v1/jobs", r#"{"type": "echo", "payload": {"n": 1e400, "b": 2 }}"#).send(world.http);
    let made = answer.ok(201);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["queue"], &made["type"], &made["is_new"]), (&"default".into(), &"echo".into(), &true.into()));
    assert_eq!(answer.header("location"), Some(format!("/v1/jobs/{id}").as_str()));
    let ended = wait(&world, id);
    assert_eq!(ended["status"], "done");
    let record = world.store.job(&JobId::from(id)).await.unwrap().unwrap();
    assert_eq!(record.text("result").as_deref(), Some(r#"{"n": 1e400, "b": 2 }"#), "byte for byte");
    assert_eq!(record.text("content_type").as_deref(), Some("application/json"));
    let shown = Request::get(&format!("/v1/jobs/{id}")).send(world.http).ok(200);
    let show = crate::support::program::Invocation::new(["jobs", "show", id, "--output", "json"]);
    let by_command: Value = serde_json::from_str(&show.on(world.redis.url(), &world.prefix).run().ok()).unwrap();
    assert_eq!(shown, by_command);
    assert!(shown.get("done_token").is_none() && shown.get("lease_token").is_none());
}

#[tokio::test]
async fn every_field_of_a_job_reaches_its_record() {
    let world = World::with(&[]).await;
    let job = json!({
        "queue": "idle", "type": "org/x", "payload_base64": "AP8=", "content_type": "application/x", "run_at": "2100-01-01T00:00:00Z",
        "max_attempts": 7, "retry_base": "2s", "retry_cap": "3m", "timeout": "4s", "idempotency_key": "once", "priority": 3,
        "limit_key": "l", "supersede_key": "s", "metadata": {"a": "1", "b": "2"}, "pin": "0".repeat(64),
    });
    let made = Request::post("/v1/jobs", job).send(world.http).ok(201);
    let record = world.store.job(&JobId::from(made["id"].as_str().unwrap())).await.unwrap().unwrap();
    assert_eq!((record.queue().as_str(), record.job_type().as_str()), ("idle", "org/x"));
    assert_eq!(record.field("payload"), Some(&[0, 255][..]));
    for (name, value) in [
        ("status", "scheduled"),
        ("max_attempts", "7"),
        ("retry_base_ms", "2000"),
        ("retry_cap_ms", "180000"),
        ("timeout_nano", "4000000000"),
        ("idempotency_key", "once"),
        ("priority", "3"),
        ("limit_key", "l"),
        ("supersede_key", "s"),
        ("content_type", "application/x"),
    ] {
        assert_eq!(record.text(name).as_deref(), Some(value), "{name}: {record:?}");
    }
    assert!(record.text("pin").is_some() && record.text("metadata").unwrap().contains('a'), "{record:?}");
    let delayed = Request::post("/v1/jobs", r#"{"queue":"idle","type":"x","delay":"1h"}"#).send(world.http).ok(201);
    let record = world.store.job(&JobId::from(delayed["id"].as_str().unwrap())).await.unwrap().unwrap();
    assert_eq!(record.state(), Some(JobState::Scheduled));
}

#[tokio::test]
async fn the_same_key_makes_one_job_whether_in_the_header_or_in_the_body() {
    let world = World::with(&[]).await;
    let job = r#"{"queue":"idle","type":"x"}"#;
    let first = Request::post("/v1/jobs", job).header("Idempotency-Key: k1").send(world.http).ok(201);
    let second = Request::post("/v1/jobs", job).header("Idempotency-Key: k1").send(world.http).ok(200);
    assert_eq!((&first["id"], &second["is_new"]), (&second["id"], &false.into()));
    let third =
        Request::post("/v1/jobs", r#"{"queue":"idle","type":"x","idempotency_key":"k1"}"#).send(world.http).ok(200);
    assert_eq!(third["id"], first["id"]);
    let differ = Request::post("/v1/jobs", r#"{"type":"x","idempotency_key":"k2"}"#).header("Idempotency-Key: k1");
    differ.send(world.http).problem(422);
    let bulk = Request::post(
        "/v1/jobs",
        json!({"jobs": [
            {"queue": "idle", "type": "x", "idempotency_key": "k1"}, {"queue": "idle", "type": "x", "idempotency_key": "k3"},
        ]}),
    );
    let made = bulk.send(world.http).ok(201);
    assert_eq!((&made["jobs"][0]["is_new"], &made["jobs"][1]["is_new"]), (&false.into(), &true.into()));
    assert_eq!(made["jobs"][0]["id"], first["id"]);
}

#[tokio::test]
async fn a_list_of_jobs_is_made_whole_or_the_wrong_one_is_named() {
    let world = World::with(&[]).await;
    let jobs: Vec<Value> = (0..1000).map(|n| json!({"queue": "idle", "type": "x", "payload": n})).collect();
    let made = Request::post("/v1/jobs", json!({ "jobs": jobs })).send(world.http).ok(201);
    assert_eq!(made["jobs"].as_array().unwrap().len(), 1000);
    let more: Vec<Value> = (0..1001).map(|n| json!({"queue": "idle", "type": "x", "payload": n})).collect();
    Request::post("/v1/jobs", json!({ "jobs": more })).send(world.http).problem(422);
    let wrong = json!({"jobs": [{"queue": "other", "type": "x"}, {"queue": "other", "type": "x", "colour": 1}]});
    let answer = Request::post("/v1/jobs", wrong).send(world.http);
    assert!(answer.problem(422).contains("jobs[1]: it has `colour`, which is no field"), "{}", answer.text());
    assert_eq!(answer.json()["index"], 1);
    let ready = |name: &'static str| {
        let store = world.store.clone();
        async move { store.queues().await.unwrap().iter().find(|queue| queue.name == name).map(|queue| queue.ready) }
    };
    assert_eq!((ready("idle").await, ready("other").await), (Some(1000), None));
}

#[tokio::test]
async fn a_full_queue_is_told_with_what_was_made_before_it_was_full() {
    let world = World::with(&[]).await;
    let change = wasmhost::store::QueueChange { capacity: Some(Some(300)), ..Default::default() };
    world.store.set_queue("small", &change).await.unwrap();
    let jobs: Vec<Value> = (0..600).map(|_| json!({"queue": "small", "type": "x"})).collect();
    let answer = Request::post("/v1/jobs", json!({ "jobs": jobs })).send(world.http);
    answer.problem(429);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["jobs"].as_array().unwrap().len(), 256, "{}", answer.text());
    let queues = world.store.queues().await.unwrap();
    assert_eq!(queues.iter().find(|queue| queue.name == "small").unwrap().ready, 256);
}

/// A21: a job that runs is cancelled, one that has ended is not.
#[tokio::test]
async fn a_job_is_cancelled_once() {
    let world = World::new().await;
    let made = Request::post("/v1/jobs", r#"{"type":"end","payload_base64":"c2xlZXA="}"#).send(world.http).ok(201);
    let cancel = |id: &str, body: &str| Request::post(&format!("/v1/jobs/{id}/cancel"), body).send(world.http);
    let id = made["id"].as_str().unwrap();
    assert_eq!(cancel(id, r#"{"reason":"not wanted"}"#).ok(200)["did"], "cancelled");
    let ended = wait(&world, id);
    assert_eq!((&ended["status"], &ended["last_error"]), (&"cancelled".into(), &"not wanted".into()));
    let answer = cancel(id, "");
    answer.problem(409);
    assert_eq!(answer.json()["state"], "cancelled");
    let done = Request::post("/v1/jobs", r#"{"type":"echo"}"#).send(world.http).ok(201);
    wait(&world, done["id"].as_str().unwrap());
    cancel(done["id"].as_str().unwrap(), "{}").problem(409);
    cancel("nobody", "{}").problem(404);
    cancel(id, r#"{"why":1}"#).problem(400);
}

#[tokio::test]
async fn a_wait_ends_with_the_job_or_with_its_time() {
    let world = World::new().await;
    let id = world.store.enqueue(&[NewJob::new("idle", "echo", "")]).await.unwrap().remove(0).id;
    let short = Request::get(&format!("/v1/jobs/{id}/wait?timeout=50ms")).send(world.http).ok(202);
    assert_eq!(short["status"], "ready");
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (request, http) = (Request::get(&format!("/v1/jobs/{id}/wait?timeout=30s")), world.http);
            std::thread::spawn(move || request.send(http).ok(200)["status"].clone())
        })
        .collect();
    let busy = || Request::get("/metrics").send(world.http).text().contains("wasmhost_http_streams 20\n");
    crate::support::redis::wait_until("all wait", super::PATIENCE, async || busy().then_some(())).await;
    world.store.cancel("idle", &id, "over").await.unwrap();
    for waiter in waiting {
        assert_eq!(waiter.join().unwrap(), "cancelled");
    }
    for (query, status) in [("timeout=soon", 400), ("timeout=6m", 400), ("timeuot=1s", 400), ("", 200)] {
        assert_eq!(Request::get(&format!("/v1/jobs/{id}/wait?{query}")).send(world.http).status, status, "{query}");
    }
    Request::get("/v1/jobs/nobody/wait").send(world.http).problem(404);
}

#[tokio::test]
async fn jobs_are_listed_page_by_page_with_the_filters_of_the_command_line() {
    let world = World::with(&[]).await;
    let jobs: Vec<NewJob> =
        (0..5).map(|n| NewJob::new("q", format!("type{}", n % 2), format!("payload {n}"))).collect();
    let ids: Vec<String> = world.store.enqueue(&jobs).await.unwrap().iter().map(|job| job.id.to_string()).collect();
    let mut seen = Vec::new();
    let mut path = "/v1/jobs?queue=q&limit=2".to_owned();
    loop {
        let page = Request::get(&path).send(world.http).ok(200);
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/jobs?queue=q&limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let n = |query: &str| {
        Request::get(&format!("/v1/jobs?{query}")).send(world.http).ok(200)["jobs"].as_array().unwrap().len()
    };
    assert_eq!((n("type=type1"), n("payload=load+3"), n("state=dlq"), n("since=1h"), n("until=1h")), (2, 1, 0, 5, 0));
    for (query, words) in [
        ("state=reddy", "`reddy` is no state"),
        ("limit=0", "from 1 to 1000"),
        ("limit=-1", "from 1 to 1000"),
        ("cursor=forged.0.0..q.00000000", "no cursor"),
        ("quue=q", "`quue` is not known"),
        ("since=1h&until=2h", "no job can fit"),
        ("queue=a%zz", "hexadecimal"),
        ("queue=a:b", "must not contain `:`"),
    ] {
        let detail = Request::get(&format!("/v1/jobs?{query}")).send(world.http).problem(400);
        assert!(detail.contains(words), "{query}: {detail}");
    }
    let queues = Request::get("/v1/queues").send(world.http).ok(200);
    let queue = queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "q");
    assert_eq!(queue.unwrap()["ready"], 5);
}

/// A16: an id is decoded once, and is what it is byte for byte.
#[tokio::test]
async fn ids_of_any_bytes_are_found_by_their_encoded_form() {
    let world = World::with(&[]).await;
    let mut raw = world.redis.raw().await;
    for (id, path) in [
        (&b"a/b"[..], "a%2Fb"),
        (b"a:queue:b:ready", "a%3Aqueue%3Ab%3Aready"),
        (b"line\nfeed", "line%0afeed"),
        (b"%2F", "%252F"),
        (b"\0\xff", "%00%ff"),
        (b"../../etc/passwd", "..%2f..%2fetc%2fpasswd"),
    ] {
        let key = [world.prefix.as_bytes(), b":job:", id].concat();
        let _: () =
            redis::cmd("HSET").arg(&key).arg(&["type", path, "status", "done"]).query_async(&mut raw).await.unwrap();
        let shown = Request::get(&format!("/v1/jobs/{path}")).send(world.http).ok(200);
        assert_eq!(shown["type"], path);
    }
    Request::get("/v1/jobs/a%252Fb").send(world.http).problem(404);
    Request::get(&format!("/v1/jobs/{}", "x".repeat(1025))).send(world.http).problem(404);
}

/// A17: what jobs say comes back as JSON that no browser shows as a page.
#[tokio::test]
async fn stored_markup_is_text_in_json() {
    let world = World::with(&[]).await;
    let markup = "<img src=x onerror=alert(1)>\u{1b}[2J\"}</script>";
    let mut raw = world.redis.raw().await;
    let fields =
        [("type", markup), ("queue", "javascript:alert(1)"), ("status", "done"), ("result", markup), ("log", markup)];
    let key = format!("{}:job:xss", world.prefix);
    let _: () = redis::AsyncCommands::hset_multiple(&mut raw, &key, &fields).await.unwrap();
    let answer = Request::get("/v1/jobs/xss").send(world.http);
    let shown = answer.ok(200);
    assert_eq!((shown["result"].as_str(), shown["log"].as_str()), (Some(markup), Some(markup)));
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let problem = Request::get("/v1/jobs?state=%3Cimg%20src%3Dx%3E").send(world.http);
    problem.problem(400);
    assert_eq!(problem.header("x-content-type-options"), Some("nosniff"));
}
