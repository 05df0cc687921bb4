//! The parts that records are made of, and their way to the model and back.
//!
//! Times are microseconds since the epoch, spans nanoseconds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::record::{Damage, damage, state};
use super::record_trace::TraceRecord;
use crate::model::{
    BatchId, CancelMode, CancelReceipt, CancelRequest, Captured, Durability, Failure, FailureReason, HandlerName,
    Namespace, Output, Payload, PoolName, Priority, ResourceUsage, RetryPolicy, Revision, StopMethod, TaskExtras,
    TaskId, TaskOptions, TaskSpec, TaskStatus, Timestamp,
};

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn unknown(what: &str, number: u32) -> Damage {
    damage(format!("{what} {number} is not known"))
}

fn small<T>(what: &str, number: u32, find: impl FnOnce(u8) -> Option<T>) -> Result<T, Damage> {
    u8::try_from(number).ok().and_then(find).ok_or_else(|| unknown(what, number))
}

fn name<T, E: std::fmt::Display>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Damage> {
    parse(text).map_err(|error| damage(format!("the name {text:?} {error}")))
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelRecord {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionsRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    handler: String,
    #[prost(string, tag = "3")]
    pool: String,
    #[prost(uint32, tag = "4")]
    priority: u32,
    #[prost(string, tag = "5")]
    display_name: String,
    #[prost(message, repeated, tag = "6")]
    labels: Vec<LabelRecord>,
    #[prost(string, optional, tag = "7")]
    batch: Option<String>,
    #[prost(uint64, tag = "8")]
    timeout: u64,
    #[prost(uint32, tag = "9")]
    attempts_max: u32,
    #[prost(uint64, tag = "10")]
    delay: u64,
    #[prost(double, tag = "11")]
    factor: f64,
    #[prost(uint64, tag = "12")]
    delay_max: u64,
    #[prost(double, tag = "13")]
    jitter: f64,
    #[prost(bool, tag = "14")]
    at_most_once: bool,
    #[prost(uint32, tag = "15")]
    durability: u32,
    #[prost(string, tag = "16")]
    content_type: String,
    #[prost(string, tag = "17")]
    submitted_by: String,
}

impl From<&TaskOptions> for OptionsRecord {
    fn from(options: &TaskOptions) -> Self {
        let label =
            |(key, value): &(Box<str>, Box<str>)| LabelRecord { key: key.to_string(), value: value.to_string() };
        Self {
            namespace: options.namespace.to_string(),
            handler: options.handler.to_string(),
            pool: options.pool.to_string(),
            priority: options.priority as u32,
            display_name: options.display_name.to_string(),
            labels: options.labels.iter().map(label).collect(),
            batch: options.batch.as_ref().map(ToString::to_string),
            timeout: nanos(options.timeout),
            attempts_max: options.retry.attempts_max,
            delay: nanos(options.retry.delay),
            factor: options.retry.factor,
            delay_max: nanos(options.retry.delay_max),
            jitter: options.retry.jitter,
            at_most_once: options.at_most_once,
            durability: options.durability as u32,
            content_type: options.content_type.to_string(),
            submitted_by: options.submitted_by.to_string(),
        }
    }
}

impl OptionsRecord {
    pub(super) fn into_model(self) -> Result<TaskOptions, Damage> {
        Ok(TaskOptions {
            namespace: name(&self.namespace, Namespace::parse)?,
            handler: name(&self.handler, HandlerName::parse)?,
            pool: name(&self.pool, PoolName::parse)?,
            priority: small("priority", self.priority, |number| Priority::from_index(number.into()))?,
            display_name: self.display_name.into(),
            labels: self.labels.into_iter().map(|label| (label.key.into(), label.value.into())).collect(),
            batch: self.batch.as_deref().map(|batch| name(batch, BatchId::parse)).transpose()?,
            timeout: Duration::from_nanos(self.timeout),
            retry: RetryPolicy {
                attempts_max: self.attempts_max,
                delay: Duration::from_nanos(self.delay),
                factor: self.factor,
                delay_max: Duration::from_nanos(self.delay_max),
                jitter: self.jitter,
            },
            at_most_once: self.at_most_once,
            durability: match self.durability {
                1 => Durability::Fsync,
                2 => Durability::Memory,
                other => return Err(unknown("durability", other)),
            },
            content_type: self.content_type.into(),
            submitted_by: self.submitted_by.into(),
        })
    }
}

/// A spec without its id and options, which stand beside it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SpecRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) payload: Bytes,
    #[prost(string, repeated, tag = "2")]
    args: Vec<String>,
    #[prost(string, optional, tag = "3")]
    request_id: Option<String>,
    #[prost(uint64, optional, tag = "4")]
    not_before: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    expires_at: Option<u64>,
    /// The payload stands elsewhere, because it is large.
    #[prost(bool, tag = "6")]
    pub(super) payload_apart: bool,
    /// Not there in records of older servers.
    #[prost(message, optional, tag = "7")]
    trace: Option<TraceRecord>,
}

impl From<&Arc<TaskSpec>> for SpecRecord {
    fn from(spec: &Arc<TaskSpec>) -> Self {
        let extras = spec.extras();
        Self {
            payload: TaskSpec::payload_of(spec),
            args: extras.args.iter().map(ToString::to_string).collect(),
            request_id: extras.request_id.as_deref().map(str::to_owned),
            not_before: extras.not_before.map(|at| at.0),
            expires_at: extras.expires_at.map(|at| at.0),
            payload_apart: false,
            trace: extras.trace.as_deref().map(Into::into),
        }
    }
}

impl SpecRecord {
    pub(super) fn into_model(self, id: TaskId, options: Arc<TaskOptions>) -> TaskSpec {
        let extras = TaskExtras {
            args: self.args.into_iter().map(String::into_boxed_str).collect(),
            request_id: self.request_id.map(String::into_boxed_str),
            not_before: self.not_before.map(Timestamp),
            expires_at: self.expires_at.map(Timestamp),
            trace: self.trace.map(|trace| Arc::new(trace.into_model())),
        };
        TaskSpec { id, options, payload: Vec::from(self.payload).into(), extras: extras.boxed() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PayloadRecord {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
    #[prost(string, tag = "2")]
    content_type: String,
}

impl From<&Payload> for PayloadRecord {
    fn from(payload: &Payload) -> Self {
        Self { data: payload.data.clone(), content_type: payload.content_type.to_string() }
    }
}

impl PayloadRecord {
    pub(super) fn into_model(self) -> Payload {
        Payload { data: self.data, content_type: self.content_type.into() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FailureRecord {
    #[prost(uint32, tag = "1")]
    reason: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(string, tag = "3")]
    detail: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
    #[prost(sint32, optional, tag = "5")]
    exit_code: Option<i32>,
    #[prost(sint32, optional, tag = "6")]
    signal: Option<i32>,
    #[prost(bool, tag = "7")]
    retryable: bool,
    #[prost(uint64, optional, tag = "8")]
    retry_after: Option<u64>,
}

impl From<&Failure> for FailureRecord {
    fn from(failure: &Failure) -> Self {
        Self {
            reason: failure.reason as u32,
            message: failure.message.clone(),
            detail: failure.detail.clone(),
            attempt: failure.attempt,
            exit_code: failure.exit_code,
            signal: failure.signal,
            retryable: failure.retryable,
            retry_after: failure.retry_after.map(nanos),
        }
    }
}

impl FailureRecord {
    pub(super) fn into_model(self) -> Result<Failure, Damage> {
        Ok(Failure {
            reason: small("failure reason", self.reason, FailureReason::from_number)?,
            message: self.message,
            detail: self.detail,
            attempt: self.attempt,
            exit_code: self.exit_code,
            signal: self.signal,
            retryable: self.retryable,
            retry_after: self.retry_after.map(Duration::from_nanos),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestRecord {
    #[prost(uint64, tag = "1")]
    requested_at: u64,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(string, tag = "3")]
    requested_by: String,
    #[prost(uint32, tag = "4")]
    mode: u32,
    #[prost(uint64, tag = "5")]
    grace: u64,
}

impl From<&CancelRequest> for RequestRecord {
    fn from(request: &CancelRequest) -> Self {
        Self {
            requested_at: request.requested_at.0,
            reason: request.reason.to_string(),
            requested_by: request.requested_by.to_string(),
            mode: request.mode as u32,
            grace: nanos(request.grace),
        }
    }
}

impl RequestRecord {
    pub(super) fn into_model(self) -> Result<CancelRequest, Damage> {
        Ok(CancelRequest {
            requested_at: Timestamp(self.requested_at),
            reason: self.reason.into(),
            requested_by: self.requested_by.into(),
            mode: match self.mode {
                1 => CancelMode::Graceful,
                2 => CancelMode::Force,
                other => return Err(unknown("cancel mode", other)),
            },
            grace: Duration::from_nanos(self.grace),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReceiptRecord {
    #[prost(message, optional, tag = "1")]
    request: Option<RequestRecord>,
    #[prost(uint64, tag = "2")]
    stopped_at: u64,
    #[prost(uint32, tag = "3")]
    method: u32,
}

impl From<&CancelReceipt> for ReceiptRecord {
    fn from(receipt: &CancelReceipt) -> Self {
        Self {
            request: Some((&receipt.request).into()),
            stopped_at: receipt.stopped_at.0,
            method: receipt.method as u32,
        }
    }
}

impl ReceiptRecord {
    pub(super) fn into_model(self) -> Result<CancelReceipt, Damage> {
        Ok(CancelReceipt {
            request: self.request.ok_or_else(|| damage("a receipt has no request"))?.into_model()?,
            stopped_at: Timestamp(self.stopped_at),
            method: small("stop method", self.method, StopMethod::from_number)?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UsageRecord {
    #[prost(uint64, tag = "1")]
    queue_time: u64,
    #[prost(uint64, tag = "2")]
    run_time: u64,
    #[prost(uint64, optional, tag = "3")]
    cpu_time: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    peak_memory_bytes: Option<u64>,
    #[prost(uint64, tag = "5")]
    output_bytes: u64,
    #[prost(uint64, tag = "6")]
    result_bytes: u64,
}

impl From<&ResourceUsage> for UsageRecord {
    fn from(usage: &ResourceUsage) -> Self {
        Self {
            queue_time: nanos(usage.queue_time),
            run_time: nanos(usage.run_time),
            cpu_time: usage.cpu_time.map(nanos),
            peak_memory_bytes: usage.peak_memory_bytes,
            output_bytes: usage.output_bytes,
            result_bytes: usage.result_bytes,
        }
    }
}

impl UsageRecord {
    pub(super) fn into_model(self) -> ResourceUsage {
        ResourceUsage {
            queue_time: Duration::from_nanos(self.queue_time),
            run_time: Duration::from_nanos(self.run_time),
            cpu_time: self.cpu_time.map(Duration::from_nanos),
            peak_memory_bytes: self.peak_memory_bytes,
            output_bytes: self.output_bytes,
            result_bytes: self.result_bytes,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct CapturedRecord {
    #[prost(bytes = "bytes", tag = "1")]
    head: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    tail: Bytes,
    #[prost(uint64, tag = "3")]
    total: u64,
}

impl From<&Captured> for CapturedRecord {
    fn from(captured: &Captured) -> Self {
        Self { head: captured.head.clone(), tail: captured.tail.clone(), total: captured.total }
    }
}

impl CapturedRecord {
    fn into_model(self) -> Captured {
        Captured { head: self.head, tail: self.tail, total: self.total }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OutputRecord {
    #[prost(message, optional, tag = "1")]
    stdout: Option<CapturedRecord>,
    #[prost(message, optional, tag = "2")]
    stderr: Option<CapturedRecord>,
}

impl From<&Output> for OutputRecord {
    fn from(output: &Output) -> Self {
        let part = |captured: &Captured| (*captured != Captured::default()).then(|| captured.into());
        Self { stdout: part(&output.stdout), stderr: part(&output.stderr) }
    }
}

impl OutputRecord {
    pub(super) fn into_model(self) -> Output {
        let part = |captured: Option<CapturedRecord>| captured.map(CapturedRecord::into_model).unwrap_or_default();
        Output { stdout: part(self.stdout), stderr: part(self.stderr) }
    }
}

/// A status without its result, which has a table of its own.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRecord {
    #[prost(uint32, tag = "1")]
    state: u32,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(uint32, tag = "4")]
    crashes: u32,
    #[prost(uint64, tag = "5")]
    submitted_at: u64,
    #[prost(uint64, tag = "6")]
    eligible_at: u64,
    #[prost(uint64, optional, tag = "7")]
    started_at: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    finished_at: Option<u64>,
    #[prost(string, optional, tag = "9")]
    worker: Option<String>,
    #[prost(message, optional, tag = "10")]
    failure: Option<FailureRecord>,
    #[prost(message, optional, tag = "11")]
    cancel_request: Option<RequestRecord>,
    #[prost(message, optional, tag = "12")]
    cancel_receipt: Option<ReceiptRecord>,
    #[prost(message, optional, tag = "13")]
    usage: Option<UsageRecord>,
    #[prost(uint64, tag = "14")]
    stdout_bytes: u64,
    #[prost(uint64, tag = "15")]
    stderr_bytes: u64,
    /// A small result; a large one has a row of its own.
    #[prost(message, optional, tag = "16")]
    pub(super) result: Option<PayloadRecord>,
}

impl From<&TaskStatus> for StatusRecord {
    fn from(status: &TaskStatus) -> Self {
        Self {
            state: status.state as u32,
            revision: status.revision.0,
            attempt: status.attempt,
            crashes: status.crashes,
            submitted_at: status.submitted_at.0,
            eligible_at: status.eligible_at.0,
            started_at: status.started_at.map(|at| at.0),
            finished_at: status.finished_at.map(|at| at.0),
            worker: status.worker.as_deref().map(str::to_owned),
            failure: status.failure.as_deref().map(Into::into),
            cancel_request: status.cancel_request.as_deref().map(Into::into),
            cancel_receipt: status.cancel_receipt.as_deref().map(Into::into),
            usage: status.usage.as_deref().map(Into::into),
            stdout_bytes: status.stdout_bytes,
            stderr_bytes: status.stderr_bytes,
            result: None,
        }
    }
}

impl StatusRecord {
    pub(super) fn into_model(self) -> Result<TaskStatus, Damage> {
        Ok(TaskStatus {
            state: state(self.state)?,
            revision: Revision(self.revision),
            attempt: self.attempt,
            crashes: self.crashes,
            submitted_at: Timestamp(self.submitted_at),
            eligible_at: Timestamp(self.eligible_at),
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            worker: self.worker.map(Into::into),
            failure: self.failure.map(FailureRecord::into_model).transpose()?.map(Box::new),
            cancel_request: self.cancel_request.map(RequestRecord::into_model).transpose()?.map(Box::new),
            cancel_receipt: self.cancel_receipt.map(ReceiptRecord::into_model).transpose()?.map(Box::new),
            result: self.result.map(PayloadRecord::into_model),
            usage: self.usage.map(|usage| Box::new(usage.into_model())),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
        })
    }
}
