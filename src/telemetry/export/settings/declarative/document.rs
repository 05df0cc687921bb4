//! The parts of the configuration model that this server has use for; any other is an error that names it.
//!
//! Names are those of the model's schema, version 1.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny};
use serde_json::Value;

/// A component that has no settings; it may be null.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plain {}

/// A whole number that is not negative. From a variable it comes as text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole(pub u64);

/// A number, which from a variable comes as text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub f64);

/// True or false, which from a variable comes as text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(pub bool);

/// True or false, as YAML writes it. What comes from a variable is text.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value.as_str() {
        Some(text) => text.to_ascii_lowercase().parse().ok(),
        None => value.as_bool(),
    }
}

/// A whole number, as YAML writes it: also hexadecimal or octal. What comes from a variable is text.
pub(super) fn whole(value: &Value) -> Option<i128> {
    let Some(text) = value.as_str() else {
        return value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    };
    let based = text.strip_prefix("0x").map(|digits| (digits, 16));
    match based.or_else(|| text.strip_prefix("0o").map(|digits| (digits, 8))) {
        // Digits and nothing else: no sign may stand there.
        Some((digits, base)) if digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) => {
            i128::from_str_radix(digits, base).ok()
        }
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// A number, as YAML writes it; not an endless one. What comes from a variable is text.
pub(super) fn number(value: &Value) -> Option<f64> {
    let Some(text) = value.as_str() else { return value.as_f64() };
    #[expect(clippy::cast_precision_loss, reason = "so does whoever writes so many digits")]
    let based = || whole(value).map(|number| number as f64);
    text.parse().ok().filter(|number: &f64| number.is_finite()).or_else(based)
}

/// What `read` makes of the value. An error does not show it: a variable may hold a secret.
fn lenient<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    read(&value).ok_or_else(|| D::Error::custom(format_args!("expected {expected}")))
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |value: &Value| whole(value)?.try_into().ok();
        lenient(deserializer, "a whole number that is not negative", read).map(Self)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient(deserializer, "a number", number).map(Self)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient(deserializer, "true or false", truth).map(Self)
    }
}

/// What stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub file_format: String,
    pub disabled: Option<Flag>,
    pub log_level: Option<String>,
    pub resource: Option<Resource>,
    pub attribute_limits: Option<Limits>,
    pub propagator: Option<Propagator>,
    pub tracer_provider: Option<TracerProvider>,
    pub meter_provider: Option<MeterProvider>,
    pub logger_provider: Option<LoggerProvider>,
}

impl Document {
    /// Fields that may stand at the top; there, the schema allows any other.
    pub const FIELDS: [&str; 9] = [
        "file_format",
        "disabled",
        "log_level",
        "resource",
        "attribute_limits",
        "propagator",
        "tracer_provider",
        "meter_provider",
        "logger_provider",
    ];
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub attributes: Option<Vec<Attribute>>,
    pub attributes_list: Option<String>,
    /// What can be found out is always told.
    #[serde(rename = "detection/development")]
    _detection: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attribute {
    pub name: String,
    pub value: Option<Value>,
    #[serde(rename = "type")]
    pub kind: Option<AttributeType>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AttributeType {
    #[default]
    String,
    Bool,
    Int,
    Double,
    StringArray,
    BoolArray,
    IntArray,
    DoubleArray,
}

/// Bounds of spans and of log records; the latter have only the first three.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "so the schema names them")]
pub(super) struct Limits {
    pub attribute_value_length_limit: Option<Whole>,
    pub attribute_count_limit: Option<Whole>,
    /// No attribute here has depth.
    #[serde(rename = "attribute_value_depth_limit")]
    _attribute_value_depth_limit: Option<Whole>,
    pub event_count_limit: Option<Whole>,
    pub link_count_limit: Option<Whole>,
    pub event_attribute_count_limit: Option<Whole>,
    pub link_attribute_count_limit: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Propagator {
    pub composite: Option<Vec<BTreeMap<String, Option<Plain>>>>,
    pub composite_list: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TracerProvider {
    pub processors: Vec<Processor>,
    pub limits: Option<Limits>,
    pub sampler: Option<Sampler>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoggerProvider {
    pub processors: Vec<Processor>,
    pub limits: Option<Limits>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Processor {
    Batch(Batch),
    Simple(Simple),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    pub schedule_delay: Option<Whole>,
    pub export_timeout: Option<Whole>,
    pub max_queue_size: Option<Whole>,
    pub max_export_batch_size: Option<Whole>,
    pub exporter: Exporter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Simple {
    pub exporter: Exporter,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Exporter {
    OtlpHttp(Option<Otlp>),
    OtlpGrpc(Option<Otlp>),
    #[serde(rename = "otlp_file/development")]
    OtlpFile(Option<OtlpFile>),
    Console(Option<Console>),
}

impl Exporter {
    /// As the schema names it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OtlpHttp(_) => "otlp_http",
            Self::OtlpGrpc(_) => "otlp_grpc",
            Self::OtlpFile(_) => "otlp_file/development",
            Self::Console(_) => "console",
        }
    }

    /// What it prefers of points: their temporality, and how histograms are made.
    pub fn preferences(&self) -> (Option<&str>, Option<&str>) {
        let (temporality, aggregation) = match self {
            Self::OtlpHttp(Some(said)) | Self::OtlpGrpc(Some(said)) => {
                (&said.temporality_preference, &said.default_histogram_aggregation)
            }
            Self::OtlpFile(Some(said)) => (&said.temporality_preference, &said.default_histogram_aggregation),
            Self::Console(Some(said)) => (&said.temporality_preference, &said.default_histogram_aggregation),
            Self::OtlpHttp(None) | Self::OtlpGrpc(None) | Self::OtlpFile(None) | Self::Console(None) => (&None, &None),
        };
        (temporality.as_deref(), aggregation.as_deref())
    }
}

/// An exporter over HTTP or gRPC, of points or of anything else.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    pub endpoint: Option<String>,
    pub tls: Option<Tls>,
    pub headers: Option<Vec<Header>>,
    pub headers_list: Option<String>,
    pub compression: Option<String>,
    pub timeout: Option<Whole>,
    /// Of HTTP.
    pub encoding: Option<String>,
    /// Of points.
    pub temporality_preference: Option<String>,
    /// Of points.
    pub default_histogram_aggregation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OtlpFile {
    pub output_stream: Option<String>,
    pub temporality_preference: Option<String>,
    pub default_histogram_aggregation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Console {
    pub temporality_preference: Option<String>,
    pub default_histogram_aggregation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub ca_file: Option<String>,
    pub key_file: Option<String>,
    pub cert_file: Option<String>,
    /// Of gRPC.
    pub insecure: Option<Flag>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub name: String,
    pub value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sampler {
    AlwaysOn(#[expect(dead_code, reason = "nothing is in it")] Option<Plain>),
    AlwaysOff(#[expect(dead_code, reason = "nothing is in it")] Option<Plain>),
    TraceIdRatioBased(Option<Ratio>),
    #[serde(rename = "probability/development")]
    Probability(Option<Ratio>),
    #[serde(rename = "jaeger_remote/development")]
    JaegerRemote(JaegerRemote),
    ParentBased(Option<Box<ParentBased>>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JaegerRemote {
    pub endpoint: String,
    pub interval: Option<Whole>,
    pub initial_sampler: Box<Sampler>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ratio {
    pub ratio: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParentBased {
    pub root: Option<Sampler>,
    pub remote_parent_sampled: Option<Sampler>,
    pub remote_parent_not_sampled: Option<Sampler>,
    pub local_parent_sampled: Option<Sampler>,
    pub local_parent_not_sampled: Option<Sampler>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MeterProvider {
    pub readers: Vec<Reader>,
    pub exemplar_filter: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reader {
    Periodic(Box<Periodic>),
    Pull(Pull),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Periodic {
    pub interval: Option<Whole>,
    pub timeout: Option<Whole>,
    pub exporter: Exporter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pull {
    pub exporter: PullExporter,
}

#[derive(Debug, Deserialize)]
pub(super) enum PullExporter {
    #[serde(rename = "prometheus/development")]
    Prometheus(Option<Prometheus>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prometheus {
    pub host: Option<String>,
    pub port: Option<Whole>,
}
