//! One port for programs and people: decides what a request is, and who answers it.
//!
//! gRPC goes to the services as it is; that path is one look at the content type. Everything else is
//! turned into the same calls: they pass the same guard and meet the same limits.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{Method, Request, Response, StatusCode, Version};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use crate::model::{ErrorCode, limits};

use crate::api::auth::CertificateNames;
use crate::api::listener::accept::Edge;
use crate::api::middleware::guard::Guard;

use super::context::Context;
use super::descriptors::Contract;
use super::origin::Origins;
use super::response::{self, edge_error};
use super::{body, connect, health, plain};

/// What somebody sees who looks at the port with a browser.
const INDEX: &str = include_str!("index.txt");

/// The whole edge as one connection sees it. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    context: Context,
    shared: Arc<Shared>,
}

/// What the plain routes need besides the services.
pub struct Shared {
    /// What probes and scrapers see.
    pub view: health::View,
    /// Methods and messages.
    pub contract: Arc<Contract>,
    /// Who may call from a browser.
    pub origins: Origins,
    /// Time in which the body of a request that is not gRPC must be complete.
    pub body_timeout: Duration,
}

impl Front {
    pub fn new(calls: Guard<Routes>, shared: Shared) -> Self {
        let context = Context { calls, contract: shared.contract.clone(), body_timeout: shared.body_timeout };
        Self { context, shared: Arc::new(shared) }
    }

    /// Everything that is not gRPC.
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let shared = self.shared.clone();
        let allowed = match shared.origins.judge(&request) {
            Ok(allowed) => allowed,
            Err(foreign) => return response::error(&shared.contract, &foreign),
        };
        let mut response =
            if request.method() == Method::OPTIONS { allowed.preflight() } else { self.route(request).await };
        allowed.mark(&mut response);
        response
    }

    async fn route(self, request: Request<Body>) -> Response<Body> {
        let contract = self.shared.contract.clone();
        match kind(&request) {
            Kind::Grpc => {
                let refused = edge_error(ErrorCode::Unsupported, "gRPC needs HTTP/2; JSON and gRPC-Web do not");
                response::error_with_status(StatusCode::HTTP_VERSION_NOT_SUPPORTED, &contract, &refused)
            }
            Kind::GrpcWeb => self.grpc_web(request).await,
            Kind::Other => match contract.method(request.uri().path()) {
                Some(method) => connect::handle(self.context, method.clone(), request).await,
                None => self.plain(request).await,
            },
        }
    }

    async fn grpc_web(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let read = async {
            let _admission = self.context.admit(&head)?;
            // Its text form takes a third more.
            let bounds = body::BodyLimits { bytes: 2 * limits::MESSAGE_BYTES_MAX, timeout: self.shared.body_timeout };
            body::read(&head.headers, body, bounds, crate::api::middleware::deadline::of(&head.headers)).await
        };
        let body = match read.await {
            Ok(body) => Body::new(Full::new(body)),
            Err(refused) => return response::grpc_web_error(refused),
        };
        let mut web = tonic_web::GrpcWebLayer::new().layer(self.context.calls);
        match web.call(Request::from_parts(head, body)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Everything that is no method of the contract. A route of its own file is a row here, such as
    /// `(&Method::GET, "/x") => x::page(&self.shared).await`.
    async fn plain(self, request: Request<Body>) -> Response<Body> {
        if let Err(refused) = self.context.calls.may_see(request.uri().path(), request.headers()) {
            return response::error(&self.shared.contract, &refused);
        }
        if let Some(response) =
            health::answer(&self.shared.view, request.method(), request.uri().path(), request.headers()).await
        {
            return response;
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/") => response::text(INDEX),
            _ => plain::handle(&self.context, request).await,
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

impl Edge for Front {
    fn facing(&self, peer: TcpConnectInfo, certificate: Option<CertificateNames>) -> Self {
        Self {
            context: Context { calls: self.context.calls.facing(peer, certificate), ..self.context.clone() },
            shared: self.shared.clone(),
        }
    }
}

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if kind(&request) == Kind::Grpc && request.version() == Version::HTTP_2 {
            return self.context.calls.call(request);
        }
        self.clone().answer(request.map(Body::new)).map(Ok).boxed()
    }
}
