//! Keeping a lease alive.

use std::time::Duration;

use wasmhost::job::{JobId, Reserved};
use wasmhost::store::{Lease, Lost, Settled, Store};

use super::{Bench, LEASE, done, end, job, take, take_one};
use crate::support::redis::RedisServer;

fn lease(job: &Reserved) -> Lease {
    Lease { id: job.id.clone(), queue: job.queue.clone(), token: job.token.clone() }
}

async fn extend(store: &Store, lease: &Lease) -> Settled {
    store.extend(std::slice::from_ref(lease), LEASE).await.unwrap().remove(0)
}

#[tokio::test]
async fn an_extended_lease_holds_longer_with_the_same_token() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    assert_eq!(extend(&bench.at(20_000), &lease(&reserved)).await, Settled::Applied);
    assert!(take(&bench.at(49_999), "q", 1).await.is_empty(), "twenty seconds past the first end");
    assert_eq!(end(&bench.at(49_999), &reserved, done("")).await, Settled::Applied);
    bench.check().await;
}

#[tokio::test]
async fn an_extension_moves_the_end_in_the_set_and_in_the_hash_alike() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    extend(&bench.at(20_000), &lease(&reserved)).await;
    let expires = super::moment(50_000).millis();
    assert_eq!(bench.raw::<String>(&["ZSCORE", &bench.key("q", "inflight"), "a"]).await, expires.to_string());
    assert_eq!(bench.field("a", "lease_expires_at_nano").await, format!("{expires}000000"));
    assert_eq!(bench.field("a", "lease_token").await, reserved.token, "the token stays");
}

#[tokio::test]
async fn an_extension_with_another_token_is_a_mismatch() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    for token in ["wrong", ""] {
        let stranger = Lease { token: token.to_owned(), ..lease(&reserved) };
        assert_eq!(extend(&bench.at(1), &stranger).await, Settled::LeaseLost(Lost::Mismatch), "`{token}`");
    }
    let expires = super::moment(30_000).millis();
    assert_eq!(bench.field("a", "lease_expires_at_nano").await, format!("{expires}000000"), "nothing has moved");
}

/// The time is told before the token.
#[tokio::test]
async fn an_extension_after_the_end_is_expired_and_the_job_is_anybodys() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    let held = lease(&reserved);
    let stranger = Lease { token: "wrong".to_owned(), ..held.clone() };
    assert_eq!(extend(&bench.at(30_000), &held).await, Settled::LeaseLost(Lost::Expired));
    assert_eq!(extend(&bench.at(30_000), &stranger).await, Settled::LeaseLost(Lost::Expired));
    assert_eq!(take_one(&bench.at(30_000), "q").await.id, reserved.id);
    assert_eq!(extend(&bench.at(30_001), &held).await, Settled::LeaseLost(Lost::Mismatch));
}

#[tokio::test]
async fn a_job_that_is_not_in_flight_is_not_extended() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("waiting", "q")]).await.unwrap();
    for id in ["waiting", "nobody"] {
        let other = Lease { id: JobId::from(id), queue: "q".to_owned(), token: "t".to_owned() };
        assert_eq!(extend(&bench.at(1), &other).await, Settled::LeaseLost(Lost::NotInflight), "{id}");
    }
    assert!(bench.store.job(&JobId::from("nobody")).await.unwrap().is_none(), "no hash is made for it");
}

#[tokio::test]
async fn a_job_that_has_ended_is_not_extended() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, done("")).await;
    assert_eq!(extend(&bench.store, &lease(&reserved)).await, Settled::LeaseLost(Lost::NotInflight));
    bench.check().await;
}

#[tokio::test]
async fn a_lease_of_no_length_is_refused() {
    let bench = Bench::new().await;
    assert!(bench.store.extend(&[], Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn progress_is_noted_only_by_the_holder() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    let held = lease(&reserved);
    assert_eq!(bench.at(1).progress(&held, 40, "almost half").await.unwrap(), Settled::Applied);
    assert_eq!(bench.field("a", "progress").await, "40");
    assert_eq!(bench.field("a", "progress_message").await, "almost half");
    let stranger = Lease { token: "wrong".to_owned(), ..held.clone() };
    assert_eq!(bench.at(2).progress(&stranger, 99, "").await.unwrap(), Settled::LeaseLost(Lost::Mismatch));
    assert_eq!(bench.at(30_000).progress(&held, 99, "").await.unwrap(), Settled::LeaseLost(Lost::Expired));
    assert_eq!(bench.field("a", "progress").await, "40");
}

#[tokio::test]
async fn a_full_server_still_extends_leases() {
    let server = RedisServer::start();
    let mut bench = Bench::on(&server).await;
    bench.at(0).enqueue(&[job("a", "q"), job("b", "q")]).await.unwrap();
    let reserved = take(&bench.at(0), "q", 2).await;
    bench.raw::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let leases: Vec<Lease> = reserved.iter().map(lease).collect();
    let extended = bench.at(20_000).extend(&leases, LEASE).await.unwrap();
    assert_eq!(extended, [Settled::Applied, Settled::Applied]);
    bench.raw::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(take(&bench.at(49_999), "q", 1).await.is_empty(), "twenty seconds past the first end");
    bench.check().await;
}
