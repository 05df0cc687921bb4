//! Submitting one task or a batch.

use tonic::Status;

use crate::api::convert::{InvalidFields, submit, task};
use crate::api::status;
use crate::model::{BatchId, limits};
use crate::proto::v1;
use crate::scheduler::{Accepted, Handle, Submitted};

use super::refused;

/// Sends one task at once; the future resolves when it is durable.
pub fn one(
    handle: &Handle,
    request: v1::SubmitTaskRequest,
    caller: &str,
) -> Result<impl Future<Output = Result<v1::SubmitTaskResponse, Status>> + Send + use<>, Status> {
    let context = submit::Context { handle, now: handle.now(), submitted_by: caller, batch: None, prefix: "" };
    let spec = submit::spec(request, &context).map_err(refused)?;
    let answer = handle.submit(vec![spec]);
    Ok(async move { answer.await.map_err(refused).and_then(accepted) })
}

/// The answer to a submission of one task.
pub fn accepted(submitted: Submitted) -> Result<v1::SubmitTaskResponse, Status> {
    let (revision, durability) = (submitted.revision.0, task::durability(submitted.durability));
    let Some(Accepted { id, state, duplicate }) = submitted.accepted.into_iter().next() else {
        let error = crate::scheduler::Internal { cause: "a submission without an answer".to_owned() };
        return Err(status::of(&error));
    };
    Ok(v1::SubmitTaskResponse { task_id: id.to_string(), state: task::state(state), revision, duplicate, durability })
}

/// Submits all tasks of a batch or none.
pub async fn batch(
    handle: &Handle,
    request: v1::BatchSubmitTasksRequest,
    caller: &str,
) -> Result<v1::BatchSubmitTasksResponse, Status> {
    let mut bad = InvalidFields::default();
    let batch = match request.batch_id.as_str() {
        "" => bad.take("batch_id", BatchId::parse(&handle.new_task_id().to_string())),
        text => bad.take("batch_id", BatchId::parse(text)),
    };
    if request.tasks.is_empty() {
        bad.add("tasks", "is empty, at least 1 task is wanted");
    }
    bad.at_most("tasks", request.tasks.len(), limits::BATCH_TASKS_MAX, "tasks");
    bad.check().map_err(refused)?;
    let now = handle.now();
    let mut specs = Vec::with_capacity(request.tasks.len());
    for (index, task) in request.tasks.into_iter().enumerate() {
        let prefix = Prefix(index);
        let context =
            submit::Context { handle, now, submitted_by: caller, batch: batch.as_ref(), prefix: &prefix.text() };
        specs.push(submit::spec(task, &context).map_err(refused)?);
    }
    let submitted = handle.submit(specs).await.map_err(refused)?;
    Ok(v1::BatchSubmitTasksResponse {
        batch_id: batch.as_ref().map(ToString::to_string).unwrap_or_default(),
        task_ids: submitted.accepted.iter().map(|accepted| accepted.id.to_string()).collect(),
        revision: submitted.revision.0,
        durability: task::durability(submitted.durability),
    })
}

/// Path of an item's fields.
struct Prefix(usize);

impl Prefix {
    fn text(&self) -> String {
        format!("tasks[{}].", self.0)
    }
}
