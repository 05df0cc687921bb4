//! What is exported and where, from `[telemetry]` and the `OTEL_*` variables.
//!
//! The SDK and the OTLP library read their own variables: sampler, batches, limits of spans, resource, headers,
//! compression, temporality. This file reads the rest: the exporters, the endpoint (to find out whether there is a
//! collector), its certificates, propagators, and a few variables that the SDK does not support.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::telemetry::propagation::Propagators;

use super::endpoint;

pub type Variables = HashMap<String, String>;

/// The variables of this process. Bytes that are not UTF-8 become U+FFFD; [`Settings`] ignores such values.
pub fn environment() -> Variables {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Variables of the specification that nothing here supports.
const UNSUPPORTED: &str = "OTEL_CONFIG_FILE OTEL_EXPERIMENTAL_CONFIG_FILE OTEL_ENTITIES \
    OTEL_EXPORTER_ZIPKIN_ENDPOINT OTEL_EXPORTER_ZIPKIN_TIMEOUT \
    OTEL_BSP_EXPORT_TIMEOUT OTEL_BLRP_EXPORT_TIMEOUT OTEL_METRIC_EXPORT_TIMEOUT \
    OTEL_ATTRIBUTE_COUNT_LIMIT OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT \
    OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT OTEL_LINK_ATTRIBUTE_COUNT_LIMIT \
    OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT";

/// Items that a queue of spans or log records may hold; more would be gigabytes when a collector is down.
const QUEUE: RangeInclusive<usize> = 1..=1 << 20;
const QUEUE_DEFAULT: usize = 2_048;
/// Milliseconds of the longest delay and timeout.
const NO_LIMIT: u64 = u32::MAX as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    /// Protocol buffers over HTTP POST.
    Http,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    pub protocol: Protocol,
    /// URL; over HTTP it includes the path of the signal.
    pub endpoint: String,
    /// The endpoint, unless a variable contains it: the exporter library reads the variables itself.
    pub endpoint_override: Option<String>,
    pub timeout: Duration,
    /// Authorities that may sign the collector's certificate (PEM); the system's when unset.
    pub certificate: Option<PathBuf>,
    /// Client certificate and key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Collector {
    pub fn is_secure(&self) -> bool {
        self.endpoint.starts_with("https://")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    pub collector: Option<Collector>,
    /// Standard output, for people.
    pub console: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExemplarFilter {
    /// Those in a sampled trace.
    #[default]
    TraceBased,
    AlwaysOn,
    AlwaysOff,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Nothing is counted or exported.
    pub disabled: bool,
    /// By [`Signal`].
    destinations: [Destinations; 3],
    /// Host and port of an additional listener for `/metrics`.
    pub prometheus: Option<(String, u16)>,
    pub propagators: Propagators,
    pub exemplars: ExemplarFilter,
    /// Exported histograms have exponential buckets instead of those of the table.
    pub exponential_histograms: bool,
    pub span_queue_max: usize,
    pub log_queue_max: usize,
    pub span_delay: Duration,
    pub log_delay: Duration,
    pub metric_interval: Duration,
    /// Level of the log of the export itself: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// One for each variable that is ignored.
    pub warnings: Vec<String>,
}

impl Settings {
    /// `endpoint` and `protocol` are those of the configuration, empty when unset. Variables win.
    pub fn read(variables: &Variables, endpoint: &str, protocol: &str) -> Self {
        let mut reader = Reader { variables, endpoint, protocol, warnings: Vec::new() };
        reader.check_library_values();
        let disabled = reader.flag("OTEL_SDK_DISABLED");
        let exporters = Signal::ALL.map(|signal| reader.exporters(signal));
        let to_prometheus = exporters.iter().any(|exporters| exporters.prometheus) && !disabled;
        let prometheus = Some(reader.prometheus()).filter(|_| to_prometheus);
        let settings = Self {
            disabled,
            destinations: exporters.map(|exporters| if disabled { Destinations::default() } else { exporters.to }),
            prometheus,
            propagators: reader.propagators(),
            exemplars: reader.choice("OTEL_METRICS_EXEMPLAR_FILTER", EXEMPLAR_FILTERS).unwrap_or_default(),
            exponential_histograms: reader.choice(HISTOGRAMS, AGGREGATIONS).unwrap_or(false),
            metric_interval: reader.interval("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            span_delay: reader.interval("OTEL_BSP_SCHEDULE_DELAY", 5_000),
            log_delay: reader.interval("OTEL_BLRP_SCHEDULE_DELAY", 1_000),
            span_queue_max: reader.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE).unwrap_or(QUEUE_DEFAULT),
            log_queue_max: reader.number("OTEL_BLRP_MAX_QUEUE_SIZE", QUEUE).unwrap_or(QUEUE_DEFAULT),
            log_level: reader.one_of("OTEL_LOG_LEVEL", LOG_LEVELS).map(|level| level.replace("none", "off")),
            warnings: Vec::new(),
        };
        reader.check_unsupported();
        Self { warnings: reader.warnings, ..settings }
    }

    pub fn destinations(&self, signal: Signal) -> &Destinations {
        &self.destinations[signal as usize]
    }

    pub fn is_silent(&self) -> bool {
        self.destinations.iter().all(|to| *to == Destinations::default())
    }
}

/// Values of a variable and what they stand for.
type Choices<T> = [(&'static str, T)];

const EXEMPLAR_FILTERS: &Choices<ExemplarFilter> = &[
    ("trace_based", ExemplarFilter::TraceBased),
    ("always_on", ExemplarFilter::AlwaysOn),
    ("always_off", ExemplarFilter::AlwaysOff),
];
const HISTOGRAMS: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
const AGGREGATIONS: &Choices<bool> =
    &[("explicit_bucket_histogram", false), ("base2_exponential_bucket_histogram", true)];
const PROTOCOLS: &Choices<Protocol> = &[("grpc", Protocol::Grpc), ("http/protobuf", Protocol::Http)];
const LOG_LEVELS: &str = "none off error warn info debug trace";
/// Values that the libraries support.
const SAMPLERS: &str = "always_on always_off traceidratio parentbased_always_on parentbased_always_off \
                        parentbased_traceidratio";
const TEMPORALITIES: &str = "cumulative delta lowmemory";
const COMPRESSIONS: &str = "gzip none";

#[derive(Default)]
struct Exporters {
    to: Destinations,
    prometheus: bool,
}

/// Reads variables and collects warnings. An empty variable counts as unset.
struct Reader<'a> {
    variables: &'a Variables,
    endpoint: &'a str,
    protocol: &'a str,
    warnings: Vec<String>,
}

/// The value of a variable without blanks around it; `None` if it is unset, empty or not UTF-8.
pub(super) fn text_of<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    let is_text = |value: &&str| !value.is_empty() && !value.contains(char::REPLACEMENT_CHARACTER);
    variables.get(name).map(|value| value.trim()).filter(is_text)
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        text_of(self.variables, name)
    }

    /// The warning never shows the value, which may be a secret. Three signals may give the same one.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn ignore(&mut self, name: &str, reason: impl Display) {
        self.warn(format!("{name} is ignored: {reason}"));
    }

    fn flag(&mut self, name: &str) -> bool {
        self.choice(name, &[("true", true), ("false", false)]).unwrap_or(false)
    }

    /// `values` are separated by spaces.
    fn one_of(&mut self, name: &str, values: &str) -> Option<String> {
        let value = self.text(name)?.to_ascii_lowercase();
        let value = Some(value).filter(|value| values.split(' ').any(|known| known == value));
        if value.is_none() {
            self.ignore(name, format_args!("expected one of {}", values.replace(' ', ", ")));
        }
        value
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &Choices<T>) -> Option<T> {
        let values: Vec<&str> = choices.iter().map(|(value, _)| *value).collect();
        let value = self.one_of(name, &values.join(" "))?;
        choices.iter().find(|(choice, _)| *choice == value).map(|(_, meaning)| *meaning)
    }

    fn number<T: FromStr + PartialOrd + Display>(&mut self, name: &str, range: RangeInclusive<T>) -> Option<T> {
        let found = self.text(name)?.parse().ok().filter(|number| range.contains(number));
        if found.is_none() {
            self.ignore(name, format_args!("expected a whole number from {} to {}", range.start(), range.end()));
        }
        found
    }

    /// In milliseconds. Without this check the SDK accepts 0, and then exports without a pause.
    fn interval(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, 1..=u64::MAX).unwrap_or(default).min(NO_LIMIT))
    }

    /// Warnings of the libraries about their variables do not reach the log.
    fn check_library_values(&mut self) {
        let is_broken = |(name, value): &(&String, &String)| {
            name.starts_with("OTEL_") && value.contains(char::REPLACEMENT_CHARACTER)
        };
        let mut broken: Vec<_> = self.variables.iter().filter(is_broken).map(|(name, _)| name).collect();
        broken.sort();
        for name in broken {
            self.ignore(name, "it is not valid UTF-8");
        }
        self.one_of("OTEL_TRACES_SAMPLER", SAMPLERS);
        self.one_of("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", TEMPORALITIES);
        for prefix in ["", "TRACES_", "METRICS_", "LOGS_"] {
            self.one_of(&format!("OTEL_EXPORTER_OTLP_{prefix}COMPRESSION"), COMPRESSIONS);
            self.number(&format!("OTEL_EXPORTER_OTLP_{prefix}TIMEOUT"), 0..=u64::MAX);
        }
        for name in ["SPAN_ATTRIBUTE_COUNT_LIMIT", "SPAN_EVENT_COUNT_LIMIT", "SPAN_LINK_COUNT_LIMIT"] {
            self.number(&format!("OTEL_{name}"), 0..=u32::MAX);
        }
        for prefix in ["BSP", "BLRP"] {
            self.number(&format!("OTEL_{prefix}_MAX_EXPORT_BATCH_SIZE"), 1..=usize::MAX);
        }
        let argument = self.text("OTEL_TRACES_SAMPLER_ARG").map(str::parse::<f64>);
        if argument.is_some_and(|ratio| !ratio.is_ok_and(|ratio| (0.0..=1.0).contains(&ratio))) {
            self.ignore("OTEL_TRACES_SAMPLER_ARG", "expected a number from 0 to 1");
        }
    }

    fn check_unsupported(&mut self) {
        let set: Vec<&str> = UNSUPPORTED.split(' ').filter(|name| self.text(name).is_some()).collect();
        if !set.is_empty() {
            self.warn(format!("these variables are not supported and have no effect: {}", set.join(", ")));
        }
    }

    fn propagators(&mut self) -> Propagators {
        let Some(list) = self.text("OTEL_PROPAGATORS") else { return Propagators::default() };
        let (found, unknown) = Propagators::parse(list);
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            self.warn(format!(
                "a part of OTEL_PROPAGATORS is ignored: {unknown:?} is not supported; expected tracecontext, baggage or none"
            ));
        }
        found
    }

    fn prometheus(&mut self) -> (String, u16) {
        let host = self.text("OTEL_EXPORTER_PROMETHEUS_HOST").unwrap_or("localhost").to_owned();
        (host, self.number("OTEL_EXPORTER_PROMETHEUS_PORT", 0..=u16::MAX).unwrap_or(9_464))
    }

    /// Without a supported name in `OTEL_*_EXPORTER`, a signal goes to the collector if one is named.
    fn exporters(&mut self, signal: Signal) -> Exporters {
        let name = format!("OTEL_{}_EXPORTER", signal.name().to_ascii_uppercase());
        let list = self.text(&name).map(str::to_ascii_lowercase).unwrap_or_default();
        let (mut found, mut supported, mut unknown) = (Exporters::default(), false, Vec::new());
        for exporter in list.split(',').map(str::trim).filter(|exporter| !exporter.is_empty()) {
            match (exporter, signal) {
                ("otlp", _) => found.to.collector = self.collector(signal, true),
                // The log is written to standard output anyway.
                ("none", _) | ("console", Signal::Logs) => {}
                ("console", _) => found.to.console = true,
                ("prometheus", Signal::Metrics) => found.prometheus = true,
                (other, _) => {
                    unknown.push(other);
                    continue;
                }
            }
            supported = true;
        }
        if !unknown.is_empty() {
            let prometheus = if signal == Signal::Metrics { "prometheus, " } else { "" };
            let (part, unknown) = (if supported { "a part of " } else { "" }, unknown.join(", "));
            self.warn(format!(
                "{part}{name} is ignored: {unknown:?} is not supported; expected otlp, console, {prometheus}or none"
            ));
        }
        if !supported {
            found.to.collector = self.collector(signal, false);
        }
        found
    }

    /// `by_default`: if no endpoint is named, the collector on this machine. `None` if the endpoint that is named
    /// cannot be used: telemetry for another machine does not go to this one.
    fn collector(&mut self, signal: Signal, by_default: bool) -> Option<Collector> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name().to_ascii_uppercase());
        let sources = [&own, "OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.endpoint"];
        let named = sources.into_iter().find_map(|source| {
            let configured = Some(self.endpoint).filter(|text| source == "telemetry.endpoint" && !text.is_empty());
            self.text(source).or(configured).map(|text| (source, text.to_owned()))
        });
        let protocol = self.of_signal(signal, "PROTOCOL").and_then(|(name, _)| self.choice(&name, PROTOCOLS));
        let protocol = protocol.unwrap_or(match (self.protocol, &named) {
            ("grpc", _) => Protocol::Grpc,
            ("", Some((_, text))) if endpoint::has_grpc_port(text) => Protocol::Grpc,
            _ => Protocol::Http,
        });
        let of_signal = |base: &str| match protocol {
            Protocol::Grpc => base.to_owned(),
            Protocol::Http => endpoint::with_signal_path(base, signal.name()),
        };
        let (endpoint, endpoint_override) = match named {
            None if !by_default => return None,
            None => {
                let port = if protocol == Protocol::Grpc { 4_317 } else { 4_318 };
                let endpoint = of_signal(&format!("http://localhost:{port}"));
                (endpoint.clone(), Some(endpoint))
            }
            Some((source, text)) => {
                let insecure = self.of_signal(signal, "INSECURE").is_some_and(|(name, _)| self.flag(&name));
                let with_scheme = match protocol {
                    Protocol::Grpc => endpoint::with_scheme(&text, insecure),
                    Protocol::Http => text,
                };
                if !endpoint::is_endpoint(&with_scheme) {
                    self.ignore(source, endpoint::EXPECTED);
                    return None;
                }
                // The endpoint of one signal is used unchanged.
                let endpoint = if source == own { with_scheme } else { of_signal(&with_scheme) };
                let configured = (source == "telemetry.endpoint").then(|| endpoint.clone());
                (endpoint, configured)
            }
        };
        let path = |reader: &Self, rest| reader.of_signal(signal, rest).map(|(_, path)| PathBuf::from(path));
        let timeout = self.of_signal(signal, "TIMEOUT").and_then(|(_, text)| text.parse().ok()).unwrap_or(10_000);
        Some(Collector {
            protocol,
            endpoint,
            endpoint_override,
            timeout: Duration::from_millis(if timeout == 0 { NO_LIMIT } else { timeout.min(NO_LIMIT) }),
            certificate: path(self, "CERTIFICATE"),
            identity: self.identity(path(self, "CLIENT_CERTIFICATE"), path(self, "CLIENT_KEY")),
        })
    }

    fn identity(&mut self, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Option<(PathBuf, PathBuf)> {
        if certificate.is_some() != key.is_some() {
            self.ignore(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                "it needs OTEL_EXPORTER_OTLP_CLIENT_KEY, and vice versa",
            );
        }
        certificate.zip(key)
    }

    /// The variable of one signal or the one for all: its name and value.
    fn of_signal(&self, signal: Signal, rest: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{rest}", signal.name().to_ascii_uppercase());
        let names = [own, format!("OTEL_EXPORTER_OTLP_{rest}")];
        names.into_iter().find_map(|name| self.text(&name).map(str::to_owned).map(|value| (name, value)))
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
