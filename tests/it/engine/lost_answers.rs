//! The command was executed, its answer was lost: calling again does no harm.

use wasmhost::job::{JobId, NewJob, StoreId};
use wasmhost::store::{Options, Settled, Store};

use super::{Bench, ask, done, end, job, settle, take_one};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;

/// A bench, and a second store on its prefix whose answers can be lost.
async fn wired() -> (Bench, Store, Proxy) {
    let server = RedisServer::shared();
    let bench = Bench::new().await;
    let proxy = Proxy::before(server.url()).await;
    let options = Options {
        url: proxy.url().to_owned(),
        prefix: bench.prefix.clone(),
        node_prefix: bench.prefix.clone(),
        ..server.options()
    };
    let store = Store::connect(StoreId(0), &options).await.unwrap();
    // The scripts are known to the server: the next answer is that of the script itself.
    store.turn(&[], Some(&ask("warm", 1))).await.unwrap();
    store.enqueue(&[job("warm", "warm")]).await.unwrap();
    let warm = take_one(&store, "warm").await;
    end(&store, &warm, done("")).await;
    (bench, store, proxy)
}

#[tokio::test]
async fn an_enqueue_whose_answer_was_lost_enqueues_once() {
    let (mut bench, store, proxy) = wired().await;
    let anonymous = NewJob::new("q", "echo", "{}");
    let keyed = NewJob { idempotency_key: Some("k".to_owned()), ..anonymous.clone() };
    proxy.lose_next_answer();
    let enqueued = store.enqueue(&[anonymous, keyed]).await.unwrap();
    assert!(proxy.has_lost_all(), "the answer was lost");
    assert!(enqueued.iter().all(|job| job.is_new), "to the caller they are new: {enqueued:?}");
    assert_eq!(super::take(&bench.store, "q", 8).await.len(), 2);
    bench.check().await;
}

#[tokio::test]
async fn an_ack_whose_answer_was_lost_is_known_as_repeated() {
    let (mut bench, store, proxy) = wired().await;
    store.enqueue(&[job("a", "q"), job("b", "q")]).await.unwrap();
    let held = take_one(&store, "q").await;
    proxy.lose_next_answer();
    let reserve = ask("q", 1);
    let turn = store.turn(&[settle(&held, done("once"))], Some(&reserve)).await.unwrap();
    assert!(proxy.has_lost_all(), "the answer was lost");
    assert_eq!(turn.settled, [Settled::Repeated]);
    // The reserve is not sent again: what the lost answer handed out is leased, and comes back with its lease's end.
    assert!(turn.reserved.jobs.is_empty());
    assert_eq!(bench.field("b", "lease_token").await, reserve.token);
    assert_eq!(bench.field("a", "result").await, "once");
    let later = bench.store.at(wasmhost::clock::Timestamp::now().after(super::LEASE * 2));
    assert_eq!(take_one(&later, "q").await.id, JobId::from("b"));
    bench.check().await;
}

#[tokio::test]
async fn a_publish_whose_answer_was_lost_is_published_once() {
    let (bench, store, proxy) = wired().await;
    let script = wasmhost::store::NewJumpscript {
        name: "acme/once".parse().unwrap(),
        kind: wasmhost::jumpscript::Kind::Command,
        manifest: wasmhost::jumpscript::Manifest::default(),
    };
    let publish = |wasm: &'static str| store.publish(&script, wasm.as_bytes(), wasmhost::ports::PublishRule::Always);
    publish("one").await.unwrap();
    proxy.lose_next_answer();
    let published = publish("two").await.unwrap();
    assert!(proxy.has_lost_all());
    assert_eq!(published.digest, wasmhost::jumpscript::Digest::of(b"two"));
    assert_eq!(bench.store.index().await.unwrap().rev, published.rev, "one revision, not two");
}

/// The worker's loop awaits one call while others of its calls stand still.
#[tokio::test]
async fn a_call_that_stands_still_keeps_no_other_from_a_new_connection() {
    let server = RedisServer::start();
    let (store, _) = server.store().await;
    let mut raw = server.raw().await;
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec_async(&mut raw).await.unwrap();
    store.ping().await.unwrap_err();
    let calls = [store.queues(), store.queues()];
    let mut calls = calls.map(Box::pin);
    for call in &mut calls {
        // Polled once: it has begun to connect, or waits for the one that does.
        tokio::select! { biased; _ = call => panic!("a call without a connection ended"), () = std::future::ready(()) => {} }
    }
    let ping = tokio::time::timeout(std::time::Duration::from_secs(4), store.ping()).await;
    ping.expect("the connection does not wait for calls that nobody polls").unwrap();
}
