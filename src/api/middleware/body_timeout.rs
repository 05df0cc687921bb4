//! A request's message has to arrive in time: who sends it slowly, or never, holds a place meanwhile.
//!
//! For calls that take one message; a stream of them lasts as long as its caller likes.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::model::ErrorCode;

use crate::api::status::{self, EdgeError};

/// A body that fails when it is not complete in time.
pub struct TimeoutBody<B> {
    inner: B,
    /// `None`: whenever it likes.
    until: Option<Instant>,
    /// Made when the body is first waited for: most are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> TimeoutBody<B> {
    /// The same body; `None`: without a bound.
    pub fn within(time: Option<Duration>, inner: B) -> Self {
        Self { inner, until: time.map(|time| Instant::now() + time), timer: None }
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(until) = self.until else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let message = "the message was not complete in time".to_owned();
        let late = status::of(&EdgeError { code: ErrorCode::DeadlineExceeded, message });
        Poll::Ready(Some(Err(Box::new(late))))
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
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tonic::{Code, Status};

    use super::*;

    fn endless() -> impl Body<Data = Bytes, Error = Status> + Unpin {
        StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_fails_in_time_and_says_why() {
        let begun = Instant::now();
        let body = TimeoutBody::within(Some(Duration::from_secs(3)), endless());
        let error = body.collect().await.err().unwrap();
        assert_eq!(Status::from_error(error).code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_there_or_has_no_bound_is_left_alone() {
        let there = TimeoutBody::within(Some(Duration::ZERO), Full::new(Bytes::from_static(b"all of it")));
        assert_eq!(there.collect().await.unwrap().to_bytes(), "all of it");
        let unbound = TimeoutBody::within(None, endless()).collect();
        assert!(tokio::time::timeout(Duration::from_hours(1), unbound).await.is_err());
    }
}
