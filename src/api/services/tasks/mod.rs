//! TaskService: submit, run, read, watch, cancel, update and delete tasks.

mod bulk;
mod bulk_calls;
pub(super) mod cancel;
mod explain;
mod failures;
mod limit_list;
mod list;
mod output;
mod retry;
mod send_span;
mod submit;
mod submit_stream;
mod update;
mod watch;

use std::time::Duration;

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::auth::{CallerExtractor, audit};
use crate::api::convert::numbers::to_i64;
use crate::api::convert::{InvalidFields, MessagePath, task};
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::into_status;
use crate::model::{Role, limits};
use crate::proto::v1::{self, task_service_server::TaskService};
use crate::scheduler::{Handle, TaskParts};

pub(super) use submit::Converter;

pub struct Tasks {
    handle: Handle,
    callers: CallerExtractor,
}

impl Tasks {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }
}

#[tonic::async_trait]
impl TaskService for Tasks {
    type SubmitTasksStream = BoxStream<v1::SubmitTasksResponse>;
    type RunTaskStream = BoxStream<v1::RunTaskResponse>;
    type WatchTasksStream = BoxStream<v1::WatchTasksResponse>;
    type ReadOutputStream = BoxStream<v1::ReadOutputResponse>;
    type CancelTasksStream = BoxStream<v1::CancelTasksResponse>;
    type RetryTasksStream = BoxStream<v1::RetryTasksResponse>;
    type UpdateTasksStream = BoxStream<v1::UpdateTasksResponse>;

    async fn submit_task(
        &self,
        request: Request<v1::SubmitTaskRequest>,
    ) -> Result<Response<v1::SubmitTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let handle = self.handle.used_by(caller.sharer.clone());
        let submitted = submit::request(&handle, request.into_inner(), MessagePath::Root, &caller).await;
        audit::submission(&caller, "SubmitTask", |task| task.id.to_string(), &submitted);
        submitted.map(|task| Response::new(task.into()))
    }

    async fn batch_submit_tasks(
        &self,
        request: Request<v1::BatchSubmitTasksRequest>,
    ) -> Result<Response<v1::BatchSubmitTasksResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let handle = self.handle.used_by(caller.sharer.clone());
        let response = submit::batch(&handle, request.into_inner(), &caller).await;
        let subject = |batch: &v1::BatchSubmitTasksResponse| {
            format!("batch {} of {} tasks", batch.batch_id, batch.task_ids.len())
        };
        audit::submission(&caller, "BatchSubmitTasks", subject, &response);
        response.map(Response::new)
    }

    async fn submit_tasks(
        &self,
        request: Request<Streaming<v1::SubmitTasksRequest>>,
    ) -> Result<Response<Self::SubmitTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = ResponseMemory::Stream(caller.share_name());
        let handle = self.handle.used_by(caller.sharer.clone());
        Ok(memory.attach_to(submit_stream::responses(handle, request.into_inner(), caller)))
    }

    async fn run_task(&self, request: Request<v1::RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let task = request.into_inner().task;
        let task = task.ok_or_else(|| into_status(InvalidFields::one("task", "is required")))?;
        let handle = self.handle.used_by(caller.sharer.clone());
        let submitted = submit::request(&handle, task, MessagePath::Task, &caller).await;
        audit::submission(&caller, "RunTask", |task| task.id.to_string(), &submitted);
        let messages = watch::run(self.handle.clone(), submitted?, caller.share_name())?;
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(messages))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let parts = TaskParts { payload: request.include_payload, output: request.include_output };
        let (snapshot, memory) = caller.find(&self.handle, Role::Viewer, &request.task_id, parts).await?;
        let revision = snapshot.revision.0;
        let include = task::Include { payload: request.include_payload, result: true };
        let response = v1::GetTaskResponse { task: Some(task::snapshot(snapshot, include)), revision };
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn explain_task(
        &self,
        request: Request<v1::ExplainTaskRequest>,
    ) -> Result<Response<v1::ExplainTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        explain::explain(&self.handle, &request.into_inner(), &caller).await.map(Response::new)
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = self.handle.reserve_response(&caller.share_name(), list::BYTES_MAX).await.map_err(into_status)?;
        let response = list::list(&self.handle, request.into_inner(), &caller).await?;
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn list_failure_groups(
        &self,
        request: Request<v1::ListFailureGroupsRequest>,
    ) -> Result<Response<v1::ListFailureGroupsResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let share = caller.share_name();
        let memory = self.handle.reserve_response(&share, failures::BYTES_MAX).await.map_err(into_status)?;
        let response = failures::list(&self.handle, request.into_inner(), &caller).await?;
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn list_limits(
        &self,
        request: Request<v1::ListLimitsRequest>,
    ) -> Result<Response<v1::ListLimitsResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory =
            self.handle.reserve_response(&caller.share_name(), limit_list::BYTES_MAX).await.map_err(into_status)?;
        let response = limit_list::list(&self.handle, request.into_inner(), &caller).await?;
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn wait_task(&self, request: Request<v1::WaitTaskRequest>) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        caller.task_id_candidates(&request.task_id).map_err(into_status)?;
        let mut invalid = InvalidFields::default();
        let timeout = invalid.duration("timeout", request.timeout.as_ref(), Duration::ZERO..=limits::WAIT_MAX);
        invalid.check().map_err(into_status)?;
        let id = caller.resolve(&self.handle, Role::Viewer, &request.task_id).await?;
        let timeout = timeout.unwrap_or(limits::WAIT_DEFAULT);
        let waited = self.handle.wait(&id, timeout, &caller.share_name()).await;
        let (snapshot, memory) = waited.map_err(into_status)?;
        let (finished, revision) = (snapshot.task.status.state.is_terminal(), snapshot.revision.0);
        let include = task::Include { payload: false, result: true };
        let task = Some(task::snapshot(snapshot, include));
        Ok(ResponseMemory::reserved(memory).attach_to(v1::WaitTaskResponse { task, finished, revision }))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let responses = watch::watch(self.handle.clone(), request.into_inner(), &caller)?;
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(responses))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let task_id = audit::name(&request.task_id);
        let handle = self.handle.used_by(caller.sharer.clone());
        let response = cancel::cancel(&handle, request, &caller).await;
        audit::record(&caller, "CancelTask", task_id, &response);
        response.map(Response::new)
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<Self::CancelTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = ResponseMemory::Stream(caller.share_name());
        let handle = self.handle.used_by(caller.sharer.clone());
        Ok(memory.attach_to(bulk_calls::cancel(handle, request.into_inner(), caller)?))
    }

    async fn update_tasks(
        &self,
        request: Request<v1::UpdateTasksRequest>,
    ) -> Result<Response<Self::UpdateTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = ResponseMemory::Stream(caller.share_name());
        let handle = self.handle.used_by(caller.sharer.clone());
        Ok(memory.attach_to(bulk_calls::update(handle, request.into_inner(), caller)?))
    }

    async fn retry_tasks(
        &self,
        request: Request<v1::RetryTasksRequest>,
    ) -> Result<Response<Self::RetryTasksStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = ResponseMemory::Stream(caller.share_name());
        let handle = self.handle.used_by(caller.sharer.clone());
        Ok(memory.attach_to(bulk_calls::retry(handle, request.into_inner(), caller)?))
    }

    async fn retry_task(
        &self,
        request: Request<v1::RetryTaskRequest>,
    ) -> Result<Response<v1::RetryTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let handle = self.handle.used_by(caller.sharer.clone());
        let request = request.into_inner();
        let request_id = request.request_id.clone();
        let submitted = retry::retry(&handle, request, &request_id, &caller).await;
        audit::submission(&caller, "RetryTask", |task| task.id.to_string(), &submitted);
        submitted.map(|task| Response::new(v1::RetryTaskResponse { task: Some(task.into()) }))
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::UpdateTaskResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let task_id = audit::name(&request.task_id);
        let handle = self.handle.used_by(caller.sharer.clone());
        let response = update::update(&handle, &request, &caller).await;
        audit::record(&caller, "UpdateTask", task_id, &response);
        response.map(Response::new)
    }

    async fn delete_tasks(
        &self,
        request: Request<v1::DeleteTasksRequest>,
    ) -> Result<Response<v1::DeleteTasksResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let deleted = match caller.filter(Role::Operator, request.filter) {
            Ok(filter) if request.validate_only => {
                let count = bulk_calls::count_finished(self.handle.clone(), filter, &caller).await?;
                let revision = self.handle.revision().0;
                return Ok(Response::new(v1::DeleteTasksResponse { deleted: to_i64(count), revision }));
            }
            Ok(filter) if filter.needs_failures() => {
                bulk_calls::delete_found(self.handle.used_by(caller.sharer.clone()), filter, &caller).await
            }
            Ok(filter) => self.handle.used_by(caller.sharer.clone()).delete(filter).await.map_err(into_status),
            Err(status) => Err(status),
        };
        let subject = deleted.as_ref().map_or_else(|_| String::new(), |(count, _)| format!("{count} tasks"));
        audit::record(&caller, "DeleteTasks", subject, &deleted);
        let (count, revision) = deleted?;
        Ok(Response::new(v1::DeleteTasksResponse { deleted: to_i64(count), revision: revision.0 }))
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let chunks = output::read(self.handle.clone(), request.into_inner(), &caller).await?;
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(chunks))
    }
}
