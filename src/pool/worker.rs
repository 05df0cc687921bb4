//! The loop of one worker: claim the most urgent attempt, run it, report it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use super::idle_workers::Parker;
use super::report::Report;
use super::run_queue::{Claimed, LocalQueue};
use super::state::PoolState;
use super::stats::WorkerCounters;

/// Attempts moved to the worker's own deque at a time, if its attempts are short.
const BATCH: usize = 16;
/// Average run time below which attempts are short. Longer ones stay in the shared queue, which keeps
/// their order over all workers.
const SHORT_RUN_TIME: Duration = Duration::from_micros(50);

pub(super) struct Worker {
    pool: Arc<PoolState>,
    queue: LocalQueue,
    qualified_name: Arc<str>,
    counters: Arc<WorkerCounters>,
    meter: AttemptMeter,
    parker: Arc<Parker>,
    /// Exponential moving average.
    average_run_time: Duration,
}

enum Next {
    Run(Started),
    Idle,
    Leave,
}

/// An attempt whose start has been reported.
struct Started {
    attempt: Arc<Attempt>,
    at: Timestamp,
    since: Instant,
}

impl Drop for Worker {
    /// Runs however the worker ends, so that the attempts in its deques are not lost.
    fn drop(&mut self) {
        self.pool.run_queue.remove_worker(&self.queue);
        if self.pool.run_queue.gate.has_startable() {
            self.pool.idle.wake(1);
        }
        self.pool.live.send_modify(|live| *live -= 1);
    }
}

impl Worker {
    pub fn new(pool: Arc<PoolState>, index: usize, counters: Arc<WorkerCounters>) -> Self {
        let queue = pool.run_queue.add_worker(index);
        pool.live.send_modify(|live| *live += 1);
        Self {
            qualified_name: format!("{}/PoolWorker-{index}", pool.name).into(),
            queue,
            meter: pool.meter.worker(),
            pool,
            counters,
            parker: Arc::default(),
            average_run_time: SHORT_RUN_TIME,
        }
    }

    pub async fn run(mut self) {
        loop {
            let next = match self.next() {
                Next::Idle => self.park().await,
                next => next,
            };
            match next {
                Next::Run(started) => self.run_attempt(started).await,
                Next::Idle => {}
                Next::Leave => return,
            }
        }
    }

    fn next(&mut self) -> Next {
        if self.should_leave() {
            return Next::Leave;
        }
        // A pause from here on either prevents the claim or waits until the start is reported.
        let _starting = self.counters.mark_starting();
        let batch = if self.average_run_time < SHORT_RUN_TIME { BATCH } else { 1 };
        let Some(Claimed { attempt, stolen }) = self.pool.run_queue.claim(&self.queue, batch) else {
            return Next::Idle;
        };
        let (at, since) = (self.pool.context.clock.now(), Instant::now());
        self.counters.attempt_started(&attempt, since, stolen);
        let worker = self.qualified_name.clone();
        (self.pool.context.reports)(Report::Started { ticket: attempt.ticket(), worker, at });
        let waited = at.since(attempt.eligible_at());
        self.meter.started(attempt.spec().options.priority, waited, || attempt.exemplar());
        Next::Run(Started { attempt, at, since })
    }

    /// Parks until woken, unless a second search for work succeeds.
    async fn park(&mut self) -> Next {
        self.pool.idle.register(&self.parker);
        let next = self.next();
        if matches!(next, Next::Idle) {
            self.parker.park().await;
        } else {
            self.pool.idle.unregister(&self.parker);
        }
        next
    }

    fn should_leave(&self) -> bool {
        if self.queue.index < self.pool.target.load(Ordering::SeqCst) {
            return false;
        }
        let mut workers = self.pool.workers.lock();
        if self.queue.index < workers.target {
            return false;
        }
        if let Some(slot) = workers.slots.get_mut(self.queue.index) {
            slot.alive = false;
        }
        true
    }

    async fn run_attempt(&mut self, Started { attempt, at, mut since }: Started) {
        // A worker that finds work wakes the next one if there is more: several enqueued attempts
        // may have caused only one wake-up.
        if self.pool.run_queue.gate.has_startable() {
            self.pool.idle.wake(1);
        }
        let report = if attempt.wait_for_confirmation().await {
            if attempt.needs_confirmation() {
                since = Instant::now();
            }
            let scope = attempt.start_span(&self.qualified_name, at);
            scope::within(scope, self.run_handler(&attempt)).await
        } else {
            Outcome::Stopped(StopMethod::NeverStarted).into()
        };
        let run_time = since.elapsed();
        self.counters.attempt_ended(matches!(report.outcome, Outcome::Completed(_)));
        self.average_run_time = (self.average_run_time * 7 + run_time) / 8;
        self.report(attempt, at, report, run_time);
        if self.pool.kind == PoolKind::Async {
            // Threads of the runtime are shared: many short attempts in a row must not occupy one.
            tokio::task::coop::consume_budget().await;
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
        if let Outcome::Unavailable(cause) = &report.outcome {
            tracing::warn!(%cause, "the server lacks a resource to start a task; the attempt is not spent");
        }
        let usage = Box::new(ResourceUsage {
            queue_time: started_at.since(attempt.eligible_at()),
            run_time,
            cpu_time: report.cpu_time,
            peak_memory_bytes: report.peak_memory_bytes,
            output_bytes: output.as_ref().map_or(0, |output| output.stdout.total + output.stderr.total),
            result_bytes,
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
        found = source(spec.id.clone()) => found.map_err(|error| {
            let text = format!("failed to read the payload from the store: {error}");
            Outcome::Failed(Failure::new(FailureReason::HandlerError, text))
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
