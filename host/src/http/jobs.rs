//! The job API: submit, look at, wait for, cancel, list.

use std::net::IpAddr;
use std::time::Duration;

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::{Answer, BAD_REQUEST, HAS_ENDED, HAS_MOVED, MEDIA_TYPE, NO_SUCH_JOB, Problem};
use super::app::App;
use super::body::Share;
use super::ended::Waiter;
use super::target::{Query, encoded};
use super::{LOOK_PERIOD, PARSED_HERE_BYTES_MAX, WAIT, WAIT_MAX, submit};
use crate::clock::{format_duration, parse_duration, parse_moment};
use crate::job::{JobId, JobState, check_name, visible, visible_lines};
use crate::store::{Cancelled, ENQUEUE_MAX, Enqueued, Filter, Listed, PAGE_MAX};
use crate::views;

/// Jobs on a page when nothing is said.
const LIMIT: usize = 50;

/// A request that changes something must say that it is JSON: a form of another site cannot.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding.as_bytes() != b"identity") {
        return Err(Problem::new(MEDIA_TYPE, "the body is compressed").hint("send it as it is"));
    }
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let shown = visible(&essence.chars().take(60).collect::<String>());
    Err(Problem::new(MEDIA_TYPE, format!("the content type is `{shown}`, must be `application/json`"))
        .hint("send the header `Content-Type: application/json`, also without a body"))
}

/// `POST /v1/jobs`. `share` is the body's, kept until its jobs are in Redis.
pub(super) async fn submit(
    app: &App,
    headers: &HeaderMap,
    (bytes, share): (Vec<u8>, Share),
) -> Result<Answer, Problem> {
    let key = match headers.get("idempotency-key") {
        Some(value) => {
            let bad = |_| Problem::new(BAD_REQUEST, "the header `Idempotency-Key` is not visible ASCII");
            Some(value.to_str().map_err(bad)?.to_owned())
        }
        None => None,
    };
    let submission = if bytes.len() <= PARSED_HERE_BYTES_MAX {
        submit::parse(&bytes, key)?
    } else {
        // A large body is read beside this thread, which has other requests.
        let parsed = tokio::task::spawn_blocking(move || submit::parse(&bytes, key)).await;
        parsed.map_err(|error| Problem::new(BAD_REQUEST, format!("the body cannot be read: {error}")))??
    };
    let mut enqueued: Vec<Enqueued> = Vec::with_capacity(submission.jobs.len());
    for piece in submission.jobs.chunks(ENQUEUE_MAX) {
        match app.in_time(app.store.enqueue(piece)).await {
            Ok(answers) => enqueued.extend(answers),
            Err(problem) if enqueued.is_empty() => return Err(problem),
            // Each piece is all or none: these are there, and the others are not.
            Err(problem) => return Err(problem.with("jobs", enqueued.iter().map(enqueued_shape).collect())),
        }
    }
    drop(share);
    if submission.is_bulk {
        let jobs: Vec<Value> = enqueued.iter().map(enqueued_shape).collect();
        return Ok(Answer::json(201, &json!({ "jobs": jobs })));
    }
    let (Some(first), Some(job)) = (enqueued.first(), submission.jobs.first()) else {
        return Err(Problem::new(BAD_REQUEST, "no job was given"));
    };
    let mut shape = enqueued_shape(first);
    shape["queue"] = job.queue.clone().into();
    shape["type"] = job.job_type.clone().into();
    let status = if first.is_new { 201 } else { 200 };
    let location = format!("/v1/jobs/{}", encoded(first.id.as_bytes()));
    Ok(Answer::json(status, &shape).header(LOCATION, location))
}

fn enqueued_shape(enqueued: &Enqueued) -> Value {
    json!({ "id": enqueued.id.to_string(), "is_new": enqueued.is_new })
}

/// `GET /v1/jobs/{id}`.
pub(super) async fn show(app: &App, id: &JobId) -> Result<Answer, Problem> {
    let record = app.in_time(app.store.job(id)).await?.ok_or_else(|| no_job(id))?;
    Ok(Answer::json(200, &views::job(id, &record, true)))
}

/// `GET /v1/jobs/{id}/wait`.
pub(super) async fn wait(app: &App, id: &JobId, query: &Query) -> Result<Answer, Problem> {
    let limit = query.read("timeout", read_wait)?.unwrap_or(WAIT);
    let deadline = Instant::now() + limit;
    let place = app.waiters.place(id, Waiter::Wait)?;
    loop {
        let look = app.in_time(app.store.job_fields(id, &["status"])).await?.ok_or_else(|| no_job(id))?;
        if look.state().is_some_and(JobState::is_final) || Instant::now() >= deadline {
            break;
        }
        tokio::select! {
            () = place.may_have_ended() => {}
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_PERIOD)) => {}
        }
    }
    let record = app.in_time(app.store.job(id)).await?.ok_or_else(|| no_job(id))?;
    let status = if record.state().is_some_and(JobState::is_final) { 200 } else { 202 };
    Ok(Answer::json(status, &views::job(id, &record, true)))
}

fn read_wait(text: &str) -> Result<Duration, String> {
    let limit = parse_duration(text)?;
    if limit > WAIT_MAX {
        return Err(format!("at most {} can be waited", format_duration(WAIT_MAX)));
    }
    Ok(limit)
}

/// `POST /v1/jobs/{id}/cancel`.
pub(super) async fn cancel(
    app: &App,
    peer: IpAddr,
    id: &JobId,
    (bytes, _share): (Vec<u8>, Share),
) -> Result<Answer, Problem> {
    let reason = submit::parse_cancel(&bytes)?.reason.unwrap_or_else(|| "cancelled over HTTP".to_owned());
    let look = app.in_time(app.store.job_fields(id, &["queue", "status"])).await?.ok_or_else(|| no_job(id))?;
    let store = app.store.acting_as(&format!("http {peer}"));
    match app.in_time(store.cancel(&look.queue(), id, &visible_lines(&reason))).await? {
        Cancelled::Applied(before) => {
            Ok(Answer::json(200, &json!({ "id": id.to_string(), "did": "cancelled", "was": before.as_str() })))
        }
        Cancelled::NotFound => Err(no_job(id)),
        Cancelled::Ended(state) => {
            let detail = format!("job `{id}` has ended already: it is `{}`", visible(&state));
            Err(Problem::new(HAS_ENDED, detail).with("state", visible(&state).into()))
        }
        Cancelled::OtherQueue(_) => {
            Err(Problem::new(HAS_MOVED, format!("job `{id}` went to another queue just now")).hint("ask again"))
        }
    }
}

/// `GET /v1/jobs`.
pub(super) async fn list(app: &App, query: &Query) -> Result<Answer, Problem> {
    let text = |name: &str| query.get(name).map(str::to_owned);
    let (since, until) = (query.read("since", parse_moment)?, query.read("until", parse_moment)?);
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        return Err(Problem::new(
            BAD_REQUEST,
            format!("`since` {since} is not before `until` {until}: no job can fit"),
        ));
    }
    let filter = Filter {
        queue: query.read("queue", |name| check_name("queue", name).map(|()| name.to_owned()))?,
        listed: query.read("state", read_listed)?,
        job_type: text("type"),
        error: text("error"),
        payload: text("payload"),
        since,
        until,
        ..Filter::default()
    };
    let limit = query.read("limit", read_limit)?.unwrap_or(LIMIT);
    let page = app.in_time(app.store.find(&filter, query.get("cursor"), limit)).await?;
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Ok(Answer::json(200, &views::page(&page, limit)))
}

fn read_listed(word: &str) -> Result<Listed, String> {
    Listed::parse(word).ok_or_else(|| {
        let known = Listed::ALL.map(Listed::as_str).join(", ");
        format!("`{}` is no state, there are {known}", visible(&word.chars().take(60).collect::<String>()))
    })
}

fn read_limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=PAGE_MAX).contains(n))
        .ok_or_else(|| format!("must be a number from 1 to {PAGE_MAX}"))
}

/// `GET /v1/queues`.
pub(super) async fn queues(app: &App) -> Result<Answer, Problem> {
    let queues = app.in_time(app.store.queues()).await?;
    let shapes: Vec<Value> = queues.iter().map(views::queue).collect();
    Ok(Answer::json(200, &json!({ "queues": shapes })))
}

pub(super) fn no_job(id: &JobId) -> Problem {
    Problem::new(NO_SUCH_JOB, format!("there is no job `{id}` under this prefix"))
        .hint("done jobs are removed after 24 h; GET /v1/jobs lists those that are there")
}
