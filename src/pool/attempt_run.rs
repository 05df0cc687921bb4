//! Running a started attempt with a runner, and the report of its end.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use crate::artifacts::AttemptArtifacts;
use crate::model::limits::PayloadLimit;
use crate::model::{Failure, FailureReason, ResourceUsage, StopMethod, TaskSpec, Timestamp};
use crate::runners::{Outcome, Parents, Run, RunReport, Runner, StopCause, StopSignal};
use crate::telemetry::metrics::{AttemptMeter, AttemptResult};
use crate::telemetry::task_log;

use super::attempt::Attempt;
use super::context::{PayloadSource, WorkerContext};
use super::report::Report;
use super::running::WorkerLink;

/// Reads the payload and runs the attempt until its timeout.
pub(super) async fn run(context: &WorkerContext, runner: &dyn Runner, attempt: &Arc<Attempt>) -> RunReport {
    let stop = attempt.stop_signal();
    let payload = match payload(&context.payloads, attempt, stop).await {
        Ok(payload) => payload,
        Err(outcome) => return outcome.into(),
    };
    stop.start_timeout(attempt.spec().options.timeout);
    let spec = attempt.spec();
    let progress = attempt.clone();
    let artifacts = AttemptArtifacts::new(&context.artifacts, spec.clone(), attempt.ticket().fence);
    let run = Run {
        task: spec.id.clone(),
        options: spec.options.clone(),
        attempt: attempt.number(),
        payload,
        args: spec.extras().args.clone(),
        parents: spec.extras().dependencies.clone().map(|parents| Parents::new(parents, context.parents.clone())),
        trace: attempt.trace_context(),
        stop: attempt.stop_signal().clone(),
        output: attempt.open_output(),
        progress: Arc::new(move |fraction, note| progress.set_progress(fraction, note)),
        result_memory: context.results.with_limit(context.catalog.load().payload_limit),
        artifacts: artifacts.clone(),
    };
    let result = AssertUnwindSafe(async { runner.run(run).await }).catch_unwind().await;
    let report = result.unwrap_or_else(|panic| {
        let text = format!("panicked: {}", panic_text(&*panic));
        Outcome::Failed(Failure::new(FailureReason::Panic, text)).into()
    });
    store_artifacts(check_result_size(report, context.catalog.load().payload_limit), &artifacts, stop).await
}

/// Stores what a completed attempt leaves. It has not completed if that fails.
async fn store_artifacts(report: RunReport, artifacts: &AttemptArtifacts, stop: &StopSignal) -> RunReport {
    if artifacts.is_empty() || !matches!(report.outcome, Outcome::Completed(_)) {
        return report;
    }
    let stopped = async {
        // A server that drains waits for work that is as good as done.
        if stop.wait(StopCause::Timeout).await == StopCause::Drain {
            stop.wait_for_kill().await;
        }
    };
    let outcome = tokio::select! {
        biased;
        () = stopped => Outcome::Stopped(StopMethod::Token),
        stored = artifacts.store() => match stored {
            Ok(artifacts) => return RunReport { artifacts, ..report },
            Err(error) => Outcome::Failed(error.into()),
        },
    };
    RunReport { outcome, memory: None, ..report }
}

/// An attempt that no longer runs.
pub(super) struct Ended {
    pub attempt: Arc<Attempt>,
    pub started_at: Timestamp,
    pub at: Timestamp,
    pub run_time: Duration,
    pub report: RunReport,
}

/// Measures the end of an attempt and returns what the scheduler has to know of it.
pub(super) fn end(meter: &mut AttemptMeter, ended: Ended, link: Option<Arc<WorkerLink>>) -> Report {
    let Ended { attempt, started_at, at, run_time, report } = ended;
    let buffer = attempt.output();
    let output = buffer.as_ref().and_then(|buffer| {
        buffer.close();
        buffer.captured().map(Box::new)
    });
    if let Some(output) = &output {
        task_log::export(attempt.clone(), output);
    }
    let result_bytes = match &report.outcome {
        Outcome::Completed(result) => result.data.len() as u64,
        _ => 0,
    };
    let usage = Box::new(ResourceUsage {
        queue_time: started_at.since(attempt.eligible_at()),
        run_time,
        cpu_time: report.cpu_time,
        peak_memory_bytes: report.peak_memory_bytes,
        output_bytes: output.as_ref().map_or(0, |output| output.stdout.total + output.stderr.total),
        result_bytes,
        output_incomplete: report.output_incomplete,
    });
    let cause = attempt.stop_signal().requested_cause();
    let handler = &attempt.spec().options.handler;
    meter.ended(handler, attempt_result(&report.outcome, cause), run_time, || attempt.exemplar());
    let RunReport { outcome, memory, artifacts, .. } = report;
    Report::Finished { attempt, at, outcome, cause, usage, output, artifacts, link, memory }
}

/// The payload of an attempt, read from the store if the attempt does not carry it. The error is how the
/// attempt ends without one.
pub(super) async fn payload(source: &PayloadSource, attempt: &Attempt, stop: &StopSignal) -> Result<Bytes, Outcome> {
    let spec = attempt.spec();
    if !attempt.payload_is_stored() {
        return Ok(TaskSpec::payload_of(spec));
    }
    tokio::select! {
        biased;
        // Reading may take as long as the store is unavailable; a stop does not wait for it.
        _ = stop.wait(StopCause::Timeout) => Err(Outcome::Stopped(StopMethod::NeverStarted)),
        found = source(attempt.submission()) => found.map_err(|error| {
            let text = format!("the payload is not in the store: {error}");
            Outcome::Failed(Failure::new(FailureReason::WorkerLost, text))
        }),
    }
}

/// The attempt's result in the metrics; the scheduler decides the same from the report.
fn attempt_result(outcome: &Outcome, cause: Option<StopCause>) -> AttemptResult {
    match (outcome, cause) {
        (_, Some(StopCause::Cancel | StopCause::Force)) => AttemptResult::Cancelled,
        (Outcome::Completed(_), _) => AttemptResult::Completed,
        (Outcome::Failed(_) | Outcome::Stopped(_), Some(StopCause::Timeout)) => {
            AttemptResult::Failed(FailureReason::Timeout)
        }
        (Outcome::Failed(failure), None) => AttemptResult::Failed(failure.reason),
        (Outcome::Failed(_) | Outcome::Stopped(_) | Outcome::Unavailable(_) | Outcome::WorkerLost, _) => {
            AttemptResult::Interrupted
        }
    }
}

fn check_result_size(report: RunReport, PayloadLimit(bytes_max): PayloadLimit) -> RunReport {
    let Outcome::Completed(result) = &report.outcome else { return report };
    let bytes = result.data.len();
    if bytes <= bytes_max {
        return report;
    }
    let text = format!("result has {bytes} bytes, at most {bytes_max} are allowed");
    RunReport { outcome: Outcome::Failed(Failure::new(FailureReason::ResultTooLarge, text)), ..report }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
