//! The response body of layers that watch the frames of the body below them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tonic::codegen::http::HeaderMap;

pub type PolledFrame = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// What a layer does after each poll of the body below it.
pub trait WatchFrames {
    /// A status ends the body: trailers with it replace the frame.
    fn after_poll(&mut self, frame: &PolledFrame, context: &mut Context<'_>) -> Option<Status>;
}

pub struct LayeredBody<B, W> {
    inner: B,
    watch: Option<W>,
    is_ended: bool,
}

impl<B, W> LayeredBody<B, W> {
    /// Without a watch, the body stays as it is.
    pub fn new(inner: B, watch: Option<W>) -> Self {
        Self { inner, watch, is_ended: false }
    }
}

/// The empty body of a refusal.
impl<B: Default, W> Default for LayeredBody<B, W> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin, W: WatchFrames + Unpin> Body for LayeredBody<B, W> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        match self.watch.as_mut().and_then(|watch| watch.after_poll(&frame, context)) {
            None => frame,
            Some(status) => {
                self.is_ended = true;
                Poll::Ready(Some(trailers_frame(&status)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The last frame of a body that ends with `status`.
pub fn trailers_frame(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}

pub fn trailers(frame: &PolledFrame) -> Option<&HeaderMap> {
    match frame {
        Poll::Ready(Some(Ok(frame))) => frame.trailers_ref(),
        _ => None,
    }
}

/// Whether more frames follow. True for data as well: a stream that always has data must meet its deadline too.
pub fn is_open(frame: &PolledFrame) -> bool {
    match frame {
        Poll::Pending => true,
        Poll::Ready(frame) => matches!(frame, Some(Ok(frame)) if frame.is_data()),
    }
}

/// The numeric `grpc-status` of headers or trailers.
pub fn grpc_status(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
