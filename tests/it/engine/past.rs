//! The history of a name, taking a name away, code that is kept, and the audit stream.

use std::time::Duration;

use wasmhost::clock::Timestamp;
use wasmhost::jumpscript::{Digest, Kind, Manifest, ScriptName};
use wasmhost::ports::PublishRule;
use wasmhost::store::{
    AUDIT_MAX, Act, AuditEntry, Cancelled, End, HISTORY_MAX, HISTORY_REMOVED_DAYS, How, NewJumpscript, QueueChange,
    Store,
};

use super::{Bench, end, job, take_one};

async fn publish(store: &Store, name: &str, version: &str, wasm: &str, how: impl Into<How>) -> Digest {
    let manifest = Manifest { version: Some(version.to_owned()), ..Manifest::default() };
    let script = NewJumpscript { name: name.parse().unwrap(), kind: Kind::Component, manifest };
    store.publish(&script, wasm.as_bytes(), how).await.unwrap().digest
}

fn days_later(bench: &Bench, days: u64) -> Store {
    bench.store.at(Timestamp::now().after(Duration::from_secs(days * 24 * 3600)))
}

fn resize() -> ScriptName {
    "acme/resize".parse().unwrap()
}

/// Every entry of the audit stream, the oldest first.
async fn audit(store: &Store) -> Vec<AuditEntry> {
    let mut entries = store.audit(None, None, 1000).await.unwrap().entries;
    entries.reverse();
    entries
}

#[tokio::test]
async fn the_history_tells_what_was_live_by_whom_and_stays_bounded() {
    let mut bench = Bench::new().await;
    let store = bench.store.acting_as("ann@desk");
    assert_eq!(store.history(&resize()).await.unwrap(), []);
    let one = publish(&store, "acme/resize", "1.0", "one", PublishRule::Always).await;
    let two = publish(&store, "acme/resize", "1.1", "two", PublishRule::Always).await;
    let how = How { act: Act::RolledBack, rule: PublishRule::Always, signature: None };
    publish(&bench.store.acting_as("bob@desk"), "acme/resize", "1.0", "one", how).await;
    let history = store.history(&resize()).await.unwrap();
    let told: Vec<_> = history.iter().map(|p| (p.act.as_str(), p.digest, p.version.as_str(), p.by.as_str())).collect();
    let expected = [
        ("rolled-back", Some(one), "1.0", "bob@desk"),
        ("published", Some(two), "1.1", "ann@desk"),
        ("published", Some(one), "1.0", "ann@desk"),
    ];
    assert_eq!(told, expected);
    assert!(history.iter().all(|past| past.size == 3 && past.at > 1_700_000_000), "{history:?}");
    // The same record again is no event.
    publish(&store, "acme/resize", "1.0", "one", PublishRule::Always).await;
    assert_eq!(store.history(&resize()).await.unwrap().len(), 3);
    for n in 0..2 * HISTORY_MAX {
        publish(&store, "acme/resize", "2.0", &format!("further {n}"), PublishRule::Always).await;
    }
    assert_eq!(store.history(&resize()).await.unwrap().len(), HISTORY_MAX);
    bench.check().await;
}

#[tokio::test]
async fn a_name_that_is_removed_means_nothing_and_its_code_stays_until_the_history_is_old() {
    let mut bench = Bench::new().await;
    let digest = publish(&bench.store, "acme/resize", "1.0", "one", PublishRule::Always).await;
    let other = publish(&bench.store, "acme/other", "1.0", "other", PublishRule::Always).await;
    let before = bench.store.index().await.unwrap().rev;
    assert!(bench.store.unpublish(&resize()).await.unwrap());
    assert!(!bench.store.unpublish(&resize()).await.unwrap(), "it is gone already");
    assert_eq!(bench.store.route("acme/resize").await.unwrap(), None);
    let index = bench.store.index().await.unwrap();
    assert!(index.rev > before, "hosts are told");
    assert_eq!(index.scripts.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["other"]);
    let ids = bench.store.keys().scripts_by_id();
    assert_eq!(bench.raw::<i64>(&["HLEN", &ids]).await, 1);
    let history = bench.store.history(&resize()).await.unwrap();
    assert_eq!((history[0].act.as_str(), history[0].digest), ("removed", None));

    let day = days_later(&bench, 1);
    assert_eq!(day.drop_unused().await.unwrap(), [], "it can be brought back");
    assert!(bench.store.wasm(&digest).await.unwrap().is_some());
    let later = days_later(&bench, u64::from(HISTORY_REMOVED_DAYS) + 1);
    assert_eq!(later.drop_unused().await.unwrap(), [digest]);
    assert_eq!(bench.store.history(&resize()).await.unwrap(), []);
    assert!(bench.store.wasm(&other).await.unwrap().is_some());
    bench.check().await;
}

#[tokio::test]
async fn code_that_a_dead_job_names_is_kept_as_long_as_the_row() {
    let bench = Bench::new().await;
    let one = publish(&bench.store, "wasmhost/echo", "1.0", "one", PublishRule::Always).await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.store, "q").await;
    let dead = End::Dlq { attempts: 1, error: "no".to_owned(), kind: "rejected", reason: "rejected".to_owned() };
    end(&bench.store, &reserved, dead).await;
    for n in 0..HISTORY_MAX {
        publish(&bench.store, "wasmhost/echo", "1.0", &format!("further {n}"), PublishRule::Always).await;
    }
    assert!(!days_later(&bench, 29).drop_unused().await.unwrap().contains(&one), "the dead row names it");
    assert!(days_later(&bench, 31).drop_unused().await.unwrap().contains(&one));
}

/// A digest under two names goes when neither means it.
#[tokio::test]
async fn code_under_two_names_is_kept_for_the_one_that_still_means_it() {
    let bench = Bench::new().await;
    let digest = publish(&bench.store, "acme/a", "1.0", "code", PublishRule::Always).await;
    publish(&bench.store, "acme/b", "1.0", "code", PublishRule::Always).await;
    bench.store.unpublish(&"acme/a".parse().unwrap()).await.unwrap();
    let later = days_later(&bench, 40);
    assert_eq!(later.drop_unused().await.unwrap(), []);
    bench.store.unpublish(&"acme/b".parse().unwrap()).await.unwrap();
    let latest = days_later(&bench, 80);
    assert_eq!(latest.drop_unused().await.unwrap(), [digest]);
}

#[tokio::test]
async fn what_people_do_stands_in_the_audit_stream_with_their_name() {
    let mut bench = Bench::new().await;
    let store = bench.store.acting_as("ann@desk\u{1b}[31m");
    publish(&store, "wasmhost/echo", "1.0", "one", PublishRule::Always).await;
    store.enqueue(&[job("a", "q"), job("b", "q"), job("c", "q"), job("d", "q")]).await.unwrap();
    let dead = || End::Dlq { attempts: 1, error: "no".to_owned(), kind: "rejected", reason: "rejected".to_owned() };
    for _ in 0..2 {
        let reserved = take_one(&store, "q").await;
        end(&store, &reserved, dead()).await;
    }
    assert_eq!(audit(&store).await.len(), 1, "jobs leave nothing there");
    store.requeue("q", &"a".into(), None, false).await.unwrap();
    store.drop_dead("q", &"b".into()).await.unwrap();
    store.drop_dead("q", &"b".into()).await.unwrap();
    assert!(matches!(store.cancel("q", &"c".into(), "not wanted").await.unwrap(), Cancelled::Applied(_)));
    store.set_queue("q", &QueueChange { paused: Some(true), ..QueueChange::default() }).await.unwrap();
    store.set_queue("q", &QueueChange { paused: Some(false), ..QueueChange::default() }).await.unwrap();
    store.set_queue("q", &QueueChange { concurrency: Some(Some(7)), ..QueueChange::default() }).await.unwrap();
    store.queue_settings("q").await.unwrap();
    let mut purge = store.purge("q", wasmhost::store::Listed::State(wasmhost::job::JobState::Ready), 2).unwrap();
    while purge.next().await.unwrap().is_some() {}
    store.unpublish(&"echo".parse().unwrap()).await.unwrap();
    let noted = audit(&store).await;
    let told: Vec<_> = noted.iter().map(|e| (e.act.as_str(), e.target.as_str(), e.n, e.detail.as_str())).collect();
    let digest = format!("{} version 1.0", Digest::of(b"one").short());
    let expected = [
        ("published", "wasmhost/echo", None, digest.as_str()),
        ("requeued", "queue q", Some(1), "a"),
        ("dropped", "queue q", Some(1), "b"),
        ("cancelled", "job c", None, "not wanted"),
        ("paused", "queue q", None, ""),
        ("resumed", "queue q", None, ""),
        ("queue-set", "queue q", None, "concurrency=7"),
        ("purged", "queue q", Some(2), "ready"),
        ("removed", "wasmhost/echo", None, ""),
    ];
    assert_eq!(told, expected);
    assert!(noted.iter().all(|entry| entry.who.starts_with("ann@desk") && !entry.who.contains('\u{1b}')), "{noted:?}");
    bench.check().await;
}

#[tokio::test]
async fn the_audit_stream_comes_in_pages_and_stays_bounded() {
    let mut bench = Bench::new().await;
    let key = bench.store.keys().audit();
    let mut pipe = redis::pipe();
    for n in 0..u64::from(AUDIT_MAX) + 2000 {
        pipe.cmd("XADD").arg(&key).arg(format!("{}-0", n + 1)).arg(&["who", "x", "act", "tested", "target", "y"]);
    }
    bench.pipe(&pipe).await;
    bench.store.set_queue("q", &QueueChange { paused: Some(true), ..QueueChange::default() }).await.unwrap();
    let length: u32 = bench.raw(&["XLEN", &key]).await;
    assert!((AUDIT_MAX..AUDIT_MAX + 500).contains(&length), "{length}");
    let first = bench.store.audit(None, None, 10).await.unwrap();
    assert_eq!((first.entries.len(), first.entries[0].act.as_str()), (10, "paused"));
    let second = bench.store.audit(None, first.next.as_deref(), 10).await.unwrap();
    assert_eq!(second.entries[0].id, first.next.unwrap());
    let since = bench.store.audit(Some(first.entries[0].at), None, 10).await.unwrap();
    assert_eq!((since.entries.len(), since.next), (1, None));
    let error = bench.store.audit(None, Some("1-0 x"), 10).await.unwrap_err().to_string();
    assert!(error.contains("1-0 x") && error.contains("cursor"), "{error}");
}

/// A key of the wrong type in its place holds up nothing.
#[tokio::test]
async fn an_audit_key_of_the_wrong_type_stops_no_act() {
    let mut bench = Bench::new().await;
    let key = bench.store.keys().audit();
    bench.raw::<()>(&["SET", &key, "x"]).await;
    publish(&bench.store, "acme/resize", "1.0", "one", PublishRule::Always).await;
    assert!(bench.store.route("acme/resize").await.unwrap().is_some());
}
