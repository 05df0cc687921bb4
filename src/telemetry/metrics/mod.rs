//! Metrics: one table, the instruments made from it, and how they are read.
//!
//! `table` declares, `instruments` makes, `tasks`, `attempts`, `pools`, `calls` and `host` count,
//! `exposition` shows them to Prometheus, `page` does so for many at once, `exemplar` leads from a bucket to a trace. OTLP and `/metrics`
//! read the same counts. On the way of a task nobody waits and nothing is allocated: workers note in a
//! `ring` of their own, the scheduler adds up a commit, and the SDK is told later. What can be read from
//! elsewhere is read when somebody looks.

mod attempts;
mod calls;
mod exemplar;
mod exports;
mod exposition;
mod host;
mod instruments;
mod page;
mod pools;
mod ring;
pub mod table;
mod tasks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, ManualReader, MeterProviderBuilder, Pipeline, SdkMeterProvider, Stream,
    Temporality,
};

pub use attempts::{AttemptMeter, AttemptResult, PoolMeter};
pub use calls::{Call, CallMeter};
pub use exemplar::SampledSpan;
pub use exposition::Format;
pub use pools::{PoolReading, ServerGauges, WatchMeter};
pub use tasks::CommitMeter;

use super::export::settings::ExemplarFilter;
use instruments::Instruments;
use page::Pages;

/// Name of the instrumentation scope.
const SCOPE: &str = "lineshaft";

/// The server's metrics. Cheap to clone; all clones count into the same instruments.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    providers: Vec<SdkMeterProvider>,
    reader: Option<Arc<ManualReader>>,
    instruments: Instruments,
    pages: Pages,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("on", &self.is_on()).finish()
    }
}

/// How a reader wants its histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    /// In the buckets of the table.
    #[default]
    Buckets,
    /// In buckets that follow what was measured, with bounds at powers of two and between them.
    Exponential,
}

/// Metrics that are not made yet: who reads them besides `/metrics`, and what they keep.
///
/// The SDK chooses the aggregation for all readers of a provider. So those who want exponential histograms have
/// a second provider, in which every instrument is made once more; it is there only when somebody wants it.
#[must_use]
pub struct Builder {
    resource: Resource,
    exemplars: ExemplarFilter,
    shown: Arc<ManualReader>,
    buckets: MeterProviderBuilder,
    exponential: Option<MeterProviderBuilder>,
}

impl Builder {
    /// With a reader for `/metrics` only. The metrics describe themselves by `resource`.
    pub fn new(resource: Resource) -> Self {
        let shown = Arc::new(ManualReader::builder().with_temporality(Temporality::Cumulative).build());
        let buckets = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(Shown(shown.clone()));
        Self { resource, exemplars: ExemplarFilter::default(), shown, buckets, exponential: None }
    }

    /// Which measurements become exemplars.
    pub fn exemplars(mut self, filter: ExemplarFilter) -> Self {
        self.exemplars = filter;
        self
    }

    /// One more reader, such as an exporter's.
    pub fn reader(mut self, reader: impl MetricReader, histograms: Histograms) -> Self {
        match histograms {
            Histograms::Buckets => self.buckets = self.buckets.with_reader(reader),
            Histograms::Exponential => {
                let make = || SdkMeterProvider::builder().with_resource(self.resource.clone()).with_view(exponential);
                self.exponential = Some(self.exponential.unwrap_or_else(make).with_reader(reader));
            }
        }
        self
    }

    /// Makes the instruments.
    pub fn build(self) -> Metrics {
        let exponential = self.exponential.map(MeterProviderBuilder::build);
        Metrics::new(self.buckets.build(), exponential, Some(self.shown), self.exemplars)
    }
}

/// The view of those who want exponential histograms, with the figures of the specification.
fn exponential(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram {
        return None;
    }
    let aggregation = Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };
    Stream::builder().with_aggregation(aggregation).build().ok()
}

impl Metrics {
    /// Counts nothing and shows nothing.
    pub fn off() -> Self {
        Self::new(SdkMeterProvider::builder().build(), None, None, ExemplarFilter::AlwaysOff)
    }

    fn new(
        buckets: SdkMeterProvider,
        exponential: Option<SdkMeterProvider>,
        reader: Option<Arc<ManualReader>>,
        exemplars: ExemplarFilter,
    ) -> Self {
        let meter = |provider: &SdkMeterProvider| provider.meter(SCOPE);
        let instruments = Instruments::new(meter(&buckets), exponential.as_ref().map(meter), exemplars);
        let providers = [buckets].into_iter().chain(exponential).collect();
        Self { shared: Arc::new(Shared { providers, reader, instruments, pages: Pages::default() }) }
    }

    /// To flush and shut down all of them, for the readers that were added; do so off the runtime. One that waits
    /// for its collector should not keep the other waiting.
    pub fn providers(&self) -> &[SdkMeterProvider] {
        &self.shared.providers
    }

    fn is_on(&self) -> bool {
        self.shared.reader.is_some()
    }

    fn instruments(&self) -> &Instruments {
        &self.shared.instruments
    }

    /// Everything as text for Prometheus; `None` when metrics are off or have been shut down. Reads a
    /// few files: call it from a blocking context, or ask for a [`Metrics::page`].
    pub fn expose(&self, format: Format) -> Option<String> {
        let reader = self.shared.reader.as_ref()?;
        let mut found = ResourceMetrics::default();
        reader.collect(&mut found).ok()?;
        Some(exposition::write(&found, self.instruments().exemplars(), format))
    }
}

/// The reader behind `/metrics`, shared with whoever serves it.
#[derive(Debug)]
struct Shown(Arc<ManualReader>);

impl MetricReader for Shown {
    fn register_pipeline(&self, pipeline: std::sync::Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, found: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(found)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
