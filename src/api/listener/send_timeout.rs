//! Ends a response whose peer does not take it.
//!
//! HTTP/2 asks a body for its next piece only when the peer has made room for the one before, so a body cannot have a
//! time limit of its own. The future that sends it has one: it knows whether a piece is waiting for room.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

/// Frames of at most this size are sent as they are.
const UNDIVIDED_BYTES: usize = 512;
/// The default maximum frame of HTTP/2.
const PIECE_BYTES: usize = 16 << 10;

thread_local! {
    /// What the body that is being polled on this thread has done.
    static BODY: Cell<BodyEvent> = const { Cell::new(BodyEvent::None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEvent {
    None,
    /// The body was asked for a piece, so the one before has been taken.
    Asked,
    /// The body has returned a piece.
    Returned,
}

/// A body that is sent in pieces. The last piece of a large frame is one byte: it is taken when the peer has made room for
/// all others, so that nothing is left in the connection when the body has ended.
pub struct Pieces<B> {
    inner: B,
    rest: Bytes,
}

impl<B> Pieces<B> {
    pub fn new(inner: B) -> Self {
        Self { inner, rest: Bytes::new() }
    }

    fn next_piece(&mut self) -> Bytes {
        let length = match self.rest.len() {
            1 => 1,
            length => PIECE_BYTES.min(length - 1),
        };
        self.rest.split_to(length)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Pieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        BODY.set(BodyEvent::Asked);
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) if data.len() > UNDIVIDED_BYTES => self.rest = data,
                Ok(data) => {
                    BODY.set(BodyEvent::Returned);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        BODY.set(BodyEvent::Returned);
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(inner.lower().saturating_add(rest));
        hint
    }
}

/// Runs the calls of HTTP/2 connections. Their bodies must be [`Pieces`].
#[derive(Clone)]
pub struct SpawnWithSendTimeout(pub Duration);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for SpawnWithSendTimeout {
    fn execute(&self, call: F) {
        tokio::spawn(SendTimeout { call, limit: Stall::new(self.0) });
    }
}

pin_project! {
    /// A call that ends when its peer has not taken a piece of the response in time. Its stream is reset then.
    struct SendTimeout<F> {
        #[pin]
        call: F,
        limit: Stall,
    }
}

impl<F: Future> Future for SendTimeout<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        BODY.set(BodyEvent::None);
        if this.call.poll(context).is_ready() {
            return Poll::Ready(());
        }
        match BODY.get() {
            BodyEvent::None => {}
            BodyEvent::Asked => this.limit.end(),
            BodyEvent::Returned => this.limit.restart(),
        }
        this.limit.poll_expired(context)
    }
}

/// Measures how long something has been stalled.
pub struct Stall {
    limit: Duration,
    since: Option<Instant>,
    /// Created when something first stalls.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None, timer: None }
    }

    /// There was progress, and then a stall.
    pub fn restart(&mut self) {
        self.since = Some(Instant::now());
    }

    /// A stall begins, unless it has begun already.
    pub fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    pub fn end(&mut self) {
        self.since = None;
    }

    /// Ready when the stall has lasted too long.
    pub fn poll_expired(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(since) = self.since else { return Poll::Pending };
        let deadline = since + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(context));
            // The timer may still be that of an earlier stall.
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn the_last_piece_is_one_byte_and_all_pieces_together_are_the_body() {
        for length in [1, UNDIVIDED_BYTES, UNDIVIDED_BYTES + 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7] {
            let whole: Bytes = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut body = Pieces::new(Full::new(whole.clone()));
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let (mut pieces, mut left) = (Vec::new(), length);
            while let Some(frame) = body.frame().await {
                pieces.push(frame.unwrap().into_data().unwrap());
                left -= pieces.last().unwrap().len();
                assert_eq!((body.is_end_stream(), body.size_hint().exact()), (left == 0, Some(left as u64)));
            }
            assert_eq!(pieces.concat(), whole);
            assert!(length <= UNDIVIDED_BYTES || pieces.last().unwrap().len() == 1);
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_when_a_piece_is_not_taken_in_time_and_not_while_the_body_is_silent() {
        let (limit, second) = (Duration::from_secs(10), Duration::from_secs(1));
        let asks = |is_ready: bool| {
            BODY.set(if is_ready { BodyEvent::Returned } else { BodyEvent::Asked });
        };
        let mut polls = 0;
        let call = futures_util::future::poll_fn(move |_| {
            polls += 1;
            // A piece is returned, taken after a while, then the body is silent, then a piece is not taken.
            match polls {
                1 | 4 => asks(true),
                3 => asks(false),
                _ => {}
            }
            Poll::<()>::Pending
        });
        let mut call = Box::pin(SendTimeout { call, limit: Stall::new(limit) });
        for _ in 0..3 {
            assert!((&mut call).now_or_never().is_none());
            tokio::time::advance(limit / 2 + second).await;
        }
        let started = Instant::now();
        assert!((&mut call).now_or_never().is_none());
        tokio::time::advance(9 * second).await;
        assert!((&mut call).now_or_never().is_none());
        call.await;
        assert_eq!(started.elapsed().as_secs(), limit.as_secs());
    }
}
