//! TaskService: each RPC turns its request into a question to the scheduler and the answer back.

mod follow;
mod list;
mod output;
mod sending;
mod stream;
mod submit;

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::model::{CancelMode, TaskFilter, limits};
use crate::proto::v1::{self, task_service_server::TaskService};
use crate::scheduler::{Cancel, Handle};

use super::convert::{self, InvalidFields, Place, filter, task};
use super::status::refused;

/// A body that the server streams.
pub(super) type Body<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) struct Tasks {
    handle: Handle,
}

impl Tasks {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

/// Who calls: the peer's address.
fn caller<T>(request: &Request<T>) -> String {
    request.remote_addr().map_or_else(|| "unknown".to_owned(), |address| address.to_string())
}

#[tonic::async_trait]
impl TaskService for Tasks {
    type SubmitTasksStream = Body<v1::SubmitTasksResponse>;
    type RunTaskStream = Body<v1::RunTaskResponse>;
    type WatchTasksStream = Body<v1::WatchTasksResponse>;
    type ReadOutputStream = Body<v1::ReadOutputResponse>;

    async fn submit_task(
        &self,
        request: Request<v1::SubmitTaskRequest>,
    ) -> Result<Response<v1::SubmitTaskResponse>, Status> {
        let caller = caller(&request);
        let answer = submit::one(&self.handle, request.into_inner(), Place::Whole, &caller)?;
        answer.await.map(Response::new)
    }

    async fn batch_submit_tasks(
        &self,
        request: Request<v1::BatchSubmitTasksRequest>,
    ) -> Result<Response<v1::BatchSubmitTasksResponse>, Status> {
        let caller = caller(&request);
        submit::batch(&self.handle, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn submit_tasks(
        &self,
        request: Request<Streaming<v1::SubmitTasksRequest>>,
    ) -> Result<Response<Self::SubmitTasksStream>, Status> {
        let caller = caller(&request);
        let answers = stream::answers(self.handle.clone(), request.into_inner(), caller);
        Ok(Response::new(answers))
    }

    async fn run_task(&self, request: Request<v1::RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        let caller = caller(&request);
        let task = request.into_inner().task;
        let task = task.ok_or_else(|| refused(InvalidFields::one("task", "is missing")))?;
        let accepted = submit::one(&self.handle, task, Place::Task, &caller)?.await?;
        Ok(Response::new(follow::run(self.handle.clone(), accepted)?))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let request = request.into_inner();
        let id = convert::task_id(&request.task_id).map_err(refused)?;
        let found = self.handle.get(&id).await.map_err(refused)?;
        let revision = found.revision.0;
        let view = task::View { payload: request.include_payload, result: true };
        Ok(Response::new(v1::GetTaskResponse { task: Some(task::found(found, view)), revision }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        list::list(&self.handle, request.into_inner()).await.map(Response::new)
    }

    async fn wait_task(&self, request: Request<v1::WaitTaskRequest>) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let request = request.into_inner();
        let id = convert::task_id(&request.task_id).map_err(refused)?;
        let mut bad = InvalidFields::default();
        let timeout = bad.span("timeout", request.timeout.as_ref(), Duration::ZERO..=limits::WAIT_MAX);
        bad.check().map_err(refused)?;
        let found = self.handle.wait(&id, timeout.unwrap_or(limits::WAIT_DEFAULT)).await.map_err(refused)?;
        let (finished, revision) = (found.task.status.state.is_terminal(), found.revision.0);
        let view = task::View { payload: false, result: true };
        Ok(Response::new(v1::WaitTaskResponse { task: Some(task::found(found, view)), finished, revision }))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let steps = follow::watch(self.handle.clone(), request.into_inner())?;
        Ok(Response::new(steps))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let by = caller(&request).into();
        let request = request.into_inner();
        let id = convert::task_id(&request.task_id).map_err(refused)?;
        let mut bad = InvalidFields::default();
        bad.at_most("reason", request.reason.len(), limits::REASON_BYTES_MAX, "bytes");
        let grace = bad.span("grace", request.grace.as_ref(), Duration::ZERO..=limits::GRACE_MAX);
        let mode = match v1::CancelMode::try_from(request.mode) {
            Ok(v1::CancelMode::Force) => CancelMode::Force,
            Ok(_) => CancelMode::Graceful,
            Err(_) => {
                bad.add("mode", format!("is {}, which is not a mode; those are 0 to 2", request.mode));
                CancelMode::Graceful
            }
        };
        bad.check().map_err(refused)?;
        let cancel = Cancel { id, reason: request.reason.into(), by, mode, grace };
        let (state, revision) = self.handle.cancel(cancel).await.map_err(refused)?;
        Ok(Response::new(v1::CancelTaskResponse { state: task::state(state), revision: revision.0 }))
    }

    async fn delete_tasks(
        &self,
        request: Request<v1::DeleteTasksRequest>,
    ) -> Result<Response<v1::DeleteTasksResponse>, Status> {
        let parsed: TaskFilter = filter::filter(request.into_inner().filter).map_err(refused)?;
        let (deleted, revision) = self.handle.delete(parsed).await.map_err(refused)?;
        Ok(Response::new(v1::DeleteTasksResponse { deleted: task::count(deleted), revision: revision.0 }))
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let pieces = output::read(self.handle.clone(), request.into_inner()).await?;
        Ok(Response::new(pieces))
    }
}
