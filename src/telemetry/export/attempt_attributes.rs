//! Adds the trace to a log record, and the attempt on whose behalf it was written.

use std::time::Duration;

use opentelemetry::logs::{AnyValue, LogRecord as _};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};

use crate::telemetry::scope::{self, ActiveContext};

/// Runs before the exporting processor.
#[derive(Debug)]
pub(super) struct AttemptAttributes;

impl LogProcessor for AttemptAttributes {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        let Some(current) = scope::current() else { return };
        if let Some(span) = current.active_context().and_then(ActiveContext::span_context) {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
        }
        let Some(attempt) = current.attempt() else { return };
        let mut add = |key: &'static str, value: AnyValue| record.add_attribute(Key::from_static_str(key), value);
        add("lineshaft.task.id", attempt.task.to_string().into());
        add("lineshaft.attempt", i64::from(attempt.number).into());
        add("lineshaft.pool", attempt.pool.to_owned().into());
        add("lineshaft.worker", attempt.worker.to_owned().into());
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
