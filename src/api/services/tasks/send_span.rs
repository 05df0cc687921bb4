//! The `send` span of a submission. Its trace context is stored with the tasks, so that their runs refer to it.

use std::sync::Arc;

use crate::model::{Coded, TaskSpec, Timestamp, TraceContext, TraceMode};
use crate::scheduler::Refusal;
use crate::telemetry::scope;
use crate::telemetry::trace::{Span, tracer};

/// `None` inside if traces are not exported.
pub struct SendSpan(Option<Span>);

impl SendSpan {
    /// Starts the span of a submission. The runs of tasks that are submitted together get traces of their own unless
    /// the tasks or the configuration choose otherwise, because one trace with thousands of runs is unusable.
    pub fn start(specs: &mut [TaskSpec], at: Timestamp) -> Self {
        let (Some(tracer), Some(first)) = (tracer(), specs.first()) else { return Self(None) };
        let parent = scope::current_context();
        let span = tracer.send(&first.id, &first.options, specs.len(), parent.as_ref());
        let separate_traces = specs.len() > 1 && tracer.policy().mode != TraceMode::Parent;
        // Tasks with the same mode share one context.
        let mut previous: Option<Arc<TraceContext>> = None;
        for spec in specs {
            let requested = spec.extras().trace.as_ref().map(|trace| trace.mode).unwrap_or_default();
            let mode = match requested {
                TraceMode::Unset | TraceMode::Auto if separate_traces => TraceMode::Link,
                requested => requested,
            };
            let context = match previous.take() {
                Some(context) if context.mode == mode => context,
                _ => Arc::new(TraceContext { mode, at, ..TraceContext::clone(&span.active_context().context) }),
            };
            spec.extras.get_or_insert_default().trace = Some(context.clone());
            previous = Some(context);
        }
        Self(Some(span))
    }

    /// Ends the span; with the reason of the error if the submission failed.
    pub fn end<T>(self, result: &Result<T, Refusal>) {
        if let Some(span) = self.0 {
            span.end_send(result.as_ref().err().map(|refusal| refusal.code().reason()));
        }
    }
}
