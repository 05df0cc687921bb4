//! The values inside records: payloads, failures, cancellations, resource usage and output.
//!
//! Times are microseconds since the Unix epoch; durations are nanoseconds.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::corruption::Corruption;
use crate::model::{
    CancelMode, CancelReceipt, CancelRequest, Captured, Failure, FailureReason, Output, Payload, ResourceUsage,
    StopMethod, Timestamp,
};

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn name<T, E: Display>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Corruption> {
    parse(text).map_err(|error| Corruption::new(format!("invalid name {text:?}: {error}")))
}

pub(super) fn unknown(what: &str, number: u32) -> Corruption {
    Corruption::new(format!("unknown {what} {number}"))
}

/// Decodes the number of an enum variant.
pub(super) fn variant<T>(what: &str, number: u32, decode: impl FnOnce(u8) -> Option<T>) -> Result<T, Corruption> {
    u8::try_from(number).ok().and_then(decode).ok_or_else(|| unknown(what, number))
}

#[derive(Clone, PartialEq, Message)]
pub struct PayloadRecord {
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
    pub fn into_model(self) -> Payload {
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
    pub(super) fn into_model(self) -> Result<Failure, Corruption> {
        Ok(Failure {
            reason: variant("failure reason", self.reason, FailureReason::from_number)?,
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
    pub(super) fn into_model(self) -> Result<CancelRequest, Corruption> {
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
    pub(super) fn into_model(self) -> Result<CancelReceipt, Corruption> {
        Ok(CancelReceipt {
            request: self.request.ok_or_else(|| Corruption::new("cancel receipt without request"))?.into_model()?,
            stopped_at: Timestamp(self.stopped_at),
            method: variant("stop method", self.method, StopMethod::from_number)?,
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
    pub result_bytes: u64,
    #[prost(bool, tag = "7")]
    output_incomplete: bool,
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
            output_incomplete: usage.output_incomplete,
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
            output_incomplete: self.output_incomplete,
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
pub struct OutputRecord {
    #[prost(message, optional, tag = "1")]
    stdout: Option<CapturedRecord>,
    #[prost(message, optional, tag = "2")]
    stderr: Option<CapturedRecord>,
}

impl From<&Output> for OutputRecord {
    fn from(output: &Output) -> Self {
        let record = |captured: &Captured| (*captured != Captured::default()).then(|| captured.into());
        Self { stdout: record(&output.stdout), stderr: record(&output.stderr) }
    }
}

impl OutputRecord {
    pub fn into_model(self) -> Output {
        let captured = |record: Option<CapturedRecord>| record.map(CapturedRecord::into_model).unwrap_or_default();
        Output { stdout: captured(self.stdout), stderr: captured(self.stderr) }
    }
}
