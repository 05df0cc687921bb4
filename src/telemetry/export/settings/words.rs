//! Words that stand for something, in variables and in the file alike.

use opentelemetry_sdk::metrics::Temporality;

use super::{ExemplarFilter, Protocol};

/// Words, and what each stands for.
pub(super) type Words<T> = [(&'static str, T)];

/// Of points; the variable and the schema of the file write the last one differently.
pub(super) const TEMPORALITIES: &Words<Temporality> = &[
    ("cumulative", Temporality::Cumulative),
    ("delta", Temporality::Delta),
    ("lowmemory", Temporality::LowMemory),
    ("low_memory", Temporality::LowMemory),
];

/// Of histograms: whether their buckets follow the values.
pub(super) const AGGREGATIONS: &Words<bool> =
    &[("explicit_bucket_histogram", false), ("base2_exponential_bucket_histogram", true)];

/// Which measurements become exemplars.
pub(super) const EXEMPLAR_FILTERS: &Words<ExemplarFilter> = &[
    ("trace_based", ExemplarFilter::TraceBased),
    ("always_on", ExemplarFilter::AlwaysOn),
    ("always_off", ExemplarFilter::AlwaysOff),
];

/// Whether exports are compressed.
pub(super) const COMPRESSIONS: &Words<bool> = &[("gzip", true), ("none", false)];

/// How OTLP is spoken, in variables.
pub(super) const PROTOCOLS: &Words<Protocol> =
    &[("grpc", Protocol::Grpc), ("http/protobuf", Protocol::Http), ("http/json", Protocol::HttpJson)];

/// How OTLP is spoken over HTTP, in the file.
pub(super) const ENCODINGS: &Words<Protocol> = &[("protobuf", Protocol::Http), ("json", Protocol::HttpJson)];

/// What is logged of the export, in variables; `off` is what the log itself says for `none`.
pub(super) const LOG_LEVELS: &Words<&str> = &[
    ("none", "off"),
    ("off", "off"),
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

/// What a word stands for.
///
/// # Errors
/// The words that there are; not this one, which may be a secret.
pub(super) fn meaning<T: Copy>(word: &str, words: &Words<T>) -> Result<T, String> {
    let found = words.iter().find(|(known, _)| *known == word);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
        let (last, others) = known.split_last().unwrap_or((&"nothing", &[]));
        format!("expected {} or {last}", others.join(", "))
    })
}
