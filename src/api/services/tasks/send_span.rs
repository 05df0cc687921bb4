//! The `send` span of a submission: its place is stored with the tasks, so that their runs follow it.

use std::sync::Arc;

use crate::model::{Coded, TaskSpec, Timestamp, TraceContext, TraceMode};
use crate::scheduler::Refusal;
use crate::telemetry::scope;
use crate::telemetry::trace::{Span, tracer};

/// A submission on its way; a span only where traces are exported.
pub struct Sending(Option<Span>);

/// Begins the submission of one task, or of tasks together. Sent together, runs are traces of their own
/// unless somebody says otherwise: one tree of thousands helps nobody.
pub fn begin(specs: &mut [TaskSpec], at: Timestamp) -> Sending {
    let (Some(tracer), Some(first)) = (tracer(), specs.first()) else { return Sending(None) };
    let parent = scope::current_context();
    let span = tracer.send(&first.id, &first.options, specs.len(), parent.as_ref());
    let apart = specs.len() > 1 && tracer.policy().mode != TraceMode::Parent;
    let mut shared: Option<Arc<TraceContext>> = None;
    for spec in specs {
        let said = spec.extras().trace.as_ref().map(|trace| trace.mode).unwrap_or_default();
        let mode = match said {
            TraceMode::Unset | TraceMode::Auto if apart => TraceMode::Link,
            said => said,
        };
        let own = match shared.take() {
            Some(own) if own.mode == mode => own,
            _ => Arc::new(TraceContext { mode, at, ..TraceContext::clone(&span.active_context().context) }),
        };
        spec.extras.get_or_insert_default().trace = Some(own.clone());
        shared = Some(own);
    }
    Sending(Some(span))
}

impl Sending {
    /// It was accepted, or refused.
    pub fn end<T>(self, result: &Result<T, Refusal>) {
        if let Some(span) = self.0 {
            span.end_send(result.as_ref().err().map(|refusal| refusal.code().reason()));
        }
    }
}
