//! The good end of an attempt.

use wasmhost::job::{JobId, NewJob};
use wasmhost::store::{End, Lost, Settle, Settled};

use super::{Bench, done, end, job, retry, settle, take, take_one};

#[tokio::test]
async fn an_ack_ends_the_job_with_its_result_and_a_ttl() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    let with_fields = Settle {
        fields: vec![("result_type", b"text/plain".to_vec()), ("usage", b"12 8 65536".to_vec())],
        ..settle(&reserved, done("bytes \u{0} and all"))
    };
    assert_eq!(bench.store.turn(&[with_fields], None).await.unwrap().settled, [Settled::Applied]);
    for (field, value) in [
        ("status", "done"),
        ("result", "bytes \u{0} and all"),
        ("result_type", "text/plain"),
        ("usage", "12 8 65536"),
        ("lease_token", ""),
        ("lease_expires_at_nano", "0"),
        ("done_token", reserved.token.as_str()),
    ] {
        assert_eq!(bench.field("a", field).await, value, "{field}");
    }
    let ttl: i64 = bench.raw(&["TTL", &bench.job_key("a")]).await;
    assert!((3_590..=3_600).contains(&ttl), "{ttl}");
    let list_ttl: i64 = bench.raw(&["TTL", &bench.key("q", "done")]).await;
    assert!(list_ttl > 0, "the list of done jobs does not outlive them for ever");
    bench.check().await;
}

#[tokio::test]
async fn a_repeated_ack_with_the_same_token_succeeds_and_writes_nothing() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    assert_eq!(end(&bench.store, &reserved, done("first")).await, Settled::Applied);
    assert_eq!(end(&bench.store, &reserved, done("second")).await, Settled::Repeated);
    assert_eq!(bench.field("a", "result").await, "first");
    let done_ids: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "done"), "0", "-1"]).await;
    assert_eq!(done_ids, ["a"]);
    let mut other = reserved.clone();
    other.token = "another".to_owned();
    assert_eq!(end(&bench.store, &other, done("")).await, Settled::LeaseLost(Lost::NotInflight));
    bench.check().await;
}

#[tokio::test]
async fn one_job_twice_in_a_batch_is_ended_once() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    let twice = [settle(&reserved, done("1")), settle(&reserved, done("2"))];
    let settled = bench.store.turn(&twice, None).await.unwrap().settled;
    assert_eq!(settled, [Settled::Applied, Settled::Repeated]);
    bench.check().await;
}

#[tokio::test]
async fn a_wrong_token_ends_nothing() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let mut reserved = take_one(&bench.at(0), "q").await;
    for token in ["", "wrong"] {
        reserved.token = token.to_owned();
        assert_eq!(end(&bench.at(1), &reserved, done("")).await, Settled::LeaseLost(Lost::Mismatch), "`{token}`");
        // An ack is told of the foreign token first, whatever the time.
        assert_eq!(end(&bench.at(60_000), &reserved, done("")).await, Settled::LeaseLost(Lost::Mismatch));
    }
    assert_eq!(bench.field("a", "status").await, "inflight");
}

#[tokio::test]
async fn a_late_ack_is_refused_even_before_anybody_reclaimed_the_job() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    assert_eq!(end(&bench.at(30_000), &reserved, done("")).await, Settled::LeaseLost(Lost::Expired));
    assert_eq!(bench.field("a", "status").await, "inflight");
    let next = take_one(&bench.at(30_001), "q").await;
    assert_eq!(end(&bench.at(30_002), &reserved, done("")).await, Settled::LeaseLost(Lost::Mismatch));
    assert_eq!(end(&bench.at(30_003), &next, done("mine")).await, Settled::Applied);
    assert_eq!(bench.field("a", "result").await, "mine");
    bench.check().await;
}

#[tokio::test]
async fn a_job_that_is_not_in_flight_cannot_be_ended() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let waiting = Settle {
        id: JobId::from("a"),
        queue: "q".to_owned(),
        token: "t".to_owned(),
        end: done(""),
        fields: Vec::new(),
        effects: wasmhost::effects::Effects::none(),
        digest: None,
    };
    let unknown = Settle { id: JobId::from("nobody"), ..waiting.clone() };
    let settled = bench.store.turn(&[waiting, unknown], None).await.unwrap().settled;
    assert_eq!(settled, [Settled::LeaseLost(Lost::NotInflight), Settled::LeaseLost(Lost::NotInflight)]);
    assert!(bench.store.job(&JobId::from("nobody")).await.unwrap().is_none(), "no hash is made for it");
    bench.check().await;
}

#[tokio::test]
async fn a_bad_member_of_a_batch_does_not_stop_the_others() {
    let mut bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..5).map(|n| job(&n.to_string(), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let mut reserved = take(&bench.store, "q", 5).await;
    reserved[1].token = "wrong".to_owned();
    let key = bench.job_key("2");
    bench.raw::<i64>(&["DEL", &key]).await;
    bench.raw::<()>(&["SET", &key, "a string"]).await;
    let ends: Vec<Settle> = reserved.iter().map(|job| settle(job, done(""))).collect();
    let settled = bench.store.turn(&ends, None).await.unwrap().settled;
    assert_eq!(settled[0], Settled::Applied);
    assert_eq!(settled[1], Settled::LeaseLost(Lost::Mismatch));
    assert!(matches!(&settled[2], Settled::Refused(why) if why.contains(&key)), "{:?}", settled[2]);
    assert_eq!(settled[3..], [Settled::Applied, Settled::Applied]);
}

#[tokio::test]
async fn a_turn_ends_a_batch_and_takes_the_next() {
    let mut bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..100).map(|n| job(&n.to_string(), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    let mut held = take(&bench.store, "q", 32).await;
    let mut n_done = 0;
    while !held.is_empty() {
        let ends: Vec<Settle> = held.iter().map(|job| settle(job, done("ok"))).collect();
        let turn = bench.store.turn(&ends, Some(&super::ask("q", 32))).await.unwrap();
        assert!(turn.settled.iter().all(|settled| *settled == Settled::Applied));
        n_done += held.len();
        held = turn.reserved.jobs;
    }
    assert_eq!(n_done, 100);
    let info = bench.store.queues().await.unwrap();
    assert_eq!((info[0].ready, info[0].inflight, info[0].done), (0, 0, 100));
    assert!(info[0].counters.contains(&("done".to_owned(), 100)));
    bench.check().await;
}

#[tokio::test]
async fn a_released_job_goes_to_the_head_and_its_delivery_does_not_count() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q"), job("b", "q"), job("c", "q")]).await.unwrap();
    let held = take(&bench.store, "q", 2).await;
    let ends: Vec<Settle> = held.iter().map(|job| settle(job, End::Release)).collect();
    assert_eq!(bench.store.turn(&ends, None).await.unwrap().settled, [Settled::Applied, Settled::Applied]);
    assert_eq!(bench.store.turn(&ends, None).await.unwrap().settled, [Settled::Repeated, Settled::Repeated]);
    let ready: Vec<String> = bench.raw(&["LRANGE", &bench.key("q", "ready"), "0", "-1"]).await;
    assert_eq!(ready, ["a", "b", "c"], "in their old order");
    let again = take_one(&bench.store, "q").await;
    assert_eq!((again.deliveries, again.attempts), (1, 0));
    bench.check().await;
}

#[tokio::test]
async fn a_retry_and_a_done_of_the_same_lease_cannot_both_happen() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    assert_eq!(end(&bench.store, &reserved, retry(1, std::time::Duration::ZERO)).await, Settled::Applied);
    assert_eq!(end(&bench.store, &reserved, done("late")).await, Settled::Repeated, "this token has settled it");
    assert_eq!(bench.field("a", "status").await, "ready");
    bench.check().await;
}
