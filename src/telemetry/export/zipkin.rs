//! Spans on their way to Zipkin.
#![expect(deprecated, reason = "so is the exporter in the specification; Zipkin takes OTLP nowadays")]

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanExporter;
use opentelemetry_zipkin::ZipkinExporter;
use tonic::codegen::http::HeaderMap;

use super::settings::{Protocol, Target, Zipkin};
use super::{Counts, TransportError, transport};

/// Call it inside the exporters' runtime.
pub(super) fn spans(zipkin: &Zipkin, counts: &Arc<Counts>) -> Result<impl SpanExporter + use<>, TransportError> {
    let target = Target {
        protocol: Protocol::HttpJson,
        endpoint: zipkin.endpoint.clone(),
        headers: HeaderMap::new(),
        gzip: false,
        timeout: zipkin.timeout,
        certificate: None,
        identity: None,
    };
    let builder = ZipkinExporter::builder().with_collector_endpoint(&*zipkin.endpoint);
    let built = builder.with_http_client(transport::http_client(&target, counts)?).build();
    built.map_err(|error| TransportError::Zipkin(error.to_string()))
}
