//! Gives each call that needs no token a place of its own, and ends the call when the place is taken away.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::api::auth::is_public;

use super::admission::Admitted;
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames, is_open};
use super::public_places::{PublicPlace, PublicPlaces};

#[derive(Clone)]
pub struct PublicCallsLayer {
    pub places: PublicPlaces,
    /// Whether all calls are public: on a port without authentication.
    pub all: bool,
}

impl<S> Layer<S> for PublicCallsLayer {
    type Service = PublicCallsService<S>;

    fn layer(&self, inner: S) -> PublicCallsService<S> {
        PublicCallsService { inner, layer: self.clone() }
    }
}

#[derive(Clone)]
pub struct PublicCallsService<S> {
    inner: S,
    layer: PublicCallsLayer,
}

impl<S, B, R> Service<Request<B>> for PublicCallsService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<PublicBody<R>>;
    type Error = Infallible;
    type Future = PublicFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let place = (self.layer.all || is_public(path)).then(|| self.layer.places.enter(path));
        if place.is_some() {
            // No identity, and no slot among the calls in flight.
            request.extensions_mut().insert(Admitted::default());
        }
        PublicFuture { inner: self.inner.call(request), place }
    }
}

pin_project! {
    pub struct PublicFuture<F> {
        #[pin]
        inner: F,
        // `None` if the call is not public.
        place: Option<PublicPlace>,
    }
}

impl<F, R> Future for PublicFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
    R: Default,
{
    type Output = Result<Response<PublicBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(Ok(response)) = this.inner.poll(context) {
            return Poll::Ready(Ok(response.map(|inner| LayeredBody::new(inner, this.place.take()))));
        }
        match this.place.as_mut().map(|place| place.poll_taken(context)) {
            Some(Poll::Ready(taken)) => Poll::Ready(Ok(taken.into_http())),
            _ => Poll::Pending,
        }
    }
}

/// A response body that ends with OVERLOADED when its place is taken away.
pub type PublicBody<B> = LayeredBody<B, PublicPlace>;

impl WatchFrames for PublicPlace {
    fn after_poll(&mut self, frame: &PolledFrame, context: &mut Context<'_>) -> Option<Status> {
        if !is_open(frame) {
            return None;
        }
        match self.poll_taken(context) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::test_support::{Answer, request, service, status};
    use super::*;

    #[tokio::test]
    async fn a_call_ends_when_its_place_is_taken_and_other_calls_have_none() {
        let places = PublicPlaces::default();
        let layer = PublicCallsLayer { places: places.clone(), all: false };
        let mut layered = layer.layer(service(std::future::pending::<Answer>));
        let mut check = request(&[]);
        *check.uri_mut() = "/grpc.health.v1.Health/Check".parse().unwrap();
        let (waiting, other) = (layered.call(check), layered.call(request(&[])));
        let _others: Vec<_> = (0..256).map(|_| places.enter("/grpc.health.v1.Health/Check")).collect();
        assert_eq!(status(waiting.await.unwrap().headers()).code(), tonic::Code::ResourceExhausted);
        assert!(other.now_or_never().is_none());
    }
}
