//! apalis-redis as a peer: see `peer` for what it is asked.
//!
//! It fetches 64 a time, polls every 10 ms and publishes no events. Without the second its worker would see a job of an
//! empty queue only at its next heartbeat, up to 30 s later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use peer::{Args, BULK, CONCURRENCY, Error, Waits};
use tokio::time::{Interval, MissedTickBehavior};

/// Between two looks at an empty queue.
const POLL: Duration = Duration::from_millis(10);

/// Wakes the worker every [`POLL`]. The library's own interval can miss its wake-up when it fires just as a fetch ends
/// empty, and its worker then sleeps until the heartbeat; this one is always armed when it says it has not fired.
struct Every(Interval);

impl Every {
    fn poll() -> Self {
        let mut interval = tokio::time::interval(POLL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }
}

impl PollStrategy for Every {
    fn poll_drive(&mut self, context: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut polled = Poll::Pending;
        while self.0.poll_tick(context).is_ready() {
            polled = Poll::Ready(Some(()));
        }
        polled
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::read()?;
    match args.role.as_str() {
        "fill" => {
            fill(&args.warm_up()).await?;
            peer::say_filled(fill(&args).await?);
            Ok(())
        }
        "drain" => {
            let warm_up = args.warm_up();
            fill(&warm_up).await?;
            drain(&warm_up, storage(&warm_up).await?, &count(&warm_up).await?).await?;

            let (storage, count) = (storage(&args).await?, count(&args).await?);
            peer::say_ready();
            args.go.wait().await;
            let before = peer::cpu();
            drain(&args, storage, &count).await?;
            peer::say_drained(before);
            Ok(())
        }
        "serve" => {
            let waits = Arc::new(Waits::new(args.n)?);
            let counter = Arc::clone(&waits);
            let storage = storage(&args).await?.poll_with_strategy(Every::poll());
            let worker = WorkerBuilder::new("serve").backend(storage).concurrency(CONCURRENCY);
            let worker = worker.build(move |sent: u64| {
                counter.add(sent);
                async { Ok::<(), BoxDynError>(()) }
            });
            peer::say_ready();
            tokio::select! {
                ended = worker.run() => Err(format!("the worker ended: {ended:?}").into()),
                said = waits.say_all() => said,
            }
        }
        "send" => {
            let storage = storage(&args).await?;
            peer::send(&args, |now| {
                let mut storage = storage.clone();
                async move { Ok(storage.push(now).await?) }
            })
            .await
        }
        role => Err(format!("unknown role `{role}`").into()),
    }
}

fn config(args: &Args) -> Config {
    Config::default().queue(&args.queue).batch_size(CONCURRENCY).emit_events(false)
}

async fn storage(args: &Args) -> Result<RedisStorage<u64>, Error> {
    let connection: ConnectionManager = apalis_redis::connect(args.url.as_str()).await?;
    Ok(RedisStorage::new(connection).with_config(config(args)))
}

/// Enqueues the jobs. Answers how long it took once connected.
async fn fill(args: &Args) -> Result<Duration, Error> {
    let mut storage = storage(args).await?;
    let started = Instant::now();
    let mut left = args.n;
    while left > 0 {
        let n = left.min(BULK);
        storage.push_bulk((0..n).collect()).await?;
        left -= n;
    }
    Ok(started.elapsed())
}

/// What tells how many jobs are settled: the size of the set of done ones.
async fn count(args: &Args) -> Result<impl AsyncFn() -> Result<u64, Error>, Error> {
    let connection = apalis_redis::connect(args.url.as_str()).await?;
    let done = config(args).done_jobs_set();
    Ok(async move || {
        let mut connection = connection.clone();
        Ok(redis::cmd("SCARD").arg(&done).query_async(&mut connection).await?)
    })
}

/// Works until all jobs are settled. There is no event that follows the write of a result, so Redis is asked, but only
/// once every handler has run.
async fn drain(
    args: &Args,
    storage: RedisStorage<u64>,
    count: &impl AsyncFn() -> Result<u64, Error>,
) -> Result<(), Error> {
    let ran = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&ran);
    let worker = WorkerBuilder::new(format!("drain-{}", args.queue))
        .backend(storage.poll_with_strategy(Every::poll()))
        .concurrency(CONCURRENCY)
        .build(move |_: u64| {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Ok::<(), BoxDynError>(()) }
        });
    let settled = async {
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        loop {
            pace.tick().await;
            if ran.load(Ordering::Relaxed) >= args.n && count().await? >= args.n {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = worker.run() => Err(format!("the worker ended: {ended:?}").into()),
        settled = settled => settled,
    }
}
