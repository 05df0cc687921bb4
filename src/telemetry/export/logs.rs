//! Log records, on their way into a batch.

use opentelemetry::logs::{AnyValue, LogRecord};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord, SdkLoggerProvider};

use super::batch::{self, Queue};
use crate::telemetry::scope::{self, Scope};

/// A record and who made it.
pub(super) type Record = (SdkLogRecord, InstrumentationScope);

/// Takes records into the queue.
pub(super) fn provider(queue: Queue<Record>, resource: Resource) -> SdkLoggerProvider {
    SdkLoggerProvider::builder().with_resource(resource).with_log_processor(Enqueue(queue)).build()
}

#[derive(Debug)]
struct Enqueue(Queue<Record>);

impl LogProcessor for Enqueue {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if let Some(current) = scope::current() {
            describe(record, &*current);
        }
        self.0.put((record.clone(), scope.clone()));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        // The owner of the runtime closes the queue.
        Ok(())
    }
}

/// Says on whose behalf the record was made.
fn describe(record: &mut SdkLogRecord, current: &dyn Scope) {
    if let Some(place) = current.place().filter(|place| place.context.has_span()) {
        let context = &place.context;
        let (trace, span) = (TraceId::from(context.trace_id), SpanId::from(context.span_id));
        record.set_trace_context(trace, span, Some(TraceFlags::new(context.flags)));
    }
    if let Some(attempt) = current.attempt() {
        let mut add = |key: &'static str, value: AnyValue| record.add_attribute(Key::from_static_str(key), value);
        add("lineshaft.task.id", attempt.task.to_string().into());
        add("lineshaft.attempt", i64::from(attempt.number).into());
        add("lineshaft.pool", attempt.pool.to_owned().into());
        add("lineshaft.worker", attempt.worker.to_owned().into());
    }
}

/// Sends batches of records.
pub(super) struct Sink {
    exporter: opentelemetry_otlp::LogExporter,
}

impl Sink {
    pub fn new(mut exporter: opentelemetry_otlp::LogExporter, resource: &Resource) -> Self {
        exporter.set_resource(resource);
        Self { exporter }
    }
}

impl batch::Sink<Record> for Sink {
    async fn send(&self, batch: Vec<Record>) -> OTelSdkResult {
        let borrowed: Vec<_> = batch.iter().map(|(record, scope)| (record, scope)).collect();
        self.exporter.export(LogBatch::new(&borrowed)).await
    }
}
