//! Counts the bytes of a request as they are received, and fails the call with MEMORY_FULL if they are too many.
//!
//! A message is counted until it has been decoded. Then the scheduler's handle counts what it sends on.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::codegen::http::Request;
use tower::{Layer, Service};

use crate::api::auth::{is_public, sharer_of, submits};
use crate::api::status;
use crate::model::{MemoryAccount, MemoryPart, Reservation, Sharer};

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
        let part = request_part(request.uri().path());
        let (account, sharer) = (self.account.clone(), sharer_of(request.extensions()));
        let framing = Framing::default();
        self.inner.call(request.map(|inner| CountedBody { inner, account, sharer, part, memory: None, framing }))
    }
}

/// The part of the memory for the first bytes of a call; `None` for a public call, which has a place and few bytes.
pub fn request_part(path: &str) -> Option<MemoryPart> {
    let part = if submits(path) { MemoryPart::Requests } else { MemoryPart::SmallRequests };
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
}

impl<B> Body for CountedBody<B>
where
    B: Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { inner, account, sharer, part, memory, framing } = &mut *self;
        // The decoder asks for more only when it has decoded every complete message.
        if let Some(memory) = memory {
            memory.shrink(framing.incomplete);
        }
        let frame = ready!(Pin::new(inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(part) = part
        {
            let bytes = data.len() as u64;
            let counted = match memory {
                Some(memory) => memory.grow(bytes),
                None => account.reserve_for(sharer.take(), *part, 0).and_then(|empty| memory.insert(empty).grow(bytes)),
            };
            if let Err(full) = counted {
                return Poll::Ready(Some(Err(Box::new(status::to_status(&full)))));
            }
            framing.advance(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
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

    use http_body_util::BodyExt;
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

    fn counted(limit: u64, pieces: &[&[u8]]) -> (MemoryAccount, CountedBody<Pieces>) {
        let account = MemoryAccount::new(|_| limit);
        let inner = Pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect());
        (
            account.clone(),
            CountedBody {
                inner,
                account,
                sharer: None,
                part: Some(MemoryPart::Requests),
                memory: None,
                framing: Framing::default(),
            },
        )
    }

    fn message(length: usize) -> Vec<u8> {
        let prefix = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &prefix[..], &vec![7; length]].concat()
    }

    #[tokio::test]
    async fn a_message_is_counted_until_the_next_piece_is_asked_for() {
        let bytes = [message(10), message(3)].concat();
        let (account, mut body) = counted(100, &[&bytes[..4], &bytes[4..17], &bytes[17..]]);
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
    async fn a_body_beyond_the_limit_fails_with_a_retry_delay_and_returns_its_memory() {
        let bytes = message(50);
        let (account, body) = counted(40, &[&bytes[..30], &bytes[30..]]);
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
