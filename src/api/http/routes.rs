//! Routes requests that are not gRPC: gRPC-Web, Connect, the plain routes, and the pages.

use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};
use tonic::codegen::http::{HeaderMap, Method, Request, Response, StatusCode};
use tower::{Layer, Service};

use crate::api::headers;
use crate::api::middleware::grpc_timeout;
use crate::api::services::artifacts::OpenLink;
use crate::model::ErrorCode;

use super::body::ReceivedBody;
use super::context::Context;
use super::origin::Origins;
use super::response::{self, edge_error};
use super::{artifacts, connect, health, plain, ui};

/// The page at `/`.
const INDEX: &str = include_str!("index.txt");

pub struct Routes {
    pub context: Context,
    pub origins: Origins,
    pub health: health::Sources,
    pub open_link: OpenLink,
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
        // What most clients send needs no parsing.
        if request.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/grpc") {
            return Self::Grpc;
        }
        let media_type = headers::media_type(request.headers()).unwrap_or_default();
        match media_type.strip_prefix("application/grpc") {
            Some(rest) if rest.is_empty() || rest.starts_with('+') => Self::Grpc,
            Some(rest) if rest.starts_with("-web") => Self::GrpcWeb,
            _ => Self::Other,
        }
    }
}

/// The encodings of gRPC-Web: binary and base64.
const WEB: &str = "application/grpc-web+proto";
const WEB_TEXT: &str = "application/grpc-web-text+proto";

/// The encoding of the request; `None` if it is not supported.
fn web_encoding(headers: &HeaderMap) -> Option<&'static str> {
    match headers::media_type(headers)?.as_str() {
        "application/grpc-web" | WEB => Some(WEB),
        "application/grpc-web-text" | WEB_TEXT => Some(WEB_TEXT),
        _ => None,
    }
}

/// The encoding that the client prefers for the response.
fn accepted_web_encoding(headers: &HeaderMap) -> &'static str {
    match headers::preferred(headers, &["application/grpc-web", WEB, "application/grpc-web-text", WEB_TEXT]) {
        "application/grpc-web-text" | WEB_TEXT => WEB_TEXT,
        _ => WEB,
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
        if head.method != Method::POST {
            return response::method_not_allowed(&self.context.contract, "POST");
        }
        let Some(encoding) = web_encoding(&head.headers) else {
            let message = format!("unsupported content-type; gRPC-Web calls need {WEB} or {WEB_TEXT}");
            return response::grpc_web_error(edge_error(ErrorCode::Unsupported, message));
        };
        let deadline = grpc_timeout::deadline(&head.headers);
        let receive = async {
            let mut admission = self.context.admit(&head)?;
            // The text form of gRPC-Web is a third longer.
            let bytes = 2 * self.context.payload_limit.message_bytes();
            let body = self.context.receive(&head, body, bytes, deadline, &mut admission).await?;
            Ok((admission, body))
        };
        let (admission, ReceivedBody { bytes, memory: _memory }) = match receive.await {
            Ok(received) => received,
            Err(refused) => return response::grpc_web_error(refused),
        };
        head.extensions.insert(admission.admitted.clone());
        // The layer for gRPC-Web compares these headers as text.
        let accepted = accepted_web_encoding(&head.headers);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding));
        head.headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        head.headers.remove(CONTENT_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        if let Some(deadline) = deadline {
            // Receiving the body has taken a part of the time.
            head.headers.insert("grpc-timeout", grpc_timeout::remaining(deadline));
        }
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
        if let Some(response) = ui::respond(&self.context.contract, request.method(), path, request.headers()) {
            return response;
        }
        if request.uri().path().starts_with(artifacts::PREFIX) {
            return artifacts::respond(&self.context, &self.open_link, request).await;
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/") => ui::from_root(request.headers()).unwrap_or_else(|| {
                let mut list = response::text(INDEX);
                list.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
                list
            }),
            _ => plain::handle(&self.context, request).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use http_body_util::StreamBody;
    use tonic::codegen::http::HeaderValue;

    use super::*;
    use crate::api::auth::AccessControl;
    use crate::api::http::{Calls, Contract};
    use crate::api::middleware::admission::AdmissionControl;
    use crate::api::middleware::call_slots::CallSlots;
    use crate::api::middleware::public_places::PublicPlaces;
    use crate::model::MemoryAccount;
    use crate::telemetry::Telemetry;
    use crate::telemetry::host::HostHealth;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_grpc_web_includes_the_time_in_which_the_body_arrives() {
        let passed_on = Arc::new(OnceLock::new());
        let calls = {
            let passed_on = passed_on.clone();
            tower::service_fn(move |request: Request<Body>| {
                let _ = passed_on.set(request.headers().get("grpc-timeout").cloned());
                async { Ok(Response::default()) }
            })
        };
        let memory = MemoryAccount::new(|_| 1_000);
        let context = Context {
            calls: Calls::new(calls),
            admission: AdmissionControl::new(AccessControl::default(), CallSlots::new(1, 1), PublicPlaces::default()),
            contract: Arc::new(Contract::new().unwrap()),
            body_timeout: Duration::from_mins(1),
            memory: memory.clone(),
            payload_limit: crate::model::limits::PayloadLimit::default(),
        };
        let telemetry = Telemetry::new(Metrics::off());
        let health =
            health::Sources { telemetry, host: Arc::new(HostHealth::default), memory, instance: String::new() };
        let open_link: OpenLink = Arc::new(|_, _| Box::pin(std::future::pending()));
        let routes = Routes { context, origins: Origins::default(), health, open_link };
        let slow = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, tonic::Status>(http_body::Frame::data(bytes::Bytes::from_static(&[0; 5])))
        });
        let mut request = Request::new(Body::new(StreamBody::new(slow)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/lineshaft.v1.TaskService/GetTask".parse().unwrap();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(WEB));
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1S"));
        routes.respond(Kind::GrpcWeb, request).await;
        assert_eq!(passed_on.get().unwrap().as_ref().unwrap(), "700m");
    }
}
