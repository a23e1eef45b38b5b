//! `GET /v1/jobs/{id}/logs`: what a job says, as server-sent events.
//!
//! A stream begins with the state and, when there is one, the end of the log of the last attempt; then come progress,
//! states and logs as they change; it closes after the event `end`.
//!
//! Invariant: a stream ends: with its job, with its life, or when its reader takes nothing any more.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{Answer, Problem};
use super::app::App;
use super::ended::{Place, Waiter};
use super::jobs::no_job;
use super::{HEARTBEAT_PERIOD, STREAM_LIFE};
use crate::job::{JobId, JobState};
use crate::store::JobRecord;
use crate::views;

/// How often a job that runs is looked at: its progress is written five times a second at most.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// Events that wait for a slow reader.
const EVENTS_MAX: usize = 16;
/// What is looked at.
const LOOKED_AT: [&str; 5] = ["status", "attempts", "progress", "progress_message", "node"];

/// Opens a stream.
pub(super) async fn open(app: &Arc<App>, id: JobId) -> Result<Answer, Problem> {
    let first = app.in_time(app.store.job_fields(&id, &LOOKED_AT)).await?.ok_or_else(|| no_job(&id))?;
    let place = app.waiters.place(&id, Waiter::Stream)?;
    let (events, pieces) = mpsc::channel(EVENTS_MAX);
    let stream = Stream { app: Arc::clone(app), id, events, told: Told::default() };
    tokio::spawn(stream.run(first, place));
    Ok(Answer::stream("text/event-stream", pieces))
}

/// The reader has gone.
struct Gone;

/// A stream that is open.
struct Stream {
    app: Arc<App>,
    id: JobId,
    events: mpsc::Sender<Bytes>,
    told: Told,
}

/// What the reader knows already.
#[derive(Default)]
struct Told {
    state: Value,
    progress: Value,
    log: String,
}

impl Stream {
    async fn run(mut self, first: JobRecord, place: Place) {
        // Whether the job, the reader or the stream's life ended it: it is over.
        let _over = tokio::time::timeout(STREAM_LIFE, self.tell_all(first, place)).await.is_ok();
    }

    async fn tell_all(&mut self, first: JobRecord, place: Place) -> Result<(), Gone> {
        let mut record = first;
        let mut last_word = Instant::now();
        loop {
            let state =
                json!({ "status": record.text("status"), "attempts": record.attempts(), "node": record.text("node") });
            let is_final = record.state().is_some_and(JobState::is_final);
            if state != self.told.state {
                self.send("state", &state).await?;
                self.told.state = state;
                // A log is written when an attempt ends, and so is a state.
                self.tell_log().await?;
                last_word = Instant::now();
            }
            let progress = json!({ "percent": record.number("progress"), "message": record.text("progress_message") });
            if record.number("progress").is_some() && progress != self.told.progress {
                self.send("progress", &progress).await?;
                self.told.progress = progress;
                last_word = Instant::now();
            }
            if is_final {
                return self.tell_end().await;
            }
            if last_word.elapsed() >= HEARTBEAT_PERIOD {
                self.events.send(Bytes::from_static(b": still here\n\n")).await.map_err(|_| Gone)?;
                last_word = Instant::now();
            }
            tokio::select! {
                () = place.may_have_ended() => {}
                () = tokio::time::sleep(PROGRESS_PERIOD) => {}
                () = self.events.closed() => return Err(Gone),
            }
            match self.app.in_time(self.app.store.job_fields(&self.id, &LOOKED_AT)).await {
                Ok(Some(found)) => record = found,
                // Its row was removed: there is nothing more to tell.
                Ok(None) => return self.send("gone", &json!({ "id": self.id.to_string() })).await,
                // Redis is away: the reader hears that the stream is alive, and the job when Redis is back.
                Err(_) => {}
            }
        }
    }

    async fn tell_log(&mut self) -> Result<(), Gone> {
        let Ok(Some(found)) = self.app.in_time(self.app.store.job_fields(&self.id, &["log"])).await else {
            return Ok(());
        };
        let log = found.text("log").unwrap_or_default();
        if log.is_empty() || log == self.told.log {
            return Ok(());
        }
        self.send("log", &json!({ "text": log })).await?;
        self.told.log = log;
        Ok(())
    }

    async fn tell_end(&self) -> Result<(), Gone> {
        let shape = match self.app.in_time(self.app.store.job(&self.id)).await {
            Ok(Some(record)) => views::job(&self.id, &record, false),
            _ => json!({ "id": self.id.to_string() }),
        };
        self.send("end", &shape).await
    }

    /// An event. JSON is one line, so nothing in it can be taken for another event.
    async fn send(&self, event: &str, data: &Value) -> Result<(), Gone> {
        self.events.send(Bytes::from(format!("event: {event}\ndata: {data}\n\n"))).await.map_err(|_| Gone)
    }
}
