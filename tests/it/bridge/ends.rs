//! Jobs that end without a worker: whoever ends them, they are answered, and once.

use std::time::Duration;

use wasmhost::clock::Timestamp;
use wasmhost::job::JobId;
use wasmhost::protocol::{Message, Protocol, hero};
use wasmhost::store::{Cancelled, Settled};

use super::World;
use crate::engine::{done, end, take, take_one};

impl World {
    /// Takes over what lies in a list, as a bridge does, and has the answers known.
    async fn adopt(&mut self, script_type: &str) {
        let sources = [hero::source(script_type)];
        let look = self.store.look_at(&sources[0], 128, 1000).await.unwrap();
        let read = |found: wasmhost::store::Found| {
            let message = hero::decode(script_type, &found.id, &found.record);
            assert!(matches!(message, Message::Job { .. }), "{message:?}");
            (found, message)
        };
        let messages: Vec<_> = look.found.into_iter().map(read).collect();
        let taken = self.store.take_over(Protocol::Hero, &sources[0], &messages, 1000).await.unwrap();
        assert_eq!(taken.new as usize, messages.len(), "{taken:?}");
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_runs_is_answered() {
    let mut world = World::new(&[]).await;
    world.push("osis", "waits", "x", &[]).await;
    world.push("osis", "runs", "x", &[]).await;
    world.adopt("osis").await;
    let held = take_one(&world.store, "hero-osis").await;
    for id in ["hero:waits", "hero:runs"] {
        let cancelled = world.store.cancel("hero-osis", &JobId::from(id), "cancelled: not wanted").await.unwrap();
        assert!(matches!(cancelled, Cancelled::Applied(_)), "{cancelled:?}");
    }
    // The one that runs comes too late with its result.
    end(&world.store, &held, done("late")).await;
    for id in ["waits", "runs"] {
        assert_eq!(world.answer(id).await, Err("cancelled: not wanted".to_owned()));
    }
}

#[tokio::test]
async fn waiting_jobs_that_are_purged_are_answered() {
    let mut world = World::new(&[]).await;
    for n in 0..3 {
        world.push("osis", &format!("j{n}"), "x", &[]).await;
    }
    world.adopt("osis").await;
    world.cli(&["queues", "purge", "hero-osis", "--yes"]).ok();
    for n in 0..3 {
        assert_eq!(world.answer(&format!("j{n}")).await, Err("purged before it was run".to_owned()));
    }
}

#[tokio::test]
async fn a_job_whose_hosts_are_lost_is_answered_after_the_last_of_them() {
    let mut world = World::new(&[]).await;
    world.push("osis", "poison", "x", &[]).await;
    world.adopt("osis").await;
    for n in 1..=3 {
        assert_eq!(world.hash("poison").await["status"], "started", "{n}");
        let later = world.store.at(Timestamp::now().after(Duration::from_secs(60 * n)));
        take_one(&later, "hero-osis").await;
    }
    let later = world.store.at(Timestamp::now().after(Duration::from_secs(600)));
    assert!(take(&later, "hero-osis", 1).await.is_empty());
    let said = world.answer("poison").await.unwrap_err();
    assert!(said.contains("handed out 3 times"), "{said}");
}

#[tokio::test]
async fn a_record_that_somebody_broke_is_answered_too() {
    let mut world = World::new(&[]).await;
    world.push("osis", "broken", "x", &[]).await;
    world.adopt("osis").await;
    let row = format!("{}:job:hero:broken", world.prefix);
    let _: i64 = redis::AsyncCommands::hset(&mut world.raw, row, "attempts", "many").await.unwrap();
    assert!(take(&world.store, "hero-osis", 1).await.is_empty());
    assert!(world.answer("broken").await.unwrap_err().contains("field `attempts` is `many`"));
}

/// Their keys are theirs to break; our own transition passes, and what could not be told is counted.
#[tokio::test]
async fn an_answer_that_cannot_be_written_is_dropped_and_counted() {
    let mut world = World::new(&[]).await;
    for id in ["gone", "text", "list"] {
        world.push("osis", id, "x", &[]).await;
    }
    world.adopt("osis").await;
    let _: () = redis::AsyncCommands::del(&mut world.raw, "hero:job:gone").await.unwrap();
    let _: () = redis::AsyncCommands::set(&mut world.raw, "hero:job:text", "no hash").await.unwrap();
    let _: () = redis::AsyncCommands::set(&mut world.raw, "hero:q:reply:list", "no list").await.unwrap();
    let held = take(&world.store, "hero-osis", 9).await;
    for job in &held {
        assert_eq!(end(&world.store, job, done("42")).await, Settled::Applied);
    }
    let queues = world.store.queues().await.unwrap();
    let counters = &queues.iter().find(|queue| queue.name == "hero-osis").unwrap().counters;
    assert!(counters.contains(&("unanswered".to_owned(), 3)), "{counters:?}");
    assert!(world.hash("gone").await.is_empty(), "a hash that was deleted does not come back");
    assert_eq!(world.hash("list").await["output"], "42");
    assert_eq!(world.redis_cli("LRANGE hero:q:reply:gone 0 -1"), "42", "who still waits is told");
}

/// The id alone does not make a job theirs, nor does the queue.
#[tokio::test]
async fn a_job_of_ours_in_their_queue_is_answered_to_nobody() {
    let mut world = World::new(&[]).await;
    world.adopt("osis").await;
    world.create("x", "theirs", &[]).await;
    for (queue, id) in [("hero-osis", "plain"), ("default", "hero:x")] {
        let fields = [("type", "t"), ("queue", queue), ("payload", ""), ("status", "ready")];
        let row = format!("{}:job:{id}", world.prefix);
        let _: () = redis::AsyncCommands::hset_multiple(&mut world.raw, row, &fields).await.unwrap();
        let ready = format!("{}:queue:{queue}:ready", world.prefix);
        let _: i64 = redis::AsyncCommands::rpush(&mut world.raw, ready, id).await.unwrap();
        world.store.cancel(queue, &JobId::from(id), "no").await.unwrap();
    }
    assert_eq!(world.hash("x").await["status"], "dispatched");
    assert_eq!(world.redis_cli("KEYS hero:q:reply:*"), "");
}
