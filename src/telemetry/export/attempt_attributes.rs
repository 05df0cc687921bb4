//! Adds the attempt on whose behalf a log record was written to its attributes.

use std::time::Duration;

use opentelemetry::logs::{AnyValue, LogRecord as _};
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};

use crate::telemetry::scope;

/// Runs before the exporting processor; the SDK itself adds the trace context.
#[derive(Debug)]
pub(super) struct AttemptAttributes;

impl LogProcessor for AttemptAttributes {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        let Some(current) = scope::current() else { return };
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
