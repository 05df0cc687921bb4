//! One port for programs and people: decides what a request is, and who answers it.
//!
//! gRPC goes to the services as it is; that path is one look at the content type. Everything else is
//! turned into the same calls: they pass the same guard and meet the same limits.

mod answer;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{Method, Request, Response, Version};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

use crate::model::ErrorCode;
use crate::scheduler::Handle;

use super::connections::Edge;
use super::guard::Guard;
use super::server::HostReading;
use super::status::{self, EdgeError};

/// The whole edge as one connection sees it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Front {
    /// The services, behind the guard: whoever answers a request that changes anything asks here.
    calls: Guard<Routes>,
    shared: Arc<Shared>,
}

/// What the plain routes need besides the services.
#[expect(dead_code, reason = "for the routes that follow")]
pub(super) struct Shared {
    /// The scheduler.
    pub handle: Handle,
    /// Reads the machine's and the process's health.
    pub host: HostReading,
}

impl Front {
    pub fn new(calls: Guard<Routes>, shared: Shared) -> Self {
        Self { calls, shared: Arc::new(shared) }
    }

    /// Everything that is not gRPC.
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        match kind(&request) {
            Kind::Grpc => refuse(ErrorCode::InvalidField, "gRPC needs HTTP/2"),
            Kind::GrpcWeb => self.grpc_web(request).await,
            Kind::Other => self.plain(request).await,
        }
    }

    async fn grpc_web(self, request: Request<Body>) -> Response<Body> {
        let mut web = tower::Layer::layer(&tonic_web::GrpcWebLayer::new(), self.calls);
        match web.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// The table of plain routes.
    async fn plain(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        // A route of its own file is a row here, such as `(&Method::GET, "/x") => x::page(&self.shared).await`.
        std::future::ready(()).await;
        match (request.method(), path) {
            (&Method::GET, "/") => answer::text(concat!("lineshaft ", env!("CARGO_PKG_VERSION"), "\n")),
            _ => answer::not_found(path),
        }
    }
}

/// What a request is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Grpc,
    GrpcWeb,
    Other,
}

fn kind<B>(request: &Request<B>) -> Kind {
    let content = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    match content.strip_prefix(b"application/grpc") {
        Some([] | [b'+' | b';', ..]) => Kind::Grpc,
        Some(rest) if rest.starts_with(b"-web") => Kind::GrpcWeb,
        _ => Kind::Other,
    }
}

fn refuse(code: ErrorCode, message: &str) -> Response<Body> {
    answer::refusal(&status::of(&EdgeError { code, message: message.to_owned() }))
}

impl Edge for Front {
    fn facing(&self, peer: TcpConnectInfo) -> Self {
        Self { calls: self.calls.facing(peer), shared: self.shared.clone() }
    }
}

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if kind(&request) == Kind::Grpc && request.version() == Version::HTTP_2 {
            return self.calls.call(request);
        }
        self.clone().answer(request.map(Body::new)).map(Ok).boxed()
    }
}
