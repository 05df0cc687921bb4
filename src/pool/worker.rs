//! The loop of one worker: claim the most urgent attempt, run it, report it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::model::{Failure, FailureReason, PoolKind, ResourceUsage, StopMethod, TaskSpec, Timestamp, limits};
use crate::runners::{Outcome, Run, RunReport, StopCause, StopSignal};
use crate::telemetry::metrics::{AttemptMeter, AttemptResult};
use crate::telemetry::{scope, task_log};

use super::attempt::Attempt;
use super::context::PayloadSource;
use super::driver::Driver;
use super::report::Report;
use super::run_queue::Next;
use super::state::PoolState;
use super::stats::WorkerCounters;

pub(super) struct Worker {
    pool: Arc<PoolState>,
    index: usize,
    driver: Driver,
    qualified_name: Arc<str>,
    counters: Arc<WorkerCounters>,
    meter: AttemptMeter,
}

/// An attempt whose start has been reported.
struct Started {
    attempt: Arc<Attempt>,
    at: Timestamp,
    since: Instant,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.pool.live.send_modify(|live| *live -= 1);
    }
}

impl Worker {
    pub fn new(pool: Arc<PoolState>, index: usize, counters: Arc<WorkerCounters>) -> Self {
        pool.live.send_modify(|live| *live += 1);
        Self {
            qualified_name: format!("{}/PoolWorker-{index}", pool.name).into(),
            index,
            driver: Driver::new(index, pool.run_queue.clone()),
            meter: pool.meter.worker(),
            pool,
            counters,
        }
    }

    pub async fn run(mut self) {
        let counters = self.counters.clone();
        loop {
            // A pause from here on either prevents the start or waits until it is reported.
            let starting = counters.mark_starting();
            match self.driver.next() {
                Next::Start(attempt) => {
                    let started = self.report_start(attempt);
                    drop(starting);
                    self.run_attempt(started).await;
                }
                Next::Park => {
                    drop(starting);
                    self.driver.park().await;
                }
                Next::Leave if self.leaves() => return,
                // The pool has grown again.
                Next::Leave => {}
            }
        }
    }

    fn report_start(&mut self, attempt: Arc<Attempt>) -> Started {
        let (at, since) = (self.pool.context.clock.now(), Instant::now());
        self.counters.attempt_started(&attempt, since);
        let worker = self.qualified_name.clone();
        (self.pool.context.reports)(Report::Started { ticket: attempt.ticket(), worker, at });
        let waited = at.since(attempt.eligible_at());
        self.meter.started(attempt.spec().options.priority, waited, || attempt.exemplar());
        Started { attempt, at, since }
    }

    /// Whether the pool needs this worker no longer; then the pool may replace it.
    fn leaves(&self) -> bool {
        let mut workers = self.pool.workers.lock();
        if self.index < workers.target {
            return false;
        }
        if let Some(slot) = workers.slots.get_mut(self.index) {
            slot.alive = false;
        }
        true
    }

    async fn run_attempt(&mut self, Started { attempt, at, mut since }: Started) {
        let report = if attempt.wait_for_confirmation().await {
            if attempt.needs_confirmation() {
                since = Instant::now();
            }
            let scope = attempt.start_span(&self.qualified_name, at);
            loop {
                let report = scope::within(scope.clone(), self.run_handler(&attempt)).await;
                match &report.outcome {
                    Outcome::Unavailable(cause) if self.wait_for_resources(&attempt, cause).await => {}
                    _ => break report,
                }
                since = Instant::now();
            }
        } else {
            Outcome::Stopped(StopMethod::NeverStarted).into()
        };
        let run_time = since.elapsed();
        self.counters.attempt_ended(matches!(report.outcome, Outcome::Completed(_)));
        let is_end = !matches!(report.outcome, Outcome::Unavailable(_));
        self.report(attempt, at, report, run_time);
        if is_end {
            self.pool.attempt_ended();
        }
        if self.pool.kind == PoolKind::Async {
            // Threads of the runtime are shared: many short attempts in a row must not occupy one.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Waits without a slot until the attempt may try again to start, before attempts that have not started. Returns
    /// false if it was asked to stop first.
    async fn wait_for_resources(&mut self, attempt: &Attempt, cause: &str) -> bool {
        self.pool.rest(cause);
        self.driver.suspend();
        tokio::select! {
            biased;
            _ = attempt.stop_signal().wait(StopCause::Timeout) => false,
            () = self.driver.resume(attempt) => true,
        }
    }

    async fn run_handler(&mut self, attempt: &Arc<Attempt>) -> RunReport {
        let spec = attempt.spec();
        let options = &spec.options;
        let Some(runner) = self.pool.context.registry.get(&options.handler) else {
            let text = format!("handler `{}` is not registered", options.handler);
            return Outcome::Failed(Failure::new(FailureReason::HandlerError, text)).into();
        };
        let stop = attempt.stop_signal().clone();
        let payload = match payload(&self.pool.context.payloads, attempt, &stop).await {
            Ok(payload) => payload,
            Err(outcome) => return outcome.into(),
        };
        stop.start_timeout(options.timeout);
        let progress = attempt.clone();
        let run = Run {
            task: spec.id.clone(),
            handler: options.handler.clone(),
            namespace: options.namespace.clone(),
            attempt: attempt.number(),
            payload,
            args: spec.extras().args.clone(),
            trace: attempt.trace_context(),
            stop,
            output: attempt.open_output(),
            progress: Arc::new(move |fraction, note| progress.set_progress(fraction, note)),
        };
        let result = AssertUnwindSafe(async { runner.run(run).await }).catch_unwind().await;
        let report = result.unwrap_or_else(|panic| {
            let text = format!("panicked: {}", panic_text(&*panic));
            Outcome::Failed(Failure::new(FailureReason::Panic, text)).into()
        });
        check_result_size(report)
    }

    fn report(&mut self, attempt: Arc<Attempt>, started_at: Timestamp, report: RunReport, run_time: Duration) {
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
        self.meter.ended(handler, attempt_result(&report.outcome, cause), run_time, || attempt.exemplar());
        (self.pool.context.reports)(Report::Finished {
            attempt,
            at: self.pool.context.clock.now(),
            outcome: report.outcome,
            cause,
            usage,
            output,
        });
    }
}

/// The payload of an attempt, read from the store if the attempt does not carry it. The error is how the
/// attempt ends without one.
async fn payload(source: &PayloadSource, attempt: &Attempt, stop: &StopSignal) -> Result<Bytes, Outcome> {
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
        (Outcome::Failed(_) | Outcome::Stopped(_) | Outcome::Unavailable(_), _) => AttemptResult::Interrupted,
    }
}

fn check_result_size(report: RunReport) -> RunReport {
    let Outcome::Completed(result) = &report.outcome else { return report };
    let bytes = result.data.len();
    if bytes <= limits::RESULT_BYTES_MAX {
        return report;
    }
    let text = format!("result has {bytes} bytes, at most {} are allowed", limits::RESULT_BYTES_MAX);
    RunReport { outcome: Outcome::Failed(Failure::new(FailureReason::ResultTooLarge, text)), ..report }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
