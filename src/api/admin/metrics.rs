//! A port of its own for Prometheus: `/metrics`, and nothing else.

use std::convert::Infallible;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::header::ALLOW;
use tonic::codegen::http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::telemetry::metrics::Metrics;

use super::listener;
use crate::api::http::metrics;

/// Serves until `stop`. Plaintext and open to everybody, as scrapers expect it.
pub async fn serve(listener: TcpListener, metrics: Metrics, stop: CancellationToken) {
    listener::serve(listener, "Prometheus", stop, move |request| answer(metrics.clone(), request)).await;
}

async fn answer<B>(metrics: Metrics, request: Request<B>) -> Result<Response<Body>, Infallible> {
    let (head, _) = request.into_parts();
    Ok(if head.uri.path() != "/metrics" {
        text(StatusCode::NOT_FOUND, "only /metrics is here\n")
    } else if !matches!(head.method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are possible here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    } else {
        metrics::page(&metrics, &head.headers).await
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(text.to_owned()));
    *response.status_mut() = status;
    response
}
