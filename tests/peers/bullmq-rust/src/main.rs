//! BullMQ's Rust port as a peer: see `peer` for what it is asked. Finished jobs are removed, the leanest setting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bullmq::options::RedisConnectionOptions;
use bullmq::types::RemoveOnFinish;
use bullmq::worker::WorkerEvent;
use bullmq::{BulkJob, Job, Queue, QueueOptions, Worker, WorkerOptions};
use peer::{Args, BULK, CONCURRENCY, Error, Waits};
use serde_json::Value;

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
            let worker = no_op_worker(&warm_up).await?;
            drain(&worker, warm_up.n).await?;
            worker.close(5_000).await?;

            let worker = no_op_worker(&args).await?;
            peer::say_ready();
            args.go.wait().await;
            let before = peer::cpu();
            drain(&worker, args.n).await?;
            peer::say_drained(before);
            Ok(())
        }
        "serve" => {
            let waits = Arc::new(Waits::new(args.n)?);
            let counter = Arc::clone(&waits);
            let handler = move |job: Job, _| {
                counter.add(job.data().as_u64().unwrap_or(0));
                async { Ok(Value::Null) }
            };
            let worker = Worker::with_options(&args.queue, handler, worker_options(&args, true)).await?;
            peer::say_ready();
            waits.say_all().await?;
            Ok(worker.close(5_000).await?)
        }
        "send" => {
            let queue = queue(&args).await?;
            peer::send(&args, async |now| Ok(queue.add("noop", now).await.map(drop)?)).await
        }
        role => Err(format!("unknown role `{role}`").into()),
    }
}

fn connection(args: &Args) -> RedisConnectionOptions {
    RedisConnectionOptions { url: args.url.clone(), ..RedisConnectionOptions::default() }
}

async fn queue(args: &Args) -> Result<Queue, Error> {
    let options = QueueOptions { connection: connection(args), ..QueueOptions::default() };
    Ok(Queue::with_options(&args.queue, options).await?)
}

/// Enqueues the jobs. Answers how long it took once connected.
async fn fill(args: &Args) -> Result<Duration, Error> {
    let queue = queue(args).await?;
    let started = Instant::now();
    let mut left = args.n;
    while left > 0 {
        let n = left.min(BULK);
        queue.add_bulk((0..n).map(|_| BulkJob::new("noop", Value::Null)).collect()).await?;
        left -= n;
    }
    Ok(started.elapsed())
}

fn worker_options(args: &Args, autorun: bool) -> WorkerOptions {
    WorkerOptions {
        connection: connection(args),
        concurrency: CONCURRENCY,
        autorun,
        remove_on_complete: Some(RemoveOnFinish::Bool(true)),
        ..WorkerOptions::default()
    }
}

async fn no_op_worker(args: &Args) -> Result<Worker, Error> {
    let handler = |_: Job, _| async { Ok(Value::Null) };
    Ok(Worker::with_options(&args.queue, handler, worker_options(args, false)).await?)
}

/// Works until `n` jobs are settled: the event follows Redis's answer to the last write.
async fn drain(worker: &Worker, n: u64) -> Result<(), Error> {
    worker.run().await?;
    let mut done = 0;
    while done < n {
        match worker.next_event().await {
            Some(WorkerEvent::Completed { .. }) => done += 1,
            Some(WorkerEvent::Failed { error, .. } | WorkerEvent::Error(error)) => return Err(error.into()),
            Some(_) => {}
            None => return Err("the worker ended".into()),
        }
    }
    Ok(())
}
