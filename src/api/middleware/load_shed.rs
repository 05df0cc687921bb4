//! Gives each call a slot, and refuses it at once with OVERLOADED if there is none for its caller, instead of queueing it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::api::auth::{ConnectionInfo, Identity, is_streaming};

use super::admission::Admitted;
use super::call_future::{CallFuture, MapResponse};
use super::call_slots::{CallSlot, CallSlots};
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames};

#[derive(Clone)]
pub struct LoadShedLayer(pub CallSlots);

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShed<S>;

    fn layer(&self, inner: S) -> LoadShed<S> {
        LoadShed { inner, slots: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct LoadShed<S> {
    inner: S,
    slots: CallSlots,
}

impl<S> LoadShed<S> {
    /// The slot of a call; `None` if it belongs to an admitted request, which has one. A stream has its own, and that of
    /// the request is returned.
    fn slot<B>(&self, request: &Request<B>) -> Result<Option<CallSlot>, Status> {
        let (path, extensions) = (request.uri().path(), request.extensions());
        let admitted = extensions.get::<Admitted>();
        if admitted.is_some() && !is_streaming(path) {
            return Ok(None);
        }
        let connection = ConnectionInfo::of(extensions);
        let slot = self.slots.acquire(path, extensions.get::<Arc<Identity>>(), &connection)?;
        if let Some(admitted) = admitted {
            admitted.return_slot();
        }
        Ok(Some(slot))
    }
}

impl<S, B, R> Service<Request<B>> for LoadShed<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<StreamBody<R>>;
    type Error = Infallible;
    type Future = CallFuture<S::Future, ReleaseSlot>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.slot(&request) {
            Ok(slot) => CallFuture::called(self.inner.call(request), ReleaseSlot(slot)),
            Err(refused) => CallFuture::refused(Box::new(refused)),
        }
    }
}

/// Returns the slot when the response headers are ready, that of a stream when its body has ended.
pub struct ReleaseSlot(Option<CallSlot>);

impl<R: Default> MapResponse<R> for ReleaseSlot {
    type Body = StreamBody<R>;

    fn map(self, response: Response<R>) -> Response<StreamBody<R>> {
        response.map(|inner| LayeredBody::new(inner, self.0.filter(CallSlot::is_stream)))
    }
}

/// A response body that keeps the slot of its stream.
pub type StreamBody<B> = LayeredBody<B, CallSlot>;

impl WatchFrames for CallSlot {
    fn after_poll(&mut self, _: &PolledFrame, _: &mut Context<'_>) -> Option<Status> {
        None
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::super::test_support::{Answer, request, service, status};
    use super::*;

    const WATCH: &str = "/lineshaft.v1.TaskService/WatchTasks";

    #[tokio::test]
    async fn a_call_beyond_the_limit_is_refused_at_once_with_a_retry_delay() {
        let mut shed = LoadShedLayer(CallSlots::new(1, 1)).layer(service(std::future::pending::<Answer>));
        let _in_flight = shed.call(request(&[]));
        let refused = status(shed.call(request(&[])).await.unwrap().headers());
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    }

    #[tokio::test]
    async fn a_dropped_call_returns_its_slot() {
        let slots = CallSlots::new(1, 1);
        let mut shed = LoadShedLayer(slots.clone()).layer(service(std::future::pending::<Answer>));
        drop(shed.call(request(&[])));
        assert_eq!(slots.used(), 0);
    }

    #[tokio::test]
    async fn an_admitted_call_needs_no_slot() {
        let mut shed = LoadShedLayer(CallSlots::new(0, 0)).layer(service(|| async { Ok(Response::default()) }));
        let mut admitted = request(&[]);
        admitted.extensions_mut().insert(Admitted::default());
        assert!(shed.call(admitted).await.unwrap().headers().is_empty());
    }

    #[tokio::test]
    async fn a_stream_keeps_its_slot_until_its_body_is_dropped_and_returns_that_of_its_request() {
        let slots = CallSlots::new(1, 1);
        let mut shed = LoadShedLayer(slots.clone()).layer(service(|| async { Ok(Response::default()) }));
        let watch = || {
            let mut watch = request(&[]);
            *watch.uri_mut() = WATCH.parse().unwrap();
            let slot = slots.acquire("/api/task/x", None, &ConnectionInfo::default()).unwrap();
            watch.extensions_mut().insert(Admitted::new(None, slot));
            watch
        };
        let open = shed.call(watch()).await.unwrap();
        assert_eq!(slots.used(), 0, "the slot of the request");
        assert_eq!(status(shed.call(watch()).await.unwrap().headers()).code(), Code::ResourceExhausted);
        drop(open);
        assert!(shed.call(watch()).await.unwrap().headers().is_empty());
    }
}
