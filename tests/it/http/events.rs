//! `/v1/jobs/{id}/logs`: what a job says, as it comes.

use std::io::Write as _;

use serde_json::Value;
use wasmhost::job::NewJob;

use super::World;
use crate::support::client::{Request, connect, read_until};

/// The data of the events of one kind, in their order.
fn events(text: &str, kind: &str) -> Vec<Value> {
    let begin = format!("event: {kind}\ndata: ");
    text.split(&begin).skip(1).map(|rest| serde_json::from_str(rest.lines().next().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_finished_job_tells_its_state_log_and_end_and_the_stream_closes() {
    let world = World::new().await;
    world.publish("say");
    let made = Request::post("/v1/jobs", r#"{"type":"say","payload_base64":"bGV2ZWxz"}"#).send(world.http).ok(201);
    let id = made["id"].as_str().unwrap();
    Request::get(&format!("/v1/jobs/{id}/wait")).send(world.http).ok(200);
    let mut stream = connect(world.http);
    stream.write_all(&Request::get(&format!("/v1/jobs/{id}/logs")).header("Connection: close").bytes()).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("text/event-stream"), "{text}");
    assert_eq!(events(&text, "end").len(), 1, "{text}");
    assert_eq!(events(&text, "end")[0]["status"], events(&text, "state")[0]["status"]);
    let record = world.store.job(&wasmhost::job::JobId::from(id)).await.unwrap().unwrap();
    let log = record.text("log").unwrap_or_default();
    assert!(!log.is_empty(), "the guest says something: {record:?}");
    assert_eq!(events(&text, "log")[0]["text"], log);
}

#[tokio::test]
async fn a_running_job_tells_its_states_progress_and_end_as_they_come() {
    let world = World::with(&[]).await;
    let id = world.store.enqueue(&[NewJob::new("idle", "echo", "")]).await.unwrap().remove(0).id;
    let mut stream = connect(world.http);
    stream.write_all(&Request::get(&format!("/v1/jobs/{id}/logs")).bytes()).unwrap();
    let first = read_until(&mut stream, "event: state");
    assert!(!first.contains("event: end"), "{first}");
    let mut raw = world.redis.raw().await;
    let key = format!("{}:job:{id}", world.prefix);
    let _: () = redis::AsyncCommands::hset_multiple(
        &mut raw,
        &key,
        &[("progress", "40"), ("progress_message", "a\nevent: end")],
    )
    .await
    .unwrap();
    let progress = read_until(&mut stream, "\"percent\":40}");
    assert_eq!(events(&progress, "progress")[0]["message"], "a\nevent: end", "{progress}");
    assert!(events(&progress, "end").is_empty());
    world.store.cancel("idle", &id, "enough").await.unwrap();
    let end = read_until(&mut stream, "event: end\ndata: ") + &read_until(&mut stream, "\n\n");
    assert_eq!(events(&end, "end")[0]["last_error"], "enough", "{end}");
    Request::get("/v1/jobs/nobody/logs").send(world.http).problem(404);
}
