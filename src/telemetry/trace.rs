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

use super::scope::{self, ActiveContext};
use crate::model::{
    Change, Event, Failure, FailureReason, InterruptCause, Priority, StopMethod, TaskId, TaskOptions, Timestamp,
    TraceContext, TraceMode,
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

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Spans are made from now on, for the rest of the process. A second call changes nothing.
pub fn install(tracing: Tracer) {
    let _ = TRACER.set(tracing);
}

/// Who makes spans, when traces are exported.
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// Makes spans.
#[derive(Debug)]
pub struct Tracer {
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

impl Tracer {
    /// Makes spans with this tracer.
    pub fn new(tracer: SdkTracer, policy: Policy) -> Self {
        Self { tracer, policy }
    }

    /// How runs hang together with their submissions.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The span of a call to `method`, such as `lineshaft.v1.TaskService/SubmitTask`.
    pub fn call(&self, method: &str, caller: Option<&ActiveContext>, peer: Option<SocketAddr>) -> Span {
        let name = || method.to_owned();
        self.begin(SpanKind::Server, None, caller, None, name, |span| {
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
    pub fn send(&self, task: &TaskId, options: &TaskOptions, count: usize, parent: Option<&ActiveContext>) -> Span {
        let name = || format!("send {}", options.pool);
        self.begin(SpanKind::Producer, None, parent, None, name, |span| {
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
        let name = || format!("process {}", attempt.options.pool);
        self.follow(sent, attempt.at, name, |span| {
            span.set_attributes(messaging(attempt.options, "process", "process"));
            span.set_attribute(KeyValue::new("messaging.message.id", attempt.task.to_string()));
            span.set_attribute(KeyValue::new("lineshaft.attempt", i64::from(attempt.number)));
            span.set_attribute(KeyValue::new("lineshaft.worker", attempt.worker.to_owned()));
            let waited = attempt.at.since(attempt.eligible_at);
            span.set_attribute(KeyValue::new("lineshaft.task.wait.duration", waited.as_secs_f64()));
        })
    }

    /// The span of what became of a task and no attempt tells about: it was cancelled or expired while it
    /// waited, or lost its attempt in a crash. It takes no time.
    pub fn settle(&self, end: &Event, sent: &Arc<TraceContext>, submitted_at: Timestamp) {
        let name = || format!("settle {}", end.options.pool);
        // An interruption gives back the attempt that it was about.
        let attempt = end.attempt + u32::from(matches!(end.change, Change::Interrupted { .. }));
        let span = self.follow(Some(sent), end.at, name, |span| {
            span.set_attributes(messaging(&end.options, "settle", "settle"));
            span.set_attribute(KeyValue::new("messaging.message.id", end.task.to_string()));
            span.set_attribute(KeyValue::new("lineshaft.attempt", i64::from(attempt)));
            if attempt == 0 {
                let waited = end.at.since(submitted_at);
                span.set_attribute(KeyValue::new("lineshaft.task.wait.duration", waited.as_secs_f64()));
            }
        });
        span.end_process(Some(end));
    }

    /// A span of what became of a task: a child of its submission, or linked to it.
    fn follow(
        &self,
        sent: Option<&Arc<TraceContext>>,
        at: Timestamp,
        name: impl Fn() -> String,
        describe: impl FnOnce(&mut SdkSpan),
    ) -> Span {
        match sent.filter(|sent| sent.has_span()) {
            Some(sent) if self.is_child(sent, at) => {
                let parent = ActiveContext::new(sent.clone());
                self.begin(SpanKind::Consumer, Some(at), Some(&parent), None, name, describe)
            }
            sent => self.begin(SpanKind::Consumer, Some(at), None, sent, name, describe),
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

    /// `name` and `describe` are only asked when the span is recorded: most samplers look at traces and not at
    /// words.
    fn begin(
        &self,
        kind: SpanKind,
        at: Option<Timestamp>,
        parent: Option<&ActiveContext>,
        linked: Option<&Arc<TraceContext>>,
        name: impl Fn() -> String,
        describe: impl FnOnce(&mut SdkSpan),
    ) -> Span {
        let mut builder = self.tracer.span_builder("").with_kind(kind);
        builder.start_time = at.map(system_time);
        let root = Context::new();
        let mut span = self.tracer.build_with_context(builder, parent.map_or(&root, ActiveContext::as_parent));
        if span.is_recording() {
            span.update_name(name());
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
        Span { place: ActiveContext::local(Arc::new(context), own.clone()), inner: Mutex::new(span) }
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
    place: ActiveContext,
    inner: Mutex<SdkSpan>,
}

impl Span {
    /// Its place in the trace.
    pub fn active_context(&self) -> &ActiveContext {
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
            Change::Interrupted { cause } => {
                if *cause == InterruptCause::Crash {
                    let reason = FailureReason::WorkerLost.name();
                    span.set_attribute(KeyValue::new("error.type", reason));
                    span.set_status(Status::error(reason));
                }
                span.add_event_with_timestamp("interrupted", at, Vec::new());
            }
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
#[path = "trace_tests.rs"]
mod tests;
