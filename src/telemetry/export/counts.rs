//! Counts exported and lost spans, log records and metric exports.
//!
//! [`Bounded`] wraps a batch processor of the SDK and counts the items that do not fit into its queue;
//! [`Counted`] wraps an exporter and counts exported and failed items.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use parking_lot::Mutex;

use super::settings::Signal;

/// Exported, dropped and queued items of one signal since the start.
#[derive(Debug)]
pub struct Counts {
    pub signal: Signal,
    queued: AtomicU64,
    exported: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
    /// Cause of the last failed HTTP call; the OTLP library reports only "network error".
    http_error: Mutex<Option<String>>,
    /// What the collector rejected of the export under way, and why.
    rejected: Mutex<Option<(u64, String)>>,
}

/// One reading of [`Counts`]. Items are spans, log records, or exports of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accepted by the collector.
    pub exported: u64,
    pub queue_full: u64,
    /// Dropped because the export failed or timed out, or rejected by the collector.
    pub failed: u64,
}

impl Counts {
    pub(super) fn new(signal: Signal) -> Self {
        let zero = AtomicU64::default;
        let (http_error, rejected) = Default::default();
        Self { signal, queued: zero(), exported: zero(), queue_full: zero(), failed: zero(), http_error, rejected }
    }

    pub fn totals(&self) -> Totals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals { exported: read(&self.exported), queue_full: read(&self.queue_full), failed: read(&self.failed) }
    }

    /// Items that no export has taken yet.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Reserves a slot in a queue of `queue_max` items; counts the item as dropped if there is none.
    fn enqueue(&self, queue_max: u64) -> bool {
        if self.queued.fetch_add(1, Ordering::Relaxed) < queue_max {
            return true;
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        if self.queue_full.fetch_add(1, Ordering::Relaxed).is_multiple_of(1 << 16) {
            tracing::warn!(signal = self.signal.name(), "telemetry dropped: the export queue is full");
        }
        false
    }

    fn dequeue(&self, items: u64) {
        self.queued.fetch_sub(items, Ordering::Relaxed);
    }

    pub(super) fn set_http_error(&self, error: Option<String>) {
        *self.http_error.lock() = error;
    }

    /// `rejected`: spans, log records, or data points of metrics.
    pub(super) fn set_rejected(&self, rejected: u64, message: String) {
        *self.rejected.lock() = Some((rejected, message));
    }

    fn finish_export(&self, items: u64, result: &OTelSdkResult) {
        let rejected = self.rejected.lock().take();
        match result {
            Ok(()) => {
                let failed = rejected.map_or(0, |(rejected, message)| self.log_rejected(rejected, &message)).min(items);
                self.exported.fetch_add(items - failed, Ordering::Relaxed);
                self.failed.fetch_add(failed, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(items, Ordering::Relaxed);
                let error = self
                    .http_error
                    .lock()
                    .take()
                    .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
                tracing::warn!(signal = self.signal.name(), items, error, "telemetry dropped: the export failed");
            }
        }
    }

    fn log_rejected(&self, rejected: u64, message: &str) -> u64 {
        let signal = self.signal.name();
        if rejected == 0 {
            tracing::warn!(signal, message, "the collector accepted an export with a warning");
        } else {
            tracing::warn!(signal, rejected, error = message, "telemetry dropped: the collector rejected it");
        }
        rejected
    }
}

/// Methods that only call the same method of `self.inner`.
macro_rules! forward {
    ($($method:ident)+) => { $(forward!(@$method);)+ };
    (@force_flush) => {
        fn force_flush(&self) -> OTelSdkResult {
            self.inner.force_flush()
        }
    };
    (@shutdown_with_timeout) => {
        fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
            self.inner.shutdown_with_timeout(timeout)
        }
    };
    (@set_resource) => {
        fn set_resource(&mut self, resource: &Resource) {
            self.inner.set_resource(resource);
        }
    };
}

/// A processor that gets at most `queue_max` items that are not exported yet.
///
/// The batch processors of the SDK drop what exceeds their queue and do not report how much that is.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    inner: P,
    counts: Arc<Counts>,
    queue_max: u64,
}

impl<P> Bounded<P> {
    /// `queue_max` is the size of the queue of `inner`.
    pub fn new(inner: P, counts: Arc<Counts>, queue_max: usize) -> Self {
        Self { inner, counts, queue_max: queue_max as u64 }
    }
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.counts.enqueue(self.queue_max) {
            self.inner.on_end(span);
        }
    }

    forward!(force_flush shutdown_with_timeout set_resource);
}

impl<P: LogProcessor> LogProcessor for Bounded<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.counts.enqueue(self.queue_max) {
            self.inner.emit(record, scope);
        }
    }

    forward!(force_flush shutdown_with_timeout set_resource);
}

#[derive(Debug)]
pub(super) struct Counted<E> {
    inner: E,
    counts: Arc<Counts>,
}

impl<E> Counted<E> {
    pub fn new(inner: E, counts: Arc<Counts>) -> Self {
        Self { inner, counts }
    }

    fn finish(&self, items: u64, result: OTelSdkResult) -> OTelSdkResult {
        self.counts.finish_export(items, &result);
        result
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len() as u64;
        self.counts.dequeue(items);
        self.finish(items, self.inner.export(batch).await)
    }

    forward!(shutdown_with_timeout set_resource);
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count() as u64;
        self.counts.dequeue(items);
        self.finish(items, self.inner.export(batch).await)
    }

    forward!(shutdown_with_timeout set_resource);
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.finish(1, self.inner.export(metrics).await)
    }

    forward!(force_flush shutdown_with_timeout);

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};

    use super::*;

    /// Fails each export that it is released for.
    #[derive(Debug)]
    struct Failing(Mutex<std::sync::mpsc::Receiver<()>>);

    impl SpanExporter for Failing {
        async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
            // The test has ended if the sender is gone.
            let _ = self.0.lock().recv();
            Err(OTelSdkError::InternalFailure("refused".to_owned()))
        }
    }

    #[test]
    fn what_the_collector_rejects_is_not_exported() {
        let counts = Counts::new(Signal::Logs);
        counts.set_rejected(3, "too old".to_owned());
        counts.finish_export(5, &Ok(()));
        assert_eq!(counts.totals(), Totals { exported: 2, failed: 3, queue_full: 0 });
        counts.finish_export(5, &Ok(()));
        assert_eq!(counts.totals(), Totals { exported: 7, failed: 3, queue_full: 0 }, "only of that export");
        counts.set_rejected(0, "deprecated".to_owned());
        counts.finish_export(1, &Ok(()));
        // Data points of one export of metrics.
        counts.set_rejected(70, String::new());
        counts.finish_export(1, &Ok(()));
        assert_eq!(counts.totals(), Totals { exported: 8, failed: 4, queue_full: 0 });
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_at_once_and_failed_exports_are_counted() {
        let counts = Arc::new(Counts::new(Signal::Traces));
        let (release, released) = std::sync::mpsc::channel();
        let config = BatchConfigBuilder::default().with_max_queue_size(8).with_max_export_batch_size(4);
        let exporter = Counted::new(Failing(Mutex::new(released)), counts.clone());
        let batch = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
        let processor = Bounded::new(batch, counts.clone(), 8);
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("test");
        (0..4).for_each(|_| drop(tracer.start("first")));
        while counts.queued() > 0 {
            std::thread::yield_now();
        }
        // One batch is being exported and never ends; the queue takes eight more spans.
        (0..20).for_each(|_| drop(tracer.start("more")));
        assert_eq!(counts.totals(), Totals { queue_full: 12, ..Totals::default() });
        drop(release);
        assert!(provider.shutdown().is_ok());
        assert_eq!((counts.totals().failed, counts.queued()), (12, 0));
    }
}
