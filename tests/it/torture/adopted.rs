//! Jobs that another system pushes, while hosts are killed: each is answered, and once.

use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use wasmhost::job::StoreId;
use wasmhost::store::{QueueInfo, Store};

use super::fleet::{Fleet, GRACE};
use super::report::Row;
use super::world::{ended, pause};
use super::{Size, seed};
use crate::support::dice::Dice;
use crate::support::guests;
use crate::support::program::Invocation;
use crate::support::redis::{RedisServer, assert_consistent};

/// The script type, and so the queue of the jobs.
const TYPE: &str = "actor";
const QUEUE: &str = "hero-actor";
/// Longest time without any job ending before the campaign is given up.
const STALL: Duration = Duration::from_secs(60);
/// Jobs that one host runs at once.
const SLOTS: &str = "4";

/// What is pushed as number `n`, and what must be answered.
struct Message {
    id: String,
    script: String,
    answer: Result<String, String>,
    /// Whether its id is pushed a second time, as a producer does that lost an answer.
    is_twice: bool,
}

impl Message {
    fn new(n: usize) -> Self {
        let (script, answer) = match n % 50 {
            7 => ("ping".to_owned(), Ok("pong".to_owned())),
            11 | 31 => (format!("fail {n}"), Err(n.to_string())),
            _ => (format!("nap {}", n % 20), Ok(format!("NAP {}", n % 20))),
        };
        Self { id: format!("j{n}"), script, answer, is_twice: n.is_multiple_of(16) }
    }

    fn is_job(&self) -> bool {
        self.script != "ping"
    }
}

/// Hosts that watch for what Hero pushes die by signal 9 while it is pushed.
pub(super) async fn hero(size: Size) -> Row {
    let (n_jobs, n_kills, n_hosts) = (size.of(1_500, 10_000), size.of(6, 100), size.of(3, 6));
    let seed = seed();
    println!("campaign hero: TORTURE_SEED={seed}");
    let mut dice = Dice::of(seed);
    let redis = RedisServer::start();
    let options = redis.options();
    let store = Store::connect(StoreId(0), &options).await.expect("the store connects");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("actor.wasm");
    std::fs::copy(guests::path("actor"), &file).expect("a copy");
    std::fs::write(folder.path().join("actor.toml"), format!("types = ['{TYPE}']\n")).expect("a manifest");
    Invocation::new(["publish", file.to_str().expect("a UTF-8 path")]).on(redis.url(), &options.prefix).run().ok();
    let grace = format!("{}ms", GRACE.as_millis());
    let arguments = ["--redis", redis.url(), "--prefix", &options.prefix, "--node-prefix", &options.prefix];
    let more = ["--protocol", "hero", "--lease", "1s", "--grace", &grace, "--concurrency", SLOTS];
    let arguments = arguments.into_iter().chain(more).map(str::to_owned).collect();
    let variables = vec![("WASMHOST_PROTOCOL_HERO_TYPES".to_owned(), TYPE.to_owned())];
    let mut fleet = Fleet::new(arguments, variables);
    fleet.start(n_hosts);

    let started = Instant::now();
    let mean = Duration::from_millis(300);
    let pushing = push(redis.raw().await, n_jobs, mean * u32::try_from(n_kills).unwrap_or(1));
    let pushing = tokio::spawn(pushing);
    for _ in 0..n_kills {
        pause(dice.gap(mean)).await;
        fleet.kill(dice.place(fleet.len()));
    }
    let messages = pushing.await.expect("the producer");
    let queue = drained(&store, &messages, &mut fleet).await;
    fleet.stop();
    let mut raw = redis.raw().await;
    let mut wrong: Vec<String> = fleet.wrong().to_vec();
    let (n_deliveries, n_answered) = check(&mut raw, &options.prefix, &messages, &mut wrong).await;
    for (structure, length) in [("ready", queue.ready), ("scheduled", queue.scheduled), ("inflight", queue.inflight)] {
        if length > 0 {
            wrong.push(format!("`{structure}` has {length} entries after the drain"));
        }
    }
    let shown = wrong.iter().take(30).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "hero: {} invariants do not hold\n{shown}", wrong.len());
    assert_consistent(&mut raw, &options.prefix).await;
    let n_jobs = messages.iter().filter(|message| message.is_job()).count();
    Row {
        campaign: "hero",
        jobs: messages.len(),
        faults: n_kills,
        duplicates: n_deliveries - n_jobs as u64,
        note: format!("{n_answered} answers to {} messages", messages.len()),
        took: started.elapsed(),
        ..Row::default()
    }
}

/// Pushes messages as a supervisor does, spread over a time.
async fn push(mut raw: MultiplexedConnection, n_jobs: usize, time: Duration) -> Vec<Message> {
    // More than a bridge takes over at once: the rest is for the workers to take themselves.
    const BATCH: usize = 300;
    let started = Instant::now();
    let messages: Vec<Message> = (0..n_jobs).map(Message::new).collect();
    for (n, batch) in messages.chunks(BATCH).enumerate() {
        let share = u32::try_from(n * BATCH).unwrap_or(0);
        pause((time * share / u32::try_from(n_jobs).unwrap_or(1)).saturating_sub(started.elapsed())).await;
        let mut pipeline = redis::pipe();
        for message in batch {
            let fields = [("id", message.id.as_str()), ("script", &message.script), ("status", "dispatched")];
            pipeline.hset_multiple(format!("hero:job:{}", message.id), &fields);
            for _ in 0..1 + u32::from(message.is_twice) {
                pipeline.lpush(format!("hero:q:work:type:{TYPE}"), &message.id);
            }
        }
        pipeline.query_async::<()>(&mut raw).await.expect("the pushes");
    }
    messages
}

/// Waits until every job has ended.
async fn drained(store: &Store, messages: &[Message], fleet: &mut Fleet) -> QueueInfo {
    let n_jobs = messages.iter().filter(|message| message.is_job()).count() as u64;
    let mut last = (0, Instant::now());
    loop {
        let queues = store.queues().await.unwrap_or_default();
        let queue = queues.into_iter().find(|queue| queue.name == QUEUE).unwrap_or_default();
        let n_ended = ended(&queue);
        if n_ended >= n_jobs {
            return queue;
        }
        if n_ended > last.0 {
            last = (n_ended, Instant::now());
        }
        assert!(
            last.1.elapsed() < STALL,
            "{n_ended} of {n_jobs} jobs ended, and for {STALL:?} none did: {queue:?}\n{}",
            fleet.last_words()
        );
        pause(Duration::from_millis(10)).await;
    }
}

/// Every message was answered as it must be, by one reply. Answers how often jobs were handed out, and all replies.
async fn check(
    raw: &mut MultiplexedConnection,
    prefix: &str,
    messages: &[Message],
    wrong: &mut Vec<String>,
) -> (u64, usize) {
    let (mut n_deliveries, mut n_answered) = (0, 0);
    // Entries pushed twice may lie behind the last job that ended.
    let started = Instant::now();
    while raw.llen::<_, u64>(format!("hero:q:work:type:{TYPE}")).await.expect("a list") > 0 {
        if started.elapsed() > Duration::from_secs(10) {
            wrong.push("messages stay in their list".to_owned());
            break;
        }
        pause(Duration::from_millis(10)).await;
    }
    for message in messages {
        let id = &message.id;
        let (status, output, error): (Option<String>, Option<String>, Option<String>) =
            raw.hmget(format!("hero:job:{id}"), &["status", "output", "error"]).await.expect("a hash");
        let answer = match status.as_deref() {
            Some("finished") => Ok(output.unwrap_or_default()),
            Some("error") => Err(error.unwrap_or_default()),
            other => Err(format!("status {other:?}")),
        };
        if answer != message.answer {
            wrong.push(format!("job `{id}` was answered {answer:?}, must be {:?}", message.answer));
        }
        let replies: Vec<String> = raw.lrange(format!("hero:q:reply:{id}"), 0, -1).await.expect("a list");
        n_answered += replies.len();
        if replies.len() != 1 {
            wrong.push(format!("job `{id}` has {} replies: {replies:?}", replies.len()));
        }
        let row = format!("{prefix}:job:hero:{id}");
        let deliveries: Option<u64> = raw.hget(row, "deliveries").await.expect("a row");
        n_deliveries += deliveries.unwrap_or(0);
    }
    (n_deliveries, n_answered)
}
