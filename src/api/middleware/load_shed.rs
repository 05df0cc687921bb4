//! Gives each call a slot, and refuses it at once with OVERLOADED if there is none for its caller, instead of queueing it.
//! A stream of requests also gets the memory for those that it does not read at once, or is refused with MEMORY_FULL.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::api::auth::{ConnectionInfo, Identity, is_streaming};
use crate::api::status;
use crate::model::MemoryAccount;

use super::admission::Admitted;
use super::call_future::{CallFuture, MapResponse};
use super::call_slots::{CallSlot, CallSlots};
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames};
use super::request_memory::count_unread;

#[derive(Clone)]
pub struct LoadShedLayer {
    pub slots: CallSlots,
    pub memory: MemoryAccount,
}

impl<S> Layer<S> for LoadShedLayer {
    type Service = LoadShed<S>;

    fn layer(&self, inner: S) -> LoadShed<S> {
        LoadShed { inner, slots: self.slots.clone(), memory: self.memory.clone() }
    }
}

#[derive(Clone)]
pub struct LoadShed<S> {
    inner: S,
    slots: CallSlots,
    memory: MemoryAccount,
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
        let mut slot = self.slots.acquire(path, extensions.get::<Arc<Identity>>(), &connection)?;
        match admitted {
            Some(admitted) => admitted.return_slot(),
            // The request of an admitted one has been read.
            None if slot.is_stream() => {
                let unread = count_unread(&self.memory, slot.sharer(), path);
                slot.hold(unread.map_err(|full| status::to_status(&full))?);
            }
            None => {}
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

    use crate::api::auth::WORK;
    use crate::model::MemoryPart;

    use super::super::test_support::{Answer, request, service, status};
    use super::*;

    const WATCH: &str = "/lineshaft.v1.TaskService/WatchTasks";
    const SUBMIT: &str = "/lineshaft.v1.TaskService/SubmitTasks";

    fn layer(slots: CallSlots) -> LoadShedLayer {
        LoadShedLayer { slots, memory: MemoryAccount::new(|_| 1 << 20) }
    }

    #[tokio::test]
    async fn a_call_beyond_the_limit_is_refused_at_once_with_a_retry_delay() {
        let mut shed = layer(CallSlots::new(1, 1)).layer(service(std::future::pending::<Answer>));
        let _in_flight = shed.call(request(&[]));
        let refused = status(shed.call(request(&[])).await.unwrap().headers());
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    }

    #[tokio::test]
    async fn a_dropped_call_returns_its_slot() {
        let slots = CallSlots::new(1, 1);
        let mut shed = layer(slots.clone()).layer(service(std::future::pending::<Answer>));
        drop(shed.call(request(&[])));
        assert_eq!(slots.used(), 0);
    }

    #[tokio::test]
    async fn an_admitted_call_needs_no_slot() {
        let mut shed = layer(CallSlots::new(0, 0)).layer(service(|| async { Ok(Response::default()) }));
        let mut admitted = request(&[]);
        admitted.extensions_mut().insert(Admitted::default());
        assert!(shed.call(admitted).await.unwrap().headers().is_empty());
    }

    #[tokio::test]
    async fn a_stream_keeps_its_slot_until_its_body_is_dropped_and_returns_that_of_its_request() {
        let slots = CallSlots::new(1, 1);
        let mut shed = layer(slots.clone()).layer(service(|| async { Ok(Response::default()) }));
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
    #[tokio::test]
    async fn a_stream_of_requests_has_memory_for_those_that_are_not_read_until_its_body_is_dropped() {
        let layer = layer(CallSlots::new(1, 2));
        let used = || layer.memory.used(MemoryPart::Requests);
        let mut shed = layer.layer(service(|| async { Ok(Response::default()) }));
        let stream = |path: &str| {
            let mut stream = request(&[]);
            *stream.uri_mut() = path.parse().unwrap();
            stream
        };
        let watch = shed.call(stream(WATCH)).await.unwrap();
        assert_eq!(used(), 0);
        drop(watch);
        let open = shed.call(stream(SUBMIT)).await.unwrap();
        assert_eq!(used(), 768 << 10);
        let refused = status(shed.call(stream(SUBMIT)).await.unwrap().headers());
        assert_eq!(refused.get_details_error_info().unwrap().reason, "MEMORY_FULL");
        drop(open);
        assert_eq!(used(), 0);
        drop((shed.call(stream(SUBMIT)).await.unwrap(), shed.call(stream(WORK)).await.unwrap()));
    }
}
