//! Writes that commit with the end of an attempt, or not at all.

use std::time::Duration;

use wasmhost::effects::{Effect, Effects};
use wasmhost::job::{JobId, NewJob};
use wasmhost::store::{Lost, Settle, Settled};

use super::{Bench, done, job, settle, take_one};

/// The end of a job with effects.
fn with(job: &wasmhost::job::Reserved, effects: Vec<Effect>) -> Settle {
    let mut list = Effects::none();
    for effect in effects {
        list.push(effect).unwrap();
    }
    Settle { effects: list, ..settle(job, done("")) }
}

fn child(id: &str) -> Effect {
    Effect::Enqueue(Box::new(job(id, "children")))
}

#[tokio::test]
async fn a_child_job_is_enqueued_with_the_ack() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("parent", "q")]).await.unwrap();
    let parent = take_one(&bench.store, "q").await;
    let settle = with(&parent, vec![child("c1"), child("c2")]);
    assert_eq!(bench.store.turn(std::slice::from_ref(&settle), None).await.unwrap().settled, [Settled::Applied]);
    // An answer that was lost: the same again enqueues nothing again.
    assert_eq!(bench.store.turn(&[settle], None).await.unwrap().settled, [Settled::Repeated]);
    let children = super::take(&bench.store, "children", 8).await;
    assert_eq!(children.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), ["c1", "c2"]);
    bench.check().await;
}

#[tokio::test]
async fn without_the_lease_no_effect_happens() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("parent", "q")]).await.unwrap();
    let mut parent = take_one(&bench.at(0), "q").await;
    let late = bench.at(30_000).turn(&[with(&parent, vec![child("c")])], None).await.unwrap();
    assert_eq!(late.settled, [Settled::LeaseLost(Lost::Expired)]);
    parent.token = "wrong".to_owned();
    let wrong = bench.at(1).turn(&[with(&parent, vec![child("c")])], None).await.unwrap();
    assert_eq!(wrong.settled, [Settled::LeaseLost(Lost::Mismatch)]);
    assert!(bench.store.job(&JobId::from("c")).await.unwrap().is_none());
    bench.check().await;
}

#[tokio::test]
async fn a_delayed_child_and_one_with_a_known_key_keep_their_rules() {
    let mut bench = Bench::new().await;
    let keyed = |id: &str| NewJob { idempotency_key: Some("k".to_owned()), ..job(id, "children") };
    bench.at(0).enqueue(&[job("parent", "q"), keyed("first")]).await.unwrap();
    let parent = take_one(&bench.at(0), "q").await;
    let later = NewJob { run_at: Some(super::moment(5_000)), ..job("later", "children") };
    let effects = vec![Effect::Enqueue(Box::new(keyed("second"))), Effect::Enqueue(Box::new(later))];
    assert_eq!(bench.at(1).turn(&[with(&parent, effects)], None).await.unwrap().settled, [Settled::Applied]);
    assert!(bench.store.job(&JobId::from("second")).await.unwrap().is_none(), "its key was taken");
    assert_eq!(super::take(&bench.at(2), "children", 8).await.len(), 1);
    assert_eq!(super::take(&bench.at(5_000), "children", 8).await.len(), 1);
    bench.check().await;
}

/// The second effect cannot be made: the first is not made either, and the job is still held.
#[tokio::test]
async fn an_effect_on_a_key_of_the_wrong_type_is_refused_before_the_first_write() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("parent", "q"), job("other", "q")]).await.unwrap();
    let held = super::take(&bench.store, "q", 2).await;
    let key = bench.key("broken", "ready");
    bench.raw::<()>(&["SET", &key, "a string"]).await;
    let bad = with(&held[0], vec![child("c"), Effect::Enqueue(Box::new(job("d", "broken")))]);
    let good = settle(&held[1], done(""));
    let settled = bench.store.turn(&[bad, good], None).await.unwrap().settled;
    assert!(matches!(&settled[0], Settled::Refused(why) if why.contains(&key)), "{:?}", settled[0]);
    assert_eq!(settled[1], Settled::Applied, "its neighbour in the batch is not touched by it");
    assert!(bench.store.job(&JobId::from("c")).await.unwrap().is_none());
    assert_eq!(bench.field("parent", "status").await, "inflight");
    // Settled again without these effects.
    let again = bench.store.turn(&[settle(&held[0], super::retry(1, Duration::ZERO))], None).await.unwrap();
    assert_eq!(again.settled, [Settled::Applied]);
    bench.raw::<i64>(&["DEL", &key]).await;
    bench.check().await;
}

/// Every kind of write, on keys as `store::keys` spells them.
#[tokio::test]
async fn every_kind_of_write_is_made_in_order() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let held = take_one(&bench.store, "q").await;
    let hash = || bench.store.keys().effect("other", "counters");
    let list = || bench.store.keys().effect("other", "aside");
    let fields: Vec<(Vec<u8>, Vec<u8>)> =
        (0..2_500).map(|n| (format!("f{n}").into_bytes(), n.to_string().into_bytes())).collect();
    let push = |value: &str| Effect::Push { key: list(), value: value.as_bytes().to_vec(), cap: 2 };
    let settle = with(
        &held,
        vec![
            Effect::SetString { key: hash(), value: b"first a string".to_vec() },
            Effect::Delete { key: hash() },
            Effect::SetFields { key: hash(), fields },
            push("1"),
            push("2"),
            push("3"),
            Effect::Expire { key: list(), ttl: Duration::from_secs(60) },
            Effect::Publish { channel: hash(), message: b"done".to_vec() },
        ],
    );
    let settled = bench.store.turn(&[settle], None).await.unwrap().settled;
    assert_eq!(settled, [Settled::Applied]);
    let (hash, list) = (bench.key("other", "counters"), bench.key("other", "aside"));
    assert_eq!(bench.raw::<i64>(&["HLEN", &hash]).await, 2_500, "more fields than one command carries");
    assert_eq!(bench.raw::<Vec<String>>(&["LRANGE", &list, "0", "-1"]).await, ["2", "3"]);
    assert!(bench.raw::<i64>(&["TTL", &list]).await > 0);
}
