//! How one event changes one task. Pure; the same for both projections and for recovery.

use crate::model::{Change, Event, InterruptCause, Output, ResourceUsage, Task, TaskStatus};

/// Applies an event to the task that it is about; `None` stands for a task that is not there.
///
/// An event about a task whose submission is not known changes nothing.
pub fn fold(task: &mut Option<Task>, event: &Event) {
    match &event.change {
        Change::Submitted { spec } => *task = Some(Task { spec: spec.clone(), status: submitted(event) }),
        Change::Deleted => *task = None,
        _ => {
            if let Some(task) = task {
                advance(&mut task.status, event);
            }
        }
    }
}

/// The status that a `Submitted` event begins with.
pub(super) fn submitted(event: &Event) -> TaskStatus {
    let not_before = match &event.change {
        Change::Submitted { spec } => spec.extras().not_before,
        _ => None,
    };
    let mut status = TaskStatus::submitted(event.state, event.revision, event.at, not_before.unwrap_or(event.at));
    status.attempt = event.attempt;
    status
}

/// Applies an event other than `Submitted` and `Deleted` to the status of its task.
pub(super) fn advance(status: &mut TaskStatus, event: &Event) {
    status.state = event.state;
    status.revision = event.revision;
    status.attempt = event.attempt;
    match &event.change {
        Change::Submitted { .. } | Change::Deleted => {}
        Change::Eligible => status.eligible_at = event.at,
        Change::Started { worker } => {
            status.worker = Some(worker.clone());
            status.started_at = Some(event.at);
        }
        Change::Completed { result, usage, output } => {
            status.result = Some(result.clone());
            status.crashes = 0;
            end_attempt(status, Some(&**usage), output.as_deref());
            finish(status, event);
        }
        Change::Retrying { failure, not_before, usage, output } => {
            status.failure = Some(failure.clone());
            status.crashes = 0;
            status.eligible_at = *not_before;
            end_attempt(status, Some(&**usage), output.as_deref());
        }
        Change::Failed { failure, usage, output } => {
            status.failure = Some(failure.clone());
            status.crashes = 0;
            end_attempt(status, usage.as_deref(), output.as_deref());
            finish(status, event);
        }
        Change::Interrupted { cause } => {
            if *cause == InterruptCause::Crash {
                status.crashes += 1;
            }
            status.eligible_at = event.at;
        }
        Change::CancelRequested { request } => status.cancel_request = Some(request.clone()),
        Change::Cancelled { receipt, usage, output } => {
            status.cancel_receipt = Some(receipt.clone());
            end_attempt(status, usage.as_deref(), output.as_deref());
            finish(status, event);
        }
    }
}

/// What the event says was written by the attempt that it ended.
pub(super) fn output_of(event: &Event) -> Option<&Output> {
    match &event.change {
        Change::Completed { output, .. }
        | Change::Retrying { output, .. }
        | Change::Failed { output, .. }
        | Change::Cancelled { output, .. } => output.as_deref(),
        _ => None,
    }
}

/// A usage is there whenever an attempt ended; without one, the last attempt's numbers stay.
fn end_attempt(status: &mut TaskStatus, usage: Option<&ResourceUsage>, output: Option<&Output>) {
    if usage.is_none() && output.is_none() {
        return;
    }
    status.usage = usage.map(|usage| Box::new(usage.clone()));
    status.stdout_bytes = output.map_or(0, |output| output.stdout.total);
    status.stderr_bytes = output.map_or(0, |output| output.stderr.total);
}

fn finish(status: &mut TaskStatus, event: &Event) {
    status.finished_at = Some(event.at);
    status.cancel_request = None;
}
