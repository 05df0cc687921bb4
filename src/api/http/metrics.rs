//! The page `/metrics`, for Prometheus.

use futures_util::FutureExt;
use http_body_util::Full;
use tonic::body::Body;
use tonic::codegen::http::header::CONTENT_TYPE;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::api::headers;
use crate::api::middleware::response_memory::ResponseMemory;
use crate::model::{MemoryAccount, MemoryPart};
use crate::telemetry::metrics::{Format, Metrics};

/// All metrics, in the format that the `accept` header asks for.
pub async fn page(metrics: &Metrics, memory: &MemoryAccount, headers: &HeaderMap) -> Response<Body> {
    let [plain, open] = [Format::Prometheus, Format::OpenMetrics].map(Format::media_type);
    let format =
        if headers::preferred(headers, &[plain, open]) == open { Format::OpenMetrics } else { Format::Prometheus };
    let Some(text) = metrics.page(format).await else {
        return unavailable("metrics are off\n".to_owned());
    };
    let share = memory.share_in_turn(MemoryPart::Responses, &"metrics".into(), text.len() as u64);
    let Some(share) = share.now_or_never() else {
        return unavailable(format!("{}\n", memory.full(MemoryPart::Responses)));
    };
    let mut response = Response::new(Body::new(Full::new(text)));
    response.extensions_mut().insert(ResponseMemory::reserved(share));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

fn unavailable(text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
