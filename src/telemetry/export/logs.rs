//! Log records, on their way into a batch.

use std::borrow::Cow;

use opentelemetry::logs::{AnyValue, LogRecord, Logger as _, LoggerProvider as _};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, LogProcessor, SdkLogRecord, SdkLogger, SdkLoggerProvider};

use super::batch::{self, Queue};
use super::settings::RecordBounds;
use crate::telemetry::scope::{self, Scope};

/// A record and who made it.
pub(super) type Record = (SdkLogRecord, InstrumentationScope);

/// Takes records into each of the queues.
pub(super) fn provider(queues: Vec<Queue<Record>>, bounds: RecordBounds, resource: Resource) -> SdkLoggerProvider {
    let blank = SdkLoggerProvider::builder().build().logger("");
    SdkLoggerProvider::builder().with_resource(resource).with_log_processor(Enqueue { queues, bounds, blank }).build()
}

#[derive(Debug)]
struct Enqueue {
    queues: Vec<Queue<Record>>,
    bounds: RecordBounds,
    /// Makes records without anything in them.
    blank: SdkLogger,
}

impl LogProcessor for Enqueue {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if let Some(current) = scope::current() {
            describe(record, &*current);
        }
        let record = bounded(record, self.bounds, &self.blank);
        for queue in &self.queues {
            queue.put((SdkLogRecord::clone(&record), scope.clone()));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        // The owner of the runtime closes the queue.
        Ok(())
    }
}

/// The record without what is too much of it. The library knows no bounds, and takes nothing out of a record.
fn bounded<'a>(record: &'a SdkLogRecord, bounds: RecordBounds, blank: &SdkLogger) -> Cow<'a, SdkLogRecord> {
    let count = bounds.attributes.unwrap_or(usize::MAX);
    let length = bounds.value_length.unwrap_or(usize::MAX);
    let short = |text: &str| text.char_indices().nth(length).map(|(end, _)| text[..end].to_owned());
    let long = |value: &AnyValue| matches!(value, AnyValue::String(text) if short(text.as_str()).is_some());
    if record.attributes_iter().take(count.saturating_add(1)).count() <= count
        && !record.attributes_iter().any(|(_, value)| long(value))
    {
        return Cow::Borrowed(record);
    }
    let mut bounded = blank.create_log_record();
    record.event_name().into_iter().for_each(|name| bounded.set_event_name(name));
    record.target().into_iter().for_each(|target| bounded.set_target(target.clone()));
    record.timestamp().into_iter().for_each(|at| bounded.set_timestamp(at));
    record.observed_timestamp().into_iter().for_each(|at| bounded.set_observed_timestamp(at));
    record.severity_text().into_iter().for_each(|text| bounded.set_severity_text(text));
    record.severity_number().into_iter().for_each(|number| bounded.set_severity_number(number));
    record.body().into_iter().for_each(|body| bounded.set_body(body.clone()));
    if let Some(context) = record.trace_context() {
        bounded.set_trace_context(context.trace_id, context.span_id, context.trace_flags);
    }
    for (key, value) in record.attributes_iter().take(count) {
        let value = match value {
            AnyValue::String(text) => short(text.as_str()).map_or_else(|| value.clone(), AnyValue::from),
            _ => value.clone(),
        };
        bounded.add_attribute(key.clone(), value);
    }
    Cow::Owned(bounded)
}

/// Says on whose behalf the record was made.
fn describe(record: &mut SdkLogRecord, current: &dyn Scope) {
    if let Some(place) = current.active_context().filter(|place| place.context.has_span()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_what_its_bounds_allow_and_all_else_that_it_has() {
        let blank = SdkLoggerProvider::builder().build().logger("");
        let mut record = blank.create_log_record();
        record.set_body("a body is not bounded".into());
        record.set_severity_text("WARN");
        record.set_trace_context(TraceId::from(7_u128), SpanId::from(9_u64), None);
        for (key, value) in [("a", "häuser"), ("b", "ok"), ("c", "gone")] {
            record.add_attribute(key, value);
        }
        let kept = bounded(&record, RecordBounds { attributes: Some(2), value_length: Some(3) }, &blank);
        let attributes: Vec<_> = kept.attributes_iter().cloned().collect();
        assert_eq!(attributes, [("a".into(), AnyValue::from("häu")), ("b".into(), AnyValue::from("ok"))]);
        assert_eq!((kept.body(), kept.severity_text()), (record.body(), Some("WARN")));
        assert_eq!(kept.trace_context().map(|context| context.span_id), Some(SpanId::from(9_u64)));
        assert!(matches!(bounded(&record, RecordBounds::default(), &blank), Cow::Borrowed(_)));
    }
}
