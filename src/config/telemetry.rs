//! Section `[telemetry]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{self, SecretUrl};
use crate::telemetry::export::endpoint::is_endpoint;
pub use crate::telemetry::task_log::TaskLogs;

use super::error::{Problems, check_not_masked};
use super::units::HumanDuration;

/// OTLP protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtlpProtocol {
    /// gRPC for port 4317, otherwise HTTP.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protocol buffers over HTTP.
    #[serde(rename = "http/protobuf")]
    Http,
}

impl OtlpProtocol {
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`; empty for `Auto`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "",
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// The trace of an attempt, relative to the trace of its submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceMode {
    /// The trace of the submission if that is recent; a new trace for batches and later attempts.
    #[default]
    Auto,
    /// The trace of the submission.
    Parent,
    /// A new trace with a link to the submission.
    Link,
}

impl From<TraceMode> for model::TraceMode {
    fn from(mode: TraceMode) -> Self {
        match mode {
            TraceMode::Auto => Self::Auto,
            TraceMode::Parent => Self::Parent,
            TraceMode::Link => Self::Link,
        }
    }
}

/// `[telemetry]`: export over OTLP. The `OTEL_*` variables override these settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// URL of an OTLP collector, such as "http://localhost:4317". Default: "", which exports only what OTEL_*
    /// variables configure.
    pub endpoint: SecretUrl,
    /// OTLP protocol: "grpc", "http/protobuf", or "auto": gRPC for port 4317, otherwise HTTP. Default: "auto".
    #[serde(deserialize_with = "by_way_of_a_string")]
    pub protocol: OtlpProtocol,
    /// Trace of an attempt: "parent" for the trace of the submission, "link" for a new trace with a link to it, or
    /// "auto". Default: "auto".
    #[serde(deserialize_with = "by_way_of_a_string")]
    pub trace_mode: TraceMode,
    /// With `trace_mode` "auto": age of a submission up to which its attempts use its trace, 0 to 24h. Default: 5m.
    pub trace_parent_within: HumanDuration,
    /// Output of tasks that is exported as log records: "none", "stderr" or "all". Output can contain secrets.
    /// Default: "none".
    #[serde(deserialize_with = "by_way_of_a_string")]
    pub task_logs: TaskLogs,
    /// URL of a trace in a tracing system, with `{trace_id}` in the place of its ID, such as
    /// "https://jaeger.example.com/trace/{trace_id}". The dashboard links tasks to it. Default: "", no links.
    pub trace_url: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: SecretUrl::default(),
            protocol: OtlpProtocol::Auto,
            trace_mode: TraceMode::Auto,
            trace_parent_within: HumanDuration(Duration::from_mins(5)),
            task_logs: TaskLogs::None,
            trace_url: String::new(),
        }
    }
}

impl Telemetry {
    pub(super) fn check(&self, problems: &mut Problems) {
        let endpoint = self.endpoint.reveal();
        check_not_masked("telemetry.endpoint", Some(&self.endpoint), problems);
        if !endpoint.is_empty() && !is_endpoint(endpoint) {
            problems.add(
                "telemetry.endpoint",
                format!("{:?}", self.endpoint),
                "must be http://host:port or https://host:port",
            );
        }
        let is_http = ["http://", "https://"].iter().any(|scheme| self.trace_url.starts_with(scheme));
        let is_valid = is_http && self.trace_url.contains("{trace_id}");
        if !(is_valid || self.trace_url.is_empty()) {
            problems.add(
                "telemetry.trace_url",
                format!("{:?}", SecretUrl::from(&*self.trace_url)),
                "must begin with http:// or https:// and contain {trace_id}",
            );
        }
        let day = Duration::from_hours(24);
        problems.check_range(
            "telemetry.trace_parent_within",
            self.trace_parent_within,
            HumanDuration::default(),
            HumanDuration(day),
        );
    }
}

/// Deserializes by way of a string: the error for an environment variable then lists the choices.
fn by_way_of_a_string<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_trace_has_a_place_for_its_id() {
        for (url, is_good) in [
            ("", true),
            ("https://jaeger.example.com/trace/{trace_id}", true),
            ("https://jaeger.example.com/", false),
            ("javascript:{trace_id}", false),
        ] {
            let mut problems = Problems::default();
            Telemetry { trace_url: url.to_owned(), ..Telemetry::default() }.check(&mut problems);
            let fields: Vec<_> = problems.0.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, if is_good { &[][..] } else { &["telemetry.trace_url"] }, "{url}");
        }
    }
}
