//! Task events.

use crate::model::{Hold, TaskChange, TaskEvent};
use crate::proto::v1;

use super::numbers::to_i32;
use super::task::{batch_id, cancel_receipt, cancel_request, failure, hold, labels, priority, resource_usage, state};
use super::time::timestamp;

pub fn event(event: &TaskEvent) -> v1::TaskEvent {
    let options = &event.options;
    let mut converted = v1::TaskEvent {
        revision: event.revision.0,
        time: Some(timestamp(event.at)),
        task_id: event.task.to_string(),
        state: state(event.state),
        previous_state: state(event.previous),
        attempt: to_i32(event.attempt),
        handler: options.handler.to_string(),
        pool: options.pool.to_string(),
        priority: priority(options.priority),
        batch_id: batch_id(options),
        namespace: options.namespace.to_string(),
        holds: event.holds.iter().map(hold_kind).map(Into::into).collect(),
        limit_hold: event.hold.as_deref().and_then(|waits_for| hold(waits_for, options)),
        ..v1::TaskEvent::default()
    };
    match &event.change {
        TaskChange::Submitted { spec } => {
            converted.previous_state = 0;
            converted.not_before = spec.extras().delay.map(|delay| timestamp(event.at.after(delay)));
            converted.labels = labels(options);
        }
        TaskChange::Updated { .. } => {
            converted.updated = true;
            converted.labels = labels(options);
        }
        TaskChange::Started { worker, .. } => converted.worker = worker.to_string(),
        TaskChange::Completed { usage, .. } => converted.resource_usage = Some(resource_usage(usage)),
        TaskChange::Retrying { failure: error, not_before, usage, .. } => {
            converted.failure = Some(failure(error));
            converted.not_before = Some(timestamp(*not_before));
            converted.resource_usage = Some(resource_usage(usage));
        }
        TaskChange::Failed { failure: error, usage, .. } => {
            converted.failure = Some(failure(error));
            converted.resource_usage = usage.as_deref().map(resource_usage);
        }
        TaskChange::CancelRequested { request } => converted.cancel = Some(cancel_request(request)),
        TaskChange::Cancelled { receipt, usage, .. } => {
            converted.cancel = Some(cancel_receipt(receipt));
            converted.resource_usage = usage.as_deref().map(resource_usage);
        }
        TaskChange::Deleted => converted.deleted = true,
        TaskChange::Eligible | TaskChange::Held | TaskChange::Interrupted { .. } => {}
    }
    converted
}

fn hold_kind(hold: Hold) -> v1::Hold {
    match hold {
        Hold::Delay => v1::Hold::Delay,
        Hold::BackOff => v1::Hold::BackOff,
        Hold::Parents => v1::Hold::Parents,
        Hold::Limit => v1::Hold::Limit,
    }
}
