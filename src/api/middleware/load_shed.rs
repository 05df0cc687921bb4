//! Refuses a call at once with OVERLOADED when too many calls are in flight, instead of queueing it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::admission::Admitted;
use super::call_future::{CallFuture, MapResponse};
use super::call_slots::{CallSlot, CallSlots};

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

impl<S, B, R> Service<Request<B>> for LoadShed<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = CallFuture<S::Future, ReleaseSlot>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_admitted = request.extensions().get::<Admitted>().is_some();
        match (!is_admitted).then(|| self.slots.acquire()).transpose() {
            Ok(slot) => CallFuture::called(self.inner.call(request), ReleaseSlot { _slot: slot }),
            Err(refused) => CallFuture::refused(Box::new(refused)),
        }
    }
}

/// Returns the slot when the response headers are ready: open streams do not use up the limit.
pub struct ReleaseSlot {
    _slot: Option<CallSlot>,
}

impl<R: Default> MapResponse<R> for ReleaseSlot {
    type Body = R;

    fn map(self, response: Response<R>) -> Response<R> {
        response
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::super::test_support::{Answer, request, service, status};
    use super::*;

    #[tokio::test]
    async fn a_call_beyond_the_limit_is_refused_at_once_with_a_retry_delay() {
        let mut shed = LoadShedLayer(CallSlots::new(1)).layer(service(std::future::pending::<Answer>));
        let _in_flight = shed.call(request(&[]));
        let refused = status(shed.call(request(&[])).await.unwrap().headers());
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
    }

    #[tokio::test]
    async fn a_dropped_call_returns_its_slot() {
        let slots = CallSlots::new(1);
        let mut shed = LoadShedLayer(slots.clone()).layer(service(std::future::pending::<Answer>));
        drop(shed.call(request(&[])));
        assert_eq!(slots.available(), 1);
    }

    #[tokio::test]
    async fn an_admitted_call_needs_no_slot() {
        let mut shed = LoadShedLayer(CallSlots::new(0)).layer(service(|| async { Ok(Response::default()) }));
        let mut admitted = request(&[]);
        admitted.extensions_mut().insert(Admitted { identity: None });
        assert!(shed.call(admitted).await.unwrap().headers().is_empty());
    }
}
