//! Tasks for the wire.

use crate::model::{
    CancelReceipt, CancelRequest, Durability, Failure, Payload, Priority, ResourceUsage, RetryPolicy, Task, TaskSpec,
    TaskState,
};
use crate::proto::v1;
use crate::scheduler::TaskSnapshot;

use super::time::{duration, timestamp};

/// A byte count for the wire.
pub fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A small number for the wire.
pub fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A state for the wire.
pub fn state(state: TaskState) -> i32 {
    i32::from(state as u8)
}

/// A priority for the wire.
pub fn priority(priority: Priority) -> i32 {
    i32::from(priority as u8) + 1
}

/// A promise for the wire.
pub fn durability(durability: Durability) -> i32 {
    i32::from(durability as u8)
}

/// What of a task is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// Its input.
    pub payload: bool,
    /// Its result.
    pub result: bool,
}

/// A task with its progress.
pub fn found(found: TaskSnapshot, view: View) -> v1::Task {
    let progress = found.progress;
    v1::Task { progress: f64::from(progress.0), progress_note: progress.1, ..task(found.task, view) }
}

/// A task.
pub fn task(task: Task, view: View) -> v1::Task {
    let Task { spec, status } = task;
    let options = &spec.options;
    let payload = Payload { data: TaskSpec::payload_of(&spec), content_type: options.content_type.clone() };
    v1::Task {
        task_id: spec.id.to_string(),
        namespace: options.namespace.to_string(),
        handler: options.handler.to_string(),
        pool: options.pool.to_string(),
        priority: priority(options.priority),
        state: state(status.state),
        display_name: options.display_name.to_string(),
        labels: options.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        batch_id: options.batch.as_ref().map(ToString::to_string).unwrap_or_default(),
        request_id: spec.extras().request_id.as_deref().unwrap_or_default().to_owned(),
        attempt: small(status.attempt),
        retry: Some(retry(&options.retry)),
        timeout: Some(duration(options.timeout)),
        submitted_at: Some(timestamp(status.submitted_at)),
        eligible_at: Some(timestamp(status.eligible_at)),
        started_at: status.started_at.map(timestamp),
        finished_at: status.finished_at.map(timestamp),
        expires_at: spec.extras().expires_at.map(timestamp),
        revision: status.revision.0,
        submitted_by: options.submitted_by.to_string(),
        worker: status.worker.as_deref().unwrap_or_default().to_owned(),
        failure: status.failure.as_deref().map(failure),
        payload: view.payload.then(|| bytes(payload)),
        result: status.result.filter(|_| view.result).map(bytes),
        resource_usage: status.usage.as_deref().map(resource_usage),
        cancel: status.cancel_receipt.as_deref().map(receipt).or_else(|| status.cancel_request.as_deref().map(request)),
        progress: 0.0,
        progress_note: String::new(),
        at_most_once: options.at_most_once,
        durability: durability(options.durability),
        stdout_bytes: count(status.stdout_bytes),
        stderr_bytes: count(status.stderr_bytes),
        args: spec.extras().args.iter().map(ToString::to_string).collect(),
    }
}

/// A retry rule.
pub fn retry(policy: &RetryPolicy) -> v1::RetryPolicy {
    v1::RetryPolicy {
        max_attempts: small(policy.attempts_max),
        delay: Some(duration(policy.delay)),
        factor: policy.factor,
        max_delay: Some(duration(policy.delay_max)),
        jitter: Some(policy.jitter),
    }
}

fn bytes(payload: Payload) -> v1::Payload {
    let content_type = payload.content_type.to_string();
    v1::Payload { kind: Some(v1::payload::Kind::Data(payload.data)), content_type }
}

/// A failure.
pub fn failure(failure: &Failure) -> v1::Failure {
    v1::Failure {
        reason: i32::from(failure.reason as u8),
        message: failure.message.clone(),
        detail: failure.detail.clone(),
        attempt: small(failure.attempt),
        exit_code: failure.exit_code,
        signal: failure.signal,
        retryable: failure.retryable,
    }
}

/// What an attempt cost.
pub fn resource_usage(usage: &ResourceUsage) -> v1::ResourceUsage {
    v1::ResourceUsage {
        queue_time: Some(duration(usage.queue_time)),
        run_time: Some(duration(usage.run_time)),
        cpu_time: usage.cpu_time.map(duration),
        peak_memory_bytes: usage.peak_memory_bytes.map(count),
        output_bytes: count(usage.output_bytes),
        result_bytes: count(usage.result_bytes),
    }
}

/// A cancel that is done.
pub fn receipt(receipt: &CancelReceipt) -> v1::CancelReceipt {
    v1::CancelReceipt {
        stopped_at: Some(timestamp(receipt.stopped_at)),
        method: i32::from(receipt.method as u8),
        ..request(&receipt.request)
    }
}

/// A cancel that is under way.
pub fn request(request: &CancelRequest) -> v1::CancelReceipt {
    v1::CancelReceipt {
        requested_at: Some(timestamp(request.requested_at)),
        stopped_at: None,
        method: 0,
        reason: request.reason.to_string(),
        requested_by: request.requested_by.to_string(),
    }
}
