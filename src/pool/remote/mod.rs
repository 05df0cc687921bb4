//! A pool whose attempts run in remote workers.
//!
//! `queue` decides which worker gets which attempt, `worker` is one worker, and this file connects workers and drives
//! their attempts: a task of the runtime for each attempt.

#[cfg(test)]
mod interleaving_tests;
mod queue;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::model::{HandlerName, PoolName, PoolSpec, Priority, StopMethod, Timestamp};
use crate::runners::remote::{Command, LinkEnd, Reconnected, RemoteRunner, Slot, Token, WorkerReport};
use crate::runners::{BoxFuture, Outcome, RunReport, StopCause};
use crate::telemetry::metrics::PoolMeter;
use crate::telemetry::scope;

use super::attempt::{Attempt, Ticket};
use super::attempt_run;
use super::context::WorkerContext;
use super::report::Report;
use super::stats::{PoolStats, WorkerStats};
use super::sync::Mutex;
use queue::{HeldSlot, RemoteQueue, Started};
pub use worker::WorkerInfo;
use worker::{RemoteWorker, WorkerKey};

/// Payloads, of up to 1 MiB each, that were read from the store and that workers have not accepted yet.
const STORED_PAYLOADS_MAX: usize = 64;
/// How often links are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the slot of an attempt that the worker has refused stays unused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// The workers of a remote pool. Cheap to clone.
#[derive(Clone)]
pub struct RemoteWorkers {
    inner: Arc<Inner>,
}

/// The workers of a remote pool that exists as long as the scheduler runs.
pub struct WeakRemoteWorkers(Weak<Inner>);

impl WeakRemoteWorkers {
    /// `None` once the scheduler has ended.
    pub fn upgrade(&self) -> Option<RemoteWorkers> {
        Some(RemoteWorkers { inner: self.0.upgrade()? })
    }
}

struct Inner {
    pool: PoolName,
    context: WorkerContext,
    meter: PoolMeter,
    lease: Duration,
    queue: RemoteQueue,
    workers: Mutex<Workers>,
    stored_payloads: Arc<Semaphore>,
    draining: AtomicBool,
    /// The pool has stopped: nothing is driven any more.
    stopped: CancellationToken,
}

#[derive(Default)]
struct Workers {
    by_id: BTreeMap<Box<str>, Arc<RemoteWorker>>,
    last_key: WorkerKey,
}

/// A stream of a worker. When it is dropped, the worker is no longer connected and its lease begins to run.
pub struct RemoteConnection {
    workers: RemoteWorkers,
    worker: Arc<RemoteWorker>,
    stream: u64,
    pub commands: tokio::sync::mpsc::UnboundedReceiver<Command>,
    pub reconnected: Reconnected,
}

impl RemoteWorkers {
    pub(super) fn new(spec: &PoolSpec, context: WorkerContext) -> Self {
        let inner = Inner {
            pool: spec.name.clone(),
            meter: PoolMeter::new(&context.metrics, &spec.name, &context.catalog),
            lease: context.worker_lease,
            context,
            queue: RemoteQueue::default(),
            workers: Mutex::default(),
            stored_payloads: Arc::new(Semaphore::new(STORED_PAYLOADS_MAX)),
            draining: AtomicBool::default(),
            stopped: CancellationToken::new(),
        };
        drop(inner.queue.set_paused(spec.paused));
        Self { inner: Arc::new(inner) }
    }

    pub fn downgrade(&self) -> WeakRemoteWorkers {
        WeakRemoteWorkers(Arc::downgrade(&self.inner))
    }

    pub fn pool(&self) -> &PoolName {
        &self.inner.pool
    }

    /// How long a worker may be silent or disconnected before its attempts are given to others.
    pub fn lease(&self) -> Duration {
        self.inner.lease
    }

    /// Begins a stream of a worker. `unfinished` are the attempts that it has from earlier streams.
    pub fn connect(&self, info: WorkerInfo, unfinished: &[Token]) -> RemoteConnection {
        loop {
            let worker = self.worker(&info.id);
            let streams = worker.streams.lock();
            let Some(connected) = worker.link.connect(unfinished) else {
                // Its lease has just ended.
                drop(streams);
                self.remove(&worker);
                continue;
            };
            tracing::info!(
                worker = &*worker.name,
                slots = info.slots,
                version = &*info.version,
                kept = connected.reconnected.kept,
                stale = connected.reconnected.stale.len(),
                "remote worker connected"
            );
            let (handlers, slots) = (info.handlers.clone(), info.slots);
            worker.connected(info);
            let started = self.inner.queue.open(worker.key, handlers, slots);
            drop(streams);
            self.report_slots();
            self.start(started);
            return RemoteConnection {
                workers: self.clone(),
                worker,
                stream: connected.stream,
                commands: connected.commands,
                reconnected: connected.reconnected,
            };
        }
    }

    /// The worker with this ID, or a new one that is not connected.
    fn worker(&self, id: &str) -> Arc<RemoteWorker> {
        let mut workers = self.inner.workers.lock();
        if let Some(worker) = workers.by_id.get(id) {
            return worker.clone();
        }
        workers.last_key += 1;
        let key = workers.last_key;
        let name = format!("{}/{id}", self.inner.pool).into();
        let worker = Arc::new(RemoteWorker::new(id.into(), name, key, self.inner.lease, self.inner.meter.worker()));
        self.inner.queue.add_worker(worker.clone());
        workers.by_id.insert(id.into(), worker.clone());
        drop(workers);
        self.spawn(self.clone().watch_link(worker.clone()));
        worker
    }

    /// Ends the link of a worker when it has left or its lease has ended.
    async fn watch_link(self, worker: Arc<RemoteWorker>) {
        let end = loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            // The attempts of a server that stops are left to the next one.
            if self.inner.draining.load(Ordering::Relaxed) {
                return;
            }
            if let Some(end) = worker.link.check(worker.is_leaving()) {
                break end;
            }
        };
        self.remove(&worker);
        let name = &*worker.name;
        match end {
            LinkEnd::Left => tracing::info!(worker = name, "remote worker left"),
            LinkEnd::LeaseEnded => {
                tracing::warn!(
                    worker = name,
                    running = worker.running(),
                    "remote worker lost: it has not connected again"
                );
            }
            LinkEnd::Closed(reason) => {
                tracing::warn!(worker = name, running = worker.running(), ?reason, "remote worker evicted");
            }
        }
    }

    fn remove(&self, worker: &Arc<RemoteWorker>) {
        let mut workers = self.inner.workers.lock();
        if workers.by_id.get(&worker.id).is_some_and(|other| Arc::ptr_eq(other, worker)) {
            workers.by_id.remove(&worker.id);
        }
        drop(workers);
        self.inner.queue.remove_worker(worker.key);
        self.report_slots();
    }

    fn report_slots(&self) {
        self.inner.queue.report_slots(|total, slots| {
            (self.inner.context.reports)(Report::Slots { pool: self.inner.pool.clone(), total, slots });
        });
    }

    /// Reports the starts of attempts and drives each until its end.
    fn start(&self, started: Started) {
        for (worker, attempt) in started {
            let at = self.inner.context.clock.now();
            attempt.open_output();
            worker.attempt_started(&attempt, at.since(attempt.eligible_at()));
            let started = Report::Started { ticket: attempt.ticket(), worker: worker.name.clone(), at };
            (self.inner.context.reports)(started);
            self.spawn(self.clone().drive(worker, attempt, at, false));
        }
    }

    /// Takes over an attempt that an earlier server has started.
    pub(super) fn adopt(&self, worker: &str, attempt: Arc<Attempt>, started_at: Timestamp) {
        let id = worker.split_once('/').map_or(worker, |(_, id)| id);
        let worker = self.worker(id);
        attempt.claim();
        attempt.open_output();
        worker.attempt_started(&attempt, Duration::ZERO);
        self.inner.queue.take_slot(worker.key);
        self.spawn(self.clone().drive(worker, attempt, started_at, true));
    }

    /// Runs a task until the pool stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.inner.stopped.clone();
        self.inner.context.runtime.spawn(async move {
            let _ = stopped.run_until_cancelled_owned(task).await;
        });
    }

    async fn drive(self, worker: Arc<RemoteWorker>, attempt: Arc<Attempt>, at: Timestamp, is_adopted: bool) {
        let held = HeldSlot::taken();
        let slot = WorkerSlot { workers: self.clone(), key: worker.key, attempt: attempt.clone(), held: held.clone() };
        let report = if attempt.wait_for_confirmation().await {
            let scope = attempt.start_span(&worker.name, at);
            scope::within(scope, self.run(&worker, &attempt, at, slot, is_adopted)).await
        } else {
            Outcome::Stopped(StopMethod::NeverStarted).into()
        };
        let was_refused = matches!(report.outcome, Outcome::Unavailable(_));
        let run_time = self.inner.context.clock.now().since(at);
        worker.attempt_ended(&attempt, matches!(report.outcome, Outcome::Completed(_)));
        let link = Some(worker.link.clone());
        let end = attempt_run::end(&self.inner.context, &mut worker.meter.lock(), attempt, at, report, run_time, link);
        (self.inner.context.reports)(end);
        if was_refused {
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
        self.start(self.inner.queue.return_slot(worker.key, &held));
    }

    async fn run(
        &self,
        worker: &Arc<RemoteWorker>,
        attempt: &Arc<Attempt>,
        started_at: Timestamp,
        slot: WorkerSlot,
        is_adopted: bool,
    ) -> RunReport {
        let options = &attempt.spec().options;
        let memory = match self.memory_of_stored_payload(attempt, is_adopted).await {
            Ok(memory) => memory,
            Err(outcome) => return outcome.into(),
        };
        let runner = RemoteRunner {
            link: worker.link.clone(),
            token: Token(attempt.ticket().fence),
            options: options.clone(),
            slot: Arc::new(slot),
            grace: self.inner.context.catalog.load().grace_of(&options.handler),
            memory,
            is_adopted,
        };
        if is_adopted {
            let elapsed = self.inner.context.clock.now().since(started_at);
            attempt.stop_signal().start_timeout(options.timeout.saturating_sub(elapsed));
            return attempt_run::run_with_payload(&runner, attempt, Bytes::new()).await;
        }
        attempt_run::run(&self.inner.context, &runner, attempt).await
    }

    /// Waits for memory if the payload has to be read from the store. The error is how the attempt ends before that.
    async fn memory_of_stored_payload(
        &self,
        attempt: &Attempt,
        is_adopted: bool,
    ) -> Result<Option<Arc<OwnedSemaphorePermit>>, Outcome> {
        if is_adopted || !attempt.payload_is_stored() {
            return Ok(None);
        }
        tokio::select! {
            biased;
            _ = attempt.stop_signal().wait(StopCause::Timeout) => Err(Outcome::Stopped(StopMethod::NeverStarted)),
            // The semaphore is never closed.
            permit = self.inner.stored_payloads.clone().acquire_owned() => Ok(permit.ok().map(Arc::new)),
        }
    }

    pub(super) fn push(
        &self,
        handler: &HandlerName,
        attempts: impl IntoIterator<Item = Arc<Attempt>>,
        held_back: [bool; Priority::COUNT],
    ) {
        self.inner.queue.push(handler, attempts, held_back);
    }

    pub(super) fn start_pushed(&self) {
        self.start(self.inner.queue.start_pushed());
    }

    pub(super) fn remove_attempt(&self, attempt: &Attempt, ticket: Ticket) {
        let options = &attempt.spec().options;
        self.inner.queue.remove(&options.handler, options.priority, ticket);
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.start(self.inner.queue.set_paused(paused));
    }

    /// From now on no attempt starts, and none is given up: those that run are left to the next server.
    pub(super) fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        drop(self.inner.queue.set_paused(true));
    }

    /// Ends everything that drives attempts.
    pub(super) fn stop(&self) {
        self.drain();
        self.inner.stopped.cancel();
    }

    pub(super) fn stats(&self) -> PoolStats {
        let workers = self.inner.workers.lock();
        let busy = workers.by_id.values().map(|worker| worker.running()).sum();
        let slots = self.inner.queue.slots();
        PoolStats { alive: slots, busy, idle: slots.saturating_sub(busy), assigned: self.inner.queue.counts() }
    }

    /// One row for each worker, by ID.
    pub(super) fn workers(&self) -> Vec<WorkerStats> {
        let workers: Vec<_> = self.inner.workers.lock().by_id.values().cloned().collect();
        workers.iter().map(|worker| worker.stats()).collect()
    }

    pub(super) fn reset_counters(&self) {
        for worker in self.inner.workers.lock().by_id.values() {
            worker.reset_counters();
        }
    }
}

impl RemoteConnection {
    /// The worker has sent a message. Returns false if another stream has replaced this one.
    pub fn heard(&self) -> bool {
        self.worker.link.heard(self.stream)
    }

    /// Whether the server may read more messages; if not, it may after the next command.
    pub fn has_room(&self) -> bool {
        self.worker.link.has_room()
    }

    pub fn report(&self, report: WorkerReport) {
        self.worker.link.report(report);
    }

    /// The worker accepts no further attempts, unless another stream has replaced this one.
    pub fn leave(&self) {
        let streams = self.worker.streams.lock();
        if !self.worker.link.heard(self.stream) {
            return;
        }
        self.worker.leave();
        self.workers.inner.queue.close(self.worker.key);
        drop(streams);
        self.workers.report_slots();
    }

    /// Qualified name of the worker.
    pub fn worker(&self) -> &str {
        &self.worker.name
    }
}

impl Drop for RemoteConnection {
    fn drop(&mut self) {
        let streams = self.worker.streams.lock();
        if !self.worker.link.disconnect(self.stream) {
            return;
        }
        self.workers.inner.queue.close(self.worker.key);
        drop(streams);
        self.workers.report_slots();
        tracing::info!(worker = &*self.worker.name, running = self.worker.running(), "remote worker disconnected");
    }
}

/// The slot of an attempt in its worker.
struct WorkerSlot {
    workers: RemoteWorkers,
    key: WorkerKey,
    attempt: Arc<Attempt>,
    held: Arc<HeldSlot>,
}

impl Slot for WorkerSlot {
    fn suspend(&self) {
        self.workers.start(self.workers.inner.queue.return_slot(self.key, &self.held));
    }

    fn resume(&self) -> BoxFuture<()> {
        let (receiver, started) = self.workers.inner.queue.resume(self.key, &self.attempt, &self.held);
        self.workers.start(started);
        Box::pin(async move {
            if receiver.await.is_err() {
                // The worker is gone, and the attempt ends.
                std::future::pending::<()>().await;
            }
        })
    }
}
