//! The Prometheus port: `/metrics` and nothing else.

use std::convert::Infallible;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::header::ALLOW;
use tonic::codegen::http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::api::http::metrics;
use crate::api::middleware::response_memory::counted;
use crate::model::MemoryAccount;
use crate::telemetry::metrics::Metrics;

use super::listener;

/// Serves until `stop`. Plaintext and without authentication, as Prometheus expects it.
pub async fn serve(listener: TcpListener, metrics: Metrics, memory: MemoryAccount, stop: CancellationToken) {
    let service = tower::service_fn(move |request| respond(metrics.clone(), memory.clone(), request));
    listener::serve(listener, "Prometheus", service, stop).await;
}

async fn respond<B>(
    metrics: Metrics,
    memory: MemoryAccount,
    request: Request<B>,
) -> Result<Response<Body>, Infallible> {
    let (head, _) = request.into_parts();
    Ok(if head.uri.path() != "/metrics" {
        text(StatusCode::NOT_FOUND, "not found; this port serves /metrics\n")
    } else if !matches!(head.method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "this path supports GET and HEAD only\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    } else {
        counted(&memory, metrics::page(&metrics, &memory, &head.headers).await)
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = status;
    response
}
