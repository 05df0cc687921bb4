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

use crate::api::middleware::response_memory::counted;
use crate::model::MemoryAccount;

use super::routes::{Kind, Routes};

/// Sends gRPC calls to the services as they are, and everything else to the HTTP routes.
#[derive(Clone)]
pub struct Front<S> {
    grpc: S,
    routes: Arc<Routes>,
    memory: MemoryAccount,
}

impl<S> Front<S> {
    pub fn new(grpc: S, routes: Routes) -> Self {
        let memory = routes.context.memory.clone();
        Self { grpc, routes: Arc::new(routes), memory }
    }
}

impl<S, B, R> Service<Request<B>> for Front<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible, Future: Send + 'static>,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error = Status> + Unpin + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (kind, memory) = (Kind::of(&request), self.memory.clone());
        if kind == Kind::Grpc && request.version() == Version::HTTP_2 {
            return self
                .grpc
                .call(request)
                .map(move |response| response.map(|response| counted(&memory, response)))
                .boxed();
        }
        let routes = self.routes.clone();
        async move { Ok(counted(&memory, routes.respond(kind, request.map(Body::new)).await)) }.boxed()
    }
}
