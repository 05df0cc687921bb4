//! Statistics of pools and workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{HandlerName, Priority, TaskId};

use super::attempt::Attempt;
use crate::runners::sync::{AtomicBool, AtomicU64, Mutex, yield_now};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStats {
    pub alive: usize,
    /// Workers that run an attempt.
    pub busy: usize,
    pub idle: usize,
    /// Attempts that have not started, by priority index.
    pub assigned: [usize; Priority::COUNT],
}

/// Counts and times are those since the last reset.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStats {
    /// Such as `PoolWorker-3`.
    pub name: String,
    /// False when the worker leaves after its current attempt.
    pub alive: bool,
    pub busy: bool,
    pub current: Option<(TaskId, HandlerName)>,
    /// Attempts that completed.
    pub completed: u64,
    /// Attempts that failed or were stopped.
    pub failed: u64,
    pub busy_time: Duration,
    pub idle_time: Duration,
    /// Set for a remote worker.
    pub remote: Option<RemoteStats>,
}

/// What is known of a remote worker besides its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteStats {
    pub handlers: Arc<[HandlerName]>,
    pub slots: usize,
    pub running: usize,
    pub labels: Vec<(String, String)>,
    pub version: String,
    pub is_connected: bool,
}

/// Written by one worker, read by others. Aligned to its own cache lines, because all workers count at once.
#[repr(align(128))]
pub(super) struct WorkerCounters {
    completed: AtomicU64,
    failed: AtomicU64,
    busy_us: AtomicU64,
    current: Mutex<Option<(Arc<Attempt>, Instant)>>,
    since: Mutex<Instant>,
    starting: AtomicBool,
}

/// Marks a worker as starting an attempt until it is dropped.
pub(super) struct StartingGuard<'a>(&'a AtomicBool);

impl Drop for StartingGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            completed: AtomicU64::default(),
            failed: AtomicU64::default(),
            busy_us: AtomicU64::default(),
            current: Mutex::new(None),
            since: Mutex::new(Instant::now()),
            starting: AtomicBool::default(),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl WorkerCounters {
    /// To be held from before the worker claims an attempt until its start is reported.
    pub fn mark_starting(&self) -> StartingGuard<'_> {
        self.starting.store(true, Ordering::SeqCst);
        StartingGuard(&self.starting)
    }

    /// Spins while the worker is starting an attempt, which takes no longer than reporting a start.
    pub fn wait_while_starting(&self) {
        while self.starting.load(Ordering::SeqCst) {
            yield_now();
        }
    }

    pub fn attempt_started(&self, attempt: &Arc<Attempt>, at: Instant) {
        *self.current.lock() = Some((attempt.clone(), at));
    }

    pub fn attempt_ended(&self, completed: bool) {
        let Some((_, started)) = self.current.lock().take() else { return };
        // The time before the last reset is not counted.
        let busy = started.max(*self.since.lock()).elapsed();
        self.busy_us.fetch_add(micros(busy), Ordering::Relaxed);
        let counter = if completed { &self.completed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn is_busy(&self) -> bool {
        self.current.lock().is_some()
    }

    pub fn snapshot(&self, index: usize, alive: bool) -> WorkerStats {
        let now = Instant::now();
        let since = *self.since.lock();
        let current = self.current.lock().clone();
        let running = current.as_ref().map_or(Duration::ZERO, |(_, at)| now.duration_since((*at).max(since)));
        let busy_time = Duration::from_micros(self.busy_us.load(Ordering::Relaxed)) + running;
        WorkerStats {
            name: format!("PoolWorker-{index}"),
            alive,
            busy: current.is_some(),
            current: current.map(|(attempt, _)| {
                let spec = attempt.spec();
                (spec.id.clone(), spec.options.handler.clone())
            }),
            completed: self.completed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            busy_time,
            idle_time: now.duration_since(since).saturating_sub(busy_time),
            remote: None,
        }
    }

    pub fn reset(&self) {
        *self.since.lock() = Instant::now();
        for counter in [&self.completed, &self.failed, &self.busy_us] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
