//! Counts the bytes of a request as they are received, and fails the call with MEMORY_FULL if they are too many.
//!
//! A message is counted until it has been decoded. Then the scheduler's handle counts what it sends on. The message of a call
//! that takes one is passed on when the request is complete, so that no caller can keep decoded messages in memory by not
//! ending its requests.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::codegen::http::Request;
use tower::{Layer, Service};

use crate::api::auth::{PUT_HANDLER, UPLOAD_ARTIFACT, WORK, is_public, sharer_of, submits, takes_stream};
use crate::api::status;
use crate::model::{MemoryAccount, MemoryFull, MemoryPart, Reservation, Sharer};

/// Bytes that a peer may send on one stream of a connection before the server has read any of them.
pub const UNREAD_BYTES_MAX: u32 = 256 << 10;
/// Memory that they take at most. Each piece keeps the buffer into which it was received.
const UNREAD_MEMORY: u64 = 3 * UNREAD_BYTES_MAX as u64;

/// Counts what the peer of a stream of requests may send before the stream reads it, which is not before the peer takes
/// responses. `None` for other calls, whose request is read at once, and for workers: there may be many.
///
/// # Errors
/// [`MemoryFull`].
pub fn count_unread(
    account: &MemoryAccount,
    sharer: &Arc<Sharer>,
    path: &str,
) -> Result<Option<Box<Reservation>>, MemoryFull> {
    if !takes_stream(path) || path == WORK {
        return Ok(None);
    }
    account.reserve_for(Some(sharer.clone()), MemoryPart::Requests, UNREAD_MEMORY).map(|memory| Some(Box::new(memory)))
}

#[derive(Clone)]
pub struct RequestMemoryLayer(pub MemoryAccount);

impl<S> Layer<S> for RequestMemoryLayer {
    type Service = RequestMemory<S>;

    fn layer(&self, inner: S) -> RequestMemory<S> {
        RequestMemory { inner, account: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct RequestMemory<S> {
    inner: S,
    account: MemoryAccount,
}

impl<S, B> Service<Request<B>> for RequestMemory<S>
where
    S: Service<Request<CountedBody<B>>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (account, sharer) = (self.account.clone(), sharer_of(request.extensions()));
        let path = request.uri().path();
        let (part, takes_stream) = (request_part(path), takes_stream(path));
        self.inner.call(request.map(|inner| CountedBody::new(inner, account, sharer, part, takes_stream)))
    }
}

/// The part of the memory for the first bytes of a call; `None` for a public call, which has a place and few bytes.
pub fn request_part(path: &str) -> Option<MemoryPart> {
    let is_large = submits(path) || [PUT_HANDLER, UPLOAD_ARTIFACT].contains(&path);
    let part = if is_large { MemoryPart::Requests } else { MemoryPart::SmallRequests };
    (!is_public(path)).then_some(part)
}

pub struct CountedBody<B> {
    inner: B,
    account: MemoryAccount,
    sharer: Option<Arc<Sharer>>,
    /// `None`: not counted.
    part: Option<MemoryPart>,
    /// Of the message that is being received and the frames after it.
    memory: Option<Reservation>,
    framing: Framing,
    takes_stream: bool,
    /// The last piece of the message of a call that takes one, until the request is complete.
    last: Option<Bytes>,
    is_complete: bool,
}

type PolledRequestFrame = Poll<Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>>;

impl<B> CountedBody<B> {
    fn new(
        inner: B,
        account: MemoryAccount,
        sharer: Option<Arc<Sharer>>,
        part: Option<MemoryPart>,
        takes_stream: bool,
    ) -> Self {
        let (memory, framing, last) = (None, Framing::default(), None);
        Self { inner, account, sharer, part, memory, framing, takes_stream, last, is_complete: false }
    }

    /// Counts bytes that were received.
    fn count(&mut self, data: &[u8], part: MemoryPart) -> Result<(), MemoryFull> {
        let bytes = data.len() as u64;
        if let Some(memory) = &mut self.memory {
            memory.grow(bytes)?;
        } else {
            let empty = self.account.reserve_for(self.sharer.take(), part, 0)?;
            self.memory.insert(empty).grow(bytes)?;
        }
        self.framing.advance(data);
        Ok(())
    }
}

impl<B> Body for CountedBody<B>
where
    B: Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledRequestFrame {
        let body = &mut *self;
        // The decoder asks for more only when it has decoded every complete message.
        if let Some(memory) = &mut body.memory
            && body.last.is_none()
        {
            memory.shrink(body.framing.incomplete);
        }
        while !body.is_complete {
            let frame = match ready!(Pin::new(&mut body.inner).poll_frame(context)) {
                // What follows the message, such as trailers, has no meaning.
                Some(Ok(frame)) if body.last.is_none() => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                _ => {
                    body.is_complete = true;
                    break;
                }
            };
            if let Some(data) = frame.data_ref()
                && let Some(part) = body.part
                && let Err(full) = body.count(data, part)
            {
                return Poll::Ready(Some(Err(Box::new(status::to_status(&full)))));
            }
            if body.takes_stream || !body.framing.has_message {
                return Poll::Ready(Some(Ok(frame)));
            }
            body.last = frame.into_data().ok();
        }
        Poll::Ready(body.last.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && (self.is_complete || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Finds the ends of the messages in the bytes of a gRPC body.
#[derive(Default)]
struct Framing {
    /// Bytes received of the message that is not complete, with its prefix.
    incomplete: u64,
    /// The length of that message, as far as its bytes have been received.
    prefix: [u8; 5],
    /// A message is complete.
    has_message: bool,
}

impl Framing {
    fn advance(&mut self, mut bytes: &[u8]) {
        let prefix = self.prefix.len() as u64;
        while let Some(first) = bytes.first() {
            if self.incomplete < prefix {
                self.prefix[usize::try_from(self.incomplete).unwrap_or(0)] = *first;
                (self.incomplete, bytes) = (self.incomplete + 1, &bytes[1..]);
            } else {
                let taken = (self.end() - self.incomplete).min(bytes.len() as u64);
                self.incomplete += taken;
                bytes = &bytes[usize::try_from(taken).unwrap_or(bytes.len())..];
            }
            if self.incomplete >= prefix && self.incomplete == self.end() {
                self.incomplete = 0;
                self.has_message = true;
            }
        }
    }

    fn end(&self) -> u64 {
        let [_, a, b, c, d] = self.prefix;
        self.prefix.len() as u64 + u64::from(u32::from_be_bytes([a, b, c, d]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;
    use tonic::{Code, Status};
    use tonic_types::StatusExt;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Box<dyn Error + Send + Sync>;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn counted<B>(limit: u64, takes_stream: bool, inner: B) -> (MemoryAccount, CountedBody<B>) {
        let account = MemoryAccount::new(|_| limit);
        let body = CountedBody::new(inner, account.clone(), None, Some(MemoryPart::Requests), takes_stream);
        (account, body)
    }

    fn pieces(pieces: &[&[u8]]) -> Pieces {
        Pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect())
    }

    fn message(length: usize) -> Vec<u8> {
        let prefix = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &prefix[..], &vec![7; length]].concat()
    }

    #[tokio::test]
    async fn a_message_of_a_stream_is_counted_until_the_next_piece_is_asked_for() {
        let bytes = [message(10), message(3)].concat();
        let (account, mut body) = counted(100, true, pieces(&[&bytes[..4], &bytes[4..17], &bytes[17..]]));
        let used = || account.used(MemoryPart::Requests);
        body.frame().await.unwrap().unwrap();
        assert_eq!(used(), 4);
        body.frame().await.unwrap().unwrap();
        assert_eq!(used(), 17, "the first message is complete, but not decoded");
        body.frame().await.unwrap().unwrap();
        assert_eq!(used(), 2 + 6, "the first message is decoded");
        assert!(body.frame().await.is_none());
        assert_eq!(used(), 0);
        drop(body);
        assert_eq!(used(), 0);
    }

    #[tokio::test]
    async fn the_message_of_a_call_is_passed_on_and_counted_until_the_request_is_complete() {
        let bytes = message(10);
        let (end, request) = tokio::sync::oneshot::channel::<()>();
        let received = [&bytes[..4], &bytes[4..]].map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))));
        let ended = stream::once(async { drop(request.await) }).filter_map(async |()| None);
        let inner = Box::pin(StreamBody::new(stream::iter(received).chain(ended)));
        let (account, mut body) = counted(100, false, inner);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), &bytes[..4]);
        for _ in 0..2 {
            assert!(body.frame().now_or_never().is_none());
            assert_eq!(account.used(MemoryPart::Requests), 15);
        }
        drop(end);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), &bytes[4..]);
        assert_eq!(account.used(MemoryPart::Requests), 15, "not decoded yet");
        assert!(body.frame().await.is_none());
        assert_eq!(account.used(MemoryPart::Requests), 0);
    }

    #[tokio::test]
    async fn what_follows_the_message_of_a_call_is_not_passed_on() {
        let bytes = message(10);
        let (_, mut body) = counted(100, false, pieces(&[&bytes, b"more", &message(9)]));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), &bytes);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_fails_with_a_retry_delay_and_returns_its_memory() {
        let bytes = message(50);
        let (account, body) = counted(40, false, pieces(&[&bytes[..30], &bytes[30..]]));
        let error = body.collect().await.err().unwrap();
        let status = Status::from_error(error);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.get_details_retry_info().is_some());
        assert_eq!(account.used(MemoryPart::Requests), 0);
    }

    proptest! {
        #[test]
        fn the_ends_of_messages_are_found_wherever_the_pieces_end(
            lengths in prop::collection::vec(0_usize..40, 0..20),
            size in 1_usize..50,
        ) {
            let messages: Vec<_> = lengths.into_iter().map(message).collect();
            let ends: Vec<_> = messages.iter().scan(0, |end, message| { *end += message.len(); Some(*end) }).collect();
            let (mut framing, mut received) = (Framing::default(), 0);
            for piece in messages.concat().chunks(size) {
                framing.advance(piece);
                received += piece.len();
                let complete = ends.iter().rfind(|end| **end <= received).copied().unwrap_or(0);
                prop_assert_eq!(framing.incomplete, (received - complete) as u64);
            }
        }
    }
}
