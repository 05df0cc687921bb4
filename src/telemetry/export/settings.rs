//! What is exported where, from the variables of the OpenTelemetry specification.
//!
//! Variables win over `[telemetry]` of the configuration, one for a signal over the one for all. An
//! empty variable counts as unset; one that cannot be understood is ignored and reported, as the
//! specification demands. Nothing is exported unless an endpoint or an exporter is named.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::sampling::SamplerKind;
use crate::telemetry::propagation::{Format, Formats};

/// Variables of the environment.
pub type Variables = HashMap<String, String>;

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

    const fn infix(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
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
}

/// Where one signal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How it is spoken.
    pub protocol: Protocol,
    /// With the path of the signal where that is HTTP.
    pub endpoint: String,
    /// Longest that one export may take, its repeats included.
    pub timeout: Duration,
    /// Authorities that the collector's certificate is checked against (PEM); the system's when unset.
    pub certificate: Option<PathBuf>,
    /// What this server shows the collector (PEM): certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
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
    /// Characters of a text attribute of a span.
    pub value_length: Option<usize>,
}

/// Everything that was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where spans go, if anywhere.
    pub traces: Option<Target>,
    /// Where points go, if anywhere.
    pub metrics: Option<Target>,
    /// Where log records go, if anywhere.
    pub logs: Option<Target>,
    /// Which traces are recorded.
    pub sampler: SamplerKind,
    /// What travels.
    pub propagators: Formats,
    /// Batches of spans.
    pub span_batches: Batching,
    /// Bounds of spans.
    pub span_bounds: SpanBounds,
    /// Batches of log records.
    pub log_batches: Batching,
    /// Time between two exports of metrics.
    pub metric_interval: Duration,
    /// Longest that one export of metrics may take.
    pub metric_timeout: Duration,
    /// Points tell the change since the export before, where that is possible.
    pub metric_deltas: bool,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub attributes: Vec<(String, String)>,
    /// What could not be understood.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Where a signal goes.
    pub fn target(&self, signal: Signal) -> Option<&Target> {
        match signal {
            Signal::Traces => self.traces.as_ref(),
            Signal::Metrics => self.metrics.as_ref(),
            Signal::Logs => self.logs.as_ref(),
        }
    }

    /// Reads the variables; `endpoint` and `protocol` are those of the configuration, empty when unset.
    pub fn read(variables: impl Iterator<Item = (String, String)>, endpoint: &str, protocol: &str) -> Self {
        let mut reader = Reader::new(variables);
        let disabled = reader.flag("OTEL_SDK_DISABLED");
        let mut target = |signal| reader.target(signal, endpoint, protocol).filter(|_| !disabled);
        let (traces, metrics, logs) = (target(Signal::Traces), target(Signal::Metrics), target(Signal::Logs));
        reader.note_unsupported();
        Self {
            traces,
            metrics,
            logs,
            sampler: reader.sampler(),
            propagators: reader.propagators(),
            span_batches: reader.batching("OTEL_BSP", 5_000),
            log_batches: reader.batching("OTEL_BLRP", 1_000),
            span_bounds: reader.span_bounds(),
            metric_interval: reader.millis("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(Duration::from_mins(1)),
            metric_timeout: reader.millis("OTEL_METRIC_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30)),
            metric_deltas: reader.deltas(),
            service_name: reader.text("OTEL_SERVICE_NAME").map(str::to_owned),
            attributes: reader.attributes(),
            warnings: reader.warnings,
        }
    }
}

/// Variables, and what was wrong with them.
struct Reader {
    variables: HashMap<String, String>,
    warnings: Vec<String>,
}

impl Reader {
    fn new(variables: impl Iterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): &(String, String)| name.starts_with("OTEL_") && !value.trim().is_empty();
        Self { variables: variables.filter(ours).collect(), warnings: Vec::new() }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim())
    }

    /// The variable of a signal, or the one for all of them: its name and value.
    fn of_signal(&self, signal: Signal, rest: &str) -> Option<(String, &str)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{rest}", signal.infix());
        let all = format!("OTEL_EXPORTER_OTLP_{rest}");
        [own, all].into_iter().find_map(|name| self.text(&name).map(|value| (name.clone(), value)))
    }

    fn ignore(&mut self, name: &str, why: impl Display) {
        // Not the value: it may hold a secret, such as a header or a URL with a password.
        self.warn(format!("{name} is ignored: {why}"));
    }

    /// Once, although three signals ask.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            Some("true") => true,
            None | Some("false") => false,
            Some(_) => {
                self.ignore(name, "expected true or false");
                false
            }
        }
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let parsed = self.text(name)?.parse().ok();
        if parsed.is_none() {
            self.ignore(name, "expected a whole number that is not negative");
        }
        parsed
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    fn batching(&mut self, prefix: &str, delay: u64) -> Batching {
        let queue_max = self.number(&format!("{prefix}_MAX_QUEUE_SIZE")).unwrap_or(2_048_usize).clamp(1, 1 << 20);
        let batch_max = self.number(&format!("{prefix}_MAX_EXPORT_BATCH_SIZE")).unwrap_or(512_usize);
        Batching {
            delay: self.millis(&format!("{prefix}_SCHEDULE_DELAY")).unwrap_or(Duration::from_millis(delay)),
            timeout: self.millis(&format!("{prefix}_EXPORT_TIMEOUT")).unwrap_or(Duration::from_secs(30)),
            queue_max,
            batch_max: batch_max.clamp(1, queue_max),
        }
    }

    fn span_bounds(&mut self) -> SpanBounds {
        let attributes = self.number("OTEL_ATTRIBUTE_COUNT_LIMIT");
        let value_length = self.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        SpanBounds {
            attributes: self.number("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            events: self.number("OTEL_SPAN_EVENT_COUNT_LIMIT"),
            links: self.number("OTEL_SPAN_LINK_COUNT_LIMIT"),
            event_attributes: self.number("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            link_attributes: self.number("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            value_length: self.number("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT").or(value_length),
        }
    }

    /// Whether a signal is exported over OTLP.
    fn wants(&mut self, signal: Signal, has_endpoint: bool) -> bool {
        let name = format!("OTEL_{}_EXPORTER", signal.infix());
        let Some(listed) = self.text(&name).map(str::to_owned) else { return has_endpoint };
        let mut wanted = false;
        for exporter in listed.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match exporter {
                "otlp" => wanted = true,
                "none" => {}
                // `/metrics` is always there, on the server's own port.
                "prometheus" if signal == Signal::Metrics => {}
                other => self.ignore(&name, format_args!("{other:?} is not supported; those are otlp and none")),
            }
        }
        wanted
    }

    fn target(&mut self, signal: Signal, endpoint: &str, protocol: &str) -> Option<Target> {
        let own = self.text(&format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.infix())).map(str::to_owned);
        let all = self.text("OTEL_EXPORTER_OTLP_ENDPOINT").or(Some(endpoint).filter(|text| !text.is_empty()));
        let all = all.map(str::to_owned);
        if !self.wants(signal, own.is_some() || all.is_some()) {
            return None;
        }
        self.check_what_the_library_reads(signal);
        let said = own.as_deref().or(all.as_deref());
        let protocol = self.protocol(signal, protocol, said);
        let endpoint = match (own, protocol) {
            // As it stands, the specification says.
            (Some(own), _) => own,
            (None, Protocol::Grpc) => all.unwrap_or_else(|| "http://localhost:4317".to_owned()),
            (None, Protocol::Http) => {
                let base = all.unwrap_or_else(|| "http://localhost:4318".to_owned());
                format!("{}/v1/{}", base.trim_end_matches('/'), signal.name())
            }
        };
        let endpoint = self.with_scheme(signal, endpoint, protocol);
        Some(Target {
            protocol,
            endpoint,
            timeout: self.timeout(signal),
            certificate: self.of_signal(signal, "CERTIFICATE").map(|(_, path)| path.into()),
            identity: self.identity(signal),
        })
    }

    /// The library leaves out what it cannot use, and says nothing.
    fn check_what_the_library_reads(&mut self, signal: Signal) {
        let found = |(name, value): (String, &str)| (name, value.to_owned());
        if let Some((name, value)) = self.of_signal(signal, "COMPRESSION").map(found)
            && !matches!(&*value, "gzip" | "none")
        {
            self.ignore(&name, "expected gzip or none");
        }
        if let Some((name, value)) = self.of_signal(signal, "HEADERS").map(found) {
            let is_key = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
            let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(key, _)| is_key(key.trim()));
            if !value.split_terminator(',').all(is_pair) {
                self.warn(format!("a part of {name} is ignored: expected key=value pairs with commas between them"));
            }
        }
    }

    /// Without a word, port 4317 is gRPC, and everything else HTTP.
    fn protocol(&mut self, signal: Signal, configured: &str, endpoint: Option<&str>) -> Protocol {
        let said = self.of_signal(signal, "PROTOCOL").map(|(name, value)| (name, value.to_owned()));
        if let Some((name, value)) = said {
            match value.as_str() {
                "grpc" => return Protocol::Grpc,
                "http/protobuf" => return Protocol::Http,
                _ => self.ignore(&name, "expected grpc or http/protobuf"),
            }
        }
        let usual = endpoint.is_some_and(|endpoint| endpoint.trim_end_matches('/').ends_with(":4317"));
        if configured == "grpc" || (configured.is_empty() && usual) { Protocol::Grpc } else { Protocol::Http }
    }

    /// gRPC endpoints may come without a scheme; then they are secure unless said otherwise.
    fn with_scheme(&mut self, signal: Signal, endpoint: String, protocol: Protocol) -> String {
        if endpoint.contains("://") {
            return endpoint;
        }
        let insecure = self.of_signal(signal, "INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        let plain = insecure || protocol == Protocol::Http;
        format!("{}://{endpoint}", if plain { "http" } else { "https" })
    }

    fn timeout(&mut self, signal: Signal) -> Duration {
        let usual = Duration::from_secs(10);
        let Some((name, value)) = self.of_signal(signal, "TIMEOUT").map(|(name, value)| (name, value.parse())) else {
            return usual;
        };
        if let Ok(millis @ 1..) = value {
            return Duration::from_millis(millis);
        }
        self.ignore(&name, "expected a whole number of milliseconds above 0");
        usual
    }

    fn identity(&mut self, signal: Signal) -> Option<(PathBuf, PathBuf)> {
        let path = |found: Option<(String, &str)>| found.map(|(_, path)| PathBuf::from(path));
        let certificate = path(self.of_signal(signal, "CLIENT_CERTIFICATE"));
        let key = path(self.of_signal(signal, "CLIENT_KEY"));
        match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                self.ignore("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "it and ..._CLIENT_KEY go together");
                None
            }
        }
    }

    fn sampler(&mut self) -> SamplerKind {
        let Some(name) = self.text("OTEL_TRACES_SAMPLER").map(str::to_owned) else { return SamplerKind::default() };
        let argument = self.text("OTEL_TRACES_SAMPLER_ARG").map(str::to_owned);
        let (kind, complaint) = SamplerKind::parse(&name, argument.as_deref());
        if let Some((variable, why)) = complaint {
            self.ignore(variable, why);
        }
        kind
    }

    fn propagators(&mut self) -> Formats {
        let name = "OTEL_PROPAGATORS";
        let Some((formats, unknown)) = self.text(name).map(Formats::parse) else { return Formats::default() };
        for other in unknown {
            let known = Format::ALL.map(Format::name).join(", ");
            self.ignore(name, format_args!("{other:?} is not supported; those are {known} and none"));
        }
        formats
    }

    fn deltas(&mut self) -> bool {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("cumulative") => false,
            Some("delta") => true,
            Some(_) => {
                self.ignore(name, "expected cumulative or delta");
                false
            }
        }
    }

    /// `key=value` pairs; values are percent-encoded.
    fn attributes(&mut self) -> Vec<(String, String)> {
        let Some(text) = self.text("OTEL_RESOURCE_ATTRIBUTES").map(str::to_owned) else { return Vec::new() };
        let mut found = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    found.push((decoded(key.trim()), decoded(value.trim())));
                }
                // All or nothing, the specification says.
                _ => {
                    self.ignore("OTEL_RESOURCE_ATTRIBUTES", "expected key=value pairs with commas between them");
                    return Vec::new();
                }
            }
        }
        found
    }

    /// What the specification knows and this server does not do.
    fn note_unsupported(&mut self) {
        let mut named: Vec<String> =
            self.variables.keys().filter(|name| unsupported(name).is_some()).cloned().collect();
        named.sort();
        for name in named {
            let usual = name == "OTEL_METRICS_EXEMPLAR_FILTER" && self.text(&name) == Some("trace_based");
            if let Some(why) = unsupported(&name).filter(|_| !usual) {
                self.ignore(&name, why);
            }
        }
    }
}

fn unsupported(name: &str) -> Option<&'static str> {
    Some(match name {
        "OTEL_CONFIG_FILE" | "OTEL_EXPERIMENTAL_CONFIG_FILE" => "files of the declarative configuration are not read",
        "OTEL_EXPORTER_PROMETHEUS_HOST" | "OTEL_EXPORTER_PROMETHEUS_PORT" => "/metrics is on the server's own port",
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION" => "every histogram has buckets of its own",
        "OTEL_LOG_LEVEL" => "the setting log.filter decides what is logged",
        "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT" | "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT" => {
            "log records are not bounded by it"
        }
        "OTEL_METRICS_EXEMPLAR_FILTER" => "exemplars are of sampled traces",
        "OTEL_EXPORTER_ZIPKIN_ENDPOINT" | "OTEL_EXPORTER_ZIPKIN_TIMEOUT" => "only OTLP is spoken",
        _ => return None,
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
