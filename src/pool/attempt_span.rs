//! The trace span of one attempt, and the log line when the attempt ends.

use std::sync::Arc;

use crate::model::{TaskChange, TaskEvent, Timestamp, TraceContext};
use crate::runners::StopCause;
use crate::telemetry::scope::{ActiveContext, AttemptName};
use crate::telemetry::trace::{self, AttemptView, Span};

/// The worker of a started attempt and its position in a trace.
#[derive(Debug)]
pub(super) struct AttemptSpan {
    worker: Arc<str>,
    span: Option<Span>,
    /// The position of the submission, if the attempt has no span.
    submitted_at: Option<ActiveContext>,
}

impl AttemptSpan {
    /// Starts a span if traces are exported. `submitted` is the trace context of the submission.
    pub fn start(worker: &Arc<str>, view: &AttemptView<'_>, submitted: Option<&Arc<TraceContext>>) -> Self {
        let span = trace::tracer().map(|tracer| tracer.process(view, submitted));
        let submitted_at = if span.is_none() { submitted.cloned().map(ActiveContext::new) } else { None };
        Self { worker: worker.clone(), span, submitted_at }
    }

    /// Qualified name of the worker, such as `default/PoolWorker-3`.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    pub fn active_context(&self) -> Option<&ActiveContext> {
        self.span.as_ref().map(Span::active_context).or(self.submitted_at.as_ref())
    }

    pub fn stop_requested(&self, cause: StopCause, at: Timestamp) {
        if let Some(span) = &self.span {
            let cause = match cause {
                StopCause::Timeout => "timeout",
                StopCause::Drain => "drain",
                StopCause::Cancel => "cancel",
                StopCause::Force => "force",
            };
            span.stop_requested(cause, at);
        }
    }

    pub fn end(&self, event: Option<&TaskEvent>) {
        if let Some(span) = &self.span {
            span.end_process(event);
        }
    }
}

/// Logs how an attempt ended. Only reasons: a message may contain a part of the payload.
pub(super) fn log_end(attempt: &AttemptName<'_>, event: &TaskEvent) {
    let AttemptName { task, number, pool, worker } = attempt;
    match &event.change {
        TaskChange::Failed { failure, .. } => {
            let (reason, exit_code) = (failure.reason.name(), failure.exit_code);
            tracing::warn!(%task, attempt = number, pool, worker, reason, exit_code, "task failed");
        }
        TaskChange::Retrying { failure, .. } => {
            let (reason, exit_code) = (failure.reason.name(), failure.exit_code);
            tracing::info!(%task, attempt = number, pool, worker, reason, exit_code, "attempt failed, will be retried");
        }
        _ => {
            let state = event.state.name();
            tracing::debug!(%task, attempt = number, pool, worker, state, "attempt ended");
        }
    }
}
