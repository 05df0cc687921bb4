//! BatchService: create, read, watch, close, cancel and delete batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::api::auth::{Caller, CallerExtractor, audit};
use crate::api::convert::numbers::to_i64;
use crate::api::convert::{InvalidFields, MessagePath, batch, filter};
use crate::api::middleware::response_memory::ResponseMemory;
use crate::api::status::into_status;
use crate::model::{BatchId, BatchKey, Role, TaskSpec, Timestamp, limits};
use crate::proto::v1::{self, batch_service_server::BatchService};
use crate::scheduler::{BatchSnapshot, CancelBatchCommand, Handle, PageCursor, Refusal};

use super::tasks::Converter;
use super::tasks::cancel::cancel_mode;

/// Interval of a watch if the caller sets none.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// Time over which a watch measures the rate.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Maximum size of a page in bytes. Most clients refuse messages of more than 4 MiB.
const PAGE_BYTES_MAX: usize = 3 << 20;

pub struct Batches {
    handle: Handle,
    callers: CallerExtractor,
}

impl Batches {
    pub fn new(handle: Handle, callers: CallerExtractor) -> Self {
        Self { handle, callers }
    }

    /// The handle whose requests count toward the share of the caller.
    fn handle_for(&self, caller: &Caller) -> Handle {
        self.handle.used_by(caller.sharer.clone())
    }

    /// A batch as of now, with its average rate.
    fn convert(&self, snapshot: &BatchSnapshot) -> v1::Batch {
        let now = self.handle.now();
        batch::batch(&snapshot.batch, batch::average_rate(&snapshot.batch, now), now)
    }

    async fn create(
        &self,
        mut request: v1::CreateBatchRequest,
        caller: &Caller,
    ) -> Result<v1::CreateBatchResponse, Status> {
        let new = batch::new_batch(&request, caller.name(), caller.default_namespace()).map_err(into_status)?;
        let batch::NewBatch { id, namespace, mut spec } = new;
        caller.check_role(Role::Submitter, &namespace).map_err(into_status)?;
        if let Some(mut task) = request.completion.take() {
            task.namespace = namespace.to_string();
            spec.completion = Some(Arc::new(self.completion(task, caller)?));
        }
        let id = match id {
            Some(id) => id,
            None => BatchId::parse(&Handle::new_task_id().to_string())
                .map_err(|error| into_status(InvalidFields::one("batch_id", error)))?,
        };
        let key = BatchKey { namespace, id };
        let (snapshot, duplicate) = self.handle_for(caller).create_batch(key, spec).await.map_err(into_status)?;
        Ok(v1::CreateBatchResponse {
            batch: Some(self.convert(&snapshot)),
            duplicate,
            revision: snapshot.revision.0,
            resume_token: self.handle.resume_token(snapshot.revision).encode(),
        })
    }

    fn completion(&self, mut task: v1::SubmitTaskRequest, caller: &Caller) -> Result<TaskSpec, Status> {
        // The report is JSON, and replaces this value.
        let kind = Some(v1::payload::Kind::Json(prost_types::Value { kind: None }));
        task.payload = Some(v1::Payload { kind, content_type: String::new() });
        let path = MessagePath::Completion;
        let mut spec = Converter::new(&self.handle, caller, None).convert(task, path).map_err(into_status)?;
        spec.payload = Box::default();
        caller.may_submit(std::slice::from_ref(&spec)).map_err(into_status)?;
        Ok(spec)
    }

    async fn list(&self, request: v1::ListBatchesRequest, caller: &Caller) -> Result<v1::ListBatchesResponse, Status> {
        let count = filter::page_size(request.page_size).map_err(into_status)?;
        let conditions = v1::ListBatchesRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let before = filter::page_cursor(&request.page_token, &conditions).map_err(into_status)?;
        let mut filter = batch::filter(&request).map_err(into_status)?;
        filter.namespaces = caller.limit_namespaces(Role::Viewer, filter.namespaces).map_err(into_status)?;
        let before = before.map(|PageCursor(at)| crate::model::Revision(at));
        let listed = self.handle.list_batches(filter, before, count, PAGE_BYTES_MAX).await;
        let (page, revision) = listed.map_err(into_status)?;
        let batches = page.batches.into_iter().map(|batch| self.convert(&BatchSnapshot { batch, revision })).collect();
        let next = page.next.map(|revision| PageCursor(revision.0));
        let next_page_token = filter::page_token(next, &conditions);
        Ok(v1::ListBatchesResponse { batches, next_page_token, revision: revision.0 })
    }

    async fn cancel(
        &self,
        request: v1::CancelBatchRequest,
        caller: &Caller,
    ) -> Result<v1::CancelBatchResponse, Status> {
        let mut invalid = InvalidFields::default();
        invalid.check_length("reason", request.reason.len(), limits::REASON_BYTES_MAX, "bytes");
        let grace = invalid.duration("grace", request.grace.as_ref(), Duration::ZERO..=limits::GRACE_MAX);
        let mode = cancel_mode(&mut invalid, request.mode);
        batch::batch_ref(&request.batch_id).map_err(into_status)?;
        invalid.check().map_err(into_status)?;
        let key = caller.resolve_batch(&self.handle, Role::Submitter, &request.batch_id).await?;
        let cancel = CancelBatchCommand { key, reason: request.reason.into(), by: caller.name().into(), mode, grace };
        let snapshot = self.handle_for(caller).cancel_batch(cancel).await.map_err(into_status)?;
        Ok(v1::CancelBatchResponse { batch: Some(self.convert(&snapshot)), revision: snapshot.revision.0 })
    }

    async fn close(&self, request: v1::CloseBatchRequest, caller: &Caller) -> Result<v1::CloseBatchResponse, Status> {
        let key = caller.resolve_batch(&self.handle, Role::Submitter, &request.batch_id).await?;
        let snapshot = self.handle_for(caller).close_batch(key).await.map_err(into_status)?;
        Ok(v1::CloseBatchResponse { batch: Some(self.convert(&snapshot)), revision: snapshot.revision.0 })
    }

    async fn delete(
        &self,
        request: v1::DeleteBatchRequest,
        caller: &Caller,
    ) -> Result<v1::DeleteBatchResponse, Status> {
        let key = caller.resolve_batch(&self.handle, Role::Operator, &request.batch_id).await?;
        let (deleted, revision) = self.handle_for(caller).delete_batch(key).await.map_err(into_status)?;
        Ok(v1::DeleteBatchResponse { deleted_tasks: to_i64(deleted), revision: revision.0 })
    }
}

#[tonic::async_trait]
impl BatchService for Batches {
    type WatchBatchStream = BoxStream<v1::WatchBatchResponse>;

    async fn create_batch(
        &self,
        request: Request<v1::CreateBatchRequest>,
    ) -> Result<Response<v1::CreateBatchResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let created = self.create(request.into_inner(), &caller).await;
        let id = created.as_ref().ok().and_then(|response| response.batch.as_ref());
        audit::record(&caller, "CreateBatch", id.map(|batch| batch.batch_id.clone()).unwrap_or_default(), &created);
        created.map(Response::new)
    }

    async fn get_batch(&self, request: Request<v1::GetBatchRequest>) -> Result<Response<v1::GetBatchResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let snapshot = caller.find_batch(&self.handle, Role::Viewer, &request.into_inner().batch_id).await?;
        let resume_token = self.handle.resume_token(snapshot.revision).encode();
        let (batch, revision) = (Some(self.convert(&snapshot)), snapshot.revision.0);
        Ok(Response::new(v1::GetBatchResponse { batch, revision, resume_token }))
    }

    async fn list_batches(
        &self,
        request: Request<v1::ListBatchesRequest>,
    ) -> Result<Response<v1::ListBatchesResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let memory = self.handle.reserve_response(&caller.share_name(), 2 * PAGE_BYTES_MAX as u64).await;
        let memory = memory.map_err(into_status)?;
        let response = self.list(request.into_inner(), &caller).await?;
        Ok(ResponseMemory::reserved(memory).attach_to(response))
    }

    async fn watch_batch(
        &self,
        request: Request<v1::WatchBatchRequest>,
    ) -> Result<Response<Self::WatchBatchStream>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let mut invalid = InvalidFields::default();
        let bounds = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
        let interval = invalid.duration("interval", request.interval.as_ref(), bounds).unwrap_or(INTERVAL_DEFAULT);
        batch::batch_ref(&request.batch_id).map_err(into_status)?;
        invalid.check().map_err(into_status)?;
        // Before the stream starts, so that the call fails if there is no such batch.
        let first = caller.find_batch(&self.handle, Role::Viewer, &request.batch_id).await?;
        let messages = watch(self.handle.clone(), first, interval);
        Ok(ResponseMemory::Stream(caller.share_name()).attach_to(Box::pin(messages)))
    }

    async fn wait_batch(
        &self,
        request: Request<v1::WaitBatchRequest>,
    ) -> Result<Response<v1::WaitBatchResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let mut invalid = InvalidFields::default();
        let timeout = invalid.duration("timeout", request.timeout.as_ref(), Duration::ZERO..=limits::WAIT_MAX);
        batch::batch_ref(&request.batch_id).map_err(into_status)?;
        invalid.check().map_err(into_status)?;
        let found = caller.find_batch(&self.handle, Role::Viewer, &request.batch_id).await?;
        let key = found.batch.key;
        let waited = self.handle.wait_batch(key.clone(), timeout.unwrap_or(limits::WAIT_DEFAULT)).await;
        let snapshot = match waited.map_err(into_status)? {
            Some(ended) => ended,
            None => self.handle.batch(key).await.map_err(into_status)?,
        };
        let finished = snapshot.batch.finished_at.is_some();
        let (batch, revision) = (Some(self.convert(&snapshot)), snapshot.revision.0);
        Ok(Response::new(v1::WaitBatchResponse { batch, finished, revision }))
    }

    async fn close_batch(
        &self,
        request: Request<v1::CloseBatchRequest>,
    ) -> Result<Response<v1::CloseBatchResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let id = audit::name(&request.batch_id);
        let response = self.close(request, &caller).await;
        audit::record(&caller, "CloseBatch", id, &response);
        response.map(Response::new)
    }

    async fn cancel_batch(
        &self,
        request: Request<v1::CancelBatchRequest>,
    ) -> Result<Response<v1::CancelBatchResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let id = audit::name(&request.batch_id);
        let response = self.cancel(request, &caller).await;
        audit::record(&caller, "CancelBatch", id, &response);
        response.map(Response::new)
    }

    async fn delete_batch(
        &self,
        request: Request<v1::DeleteBatchRequest>,
    ) -> Result<Response<v1::DeleteBatchResponse>, Status> {
        let caller = self.callers.extract(&request)?;
        let request = request.into_inner();
        let id = audit::name(&request.batch_id);
        let response = self.delete(request, &caller).await;
        audit::record(&caller, "DeleteBatch", id, &response);
        response.map(Response::new)
    }
}

/// The batch at most once per interval, if it has changed, and in the end when it has finished.
fn watch(
    handle: Handle,
    first: BatchSnapshot,
    interval: Duration,
) -> impl Stream<Item = Result<v1::WatchBatchResponse, Status>> {
    async_stream::try_stream! {
        let (mut snapshot, mut sent, mut rates) = (first, None, RateWindow::default());
        loop {
            let now = handle.now();
            let per_second = rates.add(&snapshot, now);
            let (revision, has_finished) = (snapshot.batch.revision, snapshot.batch.finished_at.is_some());
            if sent.replace(revision) != Some(revision) {
                let resume_token = handle.resume_token(snapshot.revision).encode();
                let batch = Some(batch::batch(&snapshot.batch, per_second, now));
                yield v1::WatchBatchResponse { batch, revision: snapshot.revision.0, resume_token };
            }
            if has_finished {
                return;
            }
            snapshot = next(&handle, snapshot.batch.key, interval).await.map_err(into_status)?;
        }
    }
}

/// The batch when it has finished, or after the interval.
async fn next(handle: &Handle, key: BatchKey, interval: Duration) -> Result<BatchSnapshot, Refusal> {
    match handle.wait_batch(key.clone(), interval).await? {
        Some(ended) => Ok(ended),
        None => handle.batch(key).await,
    }
}

/// Numbers of finished tasks within [`RATE_WINDOW`].
#[derive(Default)]
struct RateWindow(VecDeque<(Timestamp, u64)>);

impl RateWindow {
    /// Adds a reading, and returns the finished tasks per second.
    fn add(&mut self, snapshot: &BatchSnapshot, now: Timestamp) -> f64 {
        let finished = snapshot.batch.counts.finished();
        while self.0.front().is_some_and(|(at, _)| now.since(*at) > RATE_WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((now, finished));
        match self.0.front() {
            Some((at, before)) if self.0.len() > 1 => batch::rate(finished.saturating_sub(*before), now.since(*at)),
            _ => batch::average_rate(&snapshot.batch, now),
        }
    }
}
