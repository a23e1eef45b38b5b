//! The table of routes: what is served, with which parameters, and what answers there can be. The description of the
//! API is made from it.

use super::answer::{METHOD, NOT_FOUND, Problem};
use super::target::decoded;
use crate::job::{ID_BYTES_MAX, JobId};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Healthz,
    Readyz,
    Metrics,
    Submit,
    List,
    Show,
    Wait,
    Cancel,
    Logs,
    Queues,
    OpenApi,
}

/// A parameter of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// `GET` (which is `HEAD`, too) or `POST`.
    pub(super) method: &'static str,
    /// The path; `{id}` is the id of a job, percent-encoded.
    pub(super) path: &'static str,
    pub(super) page: Page,
    pub(super) what: &'static str,
    pub(super) query: &'static [Parameter],
    /// Statuses beside those that every route can have, and what they mean.
    pub(super) answers: &'static [(u16, &'static str)],
}

/// Everything that is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/healthz",
        page: Page::Healthz,
        what: "Whether the process lives. Redis is not asked.",
        query: &[],
        answers: &[(200, "it lives"), (503, "its loop has not turned for a minute: restart it")],
    },
    Route {
        method: "GET",
        path: "/readyz",
        page: Page::Readyz,
        what: "Whether the host takes jobs: Redis answers, the worker turns, nobody has asked it to stop.",
        query: &[],
        answers: &[(200, "it does"), (503, "it does not, with the reasons")],
    },
    Route {
        method: "GET",
        path: "/metrics",
        page: Page::Metrics,
        what: "Everything that is counted, in the text format of Prometheus.",
        query: &[],
        answers: &[(200, "the metrics; those of queues are missing while Redis is away")],
    },
    Route {
        method: "POST",
        path: "/v1/jobs",
        page: Page::Submit,
        what: "Makes a job, or a list of them.",
        query: &[],
        answers: &[
            (200, "a single job with a known idempotency key: the id of the first one"),
            (201, "made; of a list each job says whether it is new"),
            (400, "the body is not the JSON that is expected"),
            (413, "the body is larger than 16 MiB"),
            (415, "the content type is not application/json"),
            (422, "a job breaks a rule; nothing was made"),
            (429, "the queue is full"),
            (503, "Redis is away; what was asked may have been done"),
            (507, "the memory of Redis is full"),
        ],
    },
    Route {
        method: "GET",
        path: "/v1/jobs",
        page: Page::List,
        what: "A page of jobs, without payloads and results.",
        query: LIST_PARAMETERS,
        answers: &[(200, "a page; `next_cursor` is where the next one begins"), (400, "a parameter is wrong")],
    },
    Route {
        method: "GET",
        path: "/v1/jobs/{id}",
        page: Page::Show,
        what: "Everything about a job.",
        query: &[],
        answers: &[(200, "the job"), (404, "there is no such job")],
    },
    Route {
        method: "GET",
        path: "/v1/jobs/{id}/wait",
        page: Page::Wait,
        what: "Waits for the end of a job.",
        query: &[Parameter { name: "timeout", what: "How long to wait: 30s unless something is said, at most 5m." }],
        answers: &[
            (200, "the job, which has ended"),
            (202, "the job, which goes on"),
            (404, "there is no such job"),
            (503, "Redis is away, or too many wait"),
        ],
    },
    Route {
        method: "POST",
        path: "/v1/jobs/{id}/cancel",
        page: Page::Cancel,
        what: "Cancels a job that has not ended; one that runs is stopped.",
        query: &[],
        answers: &[
            (200, "cancelled"),
            (404, "there is no such job"),
            (409, "it has ended already"),
            (415, "the content type is not application/json"),
        ],
    },
    Route {
        method: "GET",
        path: "/v1/jobs/{id}/logs",
        page: Page::Logs,
        what: "What a job says, as server-sent events: state, log, progress, end, gone.",
        query: &[],
        answers: &[(200, "the events, until the job ends or 15 minutes have passed"), (404, "there is no such job")],
    },
    Route {
        method: "GET",
        path: "/v1/queues",
        page: Page::Queues,
        what: "The queues in numbers.",
        query: &[],
        answers: &[(200, "the queues")],
    },
    Route {
        method: "GET",
        path: "/v1/openapi.json",
        page: Page::OpenApi,
        what: "This description.",
        query: &[],
        answers: &[(200, "OpenAPI 3.1")],
    },
];

const fn parameter(name: &'static str, what: &'static str) -> Parameter {
    Parameter { name, what }
}

/// The filters of a page of jobs, those of `wasmhost jobs ls`.
const LIST_PARAMETERS: &[Parameter] = &[
    parameter("queue", "Only this queue."),
    parameter("state", "Only jobs in this state: inflight, ready, parked, scheduled, dlq, done, cancelled."),
    parameter("type", "Only jobs of this type."),
    parameter("error", "Only jobs with this text in their error, in small or large letters."),
    parameter("payload", "Only jobs with this text in their payload, byte for byte."),
    parameter("since", "Only jobs made at this time or later: 2h (ago), RFC 3339, or Unix seconds."),
    parameter("until", "Only jobs made before this time."),
    parameter("limit", "Jobs on the page, 1 to 1000; 50 unless something is said."),
    parameter("cursor", "Where the page begins: what the page before it ended with."),
];

/// The route of a request, and the id in its path.
pub(super) fn find(method: &str, path: &str) -> (Option<&'static Route>, Result<Option<JobId>, Problem>) {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut at_path = ROUTES.iter().filter_map(|route| id_in(route.path, path).map(|id| (route, id))).peekable();
    if at_path.peek().is_none() {
        let problem =
            Problem::new(NOT_FOUND, "nothing is served at this path").hint("GET /v1/openapi.json lists what is");
        return (None, Err(problem));
    }
    let all: Vec<_> = at_path.collect();
    match all.iter().find(|(route, _)| route.method == method) {
        Some((route, id)) => (Some(route), id.map(read_id).transpose()),
        None => {
            let methods = match (all.iter().any(|(route, _)| route.method == "GET"), all.len()) {
                (true, 1) => "GET, HEAD",
                (true, _) => "GET, HEAD, POST",
                (false, _) => "POST",
            };
            (Some(all[0].0), Err(Problem::new(METHOD, format!("this path has {methods}")).allow(methods)))
        }
    }
}

/// Whether a path is that of a route, and the piece that stands for `{id}`.
fn id_in<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut id = None;
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(id),
            (Some("{id}"), Some(piece)) if !piece.is_empty() => id = Some(piece),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

fn read_id(piece: &str) -> Result<JobId, Problem> {
    let bytes = decoded(piece)?;
    if bytes.len() > ID_BYTES_MAX {
        let detail = format!("the id has {} bytes, at most {ID_BYTES_MAX} are possible", bytes.len());
        return Err(Problem::new(super::answer::NO_SUCH_JOB, detail));
    }
    Ok(JobId::from_bytes(&bytes))
}
