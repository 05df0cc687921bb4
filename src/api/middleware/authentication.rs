//! Authenticates the caller of each call and checks its permission.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::api::auth::{AccessControl, ConnectionInfo, StreamLease, Unauthenticated};
use crate::api::status::into_status;

use super::admission::Admitted;
use super::call_future::{CallFuture, MapResponse};
use super::layered_body::{LayeredBody, PolledFrame, WatchFrames, is_open};

#[derive(Clone)]
pub struct AuthenticationLayer(pub AccessControl);

impl<S> Layer<S> for AuthenticationLayer {
    type Service = Authentication<S>;

    fn layer(&self, inner: S) -> Authentication<S> {
        Authentication { inner, access: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Authentication<S> {
    inner: S,
    access: AccessControl,
}

impl<S> Authentication<S> {
    /// Adds the caller's identity to the request. Returns a lease if the call is a stream.
    fn check<B>(&self, request: &mut Request<B>) -> Result<Option<StreamLease>, Box<Status>> {
        if !self.access.is_on() {
            return Ok(None);
        }
        let connection = ConnectionInfo::of(request.extensions());
        let path = request.uri().path();
        let identity = match request.extensions().get::<Admitted>() {
            Some(admitted) => admitted.identity.clone(),
            None => self.access.authenticate(path, request.headers(), &connection)?,
        };
        let lease = match &identity {
            Some(identity) => self.access.authorize(path, identity, &connection)?,
            None => None,
        };
        // The services do not need the token, so no message of theirs can contain it.
        request.headers_mut().remove(AUTHORIZATION);
        if let Some(identity) = identity {
            request.extensions_mut().insert(identity);
        }
        Ok(lease)
    }
}

impl<S, B, R> Service<Request<B>> for Authentication<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: Default,
{
    type Response = Response<LeasedBody<R>>;
    type Error = Infallible;
    type Future = CallFuture<S::Future, Lease>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.check(&mut request) {
            Ok(lease) => CallFuture::called(self.inner.call(request), Lease(lease)),
            Err(refused) => CallFuture::refused(refused),
        }
    }
}

/// The lease of a stream; `None` for a unary call, and without authentication.
pub struct Lease(Option<StreamLease>);

impl<R: Default> MapResponse<R> for Lease {
    type Body = LeasedBody<R>;

    fn map(self, response: Response<R>) -> Response<LeasedBody<R>> {
        response.map(|inner| LayeredBody::new(inner, self.0))
    }
}

/// A response body that ends with UNAUTHENTICATED when its lease ends.
pub type LeasedBody<B> = LayeredBody<B, StreamLease>;

impl WatchFrames for StreamLease {
    fn after_poll(&mut self, frame: &PolledFrame, context: &mut Context<'_>) -> Option<Status> {
        (is_open(frame) && self.poll_end(context).is_ready()).then(|| into_status(Unauthenticated::Expired))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::Code;
    use tonic::body::Body;

    use super::super::test_support::{service, status};
    use super::*;
    use crate::api::auth::Identity;
    use crate::api::auth::test_support::access;

    fn request(authorization: Option<String>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/lineshaft.v1.TaskService/GetTask".parse().unwrap();
        if let Some(text) = authorization {
            request.headers_mut().insert(AUTHORIZATION, text.parse().unwrap());
        }
        request
    }

    #[test]
    fn the_service_gets_the_identity_and_not_the_token() {
        let (access, key, _directory) = access();
        let layered = AuthenticationLayer(access).layer(());
        let mut request = request(Some(format!("Bearer {key}")));
        assert!(layered.check(&mut request).unwrap().is_none());
        assert_eq!(&*request.extensions().get::<Arc<Identity>>().unwrap().name, "key:me");
        assert!(!request.headers().contains_key(AUTHORIZATION));
    }

    #[tokio::test]
    async fn an_admitted_call_is_not_authenticated_again_but_authorized() {
        let (access, key, _directory) = access();
        let connection = ConnectionInfo::default();
        let headers = request(Some(format!("Bearer {key}"))).headers().clone();
        let identity = access.authenticate("/", &headers, &connection).unwrap();
        let mut layered = AuthenticationLayer(access).layer(service(|| async { Ok(Response::default()) }));
        let refused = layered.call(request(None)).await.unwrap();
        assert_eq!(status(refused.headers()).code(), Code::Unauthenticated);
        let mut admitted = request(None);
        admitted.extensions_mut().insert(Admitted::of(identity));
        *admitted.uri_mut() = "/lineshaft.v1.TaskService/SubmitTask".parse().unwrap();
        let denied = layered.call(admitted).await.unwrap();
        assert_eq!(status(denied.headers()).code(), Code::PermissionDenied);
    }
}
