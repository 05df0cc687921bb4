//! The instruments of the server and their readers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, ManualReader, MeterProviderBuilder, Pipeline, SdkMeterProvider, Stream,
    Temporality,
};

use crate::telemetry::export::settings::ExemplarFilter;

use super::exposition::{self, Format};
use super::instruments::Instruments;
use super::page_cache::PageCache;

const SCOPE: &str = "lineshaft";

/// The server's metrics. Cheap to clone; all clones count into the same instruments.
#[derive(Clone)]
pub struct Metrics(Arc<Registry>);

struct Registry {
    providers: Vec<SdkMeterProvider>,
    reader: Option<Arc<ManualReader>>,
    instruments: Instruments,
    pages: PageCache,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("on", &self.is_on()).finish()
    }
}

/// Buckets of the histograms that a reader gets.
#[derive(Clone, Copy, Debug)]
pub enum Histograms {
    /// The buckets in the table of metrics.
    Buckets,
    /// At powers of two and between them, as fine as the values need.
    Exponential,
}

/// The SDK chooses the aggregation for all readers of a provider. So readers of exponential histograms get a second
/// provider with every instrument once more; it exists only if there is such a reader.
#[must_use]
pub struct Builder {
    resource: Resource,
    exemplars: ExemplarFilter,
    exposed: Arc<ManualReader>,
    buckets: MeterProviderBuilder,
    exponential: Option<MeterProviderBuilder>,
}

impl Builder {
    /// With the reader of `/metrics` only.
    pub fn new(resource: Resource) -> Self {
        let exposed = Arc::new(ManualReader::builder().with_temporality(Temporality::Cumulative).build());
        let reader = SharedReader(exposed.clone());
        let buckets = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader);
        Self { resource, exemplars: ExemplarFilter::default(), exposed, buckets, exponential: None }
    }

    pub fn exemplars(mut self, filter: ExemplarFilter) -> Self {
        self.exemplars = filter;
        self
    }

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

    pub fn build(self) -> Metrics {
        let exponential = self.exponential.map(MeterProviderBuilder::build);
        Metrics::new(self.buckets.build(), exponential, Some(self.exposed), self.exemplars)
    }
}

/// The view for exponential histograms, with the parameters of the specification.
fn exponential(instrument: &Instrument) -> Option<Stream> {
    if instrument.kind() != InstrumentKind::Histogram {
        return None;
    }
    let aggregation = Aggregation::Base2ExponentialHistogram { max_size: 160, max_scale: 20, record_min_max: true };
    Stream::builder().with_aggregation(aggregation).build().ok()
}

impl Metrics {
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
        Self(Arc::new(Registry { providers, reader, instruments, pages: PageCache::default() }))
    }

    /// The providers to shut down, each on its own thread, so that a provider that waits for its collector does not delay
    /// the other.
    pub fn providers(&self) -> &[SdkMeterProvider] {
        &self.0.providers
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.reader.is_some()
    }

    pub(super) fn instruments(&self) -> &Instruments {
        &self.0.instruments
    }

    /// All metrics as text for Prometheus; `None` if metrics are off or shut down. Reads a few files: call it where
    /// blocking is allowed, or use [`Metrics::page`].
    pub fn expose(&self, format: Format) -> Option<String> {
        let reader = self.0.reader.as_ref()?;
        let mut found = ResourceMetrics::default();
        reader.collect(&mut found).ok()?;
        Some(exposition::write(&found, self.instruments().exemplars(), format))
    }

    /// The text of [`Metrics::expose`], shared by all callers that wait at the same time.
    pub async fn page(&self, format: Format) -> Option<Bytes> {
        let metrics = self.clone();
        self.0.pages.get(format, move || metrics.expose(format)).await
    }
}

/// A reader that is shared between a provider and the caller.
#[derive(Debug)]
pub(super) struct SharedReader(pub Arc<ManualReader>);

impl MetricReader for SharedReader {
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
