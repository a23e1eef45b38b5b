//! Connections: accepted up to a number, each with its limits, closed when its peer sends or takes nothing.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};

use super::app::App;
use super::{FAREWELL, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, WRITE_TIMEOUT};
use crate::shutdown;

/// Pause after a connection could not be accepted, which is when files are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that are kept for reading of each connection.
const BUFFER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// Most bytes of a refused body that are read away, so that its sender hears why.
const LEFTOVER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time for that.
const LEFTOVER_TIME: Duration = Duration::from_secs(1);

/// Accepts connections until `stop` turns true, then lets requests end for a little while.
pub(super) async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    connections_max: usize,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let listening = tokio::spawn(Arc::clone(&app.waiters).listen(app.store.clone()));
    loop {
        let accepted = tokio::select! {
            () = shutdown::requested(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => drop(tokio::spawn(connection(stream, peer, Arc::clone(&app), slot, stop.clone()))),
                Err(_) => app.metrics.refused.increment(),
            },
            Err(error) => {
                tracing::debug!(%error, "http connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        app.metrics.connections.set((connections_max - slots.available_permits()) as u64);
    }
    drop(listener);
    listening.abort();
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    // What is not over by then is cut off with the runtime.
    let _in_time = tokio::time::timeout(FAREWELL, slots.acquire_many(all)).await.is_ok();
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Arc<App>,
    _slot: OwnedSemaphorePermit,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are written whole: waiting for more to send only delays them.
    let _set = stream.set_nodelay(true).is_ok();
    let service = service_fn(|request| Box::pin(Arc::clone(&app).answer(peer.ip(), request)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = shutdown::requested(&mut stop), if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let mut stream = connection.into_parts().io.into_inner().stream;
    match ended {
        Ok(()) => {
            // Closing over unread bytes would reset the connection, and the peer might never see the answer.
            let _in_time = tokio::time::timeout(LEFTOVER_TIME, read_away(&mut stream)).await.is_ok();
        }
        Err(error) => tracing::trace!(%error, "http connection ended"),
    }
}

/// Ends the answer and reads what the peer still sends.
async fn read_away(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let (mut buffer, mut total) = (vec![0; 16 * 1024], 0);
    while total < LEFTOVER_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => total += n,
        }
    }
    Ok(())
}

/// A stream whose peer must go on taking what is written.
struct Impatient {
    stream: TcpStream,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    const fn new(stream: TcpStream) -> Self {
        Self { stream, deadline: None }
    }

    /// The result of a write, unless it has waited for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline =
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIMEOUT)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watched(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
