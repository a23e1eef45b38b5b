//! How state commits in Redis, settle by settle.

use std::time::Duration;

use wasmhost::effects::{Bucket, Effect, Effects, OWN_BUCKET_TTL, Reads};
use wasmhost::job::{JobId, Reserved};
use wasmhost::store::{End, Lost, Settle, Settled};

use crate::engine::{Bench, done, job, settle, take, take_one};

fn named(name: &str) -> Bucket {
    Bucket::Named { organization: "acme".to_owned(), name: name.to_owned() }
}

type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

fn pairs(values: Pairs) -> Vec<(String, Option<Vec<u8>>)> {
    values.iter().map(|(key, value)| ((*key).to_owned(), value.map(|value| value.as_bytes().to_vec()))).collect()
}

/// What an attempt has read and writes in bucket `b`.
fn effects(read: Pairs, written: Pairs) -> Effects {
    let mut effects = Effects::none();
    if !read.is_empty() {
        effects.rest_on(Reads { bucket: named("b"), values: pairs(read) });
    }
    if !written.is_empty() {
        effects.push(Effect::State { bucket: named("b"), ttl: None, values: pairs(written) }).unwrap();
    }
    effects
}

fn ends(job: &Reserved, end: End, effects: Effects) -> Settle {
    Settle { effects, ..settle(job, end) }
}

async fn settled(bench: &Bench, settles: &[Settle]) -> Vec<Settled> {
    bench.store.turn(settles, None).await.unwrap().settled
}

/// The values of bucket `b`.
async fn values(bench: &Bench, keys: &[&str]) -> Vec<Option<String>> {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    let values = bench.store.state_values(&named("b"), &keys).await.unwrap();
    values.into_iter().map(|value| value.map(|value| String::from_utf8(value).unwrap())).collect()
}

async fn jobs(bench: &Bench, n: usize) -> Vec<Reserved> {
    let jobs: Vec<_> = (0..n).map(|n| job(&format!("j{n}"), "q")).collect();
    bench.store.enqueue(&jobs).await.unwrap();
    take(&bench.store, "q", 16).await
}

#[tokio::test]
async fn what_was_written_commits_with_the_ack_once() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 1).await;
    let settle = ends(&held[0], done(""), effects(&[("a", None)], &[("a", Some("1")), ("b", Some("2"))]));
    assert_eq!(settled(&bench, std::slice::from_ref(&settle)).await, [Settled::Applied]);
    assert_eq!(values(&bench, &["a", "b", "c"]).await, [Some("1".to_owned()), Some("2".to_owned()), None]);
    // The answer was lost: the same again is neither compared nor written.
    assert_eq!(settled(&bench, &[settle]).await, [Settled::Repeated]);
    let key = format!("{}:bucket:acme:b", bench.prefix);
    assert_eq!(bench.raw::<i64>(&["TTL", &key]).await, -1, "it does not end by itself");
    bench.check().await;
}

#[tokio::test]
async fn a_changed_value_writes_nothing_and_the_job_waits_at_the_head_without_a_count() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 3).await;
    let read_a = |written: &'static str| effects(&[("a", None)], &[("a", Some(written))]);
    assert_eq!(settled(&bench, &[ends(&held[0], done(""), read_a("first"))]).await, [Settled::Applied]);
    let mut late = read_a("second");
    late.push(Effect::Enqueue(Box::new(job("child", "children")))).unwrap();
    assert_eq!(settled(&bench, &[ends(&held[1], done(""), late)]).await, [Settled::Conflict]);
    assert_eq!(values(&bench, &["a"]).await, [Some("first".to_owned())]);
    assert!(bench.store.job(&JobId::from("child")).await.unwrap().is_none());
    // A failure that rests on what has changed is no failure either.
    let failed = End::Dlq { attempts: 1, error: "no".into(), kind: "failed", reason: "no".into() };
    assert_eq!(settled(&bench, &[ends(&held[2], failed, effects(&[("a", None)], &[]))]).await, [Settled::Conflict]);
    let again = take(&bench.store, "q", 8).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|job| (job.attempts, job.deliveries) == (0, 1)), "{again:?}");
    assert_eq!(bench.field("j2", "conflicts").await, "1");
    bench.check().await;
}

/// All of a batch are compared before any of it is written; they count as if one came after the other.
#[tokio::test]
async fn of_two_in_one_batch_that_read_the_same_the_second_runs_again() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 4).await;
    let add = |n: usize| ends(&held[n], done(""), effects(&[("n", None)], &[("n", Some("1"))]));
    let other = ends(&held[2], done(""), effects(&[("m", None)], &[("m", Some("1"))]));
    let agrees = ends(&held[3], done(""), effects(&[("n", Some("1"))], &[("o", Some("1"))]));
    let answers = settled(&bench, &[add(0), add(1), other, agrees]).await;
    assert_eq!(answers, [Settled::Applied, Settled::Conflict, Settled::Applied, Settled::Applied]);
    assert_eq!(values(&bench, &["n", "m", "o"]).await, vec![Some("1".to_owned()); 3]);
    bench.check().await;
}

#[tokio::test]
async fn long_values_are_compared_whole() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 3).await;
    let (one, other) = ("x".repeat(70_000), format!("{}y", "x".repeat(69_999)));
    let write = ends(&held[0], done(""), effects(&[], &[("a", Some(&one))]));
    assert_eq!(settled(&bench, &[write]).await, [Settled::Applied]);
    let wrong = ends(&held[1], done(""), effects(&[("a", Some(&other))], &[]));
    let right = ends(&held[2], done(""), effects(&[("a", Some(&one))], &[]));
    assert_eq!(settled(&bench, &[wrong, right]).await, [Settled::Conflict, Settled::Applied]);
    bench.check().await;
}

#[tokio::test]
async fn who_has_listed_the_keys_runs_again_when_one_comes_or_goes() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 8).await;
    let list = async || bench.store.state_keys(&named("b"), 0).await.unwrap();
    let write =
        async |n: usize, written: Pairs| settled(&bench, &[ends(&held[n], done(""), effects(&[], written))]).await;
    let listed = |n: usize, version: Option<Vec<u8>>| {
        let mut effects = Effects::none();
        effects.rest_on(Reads { bucket: named("b"), values: vec![(String::new(), version)] });
        ends(&held[n], done(""), effects)
    };
    assert_eq!((list().await.keys, list().await.version), (vec![], None));
    write(0, &[("a", Some("1")), ("b", Some("1"))]).await;
    assert_eq!(settled(&bench, &[listed(1, None)]).await, [Settled::Conflict]);
    let before = list().await;
    assert_eq!((before.keys.len(), before.next), (2, 0));
    write(2, &[("a", Some("2"))]).await;
    assert_eq!(settled(&bench, &[listed(3, before.version.clone())]).await, [Settled::Applied], "only a value changed");
    write(4, &[("a", None)]).await;
    assert_eq!(settled(&bench, &[listed(5, before.version)]).await, [Settled::Conflict]);
    assert_eq!(list().await.keys, ["b"]);
    // The last key takes the bucket with it.
    write(6, &[("b", None)]).await;
    let key = format!("{}:bucket:acme:b", bench.prefix);
    assert_eq!(bench.raw::<i64>(&["EXISTS", &key]).await, 0);
    bench.check().await;
}

#[tokio::test]
async fn a_large_bucket_is_listed_in_pages() {
    let mut bench = Bench::new().await;
    let key = format!("{}:bucket:acme:b", bench.prefix);
    let mut pipe = redis::pipe();
    for n in 0..2_000 {
        pipe.hset(&key, format!("key-{n}"), "x".repeat(100));
    }
    bench.pipe(&pipe).await;
    let (mut keys, mut cursor, mut longest) = (Vec::new(), 0, 0);
    loop {
        let page = bench.store.state_keys(&named("b"), cursor).await.unwrap();
        longest = longest.max(page.keys.len());
        keys.extend(page.keys);
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 2_000);
    assert!(longest < 200, "a page had {longest} keys");
}

#[tokio::test]
async fn a_bucket_with_an_end_is_renewed_by_who_says_so_and_by_nobody_else() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 3).await;
    let write = |key: &str, ttl: Option<Duration>| {
        let mut effects = Effects::none();
        effects.push(Effect::State { bucket: named("b"), ttl, values: pairs(&[(key, Some("v"))]) }).unwrap();
        effects
    };
    let key = format!("{}:bucket:acme:b", bench.prefix);
    let week = Some(Duration::from_secs(7 * 86_400));
    assert_eq!(settled(&bench, &[ends(&held[0], done(""), write("a", week))]).await, [Settled::Applied]);
    assert!((604_790..=604_800).contains(&bench.raw::<i64>(&["TTL", &key]).await));
    assert_eq!(bench.raw::<i64>(&["EXPIRE", &key, "50"]).await, 1);
    assert_eq!(settled(&bench, &[ends(&held[1], done(""), write("b", None))]).await, [Settled::Applied]);
    assert!((1..=50).contains(&bench.raw::<i64>(&["TTL", &key]).await));
    assert_eq!(settled(&bench, &[ends(&held[2], done(""), write("c", week))]).await, [Settled::Applied]);
    assert!((604_790..=604_800).contains(&bench.raw::<i64>(&["TTL", &key]).await));
    assert_eq!(values(&bench, &["a", "b", "c"]).await.iter().flatten().count(), 3, "all of it lives as long");
    bench.check().await;
}

#[tokio::test]
async fn the_jobs_own_bucket_lives_two_hours_from_the_last_write() {
    let mut bench = Bench::new().await;
    bench.store.enqueue(&[job("j", "q")]).await.unwrap();
    let own = || Bucket::Own(JobId::from("j"));
    let step = |value: &str| {
        let mut effects = Effects::none();
        effects
            .push(Effect::State { bucket: own(), ttl: Some(OWN_BUCKET_TTL), values: pairs(&[("step", Some(value))]) })
            .unwrap();
        effects
    };
    let first = take_one(&bench.store, "q").await;
    let retry = End::Retry { attempts: 1, error: "busy".into(), kind: "retry", after: Duration::ZERO };
    assert_eq!(settled(&bench, &[ends(&first, retry, step("1"))]).await, [Settled::Applied]);
    let key = format!("{}:state:j", bench.prefix);
    assert!((7_190..=7_200).contains(&bench.raw::<i64>(&["TTL", &key]).await));
    assert_eq!(bench.raw::<i64>(&["EXPIRE", &key, "50"]).await, 1);
    let second = take_one(&bench.store, "q").await;
    assert_eq!(settled(&bench, &[ends(&second, done(""), step("2"))]).await, [Settled::Applied]);
    assert!((7_190..=7_200).contains(&bench.raw::<i64>(&["TTL", &key]).await));
    assert_eq!(bench.store.state_values(&own(), &["step".to_owned()]).await.unwrap(), [Some(b"2".to_vec())]);
    bench.check().await;
}

#[tokio::test]
async fn a_lost_lease_writes_no_state() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("j", "q")]).await.unwrap();
    let held = take_one(&bench.at(0), "q").await;
    let settle = ends(&held, done(""), effects(&[("a", None)], &[("a", Some("1"))]));
    let late = bench.at(30_000).turn(&[settle], None).await.unwrap().settled;
    assert_eq!(late, [Settled::LeaseLost(Lost::Expired)]);
    assert_eq!(values(&bench, &["a"]).await, [None]);
    bench.check().await;
}

#[tokio::test]
async fn a_bucket_of_the_wrong_type_is_refused_before_the_first_write() {
    let mut bench = Bench::new().await;
    let held = jobs(&bench, 2).await;
    let key = format!("{}:bucket:acme:b", bench.prefix);
    bench.raw::<()>(&["SET", &key, "a string"]).await;
    let reads = ends(&held[0], done(""), effects(&[("a", None)], &[]));
    let writes = ends(&held[1], done(""), effects(&[], &[("a", Some("1"))]));
    for answer in settled(&bench, &[reads, writes]).await {
        assert!(matches!(&answer, Settled::Refused(why) if why.contains(&key)), "{answer:?}");
    }
    assert_eq!(bench.field("j0", "status").await, "inflight");
    assert!(bench.store.state_values(&named("b"), &["a".to_owned()]).await.is_err());
}

/// Who is beaten again and again steps back, so that the others get through.
#[tokio::test]
async fn after_some_conflicts_in_a_row_the_job_pauses() {
    let mut bench = Bench::new().await;
    bench.at(0).enqueue(&[job("j", "q")]).await.unwrap();
    let wrong = || effects(&[("a", Some("never"))], &[]);
    for n in 1..=8 {
        let held = take_one(&bench.at(0), "q").await;
        assert_eq!(
            bench.at(0).turn(&[ends(&held, done(""), wrong())], None).await.unwrap().settled,
            [Settled::Conflict]
        );
        assert_eq!(
            (bench.field("j", "status").await.as_str(), bench.field("j", "conflicts").await),
            ("ready", n.to_string())
        );
    }
    let held = take_one(&bench.at(0), "q").await;
    bench.at(0).turn(&[ends(&held, done(""), wrong())], None).await.unwrap();
    assert_eq!(bench.field("j", "status").await, "scheduled");
    assert_eq!(take(&bench.at(0), "q", 1).await, []);
    let again = take_one(&bench.at(1_001), "q").await;
    assert_eq!((again.attempts, again.deliveries), (0, 1));
    bench.check().await;
}
