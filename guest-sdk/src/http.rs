//! HTTP requests, one at a time, each waits for its answer.
//!
//! ```no_run
//! use wasmhost_guest::http;
//!
//! # fn f() -> Result<(), http::Error> {
//! let answer = http::get("https://api.example.com/rate")?;
//! println!("{} {}", answer.status, answer.text());
//! http::Request::new("POST", "https://api.example.com/mail").header("authorization", "Bearer 7f").body("hello").send()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is denied unless `jumpscript.toml` requests the host and the node allows it (`--allow-http`):
//!
//! ```toml
//! [permissions]
//! http = ["api.example.com:443"]
//! ```
//!
//! Redirects are not followed: the answer says where to (`location`), and that is a request of its own, under the same
//! permission. A status such as 404 or 500 is an answer, not an error. Time is bounded by the job's own timeout; a job
//! sends at most 50 requests an attempt.

use std::fmt;

/// Sends a GET request.
///
/// # Errors
/// [`Error`] when there is no answer: denied, not reached, cut off.
pub fn get(url: &str) -> Result<Response, Error> {
    Request::new("GET", url).send()
}

/// Sends a POST request with a body.
///
/// # Errors
/// As [`get`].
pub fn post(url: &str, body: impl Into<Vec<u8>>) -> Result<Response, Error> {
    Request::new("POST", url).body(body).send()
}

/// A request that is being put together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// A request without headers and body. The method is written in upper case; the URL begins with `http://` or
    /// `https://`, and what follows a `#` is not sent.
    pub fn new(method: &str, url: &str) -> Self {
        Self { method: method.to_owned(), url: url.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header. `host`, `connection`, `transfer-encoding` and `upgrade` are the host's own and are refused.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body, at most 8 MiB.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request, waits for the answer and reads its body, at most 16 MiB.
    ///
    /// # Errors
    /// As [`get`].
    pub fn send(self) -> Result<Response, Error> {
        send(&self).map_err(|reason| {
            let url = self.url.split(['?', '#']).next().unwrap_or_default();
            Error { request: format!("{} {url}", self.method), reason }
        })
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case and values, in the order of the answer.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Response {
    /// Whether the status is 200 to 299.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// The first value of a header that is text. The name is written in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(&value.1).ok()
    }

    /// The body as text, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    request: String,
    reason: String,
}

/// The name that `wasi:http` has for a request that is not permitted.
const DENIED: &str = "HTTP-request-denied";

impl Error {
    /// Whether the request is not permitted; the job's log says what would allow it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.reason == DENIED
    }

    /// The error code of `wasi:http`, such as `connection-refused`, or a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.request, self.reason)?;
        if self.is_denied() { f.write_str(" (the job's log says what would allow it)") } else { Ok(()) }
    }
}

impl std::error::Error for Error {}

/// A URL in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    is_tls: bool,
    authority: &'a str,
    path: String,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("a URL begins with http:// or https://")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(format!("`{other}` is not http or https")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { is_tls, authority, path: format!("{slash}{path}") })
    }
}

#[cfg(not(target_family = "wasm"))]
fn send(request: &Request) -> Result<Response, String> {
    Url::parse(&request.url)?;
    Err("a native test has no host that sends requests".to_owned())
}

#[cfg(target_family = "wasm")]
fn send(request: &Request) -> Result<Response, String> {
    wire::send(request)
}

/// The conversation with the host.
#[cfg(target_family = "wasm")]
mod wire {
    use wasip2::http::outgoing_handler;
    use wasip2::http::types::{
        ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
    };
    use wasip2::io::streams::StreamError;

    use super::{Request, Response, Url};

    /// Bytes that are read at once.
    const READ_BYTES: u64 = 64 * 1024;

    pub(super) fn send(request: &Request) -> Result<Response, String> {
        let outgoing = head(request)?;
        let body = if request.body.is_empty() { None } else { Some(outgoing.body().map_err(|()| "the body is gone")?) };
        let answer = outgoing_handler::handle(outgoing, None).map_err(|code| name(&code))?;
        if let Some(body) = body {
            // A server may answer before it has read everything, so what counts is its answer.
            let _ = write(body, &request.body);
        }
        answer.subscribe().block();
        let answer = answer.get().and_then(Result::ok).ok_or("the answer is gone")?;
        read(&answer.map_err(|code| name(&code))?)
    }

    fn head(request: &Request) -> Result<OutgoingRequest, String> {
        let url = Url::parse(&request.url)?;
        let mut headers = request.headers.clone();
        if !request.body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
        }
        let headers = Fields::from_list(&headers).map_err(|error| match error {
            HeaderError::InvalidSyntax => "a header has a name or value that is not allowed",
            HeaderError::Forbidden => "a header is the host's own",
            HeaderError::Immutable => "the headers cannot be changed",
        })?;
        let outgoing = OutgoingRequest::new(headers);
        let method = match request.method.as_str() {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "HEAD" => Method::Head,
            "PATCH" => Method::Patch,
            "OPTIONS" => Method::Options,
            other => Method::Other(other.to_owned()),
        };
        outgoing.set_method(&method).map_err(|()| format!("`{}` is no method", request.method.escape_debug()))?;
        let scheme = if url.is_tls { Scheme::Https } else { Scheme::Http };
        outgoing.set_scheme(Some(&scheme)).map_err(|()| "the scheme is not allowed")?;
        let authority = Some(url.authority).filter(|authority| !authority.is_empty());
        let authority = authority.ok_or("the URL names no host")?;
        outgoing.set_authority(Some(authority)).map_err(|()| "the URL has a host that is not allowed")?;
        outgoing.set_path_with_query(Some(&url.path)).map_err(|()| "the URL has a path that is not allowed")?;
        Ok(outgoing)
    }

    fn write(body: OutgoingBody, mut bytes: &[u8]) -> Result<(), StreamError> {
        let stream = body.write().map_err(|()| StreamError::Closed)?;
        while !bytes.is_empty() {
            let room = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
            if room == 0 {
                stream.subscribe().block();
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            stream.write(now)?;
            bytes = later;
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(|_| StreamError::Closed)
    }

    fn read(answer: &IncomingResponse) -> Result<Response, String> {
        let (status, headers) = (answer.status(), answer.headers().entries());
        let body: IncomingBody = answer.consume().map_err(|()| "the body is gone")?;
        let stream = body.stream().map_err(|()| "the body is gone")?;
        let mut bytes = Vec::new();
        loop {
            match stream.blocking_read(READ_BYTES) {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(StreamError::Closed) => return Ok(Response { status, headers, body: bytes }),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(format!("the answer was cut off: {}", error.to_debug_string()));
                }
            }
        }
    }

    /// An error code as `wasi:http` spells it: `HTTP-request-denied`, and what it carries.
    fn name(code: &ErrorCode) -> String {
        let text = format!("{code:?}");
        let text = text.strip_prefix("ErrorCode::").unwrap_or(&text);
        let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
        let (words, rest) = text.split_at(end);
        let mut name = String::new();
        for c in words.chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        for short in ["http", "dns", "tls", "ip", "uri"] {
            let whole = |word: &str| if word == short { short.to_uppercase() } else { word.to_owned() };
            name = name.split('-').map(whole).collect::<Vec<_>>().join("-");
        }
        name + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_its_parts() {
        let url = |text| Url::parse(text).unwrap();
        assert_eq!(url("HTTP://a.b:1/c?d#e"), Url { is_tls: false, authority: "a.b:1", path: "/c?d".to_owned() });
        assert_eq!(url("https://[::1]?k=v"), Url { is_tls: true, authority: "[::1]", path: "/?k=v".to_owned() });
        assert_eq!(url("http://a").path, "/");
        assert!(Url::parse("ftp://a").is_err() && Url::parse("a.b/c").is_err());
    }

    #[test]
    fn an_error_names_the_request_and_keeps_its_query_to_itself() {
        let error = get("https://a.b/c?token=7f").unwrap_err();
        assert_eq!(error.to_string(), "GET https://a.b/c: a native test has no host that sends requests");
    }
}
