//! CancelTask.

use std::time::Duration;

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::{InvalidFields, task};
use crate::api::status::into_status;
use crate::model::{CancelMode, Role, limits};
use crate::proto::v1;
use crate::scheduler::{CancelCommand, Handle};

pub async fn cancel(
    handle: &Handle,
    request: v1::CancelTaskRequest,
    caller: &Caller,
) -> Result<v1::CancelTaskResponse, Status> {
    let mut invalid = InvalidFields::default();
    invalid.check_length("reason", request.reason.len(), limits::REASON_BYTES_MAX, "bytes");
    let grace = invalid.duration("grace", request.grace.as_ref(), Duration::ZERO..=limits::GRACE_MAX);
    let mode = cancel_mode(&mut invalid, request.mode);
    caller.task_id_candidates(&request.task_id).map_err(into_status)?;
    invalid.check().map_err(into_status)?;
    let id = caller.resolve(handle, Role::Submitter, &request.task_id).await?;
    let cancel = CancelCommand { id, reason: request.reason.into(), by: caller.name().into(), mode, grace };
    let (state, revision) = handle.cancel(cancel).await.map_err(into_status)?;
    Ok(v1::CancelTaskResponse { state: task::state(state), revision: revision.0 })
}

/// The field `mode` of a request.
pub fn cancel_mode(invalid: &mut InvalidFields, number: i32) -> CancelMode {
    match v1::CancelMode::try_from(number) {
        Ok(v1::CancelMode::Force) => CancelMode::Force,
        Ok(_) => CancelMode::Graceful,
        Err(_) => {
            invalid.add("mode", format!("is {number}, must be from 0 to 2"));
            CancelMode::Graceful
        }
    }
}
