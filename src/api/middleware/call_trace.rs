//! Runs each call in its trace: continues the caller's trace, and records a span if traces are exported.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::layered_body::{PolledFrame, grpc_status, trailers};
use super::traced_call::TracedCall;

#[derive(Clone)]
pub struct CallTraceLayer;

impl<S> Layer<S> for CallTraceLayer {
    type Service = CallTrace<S>;

    fn layer(&self, inner: S) -> CallTrace<S> {
        CallTrace { inner }
    }
}

#[derive(Clone)]
pub struct CallTrace<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for CallTrace<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    type Response = Response<TracedBody<R>>;
    type Error = Infallible;
    type Future = TracedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = TracedCall::start(&request);
        let _entered = call.as_ref().map(TracedCall::enter);
        TracedFuture { inner: self.inner.call(request), call }
    }
}

pin_project! {
    pub struct TracedFuture<F> {
        #[pin]
        inner: F,
        call: Option<TracedCall>,
    }
}

impl<F, R> Future for TracedFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = Result<Response<TracedBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let entered = this.call.as_ref().map(TracedCall::enter);
        let Poll::Ready(Ok(response)) = this.inner.poll(context) else { return Poll::Pending };
        drop(entered);
        let mut call = this.call.take();
        if let Some(call) = &mut call {
            call.status = grpc_status(response.headers());
        }
        Poll::Ready(Ok(response.map(|inner| TracedBody { inner, call })))
    }
}

/// A response body that is polled in the scope of its call, and records the status of its trailers.
pub struct TracedBody<B> {
    inner: B,
    call: Option<TracedCall>,
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for TracedBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> PolledFrame {
        let _entered = self.call.as_ref().map(TracedCall::enter);
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Some(call) = &mut self.call {
            let failed = || if let Poll::Ready(Some(Err(error))) = &frame { Some(error.code() as i32) } else { None };
            call.status = trailers(&frame).and_then(grpc_status).or_else(failed).or(call.status);
        }
        frame
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
    use super::super::test_support::{TRACEPARENT, request, service};
    use super::*;
    use crate::telemetry::scope;

    #[tokio::test]
    async fn a_call_runs_in_the_trace_of_its_caller() {
        let mut layered = CallTraceLayer.layer(service(|| async {
            let context = scope::current_context().unwrap().context;
            assert_eq!((context.traceparent().as_deref(), &*context.baggage), (Some(TRACEPARENT), "user=7"));
            Ok(Response::default())
        }));
        let mut request = request(&[("traceparent", TRACEPARENT), ("baggage", "user=7")]);
        *request.uri_mut() = "/lineshaft.v1.TaskService/SubmitTask".parse().unwrap();
        layered.call(request).await.unwrap();
        assert!(scope::current_context().is_none());
    }
}
