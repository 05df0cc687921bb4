//! Separates gRPC from the other protocols of the port, by the content type.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Version};
use tower::Service;

use super::routes::{Kind, Routes};

/// Sends gRPC calls to the services as they are, and everything else to the HTTP routes.
#[derive(Clone)]
pub struct Front<S> {
    grpc: S,
    routes: Arc<Routes>,
}

impl<S> Front<S> {
    pub fn new(grpc: S, routes: Routes) -> Self {
        Self { grpc, routes: Arc::new(routes) }
    }
}

impl<S, B, R> Service<Request<B>> for Front<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible, Future: Send + 'static>,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let kind = Kind::of(&request);
        if kind == Kind::Grpc && request.version() == Version::HTTP_2 {
            return self.grpc.call(request).map(|response| response.map(|response| response.map(Body::new))).boxed();
        }
        let routes = self.routes.clone();
        async move { Ok(routes.respond(kind, request.map(Body::new)).await) }.boxed()
    }
}
