//! The text for Prometheus: its own format, and OpenMetrics with exemplars.
//!
//! Written from the data of the SDK, because no library here writes exemplars.

use std::fmt::{Display, Write};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, HistogramDataPoint, Metric, MetricData, ResourceMetrics, ScopeMetrics,
};

use super::exemplar::{Exemplar, ExemplarStore, unix_seconds};
use super::table::{Kind, Row, TABLE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain",
            Self::OpenMetrics => "application/openmetrics-text",
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes all metrics, in the order of the table.
pub(super) fn write(found: &ResourceMetrics, exemplars: &ExemplarStore, format: Format) -> String {
    let mut writer = Writer { text: String::with_capacity(32 << 10), format, exemplars };
    writer.target(found.resource());
    for row in TABLE {
        let own = |metric: &&Metric| metric.name() == row.name;
        if let Some(metric) = found.scope_metrics().flat_map(ScopeMetrics::metrics).find(own) {
            writer.metric(row, metric);
        }
    }
    if format == Format::OpenMetrics {
        writer.text.push_str("# EOF\n");
    }
    writer.text
}

struct Writer<'a> {
    text: String,
    format: Format,
    exemplars: &'a ExemplarStore,
}

impl Writer<'_> {
    /// Writing to a string cannot fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    /// The resource, as attributes of a metric.
    fn target(&mut self, resource: &Resource) {
        let (name, kind) = match self.format {
            Format::Prometheus => ("target_info", "gauge"),
            Format::OpenMetrics => ("target", "info"),
        };
        self.line(format_args!("# HELP {name} The resource that is measured."));
        self.line(format_args!("# TYPE {name} {kind}"));
        let labels = Labels::named(resource.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect());
        self.line(format_args!("target_info{labels} 1"));
    }

    fn metric(&mut self, row: &'static Row, metric: &Metric) {
        match metric.data() {
            AggregatedMetrics::F64(data) => self.data(row, data),
            AggregatedMetrics::U64(data) => self.data(row, data),
            AggregatedMetrics::I64(data) => self.data(row, data),
        }
    }

    fn data<T: Display + Copy>(&mut self, row: &'static Row, data: &MetricData<T>) {
        self.head(row);
        let name = row.prometheus();
        match data {
            MetricData::Gauge(gauge) => {
                self.samples(&name, gauge.data_points().map(|point| (Labels::of(point.attributes()), point.value())));
            }
            MetricData::Sum(sum) => {
                self.samples(&name, sum.data_points().map(|point| (Labels::of(point.attributes()), point.value())));
            }
            MetricData::Histogram(histogram) => {
                let points = histogram.data_points().map(|point| (Labels::of(point.attributes()), point));
                let mut points: Vec<_> = points.collect();
                points.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                for (labels, point) in points {
                    self.histogram(row, &name, &labels, point);
                }
            }
            // For other readers only: this text has the buckets of the table.
            MetricData::ExponentialHistogram(_) => {}
        }
    }

    fn head(&mut self, row: &Row) {
        let name = match self.format {
            Format::Prometheus => row.prometheus(),
            Format::OpenMetrics => row.family(),
        };
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        self.line(format_args!("# HELP {name} {}", row.help));
        self.line(format_args!("# TYPE {name} {kind}"));
        let unit = match row.unit {
            "s" => "seconds",
            "By" => "bytes",
            _ => return,
        };
        if self.format == Format::OpenMetrics {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
    }

    /// Sorted by labels, so that two texts can be compared.
    fn samples(&mut self, name: &str, points: impl Iterator<Item = (Labels, impl Display)>) {
        let mut points: Vec<_> = points.collect();
        points.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (labels, value) in points {
            self.line(format_args!("{name}{labels} {value}"));
        }
    }

    fn histogram<T: Display + Copy>(
        &mut self,
        row: &'static Row,
        name: &str,
        labels: &Labels,
        point: &HistogramDataPoint<T>,
    ) {
        let exemplars = self.exemplars.find(row.name, point.attributes());
        let bounds = point.bounds().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
        let mut sum = 0;
        for (bucket, (bound, count)) in bounds.zip(point.bucket_counts()).enumerate() {
            sum += count;
            let labels = labels.with("le", &bound);
            let exemplar = exemplars.as_ref().filter(|_| self.format == Format::OpenMetrics);
            match exemplar.and_then(|exemplars| exemplars.of_bucket(bucket)) {
                Some(exemplar) => self.line(format_args!("{name}_bucket{labels} {sum} # {}", ExemplarText(exemplar))),
                None => self.line(format_args!("{name}_bucket{labels} {sum}")),
            }
        }
        self.line(format_args!("{name}_sum{labels} {}", point.sum()));
        self.line(format_args!("{name}_count{labels} {}", point.count()));
    }
}

struct ExemplarText(Exemplar);

impl Display for ExemplarText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Exemplar { span, value, at } = self.0;
        f.write_str("{")?;
        if let Some(span) = span {
            f.write_str("trace_id=\"")?;
            span.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("\",span_id=\"")?;
            span.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("\"")?;
        }
        write!(f, "}} {value} {:.3}", unix_seconds(at))
    }
}

/// Labels of one sample, as escaped text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Labels(String);

impl Labels {
    fn of<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> Self {
        Self::named(attributes.map(|kv| (kv.key.as_str(), kv.value.as_str().into_owned())).collect())
    }

    /// Values of attributes whose names become the same label are joined with `;`, as OpenTelemetry specifies.
    fn named(mut attributes: Vec<(&str, String)>) -> Self {
        attributes.sort_unstable();
        let mut by_label: Vec<(String, String)> = Vec::with_capacity(attributes.len());
        for (key, value) in attributes {
            let label = label_name(key);
            match by_label.iter_mut().find(|(known, _)| *known == label) {
                Some((_, values)) => *values = format!("{values};{value}"),
                None => by_label.push((label, value)),
            }
        }
        let mut labels = Self::default();
        for (label, value) in by_label {
            labels.add(&label, &value);
        }
        labels
    }

    fn with(&self, key: &str, value: &str) -> Self {
        let mut labels = self.clone();
        labels.add(key, value);
        labels
    }

    /// `label` is a valid name.
    fn add(&mut self, label: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(label);
        self.0.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }
}

/// The name of a label for an attribute. Prometheus allows letters, digits and underscores, and no digit at the beginning;
/// names that begin with two underscores are its own.
fn label_name(key: &str) -> String {
    let mut name: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with("__") || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "key_");
    }
    name
}

impl Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_valid_and_unique_whatever_the_attributes_are_called() {
        let labels = |attributes: &[(&'static str, &str)]| {
            Labels::named(attributes.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()).to_string()
        };
        assert_eq!(labels(&[("7up", "x"), ("a.b", "1"), ("a_b", "2")]), r#"{key_7up="x",a_b="1;2"}"#);
        assert_eq!(labels(&[("", "e"), ("__name__", "n"), ("\u{e4}", "u")]), r#"{key_="e",key___name__="n",_="u"}"#);
        assert_eq!(labels(&[("a b", "3"), ("a-b", "2"), ("a", "\"\n")]), r#"{a="\"\n",a_b="3;2"}"#);
    }
}
