//! The `send` span of a submission. Its trace context is stored with the tasks, so that their runs refer to it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Coded, TaskExtras, TaskSpec, Timestamp, TraceContext, TraceMode};
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
        let call = parent.as_ref().map(|parent| span_of(&parent.context));
        if separate_traces {
            link_shared(specs, call);
        }
        // Tasks with the same mode share one context.
        let mut previous: Option<Arc<TraceContext>> = None;
        for spec in specs.iter_mut().filter(|spec| !has_own(spec, call)) {
            let requested = spec.extras().trace.as_ref().map(|trace| trace.mode).unwrap_or_default();
            let mode = match requested {
                TraceMode::Unset | TraceMode::Auto if separate_traces => TraceMode::Link,
                requested => requested,
            };
            let sent = &span.active_context().context;
            if mode == TraceMode::Link && !sent.is_sampled() && sent.baggage.is_empty() {
                // A link would lead nowhere, and most tasks need no extras without it.
                drop_trace(spec);
                continue;
            }
            let context = match previous.take() {
                Some(context) if context.mode == mode => context,
                _ => Arc::new(TraceContext { mode, at, ..TraceContext::clone(sent) }),
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

fn drop_trace(spec: &mut TaskSpec) {
    if let Some(extras) = spec.extras.take() {
        spec.extras = TaskExtras { trace: None, ..*extras }.boxed();
    }
}

/// Trace ID and span ID.
type SpanIds = (u128, u64);

fn span_of(context: &TraceContext) -> SpanIds {
    (context.trace_id, context.span_id)
}

/// Whether the submission came with a trace context of its own, to which its runs refer instead of the span of the call.
fn has_own(spec: &TaskSpec, call: Option<SpanIds>) -> bool {
    spec.extras().trace.as_ref().is_some_and(|trace| trace.has_span() && Some(span_of(trace)) != call)
}

/// Lets the runs of submissions that share a span of their own have traces of their own, unless the tasks choose otherwise.
fn link_shared(specs: &mut [TaskSpec], call: Option<SpanIds>) {
    let mut counts: HashMap<SpanIds, usize> = HashMap::new();
    for trace in specs.iter().filter(|spec| has_own(spec, call)).filter_map(|spec| spec.extras().trace.as_ref()) {
        *counts.entry(span_of(trace)).or_default() += 1;
    }
    if counts.is_empty() {
        return;
    }
    let mut linked: HashMap<SpanIds, Arc<TraceContext>> = HashMap::new();
    for spec in specs.iter_mut().filter(|spec| has_own(spec, call)) {
        let Some(trace) = spec.extras().trace.clone() else { continue };
        let span = span_of(&trace);
        if counts[&span] > 1 && matches!(trace.mode, TraceMode::Unset | TraceMode::Auto) {
            let link = || Arc::new(TraceContext { mode: TraceMode::Link, ..TraceContext::clone(&trace) });
            spec.extras.get_or_insert_default().trace = Some(linked.entry(span).or_insert_with(link).clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskOptions;
    use crate::scheduler::Handle;

    fn spec(trace: Option<(u64, TraceMode)>) -> TaskSpec {
        let trace = trace
            .map(|(span_id, mode)| Arc::new(TraceContext { trace_id: 1, span_id, mode, ..TraceContext::default() }));
        let extras = TaskExtras { trace, ..TaskExtras::default() }.boxed();
        TaskSpec {
            id: Handle::new_task_id(),
            options: Arc::new(TaskOptions::sample()),
            payload: Box::default(),
            extras,
        }
    }

    #[test]
    fn submissions_that_share_a_span_of_their_own_are_linked_to_it_and_single_ones_are_not() {
        use TraceMode::{Auto, Link, Parent, Unset};
        let call = Some((1, 9));
        let traces = [Some((9, Unset)), Some((2, Unset)), Some((3, Unset)), Some((3, Auto)), Some((3, Parent)), None];
        let mut specs = traces.map(spec);
        assert_eq!(specs.each_ref().map(|spec| has_own(spec, call)), [false, true, true, true, true, false]);
        link_shared(&mut specs, call);
        let modes = specs.each_ref().map(|spec| spec.extras().trace.as_ref().map(|trace| trace.mode));
        assert_eq!(modes, [Some(Unset), Some(Unset), Some(Link), Some(Link), Some(Parent), None]);
    }
}
