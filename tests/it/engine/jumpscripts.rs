//! The jumpscript cache in Redis: publish, routes, foreign records, unused code.

use std::time::Duration;

use wasmhost::jumpscript::{Digest, Kind, Manifest};
use wasmhost::ports::PublishRule;
use wasmhost::store::{Error, NewJumpscript, Published, Signal, Store};

use super::{Bench, done, end, job, take_one};
use crate::support::redis::wait_until;

fn script(name: &str, version: &str, types: &[&str]) -> NewJumpscript {
    let manifest = Manifest {
        version: (!version.is_empty()).then(|| version.to_owned()),
        types: types.iter().map(|&word| word.to_owned()).collect(),
        ..Manifest::default()
    };
    NewJumpscript { name: name.parse().unwrap(), kind: Kind::Component, manifest }
}

async fn publish(store: &Store, name: &str, wasm: &str) -> Published {
    store.publish(&script(name, "", &[]), wasm.as_bytes(), PublishRule::Always).await.unwrap()
}

#[tokio::test]
async fn a_publish_is_live_at_once_under_every_word() {
    let bench = Bench::new().await;
    let mut signals = bench.store.subscribe();
    assert_eq!(signals.next().await, Signal::Resubscribed);
    let published =
        bench.store.publish(&script("echo", "1.0", &["parrot"]), b"code", PublishRule::Always).await.unwrap();
    assert!(published.is_new && published.replaced.is_none());
    assert_eq!(published.digest, Digest::of(b"code"));
    for word in ["wasmhost/echo", "echo", "parrot"] {
        assert_eq!(bench.store.route(word).await.unwrap(), Some(published.digest), "{word}");
    }
    assert_eq!(bench.store.route("other").await.unwrap(), None);
    assert_eq!(bench.store.wasm(&published.digest).await.unwrap().as_deref(), Some(b"code".as_slice()));
    assert_eq!(signals.next().await, Signal::Rev(published.rev));
    let index = bench.store.index().await.unwrap();
    assert_eq!((index.rev, index.scripts.len()), (published.rev, 1));
    assert_eq!(index.scripts[0].id, published.id);
}

#[tokio::test]
async fn the_same_record_again_writes_nothing() {
    let bench = Bench::new().await;
    let first = publish(&bench.store, "acme/resize", "one").await;
    let again = publish(&bench.store, "acme/resize", "one").await;
    assert!(!again.is_new);
    assert_eq!((again.rev, again.id), (first.rev, first.id));
    let other = publish(&bench.store, "acme/resize", "two").await;
    assert_eq!((other.replaced, other.id), (Some(first.digest), first.id));
    assert!(other.rev > first.rev);
}

#[tokio::test]
async fn a_careful_publish_takes_only_what_is_absent_or_newer() {
    let bench = Bench::new().await;
    let careful = PublishRule::AbsentOrNewer;
    let version = |v: &str| script("acme/resize", v, &[]);
    assert!(bench.store.publish(&version("1.9"), b"nine", careful).await.unwrap().is_new);
    for lower in ["1.9", "1.2.3", ""] {
        let kept = bench.store.publish(&version(lower), b"older", careful).await.unwrap();
        assert!(!kept.is_new, "{lower}");
        assert_eq!(kept.digest, Digest::of(b"nine"), "the live digest is named");
    }
    assert!(bench.store.publish(&version("1.10"), b"ten", careful).await.unwrap().is_new);
}

#[tokio::test]
async fn a_word_that_belongs_to_another_is_refused_with_its_owner() {
    let bench = Bench::new().await;
    bench.store.publish(&script("acme/a", "", &["resize"]), b"a", PublishRule::Always).await.unwrap();
    let error = bench.store.publish(&script("acme/b", "", &["resize"]), b"b", PublishRule::Always).await.unwrap_err();
    assert_eq!(
        error,
        Error::Claimed { word: "resize".to_owned(), name: "acme/b".to_owned(), owner: "acme/a".to_owned() }
    );
    assert!(error.hint().unwrap().contains("resize"));
    assert_eq!(bench.store.route("acme/b").await.unwrap(), None, "nothing was published");
    // A word that is given up is free.
    bench.store.publish(&script("acme/a", "", &[]), b"a", PublishRule::Always).await.unwrap();
    assert!(bench.store.publish(&script("acme/b", "", &["resize"]), b"b", PublishRule::Always).await.unwrap().is_new);
}

#[tokio::test]
async fn a_reserve_names_the_code_that_is_live() {
    let bench = Bench::new().await;
    let one = publish(&bench.store, "echo", "one").await;
    bench.store.enqueue(&[job("a", "q"), job("b", "q")]).await.unwrap();
    let first = take_one(&bench.store, "q").await;
    assert_eq!(first.digest, Some(one.digest));
    let two = publish(&bench.store, "echo", "two").await;
    assert_eq!(take_one(&bench.store, "q").await.digest, Some(two.digest));
    // The first attempt goes on with its own code, which is still there.
    assert!(bench.store.wasm(&one.digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_pinned_job_gets_its_digest_whatever_is_published() {
    let bench = Bench::new().await;
    let one = publish(&bench.store, "echo", "one").await;
    publish(&bench.store, "echo", "two").await;
    let mut pinned = job("a", "q");
    pinned.pin = Some(one.digest);
    bench.store.enqueue(&[pinned]).await.unwrap();
    assert_eq!(take_one(&bench.store, "q").await.digest, Some(one.digest));
}

#[tokio::test]
async fn unused_code_goes_when_no_row_may_name_it() {
    let bench = Bench::new().await;
    let one = publish(&bench.store, "echo", "one").await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    end(&bench.store, &reserved, done("")).await;
    let two = publish(&bench.store, "echo", "two").await;
    assert_eq!(bench.store.drop_unused().await.unwrap(), [], "the done row names it");
    // The row lives for an hour here, and an hour is to spare.
    let later = bench.store.at(wasmhost::clock::Timestamp::now().after(Duration::from_secs(3 * 3600)));
    assert_eq!(later.drop_unused().await.unwrap(), [], "the history names it");
    for n in 2..wasmhost::store::HISTORY_MAX {
        publish(&bench.store, "echo", ["three", "two"][n % 2]).await;
    }
    assert_eq!(later.drop_unused().await.unwrap(), [], "the last place of the history");
    publish(&bench.store, "echo", "three").await;
    publish(&bench.store, "echo", "two").await;
    assert_eq!(later.drop_unused().await.unwrap(), [one.digest]);
    assert!(bench.store.wasm(&one.digest).await.unwrap().is_none());
    assert!(bench.store.wasm(&two.digest).await.unwrap().is_some());
}

#[tokio::test]
async fn code_that_is_not_its_digest_is_never_given_out() {
    let mut bench = Bench::new().await;
    let digest = Digest::of(b"one");
    let key = bench.store.keys().wasm();
    bench.raw::<i64>(&["HSET", &key, &digest.to_string(), "another"]).await;
    let error = bench.store.wasm(&digest).await.unwrap_err().to_string();
    assert!(error.contains(&digest.short()), "{error}");
}

/// What another program does: HSET of the code, HSET of the record.
#[tokio::test]
async fn a_foreign_record_is_adopted_and_a_broken_one_named() {
    let mut bench = Bench::new().await;
    publish(&bench.store, "echo", "one").await;
    let before = bench.store.sweep(&[]).await.unwrap();
    let (names, wasm) = (bench.store.keys().scripts_by_name(), bench.store.keys().wasm());
    let digest = Digest::of(b"foreign");
    let record = |name: &str, digest: &str| {
        format!(r#"{{"id":7,"organization":"acme","name":"{name}","kind":"component","digest":"{digest}","size":7}}"#)
    };
    let sound = record("sound", &digest.to_string());
    let nowhere = record("nowhere", &Digest::of(b"nowhere").to_string());
    bench.raw::<i64>(&["HSET", &wasm, &digest.to_string(), "foreign"]).await;
    let fields = [
        ("acme__sound", sound.as_str()),
        ("acme__cut", r#"{"id":"#),
        ("acme__list", "[]"),
        ("acme__other", sound.as_str()),
        ("acme__nowhere", nowhere.as_str()),
        ("jumpscale__ping", r#"{"id":3,"source":"def action(): pass"}"#),
    ];
    for (field, text) in fields {
        bench.raw::<i64>(&["HSET", &names, field, text]).await;
    }
    let after = bench.store.sweep(&[]).await.unwrap();
    assert_ne!(before.scripts_check, after.scripts_check, "a sweep sees that somebody wrote");
    let found = bench.store.adopt_foreign().await.unwrap();
    assert_eq!(found.adopted.iter().map(ToString::to_string).collect::<Vec<_>>(), ["acme/sound"]);
    let refused: Vec<&str> = found.refused.iter().map(|(field, _)| field.as_str()).collect();
    for field in ["acme__cut", "acme__list", "acme__other", "acme__nowhere"] {
        assert!(refused.contains(&field), "{field} in {refused:?}");
    }
    assert_eq!(refused.len(), 4, "JumpScale's own record is passed over in silence: {refused:?}");
    assert_eq!(bench.store.route("acme/sound").await.unwrap(), Some(digest));
    assert!(bench.store.sweep(&[]).await.unwrap().rev > after.rev);
    // Removed by the other program: it means nothing any more.
    bench.raw::<i64>(&["HDEL", &names, "acme__sound"]).await;
    bench.store.adopt_foreign().await.unwrap();
    assert_eq!(bench.store.route("acme/sound").await.unwrap(), None);
    assert!(bench.store.route("echo").await.unwrap().is_some());
}

#[tokio::test]
async fn the_revision_never_goes_back_even_after_a_flush() {
    let bench = Bench::new().await;
    let before = publish(&bench.store, "echo", "one").await;
    let mut raw = bench.raw.clone();
    for key in crate::support::redis::keys_under(&mut raw, &bench.prefix).await {
        redis::cmd("DEL").arg(key).query_async::<()>(&mut raw).await.unwrap();
    }
    assert_eq!(bench.store.sweep(&[]).await.unwrap().rev, 0, "a flush is seen by the sweep");
    let after = publish(&bench.store, "echo", "one").await;
    assert!(after.is_new && after.rev > before.rev);
}

/// Two hosts publish under one name at once, again and again: every reader sees one whole version.
#[tokio::test]
async fn publishing_at_once_never_tears() {
    let bench = Bench::new().await;
    publish(&bench.store, "echo", "start").await;
    let (left, right) = (bench.store.clone(), bench.store.clone());
    let publisher = |store: Store, name: &'static str| async move {
        for n in 0..50 {
            publish(&store, "echo", &format!("{name} {n}")).await;
        }
    };
    let writers = async { tokio::join!(publisher(left, "left"), publisher(right, "right")) };
    let reader = async {
        for _ in 0..100 {
            let digest = bench.store.route("echo").await.unwrap().expect("always routed");
            assert!(bench.store.wasm(&digest).await.unwrap().is_some(), "what is routed to is there");
        }
    };
    tokio::join!(writers, reader);
    let index = bench.store.index().await.unwrap();
    assert_eq!(index.scripts.len(), 1);
    wait_until("route and record agree", Duration::from_secs(5), async || {
        (bench.store.route("echo").await.unwrap() == Some(index.scripts[0].digest)).then_some(())
    })
    .await;
}
