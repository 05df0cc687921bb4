//! The workers that a pool has of its own: threads, or tasks of the runtime.

use std::io;
use std::sync::Arc;
use std::thread;

use crate::model::limits::POOL_SIZE_MAX;
use crate::model::{PoolKind, PoolSpec, Priority};

use super::attempt::{Attempt, Ticket};
use super::context::WorkerContext;
use super::run_queue::Load;
use super::state::{PoolState, WorkerHandle, WorkerSlot, Workers};
use super::stats::{PoolStats, WorkerCounters, WorkerStats};
use super::worker::Worker;

/// Stack of a worker's thread. Large because expressions recurse; only touched pages become resident.
const STACK_BYTES: usize = 2 << 20;

/// They leave when this is dropped, so that no thread waits for work that cannot come.
pub(super) struct LocalWorkers {
    pub state: Arc<PoolState>,
}

impl Drop for LocalWorkers {
    fn drop(&mut self) {
        self.state.shut_down();
    }
}

impl LocalWorkers {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the size is not 1 to 1,000, or a thread cannot be started.
    pub fn start(spec: &PoolSpec, context: WorkerContext) -> io::Result<Self> {
        let workers = Self { state: Arc::new(PoolState::new(spec, context)) };
        workers.resize(spec.size)?;
        Ok(workers)
    }

    pub fn push(&self, attempts: impl IntoIterator<Item = Arc<Attempt>>, held_back: [bool; Priority::COUNT]) {
        self.state.run_queue.push(attempts, held_back);
    }

    pub fn remove_attempt(&self, attempt: &Attempt, ticket: Ticket) {
        self.state.run_queue.remove(attempt.urgency(), ticket);
    }

    /// After a pause has returned, no attempt starts, and every earlier start has been reported.
    pub fn set_paused(&self, paused: bool) {
        self.state.run_queue.set_paused(paused);
        if paused {
            let workers = self.state.workers.lock();
            let counters: Vec<_> = workers.slots.iter().map(|slot| slot.counters.clone()).collect();
            drop(workers);
            for counters in counters {
                counters.wait_while_starting();
            }
        }
    }

    /// Changes the number of slots and workers, 1 to 1,000. Growing starts workers; when shrinking, those with the
    /// highest numbers finish their current attempt and leave, and no attempt starts until fewer than `size` run.
    ///
    /// # Errors
    /// When the size is out of bounds, the pool has stopped, or a thread cannot be started. In the last
    /// case the pool keeps the size that it could reach.
    pub fn resize(&self, size: usize) -> io::Result<()> {
        if !(1..=POOL_SIZE_MAX).contains(&size) {
            let text = format!("pool size is {size}, must be 1 to {POOL_SIZE_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut workers = self.state.workers.lock();
        if workers.stopped {
            return Err(io::Error::other("the pool has stopped"));
        }
        workers.leaving.retain(|handle| !handle.is_finished());
        let before = workers.target;
        self.state.set_target(&mut workers, size);
        for index in 0..size {
            if workers.slots.get(index).is_none_or(|slot| !slot.is_alive())
                && let Err(error) = self.spawn(&mut workers, index)
            {
                self.state.set_target(&mut workers, index.max(before.min(size)));
                return Err(error);
            }
        }
        Ok(())
    }

    fn spawn(&self, workers: &mut Workers, index: usize) -> io::Result<()> {
        let counters = Arc::new(WorkerCounters::default());
        let worker = Worker::new(self.state.clone(), index, counters.clone());
        let runtime = self.state.context.runtime.clone();
        let handle = match self.state.kind {
            PoolKind::Async => WorkerHandle::Task(runtime.spawn(worker.run())),
            // A remote pool has no workers of its own.
            PoolKind::Threads | PoolKind::Remote => {
                let thread = thread::Builder::new().name(format!("PoolWorker-{index}")).stack_size(STACK_BYTES);
                WorkerHandle::Thread(thread.spawn(move || runtime.block_on(worker.run()))?)
            }
        };
        let slot = WorkerSlot { alive: true, counters, handle };
        if index < workers.slots.len() {
            let replaced = std::mem::replace(&mut workers.slots[index], slot);
            workers.leaving.push(replaced.handle);
        } else {
            workers.slots.push(slot);
        }
        Ok(())
    }

    pub fn stats(&self) -> PoolStats {
        let workers = self.state.workers.lock();
        // In one pass, because a worker that panics can end in between.
        let alive = workers.slots.iter().filter(|slot| slot.is_alive());
        let (alive, busy) =
            alive.fold((0, 0), |(alive, busy), slot| (alive + 1, busy + usize::from(slot.counters.is_busy())));
        PoolStats { alive, busy, idle: alive - busy, assigned: self.state.run_queue.counts() }
    }

    pub fn load(&self) -> Load {
        self.state.run_queue.load()
    }

    /// One row per live worker, by number.
    pub fn workers(&self) -> Vec<WorkerStats> {
        let workers = self.state.workers.lock();
        let alive = workers.slots.iter().enumerate().filter(|(_, slot)| slot.is_alive());
        alive.map(|(index, slot)| slot.counters.snapshot(index, index < workers.target)).collect()
    }

    pub fn reset_counters(&self) {
        for slot in &self.state.workers.lock().slots {
            slot.counters.reset();
        }
    }

    /// Lets every worker finish its current attempt and leave, and waits for all of them. Attempts that
    /// have not started never start.
    pub async fn stop(&self) {
        self.state.shut_down();
        let mut live = self.state.live.subscribe();
        // The sender lives as long as this handle, so this cannot fail.
        let _ = live.wait_for(|live| *live == 0).await;
        for handle in self.state.take_handles() {
            // All workers have left their loop, so joining takes no time. The panic hook has printed any panic.
            match handle {
                WorkerHandle::Task(task) => drop(task.await),
                WorkerHandle::Thread(thread) => drop(thread.join()),
            }
        }
    }
}
