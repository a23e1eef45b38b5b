//! One request and its answer over a connection of their own.
//!
//! Invariant: everything here ends when the guest lets go of it. The tasks of a request stop when their handles are
//! dropped, and with the attempt every handle is.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::body::Bounded;
use super::guard::{self, Refusal};
use super::{
    Grant, HTTP_CONNECT_TIMEOUT, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_REQUEST_BYTES_MAX, HTTP_RESPONSE_BYTES_MAX,
};
use crate::permissions::{Host, Target};
use crate::ports::Level;
use crate::sandbox::output::Log;

/// A response, and what keeps its connection alive.
pub(super) type Answer = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// A task that is stopped when its handle is dropped.
pub(super) struct Task<T>(pub(super) JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // It was stopped (the host ends), or it panicked, which the host's log has.
        Pin::new(&mut self.0).poll(context).map_err(|_| Error::ConnectionTerminated)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a request wants TLS.
pub(super) fn is_tls<B>(request: &Request<B>) -> bool {
    request.uri().scheme_str() == Some("https")
}

/// Sends a request to a place that is requested and allowed, once its addresses are checked.
pub(super) async fn send(
    request: Request<WasiBody>,
    options: RequestOptions,
    target: Target,
    grant: Arc<Grant>,
    log: Log,
) -> Result<Answer, Error> {
    let is_tls = is_tls(&request);
    let request = prepared(request)?;
    let network = &grant.network;
    // Waits for as long as the attempt lives: a full host is not the fault of this request.
    let permit = Arc::clone(&network.connections).acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
    let limit = options.connect_timeout.unwrap_or(HTTP_CONNECT_TIMEOUT).min(HTTP_CONNECT_TIMEOUT);
    let until = Instant::now() + limit;
    let found = guard::addresses(&target, grant.allowed(), &network.options.keep_out);
    let addresses = timeout_at(until, found).await.map_err(|_| Error::DnsTimeout)?.map_err(|refusal| {
        if let Refusal::Denied(why) = &refusal {
            log.line(Level::Warn, "http", &format!("request to {target} denied: {why}"));
            network.tell(&target, why, &log);
        }
        Error::from(refusal)
    })?;
    let stream = timeout_at(until, connect(&addresses, until)).await.map_err(|_| Error::ConnectionTimeout)??;
    if !is_tls {
        return exchange(stream, request, &options, permit).await;
    }
    let config = network.tls()?;
    let stream = timeout_at(until, shake_hands(stream, &target, config)).await.map_err(|_| Error::ConnectionTimeout)?;
    let stream = stream.map_err(|error| {
        log.line(Level::Warn, "http", &format!("no TLS with {target}: {error}"));
        tls_error(&error)
    })?;
    exchange(stream, request, &options, permit).await
}

type Bound = Request<Bounded<WasiBody>>;

/// The request as it goes over the wire: the path alone in its first line, its body bounded.
fn prepared(mut request: Request<WasiBody>) -> Result<Bound, Error> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > HTTP_REQUEST_BYTES_MAX) {
        return Err(Error::HttpRequestBodySize(length));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
    let too_long = || Error::HttpRequestBodySize(Some(HTTP_REQUEST_BYTES_MAX + 1));
    Ok(request.map(|body| Bounded::new(body, HTTP_REQUEST_BYTES_MAX, too_long)))
}

/// A connection to the first address that takes it; each gets its share of the time.
async fn connect(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, Error> {
    let mut last = Error::DestinationUnavailable;
    for (n, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - n).unwrap_or(1);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests, one after the other: waiting for more to send gains nothing.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            Ok(Err(_)) => Error::DestinationUnavailable,
            Err(_) => Error::ConnectionTimeout,
        };
    }
    Err(last)
}

/// The settings of TLS: versions 1.2 and 1.3, and these roots.
pub(super) fn tls_config(roots: &RootCertStore) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::ConfigurationError)?;
    let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The roots that browsers trust.
pub(super) fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

async fn shake_hands(
    stream: TcpStream,
    target: &Target,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = match &target.host {
        Host::Address(address) => ServerName::from(*address),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(std::io::Error::other)?,
    };
    TlsConnector::from(config).connect(name, stream).await
}

fn tls_error(error: &std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

/// Sends the request over an open connection and waits for the head of the response.
async fn exchange<S>(
    stream: S,
    request: Bound,
    options: &RequestOptions,
    permit: OwnedSemaphorePermit,
) -> Result<Answer, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(HTTP_HEADERS_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let driver = Task(tokio::spawn(async move {
        // How it ended is seen by whoever waits for the response or its body.
        let _ = connection.await;
        drop(permit);
    }));
    let answered = sender.send_request(request);
    let response = match options.first_byte_timeout {
        Some(limit) => timeout(limit, answered).await.map_err(|_| Error::HttpResponseTimeout)?,
        None => answered.await,
    };
    let response = response.map_err(own_error)?;
    let response = bounded(response, options.between_bytes_timeout)?;
    let keep_alive = async move {
        let _ = driver.await;
        Ok(())
    };
    Ok((response, Box::new(keep_alive)))
}

fn bounded(response: Response<Incoming>, silence_max: Option<Duration>) -> Result<Response<WasiBody>, Error> {
    // hyper's own bound is that of its buffer, which may have been read a little further.
    let head: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head > HTTP_HEAD_BYTES_MAX {
        return Err(Error::HttpResponseHeaderSectionSize(u32::try_from(head).ok()));
    }
    let length = hyper::body::Body::size_hint(response.body()).lower();
    if length > HTTP_RESPONSE_BYTES_MAX {
        return Err(Error::HttpResponseBodySize(Some(length)));
    }
    let too_long = || Error::HttpResponseBodySize(Some(HTTP_RESPONSE_BYTES_MAX + 1));
    Ok(response.map(|body| {
        WasiBody::new(Bounded::new(body, HTTP_RESPONSE_BYTES_MAX, too_long).silent_for_at_most(silence_max))
    }))
}

/// An error of our own that travelled through hyper, else hyper's.
fn own_error(error: hyper::Error) -> Error {
    let own = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
    match own {
        Some(Error::HttpRequestBodySize(length)) => Error::HttpRequestBodySize(*length),
        _ => Error::Hyper(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::Granted;
    use crate::ports::NoSink;
    use crate::sandbox::http::{HttpOptions, Network};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    const ROOT: &[u8] = include_bytes!("../../../../tests/fixtures/tls/ca.der");
    const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/fixtures/tls/localhost.der");
    const KEY: &[u8] = include_bytes!("../../../../tests/fixtures/tls/localhost.key.der");

    fn network(roots: Option<RootCertStore>) -> Arc<Network> {
        let allow = vec!["localhost:*".parse().unwrap(), "127.0.0.1:*".parse().unwrap()];
        let network = Network::new(HttpOptions { allow, keep_out: vec![] });
        if let Some(roots) = roots {
            network.tls.set(Arc::new(tls_config(&roots).unwrap())).unwrap();
        }
        network
    }

    fn grant(network: Arc<Network>) -> Arc<Grant> {
        Arc::new(Grant { requested: Arc::new([]), granted: Granted::none(), network })
    }

    async fn get(url: &str, roots: Option<RootCertStore>, options: RequestOptions) -> Result<Answer, Error> {
        let grant = self::grant(network(roots));
        let body = Bounded::new(String::new(), 0, || Error::HttpProtocolError);
        let request = Request::get(url).body(WasiBody::new(body)).unwrap();
        let target = Target::parse(request.uri().authority().unwrap().as_str(), 443).unwrap();
        send(request, options, target, grant, Log::new(Arc::new(NoSink))).await
    }

    /// A server that speaks TLS as `localhost` and answers one request; gives its port.
    async fn tls_server() -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from(CERTIFICATE)];
        let key = PrivateKeyDer::try_from(KEY).unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us hangs up.
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /x HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn a_server_with_a_trusted_certificate_for_its_name_answers() {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ROOT)).unwrap();
        let url = format!("https://localhost:{}/x", tls_server().await);
        let (answer, _alive) = get(&url, Some(roots.clone()), RequestOptions::default()).await.unwrap();
        assert_eq!(answer.status(), 204);
        let other_name = format!("https://127.0.0.1:{}/x", tls_server().await);
        let refused = get(&other_name, Some(roots), RequestOptions::default()).await;
        assert!(matches!(refused, Err(Error::TlsCertificateError)), "the certificate is for another name");
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_signed_is_refused() {
        let url = format!("https://localhost:{}/x", tls_server().await);
        let refused = get(&url, None, RequestOptions::default()).await;
        assert!(matches!(refused, Err(Error::TlsCertificateError)));
    }

    #[tokio::test]
    async fn a_handshake_that_never_ends_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let options = RequestOptions { connect_timeout: Some(Duration::from_millis(50)), ..RequestOptions::default() };
        assert!(matches!(get(&url, None, options).await, Err(Error::ConnectionTimeout)));
        assert!(listener.accept().await.is_ok(), "it was connected");
    }

    /// A body that never ends and does not say how long it is.
    struct Endless;

    impl hyper::body::Body for Endless {
        type Data = hyper::body::Bytes;
        type Error = Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Error>>> {
            Poll::Ready(Some(Ok(hyper::body::Frame::data(vec![b'x'; 64 * 1024].into()))))
        }
    }

    #[tokio::test]
    async fn a_body_whose_length_is_not_announced_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.len() as u64
        });
        let request = Request::post(&url).body(WasiBody::new(Endless)).unwrap();
        let target = Target::parse(request.uri().authority().unwrap().as_str(), 80).unwrap();
        let log = Log::new(Arc::new(NoSink));
        let sent = send(request, RequestOptions::default(), target, grant(network(None)), log).await;
        assert!(matches!(sent, Err(Error::HttpRequestBodySize(Some(_)))));
        assert!(server.await.unwrap() < HTTP_REQUEST_BYTES_MAX + 256 * 1024);
    }

    #[tokio::test]
    async fn the_guests_own_limits_on_silence_hold() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let limit = Some(Duration::from_millis(50));
        let first = RequestOptions { first_byte_timeout: limit, ..RequestOptions::default() };
        assert!(matches!(get(&url, None, first).await, Err(Error::HttpResponseTimeout)));

        let between = RequestOptions { between_bytes_timeout: limit, ..RequestOptions::default() };
        let server = async {
            let (_first, _) = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nx").await.unwrap();
            stream
        };
        let (answer, _stream) = tokio::join!(get(&url, None, between), server);
        let (answer, _alive) = answer.unwrap();
        let mut body = std::pin::pin!(answer.into_body());
        let mut frame = async || std::future::poll_fn(|cx| hyper::body::Body::poll_frame(body.as_mut(), cx)).await;
        assert!(frame().await.unwrap().is_ok());
        assert!(matches!(frame().await, Some(Err(Error::ConnectionReadTimeout))));
    }
}
