//! The pool as the scheduler sees it: push and recall attempts, pause, resize, read statistics, stop.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::model::limits::POOL_SIZE_MAX;
use crate::model::{PoolKind, PoolSpec, Priority};
use crate::runners::StopCause;

use super::attempt::{Assignment, Attempt, Ticket};
use super::context::WorkerContext;
use super::live::LiveAttempts;
use super::state::{PoolState, WorkerHandle, WorkerSlot, Workers};
use super::stats::{PoolStats, WorkerCounters, WorkerStats};
use super::worker::Worker;

/// Stack of a worker's thread. Large because expressions recurse; only touched pages become resident.
const STACK_BYTES: usize = 2 << 20;

/// A pool. Its workers leave when it is dropped, so that no thread waits for work that cannot come.
pub struct Pool {
    state: Arc<PoolState>,
    live: LiveAttempts,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.shut_down();
    }
}

/// Attempts that a pool has accepted and that [`Pool::push`] lets it start.
#[derive(Debug)]
pub struct Batch(Vec<Weak<Attempt>>);

impl Pool {
    /// Starts the pool's workers.
    ///
    /// # Errors
    /// When the size is out of bounds, or a thread cannot be started.
    pub fn start(spec: &PoolSpec, context: WorkerContext) -> io::Result<Self> {
        let state = Arc::new(PoolState::new(spec, context));
        let pool = Self { state, live: LiveAttempts::default() };
        pool.resize(spec.size)?;
        Ok(pool)
    }

    /// A pool whose workers the test drives.
    #[cfg(test)]
    pub(super) fn without_workers(state: Arc<PoolState>) -> Self {
        Self { state, live: LiveAttempts::default() }
    }

    fn state(&self) -> &Arc<PoolState> {
        &self.state
    }

    /// Accepts attempts: from now on their tickets are known, and they can be recalled.
    pub fn prepare(&mut self, assignments: Vec<Assignment>) -> Batch {
        Batch(assignments.into_iter().map(|assignment| Arc::downgrade(self.live.insert(assignment))).collect())
    }

    /// Adds prepared attempts to the run queue. `held_back[p]` means that the scheduler has more eligible tasks of
    /// priority `p`: until a later push clears it, no attempt of a lower priority starts.
    pub fn push(&mut self, Batch(attempts): Batch, held_back: [bool; Priority::COUNT]) {
        self.state().run_queue.push(attempts.iter().filter_map(Weak::upgrade), held_back);
    }

    /// Takes an attempt back, unless a worker has started it or it has ended. If true, it never starts, is never
    /// reported, and no longer uses memory.
    pub fn recall(&mut self, ticket: Ticket) -> bool {
        let Some(attempt) = self.live.get(ticket).filter(|attempt| attempt.recall()) else { return false };
        self.state().run_queue.remove(attempt.spec().options.priority, ticket);
        self.live.remove(ticket);
        true
    }

    /// Asks a live attempt to stop.
    pub fn stop_attempt(&self, ticket: Ticket, cause: StopCause, grace: Duration) {
        if let Some(attempt) = self.live.get(ticket) {
            attempt.stop(self.state().context.clock.now(), cause, grace);
        }
    }

    /// Lets a live attempt run whose start is durable; see [`Assignment::confirm`].
    pub fn confirm(&self, ticket: Ticket) {
        if let Some(attempt) = self.live.get(ticket) {
            attempt.confirm();
        }
    }

    /// A live attempt, for its progress and output.
    pub fn attempt(&self, ticket: Ticket) -> Option<Arc<Attempt>> {
        self.live.get(ticket).cloned()
    }

    /// Forgets an attempt whose end the scheduler has processed.
    pub fn forget(&mut self, ticket: Ticket) {
        self.live.remove(ticket);
    }

    /// Pauses or resumes. After a pause has returned, no attempt starts, and every earlier start has been
    /// reported.
    pub fn set_paused(&self, paused: bool) {
        self.state().run_queue.set_paused(paused);
        if paused {
            let workers = self.state().workers.lock();
            let counters: Vec<_> = workers.slots.iter().map(|slot| slot.counters.clone()).collect();
            drop(workers);
            for counters in counters {
                counters.wait_while_starting();
            }
        }
    }

    /// Changes the number of slots and workers, 1 to 1,000; 0 in a remote pool. Growing starts workers; when shrinking, those with the
    /// highest numbers finish their current attempt and leave, and no attempt starts until fewer than `size` run.
    ///
    /// # Errors
    /// When the size is out of bounds, the pool has stopped, or a thread cannot be started. In the last
    /// case the pool keeps the size that it could reach.
    pub fn resize(&self, size: usize) -> io::Result<()> {
        let (min, max) = if self.state().kind == PoolKind::Remote { (0, 0) } else { (1, POOL_SIZE_MAX) };
        if !(min..=max).contains(&size) {
            let text = format!("pool size is {size}, must be {min} to {max}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut workers = self.state().workers.lock();
        if workers.stopped {
            return Err(io::Error::other("the pool has stopped"));
        }
        workers.leaving.retain(|handle| !handle.is_finished());
        let before = workers.target;
        self.state().set_target(&mut workers, size);
        for index in 0..size {
            if workers.slots.get(index).is_none_or(|slot| !slot.is_alive())
                && let Err(error) = self.spawn(&mut workers, index)
            {
                self.state().set_target(&mut workers, index.max(before.min(size)));
                return Err(error);
            }
        }
        Ok(())
    }

    fn spawn(&self, workers: &mut Workers, index: usize) -> io::Result<()> {
        let counters = Arc::new(WorkerCounters::default());
        let worker = Worker::new(self.state().clone(), index, counters.clone());
        let runtime = self.state().context.runtime.clone();
        let handle = match self.state().kind {
            PoolKind::Async => WorkerHandle::Task(runtime.spawn(worker.run())),
            PoolKind::Threads => {
                let thread = thread::Builder::new().name(format!("PoolWorker-{index}")).stack_size(STACK_BYTES);
                WorkerHandle::Thread(thread.spawn(move || runtime.block_on(worker.run()))?)
            }
            PoolKind::Remote => return Err(io::Error::other("a remote pool starts no workers")),
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

    /// The configured number of workers.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.state().workers.lock().target
    }

    pub fn stats(&self) -> PoolStats {
        let workers = self.state().workers.lock();
        // In one pass, because a worker that panics can end in between.
        let alive = workers.slots.iter().filter(|slot| slot.is_alive());
        let (alive, busy) =
            alive.fold((0, 0), |(alive, busy), slot| (alive + 1, busy + usize::from(slot.counters.is_busy())));
        PoolStats { alive, busy, idle: alive - busy, assigned: self.state().run_queue.counts() }
    }

    /// One row per live worker, by number.
    pub fn workers(&self) -> Vec<WorkerStats> {
        let workers = self.state().workers.lock();
        let alive = workers.slots.iter().enumerate().filter(|(_, slot)| slot.is_alive());
        alive.map(|(index, slot)| slot.counters.snapshot(index, index < workers.target)).collect()
    }

    pub fn reset_counters(&self) {
        for slot in &self.state().workers.lock().slots {
            slot.counters.reset();
        }
    }

    /// Lets every worker finish its current attempt and leave, and waits for all of them. Attempts that
    /// have not started never start.
    pub async fn stop(&self) {
        self.state().shut_down();
        let mut live = self.state().live.subscribe();
        // The sender lives as long as this handle, so this cannot fail.
        let _ = live.wait_for(|live| *live == 0).await;
        for handle in self.state().take_handles() {
            // All workers have left their loop, so joining takes no time. The panic hook has printed any panic.
            match handle {
                WorkerHandle::Task(task) => drop(task.await),
                WorkerHandle::Thread(thread) => drop(thread.join()),
            }
        }
    }
}
