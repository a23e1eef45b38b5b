//! The queue engine against a real Redis, by operation.

mod ack;
mod bad_records;
mod cancel;
mod corpus;
mod e2e;
mod effects;
mod enqueue;
mod extend_lease;
mod fail;
mod jumpscripts;
mod limits;
mod lost_answers;
mod mixed;
mod model;
mod past;
mod reconcile;
mod records;
mod requeue;
mod reserve;
mod retry;
mod server_checks;
mod sweep;
mod weights;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use wasmhost::clock::Timestamp;
use wasmhost::effects::Effects;
use wasmhost::job::{JobId, NewJob, Reserved};
use wasmhost::store::{End, QueueShare, Reserve, Settle, Settled, Store, new_token};

use crate::support::redis::RedisServer;

/// The lease of the tests, where nothing else is said.
const LEASE: Duration = Duration::from_secs(30);
/// Life of done rows in the tests.
const TTL: Duration = Duration::from_secs(3600);

/// A store under a random prefix with a raw connection beside it, as another program would have.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) prefix: String,
    pub(crate) raw: MultiplexedConnection,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(RedisServer::shared()).await
    }

    pub(crate) async fn on(server: &RedisServer) -> Self {
        let (store, prefix) = server.store().await;
        Self { store, prefix, raw: server.raw().await }
    }

    /// A store whose clock stands at `ms` after [`START`].
    pub(crate) fn at(&self, ms: i64) -> Store {
        self.store.at(moment(ms))
    }

    /// The key of a job.
    pub(crate) fn job_key(&self, id: &str) -> String {
        format!("{}:job:{id}", self.prefix)
    }

    /// A structure of a queue.
    pub(crate) fn key(&self, queue: &str, part: &str) -> String {
        format!("{}:queue:{queue}:{part}", self.prefix)
    }

    /// Runs a raw command.
    pub(crate) async fn raw<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut self.raw).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs raw commands in one go.
    pub(crate) async fn pipe(&mut self, pipe: &redis::Pipeline) {
        pipe.query_async::<()>(&mut self.raw).await.expect("the commands run");
    }

    /// A field of a job, empty when it is absent.
    pub(crate) async fn field(&mut self, id: &str, field: &str) -> String {
        let key = self.job_key(id);
        self.raw::<Option<String>>(&["HGET", &key, field]).await.unwrap_or_default()
    }

    /// A job as a foreign producer writes it: a hash of four fields (and more), and an id in `ready`.
    async fn foreign(&mut self, queue: &str, id: &str, more: &[&str]) {
        let (job, ready) = (self.job_key(id), self.key(queue, "ready"));
        let mut words = vec!["HSET", &job, "type", "echo", "queue", queue, "payload", "{}", "status", "ready"];
        words.extend(more);
        self.raw::<i64>(&words).await;
        self.raw::<i64>(&["RPUSH", &ready, id]).await;
    }

    /// Ends a test: everything under the prefix is as the table of keys says.
    pub(crate) async fn check(&mut self) {
        crate::support::redis::assert_consistent(&mut self.raw, &self.prefix).await;
    }
}

/// The moment the tests of exact times begin: 2030-01-02 03:04:05.123456 UTC.
const START: i64 = 1_893_553_445_123_456_000;

/// So many milliseconds after [`START`].
fn moment(ms: i64) -> Timestamp {
    Timestamp::from_nanos(START + ms * 1_000_000)
}

/// A job with an id that is easy to read.
pub(crate) fn job(id: &str, queue: &str) -> NewJob {
    NewJob { id: Some(JobId::from(id)), ..NewJob::new(queue, "echo", "{}") }
}

/// A reserve of up to `limit` jobs of one queue, with everything due brought back first.
pub(crate) fn ask(queue: &str, limit: u32) -> Reserve {
    Reserve {
        queues: vec![QueueShare { queue: queue.to_owned(), take: limit }],
        limit,
        lease: LEASE,
        token: new_token(),
        node: String::new(),
        sweep: true,
    }
}

/// Takes up to `limit` jobs of a queue.
pub(crate) async fn take(store: &Store, queue: &str, limit: u32) -> Vec<Reserved> {
    store.turn(&[], Some(&ask(queue, limit))).await.expect("a reserve").reserved.jobs
}

/// Takes the one job that must be there.
pub(crate) async fn take_one(store: &Store, queue: &str) -> Reserved {
    let mut jobs = take(store, queue, 1).await;
    assert_eq!(jobs.len(), 1, "one job in {queue}");
    jobs.remove(0)
}

/// The end of a reserved job.
pub(crate) fn settle(job: &Reserved, end: End) -> Settle {
    Settle {
        id: job.id.clone(),
        queue: job.queue.clone(),
        token: job.token.clone(),
        end,
        fields: Vec::new(),
        effects: Effects::none(),
        digest: job.digest,
    }
}

pub(crate) fn done(result: &str) -> End {
    End::Done { result: result.as_bytes().to_vec(), ttl: TTL }
}

fn retry(attempts: u32, after: Duration) -> End {
    End::Retry { attempts, error: "no luck".to_owned(), kind: "failed", after }
}

pub(crate) fn dlq(attempts: u32, reason: &str) -> End {
    End::Dlq { attempts, error: "no luck".to_owned(), kind: "failed", reason: reason.to_owned() }
}

/// Settles one job.
pub(crate) async fn end(store: &Store, job: &Reserved, end: End) -> Settled {
    store.turn(&[settle(job, end)], None).await.expect("a settle").settled.remove(0)
}
