//! Calls for batches. The loop has all batches in memory and answers from there.

use std::time::Duration;

use crate::model::{BatchId, BatchKey, BatchSpec, Namespace, Revision};

use super::core::{BatchFilter, BatchPage};
use super::handle::Handle;
use super::message::{BatchRequest, Request};
use super::refusal::{Draining, Refusal};
use super::timeouts::QUERY_TIMEOUT;
use super::views::{BatchSnapshot, CancelBatchCommand};

/// About the memory of a batch that a request creates, besides what the request contains.
const CREATE_BYTES: usize = 1_024;

impl Handle {
    /// Creates a batch; returns the existing one, and true, if it was created by the same request.
    ///
    /// # Errors
    /// [`Draining`], `BatchExists`, `MemoryFull`, `StoreUnavailable`.
    pub async fn create_batch(&self, key: BatchKey, spec: BatchSpec) -> Result<(BatchSnapshot, bool), Refusal> {
        self.execute(CREATE_BYTES, |reply| Request::Batch(BatchRequest::Create { key, spec, reply })).await
    }

    /// The oldest batch with this UUID in a namespace that `is_it`.
    ///
    /// # Errors
    /// [`Draining`], `SchedulerUnresponsive`.
    pub async fn batch_with_uuid(
        &self,
        id: BatchId,
        is_it: impl Fn(&Namespace) -> bool + Send + 'static,
    ) -> Result<Option<BatchSnapshot>, Refusal> {
        let is_it = Box::new(is_it);
        self.query_loop(QUERY_TIMEOUT, |reply| Request::Batch(BatchRequest::WithUuid { id, is_it, reply })).await
    }

    /// # Errors
    /// `BatchNotFound`, [`Draining`], `SchedulerUnresponsive`.
    pub async fn batch(&self, key: BatchKey) -> Result<BatchSnapshot, Refusal> {
        self.query_loop(QUERY_TIMEOUT, |reply| Request::Batch(BatchRequest::Get { key, reply })).await
    }

    /// Batches that match and were created before `before`, the newest first, and the revision of the answer.
    ///
    /// # Errors
    /// [`Draining`], `SchedulerUnresponsive`.
    pub async fn list_batches(
        &self,
        filter: BatchFilter,
        before: Option<Revision>,
        count: usize,
        bytes: usize,
    ) -> Result<(BatchPage, Revision), Refusal> {
        let list = |reply| Request::Batch(BatchRequest::List { filter, before, count, bytes, reply });
        self.query_loop(QUERY_TIMEOUT, list).await
    }

    /// Waits until a batch has finished or `timeout` has passed, in which case it returns `None`.
    ///
    /// # Errors
    /// `BatchNotFound`, [`Draining`].
    pub async fn wait_batch(&self, key: BatchKey, timeout: Duration) -> Result<Option<BatchSnapshot>, Refusal> {
        let ended = self.send(None, |reply| Request::Batch(BatchRequest::Ended { key, reply }));
        tokio::select! {
            ended = ended => ended.map_err(|_| Draining)?.map(Some),
            () = tokio::time::sleep(timeout) => Ok(None),
            () = self.inner.draining.cancelled() => Err(Draining.into()),
        }
    }

    /// Lets a batch take no more tasks.
    ///
    /// # Errors
    /// `BatchNotFound`, `StoreUnavailable`.
    pub async fn close_batch(&self, key: BatchKey) -> Result<BatchSnapshot, Refusal> {
        self.execute(0, |reply| Request::Batch(BatchRequest::Close { key, reply })).await
    }

    /// Cancels the unfinished tasks of a batch.
    ///
    /// # Errors
    /// `BatchNotFound`, `BatchFinished`, `StoreUnavailable`.
    pub async fn cancel_batch(&self, cancel: CancelBatchCommand) -> Result<BatchSnapshot, Refusal> {
        let bytes = cancel.reason.len();
        self.execute(bytes, |reply| Request::Batch(BatchRequest::Cancel { cancel, reply })).await
    }

    /// Deletes a finished batch and its tasks. Returns the number of deleted tasks.
    ///
    /// # Errors
    /// `BatchNotFound`, `BatchNotFinished`, `StoreUnavailable`.
    pub async fn delete_batch(&self, key: BatchKey) -> Result<(u64, Revision), Refusal> {
        self.execute(0, |reply| Request::Batch(BatchRequest::Delete { key, reply })).await
    }
}
