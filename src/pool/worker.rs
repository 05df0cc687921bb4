//! The loop of one worker: take the most urgent attempt, run it, report it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::Instant;

use crate::model::{Failure, FailureReason, PoolKind, ResourceUsage, StopMethod, TaskSpec, Timestamp, limits};
use crate::runners::{Ended, Outcome, Run, Stop, StopCause};
use crate::telemetry::metrics::{AttemptMeter, AttemptResult};
use crate::telemetry::{scope, tasklog};

use super::attempt::Attempt;
use super::idle::Bed;
use super::lanes::{Local, Taken};
use super::stats::Counters;
use super::{PayloadSource, Report, Shared};

/// Attempts moved to the own deque at a time, when attempts are short.
const BATCH: usize = 16;
/// What counts as short: long tasks keep the order of the shared queue instead.
const SHORT: Duration = Duration::from_micros(50);

pub(super) struct Worker {
    shared: Arc<Shared>,
    local: Local,
    name: Arc<str>,
    qualified_name: Arc<str>,
    counters: Arc<Counters>,
    meter: AttemptMeter,
    bed: Arc<Bed>,
    /// Moving average of run times.
    usual_run_time: Duration,
}

enum Next {
    Run(Begun),
    Nothing,
    Leave,
}

/// An attempt whose start is reported.
struct Begun {
    attempt: Arc<Attempt>,
    at: Timestamp,
    since: Instant,
}

impl Drop for Worker {
    /// However a worker ends, what waits in its deques is not lost.
    fn drop(&mut self) {
        self.shared.lanes.leave(&self.local);
        if self.shared.lanes.tally.has_startable() {
            self.shared.idle.wake(1);
        }
        self.shared.present.send_modify(|present| *present -= 1);
    }
}

impl Worker {
    pub fn new(shared: Arc<Shared>, index: usize, counters: Arc<Counters>) -> Self {
        let name = format!("PoolWorker-{index}");
        let local = shared.lanes.join(index);
        shared.present.send_modify(|present| *present += 1);
        Self {
            qualified_name: format!("{}/{name}", shared.name).into(),
            name: name.into(),
            local,
            meter: shared.meter.worker(),
            shared,
            counters,
            bed: Arc::default(),
            usual_run_time: SHORT,
        }
    }

    pub async fn run(mut self) {
        loop {
            let next = match self.next() {
                Next::Nothing => self.rest().await,
                next => next,
            };
            match next {
                Next::Run(begun) => self.work(begun).await,
                Next::Nothing => {}
                Next::Leave => return,
            }
        }
    }

    fn next(&mut self) -> Next {
        if self.should_leave() {
            return Next::Leave;
        }
        // A pause that comes now either stops the claim or waits for the report.
        let _beginning = self.counters.beginning();
        let batch = if self.usual_run_time < SHORT { BATCH } else { 1 };
        let Some(Taken { attempt, stolen }) = self.shared.lanes.take(&self.local, batch) else { return Next::Nothing };
        let (at, begun) = (self.shared.around.clock.now(), Instant::now());
        self.counters.begin(&attempt, begun, stolen);
        let worker = self.qualified_name.clone();
        (self.shared.around.reports)(Report::Started { ticket: attempt.ticket(), worker, at });
        let waited = at.since(attempt.eligible_at());
        self.meter.started(attempt.spec().options.priority, waited, || attempt.exemplar());
        Next::Run(Begun { attempt, at, since: begun })
    }

    /// Sleeps until woken, unless a second look finds something.
    async fn rest(&mut self) -> Next {
        self.shared.idle.announce(&self.bed);
        let next = self.next();
        if matches!(next, Next::Nothing) {
            self.bed.sleep().await;
        } else {
            self.shared.idle.withdraw(&self.bed);
        }
        next
    }

    fn should_leave(&self) -> bool {
        if self.local.index < self.shared.target.load(Ordering::SeqCst) {
            return false;
        }
        let mut crew = self.shared.crew.lock();
        if self.local.index < crew.target {
            return false;
        }
        if let Some(member) = crew.members.get_mut(self.local.index) {
            member.alive = false;
        }
        true
    }

    async fn work(&mut self, Begun { attempt, at, since: mut begun }: Begun) {
        // Whoever found work, perhaps by another's wake-up, sees to it that the rest finds a worker.
        if self.shared.lanes.tally.has_startable() {
            self.shared.idle.wake(1);
        }
        let outcome = if attempt.confirmed().await {
            if attempt.wants_confirmation() {
                begun = Instant::now();
            }
            let scope = attempt.begin_scope(&self.qualified_name, at);
            scope::within(scope, self.outcome(&attempt)).await
        } else {
            Ended::Stopped(StopMethod::NeverStarted).into()
        };
        let run_time = begun.elapsed();
        self.counters.end(matches!(outcome.ended, Ended::Completed(_)));
        self.usual_run_time = (self.usual_run_time * 7 + run_time) / 8;
        self.report(&attempt, at, outcome, run_time);
        if self.shared.kind == PoolKind::Async {
            // A runtime's thread is shared: many short attempts in a row must not keep it.
            tokio::task::coop::consume_budget().await;
        }
    }

    async fn outcome(&mut self, attempt: &Arc<Attempt>) -> Outcome {
        let spec = attempt.spec();
        let options = &spec.options;
        let Some(registered) = self.shared.around.registry.get(&options.handler) else {
            let text = format!("handler `{}` is not registered", options.handler);
            return Ended::Failed(Failure::new(FailureReason::HandlerError, text)).into();
        };
        let stop = attempt.stop_signal().clone();
        let payload = match payload(&self.shared.around.payloads, attempt, &stop).await {
            Ok(payload) => payload,
            Err(ended) => return ended.into(),
        };
        stop.arm(options.timeout);
        let progress = attempt.clone();
        let run = Run {
            task: spec.id.clone(),
            attempt: attempt.number(),
            payload,
            content_type: options.content_type.clone(),
            args: spec.extras().args.clone(),
            worker: self.name.clone(),
            trace: attempt.handed_on(),
            stop,
            output: attempt.open_output(),
            progress: Arc::new(move |share, note| progress.set_progress(share, note)),
        };
        let ran = AssertUnwindSafe(async { registered.runner.run(run).await }).catch_unwind().await;
        let outcome = ran.unwrap_or_else(|panic| {
            Ended::Failed(Failure::new(FailureReason::Panic, format!("panicked: {}", panic_text(&*panic)))).into()
        });
        within_limit(outcome)
    }

    fn report(&mut self, attempt: &Arc<Attempt>, started_at: Timestamp, outcome: Outcome, run_time: Duration) {
        let buffer = attempt.output();
        let output = buffer.as_ref().and_then(|buffer| {
            buffer.close();
            buffer.captured().map(Box::new)
        });
        if let Some(output) = &output {
            tasklog::export(attempt.clone(), output);
        }
        let result_bytes = match &outcome.ended {
            Ended::Completed(result) => result.data.len() as u64,
            _ => 0,
        };
        let usage = Box::new(ResourceUsage {
            queue_time: started_at.since(attempt.eligible_at()),
            run_time,
            cpu_time: outcome.cpu_time,
            peak_memory_bytes: outcome.peak_memory_bytes,
            output_bytes: output.as_ref().map_or(0, |output| output.stdout.total + output.stderr.total),
            result_bytes,
        });
        let cause = attempt.stop_signal().told_cause();
        let handler = &attempt.spec().options.handler;
        self.meter.ended(handler, result_of(&outcome.ended, cause), run_time, || attempt.exemplar());
        (self.shared.around.reports)(Report::Finished {
            ticket: attempt.ticket(),
            at: self.shared.around.clock.now(),
            ended: outcome.ended,
            cause,
            usage,
            output,
        });
    }
}

/// What the handler is given; or how the attempt ends without it.
async fn payload(stored: &PayloadSource, attempt: &Attempt, stop: &Stop) -> Result<Bytes, Ended> {
    let spec = attempt.spec();
    if !attempt.payload_is_stored() {
        return Ok(TaskSpec::payload_of(spec));
    }
    tokio::select! {
        biased;
        // A store that is in trouble is waited for; whoever wants the attempt to end need not wait with it.
        _ = stop.wait(StopCause::Timeout) => Err(Ended::Stopped(StopMethod::NeverStarted)),
        found = stored(spec.id.clone()) => found.map_err(|why| {
            let text = format!("the payload could not be read from the store: {why}");
            Ended::Failed(Failure::new(FailureReason::HandlerError, text))
        }),
    }
}

/// What the scheduler will make of it, for the metrics.
fn result_of(ended: &Ended, cause: Option<StopCause>) -> AttemptResult {
    match (ended, cause) {
        (_, Some(StopCause::Cancel | StopCause::Force)) => AttemptResult::Cancelled,
        (Ended::Completed(_), _) => AttemptResult::Completed,
        (_, Some(StopCause::Timeout)) => AttemptResult::Failed(FailureReason::Timeout),
        (Ended::Failed(failure), None) => AttemptResult::Failed(failure.reason),
        (Ended::Failed(_) | Ended::Stopped(_), _) => AttemptResult::Interrupted,
    }
}

fn within_limit(outcome: Outcome) -> Outcome {
    let Ended::Completed(result) = &outcome.ended else { return outcome };
    let bytes = result.data.len();
    if bytes <= limits::RESULT_BYTES_MAX {
        return outcome;
    }
    let text = format!("the result has {bytes} bytes, at most {} are allowed", limits::RESULT_BYTES_MAX);
    Outcome { ended: Ended::Failed(Failure::new(FailureReason::ResultTooLarge, text)), ..outcome }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
