//! Running the work of a built-in handler: on the worker's thread or as a future, until it returns a JSON
//! result, fails, or is stopped.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::model::spec::JSON;
use crate::model::{Failure, Payload, StopMethod};
use crate::runners::{BoxFuture, Outcome, ProgressSink, Run, RunReport, StopSignal};

/// Shortest time between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why a built-in handler did not return a result.
pub(super) enum WorkError {
    Stopped,
    Failed(Failure),
}

impl From<Failure> for WorkError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs `work` inside the future's first poll, on the worker's own thread.
pub(super) fn run_blocking(
    run: Run,
    work: impl FnOnce(&Run) -> Result<String, WorkError> + Send + 'static,
) -> BoxFuture<RunReport> {
    Box::pin(async move { outcome(work(&run)).into() })
}

pub(super) fn run_async(
    work: impl Future<Output = Result<String, WorkError>> + Send + 'static,
) -> BoxFuture<RunReport> {
    Box::pin(async move { outcome(work.await).into() })
}

fn outcome(result: Result<String, WorkError>) -> Outcome {
    // Shared, so that a result needs no second allocation for its content type.
    static CONTENT_TYPE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(JSON));
    match result {
        Ok(json) => Outcome::Completed(Payload { data: Bytes::from(json), content_type: Arc::clone(&CONTENT_TYPE) }),
        Err(WorkError::Stopped) => Outcome::Stopped(StopMethod::Token),
        Err(WorkError::Failed(failure)) => Outcome::Failed(failure),
    }
}

/// Checks for a stop and reports progress; a long loop calls [`Progress::step`] about every millisecond.
pub(super) struct Progress<'run> {
    stop: &'run StopSignal,
    sink: &'run ProgressSink,
    report_at: Instant,
}

impl<'run> Progress<'run> {
    pub(super) fn new(run: &'run Run) -> Self {
        Self { stop: &run.stop, sink: &run.progress, report_at: Instant::now() + PROGRESS_INTERVAL }
    }

    /// Call it with `done` of `total` steps completed. Fails when a stop was requested.
    pub(super) fn step(&mut self, done: u64, total: u64) -> Result<(), WorkError> {
        if self.stop.cause().is_some() {
            return Err(WorkError::Stopped);
        }
        let now = Instant::now();
        if now >= self.report_at {
            self.report_at = now + PROGRESS_INTERVAL;
            #[expect(clippy::cast_precision_loss, reason = "a fraction for display")]
            (self.sink)(done as f32 / total.max(1) as f32, "");
        }
        Ok(())
    }
}
