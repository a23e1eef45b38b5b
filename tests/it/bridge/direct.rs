//! What a worker takes from another system's list itself: only what is plain, and then the very job that the codec makes
//! of it; everything else stays for the bridge.

use std::collections::BTreeMap;

use redis::AsyncCommands as _;
use wasmhost::clock::Timestamp;
use wasmhost::job::Reserved;
use wasmhost::protocol::{Protocol, hero};
use wasmhost::store::{Drawn, Reservation, Settled, Store};

use super::World;
use crate::engine::{ask, done, end, settle, take, take_one};

impl World {
    /// The store of a worker that takes from the list of `osis` itself.
    fn taking(&self) -> Store {
        self.store.taking_from([hero::source("osis")])
    }

    async fn draw(&self, limit: u32) -> Reservation {
        self.taking().turn(&[], Some(&ask("hero-osis", limit))).await.unwrap().reserved
    }

    /// The job of a list's one message, as the bridge takes it over and a worker then takes it.
    async fn by_way_of_the_codec(&self) -> Reserved {
        let source = hero::source("osis");
        let found = self.store.look_at(&source, 128, 1000).await.unwrap().found;
        let read = |found: wasmhost::store::Found| {
            let message = hero::decode("osis", &found.id, &found.record);
            (found, message)
        };
        let messages: Vec<_> = found.into_iter().map(read).collect();
        self.store.take_over(Protocol::Hero, &source, &messages, 1000).await.unwrap();
        take_one(&self.store, "hero-osis").await
    }

    /// A row without what differs each time, and its metadata as what it is read as.
    async fn row(&mut self, id: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let key = [format!("{}:job:hero:", self.prefix).as_bytes(), id].concat();
        let mut row: BTreeMap<String, Vec<u8>> = self.raw.hgetall(key).await.unwrap();
        for field in ["lease_token", "lease_expires_at_nano", "created_at_nano"] {
            row.remove(field).unwrap_or_else(|| panic!("a row has {field}"));
        }
        let metadata: serde_json::Value = serde_json::from_str(&String::from_utf8_lossy(&row["metadata"])).unwrap();
        row.insert("metadata".to_owned(), metadata.to_string().into_bytes());
        row
    }

    async fn length(&mut self) -> u64 {
        self.raw.llen("hero:q:work:type:osis").await.unwrap()
    }
}

fn ids(jobs: &[Reserved]) -> Vec<String> {
    jobs.iter().map(|job| job.id.to_string()).collect()
}

type Fields = &'static [(&'static str, &'static [u8])];

/// Records that a script reads by itself.
const PLAIN: [(&[u8], Fields); 13] = [
    (b"a", &[("script", b"x")]),
    (b"colons:and spaces", &[("script", b"x"), ("status", b"dispatched"), ("caller_id", b"02ab c~!#")]),
    (b"b", &[("script", b"print(\"\xff\\\x00\")\n"), ("status", b"waiting_for_prerequisites")]),
    (b"c", &[("script", b"x"), ("timeout", b"30"), ("retries", b"2"), ("created_at", b"2025-08-14T12:14:34Z")]),
    (b"d", &[("script", b"x"), ("timeout", b"0"), ("retries", b"0"), ("prerequisites", b"[]"), ("log_path", b"")]),
    (b"e", &[("script", b"x"), ("timeout", b""), ("retries", b""), ("output", b""), ("error", b""), ("status", b"")]),
    (b"f", &[("script", b"x"), ("timeout", b"9999"), ("retries", b"99"), ("concurrent", b"false")]),
    (
        b"g",
        &[("script", b"ping "), ("actor_id", b"a"), ("worker_id", b"w"), ("dependents", b"1"), ("dependencies", b"2")],
    ),
    (b"h", &[("script", b"x"), ("status", b"started"), ("something", b"\"else\""), ("context_id", b"circle-1")]),
    (b"i", &[("script", b"x"), ("id", b"another"), ("protocol", b"none"), ("env_vars", b"{\"A\": \"/1\\n\"}")]),
    (b"quote\"", &[("script", b"x"), ("caller_id", b"a\\b\n\x00\x7f")]),
    ("\u{fc}nicode \u{1f980}".as_bytes(), &[("script", b"x"), ("caller_id", "\u{202e}\u{e9}".as_bytes())]),
    (b"no-text-\xff", &[("script", b"x"), ("caller_id", b"\xc3\x28 \xfe"), ("log_path", b"\xe2\x82")]),
];

/// Records that are for the codec.
const ODD: [(&str, Fields); 15] = [
    ("missing", &[]),
    ("", &[("script", b"x")]),
    ("no-script", &[("status", b"dispatched")]),
    ("empty-script", &[("script", b"")]),
    ("ping", &[("script", b"ping")]),
    ("finished", &[("script", b"x"), ("status", b"finished")]),
    ("error", &[("script", b"x"), ("status", b"error")]),
    ("again", &[("script", b"x"), ("output", b"of an earlier life")]),
    ("failed", &[("script", b"x"), ("error", b"of an earlier life")]),
    ("long-timeout", &[("script", b"x"), ("timeout", b"86401")]),
    ("many-retries", &[("script", b"x"), ("retries", b"100")]),
    ("zeros", &[("script", b"x"), ("timeout", b"030")]),
    ("spaces", &[("script", b"x"), ("timeout", b" 30")]),
    ("no-number", &[("script", b"x"), ("retries", b"-1")]),
    ("no-seconds", &[("script", b"x"), ("timeout", b"1e3")]),
];

#[tokio::test]
async fn what_a_worker_takes_itself_is_the_job_that_the_codec_makes() {
    let mut world = World::new(&[]).await;
    for (id, fields) in PLAIN {
        let shown = String::from_utf8_lossy(id);
        let hash = [b"hero:job:", id].concat();
        let row = [format!("{}:job:hero:", world.prefix).as_bytes(), id].concat();
        let mut both = Vec::new();
        for is_direct in [true, false] {
            let _: i64 = world.raw.del(&[&hash, &row]).await.unwrap();
            let _: () = world.raw.hset_multiple(&hash, fields).await.unwrap();
            let _: i64 = world.raw.lpush("hero:q:work:type:osis", id).await.unwrap();
            let job = if is_direct {
                let mut reserved = world.draw(2).await;
                assert_eq!(reserved.drawn, [("hero-osis".to_owned(), Drawn::Empty)], "{shown}");
                reserved.jobs.pop().unwrap_or_else(|| panic!("{shown} is plain"))
            } else {
                world.by_way_of_the_codec().await
            };
            let (status, time): (String, String) = world.raw.hmget(&hash, &["status", "updated_at"]).await.unwrap();
            assert_eq!((status.as_str(), time.len(), world.length().await), ("started", 24, 0), "{shown}");
            both.push((world.row(id).await, Reserved { token: String::new(), created_at: None, ..job.clone() }));
            // Its lease ends with it, or the next of the same name would be in flight already.
            assert_eq!(end(&world.store, &job, done("")).await, Settled::Applied);
        }
        assert_eq!(both[0], both[1], "{shown}");
    }
}

#[tokio::test]
async fn what_is_not_plain_stays_in_the_list_as_it_was() {
    for (id, fields) in ODD {
        let mut world = World::new(&[]).await;
        if !fields.is_empty() {
            let _: () = world.raw.hset_multiple(format!("hero:job:{id}"), fields).await.unwrap();
        }
        world.start("osis", id).await;
        world.push("osis", "plain", "x", &[]).await;
        let before: BTreeMap<String, Vec<u8>> = world.raw.hgetall(format!("hero:job:{id}")).await.unwrap();
        let reserved = world.draw(10).await;
        assert_eq!(ids(&reserved.jobs), ["hero:plain"], "those before it: {id}");
        assert_eq!(reserved.drawn, [("hero-osis".to_owned(), Drawn::Left)], "{id}");
        let after: BTreeMap<String, Vec<u8>> = world.raw.hgetall(format!("hero:job:{id}")).await.unwrap();
        assert_eq!((before, world.length().await), (after, 1), "{id}");
    }
}

/// Hashes that nobody should read whole, and ids that no job of ours can have.
#[tokio::test]
async fn what_is_too_large_or_no_hash_stays_in_the_list() {
    let mut world = World::new(&[]).await;
    let many: Vec<_> = (0..64).map(|n| (format!("field{n}"), "x")).chain([("script".to_owned(), "x")]).collect();
    let _: () = world.raw.hset_multiple("hero:job:many", &many).await.unwrap();
    let _: () = world.raw.set("hero:job:string", "x").await.unwrap();
    let long = "x".repeat(1020);
    world.create(&long, "x", &[]).await;
    for id in ["many", "string", &long] {
        world.start("osis", id).await;
        let reserved = world.draw(10).await;
        assert_eq!((reserved.jobs.len(), reserved.drawn), (0, vec![("hero-osis".to_owned(), Drawn::Left)]), "{id}");
        let _: Option<String> = world.raw.lpop("hero:q:work:type:osis", None).await.unwrap();
    }
}

#[tokio::test]
async fn the_newest_is_taken_first_and_no_more_than_there_is_room_for() {
    let mut world = World::new(&[]).await;
    for id in ["a", "b", "c"] {
        world.push("osis", id, "x", &[]).await;
    }
    let first = world.draw(2).await;
    assert_eq!((ids(&first.jobs), first.is_more), (vec!["hero:c".to_owned(), "hero:b".to_owned()], true));
    assert_eq!(first.drawn, [("hero-osis".to_owned(), Drawn::More)]);
    assert_eq!(first.taken_per_queue, [2]);
    let second = world.draw(2).await;
    assert_eq!((ids(&second.jobs), second.is_more), (vec!["hero:a".to_owned()], false));
    assert_eq!(second.drawn, [("hero-osis".to_owned(), Drawn::Empty)]);
    for job in first.jobs.iter().chain(&second.jobs) {
        assert_eq!(end(&world.store, job, done("well")).await, Settled::Applied);
    }
    for id in ["a", "b", "c"] {
        assert_eq!(world.answer(id).await.as_deref(), Ok("well"));
    }
}

#[tokio::test]
async fn what_waits_in_the_queue_goes_first() {
    let mut world = World::new(&[]).await;
    world.push("osis", "older", "x", &[]).await;
    world.by_way_of_the_codec().await;
    let later = world.store.at(Timestamp::from_nanos(Timestamp::now().nanos() + 3_600_000_000_000));
    later.sweep(&["hero-osis".to_owned()]).await.unwrap();
    world.push("osis", "newer", "x", &[]).await;
    assert_eq!(ids(&world.draw(1).await.jobs), ["hero:older"]);
    assert_eq!(ids(&world.draw(2).await.jobs), ["hero:newer"]);
}

#[tokio::test]
async fn a_queue_that_is_paused_or_at_its_limit_takes_nothing_from_the_list() {
    let mut world = World::new(&[]).await;
    for id in ["a", "b", "c"] {
        world.push("osis", id, "x", &[]).await;
    }
    world.cli(&["queues", "pause", "hero-osis"]).ok();
    let paused = world.draw(3).await;
    assert_eq!((paused.jobs.len(), paused.drawn), (0, vec![("hero-osis".to_owned(), Drawn::Left)]));
    world.cli(&["queues", "resume", "hero-osis"]).ok();
    world.cli(&["queues", "set", "hero-osis", "--concurrency", "2"]).ok();
    assert_eq!(world.draw(3).await.jobs.len(), 2);
    let full = world.draw(3).await;
    assert_eq!((full.jobs.len(), full.drawn), (0, vec![("hero-osis".to_owned(), Drawn::Left)]));
    assert_eq!(world.length().await, 1);
}

#[tokio::test]
async fn an_id_that_is_known_already_is_left_to_the_bridge() {
    let mut world = World::new(&[]).await;
    world.push("osis", "twice", "x", &[]).await;
    world.start("osis", "twice").await;
    let reserved = world.draw(10).await;
    assert_eq!((ids(&reserved.jobs), world.length().await), (vec!["hero:twice".to_owned()], 1));
    assert_eq!(world.draw(10).await.drawn, [("hero-osis".to_owned(), Drawn::Left)]);
}

/// The settle of the same turn writes, and after the first write of a script Redis refuses none: it is asked before.
#[tokio::test]
async fn a_full_redis_takes_nothing_from_the_list_but_settles() {
    let mut world = World::new(&[]).await;
    world.push("osis", "first", "x", &[]).await;
    let held = world.draw(1).await.jobs.remove(0);
    world.push("osis", "second", "x", &[]).await;
    world.redis_cli("CONFIG SET maxmemory 1");
    let turn = world.taking().turn(&[settle(&held, done("well"))], Some(&ask("hero-osis", 10))).await.unwrap();
    world.redis_cli("CONFIG SET maxmemory 0");
    assert_eq!((turn.settled, turn.reserved.jobs.len()), (vec![Settled::Applied], 0));
    assert_eq!(turn.reserved.drawn, [("hero-osis".to_owned(), Drawn::Left)]);
    assert_eq!((world.length().await, world.hash("second").await["status"].as_str()), (1, "dispatched"));
    assert_eq!(world.answer("first").await.as_deref(), Ok("well"));
}

#[tokio::test]
async fn a_key_of_the_wrong_type_takes_nothing_from_the_list() {
    for (key, is_ours) in [("queue:hero-osis:dlq", true), ("protocols", true), ("hero:q:work:type:osis", false)] {
        let mut world = World::new(&[]).await;
        world.push("osis", "a", "x", &[]).await;
        let name = if is_ours { format!("{}:{key}", world.prefix) } else { key.to_owned() };
        let _: () = world.raw.set(&name, "x").await.unwrap();
        let reserved = world.draw(1).await;
        assert_eq!((reserved.jobs.len(), reserved.drawn), (0, vec![("hero-osis".to_owned(), Drawn::Left)]), "{key}");
        assert_eq!(world.hash("a").await["status"], "dispatched", "{key}");
    }
}

#[tokio::test]
async fn large_records_are_taken_a_few_at_a_time() {
    let mut world = World::new(&[]).await;
    let script = "x".repeat(600_000);
    for n in 0..5 {
        world.push("osis", &format!("j{n}"), &script, &[]).await;
    }
    let reserved = world.draw(10).await;
    assert_eq!((reserved.jobs.len(), reserved.is_more), (2, true), "a megabyte is enough for one call");
    assert_eq!(world.length().await, 3);
}

#[tokio::test]
async fn a_job_whose_host_is_lost_runs_again_with_all_it_had_and_is_answered_once() {
    let mut world = World::new(&[]).await;
    let more = [("timeout", "7"), ("retries", "2"), ("caller_id", "02ab")];
    world.push("osis", "orphan", "x", &more).await;
    let lost = world.draw(1).await.jobs.remove(0);
    let later = world.store.at(Timestamp::from_nanos(Timestamp::now().nanos() + 3_600_000_000_000));
    let again = take(&later, "hero-osis", 1).await.remove(0);
    let same = Reserved { token: again.token.clone(), deliveries: 2, ..lost.clone() };
    assert_eq!(again, same);
    assert_ne!(end(&later, &lost, done("late")).await, Settled::Applied);
    assert_eq!(end(&later, &again, done("well")).await, Settled::Applied);
    assert_eq!(world.answer("orphan").await.as_deref(), Ok("well"));
}
