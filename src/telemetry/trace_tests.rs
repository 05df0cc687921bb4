//! Spans and their parents and links.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

use super::*;
use crate::model::{
    CancelMode, CancelReceipt, CancelRequest, FailureReason, HandlerName, Holds, PoolName, Priority, Revision,
    TaskState,
};

fn options() -> TaskOptions {
    TaskOptions {
        handler: HandlerName::parse("compute").unwrap(),
        pool: PoolName::parse("default").unwrap(),
        priority: Priority::High,
        ..TaskOptions::sample()
    }
}

fn sent(mode: TraceMode) -> Arc<TraceContext> {
    let parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    Arc::new(TraceContext { mode, at: Timestamp(0), ..TraceContext::parse(parent, None, Some("a=1")).unwrap() })
}

/// The span of an attempt that began `after` seconds after its submission.
fn processed(policy: TraceMode, sent: Option<&Arc<TraceContext>>, after: u64) -> SpanData {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let policy = Policy { mode: policy, parent_within: Duration::from_secs(60) };
    let tracing = Tracer::new(provider.tracer("test"), policy);
    let (task, options) = (TaskId::parse("t-1").unwrap(), options());
    let at = Timestamp(after * 1_000_000);
    let eligible_at = Timestamp(at.0.saturating_sub(500_000));
    let view =
        AttemptView { task: &task, options: &options, number: 1, worker: "default/PoolWorker-0", eligible_at, at };
    drop(tracing.process(&view, sent));
    exporter.get_finished_spans().unwrap().remove(0)
}

fn is_child(policy: TraceMode, caller: TraceMode, after: u64) -> bool {
    let span = processed(policy, Some(&sent(caller)), after);
    let child = span.parent_span_id == opentelemetry::trace::SpanId::from(0xb7ad_6b71_6920_3331_u64);
    assert_eq!(span.links.len(), usize::from(!child), "an attempt that is no child has a link");
    child
}

#[test]
fn an_attempt_is_a_child_of_a_recent_submission_and_linked_to_an_old_one() {
    assert!(is_child(TraceMode::Auto, TraceMode::Unset, 60));
    assert!(!is_child(TraceMode::Auto, TraceMode::Unset, 61));
    assert!(is_child(TraceMode::Parent, TraceMode::Unset, 61));
    assert!(!is_child(TraceMode::Link, TraceMode::Unset, 0));
}

#[test]
fn the_mode_of_a_submission_wins_over_the_policy() {
    assert!(is_child(TraceMode::Link, TraceMode::Parent, 1_000));
    assert!(!is_child(TraceMode::Parent, TraceMode::Link, 0));
    assert!(is_child(TraceMode::Link, TraceMode::Auto, 0));
}

/// The `settle` span of a task.
fn settled(state: TaskState, attempt: u32, change: TaskChange) -> SpanData {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let tracing = Tracer::new(provider.tracer("test"), Policy::default());
    let end = TaskEvent {
        revision: Revision(2),
        at: Timestamp(10_000_000),
        task: TaskId::parse("t-1").unwrap(),
        options: Arc::new(options()),
        previous: TaskState::Waiting,
        state,
        attempt,
        holds: Holds::NONE,
        hold: None,
        change,
    };
    tracing.settle(&end, Some(&sent(TraceMode::Unset)), Timestamp(4_000_000));
    exporter.get_finished_spans().unwrap().remove(0)
}

fn waited(span: &SpanData) -> Option<opentelemetry::Value> {
    let mut found = span.attributes.iter();
    let waited = found.find(|attribute| attribute.key.as_str() == "lineshaft.task.wait.duration");
    waited.map(|attribute| attribute.value.clone())
}

#[test]
fn a_settle_span_has_no_duration_and_is_in_the_trace_of_the_submission() {
    let failure = Failure::new(FailureReason::Expired, "had not started after 6s");
    let expired = TaskChange::Failed { failure: Box::new(failure), usage: None, output: None };
    let span = settled(TaskState::Failed, 0, expired);
    assert_eq!((&*span.name, span.span_kind.clone()), ("settle default", SpanKind::Consumer));
    assert_eq!(span.parent_span_id, opentelemetry::trace::SpanId::from(0xb7ad_6b71_6920_3331_u64));
    assert_eq!((span.start_time, span.start_time), (span.end_time, UNIX_EPOCH + Duration::from_secs(10)));
    assert_eq!((span.status.clone(), waited(&span)), (Status::error("EXPIRED"), Some(6.0.into())));
    let request = CancelRequest {
        requested_at: Timestamp(9),
        reason: "".into(),
        requested_by: "".into(),
        mode: CancelMode::Graceful,
        grace: Duration::ZERO,
    };
    let receipt = CancelReceipt { request, stopped_at: Timestamp(9), method: StopMethod::NeverStarted };
    let cancelled = TaskChange::Cancelled { receipt: Box::new(receipt), usage: None, output: None };
    let span = settled(TaskState::Cancelled, 1, cancelled);
    assert_eq!((&*span.events[0].name, span.status.clone()), ("cancelled", Status::Unset));
    assert_eq!(waited(&span), None, "an attempt had begun before");
}

#[test]
fn an_attempt_lost_in_a_crash_has_a_settle_span_with_its_number_and_an_error() {
    let span = settled(TaskState::Queued, 1, TaskChange::Interrupted { cause: InterruptCause::Crash });
    assert_eq!((&*span.events[0].name, span.status.clone()), ("interrupted", Status::error("WORKER_LOST")));
    let attempt = span.attributes.iter().find(|attribute| attribute.key.as_str() == "lineshaft.attempt");
    assert_eq!(attempt.map(|attribute| attribute.value.clone()), Some(2.into()), "the first had failed");
    assert_eq!(waited(&span), None);
}

#[test]
fn an_untraced_task_starts_a_trace_with_its_waiting_time() {
    let span = processed(TraceMode::Auto, None, 10);
    assert!(span.links.is_empty() && span.parent_span_id == opentelemetry::trace::SpanId::INVALID);
    assert_eq!(waited(&span), Some(0.5.into()));
    assert_eq!(span.start_time, UNIX_EPOCH + Duration::from_secs(10));
}

#[test]
fn a_span_that_is_not_recorded_has_a_context_and_needs_no_memory_of_the_library() {
    use opentelemetry_sdk::trace::Sampler;
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let tracing = Tracer::new(provider.tracer("test"), Policy::default());
    let span = tracing.call("lineshaft.v1.TaskService/GetTask", None, None);
    let context = span.active_context().context.clone();
    assert!(span.recorded.is_none() && context.has_span() && !context.is_sampled());
    span.end_call(0);
}
