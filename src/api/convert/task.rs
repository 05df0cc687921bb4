//! Tasks and the messages they consist of.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::model::{
    Artifact, BatchId, BatchKey, CancelReceipt, CancelRequest, Durability, Failure, OutputExcerpt, Payload, Priority,
    ResourceUsage, RetryPolicy, StreamExcerpt, Task, TaskOptions, TaskSpec, TaskState, trace::TraceContext,
};
use crate::proto::v1;
use crate::scheduler::TaskSnapshot;

use super::dependencies::task_dependencies;
use super::numbers::{to_i32, to_i64};
pub use super::task_limit::{hold, limits_of};
use super::time::{duration, timestamp};

pub fn state(state: TaskState) -> i32 {
    i32::from(state as u8)
}

pub fn priority(priority: Priority) -> i32 {
    i32::from(priority as u8) + 1
}

pub fn durability(durability: Durability) -> i32 {
    i32::from(durability as u8)
}

/// The text of the batch of a task; empty if it has none.
pub fn batch_id(options: &TaskOptions) -> String {
    let key = |id: &BatchId| BatchKey { namespace: options.namespace.clone(), id: id.clone() };
    options.batch.as_ref().map(|id| key(id).to_string()).unwrap_or_default()
}

/// Parts of a task that are only included on request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Include {
    pub payload: bool,
    pub result: bool,
}

/// Converts a task together with its progress, the IDs of its parents, its artifacts, and the excerpt of its output.
pub fn snapshot(snapshot: TaskSnapshot, include: Include) -> v1::Task {
    let (progress, progress_note) = snapshot.progress;
    let dependencies = snapshot.task.spec.extras().dependencies.as_deref();
    let dependencies = dependencies.map(|parents| task_dependencies(parents, true, snapshot.unfinished_parents));
    let artifacts = snapshot.task.status.artifacts.as_deref().filter(|_| include.result);
    let artifacts = artifacts.map(|list| list.files.iter().map(artifact).collect()).unwrap_or_default();
    let output = snapshot.output.map(output_excerpt);
    v1::Task {
        progress: progress.into(),
        progress_note,
        dependencies,
        artifacts,
        output,
        ..task(snapshot.task, include)
    }
}

fn output_excerpt(output: OutputExcerpt) -> v1::OutputExcerpt {
    let stream =
        |StreamExcerpt { head, omitted, tail }| v1::StreamExcerpt { head, omitted_bytes: to_i64(omitted), tail };
    v1::OutputExcerpt {
        attempt: to_i32(output.attempt),
        stdout: output.stdout.map(stream),
        stderr: output.stderr.map(stream),
    }
}

/// Converts an artifact, without a link.
pub fn artifact(file: &Artifact) -> v1::Artifact {
    let mut sha256 = String::new();
    for byte in file.sha256 {
        // Writing to a text cannot fail.
        let _ = write!(sha256, "{byte:02x}");
    }
    v1::Artifact {
        name: file.name.to_string(),
        content_type: file.content_type.to_string(),
        size_bytes: to_i64(file.bytes),
        sha256,
        link: String::new(),
    }
}

/// Converts a task without its progress, the IDs of its parents, its artifacts and its output.
pub fn task(task: Task, include: Include) -> v1::Task {
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
        labels: labels(options),
        batch_id: batch_id(options),
        request_id: spec.extras().request_id().unwrap_or_default().to_owned(),
        attempt: to_i32(status.attempt),
        retry: Some(retry(&options.retry)),
        timeout: Some(duration(options.timeout)),
        submitted_at: Some(timestamp(status.submitted_at)),
        eligible_at: Some(timestamp(status.eligible_at)),
        started_at: status.started_at.map(timestamp),
        finished_at: status.finished_at.map(timestamp),
        expires_at: spec.extras().expires_after.map(|after| timestamp(status.submitted_at.after(after))),
        revision: status.revision.0,
        submitted_by: options.submitted_by.to_string(),
        worker: status.worker.as_deref().unwrap_or_default().to_owned(),
        failure: status.failure.as_deref().map(failure),
        payload: include.payload.then(|| convert_payload(payload)),
        result: status.result.filter(|_| include.result).map(convert_payload),
        resource_usage: status.usage.as_deref().map(resource_usage),
        cancel: status
            .cancel_receipt
            .as_deref()
            .map(cancel_receipt)
            .or_else(|| status.cancel_request.as_deref().map(cancel_request)),
        progress: 0.0,
        progress_note: String::new(),
        at_most_once: options.at_most_once,
        durability: durability(options.durability),
        stdout_bytes: to_i64(status.stdout_bytes),
        stderr_bytes: to_i64(status.stderr_bytes),
        args: spec.extras().args.iter().map(ToString::to_string).collect(),
        retry_of: spec.extras().retry_of.as_ref().map(ToString::to_string).unwrap_or_default(),
        dependencies: spec.extras().dependencies.as_deref().map(|parents| task_dependencies(parents, false, None)),
        limits: limits_of(options),
        limit_hold: status.hold.as_deref().and_then(|waits_for| hold(waits_for, options)),
        trace_id: spec.extras().trace.as_deref().and_then(TraceContext::trace_id_text).unwrap_or_default(),
        unique_key: spec.extras().unique.as_ref().map(|unique| unique.key.to_string()).unwrap_or_default(),
        artifacts: Vec::new(),
        fairness_key: options.fairness_key.as_ref().map(ToString::to_string).unwrap_or_default(),
        output: None,
    }
}

pub fn labels(options: &TaskOptions) -> BTreeMap<String, String> {
    options.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

pub fn retry(policy: &RetryPolicy) -> v1::RetryPolicy {
    v1::RetryPolicy {
        max_attempts: to_i32(policy.attempts_max),
        delay: Some(duration(policy.delay)),
        factor: policy.factor,
        max_delay: Some(duration(policy.delay_max)),
        jitter: Some(policy.jitter),
    }
}

fn convert_payload(payload: Payload) -> v1::Payload {
    let content_type = payload.content_type.to_string();
    v1::Payload { kind: Some(v1::payload::Kind::Data(payload.data)), content_type }
}

pub fn failure(failure: &Failure) -> v1::Failure {
    v1::Failure {
        reason: i32::from(failure.reason as u8),
        message: failure.message.clone(),
        detail: failure.detail.clone(),
        attempt: to_i32(failure.attempt),
        exit_code: failure.exit_code,
        signal: failure.signal,
        retryable: failure.retryable,
    }
}

pub fn resource_usage(usage: &ResourceUsage) -> v1::ResourceUsage {
    v1::ResourceUsage {
        queue_time: Some(duration(usage.queue_time)),
        run_time: Some(duration(usage.run_time)),
        cpu_time: usage.cpu_time.map(duration),
        peak_memory_bytes: usage.peak_memory_bytes.map(to_i64),
        output_bytes: to_i64(usage.output_bytes),
        result_bytes: to_i64(usage.result_bytes),
        output_incomplete: usage.output_incomplete,
    }
}

/// Converts a completed cancellation.
pub fn cancel_receipt(receipt: &CancelReceipt) -> v1::CancelReceipt {
    v1::CancelReceipt {
        stopped_at: Some(timestamp(receipt.stopped_at)),
        method: i32::from(receipt.method as u8),
        ..cancel_request(&receipt.request)
    }
}

/// Converts a cancellation in progress.
pub fn cancel_request(request: &CancelRequest) -> v1::CancelReceipt {
    v1::CancelReceipt {
        requested_at: Some(timestamp(request.requested_at)),
        stopped_at: None,
        method: 0,
        reason: request.reason.to_string(),
        requested_by: request.requested_by.to_string(),
    }
}
