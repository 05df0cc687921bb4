//! The loop of one worker: claim the most urgent attempt, run it, report it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{Failure, FailureReason, PoolKind, StopMethod, Timestamp};
use crate::runners::{Outcome, RunReport, StopCause};
use crate::telemetry::metrics::AttemptMeter;
use crate::telemetry::scope;

use super::attempt::Attempt;
use super::attempt_run::{self, Ended};
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
        attempt.open_output();
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
        let ended = Ended { attempt, started_at: at, at: self.pool.context.clock.now(), run_time, report };
        let end = attempt_run::end(&mut self.meter, ended, None);
        (self.pool.context.reports)(end);
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
        let handler = &attempt.spec().options.handler;
        let Some(runner) = self.pool.context.registry.get(handler) else {
            let text = format!("handler `{handler}` is not registered");
            return Outcome::Failed(Failure::new(FailureReason::HandlerError, text)).into();
        };
        attempt_run::run(&self.pool.context, &*runner, attempt).await
    }
}
