//! RetryTask: submits an ended task again.

use std::time::Duration;

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::MessagePath;
use crate::api::convert::task::{self, Include};
use crate::api::convert::time;
use crate::api::status::into_status;
use crate::model::{Role, TaskExtras};
use crate::proto::v1;
use crate::scheduler::{Handle, TaskNotFinished, TaskParts};

use super::submit::{self, Converter, SubmittedTask};

/// `call_request_id`: the request ID of the call, from which that of `request` can be derived.
pub async fn retry(
    handle: &Handle,
    request: v1::RetryTaskRequest,
    call_request_id: &str,
    caller: &Caller,
) -> Result<SubmittedTask, Status> {
    // The memory of the ended task is held until its payload is that of the new one.
    let with_payload = TaskParts { payload: true, output: false };
    let (snapshot, _memory) = caller.find(handle, Role::Submitter, &request.task_id, with_payload).await?;
    let (id, state) = (snapshot.task.spec.id.clone(), snapshot.task.status.state);
    if !state.is_terminal() {
        return Err(into_status(TaskNotFinished { task: id, state }));
    }
    let extras = snapshot.task.spec.extras();
    let dependencies = extras.dependencies.clone();
    // An update sets the time from its own call on, and the submission of the ended task is long ago.
    let expires_after = extras.expires_after.filter(|_| !extras.updated);
    let ended = task::snapshot(snapshot, Include { payload: true, result: false });
    let again = once_more(ended, expires_after, request);
    let mut spec = Converter::new(handle, caller, None).convert(again, MessagePath::Root).map_err(into_status)?;
    let extras = spec.extras().clone();
    spec.extras = TaskExtras { retry_of: Some(id), dependencies, ..extras }.boxed();
    submit::one(handle, spec, caller, |refusal| refusal.of_call(call_request_id)).await
}

/// The submission of the ended task, with the changes of the request. Names all fields, so that a new one is not forgotten.
fn once_more(ended: v1::Task, expires_after: Option<Duration>, request: v1::RetryTaskRequest) -> v1::SubmitTaskRequest {
    v1::SubmitTaskRequest {
        handler: ended.handler,
        payload: request.payload.or(ended.payload),
        priority: if request.priority == 0 { ended.priority } else { request.priority },
        request_id: request.request_id,
        pool: ended.pool,
        display_name: ended.display_name,
        labels: ended.labels,
        timeout: ended.timeout,
        retry: ended.retry,
        args: ended.args,
        at_most_once: ended.at_most_once,
        durability: ended.durability,
        namespace: ended.namespace,
        limits: ended.limits,
        unique_key: ended.unique_key,
        fairness_key: ended.fairness_key,
        on_unique_conflict: 0,
        // It is to run.
        reuse_result_within: None,
        // The new task has no delay, has an ID of its own and belongs to no batch.
        task_id: String::new(),
        delay: None,
        batch_id: String::new(),
        // Those of the ended task, which the caller sets.
        dependencies: None,
        // The caller's trace is that of the call.
        trace_mode: 0,
        traceparent: String::new(),
        tracestate: String::new(),
        expires_after: expires_after.map(time::duration),
    }
}
