//! Calls that wait for a task and bring its result. An old connection stays open until they have ended.
//!
//! Open-ended streams are not among them: clients open those again, and a connection would never end. A call whose peer does
//! not read its answer does not count either.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Uri;

const METHODS: [&str; 3] =
    ["/lineshaft.v1.TaskService/RunTask", "/lineshaft.v1.TaskService/WaitTask", "/lineshaft.v1.TaskService/ReadOutput"];

/// The lasting calls of one connection.
#[derive(Default)]
pub struct LastingCalls(TaskTracker);

impl LastingCalls {
    /// A call that has begun; `None` if it is not a lasting one.
    pub fn start(&self, uri: &Uri) -> Option<LastingCall> {
        let waits = || uri.path().starts_with("/api/") && uri.query().is_some_and(|query| query.contains("wait="));
        let is_lasting = METHODS.contains(&uri.path()) || waits();
        is_lasting.then(|| LastingCall { tracker: self.0.clone(), waiting: Some(self.0.token()) })
    }

    /// Waits until no lasting call waits for the server.
    pub async fn none_waits(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// A lasting call, which waits for the server until its answer begins, and then between two parts of it.
pub struct LastingCall {
    tracker: TaskTracker,
    waiting: Option<TaskTrackerToken>,
}

impl LastingCall {
    pub fn hold_until_end_of(self, body: Body) -> Body {
        Body::new(LastingBody { inner: body, call: self })
    }
}

struct LastingBody {
    inner: Body,
    call: LastingCall,
}

impl HttpBody for LastingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, call } = &mut *self;
        let frame = Pin::new(inner).poll_frame(cx);
        if frame.is_pending() {
            call.waiting.get_or_insert_with(|| call.tracker.token());
        }
        let frame = ready!(frame);
        // Taken again when the peer has room for more.
        call.waiting = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use futures_util::FutureExt;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, Status>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test]
    async fn a_call_counts_while_it_waits_for_the_server() {
        let calls = LastingCalls::default();
        for path in ["/api/task/x?wait=60", "/lineshaft.v1.TaskService/WaitTask"] {
            assert!(calls.start(&path.parse().unwrap()).is_some(), "{path}");
        }
        for path in ["/api/task/x", "/lineshaft.v1.TaskService/WatchTasks", "/lineshaft.v1.TaskService/SubmitTask"] {
            assert!(calls.start(&path.parse().unwrap()).is_none(), "{path}");
        }
        let call = calls.start(&METHODS[0].parse().unwrap()).unwrap();
        assert!(calls.none_waits().now_or_never().is_none(), "the answer has not begun");
        let (frames, stream) = mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let mut body = call.hold_until_end_of(Body::new(StreamBody::new(ReceiverStream::new(stream))));
        assert!(next(&mut body).now_or_never().is_none());
        assert!(calls.none_waits().now_or_never().is_none(), "nothing was sent yet");
        frames.send(Ok(Frame::data(Bytes::from_static(b"x")))).await.unwrap();
        assert!(next(&mut body).await.unwrap().is_ok());
        assert!(calls.none_waits().now_or_never().is_some(), "the peer has not read the frame");
        assert!(next(&mut body).now_or_never().is_none());
        let mut waiting = pin!(calls.none_waits());
        assert!(waiting.as_mut().now_or_never().is_none(), "the peer waits for the next frame");
        drop(body);
        waiting.await;
    }
}
