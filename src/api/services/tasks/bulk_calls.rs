//! CancelTasks, RetryTasks, UpdateTasks, and the preview of DeleteTasks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use ring::digest::{SHA256, digest};
use tokio::sync::RwLock;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::api::auth::{Caller, audit};
use crate::api::convert::InvalidFields;
use crate::api::convert::filter::request_id;
use crate::api::convert::numbers::to_i64;
use crate::api::convert::update::task_update;
use crate::api::status::into_status;
use crate::model::{Revision, Role, Task, TaskFilter, TaskId, TaskState, limits};
use crate::proto::v1;
use crate::scheduler::{CancelCommand, Handle};

use super::bulk::{Counts, Outcome, Selection, at_once, one_by_one, run};
use super::cancel::cancel_mode;
use super::{retry, update};

const UNFINISHED: [TaskState; 3] = [TaskState::Waiting, TaskState::Queued, TaskState::Running];
const NOT_RUNNING: [TaskState; 2] = [TaskState::Waiting, TaskState::Queued];
const FINISHED: [TaskState; 3] = [TaskState::Completed, TaskState::Failed, TaskState::Cancelled];

pub fn cancel(
    handle: Handle,
    request: v1::CancelTasksRequest,
    caller: Caller,
) -> Result<BoxStream<v1::CancelTasksResponse>, Status> {
    let mut invalid = InvalidFields::default();
    invalid.check_length("reason", request.reason.len(), limits::REASON_BYTES_MAX, "bytes");
    let grace = invalid.duration("grace", request.grace.as_ref(), Duration::ZERO..=limits::GRACE_MAX);
    let mode = cancel_mode(&mut invalid, request.mode);
    invalid.check().map_err(into_status)?;
    let filter = caller.filter(Role::Submitter, request.filter)?;
    let filter = in_states(filter, &UNFINISHED, &UNFINISHED)?;
    let (reason, by): (Box<str>, Box<str>) = (request.reason.into(), caller.name().into());
    let selection = Selection::new(handle.clone(), caller.share_name(), filter);
    let act = move |tasks: Vec<Task>| {
        let command = |task: Task| {
            let (id, reason, by) = (task.spec.id.clone(), reason.clone(), by.clone());
            CancelCommand { id, reason, by, mode, grace }
        };
        let (handle, commands) = (handle.clone(), tasks.into_iter().map(command).collect());
        let outcome = |state| if state == TaskState::Cancelled { Outcome::Done } else { Outcome::Stopping };
        at_once(async move { handle.cancel_each(commands).await }, outcome)
    };
    let respond = |counts: Counts| v1::CancelTasksResponse {
        matched: to_i64(counts.matched),
        cancelled: to_i64(counts.done),
        stopping: to_i64(counts.stopping),
        skipped: to_i64(counts.skipped),
    };
    let ended = recorder(caller, "CancelTasks", request.validate_only);
    Ok(Box::pin(run(selection, request.validate_only, act, respond, ended)))
}

pub fn retry(
    handle: Handle,
    request: v1::RetryTasksRequest,
    caller: Caller,
) -> Result<BoxStream<v1::RetryTasksResponse>, Status> {
    let mut invalid = InvalidFields::default();
    let call_id = request_id(&mut invalid, &request.request_id);
    if v1::Priority::try_from(request.priority).is_err() {
        invalid.add("priority", format_args!("is {}, must be from 0 to 4", request.priority));
    }
    invalid.check().map_err(into_status)?;
    let filter = caller.filter(Role::Submitter, request.filter)?;
    let filter = in_states(filter, &FINISHED, &[TaskState::Failed])?;
    let selection = Selection::new(handle.clone(), caller.share_name(), filter);
    let caller = Arc::new(caller);
    let by = caller.clone();
    // The lock is fair: a task with parents waits for the retries before it, among which those of its parents may be, and the tasks
    // behind it wait for it.
    let turns = Arc::new(RwLock::new(()));
    let retry = move |task: Task| {
        let (handle, caller, call_id, turns) = (handle.clone(), by.clone(), call_id.clone(), turns.clone());
        let (priority, payload) = (request.priority, request.payload.clone());
        async move {
            let extras = task.spec.extras();
            let _turn = if extras.dependencies.is_some() {
                Either::Left(turns.write().await)
            } else {
                Either::Right(turns.read().await)
            };
            let of = |id: &TaskId| call_id.as_deref().map(|call| own_request_id(call, id)).unwrap_or_default();
            let is_new = |first: &TaskId| call_id.is_some() && extras.request_id() == Some(&*of(first));
            if extras.retry_of.as_ref().is_some_and(is_new) {
                // By an earlier try of this call.
                return Ok(Outcome::Skipped);
            }
            let (task_id, request_id) = (task.spec.id.to_string(), of(&task.spec.id));
            let again = v1::RetryTaskRequest { task_id, request_id, priority, payload };
            let retried = retry::retry(&handle, again, call_id.as_deref().unwrap_or_default(), &caller).await?;
            Ok(Outcome::New(retried.id.to_string()))
        }
    };
    let act = move |tasks| one_by_one(tasks, retry.clone());
    let respond = |counts: Counts| v1::RetryTasksResponse {
        matched: to_i64(counts.matched),
        retried: to_i64(counts.done),
        skipped: to_i64(counts.skipped),
        task_ids: counts.new,
    };
    let ended = recorder(caller, "RetryTasks", request.validate_only);
    Ok(Box::pin(run(selection, request.validate_only, act, respond, ended)))
}

pub fn update(
    handle: Handle,
    request: v1::UpdateTasksRequest,
    caller: Caller,
) -> Result<BoxStream<v1::UpdateTasksResponse>, Status> {
    let changes = task_update(request.update.as_ref(), handle.now()).map_err(into_status)?;
    let filter = caller.filter(update::role(&changes), request.filter)?;
    let filter = in_states(filter, &NOT_RUNNING, &NOT_RUNNING)?;
    let selection = Selection::new(handle.clone(), caller.share_name(), filter);
    let act = move |tasks: Vec<Task>| {
        let (handle, changes) = (handle.clone(), changes.clone());
        let ids = tasks.iter().map(|task| task.spec.id.clone()).collect();
        at_once(async move { handle.update_each(ids, changes).await }, |_| Outcome::Done)
    };
    let respond = |counts: Counts| v1::UpdateTasksResponse {
        matched: to_i64(counts.matched),
        updated: to_i64(counts.done),
        skipped: to_i64(counts.skipped),
    };
    let ended = recorder(caller, "UpdateTasks", request.validate_only);
    Ok(Box::pin(run(selection, request.validate_only, act, respond, ended)))
}

/// Number of the finished tasks that match.
pub async fn count_finished(handle: Handle, filter: TaskFilter, caller: &Caller) -> Result<u64, Status> {
    let mut selection = Selection::new(handle, caller.share_name(), in_states(filter, &FINISHED, &FINISHED)?);
    let mut count = 0;
    while let Some(found) = selection.find().await? {
        count += found;
    }
    Ok(count)
}

/// Deletes the tasks that match a condition that the scheduler does not know, and returns their number.
pub async fn delete_found(handle: Handle, filter: TaskFilter, caller: &Caller) -> Result<(u64, Revision), Status> {
    let filter = in_states(filter, &FINISHED, &FINISHED)?;
    let states = filter.states.clone();
    let mut selection = Selection::new(handle.clone(), caller.share_name(), filter);
    while selection.find().await?.is_some() {}
    let (mut deleted, mut revision) = (0, handle.revision());
    while let Some((tasks, _)) = selection.take().await? {
        // No IDs would stand for all tasks.
        let ids: Vec<_> = tasks.iter().map(|task| task.spec.id.clone()).collect();
        if ids.is_empty() {
            continue;
        }
        let named = TaskFilter { ids, states: states.clone(), ..TaskFilter::default() };
        let (count, at) = handle.delete(named).await.map_err(into_status)?;
        (deleted, revision) = (deleted + count, at);
    }
    Ok((deleted, revision))
}

/// The filter, limited to those states that the action is for; `usual` if it names none.
fn in_states(filter: TaskFilter, possible: &[TaskState], usual: &[TaskState]) -> Result<TaskFilter, Status> {
    let field = if filter.failure_group.is_some() { "filter.failure_group" } else { "filter.states" };
    let mut states = if filter.states.is_empty() { usual.to_vec() } else { filter.states };
    states.retain(|state| possible.contains(state));
    if states.is_empty() {
        let names: Vec<_> = possible.iter().map(|state| state.name()).collect();
        let description = format!("selects none of the states that the call is for: {}", names.join(", "));
        return Err(into_status(InvalidFields::one(field, description)));
    }
    Ok(TaskFilter { states, ..filter })
}

/// The request ID of the retry of a task by a call with this request ID.
fn own_request_id(call: &str, task: &TaskId) -> String {
    let bytes = digest(&SHA256, format!("{call}\0{task}").as_bytes());
    let number = bytes.as_ref().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
    format!("{number:032x}")
}

fn recorder(
    caller: impl std::borrow::Borrow<Caller> + Send + 'static,
    call: &'static str,
    validate_only: bool,
) -> impl FnOnce(&Counts, &Result<(), Status>) + Send {
    move |counts, result| {
        if !validate_only {
            audit::record(caller.borrow(), call, format_args!("{} tasks", counts.done), result);
        }
    }
}
