//! The state that a pool's handle and its workers share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{PoolKind, PoolName, PoolSpec};
use crate::telemetry::metrics::PoolMeter;

use super::backoff::{Backoff, Pause};
use super::context::WorkerContext;
use super::run_queue::RunQueue;
use super::stats::WorkerCounters;
use crate::runners::sync::{AtomicBool, Mutex};

pub(super) struct PoolState {
    pub name: PoolName,
    pub kind: PoolKind,
    pub context: WorkerContext,
    pub meter: PoolMeter,
    pub run_queue: Arc<RunQueue>,
    pub workers: Mutex<Workers>,
    backoff: Mutex<Backoff>,
    /// Whether the run queue rests; read without the lock.
    resting: AtomicBool,
    /// Number of workers that have not ended.
    pub live: watch::Sender<usize>,
}

/// The workers of a pool, and how many there should be.
#[derive(Default)]
pub(super) struct Workers {
    pub target: usize,
    pub stopped: bool,
    /// By worker number.
    pub slots: Vec<WorkerSlot>,
    /// Replaced workers that may not have ended yet.
    pub leaving: Vec<WorkerHandle>,
}

pub(super) struct WorkerSlot {
    /// Cleared by the worker itself when it decides to leave.
    pub alive: bool,
    pub counters: Arc<WorkerCounters>,
    pub handle: WorkerHandle,
}

/// The thread or the task of the runtime that runs a worker.
pub(super) enum WorkerHandle {
    Thread(thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl WorkerSlot {
    pub fn is_alive(&self) -> bool {
        self.alive && !self.handle.is_finished()
    }
}

impl WorkerHandle {
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            Self::Task(task) => task.is_finished(),
        }
    }
}

impl PoolState {
    pub fn new(spec: &PoolSpec, context: WorkerContext) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let state = Self {
            name: spec.name.clone(),
            kind: spec.kind,
            meter: PoolMeter::new(&context.metrics, &spec.name, &context.catalog),
            context,
            run_queue: Arc::new(RunQueue::new(cores)),
            workers: Mutex::default(),
            backoff: Mutex::default(),
            resting: AtomicBool::default(),
            live: watch::Sender::new(0),
        };
        state.run_queue.set_paused(spec.paused);
        state
    }

    pub fn set_target(&self, workers: &mut Workers, size: usize) {
        workers.target = size;
        self.run_queue.set_slots(size);
    }

    /// An attempt could not start because the server lacks a resource. Nothing starts for a while, so that the attempts
    /// that wait for the resource are not overtaken and the server is not kept busy in vain.
    pub fn rest(self: &Arc<Self>, cause: &str) {
        self.meter.unavailable();
        let mut backoff = self.backoff.lock();
        let Some(Pause { until, is_first }) = backoff.begin(Instant::now()) else { return };
        self.resting.store(true, Ordering::Relaxed);
        self.run_queue.set_resting(true);
        drop(backoff);
        if is_first {
            let pool = &self.name;
            tracing::warn!(%pool, cause, "the server lacks a resource to start tasks: they wait, and no attempt is spent");
        }
        let pool = self.clone();
        self.context.runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            pool.end_rest(&pool.backoff.lock());
        });
    }

    /// An attempt has ended: what it used may be what others wait for.
    pub fn attempt_ended(&self) {
        if self.resting.load(Ordering::Relaxed) {
            let mut backoff = self.backoff.lock();
            backoff.cut_short(Instant::now());
            self.end_rest(&backoff);
        }
    }

    fn end_rest(&self, backoff: &Backoff) {
        if backoff.is_over(Instant::now()) {
            self.resting.store(false, Ordering::Relaxed);
            self.run_queue.set_resting(false);
        }
    }

    /// Lets every worker leave after its current attempt; no further attempt starts.
    pub fn shut_down(&self) {
        self.run_queue.set_paused(true);
        let mut workers = self.workers.lock();
        workers.stopped = true;
        self.set_target(&mut workers, 0);
    }

    /// Removes all workers from the table and returns their handles.
    pub fn take_handles(&self) -> Vec<WorkerHandle> {
        let mut workers = self.workers.lock();
        let slots = std::mem::take(&mut workers.slots);
        let mut handles = std::mem::take(&mut workers.leaving);
        handles.extend(slots.into_iter().map(|slot| slot.handle));
        handles
    }
}
