//! The flows of the guide, typed in as it says, and what jobs are given and answered.

use super::World;

/// Flow A: create, then start; inspected with the guide's own commands. The host was there before the FLUSHALL.
#[tokio::test]
async fn a_job_that_is_created_and_then_started_ends_in_its_hash() {
    let world = World::new(&["osis"]).await;
    let _host = world.host(&["--scripts", world.folder.path().to_str().unwrap()]);
    let id = "8d2f0a3e-7c55-4f0b-9a53-0c4b6a1f2e11";
    assert_eq!(world.redis_cli("FLUSHALL"), "OK");
    let fields = "caller_id 02ab context_id circle-1 script print(1) timeout 30 retries 0 concurrent false \
                  created_at 2025-08-14T12:14:34Z status dispatched";
    world.redis_cli(&format!("HSET hero:job:{id} id {id} {fields}"));
    assert_eq!(world.redis_cli("KEYS hero:job:*"), format!("hero:job:{id}"));
    world.redis_cli(&format!("LPUSH hero:q:work:type:osis {id}"));
    world.status(id, "finished").await;
    assert_eq!(world.redis_cli(&format!("HGET hero:job:{id} status")), "finished");
    assert_eq!(world.redis_cli(&format!("HGET hero:job:{id} output")), "PRINT(1)");
    assert_eq!(world.redis_cli("LLEN hero:q:work:type:osis"), "0");
    let hash = world.redis_cli(&format!("HGETALL hero:job:{id}"));
    assert!(hash.contains("circle-1") && hash.contains("2025-08-14T12:14:34Z"), "its own fields stay: {hash}");
}

/// Flow B: run and wait, at the reply list and by the hash.
#[tokio::test]
async fn who_waits_at_the_reply_list_is_told_and_the_hash_says_the_same() {
    let world = World::new(&["osis"]).await;
    world.publish();
    let _host = world.host(&[]);
    world.redis_cli("HSET hero:job:one script hello status dispatched");
    world.redis_cli("LPUSH hero:q:work:type:osis one");
    assert_eq!(world.redis_cli("BLPOP hero:q:reply:one 60"), "hero:q:reply:one\nHELLO");
    assert_eq!(world.redis_cli("HGET hero:job:one status"), "finished");
    assert_eq!(world.redis_cli("HGET hero:job:one output"), "HELLO");
    assert_eq!(world.redis_cli("HEXISTS hero:job:one error"), "0");
    world.redis_cli("HSET hero:job:two script hello status dispatched");
    world.redis_cli("LPUSH hero:q:work:type:osis two");
    assert_eq!(world.answer("two").await.as_deref(), Ok("HELLO"));
    let seconds: i64 = world.redis_cli("TTL hero:q:reply:two").parse().unwrap();
    assert!((3_000..=3_600).contains(&seconds), "a reply that nobody takes has an end: {seconds}");
    assert_eq!(world.redis_cli("TTL hero:job:two"), "-1", "the hash is theirs");
}

#[tokio::test]
async fn a_ping_is_answered_with_pong_though_nothing_is_published() {
    let mut world = World::new(&["osis"]).await;
    let _host = world.host(&[]);
    world.push("osis", "p", "ping", &[]).await;
    assert_eq!(world.answer("p").await.as_deref(), Ok("pong"));
    let jobs = world.cli(&["jobs", "ls", "--output", "json"]).ok();
    assert!(!jobs.contains("hero:p"), "it was never a job: {jobs}");
}

#[tokio::test]
async fn a_failure_is_answered_at_once_and_listed_as_dead() {
    let mut world = World::new(&["osis", "sal"]).await;
    world.publish();
    let mut host = world.host(&[]);
    world.push("sal", "bad", "fail no luck", &[("output", "of an earlier life")]).await;
    assert_eq!(world.answer("bad").await, Err("no luck".to_owned()), "{}", host.said());
    let dead = world.cli(&["dlq", "ls", "--queue", "hero-sal"]);
    assert!(dead.stdout.contains("hero:bad") && dead.stdout.contains("no luck"), "{dead:?}");
}

#[tokio::test]
async fn a_job_is_given_its_fields_and_its_script_byte_for_byte() {
    let mut world = World::new(&["v"]).await;
    world.publish();
    let _host = world.host(&[]);
    let env = r#"{"A": "1"}"#;
    let more = [("caller_id", "02ab"), ("context_id", "circle"), ("env_vars", env), ("prerequisites", "[]")];
    world.push("v", "id:with:colons", "record", &more).await;
    let record = world.answer("id:with:colons").await.unwrap();
    for (name, value) in [("id", "id:with:colons"), ("protocol", "hero")].into_iter().chain(more) {
        assert!(record.contains(&format!("({name:?}, {value:?})")), "{name}: {record}");
    }
}

#[tokio::test]
async fn a_large_output_is_answered_whole() {
    let mut world = World::new(&["python"]).await;
    world.publish();
    let _host = world.host(&[]);
    world.push("python", "large", "large 1048576", &[]).await;
    assert_eq!(world.answer("large").await.map(|output| output.len()), Ok(1_048_576));
}

#[tokio::test]
async fn retries_are_further_attempts_and_only_the_last_is_answered() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let _host = world.host_with("[retry]\nbase = '1ms'\ncap = '5ms'\n");
    world.push("osis", "thrice", "fail again", &[("retries", "2")]).await;
    assert_eq!(world.answer("thrice").await, Err("again".to_owned()));
    let row = world.store.job(&"hero:thrice".into()).await.unwrap().unwrap();
    assert_eq!((row.attempts(), row.number("deliveries")), (3, Some(3)), "{row:?}");
    world.push("osis", "once", "fail at once", &[]).await;
    assert_eq!(world.answer("once").await, Err("at once".to_owned()));
    assert_eq!(world.store.job(&"hero:once".into()).await.unwrap().unwrap().attempts(), 1);
}

#[tokio::test]
async fn a_job_that_will_be_tried_again_is_started_and_can_be_cancelled_then() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let _host = world.host_with("[retry]\nbase = '1h'\ncap = '24h'\n");
    world.push("osis", "later", "fail for a while", &[("retries", "1")]).await;
    crate::support::redis::wait_until("the job waits for its second attempt", super::PATIENCE, async || {
        world.store.job(&"hero:later".into()).await.ok()??.number("attempts").filter(|n| *n == 1)
    })
    .await;
    assert_eq!(world.hash("later").await["status"], "started");
    world.cli(&["jobs", "cancel", "hero:later"]).ok();
    let said = world.answer("later").await.unwrap_err();
    assert!(said.contains("cancelled"), "{said}");
}

#[tokio::test]
async fn a_dead_job_that_is_requeued_is_started_and_answered_once_more() {
    let mut world = World::new(&["osis"]).await;
    let mut host = world.host_with("[retry]\nbase = '1ms'\ncap = '5ms'\n");
    world.push("osis", "late", "x", &[]).await;
    assert!(world.answer("late").await.unwrap_err().contains("no jumpscript serves"));
    assert_eq!(world.redis_cli("DEL hero:q:reply:late"), "1");
    world.cli(&["queues", "pause", "hero-osis"]).ok();
    world.cli(&["dlq", "requeue", "hero:late"]).ok();
    let hash = world.hash("late").await;
    assert_eq!((hash["status"].as_str(), hash.get("error")), ("started", None), "{hash:?}");
    world.publish();
    world.cli(&["queues", "resume", "hero-osis"]).ok();
    assert_eq!(world.answer("late").await.as_deref(), Ok("X"), "{}", host.said());
}

/// A supervisor that creates the same job anew and starts it again means it.
#[tokio::test]
async fn a_job_that_has_ended_runs_again_when_it_is_created_anew() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let _host = world.host(&[]);
    for (script, answer) in [("fail first", Err("first")), ("good", Ok("GOOD")), ("fail last", Err("last"))] {
        world.push("osis", "again", script, &[]).await;
        assert_eq!(world.answer("again").await.as_deref().map_err(String::as_str), answer);
        let _: i64 = redis::AsyncCommands::del(&mut world.raw, "hero:q:reply:again").await.unwrap();
    }
}
