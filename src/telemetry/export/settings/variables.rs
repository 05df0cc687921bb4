//! The variables of the specification, as they stand in the environment.
//!
//! An empty variable counts as unset; one that cannot be understood is ignored and reported, as the
//! specification demands.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::Temporality;

use super::entities;
use super::otlp::Otlp;
use super::{
    Batching, Destination, ExemplarFilter, MetricRoute, NO_LIMIT, RecordBounds, Route, Settings, Signal, SpanBounds,
    Variables, Zipkin,
};
use crate::telemetry::export::sampling::SamplerKind;
use crate::telemetry::propagation::{Format, Formats};

/// Reads them all.
pub(super) fn read(from: &Variables, endpoint: &str, protocol: &str) -> Settings {
    let mut reader = Reader::new(from);
    let mut settings = Settings {
        disabled: reader.flag("OTEL_SDK_DISABLED"),
        sampler: reader.sampler(),
        propagators: reader.propagators(),
        exemplars: reader.exemplars(),
        span_bounds: reader.span_bounds(),
        record_bounds: reader.record_bounds(),
        log_level: reader.log_level(),
        attributes: reader.attributes(),
        ..Settings::silent()
    };
    let otlp = Otlp { endpoint, protocol };
    let [traces, metrics, logs] = Signal::ALL.map(|signal| reader.exporters(signal, &otlp));
    let (spans, records) = (reader.batching("OTEL_BSP", 5_000), reader.batching("OTEL_BLRP", 1_000));
    let (zipkin, prometheus) = (reader.zipkin(traces.zipkin, spans), reader.prometheus(metrics.prometheus));
    if !settings.disabled {
        let routes = |to: Vec<Destination>, batching| to.into_iter().map(|to| Route { to, batching }).collect();
        settings.traces = routes(traces.to, spans);
        settings.zipkin = zipkin;
        settings.metrics = reader.metric_routes(metrics.to);
        settings.prometheus = prometheus;
        settings.logs = routes(logs.to, records);
    }
    Settings { warnings: reader.warnings, ..settings }
}

/// What `OTEL_*_EXPORTER` names.
#[derive(Default)]
struct Exporters {
    to: Vec<Destination>,
    zipkin: bool,
    prometheus: bool,
}

/// Variables, and what was wrong with them.
pub(super) struct Reader<'a> {
    variables: &'a Variables,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(variables: &'a Variables) -> Self {
        Self { variables, warnings: Vec::new() }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// One word of a set; their case does not count.
    pub fn word(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_ascii_lowercase)
    }

    pub fn ignore(&mut self, name: &str, why: impl Display) {
        // Not the value: it may hold a secret, such as a header or a URL with a password.
        self.warn(format!("{name} is ignored: {why}"));
    }

    /// Once, although three signals ask.
    pub fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.word(name).as_deref() {
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

    fn positive(&mut self, name: &str) -> Option<usize> {
        let found = self.number(name)?;
        if found == 0 {
            self.ignore(name, "expected a whole number above 0");
        }
        (found > 0).then_some(found)
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    /// As [`Reader::millis`], and 0 is no limit.
    pub fn timeout(&mut self, name: &str) -> Option<Duration> {
        self.millis(name).map(|timeout| if timeout.is_zero() { NO_LIMIT } else { timeout })
    }

    fn batching(&mut self, prefix: &str, delay: u64) -> Batching {
        let queue_max = self.positive(&format!("{prefix}_MAX_QUEUE_SIZE")).unwrap_or(2_048).min(1 << 20);
        let batch_max = self.positive(&format!("{prefix}_MAX_EXPORT_BATCH_SIZE")).unwrap_or(512);
        Batching {
            delay: self.millis(&format!("{prefix}_SCHEDULE_DELAY")).unwrap_or(Duration::from_millis(delay)),
            timeout: self.timeout(&format!("{prefix}_EXPORT_TIMEOUT")).unwrap_or(Duration::from_secs(30)),
            queue_max,
            batch_max: batch_max.min(queue_max),
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

    fn record_bounds(&mut self) -> RecordBounds {
        let attributes = self.number("OTEL_ATTRIBUTE_COUNT_LIMIT");
        let value_length = self.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        RecordBounds {
            attributes: self.number("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            value_length: self.number("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT").or(value_length),
        }
    }

    /// Without a word about exporters, a signal goes to the collector that is named.
    fn exporters(&mut self, signal: Signal, otlp: &Otlp<'_>) -> Exporters {
        let name = format!("OTEL_{}_EXPORTER", signal.name().to_ascii_uppercase());
        let mut found = Exporters::default();
        let Some(listed) = self.word(&name) else {
            if otlp.has_endpoint(self, signal) {
                found.to.push(Destination::Collector(otlp.target(self, signal)));
            }
            return found;
        };
        for exporter in listed.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match (exporter, signal) {
                ("otlp", _) => found.add(Destination::Collector(otlp.target(self, signal))),
                ("otlp/stdout", _) | ("console", Signal::Traces | Signal::Metrics) => {
                    found.add(Destination::Lines(None));
                }
                // The log is on standard output as it is.
                ("none", _) | ("console", Signal::Logs) => {}
                ("zipkin", Signal::Traces) => found.zipkin = true,
                ("prometheus", Signal::Metrics) => found.prometheus = true,
                (other, _) => {
                    let own = ["zipkin, ", "prometheus, ", ""][signal as usize];
                    let known =
                        format_args!("{other:?} is not known; those are otlp, {own}console, otlp/stdout and none");
                    self.ignore(&name, known);
                }
            }
        }
        found
    }

    fn zipkin(&mut self, wanted: bool, batching: Batching) -> Option<Zipkin> {
        let endpoint = self.text("OTEL_EXPORTER_ZIPKIN_ENDPOINT").unwrap_or("http://localhost:9411/api/v2/spans");
        let endpoint = endpoint.to_owned();
        let timeout = self.timeout("OTEL_EXPORTER_ZIPKIN_TIMEOUT").unwrap_or(Duration::from_secs(10));
        wanted.then_some(Zipkin { endpoint, timeout, batching })
    }

    fn prometheus(&mut self, wanted: bool) -> Option<(String, u16)> {
        let host = self.text("OTEL_EXPORTER_PROMETHEUS_HOST").unwrap_or("localhost").to_owned();
        let port = self.number("OTEL_EXPORTER_PROMETHEUS_PORT").unwrap_or(9_464);
        wanted.then_some((host, port))
    }

    fn metric_routes(&mut self, to: Vec<Destination>) -> Vec<MetricRoute> {
        let interval = self.millis("OTEL_METRIC_EXPORT_INTERVAL").filter(|interval| !interval.is_zero());
        let interval = interval.unwrap_or(Duration::from_mins(1));
        let timeout = self.timeout("OTEL_METRIC_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30));
        let (temporality, exponential) = (self.temporality(), self.exponential());
        to.into_iter().map(|to| MetricRoute { to, interval, timeout, temporality, exponential }).collect()
    }

    fn temporality(&mut self) -> Temporality {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match self.word(name).as_deref() {
            None | Some("cumulative") => Temporality::Cumulative,
            Some("delta") => Temporality::Delta,
            Some("lowmemory") => Temporality::LowMemory,
            Some(_) => {
                self.ignore(name, "expected cumulative, delta or lowmemory");
                Temporality::Cumulative
            }
        }
    }

    fn exponential(&mut self) -> bool {
        let name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        match self.word(name).as_deref() {
            None | Some("explicit_bucket_histogram") => false,
            Some("base2_exponential_bucket_histogram") => true,
            Some(_) => {
                self.ignore(name, "expected explicit_bucket_histogram or base2_exponential_bucket_histogram");
                false
            }
        }
    }

    fn exemplars(&mut self) -> ExemplarFilter {
        let name = "OTEL_METRICS_EXEMPLAR_FILTER";
        match self.word(name).as_deref() {
            None | Some("trace_based") => ExemplarFilter::TraceBased,
            Some("always_on") => ExemplarFilter::AlwaysOn,
            Some("always_off") => ExemplarFilter::AlwaysOff,
            Some(_) => {
                self.ignore(name, "expected trace_based, always_on or always_off");
                ExemplarFilter::TraceBased
            }
        }
    }

    fn log_level(&mut self) -> Option<&'static str> {
        let known = ["error", "warn", "info", "debug", "trace"];
        let said = self.word("OTEL_LOG_LEVEL")?;
        let level = match said.as_str() {
            "none" | "off" => Some("off"),
            said => known.into_iter().find(|level| *level == said),
        };
        if level.is_none() {
            self.ignore("OTEL_LOG_LEVEL", "expected none, error, warn, info, debug or trace");
        }
        level
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
        let (found, unknown) = propagators_of(self.text("OTEL_PROPAGATORS").unwrap_or("tracecontext,baggage"));
        if let Some(why) = unknown {
            self.warn(format!("a part of OTEL_PROPAGATORS is ignored: {why}"));
        }
        found
    }

    /// The later ones win.
    fn attributes(&mut self) -> Vec<KeyValue> {
        let (entities, complaints) = entities::attributes(self.text("OTEL_ENTITIES").unwrap_or_default());
        for complaint in complaints {
            self.warn(format!("a part of OTEL_ENTITIES is ignored: {complaint}"));
        }
        let listed = self.text("OTEL_RESOURCE_ATTRIBUTES").map(pairs);
        let listed = listed.unwrap_or_else(|| Some(Vec::new())).unwrap_or_else(|| {
            // All or nothing, the specification says.
            self.ignore("OTEL_RESOURCE_ATTRIBUTES", "expected key=value pairs with commas between them");
            Vec::new()
        });
        let name = self.text("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name.to_owned()));
        entities.into_iter().chain(listed).chain(name).map(|(key, value)| KeyValue::new(key, value)).collect()
    }
}

impl Exporters {
    /// Once, although a list may name it twice.
    fn add(&mut self, to: Destination) {
        if !self.to.contains(&to) {
            self.to.push(to);
        }
    }
}

/// The propagators of a list, and what is wrong with it.
pub(super) fn propagators_of(listed: &str) -> (Formats, Option<String>) {
    let (found, unknown) = Formats::parse(listed);
    let why = || {
        let known = Format::ALL.map(Format::name).join(", ");
        format!("{:?} is not known; those are {known} and none", unknown.join(","))
    };
    let complaint = (!unknown.is_empty()).then(why);
    (found, complaint)
}

/// `key=value` pairs with commas between them, both percent-encoded; `None` when something else is among them.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        (!key.trim().is_empty()).then(|| (decoded(key.trim()), decoded(value.trim())))
    };
    parts.map(pair).collect()
}

pub(super) fn decoded(text: &str) -> String {
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
