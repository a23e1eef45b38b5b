//! `wasmhost doctor --jobs` and `--fix`: one corruption each, found, named and repaired; and beside hosts that work.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use wasmhost::job::{JobId, JobState, NewJob};
use wasmhost::store::{KINDS, QueueChange, Repairer};

use crate::engine::Bench;
use crate::support::docs::assert_document;
use crate::support::guests;
use crate::support::program::{Ended, Host, Invocation};
use crate::support::redis::{RedisServer, keys_under, wait_until};

/// A server of their own: the doctor walks over all keys of a server, and what other tests keep there is much.
fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(RedisServer::start)
}

/// One way to spoil a prefix. In the commands `~` is the prefix, `+` a space within a word; `ROW id state` writes a
/// row of queue `q`.
struct Corruption {
    kind: &'static str,
    /// What the finding is about.
    entry: &'static str,
    /// Kinds that are found, too, because one follows from the other.
    besides: &'static [&'static str],
    commands: &'static [&'static str],
}

const fn case(kind: &'static str, entry: &'static str, commands: &'static [&'static str]) -> Corruption {
    Corruption { kind, entry, besides: &[], commands }
}

const CORRUPTIONS: &[Corruption] = &[
    case("ready-ghost", "gone", &["RPUSH ~:queue:q:ready gone"]),
    case("ready-ghost", "gone", &["RPUSH ~:queue:q:prio:5 gone", "HSET ~:queue:q:settings priorities 5"]),
    case("lost-ready", "a", &["ROW a ready"]),
    case("lost-inflight", "a", &["ROW a inflight", "HSET ~:job:a lease_expires_at_nano 4102444800000000000"]),
    case("lease-ghost", "gone", &["ZADD ~:queue:q:inflight 4102444800000 gone"]),
    case("lease-misfit", "a", &["ROW a ready", "RPUSH ~:queue:q:ready a", "ZADD ~:queue:q:inflight 4102444800000 a"]),
    case("lease-misfit", "a", &["ROW a dlq", "RPUSH ~:queue:q:dlq a", "ZADD ~:queue:q:inflight 4102444800000 a"]),
    case(
        "lease-misfit",
        "a",
        &[
            "ROW a done",
            "EXPIRE ~:job:a 500",
            "RPUSH ~:queue:q:done a",
            "EXPIRE ~:queue:q:done 500",
            "ZADD ~:queue:q:inflight 4102444800000000000 a",
        ],
    ),
    case("lease-expired", "a", &["ROW a inflight", "ZADD ~:queue:q:inflight 1000000 a"]),
    case("lost-scheduled", "a", &["ROW a scheduled", "HSET ~:job:a run_at_nano 4102444800000000000"]),
    case("scheduled-ghost", "000000000:gone", &["ZADD ~:queue:q:scheduled 4102444800 000000000:gone"]),
    case(
        "scheduled-malformed",
        "a",
        &["ROW a scheduled", "HSET ~:job:a run_at_nano 4102444800000000000", "ZADD ~:queue:q:scheduled 4102444800 a"],
    ),
    case(
        "scheduled-misfit",
        "000000000:a",
        &["ROW a dlq", "RPUSH ~:queue:q:dlq a", "ZADD ~:queue:q:scheduled 4102444800 000000000:a"],
    ),
    case("ready-twice", "a", &["ROW a ready", "ROW b ready", "RPUSH ~:queue:q:ready a b a"]),
    case(
        "ready-twice",
        "a",
        &["ROW a ready", "RPUSH ~:queue:q:ready a", "RPUSH ~:queue:q:prio:2 a", "HSET ~:queue:q:settings priorities 2"],
    ),
    case(
        "ready-misfit",
        "a",
        &["ROW a inflight", "ZADD ~:queue:q:inflight 4102444800000 a", "RPUSH ~:queue:q:ready a"],
    ),
    case("dead-ghost", "gone", &["RPUSH ~:queue:q:dlq gone"]),
    case("dead-misfit", "a", &["ROW a ready", "RPUSH ~:queue:q:ready a", "RPUSH ~:queue:q:dlq a"]),
    case("lost-dead", "a", &["ROW a dlq"]),
    case("done-endless", "a", &["ROW a done", "RPUSH ~:queue:q:done a", "EXPIRE ~:queue:q:done 500"]),
    case(
        "cancelled-endless",
        "a",
        &["ROW a cancelled", "RPUSH ~:queue:q:cancelled a", "EXPIRE ~:queue:q:cancelled 500"],
    ),
    case("list-endless", "", &["ROW a done", "EXPIRE ~:job:a 500", "RPUSH ~:queue:q:done a"]),
    case("list-endless", "", &["RPUSH ~:queue:q:bell more"]),
    case("row-mortal", "a", &["ROW a inflight", "ZADD ~:queue:q:inflight 4102444800000 a", "EXPIRE ~:job:a 500"]),
    case(
        "row-mortal",
        "a",
        &["ROW a ready", "HSET ~:job:a finished_at_nano 5", "RPUSH ~:queue:q:ready a", "EXPIRE ~:job:a 500"],
    ),
    case(
        "parked-stuck",
        "k",
        &[
            "HSET ~:queue:q:settings key_concurrency 1",
            "ROW a ready",
            "HSET ~:job:a limit_key k",
            "RPUSH ~:queue:q:parked:k a",
            "HSET ~:queue:q:keys k 0+1+0",
            "HSET ~:queue:q:counters parked 1",
        ],
    ),
    Corruption {
        besides: &["parked-count"],
        ..case(
            "key-count",
            "k",
            &[
                "HSET ~:queue:q:settings key_concurrency 1",
                "ROW a ready",
                "HSET ~:job:a limit_key k",
                "RPUSH ~:queue:q:parked:k a",
                "HSET ~:queue:q:counters parked 1",
            ],
        )
    },
    case("key-count", "k", &["HSET ~:queue:q:settings key_concurrency 1", "HSET ~:queue:q:keys k 1+0+0"]),
    case("parked-count", "", &["HSET ~:queue:q:counters parked 7 done 3"]),
    case("slot-leaked", "gone", &["HSET ~:queue:q:slots gone k", "HSET ~:queue:q:keys k 1+0+0"]),
    case("watch-stale", "q", &["HSET ~:watchers q 1000+session@node"]),
    case("watch-stale", "q", &["HSET ~:watchers q rubbish"]),
    case("wrong-type", "", &["SADD ~:queue:q:ready a", "ROW a ready"]),
    case("wrong-type", "", &["SET ~:queue:q:inflight x", "ROW a inflight"]),
    case("wrong-type", "a", &["SET ~:job:a x", "RPUSH ~:queue:q:ready a"]),
    case("priority-hidden", "5", &["ROW a ready", "HSET ~:job:a priority 5", "RPUSH ~:queue:q:prio:5 a"]),
    case("queue-unknown", "q", &["SREM ~:queues q", "ROW a ready", "RPUSH ~:queue:q:ready a"]),
    case("key-endless", "", &["SET ~:idem:q:once gone"]),
    case("key-endless", "", &["SET ~:latest:q:newest gone"]),
    case("claim-endless", "", &["SET ~:reconcile somebody"]),
    case("host-dead", "1_1_7_x", &["ZADD ~:nodes 1000 node/0/1_1_7_x", "HSET ~:nodes:info 1_1_7_x {\"pid\":7}"]),
    case("state-unknown", "a", &["ROW a banana"]),
    case("queue-unnamed", "a", &["HSET ~:job:a type echo payload x status ready"]),
    case("key-unknown", "", &["SET ~:something else"]),
];

/// A prefix with a sound job in most states, and a corruption.
async fn spoilt(corruption: &Corruption) -> Bench {
    let mut bench = Bench::on(server()).await;
    let sound = [
        "SADD ~:queues q",
        "HSET ~:meta layout 1",
        "ROW waits ready",
        "RPUSH ~:queue:q:ready waits",
        "ROW later scheduled",
        "HSET ~:job:later run_at_nano 4102444800000000007",
        "ZADD ~:queue:q:scheduled 4102444800 000000007:later",
        "ROW dead dlq",
        "RPUSH ~:queue:q:dlq dead",
    ];
    // Where the list itself is spoilt, nothing sound can be in it.
    let is_possible =
        |command: &&&str| !(corruption.commands[0].starts_with("SADD ~:queue:q:ready") && command.contains("waits"));
    for command in sound.iter().filter(is_possible).chain(corruption.commands) {
        let text = match command.strip_prefix("ROW ").and_then(|rest| rest.split_once(' ')) {
            Some((id, state)) => {
                format!("HSET ~:job:{id} type echo queue q payload x created_at_nano 1 status {state}")
            }
            None => (*command).to_owned(),
        };
        let words: Vec<String> =
            text.split(' ').map(|word| word.replace('+', " ").replace('~', &bench.prefix)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench.raw::<redis::Value>(&words).await;
    }
    bench
}

/// Every key with its content and whether it will vanish.
async fn dump(bench: &mut Bench) -> Vec<(String, Vec<u8>, bool)> {
    let mut raw = server().raw().await;
    let mut all = Vec::new();
    for key in keys_under(&mut raw, &bench.prefix).await {
        let content = bench.raw::<Vec<u8>>(&["DUMP", &key]).await;
        all.push((key.clone(), content, bench.raw::<i64>(&["TTL", &key]).await >= 0));
    }
    all
}

/// The doctor at work, without a pause between its two looks.
async fn doctor(bench: &Bench, words: &[&'static str]) -> Ended {
    let invocation = Invocation::new(["doctor", "--grace", "0s"].into_iter().chain(words.iter().copied()));
    let invocation = invocation.on(server().url(), &bench.prefix);
    tokio::task::spawn_blocking(|| invocation.run()).await.unwrap()
}

#[track_caller]
fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn kinds(report: &Value) -> BTreeSet<&str> {
    report["counts"].as_object().unwrap().keys().map(String::as_str).collect()
}

async fn is_found_named_and_repaired(corruption: &Corruption) {
    let Corruption { kind, entry, besides, commands } = corruption;
    let mut bench = spoilt(corruption).await;
    let repairer = KINDS.iter().find(|known| known.name == *kind).expect("a kind").repairer;
    let (is_fault, is_ours) = (repairer != Repairer::Nobody, !matches!(repairer, Repairer::Nobody | Repairer::Person));
    let before = dump(&mut bench).await;

    let found = doctor(&bench, &["--jobs", "--output", "json"]).await;
    assert_eq!(found.code, i32::from(is_fault), "{commands:?}: {found:?}");
    let found = report(&found);
    assert_eq!(kinds(&found), besides.iter().copied().chain([*kind]).collect(), "{commands:?}: {found:#}");
    let about = |finding: &&Value| finding["kind"] == *kind;
    let finding = found["findings"].as_array().unwrap().iter().find(about).unwrap();
    assert_eq!(finding["entry"], *entry, "{commands:?}: {finding:#}");
    assert!(finding["key"].as_str().unwrap().starts_with(&bench.prefix), "{finding:#}");
    assert!(dump(&mut bench).await == before, "{commands:?}: a look changes nothing");

    let fixed = doctor(&bench, &["--fix", "--yes", "--output", "json"]).await;
    assert_eq!(fixed.code, i32::from(is_fault && !is_ours), "{commands:?}: {fixed:?}");
    if !is_ours {
        assert!(dump(&mut bench).await == before, "{commands:?}: this is for a person");
        return;
    }
    let fixed = report(&fixed);
    assert_eq!(fixed["counts"][kind]["repaired"], 1, "{commands:?}: {fixed:#}");
    assert_eq!((&fixed["left"], &fixed["is_clean"]), (&0.into(), &true.into()), "{commands:?}: {fixed:#}");
    let after = dump(&mut bench).await;
    let again = doctor(&bench, &["--fix", "--yes", "--output", "json"]).await;
    assert_eq!((again.code, report(&again)["findings"].as_array().unwrap().len()), (0, 0), "{commands:?}: {again:?}");
    assert!(dump(&mut bench).await == after, "{commands:?}: the second run has nothing to do");
    bench.check().await;
}

#[tokio::test]
async fn every_corruption_is_found_named_and_repaired_and_a_second_run_is_clean() {
    let plays = CORRUPTIONS.iter().map(is_found_named_and_repaired);
    futures_util::stream::iter(plays).buffer_unordered(4).collect::<Vec<()>>().await;
}

#[test]
fn every_kind_has_its_corruption() {
    let played: BTreeSet<&str> = CORRUPTIONS.iter().map(|corruption| corruption.kind).collect();
    assert_eq!(played, KINDS.iter().map(|kind| kind.name).collect());
}

#[test]
fn the_page_on_what_the_doctor_finds_is_what_the_table_says() {
    assert_document("doctor.md", &wasmhost::store::kinds_document());
}

#[tokio::test]
async fn a_sound_prefix_has_nothing_to_repair_and_the_text_says_so() {
    let bench = Bench::on(server()).await;
    bench.store.enqueue(&[crate::engine::job("a", "q")]).await.unwrap();
    let said = doctor(&bench, &["--fix"]).await.ok();
    assert_eq!(said.trim_end(), "jobs: 1, other keys: 3; nothing is wrong");
}

/// Nobody is there to be asked.
#[tokio::test]
async fn a_fix_without_a_yes_changes_nothing_and_names_the_flag() {
    let mut bench = spoilt(&case("lost-dead", "a", &["ROW a dlq"])).await;
    let before = dump(&mut bench).await;
    let ended = doctor(&bench, &["--fix"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    for line in ["lost-dead: 1 found", "repair: put at the end of the dead-letter queue", "queue q, a, key `"] {
        assert!(ended.stdout.contains(line), "{line}: {ended:?}");
    }
    assert!(ended.stderr.contains("nothing was changed") && ended.stderr.contains("--yes"), "{ended:?}");
    assert!(dump(&mut bench).await == before);
}

#[tokio::test]
async fn all_corruptions_at_once_are_repaired_by_one_call() {
    let mut bench = Bench::on(server()).await;
    let mut pipe = redis::pipe();
    for n in 0..30 {
        let row = bench.job_key(&format!("lost{n}"));
        pipe.cmd("HSET").arg(row).arg(&["type", "echo", "queue", "q", "payload", "", "status", "ready"]);
        pipe.cmd("RPUSH").arg(bench.key("q", "ready")).arg(format!("ghost{n}"));
        pipe.cmd("ZADD").arg(bench.key("q", "inflight")).arg("4102444800000").arg(format!("ghost{n}"));
        pipe.cmd("RPUSH").arg(bench.key("q", "dlq")).arg(format!("lost{n}"));
    }
    pipe.cmd("SET").arg(bench.key("q", "done")).arg("x");
    bench.pipe(&pipe).await;
    let ended = doctor(&bench, &["--fix", "--yes", "--examples", "2"]).await;
    // What stands in the dead-letter queue counts as standing somewhere; once it is out of there, it is lost.
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in ["dead-misfit: 30 repaired", "lost-ready: 30 repaired", "ready-ghost: 30 repaired", "and 28 more"] {
        assert!(ended.stdout.contains(line), "{line}: {ended:?}");
    }
    bench.check().await;
    assert_eq!(bench.raw::<i64>(&["LLEN", &bench.key("q", "ready")]).await, 30);
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_kept_under_another_name() {
    let mut bench = Bench::on(server()).await;
    let (key, aside) = (bench.key("q", "ready"), format!("{}:wrong:queue:q:ready", bench.prefix));
    for _ in 0..2 {
        bench.raw::<()>(&["SET", &key, "precious"]).await;
        doctor(&bench, &["--fix", "--yes"]).await.stdout.contains("wrong-type: 1 repaired").then_some(()).unwrap();
    }
    assert_eq!(bench.raw::<String>(&["GET", &aside]).await, "precious");
    let ttl = bench.raw::<i64>(&["TTL", &aside]).await;
    assert!((2_591_000..=2_592_000).contains(&ttl), "{ttl}");
    assert_eq!(bench.raw::<Vec<String>>(&["KEYS", &format!("{aside}*")]).await.len(), 2, "none takes another's place");
    bench.check().await;
}

/// A producer that writes its job in two commands: what is on its way is no fault.
#[tokio::test]
async fn what_settles_within_the_grace_is_not_found() {
    let mut bench = Bench::on(server()).await;
    let row = bench.job_key("slow");
    bench.raw::<i64>(&["HSET", &row, "type", "echo", "queue", "q", "payload", "", "status", "ready"]).await;
    bench.raw::<i64>(&["SADD", &format!("{}:queues", bench.prefix), "q"]).await;
    let invocation = Invocation::new(["doctor", "--fix", "--yes", "--grace", "3s"]);
    let mut host = Host::spawn(invocation.on(server().url(), &bench.prefix).into_command());
    host.wait_for_line("what seems wrong: 1");
    bench.raw::<i64>(&["RPUSH", &bench.key("q", "ready"), "slow"]).await;
    host.wait_for_line("nothing is wrong");
    assert_eq!(host.wait(), 0);
    bench.check().await;
}

#[tokio::test]
async fn nothing_is_repaired_before_the_grace_has_passed() {
    let mut bench = spoilt(&case("lost-dead", "a", &["ROW a dlq"])).await;
    let before = dump(&mut bench).await;
    let invocation = Invocation::new(["doctor", "--fix", "--yes", "--grace", "1h"]);
    let mut host = Host::spawn(invocation.on(server().url(), &bench.prefix).into_command());
    host.wait_for_line("what seems wrong: 1");
    // Others that look twice and end meanwhile take as long as a repair would.
    for _ in 0..3 {
        assert_eq!(doctor(&bench, &["--jobs"]).await.code, 1);
    }
    assert!(dump(&mut bench).await == before);
    host.signal("TERM");
    host.wait();
}

#[test]
fn a_redis_that_is_away_is_exit_code_75_and_a_wrong_flag_2() {
    let away = |words: &[&'static str]| {
        Invocation::new(["doctor", "--redis", "redis://127.0.0.1:1"].into_iter().chain(words.iter().copied())).run()
    };
    assert!(away(&["--jobs"]).fails(75).contains("127.0.0.1:1"));
    assert!(away(&["--fix", "--yes"]).fails(75).contains("127.0.0.1:1"));
    assert!(away(&["--yes"]).fails(2).contains("--fix"));
    assert!(away(&["--grace", "1s"]).fails(2).contains("--jobs"));
    assert!(away(&["--jobs", "--grace", "soon"]).fails(2).contains("soon"));
    assert!(away(&["--jobs", "--settings"]).fails(2).contains("--settings"));
}

/// Hosts run jobs with priorities, limit keys, retries and delays while the doctor repairs with hardly any grace.
#[tokio::test]
async fn nothing_is_lost_or_run_twice_beside_a_doctor() {
    let redis = server();
    let bench = Bench::on(server()).await;
    let file = guests::path("echo");
    Invocation::new(["publish", file.to_str().expect("a UTF-8 path")]).on(redis.url(), &bench.prefix).run().ok();
    let limit = QueueChange { key_concurrency: Some(Some(2)), ..QueueChange::default() };
    bench.store.set_queue("default", &limit).await.unwrap();
    let hosts: Vec<Host> = (0..2).map(|_| Host::start(redis.url(), &bench.prefix, &["--concurrency", "4"])).collect();
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let producer = {
        let store = bench.store.clone();
        tokio::spawn(async move {
            let mut ids: Vec<JobId> = Vec::new();
            while !*stopped.borrow_and_update() {
                let later = wasmhost::clock::Timestamp::now().after(Duration::from_millis(300));
                let jobs: Vec<NewJob> = (0..40_usize)
                    .map(|n| NewJob {
                        priority: n.is_multiple_of(5).then_some(3),
                        limit_key: n.is_multiple_of(2).then(|| format!("k{}", n % 6)),
                        run_at: n.is_multiple_of(7).then_some(later),
                        ..NewJob::new("default", "echo", "x")
                    })
                    .collect();
                ids.extend(store.enqueue(&jobs).await.unwrap().into_iter().map(|enqueued| enqueued.id));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ids
        })
    };
    for _ in 0..6 {
        let words = ["doctor", "--fix", "--yes", "--grace", "200ms", "--output", "json"];
        let invocation = Invocation::new(words).on(redis.url(), &bench.prefix);
        let ended = tokio::task::spawn_blocking(|| invocation.run()).await.unwrap();
        let report = report(&ended);
        assert_eq!((ended.code, report["findings"].as_array().unwrap().len()), (0, 0), "{report:#}");
    }
    stop.send_replace(true);
    let ids = producer.await.unwrap();
    assert!(ids.len() > 200, "{}", ids.len());
    wait_until("all jobs are done", Duration::from_secs(60), async || {
        for id in &ids {
            let record = bench.store.job(id).await.unwrap()?;
            (record.state()? == JobState::Done).then_some(())?;
        }
        Some(())
    })
    .await;
    for id in &ids {
        let record = bench.store.job(id).await.unwrap().unwrap();
        assert_eq!(record.number("deliveries"), Some(1), "{id} was handed out once");
    }
    let info = bench.store.queues().await.unwrap().into_iter().find(|queue| queue.name == "default").unwrap();
    let counted = |name: &str| info.counters.iter().find(|(found, _)| found == name).map_or(0, |(_, n)| *n);
    assert_eq!((counted("done"), counted("set_aside"), counted("parked")), (ids.len() as u64, 0, 0));
    for host in hosts {
        assert_eq!(host.stop(), 0);
    }
}
