//! ExplainTask: what keeps a task from starting.

use tonic::Status;

use crate::api::auth::Caller;
use crate::api::convert::explain;
use crate::api::status::into_status;
use crate::model::Role;
use crate::proto::v1;
use crate::scheduler::{Handle, TaskParts};

pub async fn explain(
    handle: &Handle,
    request: &v1::ExplainTaskRequest,
    caller: &Caller,
) -> Result<v1::ExplainTaskResponse, Status> {
    // Without the result, whose memory is returned at once.
    let (snapshot, _) = caller.find(handle, Role::Viewer, &request.task_id, TaskParts::default()).await?;
    let explanation = handle.explain(&snapshot.task.spec.id).await.map_err(into_status)?;
    Ok(explain::response(&snapshot, explanation, handle.now()))
}
