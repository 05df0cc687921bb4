//! The attempts of a remote pool, from their start to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::model::limits::PayloadLimit;
use crate::model::{PoolName, PoolSpec, StopMethod, TaskSpec, Timestamp};
use crate::pool::attempt::Attempt;
use crate::pool::attempt_run::{self, Ended};
use crate::pool::context::WorkerContext;
use crate::pool::report::Report;
use crate::pool::running::RunningAttempt;
use crate::runners::remote::{Assigned, Happened, LinkHost, LinkedAttempt, Start};
use crate::runners::{Outcome, RunReport, StopCause};

use super::queue::{Granted, RemoteQueue, SlotChange};
use super::worker::RemoteWorker;

/// Bytes of payloads that were read from the store and that workers have not accepted yet: at least one of the largest.
const STORED_BYTES_MAX: usize = *PayloadLimit::RANGE.end();
/// Bytes of one permit; no payload counts less.
const PERMIT_BYTES: usize = 1 << 20;
/// How long the slot of an attempt that the worker has refused stays unused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// Starts attempts in workers, and ends them.
pub(super) struct RemoteAttempts {
    pub pool: PoolName,
    pub context: WorkerContext,
    pub queue: RemoteQueue,
    stored_payloads: Arc<Semaphore>,
    /// The attempts are left to the next server.
    pub draining: AtomicBool,
    /// The pool has stopped: nothing is driven any more.
    pub stopped: CancellationToken,
}

/// A payload, with its memory if it was read from the store.
type HeldPayload = (Bytes, Option<Arc<OwnedSemaphorePermit>>);

impl RemoteAttempts {
    pub fn new(spec: &PoolSpec, context: WorkerContext) -> Arc<Self> {
        let attempts = Self {
            pool: spec.name.clone(),
            context,
            queue: RemoteQueue::default(),
            stored_payloads: Arc::new(Semaphore::new(STORED_BYTES_MAX / PERMIT_BYTES)),
            draining: AtomicBool::default(),
            stopped: CancellationToken::new(),
        };
        drop(attempts.queue.set_paused(spec.paused));
        Arc::new(attempts)
    }

    /// Reports the starts of attempts and gives them to their workers.
    pub fn start(self: &Arc<Self>, granted: Granted) {
        if !granted.is_empty() {
            self.report_and_start(Vec::new(), granted);
        }
    }

    /// Takes over an attempt that an earlier server has started.
    pub fn adopt(self: &Arc<Self>, worker: &Arc<RemoteWorker>, attempt: Arc<Attempt>, started_at: Timestamp) {
        let elapsed = self.context.clock.now().since(started_at);
        attempt.claim();
        attempt.open_output();
        attempt.stop_signal().start_timeout(attempt.spec().options.timeout.saturating_sub(elapsed));
        drop(attempt.start_span(&worker.name, started_at));
        self.queue.take_slot(worker.key, &attempt);
        let running = RunningAttempt { attempt, started_at };
        worker.attempts_started(std::slice::from_ref(&running), started_at);
        self.end(worker, worker.link.adopt(running));
    }

    /// Processes what has happened to attempts of a worker: one report for all of it, in order.
    pub fn process(self: &Arc<Self>, worker: &Arc<RemoteWorker>, happened: Vec<Happened<RunningAttempt>>) {
        if happened.is_empty() {
            return;
        }
        let at = self.context.clock.now();
        let (mut reports, mut slots, mut refused) = (Vec::with_capacity(happened.len()), Vec::new(), Vec::new());
        let (mut completed, mut failed) = (0, 0);
        slots.reserve(happened.len());
        let mut meter = worker.meter.lock();
        for happened in happened {
            let (running, report) = match happened {
                Happened::Suspended(running) => {
                    slots.push((running.attempt, SlotChange::Suspended));
                    continue;
                }
                Happened::Resuming(running) => {
                    slots.push((running.attempt, SlotChange::Wanted));
                    continue;
                }
                Happened::Ended(running, report) => (running, report),
            };
            *if matches!(report.outcome, Outcome::Completed(_)) { &mut completed } else { &mut failed } += 1;
            let is_refused = matches!(report.outcome, Outcome::Unavailable(_));
            let freed = if is_refused { &mut refused } else { &mut slots };
            freed.push((running.attempt.clone(), SlotChange::Returned));
            let RunningAttempt { attempt, started_at } = running;
            let run_time = at.since(started_at);
            let ended = Ended { attempt, started_at, at, run_time, report };
            reports.push(attempt_run::end(&mut meter, ended, Some(worker.link.clone())));
        }
        drop(meter);
        worker.attempts_ended(completed, failed);
        self.report_and_start(reports, self.queue.change_slots(worker.key, slots));
        if !refused.is_empty() {
            self.return_later(worker.clone(), refused);
        }
    }

    /// Ends attempts that are no longer their link's.
    pub fn end(
        self: &Arc<Self>,
        worker: &Arc<RemoteWorker>,
        ended: impl IntoIterator<Item = (RunningAttempt, RunReport)>,
    ) {
        self.process(worker, ended.into_iter().map(|(attempt, report)| Happened::Ended(attempt, report)).collect());
    }

    /// Returns the slots of attempts that the worker has refused.
    fn return_later(self: &Arc<Self>, worker: Arc<RemoteWorker>, slots: Vec<(Arc<Attempt>, SlotChange)>) {
        let this = self.clone();
        self.spawn(async move {
            tokio::time::sleep(REFUSAL_PAUSE).await;
            this.start(this.queue.change_slots(worker.key, slots));
        });
    }

    fn report_and_start(self: &Arc<Self>, mut reports: Vec<Report>, granted: Granted) {
        let Granted { mut starts, resumed } = granted;
        let at = self.context.clock.now();
        reports.reserve(starts.len());
        for (worker, attempt) in &starts {
            attempt.open_output();
            reports.push(Report::Started { ticket: attempt.ticket(), worker: worker.name.clone(), at });
        }
        // Before the workers hear of them: no attempt ends before its start is reported.
        match reports.len() {
            0 => {}
            1 => reports.into_iter().for_each(|report| (self.context.reports)(report)),
            _ => (self.context.reports)(Report::Many(reports)),
        }
        // Stable: the order of the attempts of a worker stays.
        starts.sort_by_key(|(worker, _)| worker.key);
        for starts in starts.chunk_by(|(one, _), (other, _)| one.key == other.key) {
            let running = starts.iter().map(|(_, attempt)| RunningAttempt { attempt: attempt.clone(), started_at: at });
            self.give(&starts[0].0, running.collect(), at);
        }
        for resumed in resumed.chunk_by(|(one, _), (other, _)| one.key == other.key) {
            resumed[0].0.link.resumed(resumed.iter().map(|(_, attempt)| RunningAttempt::token_of(attempt)));
        }
    }

    /// Gives a worker attempts whose starts are reported.
    fn give(self: &Arc<Self>, worker: &Arc<RemoteWorker>, running: Vec<RunningAttempt>, at: Timestamp) {
        worker.attempts_started(&running, at);
        let mut starts = Vec::with_capacity(running.len());
        for running in running {
            let attempt = &running.attempt;
            let is_ready = !attempt.needs_confirmation()
                && !attempt.payload_is_stored()
                && worker.receives(attempt.spec().payload.len());
            let assigned = is_ready.then(|| assigned(worker, &running, (TaskSpec::payload_of(attempt.spec()), None)));
            starts.push(Start { attempt: running, assigned });
        }
        let unprepared = starts.iter().filter(|start| start.assigned.is_none());
        let unprepared: Vec<_> = unprepared.map(|start| start.attempt.clone()).collect();
        self.end(worker, worker.link.start(starts));
        for running in unprepared {
            self.spawn(self.clone().prepare(worker.clone(), running));
        }
    }

    /// Waits until an attempt can be sent, and sends it.
    async fn prepare(self: Arc<Self>, worker: Arc<RemoteWorker>, running: RunningAttempt) {
        let attempt = &running.attempt;
        let prepared = tokio::select! {
            biased;
            _ = attempt.stop_signal().wait(StopCause::Timeout) => Err(Outcome::Stopped(StopMethod::NeverStarted)),
            payload = self.held_payload(attempt) => payload,
        };
        let prepared = prepared.and_then(|(payload, memory)| {
            let is_received = worker.receives(payload.len());
            if is_received { Ok((payload, memory)) } else { Err(Outcome::Failed(worker.not_received(payload.len()))) }
        });
        match prepared {
            Ok(payload) => worker.link.send(running.token(), assigned(&worker, &running, payload)),
            Err(outcome) => {
                let ended = worker.link.take(running.token()).map(|running| (running, outcome.into()));
                self.end(&worker, ended);
            }
        }
    }

    /// The payload, once the start is durable if it has to be. The error is how the attempt ends without one.
    async fn held_payload(&self, attempt: &Attempt) -> Result<HeldPayload, Outcome> {
        attempt.wait_for_confirmation().await;
        let mut memory = None;
        if attempt.payload_is_stored() {
            let PayloadLimit(largest) = self.context.catalog.load().payload_limit;
            // The semaphore is never closed.
            memory = self.stored_payloads.clone().acquire_many_owned(permits(largest)).await.ok();
        }
        let payload = attempt_run::payload(&self.context.payloads, attempt, attempt.stop_signal()).await?;
        if let Some(memory) = &mut memory {
            let unused = memory.num_permits().saturating_sub(permits(payload.len()) as usize);
            drop(memory.split(unused));
        }
        Ok((payload, memory.map(Arc::new)))
    }

    pub fn report_slots(&self) {
        self.queue.report_slots(|total, slots| {
            (self.context.reports)(Report::Slots { pool: self.pool.clone(), total, slots });
        });
    }

    /// Runs a task until the pool stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.stopped.clone();
        self.context.runtime.spawn(async move {
            let _ = stopped.run_until_cancelled_owned(task).await;
        });
    }
}

/// The permits for a payload.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.min(STORED_BYTES_MAX).div_ceil(PERMIT_BYTES).max(1)).unwrap_or(1)
}

/// An attempt as its worker gets it. Its timeout begins.
fn assigned(worker: &RemoteWorker, running: &RunningAttempt, (payload, memory): HeldPayload) -> Arc<Assigned> {
    let attempt = &running.attempt;
    drop(attempt.start_span(&worker.name, running.started_at));
    let spec = attempt.spec();
    attempt.stop_signal().start_timeout(spec.options.timeout);
    Arc::new(Assigned {
        token: running.token(),
        task: spec.id.clone(),
        options: spec.options.clone(),
        attempt: attempt.number(),
        payload,
        trace: attempt.trace_context(),
        memory,
    })
}

/// A worker of the pool, for its link.
pub(super) struct Host<'a> {
    pub attempts: &'a Arc<RemoteAttempts>,
    pub worker: &'a Arc<RemoteWorker>,
}

impl LinkHost<RunningAttempt> for Host<'_> {
    fn grace_of(&self, running: &RunningAttempt) -> Duration {
        self.attempts.context.catalog.load().grace_of(&running.attempt.spec().options.handler)
    }

    fn ended(&self, ended: Vec<(RunningAttempt, RunReport)>) {
        self.attempts.end(self.worker, ended);
    }

    fn is_leaving(&self) -> bool {
        self.worker.is_leaving()
    }

    fn is_draining(&self) -> bool {
        self.attempts.draining.load(Ordering::Relaxed)
    }
}
