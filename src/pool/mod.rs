//! Pools of workers: run what they are given, most urgent first.
//!
//! `attempt` is what is run, `lanes` where attempts wait (a shared queue and a deque per worker for
//! each priority, with stealing), `idle` how workers sleep and wake, `worker` the loop that drives
//! them, `stats` what they count.
//!
//! Invariant: no worker starts an attempt while one of higher priority waits in the same pool.

mod attempt;
mod idle;
mod lanes;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::runtime;
use tokio::sync::watch;

use crate::model::{Bill, Clock, Output, PoolKind, PoolName, PoolSpec, Timestamp};
use crate::runners::{Ended, Registry, StopCause};

pub use attempt::{Assignment, Attempt, Ticket};
pub use stats::{PoolStats, WorkerStats};

use idle::Idle;
use lanes::Lanes;
use stats::Counters;
use worker::Worker;

/// Stack of a worker's thread. Only what is touched becomes resident; expressions recurse.
const STACK_BYTES: usize = 2 << 20;

/// What a pool tells the scheduler.
#[derive(Debug)]
pub enum Report {
    /// A worker has begun.
    Started {
        /// Which attempt.
        ticket: Ticket,
        /// `pool/PoolWorker-3`.
        worker: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// An attempt has ended; nothing of it runs any more.
    Finished {
        /// Which attempt.
        ticket: Ticket,
        /// When.
        at: Timestamp,
        /// How.
        ended: Ended,
        /// Why it had been told to stop, if it had.
        cause: Option<StopCause>,
        /// What it cost.
        bill: Box<Bill>,
        /// What it wrote.
        output: Option<Box<Output>>,
    },
}

/// Where reports go. Must not block.
pub type ReportSink = Arc<dyn Fn(Report) + Send + Sync>;

/// What the workers of one pool share.
struct Shared {
    name: PoolName,
    kind: PoolKind,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    reports: ReportSink,
    runtime: runtime::Handle,
    lanes: Lanes,
    idle: Idle,
    /// True while paused. Workers hold it for reading from looking for an attempt to reporting its
    /// start, so that nothing begins once `set_paused(true)` has returned.
    paused: RwLock<bool>,
    crew: Mutex<Crew>,
    /// `Crew::target` again, to be looked at before every attempt.
    target: AtomicUsize,
    alive: watch::Sender<usize>,
}

/// Who is there, and who should be.
#[derive(Default)]
struct Crew {
    target: usize,
    members: Vec<Member>,
}

struct Member {
    alive: bool,
    counters: Arc<Counters>,
}

/// A pool; a cheap handle.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Starts the pool's workers.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        spec: &PoolSpec,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        reports: ReportSink,
        runtime: runtime::Handle,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: spec.name.clone(),
            kind: spec.kind,
            registry,
            clock,
            reports,
            runtime,
            lanes: Lanes::default(),
            idle: Idle::default(),
            paused: RwLock::new(spec.paused),
            crew: Mutex::default(),
            target: AtomicUsize::new(0),
            alive: watch::Sender::new(0),
        });
        let pool = Self { shared };
        pool.resize(spec.size)?;
        Ok(pool)
    }

    /// Gives attempts to the pool. `held_back`, by priority index, says that the scheduler has more
    /// eligible tasks of that priority: until a later push clears it, no lower priority begins.
    pub fn push(&self, attempts: Vec<Arc<Attempt>>, held_back: [bool; 4]) {
        let given = attempts.len();
        let cleared = self.shared.lanes.push(attempts, held_back);
        let wake = if cleared { usize::MAX } else { given };
        self.shared.idle.wake(wake.min(self.shared.lanes.len()));
    }

    /// Pauses or resumes. Once a pause has returned no attempt begins.
    pub fn set_paused(&self, paused: bool) {
        *self.shared.paused.write() = paused;
        if !paused {
            self.shared.idle.wake(self.shared.lanes.len());
        }
    }

    /// Changes the number of workers, 1 to 1,000. Growing starts them; when shrinking, those with
    /// the highest numbers finish what they run and leave.
    ///
    /// # Errors
    /// When a thread cannot be started; the workers that could be are there.
    pub fn resize(&self, size: usize) -> io::Result<()> {
        let mut crew = self.shared.crew.lock();
        crew.target = size;
        self.shared.target.store(size, Ordering::Release);
        for index in 0..size {
            if crew.members.get(index).is_some_and(|member| member.alive) {
                continue;
            }
            let counters = Arc::new(Counters::default());
            if index == crew.members.len() {
                crew.members.push(Member { alive: false, counters: counters.clone() });
            }
            self.hire(index, counters.clone())?;
            crew.members[index] = Member { alive: true, counters };
        }
        drop(crew);
        self.shared.idle.wake(usize::MAX);
        Ok(())
    }

    fn hire(&self, index: usize, counters: Arc<Counters>) -> io::Result<()> {
        let worker = Worker::new(self.shared.clone(), index, counters);
        self.shared.alive.send_modify(|alive| *alive += 1);
        match self.shared.kind {
            PoolKind::Async => drop(self.shared.runtime.spawn(worker.run())),
            PoolKind::Threads => {
                let runtime = self.shared.runtime.clone();
                let thread = std::thread::Builder::new().name(format!("PoolWorker-{index}")).stack_size(STACK_BYTES);
                if let Err(error) = thread.spawn(move || runtime.block_on(worker.run())) {
                    self.shared.alive.send_modify(|alive| *alive -= 1);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Workers that there should be.
    pub fn size(&self) -> usize {
        self.shared.crew.lock().target
    }

    /// The pool in numbers.
    pub fn stats(&self) -> PoolStats {
        let crew = self.shared.crew.lock();
        let alive = crew.members.iter().filter(|member| member.alive);
        let busy = alive.clone().filter(|member| member.counters.is_busy()).count();
        let alive = alive.count();
        PoolStats {
            alive,
            busy,
            idle: alive - busy,
            steals: crew.members.iter().map(|member| member.counters.steals()).sum(),
            assigned: self.shared.lanes.lengths(),
        }
    }

    /// A row per worker that is there, by number.
    pub fn workers(&self) -> Vec<WorkerStats> {
        let crew = self.shared.crew.lock();
        let present = crew.members.iter().enumerate().filter(|(_, member)| member.alive);
        let row = |(index, member): (usize, &Member)| {
            let leaving = index >= crew.target;
            member.counters.read(index, !leaving, self.shared.lanes.queue_size(index))
        };
        present.map(row).collect()
    }

    /// Workers count from zero again.
    pub fn reset_counters(&self) {
        for member in &self.shared.crew.lock().members {
            member.counters.reset();
        }
    }

    /// Lets every worker finish what it runs and leave. What has not begun stays unbegun.
    pub async fn stop(&self) {
        self.set_paused(true);
        self.shared.crew.lock().target = 0;
        self.shared.target.store(0, Ordering::Release);
        self.shared.idle.wake(usize::MAX);
        let mut alive = self.shared.alive.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = alive.wait_for(|alive| *alive == 0).await;
    }
}
