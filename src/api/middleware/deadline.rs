//! Ends a call with DEADLINE_EXCEEDED when the caller's `grpc-timeout` has passed, its body included.
//!
//! tonic applies the timeout only until the response headers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::api::status::{self, EdgeError};
use crate::model::ErrorCode;

use super::grpc_timeout;
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames, is_open};

#[derive(Clone)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

#[derive(Clone)]
pub struct Deadline<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<DeadlineBody<R>>;
    type Error = Infallible;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let timer = grpc_timeout::deadline(request.headers()).map(|at| Timer(Box::pin(sleep_until(at))));
        DeadlineFuture { inner: self.inner.call(request), timer }
    }
}

pub struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// DEADLINE_EXCEEDED if the deadline has passed.
    fn poll_exceeded(&mut self, context: &mut Context<'_>) -> Option<Status> {
        let message = || "the deadline of the call has passed".to_owned();
        let exceeded = || status::to_status(&EdgeError { code: ErrorCode::DeadlineExceeded, message: message() });
        self.0.as_mut().poll(context).is_ready().then(exceeded)
    }
}

pin_project! {
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        // `None` if the caller gave no deadline.
        timer: Option<Timer>,
    }
}

impl<F, R> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
    R: Default,
{
    type Output = Result<Response<DeadlineBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(Ok(response)) = this.inner.poll(context) {
            return Poll::Ready(Ok(response.map(|inner| LayeredBody::new(inner, this.timer.take()))));
        }
        match this.timer.as_mut().and_then(|timer| timer.poll_exceeded(context)) {
            Some(exceeded) => Poll::Ready(Ok(exceeded.into_http())),
            None => Poll::Pending,
        }
    }
}

pub type DeadlineBody<B> = LayeredBody<B, Timer>;

impl WatchFrames for Timer {
    fn after_poll(&mut self, frame: &PolledFrame, context: &mut Context<'_>) -> Option<Status> {
        if is_open(frame) { self.poll_exceeded(context) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use tonic::Code;
    use tonic::body::Body;

    use super::super::test_support::{Answer, Endless, next_frame, request, service, status};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_without_a_response_ends_at_its_deadline() {
        let mut layered = DeadlineLayer.layer(service(std::future::pending::<Answer>));
        let started = Instant::now();
        let late = layered.call(request(&[("grpc-timeout", "300m")])).await.unwrap();
        assert_eq!(status(late.headers()).code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed().as_millis() / 10, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_its_deadline_whether_it_is_silent_or_busy() {
        for body in [|| Endless::Silent, || Endless::Busy] {
            let mut layered = DeadlineLayer.layer(service(move || async move { Ok(Response::new(Body::new(body()))) }));
            let response = layered.call(request(&[("grpc-timeout", "300m")])).await.unwrap();
            let mut body = response.into_body();
            let trailers = loop {
                if let Ok(trailers) = next_frame(&mut body).await.unwrap().into_trailers() {
                    break trailers;
                }
                tokio::time::advance(Duration::from_millis(100)).await;
            };
            assert_eq!(status(&trailers).code(), Code::DeadlineExceeded);
            assert!(next_frame(&mut body).await.is_none());
        }
    }
}
