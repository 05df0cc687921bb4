//! The variables of the specification, as they stand in the environment.
//!
//! An empty variable counts as unset; one that cannot be understood is ignored and reported, as the
//! specification demands.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::Temporality;
use percent_encoding::percent_decode_str;

use super::otlp::Otlp;
use super::words::{self, Words};
use super::{
    Batching, Destination, MetricRoute, QUEUE_MAX, RecordBounds, Route, Settings, Signal, SpanBounds, Variables,
    Zipkin, endpoint, entities, usual,
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
        exemplars: reader.meaning("OTEL_METRICS_EXEMPLAR_FILTER", words::EXEMPLAR_FILTERS).unwrap_or_default(),
        span_bounds: reader.span_bounds(),
        record_bounds: reader.record_bounds(),
        log_level: reader.meaning("OTEL_LOG_LEVEL", words::LOG_LEVELS),
        attributes: reader.attributes(),
        ..Settings::silent()
    };
    let otlp = Otlp { endpoint, protocol };
    let [traces, metrics, logs] = Signal::ALL.map(|signal| reader.exporters(signal, &otlp));
    let (spans, records) =
        (reader.batching("OTEL_BSP", usual::SPAN_DELAY), reader.batching("OTEL_BLRP", usual::RECORD_DELAY));
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
    pub fn new(variables: &'a Variables) -> Self {
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

    pub fn flag(&mut self, name: &str) -> bool {
        match self.word(name).as_deref() {
            Some("true") => true,
            None | Some("false") => false,
            Some(_) => {
                self.ignore(name, "expected true or false");
                false
            }
        }
    }

    /// What one of these words stands for.
    pub fn meaning<T: Copy>(&mut self, name: &str, words: &Words<T>) -> Option<T> {
        let found = words::meaning(&self.word(name)?, words);
        found.map_err(|why| self.ignore(name, why)).ok()
    }

    fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let said = self.text(name)?;
        let found = said.parse().ok().filter(|number| range.contains(number));
        if found.is_none() {
            let too_large = said.bytes().all(|byte| byte.is_ascii_digit()) && said.bytes().any(|byte| byte != b'0');
            let why = expected(&range, too_large);
            self.ignore(name, why);
        }
        found
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        self.number(name, 0..=u64::MAX).map(usual::millis)
    }

    /// As [`Reader::millis`], and 0 is no limit.
    pub fn timeout(&mut self, name: &str) -> Option<Duration> {
        self.number(name, 0..=u64::MAX).map(usual::timeout)
    }

    fn batching(&mut self, prefix: &str, delay: Duration) -> Batching {
        let name = format!("{prefix}_MAX_QUEUE_SIZE");
        let queue_max = self.number(&name, 1..=u64::MAX);
        if queue_max.is_some_and(|said| said > QUEUE_MAX) {
            self.warn(format!("{name} is more than a queue may hold: it holds {QUEUE_MAX}"));
        }
        let queue_max = queue_max.map_or(usual::QUEUE, |said| usual::size(said.min(QUEUE_MAX)));
        let batch_max = self.number(&format!("{prefix}_MAX_EXPORT_BATCH_SIZE"), 1..=u64::MAX);
        let batch_max = batch_max.map_or(usual::BATCH, usual::size);
        Batching {
            delay: self.millis(&format!("{prefix}_SCHEDULE_DELAY")).unwrap_or(delay),
            timeout: self.timeout(&format!("{prefix}_EXPORT_TIMEOUT")).unwrap_or(usual::BATCH_TIMEOUT),
            queue_max,
            batch_max: batch_max.min(queue_max),
        }
    }

    fn count(&mut self, name: &str) -> Option<u32> {
        self.number(name, 0..=u64::MAX).map(usual::count)
    }

    fn size(&mut self, name: &str) -> Option<usize> {
        self.number(name, 0..=u64::MAX).map(usual::size)
    }

    fn span_bounds(&mut self) -> SpanBounds {
        let attributes = self.count("OTEL_ATTRIBUTE_COUNT_LIMIT");
        let value_length = self.size("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        SpanBounds {
            attributes: self.count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            events: self.count("OTEL_SPAN_EVENT_COUNT_LIMIT"),
            links: self.count("OTEL_SPAN_LINK_COUNT_LIMIT"),
            event_attributes: self.count("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            link_attributes: self.count("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            value_length: self.size("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT").or(value_length),
        }
    }

    fn record_bounds(&mut self) -> RecordBounds {
        let attributes = self.size("OTEL_ATTRIBUTE_COUNT_LIMIT");
        let value_length = self.size("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        RecordBounds {
            attributes: self.size("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT").or(attributes),
            value_length: self.size("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT").or(value_length),
        }
    }

    /// Without a word about exporters, a signal goes to the collector that is named.
    fn exporters(&mut self, signal: Signal, otlp: &Otlp<'_>) -> Exporters {
        let name = format!("OTEL_{}_EXPORTER", signal.name().to_ascii_uppercase());
        self.listed_exporters(&name, signal, otlp).unwrap_or_else(|| Exporters {
            to: otlp.named(self, signal).map(Destination::Collector).into_iter().collect(),
            ..Exporters::default()
        })
    }

    /// `None` when the variable names none that is known.
    fn listed_exporters(&mut self, name: &str, signal: Signal, otlp: &Otlp<'_>) -> Option<Exporters> {
        let listed = self.word(name)?;
        let (mut found, mut known, mut unknown) = (Exporters::default(), false, Vec::new());
        for exporter in listed.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match (exporter, signal) {
                ("otlp", _) => {
                    otlp.named_or_usual(self, signal).into_iter().for_each(|to| found.add(Destination::Collector(to)));
                }
                ("otlp/stdout", _) | ("console", Signal::Traces | Signal::Metrics) => {
                    found.add(Destination::Lines(None));
                }
                // The log is on standard output as it is.
                ("none", _) | ("console", Signal::Logs) => {}
                ("zipkin", Signal::Traces) => found.zipkin = true,
                ("prometheus", Signal::Metrics) => found.prometheus = true,
                (other, _) => {
                    unknown.push(format!("{other:?}"));
                    continue;
                }
            }
            known = true;
        }
        if !known || !unknown.is_empty() {
            let own = ["zipkin, ", "prometheus, ", ""][signal as usize];
            let those = format_args!("those are otlp, {own}console, otlp/stdout and none");
            let part = if known { "a part of " } else { "" };
            let what = if unknown.is_empty() {
                "it names no exporter".to_owned()
            } else {
                unknown.join(", ") + " is not known"
            };
            self.warn(format!("{part}{name} is ignored: {what}; {those}"));
        }
        known.then_some(found)
    }

    /// Where nobody has named a place, the one on this machine.
    fn zipkin(&mut self, wanted: bool, batching: Batching) -> Option<Zipkin> {
        let name = "OTEL_EXPORTER_ZIPKIN_ENDPOINT";
        let endpoint = self.text(name).unwrap_or(usual::ZIPKIN).to_owned();
        let usable = endpoint::is_endpoint(&endpoint);
        if !usable {
            self.ignore(name, endpoint::EXPECTED);
        }
        let timeout = self.timeout("OTEL_EXPORTER_ZIPKIN_TIMEOUT").unwrap_or(usual::CALL_TIMEOUT);
        (wanted && usable).then_some(Zipkin { endpoint, timeout, batching })
    }

    fn prometheus(&mut self, wanted: bool) -> Option<(String, u16)> {
        let host = self.text("OTEL_EXPORTER_PROMETHEUS_HOST").map(str::to_owned);
        let port = self.number("OTEL_EXPORTER_PROMETHEUS_PORT", 0..=u16::MAX.into());
        wanted.then(|| usual::prometheus(host, port))
    }

    fn metric_routes(&mut self, to: Vec<Destination>) -> Vec<MetricRoute> {
        let interval = self.number("OTEL_METRIC_EXPORT_INTERVAL", 1..=u64::MAX);
        let interval = interval.map_or(usual::METRIC_INTERVAL, usual::millis);
        let timeout = self.timeout("OTEL_METRIC_EXPORT_TIMEOUT").unwrap_or(usual::BATCH_TIMEOUT);
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let temporality = self.meaning(name, words::TEMPORALITIES).unwrap_or(Temporality::Cumulative);
        let name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        let exponential = self.meaning(name, words::AGGREGATIONS).unwrap_or(false);
        to.into_iter().map(|to| MetricRoute { to, interval, timeout, temporality, exponential }).collect()
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
            self.ignore("OTEL_RESOURCE_ATTRIBUTES", PAIRS);
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

/// What [`pairs`] reads, for people.
pub(super) const PAIRS: &str = "expected percent-encoded key=value pairs with commas between them";

/// `key=value` pairs with commas between them, both percent-encoded; `None` when something else is among them.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        if key.is_empty() { None } else { Some((decoded(key)?, decoded(value.trim())?)) }
    };
    parts.map(pair).collect()
}

/// `None` when a `%` begins no byte, or the bytes are no text.
pub(super) fn decoded(text: &str) -> Option<String> {
    let is_byte = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    text.split('%').skip(1).all(is_byte).then(|| decoded.into_owned())
}

/// A whole number of this range, for people.
pub(super) fn expected(range: &RangeInclusive<u64>, too_large: bool) -> String {
    match (range.start(), range.end()) {
        (0, &u64::MAX) if !too_large => "expected a whole number that is not negative".to_owned(),
        (1, &u64::MAX) if !too_large => "expected a whole number above 0".to_owned(),
        (least, most) => format!("expected a whole number from {least} to {most}"),
    }
}
