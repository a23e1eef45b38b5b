//! Keeping a lease alive.

use std::time::Duration;

use wasmhost::job::{JobId, Reserved};
use wasmhost::store::{Lease, Lost, Settled, Store};

use super::{Bench, LEASE, done, end, job, take, take_one};

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
async fn an_extension_that_lost_its_lease_says_how() {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q"), job("waiting", "w")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    let held = lease(&reserved);
    let stranger = Lease { token: "wrong".to_owned(), ..held.clone() };
    assert_eq!(extend(&bench.at(1), &stranger).await, Settled::LeaseLost(Lost::Mismatch));
    assert_eq!(extend(&bench.at(30_000), &stranger).await, Settled::LeaseLost(Lost::Expired));
    assert_eq!(extend(&bench.at(30_000), &held).await, Settled::LeaseLost(Lost::Expired));
    assert_eq!(take_one(&bench.at(30_000), "q").await.id, reserved.id, "then it is anybody's");
    for id in ["waiting", "nobody"] {
        let other = Lease { id: JobId::from(id), queue: "w".to_owned(), token: "t".to_owned() };
        assert_eq!(extend(&bench.at(1), &other).await, Settled::LeaseLost(Lost::NotInflight), "{id}");
    }
    assert!(bench.store.job(&JobId::from("nobody")).await.unwrap().is_none());
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
