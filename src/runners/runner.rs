//! The interface between workers and runners.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::artifacts::AttemptArtifacts;
use crate::model::{
    ArgPattern, Artifacts, Failure, FailureReason, Payload, Reservation, StopMethod, TaskId, TaskOptions, TraceContext,
};

use super::output::OutputBuffer;
use super::parents::{NoResults, Parents};
use super::result_memory::ResultMemory;
use super::stop::StopSignal;

/// Runs the attempts of one handler.
pub trait Runner: Send + Sync + 'static {
    /// Runs one attempt. Must return soon after `run.stop` was requested, and only when nothing of the
    /// attempt runs any more. May block its thread only if the handler's spec has `blocking`. The caller
    /// catches panics.
    fn run(&self, run: Run) -> BoxFuture<RunReport>;
}

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything that a runner gets for one attempt.
pub struct Run {
    pub task: TaskId,
    pub options: Arc<TaskOptions>,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub payload: Bytes,
    /// Arguments from the submitter; empty unless the handler accepts them.
    pub args: Box<[Box<str>]>,
    /// `None` if the task has none.
    pub parents: Option<Parents>,
    /// The trace context to pass on to the handler.
    pub trace: Option<Arc<TraceContext>>,
    /// Requests to stop (cancel, drain) and the deadline.
    pub stop: Arc<StopSignal>,
    pub output: Arc<OutputBuffer>,
    pub progress: ProgressSink,
    /// For a [`ResultBuffer`](super::result::ResultBuffer).
    pub result_memory: ResultMemory,
    /// Files that the attempt leaves. They are kept if it completes.
    pub artifacts: AttemptArtifacts,
}

impl Run {
    /// Fails with INVALID_PAYLOAD unless all arguments match the pattern, or without one there are none. Checked at submission,
    /// too, but the registration may have changed since.
    pub(super) fn check_args(&self, pattern: Option<&ArgPattern>) -> Result<(), Failure> {
        let problem = match pattern {
            Some(pattern) => {
                pattern.mismatch(&self.args).map(|index| format!("`args[{index}]` does not match its pattern"))
            }
            None if self.args.is_empty() => None,
            None => Some(format!("`args` has {} values, must be empty", self.args.len())),
        };
        problem.map_or(Ok(()), |text| Err(Failure::new(FailureReason::InvalidPayload, text)))
    }
}

/// Receives the progress as a fraction, 0 to 1, and a note. Only the latest report is kept.
pub type ProgressSink = Arc<dyn Fn(f32, &str) + Send + Sync>;

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// It returned a result.
    Completed(Payload),
    Failed(Failure),
    /// It ended because a stop was requested; the cause is in [`StopSignal`].
    Stopped(StopMethod),
    /// The server lacked a resource to start it, such as file descriptors or memory. Nothing of it has run, so the
    /// attempt is not spent. The text names the resource.
    Unavailable(Box<str>),
    /// The remote worker has disappeared, and its lease has ended.
    WorkerLost,
}

impl From<NoResults> for Outcome {
    fn from(error: NoResults) -> Self {
        match error {
            NoResults::Stopped => Self::Stopped(StopMethod::NeverStarted),
            NoResults::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// How an attempt ended and what it used, as far as the runner knows.
#[derive(Debug)]
pub struct RunReport {
    pub outcome: Outcome,
    pub cpu_time: Option<Duration>,
    /// Largest resident set size.
    pub peak_memory_bytes: Option<u64>,
    /// Processes that the program left behind were killed while they could still write.
    pub output_incomplete: bool,
    /// The memory of a large result, until the end of the attempt is durable.
    pub memory: Option<Box<Reservation>>,
    /// The files of a completed attempt, which are stored.
    pub artifacts: Option<Arc<Artifacts>>,
}

impl From<Outcome> for RunReport {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            cpu_time: None,
            peak_memory_bytes: None,
            output_incomplete: false,
            memory: None,
            artifacts: None,
        }
    }
}
