//! The results of the parents of a task.

use std::fmt;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::error::BoxError;
use super::payload::Payload;

/// A parent of a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParentResult {
    /// Task ID.
    pub task_id: String,
    /// `None` if the parent has failed or was cancelled.
    pub result: Option<Payload>,
}

impl ParentResult {
    pub(crate) fn new(task_id: String, result: Option<Payload>) -> Self {
        Self { task_id, result }
    }
}

/// The parents of a task, with their results; made by [`TaskContext::parents`](crate::TaskContext::parents).
pub struct ParentResults(BoxStream<'static, Result<ParentResult, BoxError>>);

impl ParentResults {
    pub(crate) fn new(results: BoxStream<'static, Result<ParentResult, BoxError>>) -> Self {
        Self(results)
    }

    /// The next parent, in the order of the submission; `None` after the last one. Its result arrives when this is called, so that
    /// the results of all parents need not fit into memory.
    ///
    /// # Errors
    /// If the result cannot be read. While the server cannot be reached, the call goes on.
    pub async fn next(&mut self) -> Result<Option<ParentResult>, BoxError> {
        self.0.next().await.transpose()
    }
}

impl fmt::Debug for ParentResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentResults").finish_non_exhaustive()
    }
}
