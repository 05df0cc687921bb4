//! What an attempt tells about itself: its span, its scope for the log, its output as log records.

use std::sync::Arc;

use crate::model::{Change, Clock, Event, SystemClock, Timestamp, TraceContext};
use crate::runners::StopCause;
use crate::telemetry::metrics::Trace;
use crate::telemetry::scope::{AttemptName, Place, Scope};
use crate::telemetry::trace::{self, AttemptView, Span};

use super::attempt::Attempt;

/// Who runs an attempt, and under which span.
#[derive(Debug)]
pub(super) struct Begun {
    worker: Arc<str>,
    span: Option<Span>,
    /// Of the submission, when there is no span.
    place: Option<Place>,
}

impl Attempt {
    /// Notes who runs it, and begins its span when traces are exported.
    pub(super) fn begin_scope(self: &Arc<Self>, worker: &Arc<str>, at: Timestamp) -> Arc<dyn Scope> {
        let spec = self.spec();
        let span = trace::tracing().map(|tracing| {
            let view = AttemptView {
                task: &spec.id,
                options: &spec.options,
                number: self.number(),
                worker,
                eligible_at: self.eligible_at(),
                at,
            };
            tracing.process(&view, spec.extras().trace.as_ref())
        });
        let place = if span.is_none() { spec.extras().trace.clone().map(Place::new) } else { None };
        let begun = Begun { worker: worker.clone(), span, place };
        // Once: an attempt begins once.
        let _ = self.begun().set(begun);
        self.clone()
    }

    /// What the handler is told about its place in a trace.
    pub(super) fn handed_on(&self) -> Option<Arc<TraceContext>> {
        Some(self.place()?.context.clone())
    }

    /// The sampled place that a histogram may point to.
    pub(super) fn exemplar(&self) -> Option<Trace> {
        let context = self.place().map(|place| &place.context).or(self.spec().extras().trace.as_ref())?;
        Trace::sampled(context.trace_id, context.span_id, context.flags)
    }

    fn span(&self) -> Option<&Span> {
        self.begun().get()?.span.as_ref()
    }

    /// Notes in its span that it was told to stop.
    pub(super) fn note_stop(&self, cause: StopCause) {
        if let Some(span) = self.span() {
            let cause = match cause {
                StopCause::Timeout => "timeout",
                StopCause::Drain => "drain",
                StopCause::Cancel => "cancel",
                StopCause::Force => "force",
            };
            span.stop_requested(cause, SystemClock.now());
        }
    }

    /// It has ended, and this is what became of its task; `None`: a later attempt has taken its place.
    pub fn settle(&self, event: Option<&Event>) {
        if let Some(span) = self.span() {
            span.end_process(event);
        }
        let Some(event) = event else { return };
        let Some(AttemptName { task, number, pool, worker }) = self.attempt() else { return };
        // Reasons only: a message may show a part of the payload.
        match &event.change {
            Change::Failed { failure, .. } => {
                let (reason, exit_code) = (failure.reason.name(), failure.exit_code);
                tracing::warn!(%task, attempt = number, pool, worker, reason, exit_code, "the task failed");
            }
            Change::Retrying { failure, .. } => {
                let (reason, exit_code) = (failure.reason.name(), failure.exit_code);
                tracing::info!(%task, attempt = number, pool, worker, reason, exit_code, "an attempt failed; another follows");
            }
            _ => {
                let state = event.state.name();
                tracing::debug!(%task, attempt = number, pool, worker, state, "an attempt ended");
            }
        }
    }
}

impl Scope for Attempt {
    fn place(&self) -> Option<&Place> {
        let begun = self.begun().get()?;
        begun.span.as_ref().map(Span::place).or(begun.place.as_ref())
    }

    fn attempt(&self) -> Option<AttemptName<'_>> {
        let spec = self.spec();
        Some(AttemptName {
            task: &spec.id,
            number: self.number(),
            pool: spec.options.pool.as_str(),
            worker: &self.begun().get()?.worker,
        })
    }
}
