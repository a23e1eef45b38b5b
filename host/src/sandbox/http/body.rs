//! A body that ends with an error when it is too long, or silent for too long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error;

/// A body with a bound on its bytes, and one on its silence when the guest asked for it.
pub(super) struct Bounded<B> {
    body: B,
    left: u64,
    too_long: TooLong,
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
}

/// Makes the error of a body that is too long.
type TooLong = fn() -> Error;

impl<B> Bounded<B> {
    pub(super) fn new(body: B, bytes_max: u64, too_long: TooLong) -> Self {
        Self { body, left: bytes_max, too_long, silence: None }
    }

    /// Ends the body when nothing comes for so long. To be called where timers are.
    pub(super) fn silent_for_at_most(mut self, limit: Option<Duration>) -> Self {
        self.silence = limit.map(|limit| (limit, Box::pin(sleep(limit))));
        self
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Bounded<B>
where
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(other) => return Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let Some((_, timer)) = &mut self.silence else { return Poll::Pending };
                ready!(timer.as_mut().poll(context));
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
        };
        let n_bytes = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        let Some(left) = self.left.checked_sub(n_bytes) else { return Poll::Ready(Some(Err((self.too_long)()))) };
        self.left = left;
        if let Some((limit, timer)) = &mut self.silence {
            timer.as_mut().reset(Instant::now() + *limit);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
