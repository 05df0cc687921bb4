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
    /// The best format that an `Accept` header allows.
    pub fn accepted(accept: &str) -> Self {
        let wants = |part: &str| {
            let mut parts = part.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
            named && parts.all(|parameter| parameter.replace(' ', "").trim_end_matches(['0', '.']) != "q=")
        };
        if accept.split(',').any(wants) { Self::OpenMetrics } else { Self::Prometheus }
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
        let mut labels = Labels::default();
        let mut all: Vec<_> = resource.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        all.sort_unstable();
        for (key, value) in all {
            labels.add(&key, &value);
        }
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
        let mut sorted: Vec<_> = attributes.map(|kv| (kv.key.as_str(), kv.value.as_str())).collect();
        sorted.sort_unstable();
        let mut labels = Self::default();
        for (key, value) in sorted {
            labels.add(key, &value);
        }
        labels
    }

    fn with(&self, key: &str, value: &str) -> Self {
        let mut labels = self.clone();
        labels.add(key, value);
        labels
    }

    fn add(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.extend(key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
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

impl Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}
