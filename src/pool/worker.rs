//! The loop of one worker: take the most urgent attempt, run it, report it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{Bill, Failure, FailureReason, StopMethod, Timestamp, limits};
use crate::runners::{Ended, Outcome, Run};

use super::attempt::Attempt;
use super::lanes::{Local, Taken};
use super::stats::Counters;
use super::{Report, Shared};

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
    bed: Arc<Notify>,
    /// Moving average of run times.
    usual_run_time: Duration,
}

enum Next {
    Run(Taken, Timestamp),
    Nothing,
    Leave,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, index: usize, counters: Arc<Counters>) -> Self {
        let name = format!("PoolWorker-{index}");
        let local = shared.lanes.join(index);
        Self {
            qualified_name: format!("{}/{name}", shared.name).into(),
            name: name.into(),
            local,
            shared,
            counters,
            bed: Arc::default(),
            usual_run_time: SHORT,
        }
    }

    pub async fn run(mut self) {
        loop {
            match self.next() {
                Next::Run(taken, at) => self.work(taken, at).await,
                Next::Nothing => self.sleep().await,
                Next::Leave => break,
            }
        }
        self.shared.lanes.leave(&self.local);
        self.shared.idle.wake(self.shared.lanes.len());
        self.shared.alive.send_modify(|alive| *alive -= 1);
    }

    fn next(&self) -> Next {
        if self.should_leave() {
            return Next::Leave;
        }
        let paused = self.shared.paused.read();
        if *paused {
            return Next::Nothing;
        }
        let batch = if self.usual_run_time < SHORT { BATCH } else { 1 };
        let Some(taken) = self.shared.lanes.take(&self.local, batch) else { return Next::Nothing };
        let at = self.shared.clock.now();
        let ticket = taken.attempt.ticket();
        (self.shared.reports)(Report::Started { ticket, worker: self.qualified_name.clone(), at });
        Next::Run(taken, at)
    }

    fn should_leave(&self) -> bool {
        if self.local.index < self.shared.target.load(Ordering::Acquire) {
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

    async fn sleep(&mut self) {
        self.shared.idle.announce(self.local.index, &self.bed);
        match self.next() {
            Next::Nothing => self.bed.notified().await,
            Next::Run(taken, at) => {
                self.shared.idle.withdraw(self.local.index);
                self.work(taken, at).await;
            }
            Next::Leave => self.shared.idle.withdraw(self.local.index),
        }
    }

    async fn work(&mut self, taken: Taken, at: Timestamp) {
        // Whoever was woken for work sees to it that the rest of it finds a worker as well.
        if self.shared.lanes.len() > 0 {
            self.shared.idle.wake(1);
        }
        let Taken { attempt, stolen } = taken;
        let begun = Instant::now();
        self.counters.begin(&attempt, begun, stolen);
        let outcome = self.outcome(&attempt).await;
        let run_time = begun.elapsed();
        self.counters.end(run_time, matches!(outcome.ended, Ended::Completed(_)));
        self.usual_run_time = (self.usual_run_time * 7 + run_time) / 8;
        self.report(&attempt, at, outcome, run_time);
    }

    async fn outcome(&mut self, attempt: &Arc<Attempt>) -> Outcome {
        if !attempt.confirmed().await {
            return Ended::Stopped(StopMethod::NeverStarted).into();
        }
        let spec = attempt.spec();
        let options = &spec.options;
        let Some(registered) = self.shared.registry.get(&options.handler) else {
            let text = format!("handler `{}` is not registered", options.handler);
            return Ended::Failed(Failure::new(FailureReason::HandlerError, text)).into();
        };
        let stop = attempt.stop_signal().clone();
        stop.arm(options.timeout);
        let progress = attempt.clone();
        let run = Run {
            task: spec.id.clone(),
            attempt: attempt.number(),
            payload: spec.payload.clone(),
            content_type: options.content_type.clone(),
            args: spec.args.clone(),
            worker: self.name.clone(),
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

    fn report(&self, attempt: &Arc<Attempt>, started_at: Timestamp, outcome: Outcome, run_time: Duration) {
        let buffer = attempt.output();
        let output = buffer.as_ref().and_then(|buffer| {
            buffer.close();
            buffer.captured().map(Box::new)
        });
        let result_bytes = match &outcome.ended {
            Ended::Completed(result) => result.data.len() as u64,
            _ => 0,
        };
        let bill = Box::new(Bill {
            queue_time: started_at.since(attempt.eligible_at()),
            run_time,
            cpu_time: outcome.cpu_time,
            peak_memory_bytes: outcome.peak_memory_bytes,
            output_bytes: output.as_ref().map_or(0, |output| output.stdout.total + output.stderr.total),
            result_bytes,
        });
        (self.shared.reports)(Report::Finished {
            ticket: attempt.ticket(),
            at: self.shared.clock.now(),
            ended: outcome.ended,
            cause: attempt.stop_signal().told_cause(),
            bill,
            output,
        });
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
