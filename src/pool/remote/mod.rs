//! A pool whose attempts run in remote workers.
//!
//! `queue` decides which worker gets which attempt, with the index in `groups`, `worker` is one worker, `attempts` starts and ends attempts, `connection`
//! is a stream of a worker, and this file connects workers. No attempt has a task of the runtime, unless it has to wait before
//! it can be sent: the messages of its worker move it on, and one task for each worker looks at the clock.

mod attempts;
mod connection;
mod groups;
#[cfg(test)]
mod interleaving_tests;
mod queue;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::model::{HandlerName, PoolName, PoolSpec, Priority, Timestamp};
use crate::runners::remote::{LinkEnd, Token};
use crate::runners::sync::Mutex;
use crate::telemetry::metrics::PoolMeter;

use super::attempt::{Attempt, Ticket};
use super::context::WorkerContext;
use super::stats::{PoolStats, WorkerStats};
use attempts::{Host, RemoteAttempts};
pub use connection::RemoteConnection;
pub use worker::WorkerInfo;
use worker::{RemoteWorker, WorkerKey};

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
    attempts: Arc<RemoteAttempts>,
    meter: PoolMeter,
    lease: Duration,
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    by_id: BTreeMap<Box<str>, Arc<RemoteWorker>>,
    last_key: WorkerKey,
}

impl RemoteWorkers {
    pub(super) fn new(spec: &PoolSpec, context: WorkerContext) -> Self {
        let inner = Inner {
            meter: PoolMeter::new(&context.metrics, &spec.name, &context.catalog),
            lease: context.worker_lease,
            attempts: RemoteAttempts::new(spec, context),
            workers: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn downgrade(&self) -> WeakRemoteWorkers {
        WeakRemoteWorkers(Arc::downgrade(&self.inner))
    }

    pub fn pool(&self) -> &PoolName {
        &self.inner.attempts.pool
    }

    /// How long a worker may be silent or disconnected before its attempts are given to others.
    pub fn lease(&self) -> Duration {
        self.inner.lease
    }

    /// Begins a stream of a worker. `unfinished` are the attempts that it has from earlier streams.
    pub fn connect(&self, info: WorkerInfo, unfinished: &[Token]) -> RemoteConnection {
        let attempts = &self.inner.attempts;
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
                kept = connected.kept,
                stale = connected.stale.len(),
                "remote worker connected"
            );
            let (handlers, slots) = (info.handlers.clone(), info.slots);
            worker.connected(info);
            let granted = attempts.queue.open(worker.key, &handlers, slots);
            drop(streams);
            attempts.report_slots();
            attempts.start(granted);
            attempts.end(&worker, connected.lost);
            let (attempts, stale) = (attempts.clone(), connected.stale);
            return RemoteConnection { attempts, worker, stream: connected.stream, stale };
        }
    }

    /// The worker with this ID, or a new one that is not connected.
    fn worker(&self, id: &str) -> Arc<RemoteWorker> {
        let attempts = &self.inner.attempts;
        let mut workers = self.inner.workers.lock();
        if let Some(worker) = workers.by_id.get(id) {
            return worker.clone();
        }
        workers.last_key += 1;
        let key = workers.last_key;
        let name = format!("{}/{id}", attempts.pool).into();
        let worker = Arc::new(RemoteWorker::new(id.into(), name, key, self.inner.lease, self.inner.meter.worker()));
        attempts.queue.add_worker(worker.clone());
        workers.by_id.insert(id.into(), worker.clone());
        drop(workers);
        attempts.spawn(self.clone().drive(worker.clone()));
        worker
    }

    /// Drives the attempts of a worker until it has left or its lease has ended.
    async fn drive(self, worker: Arc<RemoteWorker>) {
        let attempts = &self.inner.attempts;
        let (end, lost) = worker.link.drive(&Host { attempts, worker: &worker }).await;
        self.remove(&worker);
        let (name, running) = (&*worker.name, worker.running());
        match end {
            LinkEnd::Left => tracing::info!(worker = name, "remote worker left"),
            LinkEnd::LeaseEnded => {
                tracing::warn!(worker = name, running, "remote worker lost: it has not connected again");
            }
            LinkEnd::Closed(reason) => tracing::warn!(worker = name, running, ?reason, "remote worker evicted"),
        }
        // After it was removed, so that it gets no others.
        attempts.end(&worker, lost);
    }

    fn remove(&self, worker: &Arc<RemoteWorker>) {
        let mut workers = self.inner.workers.lock();
        if workers.by_id.get(&worker.id).is_some_and(|other| Arc::ptr_eq(other, worker)) {
            workers.by_id.remove(&worker.id);
        }
        drop(workers);
        self.inner.attempts.queue.remove_worker(worker.key);
        self.inner.attempts.report_slots();
    }

    /// Takes over an attempt that an earlier server has started.
    pub(super) fn adopt(&self, worker: &str, attempt: Arc<Attempt>, started_at: Timestamp) {
        let id = worker.split_once('/').map_or(worker, |(_, id)| id);
        self.inner.attempts.adopt(&self.worker(id), attempt, started_at);
    }

    pub(super) fn push(
        &self,
        handler: &HandlerName,
        attempts: impl IntoIterator<Item = Arc<Attempt>>,
        held_back: [bool; Priority::COUNT],
    ) {
        self.inner.attempts.queue.push(handler, attempts, held_back);
    }

    pub(super) fn start_pushed(&self) {
        let attempts = &self.inner.attempts;
        attempts.start(attempts.queue.start_pushed());
    }

    pub(super) fn remove_attempt(&self, attempt: &Attempt, ticket: Ticket) {
        self.inner.attempts.queue.remove(&attempt.spec().options.handler, attempt.urgency(), ticket);
    }

    pub(super) fn set_paused(&self, paused: bool) {
        let attempts = &self.inner.attempts;
        attempts.start(attempts.queue.set_paused(paused));
    }

    /// From now on no attempt starts, and none is given up: those that run are left to the next server.
    pub(super) fn drain(&self) {
        self.inner.attempts.draining.store(true, Ordering::Relaxed);
        self.set_paused(true);
    }

    /// Ends everything that drives attempts.
    pub(super) fn stop(&self) {
        self.drain();
        self.inner.attempts.stopped.cancel();
    }

    pub(super) fn stats(&self) -> PoolStats {
        let workers = self.inner.workers.lock();
        let busy = workers.by_id.values().map(|worker| worker.running()).sum();
        let slots = self.inner.attempts.queue.slots();
        let assigned = self.inner.attempts.queue.counts();
        PoolStats { alive: slots, busy, idle: slots.saturating_sub(busy), assigned }
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
