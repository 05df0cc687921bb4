//! What is exported where: everything that the variables of the OpenTelemetry specification can say.
//!
//! `variables` reads the environment, `otlp` those of its variables that name a collector, `entities` the one
//! that describes what runs here, `declarative` the file that may stand for all of them. `endpoint`, `usual` and
//! `words` are what they have in common. Variables win over `[telemetry]` of the configuration, one for a signal
//! over the one for all. Nothing is exported unless an endpoint or an exporter is named.

mod declarative;
mod endpoint;
mod entities;
mod otlp;
mod usual;
mod variables;
mod words;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::Temporality;
use tonic::codegen::http::HeaderMap;

use super::sampling::SamplerKind;
use crate::telemetry::propagation::Formats;

pub use endpoint::is_endpoint;

/// Variables of the environment.
pub type Variables = HashMap<String, String>;

/// What a queue of spans or log records may hold: more would be gigabytes when a collector is dead.
const QUEUE_MAX: u64 = 1 << 20;

/// One kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Points of instruments.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// For people and in paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protocol buffers over HTTP POST.
    Http,
    /// JSON over HTTP POST.
    HttpJson,
}

impl Protocol {
    /// As `OTEL_EXPORTER_OTLP_PROTOCOL` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
            Self::HttpJson => "http/json",
        }
    }
}

/// A collector, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How it is spoken.
    pub protocol: Protocol,
    /// With the path of the signal where that is HTTP.
    pub endpoint: String,
    /// Sent with every export; their values are marked as secrets.
    pub headers: HeaderMap,
    /// Exports are compressed with gzip.
    pub gzip: bool,
    /// Longest that one export may take, its repeats included.
    pub timeout: Duration,
    /// Authorities that the collector's certificate is checked against (PEM); the system's when unset.
    pub certificate: Option<PathBuf>,
    /// What this server shows the collector (PEM): certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where telemetry goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A collector.
    Collector(Target),
    /// Standard output, or a file that is added to: a JSON object of OTLP each line.
    Lines(Option<PathBuf>),
}

/// Spans or log records that go somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Destination,
    /// How many at a time.
    pub batching: Batching,
}

/// Points that go somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRoute {
    /// Where to.
    pub to: Destination,
    /// Time between two exports.
    pub interval: Duration,
    /// Longest that one export may take.
    pub timeout: Duration,
    /// Which points tell the change since the export before, and which the sum since the start.
    pub temporality: Temporality,
    /// Histograms have buckets that follow the values, not those of the table of metrics.
    pub exponential: bool,
}

/// Spans that go to Zipkin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zipkin {
    /// With its path.
    pub endpoint: String,
    /// Longest that one export may take.
    pub timeout: Duration,
    /// How many at a time.
    pub batching: Batching,
}

/// Bounds of a batch processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Longest wait before a batch that is not full is sent.
    pub delay: Duration,
    /// Longest that the export of one batch may take.
    pub timeout: Duration,
    /// What may wait; more is dropped and counted.
    pub queue_max: usize,
    /// Items of one export.
    pub batch_max: usize,
}

/// What the specification bounds in a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanBounds {
    /// Attributes of a span.
    pub attributes: Option<u32>,
    /// Events of a span.
    pub events: Option<u32>,
    /// Links of a span.
    pub links: Option<u32>,
    /// Attributes of an event.
    pub event_attributes: Option<u32>,
    /// Attributes of a link.
    pub link_attributes: Option<u32>,
    /// Characters of a text attribute.
    pub value_length: Option<usize>,
}

/// What the specification bounds in a log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordBounds {
    /// Attributes of a record.
    pub attributes: Option<usize>,
    /// Characters of a text attribute.
    pub value_length: Option<usize>,
}

/// Which measurements become exemplars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExemplarFilter {
    /// Those within a sampled trace.
    #[default]
    TraceBased,
    /// All; only those within a sampled trace lead to it.
    AlwaysOn,
    /// None: no place is kept for them, and nobody asks for their traces.
    AlwaysOff,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("OTEL_CONFIG_FILE: failed to read {path}: {source}")]
    Unreadable {
        /// Its path.
        path: String,
        /// What is wrong.
        source: std::io::Error,
    },
    /// Something in the file is not understood, or cannot be done here.
    #[error("OTEL_CONFIG_FILE: {path}: {reason}")]
    Malformed {
        /// Its path.
        path: String,
        /// Where in it, and what.
        reason: String,
    },
}

/// Everything that was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Nothing is counted, and nothing is sent anywhere.
    pub disabled: bool,
    /// Where spans go.
    pub traces: Vec<Route>,
    /// Where spans go besides.
    pub zipkin: Option<Zipkin>,
    /// Where points go.
    pub metrics: Vec<MetricRoute>,
    /// Host and port where `/metrics` is shown besides the server's own.
    pub prometheus: Option<(String, u16)>,
    /// Where log records go.
    pub logs: Vec<Route>,
    /// Which traces are recorded.
    pub sampler: SamplerKind,
    /// What travels.
    pub propagators: Formats,
    /// Which measurements lead to a trace.
    pub exemplars: ExemplarFilter,
    /// Bounds of spans.
    pub span_bounds: SpanBounds,
    /// Bounds of log records.
    pub record_bounds: RecordBounds,
    /// What is logged of the work of exporters: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<&'static str>,
    /// What is told about this process; a later one of the same key wins.
    pub attributes: Vec<KeyValue>,
    /// What could not be understood.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads the variables, or the file that one of them names. `endpoint` and `protocol` are those of the
    /// configuration, empty when unset.
    ///
    /// # Errors
    /// [`SettingsError`], for the file.
    pub fn read(from: &Variables, endpoint: &str, protocol: &str) -> Result<Self, SettingsError> {
        let reader = variables::Reader::new(from);
        match reader.text("OTEL_CONFIG_FILE").or_else(|| reader.text("OTEL_EXPERIMENTAL_CONFIG_FILE")) {
            Some(path) => declarative::read(path, from),
            None => Ok(variables::read(from, endpoint, protocol)),
        }
    }

    /// Nothing is sent anywhere, and nothing travels.
    fn silent() -> Self {
        Self {
            disabled: false,
            traces: Vec::new(),
            zipkin: None,
            metrics: Vec::new(),
            prometheus: None,
            logs: Vec::new(),
            sampler: SamplerKind::default(),
            propagators: Formats::of([]),
            exemplars: ExemplarFilter::default(),
            span_bounds: SpanBounds::default(),
            record_bounds: RecordBounds::default(),
            log_level: None,
            attributes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Whether nothing is sent anywhere.
    pub fn is_silent(&self) -> bool {
        self.traces.is_empty() && self.zipkin.is_none() && self.metrics.is_empty() && self.logs.is_empty()
    }

    /// Where a signal goes.
    pub fn destinations(&self, signal: Signal) -> Vec<&Destination> {
        match signal {
            Signal::Traces => self.traces.iter().map(|route| &route.to).collect(),
            Signal::Metrics => self.metrics.iter().map(|route| &route.to).collect(),
            Signal::Logs => self.logs.iter().map(|route| &route.to).collect(),
        }
    }

    /// The collectors that a signal goes to.
    pub fn targets(&self, signal: Signal) -> impl Iterator<Item = &Target> {
        self.destinations(signal).into_iter().filter_map(|destination| match destination {
            Destination::Collector(target) => Some(target),
            Destination::Lines(_) => None,
        })
    }
}

#[cfg(test)]
mod tests;
