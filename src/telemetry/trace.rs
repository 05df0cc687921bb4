//! Spans of the server: a call, the sending of tasks, the processing of an attempt, an end without one.
//!
//! Names and attributes are those of the semantic conventions for RPC and for messaging. Installed once,
//! when traces are exported; as long as they are not, asking for a span is one load.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use parking_lot::Mutex;

use super::export::settings::Propagators;
use super::scope::{self, Place};
use crate::model::{
    Change, Event, Failure, Priority, StopMethod, TaskId, TaskOptions, Timestamp, TraceContext, TraceMode,
};

/// Value of `messaging.system`.
const SYSTEM: &str = "lineshaft";

/// How runs hang together with their submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For submissions that do not say.
    pub mode: TraceMode,
    /// [`TraceMode::Auto`]: an attempt that begins later than this after the submission is a trace of
    /// its own.
    pub parent_within: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { mode: TraceMode::Auto, parent_within: Duration::from_mins(5) }
    }
}

static TRACING: OnceLock<Tracing> = OnceLock::new();
static PROPAGATORS: OnceLock<Propagators> = OnceLock::new();

/// Spans are made from now on, for the rest of the process. A second call changes nothing.
pub fn install(tracer: SdkTracer, policy: Policy) {
    let _ = TRACING.set(Tracing { tracer, policy });
}

/// What travels from callers to processes; both kinds until somebody says otherwise.
pub fn propagate(propagators: Propagators) {
    let _ = PROPAGATORS.set(propagators);
}

/// What travels from callers to processes.
pub fn propagators() -> Propagators {
    PROPAGATORS.get().copied().unwrap_or(Propagators { trace_context: true, baggage: true })
}

/// Who makes spans, when traces are exported.
pub fn tracing() -> Option<&'static Tracing> {
    TRACING.get()
}

/// Makes spans.
#[derive(Debug)]
pub struct Tracing {
    tracer: SdkTracer,
    policy: Policy,
}

/// What a `process` span tells about its attempt.
#[derive(Clone, Copy, Debug)]
pub struct AttemptView<'a> {
    /// Its task.
    pub task: &'a TaskId,
    /// What was asked for.
    pub options: &'a TaskOptions,
    /// 1 for the first try.
    pub number: u32,
    /// `default/PoolWorker-0`.
    pub worker: &'a str,
    /// Since when it could have run.
    pub eligible_at: Timestamp,
    /// When it began.
    pub at: Timestamp,
}

impl Tracing {
    /// Makes spans with this tracer.
    pub fn new(tracer: SdkTracer, policy: Policy) -> Self {
        Self { tracer, policy }
    }

    /// How runs hang together with their submissions.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The span of a call to `method`, such as `lineshaft.v1.TaskService/SubmitTask`.
    pub fn call(&self, method: &str, caller: Option<&Place>, peer: Option<SocketAddr>) -> Span {
        self.begin(SpanKind::Server, None, caller, None, |span| {
            span.update_name(method.to_owned());
            span.set_attribute(KeyValue::new("rpc.system.name", "grpc"));
            span.set_attribute(KeyValue::new("rpc.method", method.to_owned()));
            if let Some(peer) = peer {
                span.set_attribute(KeyValue::new("network.peer.address", peer.ip().to_string()));
                span.set_attribute(KeyValue::new("network.peer.port", i64::from(peer.port())));
                span.set_attribute(KeyValue::new("network.transport", "tcp"));
            }
        })
    }

    /// The span of sending `count` tasks, of which the first is `task`.
    pub fn send(&self, task: &TaskId, options: &TaskOptions, count: usize, parent: Option<&Place>) -> Span {
        self.begin(SpanKind::Producer, None, parent, None, |span| {
            span.update_name(format!("send {}", options.pool));
            span.set_attributes(messaging(options, "send", "send"));
            if count == 1 {
                span.set_attribute(KeyValue::new("messaging.message.id", task.to_string()));
            } else {
                span.set_attribute(KeyValue::new("messaging.batch.message_count", number(count)));
            }
        })
    }

    /// The span of one attempt at a task that was sent from `sent`.
    pub fn process(&self, attempt: &AttemptView<'_>, sent: Option<&Arc<TraceContext>>) -> Span {
        self.follow(sent, attempt.at, |span| {
            span.update_name(format!("process {}", attempt.options.pool));
            span.set_attributes(messaging(attempt.options, "process", "process"));
            span.set_attribute(KeyValue::new("messaging.message.id", attempt.task.to_string()));
            span.set_attribute(KeyValue::new("lineshaft.attempt", i64::from(attempt.number)));
            span.set_attribute(KeyValue::new("lineshaft.worker", attempt.worker.to_owned()));
            let waited = attempt.at.since(attempt.eligible_at);
            span.set_attribute(KeyValue::new("lineshaft.task.wait.duration", waited.as_secs_f64()));
        })
    }

    /// The span of a task's end that no attempt tells about: it was cancelled or expired while it waited,
    /// or lost its attempt in a crash. It takes no time.
    pub fn settle(&self, end: &Event, sent: &Arc<TraceContext>, submitted_at: Timestamp) {
        let span = self.follow(Some(sent), end.at, |span| {
            span.update_name(format!("settle {}", end.options.pool));
            span.set_attributes(messaging(&end.options, "settle", "settle"));
            span.set_attribute(KeyValue::new("messaging.message.id", end.task.to_string()));
            span.set_attribute(KeyValue::new("lineshaft.attempt", i64::from(end.attempt)));
            if end.attempt == 0 {
                let waited = end.at.since(submitted_at);
                span.set_attribute(KeyValue::new("lineshaft.task.wait.duration", waited.as_secs_f64()));
            }
        });
        span.end_process(Some(end));
    }

    /// A span of what became of a task: a child of its submission, or linked to it.
    fn follow(&self, sent: Option<&Arc<TraceContext>>, at: Timestamp, describe: impl FnOnce(&mut SdkSpan)) -> Span {
        match sent.filter(|sent| sent.has_span()) {
            Some(sent) if self.is_child(sent, at) => {
                let parent = Place::new(sent.clone());
                self.begin(SpanKind::Consumer, Some(at), Some(&parent), None, describe)
            }
            sent => self.begin(SpanKind::Consumer, Some(at), None, sent, describe),
        }
    }

    fn is_child(&self, sent: &TraceContext, at: Timestamp) -> bool {
        let mode = if sent.mode == TraceMode::Unset { self.policy.mode } else { sent.mode };
        match mode {
            TraceMode::Parent => true,
            TraceMode::Link => false,
            TraceMode::Auto | TraceMode::Unset => at.since(sent.at) <= self.policy.parent_within,
        }
    }

    /// `describe` is only asked when the span is recorded: samplers look at traces and not at words.
    fn begin(
        &self,
        kind: SpanKind,
        at: Option<Timestamp>,
        parent: Option<&Place>,
        linked: Option<&Arc<TraceContext>>,
        describe: impl FnOnce(&mut SdkSpan),
    ) -> Span {
        let mut builder = self.tracer.span_builder("").with_kind(kind);
        builder.start_time = at.map(system_time);
        let root = Context::new();
        let mut span = self.tracer.build_with_context(builder, parent.map_or(&root, Place::as_parent));
        if span.is_recording() {
            describe(&mut span);
            if let Some(link) = linked.and_then(|linked| scope::span_context(linked)) {
                span.add_link(link, Vec::new());
            }
        }
        let own = span.span_context();
        let from = parent.map(|place| &place.context).or(linked);
        let context = TraceContext {
            trace_id: u128::from_be_bytes(own.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(own.span_id().to_bytes()),
            flags: own.trace_flags().to_u8(),
            state: own.trace_state().header().into(),
            baggage: from.map(|from| from.baggage.clone()).unwrap_or_default(),
            ..TraceContext::default()
        };
        Span { place: Place::local(Arc::new(context), own.clone()), inner: Mutex::new(span) }
    }
}

fn messaging(options: &TaskOptions, kind: &'static str, name: &'static str) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(8);
    attributes.push(KeyValue::new("messaging.system", SYSTEM));
    attributes.push(KeyValue::new("messaging.operation.type", kind));
    attributes.push(KeyValue::new("messaging.operation.name", name));
    attributes.push(KeyValue::new("messaging.destination.name", options.pool.to_string()));
    attributes.push(KeyValue::new("lineshaft.handler", options.handler.to_string()));
    attributes.push(KeyValue::new("lineshaft.priority", priority(options.priority)));
    attributes.push(KeyValue::new("lineshaft.namespace", options.namespace.to_string()));
    if let Some(batch) = &options.batch {
        attributes.push(KeyValue::new("messaging.message.conversation_id", batch.to_string()));
    }
    attributes
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
        Priority::Critical => "critical",
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.0)
}

/// A span that has begun; it ends when it is told to, or dropped.
#[derive(Debug)]
pub struct Span {
    place: Place,
    inner: Mutex<SdkSpan>,
}

impl Span {
    /// Its place in the trace.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Ends the span of a call. `code` is that of gRPC, 0 for OK.
    pub fn end_call(&self, code: i32) {
        let name = code_name(code);
        let mut span = self.inner.lock();
        span.set_attribute(KeyValue::new("rpc.status_code", name));
        if code != 0 {
            span.set_attribute(KeyValue::new("error.type", name));
        }
        // The others are the caller's doing: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
        // UNAVAILABLE, DATA_LOSS.
        if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
            span.set_status(Status::error(name));
        }
        span.end();
    }

    /// Ends the span of a submission; `refused` names why there is none.
    pub fn end_send(&self, refused: Option<&'static str>) {
        let mut span = self.inner.lock();
        if let Some(reason) = refused {
            span.set_attribute(KeyValue::new("error.type", reason));
            span.set_status(Status::error(reason));
        }
        span.end();
    }

    /// The attempt was told to stop.
    pub fn stop_requested(&self, cause: &'static str, at: Timestamp) {
        let attributes = vec![KeyValue::new("lineshaft.stop.cause", cause)];
        self.inner.lock().add_event_with_timestamp("stop requested", system_time(at), attributes);
    }

    /// Ends the span of an attempt, or of an end without one, by what became of the task; `None`: nobody waits for it any more.
    pub fn end_process(&self, event: Option<&Event>) {
        let mut span = self.inner.lock();
        let Some(event) = event else {
            span.set_status(Status::error("fenced"));
            return span.end();
        };
        span.set_attribute(KeyValue::new("lineshaft.task.state", event.state.name()));
        let at = system_time(event.at);
        match &event.change {
            Change::Retrying { failure, not_before, .. } => {
                failed(&mut span, failure);
                let delay = not_before.since(event.at).as_secs_f64();
                let attributes = vec![KeyValue::new("lineshaft.retry.delay", delay)];
                span.add_event_with_timestamp("retry scheduled", at, attributes);
            }
            Change::Failed { failure, .. } => failed(&mut span, failure),
            Change::Cancelled { receipt, .. } => {
                let attributes = vec![KeyValue::new("lineshaft.stop.method", method(receipt.method))];
                span.add_event_with_timestamp("cancelled", at, attributes);
            }
            Change::Interrupted { .. } => span.add_event_with_timestamp("interrupted", at, Vec::new()),
            _ => {}
        }
        span.end_with_timestamp(at);
    }
}

/// Only the reason: a message may show a part of the payload.
fn failed(span: &mut SdkSpan, failure: &Failure) {
    let reason = failure.reason.name();
    span.set_attribute(KeyValue::new("error.type", reason));
    if let Some(code) = failure.exit_code {
        span.set_attribute(KeyValue::new("process.exit.code", i64::from(code)));
    }
    span.set_status(Status::error(reason));
}

fn method(method: StopMethod) -> &'static str {
    match method {
        StopMethod::NeverStarted => "NEVER_STARTED",
        StopMethod::Token => "TOKEN",
        StopMethod::SignalTerm => "SIGNAL_TERM",
        StopMethod::SignalKill => "SIGNAL_KILL",
        StopMethod::Abort => "ABORT",
        StopMethod::Finished => "FINISHED",
    }
}

fn code_name(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

    use super::*;
    use crate::model::{
        CancelMode, CancelReceipt, CancelRequest, FailureReason, HandlerName, PoolName, Revision, TaskState,
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

    /// The span of an attempt that began so many seconds after its submission.
    fn processed(policy: TraceMode, sent: Option<&Arc<TraceContext>>, after: u64) -> SpanData {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let policy = Policy { mode: policy, parent_within: Duration::from_secs(60) };
        let tracing = Tracing::new(provider.tracer("test"), policy);
        let (task, options) = (TaskId::parse("t-1").unwrap(), options());
        let at = Timestamp(after * 1_000_000);
        let eligible_at = Timestamp(at.0.saturating_sub(500_000));
        let view =
            AttemptView { task: &task, options: &options, number: 1, worker: "default/PoolWorker-0", eligible_at, at };
        drop(tracing.process(&view, sent));
        exporter.get_finished_spans().unwrap().remove(0)
    }

    fn is_child(policy: TraceMode, said: TraceMode, after: u64) -> bool {
        let span = processed(policy, Some(&sent(said)), after);
        let child = span.parent_span_id == opentelemetry::trace::SpanId::from(0xb7ad_6b71_6920_3331_u64);
        assert_eq!(span.links.len(), usize::from(!child), "a run that is no child is linked");
        child
    }

    #[test]
    fn a_run_is_a_child_of_a_fresh_submission_and_linked_to_an_old_one() {
        assert!(is_child(TraceMode::Auto, TraceMode::Unset, 60));
        assert!(!is_child(TraceMode::Auto, TraceMode::Unset, 61));
        assert!(is_child(TraceMode::Parent, TraceMode::Unset, 61));
        assert!(!is_child(TraceMode::Link, TraceMode::Unset, 0));
    }

    #[test]
    fn what_a_submission_says_wins_over_what_the_server_is_told() {
        assert!(is_child(TraceMode::Link, TraceMode::Parent, 1_000));
        assert!(!is_child(TraceMode::Parent, TraceMode::Link, 0));
        assert!(is_child(TraceMode::Link, TraceMode::Auto, 0));
    }

    /// The span of a task's end that no attempt tells about.
    fn settled(state: TaskState, attempt: u32, change: Change) -> SpanData {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let tracing = Tracing::new(provider.tracer("test"), Policy::default());
        let end = Event {
            revision: Revision(2),
            at: Timestamp(10_000_000),
            task: TaskId::parse("t-1").unwrap(),
            options: Arc::new(options()),
            previous: TaskState::Waiting,
            state,
            attempt,
            change,
        };
        tracing.settle(&end, &sent(TraceMode::Unset), Timestamp(4_000_000));
        exporter.get_finished_spans().unwrap().remove(0)
    }

    fn waited(span: &SpanData) -> Option<opentelemetry::Value> {
        let mut found = span.attributes.iter();
        let waited = found.find(|attribute| attribute.key.as_str() == "lineshaft.task.wait.duration");
        waited.map(|attribute| attribute.value.clone())
    }

    #[test]
    fn an_end_without_an_attempt_is_a_moment_in_the_trace_of_the_submission() {
        let failure = Failure::new(FailureReason::Expired, "had not started after 6s");
        let expired = Change::Failed { failure: Box::new(failure), bill: None, output: None };
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
        let cancelled = Change::Cancelled { receipt: Box::new(receipt), bill: None, output: None };
        let span = settled(TaskState::Cancelled, 1, cancelled);
        assert_eq!((&*span.events[0].name, span.status.clone()), ("cancelled", Status::Unset));
        assert_eq!(waited(&span), None, "it had been at work before");
    }

    #[test]
    fn a_task_that_nobody_traced_begins_a_trace_and_its_wait_is_told() {
        let span = processed(TraceMode::Auto, None, 10);
        assert!(span.links.is_empty() && span.parent_span_id == opentelemetry::trace::SpanId::INVALID);
        assert_eq!(waited(&span), Some(0.5.into()));
        assert_eq!(span.start_time, UNIX_EPOCH + Duration::from_secs(10));
    }
}
