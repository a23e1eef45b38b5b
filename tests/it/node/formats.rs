//! Every hash is read back with a raw client, in the form that JumpScale's programs expect.

use serde_json::Value;

use super::{Plan, hash, server_seconds, wait_for_field};
use crate::support::redis::RedisServer;

fn is_epoch_int(text: &str, now: i64) -> bool {
    text.parse::<i64>().is_ok_and(|stamp| (now - 30..=now + 1).contains(&stamp))
}

fn is_epoch_float(text: &str, now: i64) -> bool {
    text.parse::<f64>().is_ok() && text.split_once('.').is_some_and(|(seconds, _)| is_epoch_int(seconds, now))
}

#[tokio::test]
async fn workers_are_renewed_by_name_and_queue_as_whole_seconds() {
    let server = RedisServer::shared();
    let options = server.options();
    let node = Plan { queues: &["mail", "default"], ..Plan::new(&options, "box-1") }.start().await;
    let mut raw = server.raw().await;
    let (now, prefix) = (server_seconds(&mut raw).await, &options.node_prefix);
    let watchdog = hash(&mut raw, &format!("{prefix}:workers:watchdog")).await;
    let names: Vec<&str> = watchdog.keys().map(String::as_str).collect();
    assert_eq!(names, ["worker_default_box-1.0", "worker_mail_box-1.0"]);
    assert!(watchdog.values().all(|stamp| is_epoch_int(stamp, now)), "{watchdog:?}");
    // Readers take the queue from the second part.
    assert!(names.iter().all(|name| ["mail", "default"].contains(&name.split('_').nth(1).unwrap())));
    let heartbeat = hash(&mut raw, &format!("{prefix}:workers:heartbeat")).await;
    assert_eq!(heartbeat.keys().collect::<Vec<_>>(), ["default", "mail"]);
    assert!(heartbeat.values().all(|stamp| is_epoch_int(stamp, now)), "{heartbeat:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_session_is_jumpscales_record_under_the_id_of_this_process() {
    let server = RedisServer::shared();
    let options = server.options();
    let node = Plan { nid: 7, ..Plan::new(&options, "box") }.start().await;
    let mut raw = server.raw().await;
    let sessions = hash(&mut raw, &format!("{}:workers:sessions", options.node_prefix)).await;
    let record: Value = serde_json::from_str(&sessions[&node.session]).unwrap();
    let pid = std::process::id();
    assert!(node.session.starts_with(&format!("1_7_{pid}_")), "{}", node.session);
    assert_eq!((record["gid"].as_u64(), record["nid"].as_u64()), (Some(1), Some(7)));
    assert_eq!((record["pid"].as_u64(), record["appname"].as_str()), (Some(u64::from(pid)), Some("wasmhost")));
    assert!(is_epoch_int(&record["start"].to_string(), server_seconds(&mut raw).await), "{record}");
    node.stop().await;
}

#[tokio::test]
async fn the_application_lists_this_process_beside_those_of_others() {
    let server = RedisServer::shared();
    let options = server.options();
    let mut raw = server.raw().await;
    let key = format!("{}:application", options.node_prefix);
    let pid = std::process::id();
    let _: () = redis::cmd("HSET")
        .arg(&key)
        .arg(&["wasmhost", "[4000001]", "jsagent", "[17, 18]"])
        .query_async(&mut raw)
        .await
        .unwrap();
    let node = Plan::new(&options, "box").start().await;
    let found = hash(&mut raw, &key).await;
    assert_eq!(serde_json::from_str::<Vec<u32>>(&found["wasmhost"]).unwrap(), [4_000_001, pid]);
    node.stop().await;
    let left = hash(&mut raw, &key).await;
    assert_eq!((left["wasmhost"].as_str(), left["jsagent"].as_str()), ("[4000001]", "[17, 18]"));
}

#[tokio::test]
async fn status_is_python_text_and_lastcheck_a_float() {
    let server = RedisServer::shared();
    let options = server.options();
    let node = Plan::new(&options, "box").start().await;
    let mut raw = server.raw().await;
    let prefix = &options.node_prefix;
    let key = format!("{prefix}:healthcheck:status");
    wait_for_field(&node, &mut raw, &key, "clock", |value| value == Some("True")).await;
    let now = server_seconds(&mut raw).await;
    let status = hash(&mut raw, &key).await;
    let lastcheck = hash(&mut raw, &format!("{prefix}:healthcheck:lastcheck")).await;
    let port = server.url().rsplit_once(':').unwrap().1;
    for component in ["disks", "memory", "swap", "map_count", "loops", "hashes", "workers:worker_mail_box.0"] {
        assert_eq!(status.get(component).map(String::as_str), Some("True"), "{component}: {status:?}");
    }
    assert!(status.contains_key(&format!("redis:{port}")), "{status:?}");
    assert_eq!(status.keys().collect::<Vec<_>>(), lastcheck.keys().collect::<Vec<_>>());
    assert!(lastcheck.values().all(|stamp| is_epoch_float(stamp, now)), "{lastcheck:?}");
    node.stop().await;
}

#[tokio::test]
async fn monitoring_is_node_category_entries_beside_the_reports_of_others() {
    let server = RedisServer::shared();
    let options = server.options();
    let mut raw = server.raw().await;
    let key = format!("{}:healthcheck:monitoring", options.node_prefix);
    let foreign = r#"{"99": {"disks": [{"free": 1417000000.123456789}]}}"#;
    let _: () =
        redis::cmd("HSET").arg(&key).arg(&["results", foreign, "errors", "{}"]).query_async(&mut raw).await.unwrap();
    let node = Plan { nid: 7, ..Plan::new(&options, "box") }.start().await;
    wait_for_field(&node, &mut raw, &key, "results", |text| text.is_some_and(|text| text.contains("\"7\""))).await;
    let found = hash(&mut raw, &key).await;
    assert!(found["results"].contains("1417000000.123456789"), "the other's bytes are kept: {}", found["results"]);
    assert!(is_epoch_float(&found["lastcheck"], server_seconds(&mut raw).await), "{found:?}");
    let results: Value = serde_json::from_str(&found["results"]).unwrap();
    let worker = results["7"]["workers"].as_array().unwrap().iter().find(|e| e["name"] == "worker_mail_box.0").unwrap();
    assert_eq!(worker["state"], "RUNNING");
    assert!(worker["lastactive"].is_i64(), "{worker}");
    let redis = &results["7"]["redis"][0];
    assert_eq!((redis["state"].as_str(), redis["port"].is_number()), (Some("RUNNING"), true), "{redis}");
    assert!(redis["memory_usage"].is_number(), "{redis}");
    assert!(results["7"]["disks"][0]["path"].is_string());
    // The test's server keeps nothing on disk: amber, and told as an error with its text.
    let errors: Value = serde_json::from_str(&found["errors"]).unwrap();
    for entry in errors["7"].as_object().into_iter().flat_map(|categories| categories.values()) {
        assert!(entry[0]["errormessage"].is_string(), "{errors}");
    }
    node.stop().await;
    let left = hash(&mut raw, &key).await;
    assert!(!left["results"].contains("\"7\"") && left["results"].contains("\"99\""), "{left:?}");
}
