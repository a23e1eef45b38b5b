//! Bodies in both directions: those of requests are read with a cap, a deadline and a shared budget; those of answers
//! are whole or come piece by piece.
//!
//! Invariant: a body over the cap costs at most the cap, and all bodies together at most the budget.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::answer::{BAD_REQUEST, BUSY, Problem, TOO_LARGE, TOO_SLOW};
use super::{BODIES_BYTES_MAX, BODY_BYTES_MAX, BODY_TIMEOUT};

/// The unit of the budget in bytes.
const UNIT: usize = 1024;

/// The budget that all bodies share.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// A share of the budget; it goes back when dropped.
#[derive(Debug)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX / UNIT)))
    }

    /// Takes so many bytes more into a share.
    pub(super) fn take(&self, share: &mut Share, bytes: usize) -> Result<(), Problem> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let full = |_| Problem::new(BUSY, "the bodies of other requests fill the memory that there is for them");
        let more = Arc::clone(&self.0).try_acquire_many_owned(units).map_err(full)?;
        match &mut share.0 {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// Reads the body of a request within [`BODY_TIMEOUT`]. It keeps its share of the budget as long as the caller keeps it.
pub(super) async fn read(budget: &Budget, headers: &HeaderMap, body: Incoming) -> Result<(Vec<u8>, Share), Problem> {
    read_within(BODY_TIMEOUT, budget, headers, body).await
}

async fn read_within<B: hyper::body::Body<Data = Bytes>>(
    limit: Duration,
    budget: &Budget,
    headers: &HeaderMap,
    body: B,
) -> Result<(Vec<u8>, Share), Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let reading = read_all(budget, body);
    match timeout(limit, reading).await {
        Ok(result) => result,
        Err(_) => {
            Err(Problem::new(TOO_SLOW, format!("the body did not end within {}", crate::clock::format_duration(limit))))
        }
    }
}

async fn read_all<B: hyper::body::Body<Data = Bytes>>(budget: &Budget, body: B) -> Result<(Vec<u8>, Share), Problem> {
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut share) = (Vec::new(), Share(None));
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame =
            frame.map_err(|_broken| Problem::new(BAD_REQUEST, "the body broke off, or its chunks are malformed"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        if bytes.len() + data.len() > bytes.capacity() {
            // What grows by doubling is counted by what it has, not by what it holds.
            let grown = (bytes.capacity() * 2).clamp(bytes.len() + data.len(), BODY_BYTES_MAX).max(4 * UNIT);
            budget.take(&mut share, grown - bytes.capacity())?;
            bytes.reserve_exact(grown - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, share))
}

fn too_large() -> Problem {
    Problem::new(TOO_LARGE, format!("the body has more than {} MiB", BODY_BYTES_MAX / (1024 * 1024)))
        .hint("send fewer jobs at once; a large input belongs elsewhere, and its address in the payload")
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it, and its share of the budget.
    Whole(Option<Bytes>, Option<Share>),
    /// What comes out of a channel.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body {
    pub(super) fn whole(text: String) -> Self {
        Self::Whole(Some(Bytes::from(text)), None)
    }

    /// Bytes of a whole body.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(bytes, _) => bytes.as_ref().map_or(0, Bytes::len),
            Self::Stream(_) => 0,
        }
    }

    /// Takes the body's share of the budget, until it is written.
    pub(super) fn account(&mut self, budget: &Budget) -> Result<(), Problem> {
        let length = self.bytes();
        if let Self::Whole(_, share) = self {
            let mut own = Share(None);
            budget.take(&mut own, length)?;
            *share = Some(own);
        }
        Ok(())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None, _))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(..) => SizeHint::with_exact(self.bytes() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body of so many pieces; its bytes, and the units of the budget that it holds.
    async fn read_pieces(n: usize, piece: &'static [u8]) -> Result<(usize, usize), u16> {
        let (sender, pieces) = mpsc::channel(1);
        let budget = Budget::new();
        let sending = tokio::spawn(async move {
            for _ in 0..n {
                if sender.send(Bytes::from_static(piece)).await.is_err() {
                    break;
                }
            }
        });
        let read = read_within(Duration::from_secs(60), &budget, &HeaderMap::new(), Body::Stream(pieces)).await;
        sending.abort();
        let taken = BODIES_BYTES_MAX / UNIT - budget.0.available_permits();
        read.map(|(bytes, _share)| (bytes.len(), taken)).map_err(|problem| problem.status())
    }

    #[tokio::test]
    async fn a_body_without_end_costs_no_more_than_the_cap_and_is_refused() {
        static PIECE: [u8; 32 * 1024] = [b'x'; 32 * 1024];
        assert_eq!(read_pieces(usize::MAX, &PIECE).await, Err(413));
        let (bytes, units) = read_pieces(512, &PIECE).await.unwrap();
        assert_eq!(bytes, BODY_BYTES_MAX);
        assert!(units * UNIT >= bytes && units * UNIT <= BODY_BYTES_MAX + 1024 * UNIT, "{units}");
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_in_time_is_given_up() {
        let (sender, pieces) = mpsc::channel::<Bytes>(1);
        let (budget, headers) = (Budget::new(), HeaderMap::new());
        let read = read_within(Duration::from_millis(5), &budget, &headers, Body::Stream(pieces));
        assert_eq!(read.await.unwrap_err().status(), 408);
        drop(sender);
    }

    #[test]
    fn the_budget_is_shared_and_comes_back() {
        let budget = Budget::new();
        let (mut first, mut second) = (Share(None), Share(None));
        budget.take(&mut first, BODIES_BYTES_MAX - UNIT).unwrap();
        assert_eq!(budget.take(&mut second, 2 * UNIT).unwrap_err().status(), 503);
        drop(first);
        budget.take(&mut second, 2 * UNIT).unwrap();
    }
}
