//! Metrics: one table, the instruments made from it, and how they are read.
//!
//! `table` declares, `instruments` makes, `tasks`, `attempts`, `pools`, `calls` and `host` count,
//! `exposition` shows them to Prometheus, `exemplar` leads from a bucket to a trace. OTLP and `/metrics`
//! read the same instruments. On the way of a task nobody waits and nothing is allocated: workers note in a
//! `ring` of their own, the scheduler adds up a commit, and the SDK is told later. What can be read from
//! elsewhere is read when somebody looks.

mod attempts;
mod calls;
mod exemplar;
mod exports;
mod exposition;
mod host;
mod instruments;
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
    InstrumentKind, ManualReader, MeterProviderBuilder, Pipeline, SdkMeterProvider, Temporality,
};

pub use attempts::{AttemptMeter, AttemptResult, PoolMeter};
pub use calls::{Call, CallMeter};
pub use exemplar::Trace;
pub use exposition::Format;
pub use host::DiskUse;
pub use pools::{PoolGauges, PoolReading, ServerGauges, WatchMeter};
pub use tasks::CommitMeter;

use instruments::Instruments;

/// Name of the instrumentation scope.
const SCOPE: &str = "lineshaft";

/// The server's metrics. Cheap to clone; all clones count into the same instruments.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    provider: SdkMeterProvider,
    reader: Option<Arc<ManualReader>>,
    instruments: Instruments,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("on", &self.is_on()).finish()
    }
}

/// Makes the instruments, with a reader for `/metrics` and those that `with_readers` adds, such as an
/// OTLP exporter's. They describe themselves by `resource`.
pub fn build(resource: Resource, with_readers: impl FnOnce(MeterProviderBuilder) -> MeterProviderBuilder) -> Metrics {
    let reader = Arc::new(ManualReader::builder().with_temporality(Temporality::Cumulative).build());
    let builder = SdkMeterProvider::builder().with_resource(resource).with_reader(Shown(reader.clone()));
    Metrics::new(with_readers(builder).build(), Some(reader))
}

impl Metrics {
    /// Counts nothing and shows nothing.
    pub fn off() -> Self {
        Self::new(SdkMeterProvider::builder().build(), None)
    }

    fn new(provider: SdkMeterProvider, reader: Option<Arc<ManualReader>>) -> Self {
        let instruments = Instruments::new(provider.meter(SCOPE));
        Self { shared: Arc::new(Shared { provider, reader, instruments }) }
    }

    /// To flush and shut down what was added by `with_readers`; do so off the runtime.
    pub fn provider(&self) -> &SdkMeterProvider {
        &self.shared.provider
    }

    fn is_on(&self) -> bool {
        self.shared.reader.is_some()
    }

    fn instruments(&self) -> &Instruments {
        &self.shared.instruments
    }

    /// Everything as text for Prometheus; `None` when metrics are off or have been shut down. Reads a
    /// few files: call it from a blocking context.
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
