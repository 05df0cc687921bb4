//! Counts each call and measures how long it takes, by method and status.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use crate::telemetry::metrics::{Call, CallMeter, SampledSpan};
use crate::telemetry::scope::{self, ActiveContext};

use super::call_future::{CallFuture, MapResponse};
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames, grpc_status, trailers};

#[derive(Clone)]
pub struct CallMetricsLayer(pub Arc<CallMeter>);

impl<S> Layer<S> for CallMetricsLayer {
    type Service = CallMetrics<S>;

    fn layer(&self, inner: S) -> CallMetrics<S> {
        CallMetrics { inner, meter: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct CallMetrics<S> {
    inner: S,
    meter: Arc<CallMeter>,
}

impl<S, B, R> Service<Request<B>> for CallMetrics<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<MeteredBody<R>>;
    type Error = Infallible;
    type Future = CallFuture<S::Future, Meter>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = self.meter.begin(request.uri().path(), sampled_span);
        CallFuture::called(self.inner.call(request), Meter(call))
    }
}

/// The sampled span of the call, or its remote parent: an exemplar of the metric refers to it.
fn sampled_span() -> Option<SampledSpan> {
    let ActiveContext { context, .. } = scope::current_context()?;
    SampledSpan::sampled(context.trace_id, context.span_id, context.flags)
}

/// Ends the measurement with the first status, which the headers or the trailers contain.
/// A call that is dropped before counts as cancelled.
pub struct Meter(Call);

impl Meter {
    fn observe(&mut self, headers: &HeaderMap) {
        if let Some(status) = grpc_status(headers) {
            self.0.end(status);
        }
    }
}

impl<R: Default> MapResponse<R> for Meter {
    type Body = MeteredBody<R>;

    fn map(mut self, response: Response<R>) -> Response<MeteredBody<R>> {
        self.observe(response.headers());
        response.map(|inner| LayeredBody::new(inner, Some(self)))
    }
}

pub type MeteredBody<B> = LayeredBody<B, Meter>;

impl WatchFrames for Meter {
    fn after_poll(&mut self, frame: &PolledFrame, _: &mut Context<'_>) -> Option<Status> {
        if let Some(trailers) = trailers(frame) {
            self.observe(trailers);
        }
        None
    }
}
