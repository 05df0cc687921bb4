//! Counts the bytes of responses until their peers have taken them.
//!
//! What a call reads for its response is counted before it is read, so that a response can be refused while it still
//! needs no memory. A response that exists is counted whatever the limit, and a stream sends its next frame when there is
//! memory for it.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use crate::model::{MemoryAccount, MemoryPart, Share};

use super::layered_body::PolledFrame;

/// Frames of at most this size are not counted: an open stream takes more memory than they.
const UNCOUNTED_BYTES: usize = 512;
/// About the size of one frame of a stream.
const FRAME_BYTES: u64 = 32 << 10;

/// Response extension: who gets the response, and the memory that is reserved for it.
#[derive(Clone)]
pub enum ResponseMemory {
    Reserved(Arc<Mutex<Option<Share>>>),
    /// A stream, which waits for memory in turn with other callers.
    Stream(Arc<str>),
}

impl ResponseMemory {
    pub fn reserved(share: Share) -> Self {
        Self::Reserved(Arc::new(Mutex::new(Some(share))))
    }

    /// The response of a service with this memory.
    pub fn attach_to<T>(self, message: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(message);
        response.extensions_mut().insert(self);
        response
    }
}

/// The memory that a service has reserved for its last reply to an HTTP request. Clones share it.
#[derive(Clone, Default)]
pub struct ReplyMemory(Arc<Mutex<Option<ResponseMemory>>>);

impl ReplyMemory {
    pub fn set(&self, memory: Option<ResponseMemory>) {
        *self.0.lock() = memory;
    }

    /// The response that is made from the reply, with its memory.
    pub fn attach_to(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some(memory) = self.0.lock().take() {
            response.extensions_mut().insert(memory);
        }
        response
    }
}

/// Counts what the body sends.
pub fn counted<B>(account: &MemoryAccount, mut response: Response<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin + Send + 'static,
{
    let memory = match response.extensions_mut().remove::<ResponseMemory>() {
        Some(ResponseMemory::Reserved(share)) => Memory::Reserved(share.lock().take()),
        Some(ResponseMemory::Stream(caller)) => Memory::Stream { caller, turn: None },
        None => Memory::Reserved(None),
    };
    let account = account.clone();
    response.map(|inner| Body::new(CountedBody { inner, account, memory }))
}

struct CountedBody<B> {
    inner: B,
    account: MemoryAccount,
    memory: Memory,
}

enum Memory {
    /// Until the first frame.
    Reserved(Option<Share>),
    Stream {
        caller: Arc<str>,
        turn: Option<BoxFuture<'static, Share>>,
    },
}

impl Memory {
    /// Memory for the next frame. A stream waits for it if it is scarce.
    fn poll_next(&mut self, account: &MemoryAccount, context: &mut Context<'_>) -> Poll<Option<Share>> {
        let Self::Stream { caller, turn } = self else { return Poll::Ready(None) };
        let part = MemoryPart::Responses;
        if turn.is_none() && account.used(part) < account.limit(part) / 2 {
            return Poll::Ready(None);
        }
        let waiting = turn.get_or_insert_with(|| account.share_in_turn(part, caller, FRAME_BYTES).boxed());
        let share = ready!(waiting.as_mut().poll(context));
        *turn = None;
        Poll::Ready(Some(share))
    }

    fn of_frame(&mut self, account: &MemoryAccount) -> Share {
        static UNKNOWN: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        let taken = |caller| account.share_now(MemoryPart::Responses, caller, 0);
        match self {
            Self::Reserved(share) => share.take().unwrap_or_else(|| taken(&UNKNOWN)),
            Self::Stream { caller, .. } => taken(caller),
        }
    }
}

impl<B: HttpBody<Data = Bytes, Error = Status> + Unpin> HttpBody for CountedBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let Self { inner, account, memory } = &mut *self;
        let share = ready!(memory.poll_next(account, context));
        let frame = ready!(Pin::new(inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && data.len() > UNCOUNTED_BYTES
        {
            let mut share = share.unwrap_or_else(|| memory.of_frame(account));
            share.resize(data.len() as u64);
            let frame = CountedBytes { bytes: data.clone(), _share: share };
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(frame)))));
        }
        if let Memory::Reserved(share) = memory {
            *share = None;
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

/// Counted until the connection has sent them.
struct CountedBytes {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    const LIMIT: u64 = 128 << 10;

    fn used(account: &MemoryAccount) -> u64 {
        account.used(MemoryPart::Responses)
    }

    fn with<B>(memory: ResponseMemory, body: B) -> Response<B> {
        let mut response = Response::new(body);
        response.extensions_mut().insert(memory);
        response
    }

    async fn next(body: &mut Body) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    fn full(bytes: usize) -> impl HttpBody<Data = Bytes, Error = Status> + Unpin + Send + 'static {
        Full::new(Bytes::from(vec![7; bytes])).map_err(|never| match never {})
    }

    #[tokio::test]
    async fn a_response_is_counted_from_its_reservation_until_its_last_piece_is_sent() {
        let account = MemoryAccount::new(|_| LIMIT);
        let share = account.share_in_turn(MemoryPart::Responses, &"me".into(), 50_000).await;
        let mut body = counted(&account, with(ResponseMemory::reserved(share), full(1_000))).into_body();
        assert_eq!(used(&account), 50_000);
        let mut frame = next(&mut body).await;
        assert_eq!((used(&account), frame.len()), (1_000, 1_000));
        let piece = frame.split_to(10);
        drop((body, frame));
        assert_eq!(used(&account), 1_000);
        drop(piece);
        assert_eq!(used(&account), 0);
        let small = next(&mut counted(&account, Response::new(full(UNCOUNTED_BYTES))).into_body()).await;
        assert_eq!((used(&account), small.len()), (0, UNCOUNTED_BYTES));
    }

    #[tokio::test]
    async fn a_stream_waits_for_memory_while_others_have_not_sent_theirs() {
        let account = MemoryAccount::new(|_| LIMIT);
        let frames = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![7; 30 << 10]))));
        let stream = StreamBody::new(frames);
        let memory = ResponseMemory::Stream("one".into());
        let mut body = counted(&account, with(memory, stream)).into_body();
        let mut unsent = Vec::new();
        while let Some(frame) = next(&mut body).now_or_never() {
            unsent.push(frame);
        }
        assert_eq!((unsent.len(), used(&account)), (3, 90 << 10));
        unsent.pop();
        unsent.pop();
        next(&mut body).await;
    }
}
