//! What a function sees of the task that it runs.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::artifact::{ArtifactContent, NewArtifact};
use super::error::BoxError;
use super::parents::ParentResults;
use crate::model::OutputStream;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a function has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// A caller cancelled the task.
    Cancelled,
    /// The attempt has run for longer than its timeout.
    Timeout,
    /// The task was given to another worker; what the function returns is ignored.
    Lost,
    /// The program stops.
    Stopping,
}

/// One attempt, for the function that runs it.
pub trait Attempt: Send + Sync + 'static {
    fn task_id(&self) -> &str;
    fn namespace(&self) -> &str;
    fn handler(&self) -> &str;
    /// 1 for the first attempt.
    fn number(&self) -> u32;
    fn label(&self, key: &str) -> Option<&str>;
    /// W3C trace context: `traceparent` and `tracestate`.
    fn trace_context(&self) -> Option<(String, String)>;
    fn cancellation(&self) -> &CancellationToken;
    fn stop_reason(&self) -> Option<StopReason>;
    fn deadline(&self) -> Option<Instant>;
    fn progress(&self, fraction: f64, note: &str);
    /// Never blocks.
    fn write(&self, stream: OutputStream, data: &[u8]);
    /// Gives the slot of the attempt back.
    fn suspend(&self);
    /// Waits until the attempt has a slot again.
    fn resume(&self) -> BoxFuture<'_, ()>;
    fn parents(&self) -> ParentResults;
    fn artifact(&self, artifact: NewArtifact) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// The task that a function runs. Clones are the same task.
#[derive(Clone)]
pub struct TaskContext(Arc<dyn Attempt>);

tokio::task_local! {
    static CURRENT: TaskContext;
}

impl TaskContext {
    pub(crate) fn new(attempt: Arc<dyn Attempt>) -> Self {
        Self(attempt)
    }

    /// The task that the caller belongs to; `None` outside of a function, and in what a function has spawned.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a future as a part of the task.
    pub(super) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Runs code that blocks as a part of the task.
    pub(super) fn sync_scope<T>(self, code: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, code)
    }

    /// Task ID.
    pub fn task_id(&self) -> &str {
        self.0.task_id()
    }

    /// Namespace of the task.
    pub fn namespace(&self) -> &str {
        self.0.namespace()
    }

    /// Name of the handler.
    pub fn handler(&self) -> &str {
        self.0.handler()
    }

    /// Number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.number()
    }

    /// A label of the task.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0.label(key)
    }

    /// The W3C trace context of the attempt as headers, `traceparent` and `tracestate`; none if the task has no trace. It is
    /// also the current context of OpenTelemetry while the function runs.
    pub fn trace_context(&self) -> Vec<(&'static str, String)> {
        let (parent, state) = self.0.trace_context().unwrap_or_default();
        let headers = [("traceparent", parent), ("tracestate", state)];
        headers.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The tasks that had to end before this one, with their results.
    pub fn parents(&self) -> ParentResults {
        self.0.parents()
    }

    /// Leaves a file beside the result: bytes, or the file with a path. It becomes an artifact of the task if the function returns a
    /// result. An empty content type stands for that of the extension of the name. In a worker, a broken connection does not
    /// matter.
    ///
    /// # Errors
    /// If the name is not valid or was used before, the content is larger than the server allows, or the file cannot be read.
    pub async fn artifact(
        &self,
        name: &str,
        content: impl Into<ArtifactContent>,
        content_type: &str,
    ) -> Result<(), BoxError> {
        let (name, content_type) = (name.to_owned(), content_type.to_owned());
        self.0.artifact(NewArtifact { name, content_type, content: content.into() }).await
    }

    /// Cancelled when the function has to stop: a caller has cancelled the task, its timeout has passed, or the program stops. The
    /// function should return soon, with any result. If it has not returned at the end of the grace period, it is dropped at
    /// its next `await`; a function that blocks cannot be stopped by force.
    pub fn cancellation(&self) -> &CancellationToken {
        self.0.cancellation()
    }

    /// Whether the function has to stop; for loops that compute.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation().is_cancelled()
    }

    /// Why the function has to stop; `None` as long as it can go on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.0.stop_reason()
    }

    /// When the timeout of the attempt passes.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }

    /// Reports how much is done, 0 to 1, and the current activity. Of reports in quick succession only the last is sent.
    pub fn progress(&self, fraction: f64, note: &str) {
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        self.0.progress(fraction, note);
    }

    /// Writes to the standard output of the task.
    pub fn stdout(&self) -> TaskOutput {
        TaskOutput { attempt: self.0.clone(), stream: OutputStream::Stdout }
    }

    /// Writes to the standard error of the task.
    pub fn stderr(&self) -> TaskOutput {
        TaskOutput { attempt: self.0.clone(), stream: OutputStream::Stderr }
    }

    /// Waits for something that needs no slot, such as other tasks: the slot goes to another attempt meanwhile, and the function
    /// goes on when it has a slot again. [`Task::wait`](crate::Task::wait) does so by itself.
    ///
    /// A function of a [`Server`](crate::Server) keeps its slot, so that it must not wait for tasks that need one of the same
    /// pool: choose a larger [`concurrency`](crate::ServerBuilder::concurrency), or run it in a [`Worker`](crate::Worker).
    pub async fn wait<F: Future>(&self, future: F) -> F::Output {
        let mut suspended = Suspended { attempt: Some(&*self.0) };
        self.0.suspend();
        let output = future.await;
        suspended.attempt = None;
        self.0.resume().await;
        output
    }
}

/// An attempt that waits. If the wait is dropped, it wants to go on.
struct Suspended<'a> {
    attempt: Option<&'a dyn Attempt>,
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            // The request for a slot is made at once; only the wait for it is dropped.
            drop(attempt.resume());
        }
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("task_id", &self.task_id()).finish_non_exhaustive()
    }
}

/// Output of a task. A write never waits: output that cannot be sent in time is replaced by a line with its size. The server
/// keeps the first and the last 64 KiB of each stream.
#[derive(Clone)]
pub struct TaskOutput {
    attempt: Arc<dyn Attempt>,
    stream: OutputStream,
}

impl io::Write for TaskOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.attempt.write(self.stream, data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TaskOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOutput").field("stream", &self.stream).finish_non_exhaustive()
    }
}
