//! Events for the wire.

use crate::model::{Change, Event};
use crate::proto::v1;

use super::task::{failure, priority, receipt, request, resource_usage, small, state};
use super::time::timestamp;

/// An event.
pub fn event(event: &Event) -> v1::TaskEvent {
    let options = &event.options;
    let mut wire = v1::TaskEvent {
        revision: event.revision.0,
        time: Some(timestamp(event.at)),
        task_id: event.task.to_string(),
        state: state(event.state),
        previous_state: state(event.previous),
        attempt: small(event.attempt),
        handler: options.handler.to_string(),
        pool: options.pool.to_string(),
        priority: priority(options.priority),
        batch_id: options.batch.as_ref().map(ToString::to_string).unwrap_or_default(),
        namespace: options.namespace.to_string(),
        ..v1::TaskEvent::default()
    };
    match &event.change {
        Change::Submitted { spec } => {
            wire.previous_state = 0;
            wire.not_before = spec.extras().not_before.map(timestamp);
            wire.labels = options.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        }
        Change::Started { worker } => wire.worker = worker.to_string(),
        Change::Completed { usage: cost, .. } => wire.resource_usage = Some(resource_usage(cost)),
        Change::Retrying { failure: why, not_before, usage: cost, .. } => {
            wire.failure = Some(failure(why));
            wire.not_before = Some(timestamp(*not_before));
            wire.resource_usage = Some(resource_usage(cost));
        }
        Change::Failed { failure: why, usage: cost, .. } => {
            wire.failure = Some(failure(why));
            wire.resource_usage = cost.as_deref().map(resource_usage);
        }
        Change::CancelRequested { request: wish } => wire.cancel = Some(request(wish)),
        Change::Cancelled { receipt: proof, usage: cost, .. } => {
            wire.cancel = Some(receipt(proof));
            wire.resource_usage = cost.as_deref().map(resource_usage);
        }
        Change::Deleted => wire.deleted = true,
        Change::Eligible | Change::Interrupted { .. } => {}
    }
    wire
}
