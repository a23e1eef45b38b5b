//! What all requests share, and the way of a request: host and token, route, page, and what every answer carries.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use tokio::sync::Mutex;

use super::answer::{Answer, BAD_REQUEST, METHOD, Problem, redis_too_slow};
use super::auth::Gate;
use super::body::{Body, Budget};
use super::ended::Waiters;
use super::routes::{self, Page, Route};
use super::scrape::HttpMetrics;
use super::target::{Query, refuse_tokens};
use super::{Facts, Params, REDIS_TIMEOUT, SCRAPE_AGE_MAX, body, events, jobs, openapi, probes, scrape};
use crate::clock::Timestamp;
use crate::job::JobId;
use crate::store::{self, QueueInfo, Store};

/// How old a word of Redis that it is there may be.
const PING_AGE_MAX: Duration = Duration::from_millis(250);
/// Answers from this size on take their share of the memory for bodies.
const ACCOUNTED_BYTES_MIN: usize = 64 * 1024;

/// What all requests share.
pub(super) struct App {
    pub(super) store: Store,
    pub(super) facts: Facts,
    pub(super) metrics: HttpMetrics,
    pub(super) budget: Budget,
    pub(super) gate: Gate,
    pub(super) waiters: Arc<Waiters>,
    /// When the server began, which is when the process did, but for a moment.
    pub(super) started: Timestamp,
    queues: Recent<Vec<QueueInfo>>,
    ping: Recent<()>,
}

impl App {
    pub(super) fn new(store: Store, params: Params) -> Self {
        Self {
            store,
            facts: params.facts,
            metrics: HttpMetrics::new(),
            budget: Budget::new(),
            gate: Gate::new(params.token.as_ref(), params.open),
            waiters: Waiters::new(),
            started: Timestamp::now(),
            queues: Recent::default(),
            ping: Recent::default(),
        }
    }

    /// Answers a request. What it costs in time and how it ended is counted here, and nowhere else.
    pub(super) async fn answer(
        self: Arc<Self>,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let began = Instant::now();
        let mut route = None;
        let answered = self.pass(peer, request, &mut route).await;
        let mut answer = answered.unwrap_or_else(Problem::into_answer);
        if answer.body_bytes() >= ACCOUNTED_BYTES_MIN
            && let Err(problem) = answer.body_mut().account(&self.budget)
        {
            answer = problem.into_answer();
        }
        self.metrics.count(route, answer.status(), began.elapsed());
        Ok(answer.into_response())
    }

    /// The way of a request; `found` is its route as soon as that is known.
    async fn pass(
        self: &Arc<Self>,
        peer: IpAddr,
        request: Request<Incoming>,
        found: &mut Option<&'static Route>,
    ) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        if !matches!(head.method, Method::GET | Method::HEAD | Method::POST) {
            return Err(Problem::new(METHOD, "this server knows GET, HEAD and POST").allow("GET, HEAD, POST"));
        }
        if head.uri.authority().is_some() || !head.uri.path().starts_with('/') {
            return Err(Problem::new(BAD_REQUEST, "this server is no proxy: the address must begin with `/`"));
        }
        refuse_tokens(head.uri.query())?;
        let access = self.gate.check(peer, &head.headers, head.uri.path())?;
        let (route, id) = routes::find(head.method.as_str(), head.uri.path());
        *found = route;
        let id = id?.unwrap_or_else(|| JobId::from(""));
        let Some(route) = route else { return Err(Problem::new(BAD_REQUEST, "no route")) };
        let known: Vec<&str> = route.query.iter().map(|parameter| parameter.name).collect();
        let query = Query::parse(head.uri.query(), &known)?;
        if head.method == Method::POST {
            jobs::check_content_type(&head.headers)?;
        }
        let read = || body::read(&self.budget, &head.headers, body);
        match route.page {
            Page::Healthz => Ok(probes::healthz(&self.facts)),
            Page::Readyz => Ok(probes::readyz(self, access).await),
            Page::Metrics => Ok(scrape::page(self).await),
            Page::Submit => jobs::submit(self, &head.headers, read().await?).await,
            Page::List => jobs::list(self, &query).await,
            Page::Show => jobs::show(self, &id).await,
            Page::Wait => jobs::wait(self, &id, &query).await,
            Page::Cancel => jobs::cancel(self, peer, &id, read().await?).await,
            // A stream for somebody who only wants its head would go on for nobody.
            Page::Logs if head.method == Method::HEAD => jobs::show(self, &id).await,
            Page::Logs => events::open(self, id).await,
            Page::Queues => jobs::queues(self).await,
            Page::OpenApi => Ok(Answer::text("application/json", openapi::openapi_json())),
        }
    }

    /// What Redis answers in time.
    pub(super) async fn in_time<T>(&self, asked: impl Future<Output = Result<T, store::Error>>) -> Result<T, Problem> {
        match tokio::time::timeout(REDIS_TIMEOUT, asked).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(redis_too_slow(REDIS_TIMEOUT)),
        }
    }

    /// Whether Redis answers.
    pub(super) async fn redis_answers(&self) -> Result<(), store::Error> {
        self.ping.get(PING_AGE_MAX, self.late(), async { self.store.ping().await.map(drop) }).await
    }

    /// The queues in numbers, as they were a second ago at most.
    pub(super) async fn queues(&self) -> Result<Vec<QueueInfo>, store::Error> {
        self.queues.get(SCRAPE_AGE_MAX, self.late(), self.store.queues()).await
    }

    fn late(&self) -> store::Error {
        store::Error::TimedOut { address: self.store.address().to_owned(), what: "in time", after: REDIS_TIMEOUT }
    }
}

/// The last answer of Redis to one question: whoever asks while another waits gets the same answer.
struct Recent<T>(Mutex<Option<(Instant, Result<T, store::Error>)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Recent<T> {
    async fn get(
        &self,
        age_max: Duration,
        late: store::Error,
        ask: impl Future<Output = Result<T, store::Error>>,
    ) -> Result<T, store::Error> {
        let asked = async {
            let mut last = self.0.lock().await;
            if let Some((at, answer)) = &*last
                && at.elapsed() < age_max
            {
                return answer.clone();
            }
            let answer = tokio::time::timeout(REDIS_TIMEOUT, ask).await.unwrap_or_else(|_| Err(late.clone()));
            *last = Some((Instant::now(), answer.clone()));
            answer
        };
        tokio::time::timeout(REDIS_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late.clone()))
    }
}
