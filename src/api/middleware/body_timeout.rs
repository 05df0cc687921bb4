//! Fails a call with DEADLINE_EXCEEDED if its request message is not complete in time.
//!
//! A request that is a stream of messages has no such limit.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::codegen::http::Request;
use tower::{Layer, Service};

use crate::api::auth::takes_stream;
use crate::api::status::{self, EdgeError};
use crate::model::ErrorCode;

#[derive(Clone)]
pub struct BodyTimeoutLayer(pub Duration);

impl<S> Layer<S> for BodyTimeoutLayer {
    type Service = BodyTimeout<S>;

    fn layer(&self, inner: S) -> BodyTimeout<S> {
        BodyTimeout { inner, timeout: self.0 }
    }
}

#[derive(Clone)]
pub struct BodyTimeout<S> {
    inner: S,
    timeout: Duration,
}

impl<S, B> Service<Request<B>> for BodyTimeout<S>
where
    S: Service<Request<TimeoutBody<B>>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let timeout = (!takes_stream(request.uri().path())).then_some(self.timeout);
        self.inner.call(request.map(|body| TimeoutBody::new(body, timeout)))
    }
}

pub struct TimeoutBody<B> {
    inner: B,
    /// `None`: no limit.
    deadline: Option<Instant>,
    /// Created when the body is first waited for: most bodies are complete at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> TimeoutBody<B> {
    fn new(inner: B, timeout: Option<Duration>) -> Self {
        Self { inner, deadline: timeout.map(|timeout| Instant::now() + timeout), timer: None }
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
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
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let message = "the request message was not complete in time".to_owned();
        let late = status::to_status(&EdgeError { code: ErrorCode::DeadlineExceeded, message });
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
    use http_body_util::{BodyExt, Full};
    use tonic::{Code, Status};

    use super::super::test_support::Endless;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_body_fails_after_the_timeout() {
        let started = Instant::now();
        let body = TimeoutBody::new(Endless::Silent, Some(Duration::from_secs(3)));
        let error = body.collect().await.err().unwrap();
        assert_eq!(Status::from_error(error).code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_body_and_one_without_a_limit_do_not_fail() {
        let complete = TimeoutBody::new(Full::new(Bytes::from_static(b"all")), Some(Duration::ZERO));
        assert_eq!(complete.collect().await.unwrap().to_bytes(), "all");
        let unlimited = TimeoutBody::new(Endless::Silent, None).collect();
        assert!(tokio::time::timeout(Duration::from_hours(1), unlimited).await.is_err());
    }
}
