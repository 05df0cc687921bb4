//! What workers count, and how it is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::{HandlerName, Priority, TaskId};

use super::attempt::Attempt;

/// One pool in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Workers that are there.
    pub alive: usize,
    /// Workers that run an attempt.
    pub busy: usize,
    /// Workers that do not.
    pub idle: usize,
    /// Attempts taken from other workers since the last reset.
    pub steals: u64,
    /// Attempts that have not begun, by priority index.
    pub assigned: [usize; Priority::COUNT],
}

/// One worker in numbers, since the last reset.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStats {
    /// `PoolWorker-3`.
    pub name: String,
    /// Takes work; false while it leaves.
    pub alive: bool,
    /// Runs an attempt.
    pub busy: bool,
    /// Attempts in its own deques.
    pub queue_size: usize,
    /// What it runs.
    pub current: Option<(TaskId, HandlerName)>,
    /// Attempts that completed.
    pub completed: u64,
    /// Attempts that failed or were stopped.
    pub failed: u64,
    /// Time running attempts.
    pub busy_time: Duration,
    /// Time without.
    pub idle_time: Duration,
    /// Attempts taken from other workers.
    pub steals: u64,
}

/// Counted by one worker, read by others; on cache lines of its own, because all workers count at once.
#[repr(align(128))]
pub(super) struct Counters {
    completed: AtomicU64,
    failed: AtomicU64,
    steals: AtomicU64,
    busy_us: AtomicU64,
    current: Mutex<Option<(Arc<Attempt>, Instant)>>,
    since: Mutex<Instant>,
    beginning: AtomicBool,
}

/// The worker is between looking for an attempt and having reported its start.
pub(super) struct Beginning<'a>(&'a AtomicBool);

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            steals: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            current: Mutex::new(None),
            since: Mutex::new(Instant::now()),
            beginning: AtomicBool::new(false),
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

impl Counters {
    /// Marks the worker as about to begin; held until its attempt's start is reported.
    pub fn beginning(&self) -> Beginning<'_> {
        self.beginning.store(true, Ordering::SeqCst);
        Beginning(&self.beginning)
    }

    /// Waits, for less than it takes to report a start, while the worker is about to begin.
    pub fn wait_while_beginning(&self) {
        while self.beginning.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    pub fn begin(&self, attempt: &Arc<Attempt>, at: Instant, stolen: bool) {
        *self.current.lock() = Some((attempt.clone(), at));
        if stolen {
            self.steals.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn end(&self, completed: bool) {
        let Some((_, begun)) = self.current.lock().take() else { return };
        // What ran before a reset is not counted after it.
        let busy = begun.max(*self.since.lock()).elapsed();
        self.busy_us.fetch_add(micros(busy), Ordering::Relaxed);
        let counter = if completed { &self.completed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn is_busy(&self) -> bool {
        self.current.lock().is_some()
    }

    pub fn steals(&self) -> u64 {
        self.steals.load(Ordering::Relaxed)
    }

    pub fn read(&self, index: usize, alive: bool, queue_size: usize) -> WorkerStats {
        let now = Instant::now();
        let since = *self.since.lock();
        let current = self.current.lock().clone();
        let running = current.as_ref().map_or(Duration::ZERO, |(_, at)| now.duration_since((*at).max(since)));
        let busy_time = Duration::from_micros(self.busy_us.load(Ordering::Relaxed)) + running;
        WorkerStats {
            name: format!("PoolWorker-{index}"),
            alive,
            busy: current.is_some(),
            queue_size,
            current: current.map(|(attempt, _)| {
                let spec = attempt.spec();
                (spec.id.clone(), spec.options.handler.clone())
            }),
            completed: self.completed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            busy_time,
            idle_time: now.duration_since(since).saturating_sub(busy_time),
            steals: self.steals(),
        }
    }

    pub fn reset(&self) {
        *self.since.lock() = Instant::now();
        for counter in [&self.completed, &self.failed, &self.steals, &self.busy_us] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
