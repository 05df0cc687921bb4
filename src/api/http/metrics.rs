//! The page `/metrics`, for Prometheus.

use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::header::{ACCEPT, CONTENT_TYPE};
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::telemetry::metrics::{Format, Metrics};

/// All metrics, in the format that the `accept` header asks for.
pub async fn page(metrics: &Metrics, headers: &HeaderMap) -> Response<Body> {
    let accepted: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accepted.join(","));
    let Some(text) = metrics.page(format).await else {
        let mut response = Response::new(Body::new("metrics are off\n".to_owned()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    };
    let mut response = Response::new(Body::new(Full::new(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}
