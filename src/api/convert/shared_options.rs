//! Recognizes a submission that differs from the one before it only in its IDs and its payload.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Catalog, PayloadSchema, TaskOptions, TraceContext};
use crate::proto::v1::{self, payload::Kind};

/// The last options of a call, and what they were converted from. The next submission of the call shares them if it has
/// equal fields, without parsing and resolving those again.
pub struct SharedOptions {
    /// Without its [`OwnFields`].
    pub(super) request: v1::SubmitTaskRequest,
    pub(super) is_json: bool,
    pub(super) catalog: Arc<Catalog>,
    pub(super) options: Arc<TaskOptions>,
    /// What the payload has to match.
    pub(super) payload_schema: Option<PayloadSchema>,
    pub(super) delay: Option<Duration>,
    pub(super) expires_after: Option<Duration>,
    /// Of the last submission that had a trace context of its own: the next one often has the same.
    pub(super) trace: Option<Arc<TraceContext>>,
}

/// The fields that most submissions have for themselves.
pub(super) struct OwnFields {
    pub(super) task_id: String,
    pub(super) request_id: String,
    pub(super) payload: Option<Kind>,
    pub(super) traceparent: String,
    pub(super) tracestate: String,
    pub(super) dependencies: Option<v1::Dependencies>,
    pub(super) unique_key: String,
}

impl OwnFields {
    pub(super) fn take(request: &mut v1::SubmitTaskRequest) -> Self {
        Self {
            task_id: std::mem::take(&mut request.task_id),
            request_id: std::mem::take(&mut request.request_id),
            payload: request.payload.as_mut().and_then(|payload| payload.kind.take()),
            traceparent: std::mem::take(&mut request.traceparent),
            tracestate: std::mem::take(&mut request.tracestate),
            dependencies: request.dependencies.take(),
            unique_key: std::mem::take(&mut request.unique_key),
        }
    }
}

impl SharedOptions {
    /// Whether a submission of the same call has these options.
    pub(super) fn is_of(&self, request: &v1::SubmitTaskRequest, is_json: bool, catalog: &Arc<Catalog>) -> bool {
        self.is_json == is_json && Arc::ptr_eq(&self.catalog, catalog) && have_equal_fields(&self.request, request)
    }

    /// A shared copy of the trace context of a submission.
    pub(super) fn trace_like(&mut self, own: TraceContext) -> Arc<TraceContext> {
        match &self.trace {
            Some(last) if **last == own => last.clone(),
            _ => self.trace.insert(Arc::new(own)).clone(),
        }
    }
}

pub(super) fn content_type_of(payload: Option<&v1::Payload>) -> &str {
    payload.map_or("", |payload| &payload.content_type)
}

/// Whether two submissions without their [`OwnFields`] are equal.
fn have_equal_fields(one: &v1::SubmitTaskRequest, other: &v1::SubmitTaskRequest) -> bool {
    // Byte by byte: where `==` loads a short text as one vector that was just written in parts, it waits until all earlier
    // writes have left the core, half a microsecond for a decoded message.
    let is_same = |one: &str, other: &str| one.len() == other.len() && one.bytes().eq(other.bytes());
    // All fields, so that none is forgotten.
    let v1::SubmitTaskRequest {
        handler,
        payload,
        priority,
        task_id: _,
        request_id: _,
        pool,
        display_name,
        labels,
        timeout,
        retry,
        args,
        delay,
        at_most_once,
        durability,
        namespace,
        expires_after,
        trace_mode,
        batch_id,
        traceparent: _,
        tracestate: _,
        dependencies: _,
        limits,
        unique_key: _,
        on_unique_conflict,
        reuse_result_within,
        fairness_key,
    } = one;
    is_same(handler, &other.handler)
        && is_same(content_type_of(payload.as_ref()), content_type_of(other.payload.as_ref()))
        && *priority == other.priority
        && is_same(pool, &other.pool)
        && is_same(display_name, &other.display_name)
        && *labels == other.labels
        && *timeout == other.timeout
        && *retry == other.retry
        && *args == other.args
        && *delay == other.delay
        && *at_most_once == other.at_most_once
        && *durability == other.durability
        && is_same(namespace, &other.namespace)
        && *expires_after == other.expires_after
        && *trace_mode == other.trace_mode
        && is_same(batch_id, &other.batch_id)
        && *limits == other.limits
        && *on_unique_conflict == other.on_unique_conflict
        && *reuse_result_within == other.reuse_result_within
        && is_same(fairness_key, &other.fairness_key)
}
