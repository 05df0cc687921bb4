//! Routes requests that are not gRPC: gRPC-Web, Connect, the plain routes, and the pages.

use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{Method, Request, Response, StatusCode};
use tower::{Layer, Service};

use crate::api::middleware::grpc_timeout;
use crate::model::{ErrorCode, limits};

use super::body::ReceivedBody;
use super::context::Context;
use super::origin::Origins;
use super::response::{self, edge_error};
use super::{connect, health, plain};

/// The page at `/`.
const INDEX: &str = include_str!("index.txt");

pub struct Routes {
    pub context: Context,
    pub origins: Origins,
    pub health: health::Sources,
}

/// The protocol of a request, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Grpc,
    GrpcWeb,
    Other,
}

impl Kind {
    pub fn of<B>(request: &Request<B>) -> Self {
        let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        match content_type.strip_prefix(b"application/grpc") {
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            Some(rest) if rest.starts_with(b"-web") => Self::GrpcWeb,
            _ => Self::Other,
        }
    }
}

impl Routes {
    pub async fn respond(&self, kind: Kind, request: Request<Body>) -> Response<Body> {
        let allowed = match self.origins.check(&request) {
            Ok(allowed) => allowed,
            Err(foreign) => return response::error(&self.context.contract, &foreign),
        };
        let mut response =
            if request.method() == Method::OPTIONS { allowed.preflight() } else { self.route(kind, request).await };
        allowed.add_headers(&mut response);
        response
    }

    async fn route(&self, kind: Kind, request: Request<Body>) -> Response<Body> {
        let contract = &self.context.contract;
        match kind {
            Kind::Grpc => {
                let refused =
                    edge_error(ErrorCode::Unsupported, "gRPC requires HTTP/2; use JSON or gRPC-Web over HTTP/1.1");
                response::error_with_status(StatusCode::HTTP_VERSION_NOT_SUPPORTED, contract, &refused)
            }
            Kind::GrpcWeb => self.grpc_web(request).await,
            Kind::Other => match contract.method(request.uri().path()) {
                Some(method) => connect::handle(self.context.clone(), method.clone(), request).await,
                None => self.page(request).await,
            },
        }
    }

    async fn grpc_web(&self, request: Request<Body>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let receive = async {
            let mut admission = self.context.admit(&head)?;
            // The text form of gRPC-Web is a third longer.
            let bytes = 2 * limits::MESSAGE_BYTES_MAX;
            let deadline = grpc_timeout::deadline(&head.headers);
            let body = self.context.receive(&head, body, bytes, deadline, &mut admission).await?;
            Ok((admission, body))
        };
        let (admission, ReceivedBody { bytes, memory: _memory }) = match receive.await {
            Ok(received) => received,
            Err(refused) => return response::grpc_web_error(refused),
        };
        head.extensions.insert(admission.admitted.clone());
        let mut web = tonic_web::GrpcWebLayer::new().layer(self.context.calls.clone());
        match web.call(Request::from_parts(head, Body::new(Full::new(bytes)))).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Everything that is not a method of the contract.
    async fn page(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        if let Err(refused) = self.context.admission.authorize_page(path, request.headers(), request.extensions()) {
            return response::error(&self.context.contract, &refused);
        }
        if let Some(response) = health::respond(&self.health, request.method(), path, request.headers()).await {
            return response;
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/") => response::text(INDEX),
            _ => plain::handle(&self.context, request).await,
        }
    }
}
