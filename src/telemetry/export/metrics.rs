//! An exporter of metrics that counts how its exports end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Counts;

/// Exports, and counts.
#[derive(Debug)]
pub struct CountedExporter {
    inner: MetricExporter,
    counts: Arc<Counts>,
    runtime: Handle,
    limit: Duration,
}

impl CountedExporter {
    /// No export takes longer than `limit`.
    pub(super) fn new(inner: MetricExporter, counts: Arc<Counts>, runtime: Handle, limit: Duration) -> Self {
        Self { inner, counts, runtime, limit }
    }
}

impl PushMetricExporter for CountedExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        // The reader drives this from a thread of its own, where a client of HTTP finds no runtime.
        let mut export = pin!(async { timeout(self.limit, self.inner.export(metrics)).await });
        let inside = poll_fn(|context| {
            let _inside = self.runtime.enter();
            export.as_mut().poll(context)
        });
        let result = inside.await.unwrap_or(Err(OTelSdkError::Timeout(self.limit)));
        self.counts.settle(1, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
