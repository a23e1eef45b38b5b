//! The take-over itself: what others do to the list and the records between the look and the take.

use redis::AsyncCommands as _;
use wasmhost::protocol::{Protocol, hero};
use wasmhost::store::{Error, Found, TakenOver};

use super::World;

impl World {
    async fn seen(&self) -> Vec<Found> {
        self.store.look_at(&hero::source("osis"), 128, 1000).await.unwrap().found
    }

    async fn take(&self, seen: Vec<Found>, waiting_max: u32) -> Result<TakenOver, Error> {
        let messages: Vec<_> = seen
            .into_iter()
            .map(|found| {
                let message = hero::decode("osis", &found.id, &found.record);
                (found, message)
            })
            .collect();
        self.store.take_over(Protocol::Hero, &hero::source("osis"), &messages, waiting_max).await
    }

    async fn list(&self) -> Vec<String> {
        self.raw.clone().lrange("hero:q:work:type:osis", 0, -1).await.unwrap()
    }

    async fn ready(&self) -> Vec<String> {
        self.raw.clone().lrange(format!("{}:queue:hero-osis:ready", self.prefix), 0, -1).await.unwrap()
    }
}

#[tokio::test]
async fn the_newest_is_taken_first_as_the_originals_do() {
    let mut world = World::new(&[]).await;
    for id in ["a", "b", "c"] {
        world.push("osis", id, "x", &[]).await;
    }
    let taken = world.take(world.seen().await, 1000).await.unwrap();
    assert_eq!((taken.taken, taken.new, taken.is_full), (3, 3, false));
    assert_eq!(world.ready().await, ["hero:c", "hero:b", "hero:a"]);
    assert_eq!(world.hash("a").await["status"], "started");
}

#[tokio::test]
async fn what_is_pushed_between_look_and_take_stays_in_its_order() {
    let mut world = World::new(&[]).await;
    for id in ["a", "b"] {
        world.push("osis", id, "x", &[]).await;
    }
    let seen = world.seen().await;
    for id in ["c", "d"] {
        world.push("osis", id, "x", &[]).await;
    }
    assert_eq!(world.take(seen, 1000).await.unwrap().taken, 2);
    assert_eq!(world.list().await, ["d", "c"]);
    assert_eq!(world.ready().await, ["hero:b", "hero:a"]);
}

#[tokio::test]
async fn what_another_program_took_or_changed_meanwhile_is_left_alone() {
    let mut world = World::new(&[]).await;
    for id in ["ended", "taken", "deleted", "same"] {
        world.push("osis", id, "x", &[]).await;
    }
    let seen = world.seen().await;
    let _: i64 = world.raw.lrem("hero:q:work:type:osis", 1, "taken").await.unwrap();
    let _: i64 = world.raw.hset("hero:job:ended", "status", "finished").await.unwrap();
    let _: i64 = world.raw.del("hero:job:deleted").await.unwrap();
    let taken = world.take(seen, 1000).await.unwrap();
    assert_eq!((taken.taken, taken.new), (1, 1));
    assert_eq!(world.ready().await, ["hero:same"]);
    assert_eq!(world.list().await, ["deleted", "ended"], "the next look finds out");
    let taken = world.take(world.seen().await, 1000).await.unwrap();
    assert_eq!((taken.taken, taken.new, taken.known, taken.set_aside.len()), (2, 0, 1, 1));
}

#[tokio::test]
async fn an_id_that_is_pushed_twice_is_one_job() {
    let mut world = World::new(&[]).await;
    world.push("osis", "twice", "x", &[]).await;
    world.start("osis", "twice").await;
    assert_eq!(world.take(world.seen().await, 1000).await.unwrap().new, 1);
    let taken = world.take(world.seen().await, 1000).await.unwrap();
    assert_eq!((taken.taken, taken.new, taken.known), (1, 0, 1));
    assert_eq!((world.list().await.len(), world.ready().await.len()), (0, 1));
}

#[tokio::test]
async fn a_queue_that_has_enough_takes_no_more() {
    let mut world = World::new(&[]).await;
    for n in 0..10 {
        world.push("osis", &format!("j{n}"), "x", &[]).await;
    }
    let taken = world.take(world.seen().await, 4).await.unwrap();
    assert_eq!((taken.new, taken.is_full), (4, true));
    assert_eq!((world.list().await.len(), world.ready().await.len()), (6, 4));
    // The operator's own limit counts, too, and drops nothing of theirs.
    world.cli(&["queues", "set", "hero-osis", "--capacity", "6", "--on-full", "drop-oldest"]).ok();
    let taken = world.take(world.seen().await, 1000).await.unwrap();
    assert_eq!(taken.new, 2);
    assert_eq!((world.list().await.len(), world.ready().await.len()), (4, 6));
    assert!(world.seen().await.is_empty(), "what has no room is not read");
}

#[tokio::test]
async fn a_full_redis_takes_nothing_from_the_list() {
    let mut world = World::new(&[]).await;
    world.push("osis", "a", "x", &[]).await;
    let seen = world.seen().await;
    world.redis_cli("CONFIG SET maxmemory 1");
    let error = world.take(seen, 1000).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    world.redis_cli("CONFIG SET maxmemory 0");
    assert_eq!((world.list().await, world.ready().await.len()), (vec!["a".to_owned()], 0));
    assert_eq!(world.hash("a").await["status"], "dispatched");
}

#[tokio::test]
async fn a_structure_of_the_wrong_type_takes_nothing_from_the_list() {
    let mut world = World::new(&[]).await;
    world.push("osis", "a", "x", &[]).await;
    let _: () = world.raw.set(format!("{}:queue:hero-osis:dlq", world.prefix), "x").await.unwrap();
    let error = world.take(world.seen().await, 1000).await.unwrap_err().to_string();
    assert!(error.contains("must be a list"), "{error}");
    assert_eq!(world.list().await, ["a"]);
}

/// Two thousand ids of a kilobyte each: neither a look nor a take walks through all of them.
#[tokio::test]
async fn large_records_are_read_a_few_at_a_time() {
    let mut world = World::new(&[]).await;
    let script = "x".repeat(600_000);
    for n in 0..5 {
        world.push("osis", &format!("j{n}"), &script, &[]).await;
    }
    let seen = world.seen().await;
    assert_eq!(seen.len(), 2, "a megabyte is enough for one look");
    assert_eq!(world.take(seen, 1000).await.unwrap().new, 2);
    assert_eq!(world.list().await.len(), 3);
}
