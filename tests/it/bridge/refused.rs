//! Messages that cannot become jobs, lists that cannot be read, protocols that do not exist.

use redis::AsyncCommands as _;

use super::{PATIENCE, World};
use crate::support::program::Invocation;
use crate::support::redis::wait_until;

#[tokio::test]
async fn a_number_that_is_none_is_answered_with_the_name_of_its_field() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let _host = world.host(&[]);
    let bad = [("timeout", "soon"), ("timeout", "-5"), ("retries", "1e3"), ("retries", "\u{1b}[2J")];
    for (n, (name, value)) in bad.iter().enumerate() {
        world.push("osis", &format!("bad{n}"), "fine", &[(name, value)]).await;
    }
    world
        .push("osis", "huge", "fine", &[("timeout", "99999999999999999999"), ("retries", "99999999999999999999")])
        .await;
    world.push("osis", "empty", "", &[]).await;
    for (n, (name, _)) in bad.iter().enumerate() {
        let said = world.answer(&format!("bad{n}")).await.unwrap_err();
        assert!(said.contains(&format!("field `{name}` is `")) && !said.contains('\u{1b}'), "{said}");
    }
    assert!(world.answer("empty").await.unwrap_err().contains("`script` is missing"));
    assert_eq!(world.answer("huge").await.as_deref(), Ok("FINE"));
    let dead = world.cli(&["dlq", "ls", "--queue", "hero-osis", "--output", "json"]).ok();
    assert_eq!(dead.matches("hero:bad").count(), bad.len(), "{dead}");
}

#[tokio::test]
async fn an_id_that_names_no_job_is_set_aside_and_the_others_run() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let _: () = world.raw.set("hero:job:text", "no hash").await.unwrap();
    let before = [("status", "finished"), ("output", "kept")];
    let _: () = world.raw.hset_multiple("hero:job:over", &before).await.unwrap();
    for id in ["missing", "text", "over", "", &"x".repeat(1100)] {
        world.start("osis", id).await;
    }
    world.push("osis", "good", "good", &[]).await;
    let _host = world.host(&[]);
    assert_eq!(world.answer("good").await.as_deref(), Ok("GOOD"));
    let key = format!("{}:queue:hero-osis:aside", world.prefix);
    let mut aside = wait_until("all are told apart", PATIENCE, async || {
        let aside: Vec<String> = world.raw.clone().lrange(&key, 0, -1).await.unwrap();
        (aside.len() >= 4).then_some(aside)
    })
    .await;
    aside.sort();
    let reasons: Vec<&str> = aside.iter().map(|entry| entry.split('\n').next().unwrap()).collect();
    let expected = [
        "its hash is missing",
        "its id has 1100 bytes, at most 1019 are allowed",
        "its id is empty",
        "its key is not a hash",
    ];
    assert_eq!(reasons, expected);
    assert_eq!(world.hash("over").await["output"], "kept");
    let replies: Vec<String> = world.raw.keys("hero:q:reply:*").await.unwrap();
    assert_eq!(replies, ["hero:q:reply:good"]);
}

#[tokio::test]
async fn a_list_of_the_wrong_type_turns_health_red_and_the_others_go_on() {
    let mut world = World::new(&["osis", "sal"]).await;
    world.publish();
    let _: () = world.raw.set("hero:q:work:type:sal", "no list").await.unwrap();
    let mut host = world.host_with("[health]\ninterval = '100ms'\n");
    world.push("osis", "good", "good", &[]).await;
    assert_eq!(world.answer("good").await.as_deref(), Ok("GOOD"));
    let said = host.wait_for_line("health check turned red");
    assert!(said.contains("hero:q:work:type:sal") && said.contains("must be a list"), "{said}");
    let _: () = world.raw.del("hero:q:work:type:sal").await.unwrap();
    host.wait_for_line_after(&said, "health check turned green");
    world.push("sal", "late", "late", &[]).await;
    assert_eq!(world.answer("late").await.as_deref(), Ok("LATE"));
}

#[tokio::test]
async fn a_type_that_nobody_declares_is_answered_with_those_that_are_served() {
    let mut world = World::new(&["osis", "v"]).await;
    world.publish();
    let _host = world.host(&[]);
    world.push("sal", "unknown", "x", &[]).await;
    let said = world.answer("unknown").await.unwrap_err();
    assert!(said.starts_with("no jumpscript serves the type `sal`; served are: "), "{said}");
    assert!(said.contains(" osis,") && said.contains(", v"), "{said}");
}

#[tokio::test]
async fn a_redis_cluster_is_refused_by_the_name_of_the_protocol() {
    let options = ["--cluster-enabled", "yes", "--cluster-port", "{bus}"];
    let redis = crate::support::redis::RedisServer::start_with(&options);
    let all_slots: String =
        redis::cmd("CLUSTER").arg(&["ADDSLOTSRANGE", "0", "16383"]).query_async(&mut redis.raw().await).await.unwrap();
    assert_eq!(all_slots, "OK");
    let url = redis.url().replace("redis://", "redis+cluster://");
    let words = ["run", "--protocol", "hero", "--redis", &url, "--prefix", "{w}", "--node-prefix", "{w}"];
    let said = wait_until("the Cluster serves", PATIENCE, async || {
        let said = Invocation::new(words).run();
        (!said.stderr.contains("cluster is down")).then_some(said)
    })
    .await
    .fails(1);
    assert!(said.contains("protocol `hero` cannot be served on a Redis Cluster") && said.contains("hint:"), "{said}");
}

#[test]
fn a_protocol_that_does_not_exist_is_refused_with_the_nearest_name() {
    let said = Invocation::new(["run", "--protocol", "heroo"]).run().fails(2);
    assert!(said.contains("`heroo`") && said.contains("did you mean `hero`?"), "{said}");
    let said = Invocation::new(["run"]).env("WASMHOST_PROTOCOL", "hero,zeus").run().fails(2);
    assert!(said.contains("WASMHOST_PROTOCOL") && said.contains("`zeus`") && said.contains("hero"), "{said}");
    let said = Invocation::new(["run", "--protocol", "hero,hero"]).run().fails(2);
    assert!(said.contains("names `hero` twice"), "{said}");
    let said = Invocation::new(["run"]).env("WASMHOST_PROTOCOL_HERO_TYPES", "osis,a:b").run().fails(2);
    assert!(said.contains("`a:b` must not contain `:`"), "{said}");
}
