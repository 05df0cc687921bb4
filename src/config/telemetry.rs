//! `[telemetry]`: what the server tells a collector, beside what the `OTEL_*` variables say.

use std::time::Duration;

use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model;
use crate::telemetry::export::endpoint::{is_endpoint, without_secrets};
pub use crate::telemetry::task_log::TaskLogs;

use super::error::Problems;
use super::units::HumanDuration;

/// How OTLP is spoken.
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
    /// As `OTEL_EXPORTER_OTLP_PROTOCOL` has it; empty for no word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "",
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// How the run of a task hangs together with its submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceMode {
    /// In its trace while that is fresh; batches, and what begins later, in traces of their own.
    #[default]
    Auto,
    /// In its trace.
    Parent,
    /// In a trace of its own, with a link.
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

/// `[telemetry]`: what is exported over OTLP; the variables of OpenTelemetry win.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Collector, such as "http://localhost:4317". Default "": nothing is exported unless OTEL_* variables say so.
    pub endpoint: String,
    /// How it is spoken to: "grpc", "http/protobuf", or "auto" by its port. Default "auto".
    #[serde(deserialize_with = "by_way_of_a_string")]
    pub protocol: OtlpProtocol,
    /// Traces of runs: "parent", "link", or "auto". Default "auto".
    #[serde(deserialize_with = "by_way_of_a_string")]
    pub trace_mode: TraceMode,
    /// Age of a submission up to which "auto" keeps a run in its trace, 0 to 24 hours. Default 5m.
    pub trace_parent_within: HumanDuration,
    /// What tasks write, as log records: "none", "stderr", or "all"; their words may be secret. Default "none".
    #[serde(deserialize_with = "by_way_of_a_string")]
    pub task_logs: TaskLogs,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: OtlpProtocol::Auto,
            trace_mode: TraceMode::Auto,
            trace_parent_within: HumanDuration(Duration::from_mins(5)),
            task_logs: TaskLogs::None,
        }
    }
}

impl Telemetry {
    pub(super) fn check(&self, problems: &mut Problems) {
        if !self.endpoint.is_empty() && !is_endpoint(&self.endpoint) {
            let shown = format!("{:?}", without_secrets(&self.endpoint));
            problems.add("telemetry.endpoint", shown, "must be http://host:port or https://host:port");
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

/// Because a variable's own error would not list the choices.
fn by_way_of_a_string<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}
