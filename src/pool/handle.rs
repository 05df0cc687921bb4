//! The pool as the scheduler sees it: push and recall attempts, pause, resize, read statistics, stop.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::model::{Clock, HandlerName, PoolKind, PoolSpec, Priority, Timestamp};
use crate::runners::StopCause;

use super::attempt::{Assignment, Attempt, Ticket};
use super::context::WorkerContext;
use super::live::LiveAttempts;
use super::local::LocalWorkers;
use super::remote::RemoteWorkers;
use super::run_queue::Load;
use super::stats::{PoolStats, WorkerStats};

/// A pool. Its own workers leave when it is dropped.
pub struct Pool {
    clock: Arc<dyn Clock>,
    workers: PoolWorkers,
    live: LiveAttempts,
}

enum PoolWorkers {
    Local(LocalWorkers),
    Remote(RemoteWorkers),
}

/// Attempts that a pool has accepted and that [`Pool::push`] lets it start.
#[derive(Debug)]
pub struct Batch {
    attempts: Vec<Weak<Attempt>>,
    /// In a remote pool, the handler of the attempts.
    handler: Option<HandlerName>,
}

impl Pool {
    /// Starts the pool, with its workers if it has its own.
    ///
    /// # Errors
    /// When the size is out of bounds, or a thread cannot be started.
    pub fn start(spec: &PoolSpec, context: WorkerContext) -> io::Result<Self> {
        let clock = context.clock.clone();
        let workers = match spec.kind {
            PoolKind::Remote => PoolWorkers::Remote(RemoteWorkers::new(spec, context)),
            PoolKind::Threads | PoolKind::Async => PoolWorkers::Local(LocalWorkers::start(spec, context)?),
        };
        Ok(Self { clock, workers, live: LiveAttempts::default() })
    }

    /// A pool whose workers the test drives.
    #[cfg(test)]
    pub(super) fn without_workers(state: Arc<super::state::PoolState>) -> Self {
        let clock = state.context.clock.clone();
        Self { clock, workers: PoolWorkers::Local(LocalWorkers { state }), live: LiveAttempts::default() }
    }

    /// Accepts attempts: from now on their tickets are known, and they can be recalled. `handler` is that of all attempts
    /// in a remote pool.
    pub fn prepare(&mut self, assignments: Vec<Assignment>, handler: Option<HandlerName>) -> Batch {
        let attempts = assignments.into_iter().map(|assignment| Arc::downgrade(self.live.insert(assignment)));
        Batch { attempts: attempts.collect(), handler }
    }

    /// Adds prepared attempts to the run queue. `held_back[p]` means that the scheduler has more eligible tasks of
    /// priority `p`: until a later push clears it, no attempt of a lower priority starts.
    pub fn push(&mut self, Batch { attempts, handler }: Batch, held_back: [bool; Priority::COUNT]) {
        let attempts = attempts.iter().filter_map(Weak::upgrade);
        match (&self.workers, handler) {
            (PoolWorkers::Local(workers), _) => workers.push(attempts, held_back),
            (PoolWorkers::Remote(workers), Some(handler)) => workers.push(&handler, attempts, held_back),
            (PoolWorkers::Remote(_), None) => {}
        }
    }

    /// Lets the pushed attempts start. A pool with workers of its own has begun already.
    pub fn start_pushed(&self) {
        if let PoolWorkers::Remote(workers) = &self.workers {
            workers.start_pushed();
        }
    }

    /// Takes over an attempt that an earlier server has started in a remote worker with this qualified name.
    pub fn adopt(&mut self, assignment: Assignment, worker: &str, started_at: Timestamp) {
        if let PoolWorkers::Remote(workers) = &self.workers {
            workers.adopt(worker, self.live.insert(assignment).clone(), started_at);
        }
    }

    /// Takes an attempt back, unless a worker has started it or it has ended. If true, it never starts, is never
    /// reported, and no longer uses memory.
    pub fn recall(&mut self, ticket: Ticket) -> bool {
        let Some(attempt) = self.live.get(ticket).filter(|attempt| attempt.recall()) else { return false };
        match &self.workers {
            PoolWorkers::Local(workers) => workers.remove_attempt(attempt, ticket),
            PoolWorkers::Remote(workers) => workers.remove_attempt(attempt, ticket),
        }
        self.live.remove(ticket);
        true
    }

    /// Asks a live attempt to stop.
    pub fn stop_attempt(&self, ticket: Ticket, cause: StopCause, grace: Duration) {
        if let Some(attempt) = self.live.get(ticket) {
            attempt.stop(self.clock.now(), cause, grace);
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

    /// Pauses or resumes. After a pause has returned, no attempt starts, and every earlier start of a worker of its own has
    /// been reported.
    pub fn set_paused(&self, paused: bool) {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.set_paused(paused),
            PoolWorkers::Remote(workers) => workers.set_paused(paused),
        }
    }

    /// Starts no attempt any more. Those that remote workers run are left to the next server.
    pub fn drain(&self) {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.set_paused(true),
            PoolWorkers::Remote(workers) => workers.drain(),
        }
    }

    /// Changes the number of slots and workers, 1 to 1,000. Growing starts workers; when shrinking, those with the
    /// highest numbers finish their current attempt and leave, and no attempt starts until fewer than `size` run.
    /// Does nothing in a remote pool.
    ///
    /// # Errors
    /// When the size is out of bounds, the pool has stopped, or a thread cannot be started. In the last
    /// case the pool keeps the size that it could reach.
    pub fn resize(&self, size: usize) -> io::Result<()> {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.resize(size),
            PoolWorkers::Remote(_) => Ok(()),
        }
    }

    /// The configured number of workers.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.stats().alive
    }

    pub fn stats(&self) -> PoolStats {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.stats(),
            PoolWorkers::Remote(workers) => workers.stats(),
        }
    }

    /// `None` if the pool has no workers of its own.
    pub fn load(&self) -> Option<Load> {
        match &self.workers {
            PoolWorkers::Local(workers) => Some(workers.load()),
            PoolWorkers::Remote(_) => None,
        }
    }

    /// One row per live worker: by number, or by ID of a remote one.
    pub fn workers(&self) -> Vec<WorkerStats> {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.workers(),
            PoolWorkers::Remote(workers) => workers.workers(),
        }
    }

    /// The remote workers; `None` if the pool has workers of its own.
    pub fn remote(&self) -> Option<&RemoteWorkers> {
        match &self.workers {
            PoolWorkers::Local(_) => None,
            PoolWorkers::Remote(workers) => Some(workers),
        }
    }

    pub fn reset_counters(&self) {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.reset_counters(),
            PoolWorkers::Remote(workers) => workers.reset_counters(),
        }
    }

    /// Lets every worker of its own finish its current attempt and leave, and waits for all of them. Attempts that
    /// have not started never start. Those of remote workers are left to the next server.
    pub async fn stop(&self) {
        match &self.workers {
            PoolWorkers::Local(workers) => workers.stop().await,
            PoolWorkers::Remote(workers) => workers.stop(),
        }
    }
}
