//! What goes back: answers, problems (`application/problem+json`), and the header fields that all of them carry.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::body::Body;
use crate::store;

/// The kinds of problems: the word in `type`, the status, and the title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProblemKind {
    pub(super) word: &'static str,
    pub(super) status: u16,
    pub(super) title: &'static str,
}

macro_rules! problems {
    ($($constant:ident $status:literal $word:literal $title:literal;)*) => {
        $(pub(super) const $constant: &ProblemKind =
            &ProblemKind { word: $word, status: $status, title: $title };)*

        /// Every kind, for the documentation.
        pub(super) const PROBLEMS: &[&ProblemKind] = &[$($constant),*];
    };
}

problems! {
    BAD_REQUEST 400 "bad-request" "The request cannot be understood";
    BAD_JSON 400 "bad-json" "The body is not the JSON that is expected";
    BAD_CURSOR 400 "bad-cursor" "The cursor is none of this list";
    TOKEN_IN_QUERY 400 "token-in-query" "A token does not belong in an address";
    UNAUTHORIZED 401 "unauthorized" "The right token is missing";
    CROSS_ORIGIN 403 "cross-origin" "The request comes from another site";
    WRONG_HOST 403 "wrong-host" "The request is for another host";
    NOT_FOUND 404 "not-found" "There is nothing at this path";
    NO_SUCH_JOB 404 "no-such-job" "There is no such job";
    METHOD 405 "method-not-allowed" "The path does not have this method";
    TOO_SLOW 408 "too-slow" "The body took too long";
    HAS_ENDED 409 "job-has-ended" "The job has ended already";
    HAS_MOVED 409 "job-has-moved" "The job went to another queue just now";
    TOO_LARGE 413 "too-large" "The body is too large";
    MEDIA_TYPE 415 "media-type" "The body must be JSON";
    BAD_JOB 422 "bad-job" "The job breaks a rule";
    WRONG_TOKENS 429 "too-many-wrong-tokens" "Too many wrong tokens";
    QUEUE_FULL 429 "queue-full" "The queue is full";
    INTERNAL 500 "refused-by-redis" "Redis refuses what was asked";
    REDIS_AWAY 503 "redis-away" "Redis does not answer";
    BUSY 503 "busy" "The server has its hands full";
    REDIS_FULL 507 "redis-full" "The memory of Redis is full";
}

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    kind: &'static ProblemKind,
    detail: String,
    hint: Option<String>,
    allow: Option<&'static str>,
    more: Map<String, Value>,
}

impl Problem {
    pub(super) fn new(kind: &'static ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), hint: None, allow: None, more: Map::new() }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The methods that the path has.
    #[must_use]
    pub(super) const fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// A member beside the usual ones.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    #[cfg(test)]
    pub(super) const fn status(&self) -> u16 {
        self.kind.status
    }

    /// The answer that tells it.
    pub(super) fn into_answer(self) -> Answer {
        let mut shape = self.more;
        shape.insert("type".to_owned(), format!("urn:wasmhost:problem:{}", self.kind.word).into());
        shape.insert("title".to_owned(), self.kind.title.into());
        shape.insert("status".to_owned(), self.kind.status.into());
        shape.insert("detail".to_owned(), self.detail.into());
        if let Some(hint) = self.hint {
            shape.insert("hint".to_owned(), hint.into());
        }
        let mut answer = Answer::json(self.kind.status, &Value::Object(shape)).of_type("application/problem+json");
        if matches!(self.kind.status, 429 | 503) {
            answer = answer.header(header::RETRY_AFTER, "1");
        }
        if let Some(methods) = self.allow {
            answer = answer.header(header::ALLOW, methods);
        }
        match self.kind.status {
            401 => answer.header(header::WWW_AUTHENTICATE, "Bearer realm=\"wasmhost\""),
            // The rest of the body is of no interest, or the peer of none.
            408 | 413 => answer.header(header::CONNECTION, "close"),
            _ if self.kind == WRONG_TOKENS => answer.header(header::CONNECTION, "close"),
            _ => answer,
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        use store::Error;
        let kind = match &error {
            Error::Unreachable { .. }
            | Error::TimedOut { .. }
            | Error::Login { .. }
            | Error::NotRedis { .. }
            | Error::TooOld { .. }
            | Error::Evicts { .. }
            | Error::NewerLayout { .. }
            | Error::NoHashTag { .. }
            | Error::Tls { .. } => REDIS_AWAY,
            Error::QueueFull(_) => QUEUE_FULL,
            Error::Full { .. } => REDIS_FULL,
            Error::Refused(_) => BAD_JOB,
            Error::Cursor(_) => BAD_CURSOR,
            Error::Url { .. } | Error::Claimed { .. } | Error::NotAllowed { .. } | Error::Server { .. } => INTERNAL,
        };
        let problem = Self::new(kind, error.to_string());
        match error.hint() {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer(Response<Body>);

impl Answer {
    fn new(status: u16, content_type: &'static str, body: Body) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(response).of_type(content_type)
    }

    /// JSON.
    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", Body::whole(format!("{value}\n")))
    }

    /// Any text.
    pub(super) fn text(content_type: &'static str, text: String) -> Self {
        Self::new(200, content_type, Body::whole(text))
    }

    /// What comes out of a channel, piece by piece.
    pub(super) fn stream(content_type: &'static str, pieces: mpsc::Receiver<Bytes>) -> Self {
        Self::new(200, content_type, Body::Stream(pieces))
    }

    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    /// Bytes of its body; 0 for a stream.
    pub(super) fn body_bytes(&self) -> usize {
        self.0.body().bytes()
    }

    /// Adds a header field; one that cannot be written is left out.
    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    fn of_type(self, content_type: &'static str) -> Self {
        self.header(header::CONTENT_TYPE, content_type)
    }

    /// The response, with what every one carries: it is shown by no browser, framed by none, and kept by none.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = self.0;
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
            (header::CACHE_CONTROL, "no-store"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// The body, to have it accounted for.
    pub(super) fn body_mut(&mut self) -> &mut Body {
        self.0.body_mut()
    }
}

/// The answer when Redis took too long.
pub(super) fn redis_too_slow(limit: Duration) -> Problem {
    Problem::new(
        REDIS_AWAY,
        format!(
            "Redis did not answer within {}; what was asked may have been done",
            crate::clock::format_duration(limit)
        ),
    )
    .hint("ask again; with an idempotency key a job is made only once")
}

/// The kinds of problems as JSON, for the description of the API.
pub(super) fn problem_words() -> Value {
    json!(PROBLEMS.iter().map(|kind| kind.word).collect::<Vec<_>>())
}
