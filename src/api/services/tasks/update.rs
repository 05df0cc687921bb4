//! UpdateTask.

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::task;
use crate::api::convert::update::task_update;
use crate::api::status::into_status;
use crate::model::{Priority, Role, TaskUpdate};
use crate::proto::v1;
use crate::scheduler::Handle;

pub async fn update(
    handle: &Handle,
    request: &v1::UpdateTaskRequest,
    caller: &Caller,
) -> Result<v1::UpdateTaskResponse, Status> {
    caller.task_id_candidates(&request.task_id).map_err(into_status)?;
    let update = task_update(request.update.as_ref(), handle.now()).map_err(into_status)?;
    let id = caller.resolve(handle, role(&update), &request.task_id).await?;
    let (state, revision) = handle.update_task(id, update).await.map_err(into_status)?;
    Ok(v1::UpdateTaskResponse { state: task::state(state), revision: revision.0 })
}

/// The role that an update requires: CRITICAL tasks start before those of all other namespaces.
pub fn role(update: &TaskUpdate) -> Role {
    if update.priority == Some(Priority::Critical) { Role::Operator } else { Role::Submitter }
}
