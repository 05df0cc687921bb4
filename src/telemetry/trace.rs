//! Spans of the server: a call, the submission of tasks, an attempt, the end of a task without an attempt.
//!
//! Names and attributes follow the semantic conventions for RPC and messaging. If traces are not exported, no tracer
//! is installed, and looking for it is one load.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use opentelemetry_semantic_conventions::attribute as semconv;
use parking_lot::{Mutex, MutexGuard};

use super::grpc_status::{self, RPC_STATUS_CODE};
use super::metrics::priority_label;
use super::scope::{self, ActiveContext};
use crate::model::{
    Failure, FailureReason, InterruptCause, StopMethod, TaskChange, TaskEvent, TaskId, TaskOptions, Timestamp,
    TraceContext, TraceMode,
};

/// How attempts are connected with their submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For submissions without a mode.
    pub mode: TraceMode,
    /// With [`TraceMode::Auto`], an attempt that begins later than this after its submission starts a trace.
    pub parent_within: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { mode: TraceMode::Auto, parent_within: Duration::from_mins(5) }
    }
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Makes spans for the rest of the process. A second call changes nothing.
pub fn install(tracing: Tracer) {
    let _ = TRACER.set(tracing);
}

/// `None` if traces are not exported.
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

#[derive(Debug)]
pub struct Tracer {
    tracer: SdkTracer,
    policy: Policy,
}

/// An attempt, for its `process` span.
#[derive(Clone, Copy, Debug)]
pub struct AttemptView<'a> {
    pub task: &'a TaskId,
    pub options: &'a TaskOptions,
    /// 1 for the first attempt.
    pub number: u32,
    /// Such as `default/PoolWorker-0`.
    pub worker: &'a str,
    pub eligible_at: Timestamp,
    pub at: Timestamp,
}

impl Tracer {
    pub fn new(tracer: SdkTracer, policy: Policy) -> Self {
        Self { tracer, policy }
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The span of a call to `method`, such as `lineshaft.v1.TaskService/SubmitTask`.
    pub fn call(&self, method: &str, caller: Option<&ActiveContext>, peer: Option<SocketAddr>) -> Span {
        let name = || method.to_owned();
        self.begin(SpanKind::Server, None, caller, None, name, |span| {
            span.set_attribute(KeyValue::new(semconv::RPC_SYSTEM_NAME, "grpc"));
            span.set_attribute(KeyValue::new(semconv::RPC_METHOD, method.to_owned()));
            if let Some(peer) = peer {
                span.set_attribute(KeyValue::new(semconv::NETWORK_PEER_ADDRESS, peer.ip().to_string()));
                span.set_attribute(KeyValue::new(semconv::NETWORK_PEER_PORT, i64::from(peer.port())));
                span.set_attribute(KeyValue::new(semconv::NETWORK_TRANSPORT, "tcp"));
            }
        })
    }

    /// The span of submitting `count` tasks, of which the first is `task`.
    pub fn send(&self, task: &TaskId, options: &TaskOptions, count: usize, parent: Option<&ActiveContext>) -> Span {
        let name = || format!("send {}", options.pool);
        self.begin(SpanKind::Producer, None, parent, None, name, |span| {
            span.set_attributes(messaging(options, "send"));
            if count == 1 {
                span.set_attribute(KeyValue::new(semconv::MESSAGING_MESSAGE_ID, task.to_string()));
            } else {
                span.set_attribute(KeyValue::new(semconv::MESSAGING_BATCH_MESSAGE_COUNT, number(count)));
            }
        })
    }

    /// The span of an attempt. `sent` is the context of the submission.
    pub fn process(&self, attempt: &AttemptView<'_>, sent: Option<&Arc<TraceContext>>) -> Span {
        let name = || format!("process {}", attempt.options.pool);
        self.consume(sent, attempt.at, name, |span| {
            span.set_attributes(messaging(attempt.options, "process"));
            span.set_attribute(KeyValue::new(semconv::MESSAGING_MESSAGE_ID, attempt.task.to_string()));
            span.set_attribute(KeyValue::new("lineshaft.attempt", i64::from(attempt.number)));
            span.set_attribute(KeyValue::new("lineshaft.worker", attempt.worker.to_owned()));
            let waited = attempt.at.since(attempt.eligible_at);
            span.set_attribute(KeyValue::new("lineshaft.task.wait.duration", waited.as_secs_f64()));
        })
    }

    /// The span of an end that no `process` span covers: the task was cancelled or expired while it waited, or lost
    /// its attempt in a crash. It has no duration.
    pub fn settle(&self, end: &TaskEvent, sent: Option<&Arc<TraceContext>>, submitted_at: Timestamp) {
        let name = || format!("settle {}", end.options.pool);
        // An interruption does not count the attempt.
        let attempt = end.attempt + u32::from(matches!(end.change, TaskChange::Interrupted { .. }));
        let span = self.consume(sent, end.at, name, |span| {
            span.set_attributes(messaging(&end.options, "settle"));
            span.set_attribute(KeyValue::new(semconv::MESSAGING_MESSAGE_ID, end.task.to_string()));
            span.set_attribute(KeyValue::new("lineshaft.attempt", i64::from(attempt)));
            if attempt == 0 {
                let waited = end.at.since(submitted_at);
                span.set_attribute(KeyValue::new("lineshaft.task.wait.duration", waited.as_secs_f64()));
            }
        });
        span.end_process(Some(end));
    }

    /// A consumer span that is a child of the submission or linked to it.
    fn consume(
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

    /// `name` and `describe` are called only if the span is recorded: no sampler uses the name.
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
        let parent_context = parent.map_or_else(Context::new, ActiveContext::as_parent);
        let mut span = self.tracer.build_with_context(builder, &parent_context);
        if span.is_recording() {
            span.update_name(name());
            describe(&mut span);
            if let Some(link) = linked.and_then(|linked| scope::span_context(linked, true)) {
                span.add_link(link, Vec::new());
            }
        }
        let own = span.span_context();
        let from = parent.map(|parent| &parent.context).or(linked);
        let context = TraceContext {
            trace_id: u128::from_be_bytes(own.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(own.span_id().to_bytes()),
            flags: own.trace_flags().to_u8(),
            state: own.trace_state().header().into(),
            baggage: from.map(|from| from.baggage.clone()).unwrap_or_default(),
            ..TraceContext::default()
        };
        let recorded = span.is_recording().then(|| Box::new(Mutex::new(span)));
        Span { context: ActiveContext::local(Arc::new(context)), recorded }
    }
}

fn messaging(options: &TaskOptions, operation: &'static str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new(semconv::MESSAGING_SYSTEM, "lineshaft"),
        KeyValue::new(semconv::MESSAGING_OPERATION_TYPE, operation),
        KeyValue::new(semconv::MESSAGING_OPERATION_NAME, operation),
        KeyValue::new(semconv::MESSAGING_DESTINATION_NAME, options.pool.to_string()),
        KeyValue::new("lineshaft.handler", options.handler.to_string()),
        KeyValue::new("lineshaft.priority", priority_label(options.priority)),
        KeyValue::new("lineshaft.namespace", options.namespace.to_string()),
    ];
    if let Some(batch) = &options.batch {
        attributes.push(KeyValue::new(semconv::MESSAGING_MESSAGE_CONVERSATION_ID, batch.to_string()));
    }
    attributes
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.0)
}

/// An open span; it ends at the latest when it is dropped.
#[derive(Debug)]
pub struct Span {
    context: ActiveContext,
    /// `None` if the sampler left the span out. In a box, since few attempts have it.
    recorded: Option<Box<Mutex<SdkSpan>>>,
}

impl Span {
    pub fn active_context(&self) -> &ActiveContext {
        &self.context
    }

    fn recorded(&self) -> Option<MutexGuard<'_, SdkSpan>> {
        self.recorded.as_ref().map(|span| span.lock())
    }

    /// Ends the span of a call with a gRPC status code.
    pub fn end_call(&self, code: i32) {
        let status = grpc_status::index(code);
        let name = grpc_status::name(status);
        let Some(mut span) = self.recorded() else { return };
        span.set_attribute(KeyValue::new(RPC_STATUS_CODE, name));
        if code != 0 {
            span.set_attribute(KeyValue::new(semconv::ERROR_TYPE, name));
        }
        if grpc_status::is_server_error(status) {
            span.set_status(Status::error(name));
        }
        span.end();
    }

    /// Ends the span of a submission. `refused` is the reason of a refusal.
    pub fn end_send(&self, refused: Option<&'static str>) {
        let Some(mut span) = self.recorded() else { return };
        if let Some(reason) = refused {
            span.set_attribute(KeyValue::new(semconv::ERROR_TYPE, reason));
            span.set_status(Status::error(reason));
        }
        span.end();
    }

    pub fn stop_requested(&self, cause: &'static str, at: Timestamp) {
        let Some(mut span) = self.recorded() else { return };
        let attributes = vec![KeyValue::new("lineshaft.stop.cause", cause)];
        span.add_event_with_timestamp("stop requested", system_time(at), attributes);
    }

    /// Ends a consumer span with the resulting event of the task; `None` if a later attempt has replaced this one.
    pub fn end_process(&self, event: Option<&TaskEvent>) {
        let Some(mut span) = self.recorded() else { return };
        let Some(event) = event else {
            span.set_status(Status::error("fenced"));
            return span.end();
        };
        span.set_attribute(KeyValue::new("lineshaft.task.state", event.state.name()));
        let at = system_time(event.at);
        match &event.change {
            TaskChange::Retrying { failure, not_before, .. } => {
                failed(&mut span, failure);
                let delay = not_before.since(event.at).as_secs_f64();
                let attributes = vec![KeyValue::new("lineshaft.retry.delay", delay)];
                span.add_event_with_timestamp("retry scheduled", at, attributes);
            }
            TaskChange::Failed { failure, .. } => failed(&mut span, failure),
            TaskChange::Cancelled { receipt, .. } => {
                let attributes = vec![KeyValue::new("lineshaft.stop.method", method(receipt.method))];
                span.add_event_with_timestamp("cancelled", at, attributes);
            }
            TaskChange::Interrupted { cause } => {
                if *cause == InterruptCause::Crash {
                    let reason = FailureReason::WorkerLost.name();
                    span.set_attribute(KeyValue::new(semconv::ERROR_TYPE, reason));
                    span.set_status(Status::error(reason));
                }
                span.add_event_with_timestamp("interrupted", at, Vec::new());
            }
            _ => {}
        }
        span.end_with_timestamp(at);
    }
}

/// Only the reason: the message may contain a part of the payload.
fn failed(span: &mut SdkSpan, failure: &Failure) {
    let reason = failure.reason.name();
    span.set_attribute(KeyValue::new(semconv::ERROR_TYPE, reason));
    if let Some(code) = failure.exit_code {
        span.set_attribute(KeyValue::new(semconv::PROCESS_EXIT_CODE, i64::from(code)));
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

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
