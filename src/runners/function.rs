//! Functions of the program that the server is a part of.

use std::fs::File;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::output::OutputBuffer;
use super::parents::Parents;
use super::runner::{BoxFuture, Outcome, ProgressSink, Run, RunReport, Runner};
use super::stop::{StopCause, StopSignal};
use crate::artifacts::AttemptArtifacts;
use crate::function::{
    self, ArtifactContent, Attempt, BoxError, Function, NewArtifact, ParentResult, ParentResults, Payload, StopReason,
    TaskContext,
};
use crate::model::{self, Failure, OutputStream, StopMethod, TaskId, TaskOptions, TraceContext};

/// Runs a function as a future. Code that blocks is the function's own matter.
pub struct FunctionRunner {
    function: Function,
    /// Time to stop after the deadline.
    grace: Duration,
}

impl FunctionRunner {
    pub fn new(function: Function, grace: Duration) -> Self {
        Self { function, grace }
    }
}

impl Runner for FunctionRunner {
    fn run(&self, run: Run) -> BoxFuture<RunReport> {
        let (function, grace) = (self.function.clone(), self.grace);
        Box::pin(async move {
            let payload = Payload::with_type(run.payload, &run.options.content_type);
            let (stop, cancellation) = (run.stop.clone(), CancellationToken::new());
            let attempt = LocalAttempt {
                task: run.task.to_string(),
                options: run.options,
                number: run.attempt,
                trace: run.trace,
                stop: run.stop,
                cancellation: cancellation.clone(),
                output: run.output,
                progress: run.progress,
                parents: run.parents,
                artifacts: run.artifacts,
            };
            let mut call = pin!(function::call(&function, TaskContext::new(Arc::new(attempt)), payload));
            loop {
                tokio::select! {
                    biased;
                    result = &mut call => return match result {
                        Ok(result) => Outcome::Completed(result.into()),
                        Err(_) if cancellation.is_cancelled() => Outcome::Stopped(StopMethod::Token),
                        Err(failure) => Outcome::Failed(failure),
                    }
                    .into(),
                    cause = stop.wait(StopCause::Timeout), if !cancellation.is_cancelled() => {
                        if !stop.was_requested() {
                            // The deadline has passed.
                            stop.request(cause, grace);
                        }
                        cancellation.cancel();
                    }
                    // A thread cannot be stopped by force: the attempt ends when the function returns.
                    () = stop.wait_for_kill(), if cancellation.is_cancelled() && !function.is_blocking => {
                        return Outcome::Stopped(StopMethod::Abort).into();
                    }
                }
            }
        })
    }
}

/// An attempt, for its function.
struct LocalAttempt {
    task: String,
    options: Arc<TaskOptions>,
    number: u32,
    trace: Option<Arc<TraceContext>>,
    stop: Arc<StopSignal>,
    cancellation: CancellationToken,
    output: Arc<OutputBuffer>,
    progress: ProgressSink,
    parents: Option<Parents>,
    artifacts: AttemptArtifacts,
}

impl Attempt for LocalAttempt {
    fn task_id(&self) -> &str {
        &self.task
    }

    fn namespace(&self) -> &str {
        self.options.namespace.as_str()
    }

    fn handler(&self) -> &str {
        self.options.handler.as_str()
    }

    fn number(&self) -> u32 {
        self.number
    }

    fn label(&self, key: &str) -> Option<&str> {
        let found = self.options.labels.iter().find(|(name, _)| &**name == key);
        found.map(|(_, value)| &**value)
    }

    fn trace_context(&self) -> Option<(String, String)> {
        let trace = self.trace.as_ref()?;
        Some((trace.traceparent()?, trace.state.to_string()))
    }

    fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.stop.cause().map(|cause| match cause {
            StopCause::Timeout => StopReason::Timeout,
            StopCause::Drain => StopReason::Stopping,
            StopCause::Cancel | StopCause::Force => StopReason::Cancelled,
        })
    }

    fn deadline(&self) -> Option<Instant> {
        self.stop.deadline().map(tokio::time::Instant::into_std)
    }

    fn progress(&self, fraction: f64, note: &str) {
        // Within 0 to 1, so that the loss of precision does not matter.
        #[expect(clippy::cast_possible_truncation, reason = "progress needs no more precision")]
        (self.progress)(fraction as f32, note);
    }

    fn write(&self, stream: OutputStream, data: &[u8]) {
        self.output.write(stream, data);
    }

    fn suspend(&self) {}

    fn resume(&self) -> function::BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn parents(&self) -> ParentResults {
        let results = stream::iter(self.parents.clone().map(Parents::stream)).flatten();
        ParentResults::new(results.map(parent_result).boxed())
    }

    fn artifact(
        &self,
        NewArtifact { name, content_type, content }: NewArtifact,
    ) -> function::BoxFuture<'_, Result<(), BoxError>> {
        let artifacts = self.artifacts.clone();
        let copy = move || {
            let content_type = (!content_type.is_empty()).then_some(&*content_type);
            match content {
                ArtifactContent::Bytes(bytes) => artifacts.copy(&name, content_type, &*bytes)?,
                ArtifactContent::File(path) => artifacts.copy(&name, content_type, File::open(path)?)?,
            }
            Ok(())
        };
        Box::pin(async move { spawn_blocking(copy).await? })
    }
}

fn parent_result(read: Result<(TaskId, Option<model::Payload>), Failure>) -> Result<ParentResult, BoxError> {
    let (id, result) = read.map_err(|failure| failure.message)?;
    let payload = |result: model::Payload| Payload::with_type(result.data, &result.content_type);
    Ok(ParentResult::new(id.to_string(), result.map(payload)))
}
