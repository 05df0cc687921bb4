//! How an event changes a task. Pure functions, shared by both projections and by recovery.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Lease, Output, ResourceUsage, Task, TaskChange, TaskEvent, TaskState, TaskStatus};

/// Applies an event to its task; `None` is a task that does not exist. Apart from `Submitted`, an event of a task that
/// does not exist changes nothing.
pub fn fold(task: &mut Option<Task>, event: &TaskEvent) {
    match &event.change {
        TaskChange::Submitted { spec } => *task = Some(Task { spec: spec.clone(), status: submitted(event) }),
        TaskChange::Deleted => *task = None,
        _ => {
            if let Some(task) = task {
                if let TaskChange::Updated { delay, expires_after, .. } = event.change {
                    Arc::make_mut(&mut task.spec).update(event.options.clone(), delay, expires_after);
                }
                advance(&mut task.status, event);
            }
        }
    }
}

/// The status after a `Submitted` event.
pub fn submitted(event: &TaskEvent) -> TaskStatus {
    let delay = match &event.change {
        TaskChange::Submitted { spec } => spec.extras().delay.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let mut status = TaskStatus::submitted(event.state, event.revision, event.at, event.at.after(delay));
    status.attempt = event.attempt;
    status.hold.clone_from(&event.hold);
    status
}

/// Applies an event other than `Submitted` and `Deleted` to the status of its task.
pub fn advance(status: &mut TaskStatus, event: &TaskEvent) {
    if status.state != event.state {
        status.state = event.state;
        status.since = event.at;
        status.interrupted = matches!(event.change, TaskChange::Interrupted { .. });
    }
    status.revision = event.revision;
    status.attempt = event.attempt;
    status.hold.clone_from(&event.hold);
    status.produced_bytes += event.content_bytes() as u64;
    match &event.change {
        TaskChange::Submitted { .. } | TaskChange::Deleted => {}
        TaskChange::Updated { delay, .. } => {
            status.since = event.at;
            if event.state == TaskState::Waiting {
                status.eligible_at = status.submitted_at.after(delay.unwrap_or_default());
            } else if event.previous == TaskState::Waiting {
                status.eligible_at = event.at;
            }
        }
        TaskChange::Held => status.since = event.at,
        TaskChange::Eligible => status.eligible_at = event.at,
        TaskChange::Started { worker, lease, .. } => {
            status.worker = Some(worker.clone());
            status.remote_fence = match lease {
                Lease::Remote { fence } => Some(*fence),
                Lease::Local { .. } => None,
            };
            status.started_at = Some(event.at);
            // Of an earlier attempt; the events have it.
            status.failure = None;
        }
        TaskChange::Completed { result, usage, output, artifacts } => {
            status.result = Some(result.clone());
            status.artifacts.clone_from(artifacts);
            status.crashes = 0;
            end_attempt(status, Some(&**usage), output.as_deref());
            finish(status, event);
        }
        TaskChange::Retrying { failure, not_before, usage, output } => {
            status.failure = Some(failure.clone());
            status.crashes = 0;
            status.eligible_at = *not_before;
            end_attempt(status, Some(&**usage), output.as_deref());
        }
        TaskChange::Failed { failure, usage, output } => {
            status.failure = Some(failure.clone());
            status.crashes = 0;
            end_attempt(status, usage.as_deref(), output.as_deref());
            finish(status, event);
        }
        TaskChange::Interrupted { cause } => {
            status.crashes += u32::from(cause.counts_as_crash());
            status.eligible_at = event.at;
        }
        TaskChange::CancelRequested { request } => status.cancel_request = Some(request.clone()),
        TaskChange::Cancelled { receipt, usage, output } => {
            status.cancel_receipt = Some(receipt.clone());
            status.failure = None;
            end_attempt(status, usage.as_deref(), output.as_deref());
            finish(status, event);
        }
    }
}

/// The output of the attempt that the event ended.
pub fn output_of(event: &TaskEvent) -> Option<&Output> {
    match &event.change {
        TaskChange::Completed { output, .. }
        | TaskChange::Retrying { output, .. }
        | TaskChange::Failed { output, .. }
        | TaskChange::Cancelled { output, .. } => output.as_deref(),
        _ => None,
    }
}

fn end_attempt(status: &mut TaskStatus, usage: Option<&ResourceUsage>, output: Option<&Output>) {
    // No attempt was running: keep the numbers of the last one.
    if usage.is_none() && output.is_none() {
        return;
    }
    status.usage = usage.map(|usage| Box::new(usage.clone()));
    status.stdout_bytes = output.map_or(0, |output| output.stdout.total);
    status.stderr_bytes = output.map_or(0, |output| output.stderr.total);
}

/// Resolves the number of an attempt that has ended; `attempt` 0 means the last one.
pub fn ended_attempt(status: &TaskStatus, attempt: u32) -> Option<u32> {
    let running = u32::from(status.state == TaskState::Running);
    let last = status.attempt.saturating_sub(running);
    let wanted = if attempt == 0 { last } else { attempt };
    (1..=last).contains(&wanted).then_some(wanted)
}

fn finish(status: &mut TaskStatus, event: &TaskEvent) {
    status.finished_at = Some(event.at);
    status.cancel_request = None;
}
