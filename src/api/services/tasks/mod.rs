//! TaskService: each RPC turns its request into a question to the scheduler and the answer back.

mod list;
mod output;
mod send_span;
mod submit;
mod submit_stream;
mod watch;

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::model::{CancelMode, Role, limits};
use crate::proto::v1::{self, task_service_server::TaskService};
use crate::scheduler::{Cancel, Handle};

use crate::api::auth::{Caller, CallerExtractor, audit};
use crate::api::convert::{InvalidFields, Place, task};
use crate::api::status::refused;

/// A body that the server streams.
pub type Body<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub struct Tasks {
    handle: Handle,
    callers: CallerExtractor,
}

impl Tasks {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }

    async fn cancel(&self, request: v1::CancelTaskRequest, caller: &Caller) -> Result<v1::CancelTaskResponse, Status> {
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
        caller.task_id_candidates(&request.task_id).map_err(refused)?;
        bad.check().map_err(refused)?;
        let id = caller.resolve(&self.handle, Role::Submitter, &request.task_id).await?;
        let cancel = Cancel { id, reason: request.reason.into(), by: caller.name().into(), mode, grace };
        let (state, revision) = self.handle.cancel(cancel).await.map_err(refused)?;
        Ok(v1::CancelTaskResponse { state: task::state(state), revision: revision.0 })
    }

    async fn delete(
        &self,
        request: v1::DeleteTasksRequest,
        caller: &Caller,
    ) -> Result<v1::DeleteTasksResponse, Status> {
        let parsed = caller.filter(Role::Operator, request.filter)?;
        let (deleted, revision) = self.handle.delete(parsed).await.map_err(refused)?;
        Ok(v1::DeleteTasksResponse { deleted: task::count(deleted), revision: revision.0 })
    }
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
        let caller = self.callers.extract(&request)?;
        let answer = match submit::one(&self.handle, request.into_inner(), Place::Whole, &caller) {
            Ok(answer) => answer.await,
            Err(status) => Err(status),
        };
        audit::submission(&caller, "SubmitTask", |accepted| accepted.task_id.clone(), &answer);
        answer.map(Response::new)
    }

    async fn batch_submit_tasks(
        &self,
        request: Request<v1::BatchSubmitTasksRequest>,
    ) -> Result<Response<v1::BatchSubmitTasksResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let answer = submit::batch(&self.handle, request.into_inner(), &caller).await;
        let what = |batch: &v1::BatchSubmitTasksResponse| {
            format!("batch {} of {} tasks", batch.batch_id, batch.task_ids.len())
        };
        audit::submission(&caller, "BatchSubmitTasks", what, &answer);
        answer.map(Response::new)
    }

    async fn submit_tasks(
        &self,
        request: Request<Streaming<v1::SubmitTasksRequest>>,
    ) -> Result<Response<Self::SubmitTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let answers = submit_stream::answers(self.handle.clone(), request.into_inner(), caller);
        Ok(Response::new(answers))
    }

    async fn run_task(&self, request: Request<v1::RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let task = request.into_inner().task;
        let task = task.ok_or_else(|| refused(InvalidFields::one("task", "is missing")))?;
        let answer = match submit::one(&self.handle, task, Place::Task, &caller) {
            Ok(answer) => answer.await,
            Err(status) => Err(status),
        };
        audit::submission(&caller, "RunTask", |accepted| accepted.task_id.clone(), &answer);
        Ok(Response::new(watch::run(self.handle.clone(), answer?)?))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let found = caller.find(&self.handle, Role::Viewer, &request.task_id).await?;
        let revision = found.revision.0;
        let view = task::View { payload: request.include_payload, result: true };
        Ok(Response::new(v1::GetTaskResponse { task: Some(task::found(found, view)), revision }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        list::list(&self.handle, request.into_inner(), &caller).await.map(Response::new)
    }

    async fn wait_task(&self, request: Request<v1::WaitTaskRequest>) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        caller.task_id_candidates(&request.task_id).map_err(refused)?;
        let mut bad = InvalidFields::default();
        let timeout = bad.span("timeout", request.timeout.as_ref(), Duration::ZERO..=limits::WAIT_MAX);
        bad.check().map_err(refused)?;
        let id = caller.resolve(&self.handle, Role::Viewer, &request.task_id).await?;
        let found = self.handle.wait(&id, timeout.unwrap_or(limits::WAIT_DEFAULT)).await.map_err(refused)?;
        let (finished, revision) = (found.task.status.state.is_terminal(), found.revision.0);
        let view = task::View { payload: false, result: true };
        Ok(Response::new(v1::WaitTaskResponse { task: Some(task::found(found, view)), finished, revision }))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let steps = watch::watch(self.handle.clone(), request.into_inner(), &caller)?;
        Ok(Response::new(steps))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let what = request.task_id.clone();
        let answer = self.cancel(request, &caller).await;
        audit::record(&caller, "CancelTask", audit::name(&what), &answer);
        answer.map(Response::new)
    }

    async fn delete_tasks(
        &self,
        request: Request<v1::DeleteTasksRequest>,
    ) -> Result<Response<v1::DeleteTasksResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let answer = self.delete(request.into_inner(), &caller).await;
        let what = answer.as_ref().map_or_else(|_| String::new(), |answer| format!("{} tasks", answer.deleted));
        audit::record(&caller, "DeleteTasks", what, &answer);
        answer.map(Response::new)
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let pieces = output::read(self.handle.clone(), request.into_inner(), &caller).await?;
        Ok(Response::new(pieces))
    }
}
