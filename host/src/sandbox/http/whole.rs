//! `wasmhost:jumpscript/http`: a request and its whole answer in one call.
//!
//! Invariant: what `wasi:http` would refuse is refused here, in the same words.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpHooks as _};

use super::{Calls, HTTP_FIELDS_BYTES_MAX, send};
use crate::sandbox::contract::{Wasi, http};
use crate::sandbox::guest::Guest;
use crate::sandbox::host_calls::host_call;

impl http::Host for Guest<Wasi> {
    async fn send(&mut self, request: http::Request) -> Result<http::Response, http::Error> {
        host_call("wasmhost:jumpscript/http", "send");
        self.http.client(&self.log).calls.whole(request).await
    }
}

impl Calls {
    /// Sends a request and reads its answer.
    async fn whole(&mut self, request: http::Request) -> Result<http::Response, http::Error> {
        let request = prepared(request).map_err(http::Error::Failed)?;
        let admitted = self.admit(&request);
        let log = self.log.clone();
        let answer = async {
            let (grant, target) = admitted?;
            let runtime = grant.network.runtime()?;
            // All of it where the sockets are: the guest's thread is woken once.
            send::Task(runtime.spawn(async move {
                let (answer, alive) = send::send(request, RequestOptions::default(), target, grant, log).await?;
                let (head, body) = answer.into_parts();
                let body = all(body).await?;
                drop(alive);
                Ok((head, body))
            }))
            .await?
        };
        match answer.await {
            Ok((head, body)) => {
                let header = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
                let headers = head.headers.iter().map(header).collect();
                Ok(http::Response { status: head.status.as_u16(), headers, body })
            }
            Err(Error::HttpRequestDenied) => Err(http::Error::Denied),
            Err(Error::Hyper(error)) => Err(http::Error::Failed(name(&self.p2_error_from_hyper(&error)))),
            Err(other) => Err(http::Error::Failed(name(&other))),
        }
    }
}

/// The request in the form that is sent, or what about it makes no sense.
fn prepared(asked: http::Request) -> Result<Request<WasiBody>, String> {
    let method = Method::from_bytes(asked.method.as_bytes());
    let method = method.map_err(|_| format!("`{}` is no method", asked.method.escape_debug()))?;
    let (scheme, _) = asked.url.split_once("://").ok_or("a URL begins with http:// or https://")?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(format!("`{}` is not http or https", scheme.escape_debug()));
    }
    let url = asked.url.split('#').next().unwrap_or_default();
    let uri: Uri = url.parse().map_err(|_| "the URL has a host or a path that is not allowed")?;
    let authority = uri.authority().ok_or("the URL names no host")?.as_str();
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| "the URL has a host that is not allowed")?);
    let mut n_bytes = 0;
    for (name, value) in asked.headers {
        n_bytes += name.len() + value.len();
        let not_allowed = "a header has a name or value that is not allowed";
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| not_allowed)?;
        if DEFAULT_FORBIDDEN_HEADERS.contains(&name) {
            return Err(format!("the header `{name}` is the host's own"));
        }
        headers.append(name, HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| not_allowed)?);
    }
    if n_bytes > HTTP_FIELDS_BYTES_MAX {
        return Err(format!("the headers have {n_bytes} bytes, at most {HTTP_FIELDS_BYTES_MAX} are allowed"));
    }
    let is_empty = asked.body.is_empty();
    if !is_empty {
        headers.insert(CONTENT_LENGTH, asked.body.len().into());
    } else if headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return Err("`content-length` announces a body, and there is none".to_owned());
    }
    let mut request = Request::new(WasiBody::new(Whole(Some(asked.body.into()).filter(|_| !is_empty))));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    Ok(request)
}

/// A body that is there.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

/// All bytes of a body, which ends with an error when it is too long.
async fn all(mut body: WasiBody) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// What `wasi:http` calls an error: `HTTP-request-denied` for `HttpRequestDenied`, and what it carries.
fn name(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Request<WasiBody>, String> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        prepared(http::Request { method: method.to_owned(), url: url.to_owned(), headers, body: body.into() })
    }

    #[test]
    fn a_request_is_put_together_as_it_is_sent() {
        let sent = request("POST", "http://a.b:1/c?d#e", &[("X-Way", "there")], "hello").unwrap();
        assert_eq!((sent.method().as_str(), sent.uri().to_string().as_str()), ("POST", "http://a.b:1/c?d"));
        let header = |name: &str| sent.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (header("host"), header("x-way"), header("content-length")),
            ("a.b:1".into(), "there".into(), "5".into())
        );
        let bare = request("GET", "https://a.b", &[], "").unwrap();
        assert_eq!(bare.headers().len(), 1);
        assert!(bare.body().is_end_stream());
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let long = "x".repeat(HTTP_FIELDS_BYTES_MAX);
        for (method, url, headers, part) in [
            ("GE T", "http://a", &[][..], "`GE T` is no method"),
            ("GET", "a.b/c", &[], "begins with http://"),
            ("GET", "ftp://a", &[], "`ftp` is not http"),
            ("GET", "http:///x", &[], "not allowed"),
            ("GET", "http://a b/", &[], "not allowed"),
            ("GET", "http://a", &[("Host", "b")], "`host` is the host's own"),
            ("GET", "http://a", &[("a b", "c")], "not allowed"),
            ("GET", "http://a", &[("a", "b\nc")], "not allowed"),
            ("GET", "http://a", &[("a", &long)], "at most 32768"),
            ("GET", "http://a", &[("content-length", "7")], "there is none"),
        ] {
            let error = request(method, url, headers, "").unwrap_err();
            assert!(error.contains(part), "{method} {url}: {error}");
        }
    }

    #[test]
    fn errors_have_the_names_of_wasi() {
        assert_eq!(name(&Error::ConnectionRefused), "connection-refused");
        assert_eq!(name(&Error::HttpRequestUriInvalid), "HTTP-request-URI-invalid");
        assert_eq!(name(&Error::HttpResponseBodySize(Some(1))), "HTTP-response-body-size(Some(1))");
        assert_eq!(name(&Error::TlsCertificateError), "TLS-certificate-error");
    }
}
