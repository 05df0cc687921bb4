//! Pools of workers: run what they are given, most urgent first.
//!
//! `attempt` is what is run, `lanes` where attempts wait (a shared queue and a deque per worker for
//! each priority, with stealing), `tally` which priority may start, `idle` how workers sleep and wake,
//! `worker` the loop that drives them, `stats` what they count.
//!
//! Invariant: no worker starts an attempt while one of higher priority waits in the same pool.
//! An attempt starts at the moment when it is claimed; its report follows at once.

mod attempt;
mod idle;
mod lanes;
mod scope;
mod stats;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime;
use tokio::sync::watch;

use crate::model::limits::POOL_SIZE_MAX;
use crate::model::{Catalog, Clock, Output, PoolKind, PoolName, PoolSpec, Priority, ResourceUsage, TaskId, Timestamp};
use crate::runners::{Ended, Registry, StopCause};
use crate::telemetry::metrics::{Metrics, PoolMeter};

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
        usage: Box<ResourceUsage>,
        /// What it wrote.
        output: Option<Box<Output>>,
    },
}

/// Where reports go. Must neither block nor call the pool: it is called by a worker that is about to
/// begin, for which [`Pool::set_paused`] waits.
pub type ReportSink = Arc<dyn Fn(Report) + Send + Sync>;

/// Where the payload of an attempt is had that does not carry it. The error is for people.
pub type PayloadSource = Arc<dyn Fn(TaskId) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// What the workers of all pools are given.
#[derive(Clone)]
pub struct Surroundings {
    /// What runs handlers.
    pub registry: Arc<Registry>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where reports go.
    pub reports: ReportSink,
    /// Where payloads are had that attempts do not carry.
    pub payloads: PayloadSource,
    /// What drives workers.
    pub runtime: runtime::Handle,
    /// Where attempts are counted.
    pub metrics: Metrics,
    /// The handlers that are counted by name.
    pub catalog: Arc<Catalog>,
}

/// What the workers of one pool share.
struct Shared {
    name: PoolName,
    kind: PoolKind,
    around: Surroundings,
    meter: PoolMeter,
    lanes: Lanes,
    idle: Idle,
    crew: Mutex<Crew>,
    /// `Crew::target` again, to be looked at before every attempt.
    target: AtomicUsize,
    /// Workers that have not ended.
    present: watch::Sender<usize>,
}

/// Who is there, and who should be.
#[derive(Default)]
struct Crew {
    target: usize,
    stopped: bool,
    members: Vec<Member>,
    /// Threads and tasks of members that have been replaced, until they have ended.
    leavers: Vec<Drive>,
    /// What replaced members had stolen.
    past_steals: u64,
}

struct Member {
    /// Cleared by the worker itself when it decides to leave.
    alive: bool,
    counters: Arc<Counters>,
    drive: Drive,
}

impl Member {
    fn is_alive(&self) -> bool {
        self.alive && !self.drive.has_ended()
    }
}

/// What drives a worker.
enum Drive {
    Thread(thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Drive {
    fn has_ended(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            Self::Task(task) => task.is_finished(),
        }
    }
}

impl Shared {
    fn take_drives(&self) -> Vec<Drive> {
        let mut crew = self.crew.lock();
        let left = std::mem::take(&mut crew.members);
        crew.past_steals += left.iter().map(|member| member.counters.steals()).sum::<u64>();
        let mut drives = std::mem::take(&mut crew.leavers);
        drives.extend(left.into_iter().map(|member| member.drive));
        drives
    }

    /// Lets every worker leave after what it runs; nothing begins any more.
    fn dismiss(&self) {
        self.lanes.tally.set_paused(true);
        let mut crew = self.crew.lock();
        crew.target = 0;
        crew.stopped = true;
        self.target.store(0, Ordering::SeqCst);
        drop(crew);
        self.idle.wake(usize::MAX);
    }
}

/// Dismisses the workers when the last handle goes, so that no thread waits for work that cannot come.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.dismiss();
    }
}

/// A pool; a cheap handle.
#[derive(Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

impl Pool {
    /// Starts the pool's workers.
    ///
    /// # Errors
    /// When the size is not 1 to 1,000, or a thread cannot be started.
    pub fn start(spec: &PoolSpec, around: Surroundings) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: spec.name.clone(),
            kind: spec.kind,
            meter: PoolMeter::new(&around.metrics, &spec.name, &around.catalog),
            around,
            lanes: Lanes::default(),
            idle: Idle::default(),
            crew: Mutex::default(),
            target: AtomicUsize::new(0),
            present: watch::Sender::new(0),
        });
        shared.lanes.tally.set_paused(spec.paused);
        let pool = Self { owner: Arc::new(Owner { shared }) };
        pool.resize(spec.size)?;
        Ok(pool)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// Gives attempts to the pool. `held_back`, by priority index, says that the scheduler has more
    /// eligible tasks of that priority: until a later push clears it, no lower priority begins.
    pub fn push(&self, attempts: Vec<Arc<Attempt>>, held_back: [bool; Priority::COUNT]) {
        let given = attempts.len();
        let cleared = self.shared().lanes.push(attempts, held_back);
        let tally = &self.shared().lanes.tally;
        if tally.has_startable() {
            self.shared().idle.wake(if cleared { tally.counts().iter().sum() } else { given });
        }
    }

    /// Pauses or resumes. Once a pause has returned no attempt begins, and the start of every one that
    /// has begun is reported.
    pub fn set_paused(&self, paused: bool) {
        self.shared().lanes.tally.set_paused(paused);
        if paused {
            let crew = self.shared().crew.lock();
            let counters: Vec<_> = crew.members.iter().map(|member| member.counters.clone()).collect();
            drop(crew);
            for counters in counters {
                counters.wait_while_beginning();
            }
        } else {
            self.shared().idle.wake(self.shared().lanes.tally.counts().iter().sum());
        }
    }

    /// Changes the number of workers, 1 to 1,000. Growing starts them; when shrinking, those with
    /// the highest numbers finish what they run and leave.
    ///
    /// # Errors
    /// When the size is out of bounds, the pool has stopped, or a thread cannot be started; then the
    /// size is what could be reached.
    pub fn resize(&self, size: usize) -> io::Result<()> {
        if !(1..=POOL_SIZE_MAX).contains(&size) {
            let text = format!("a pool has 1 to {POOL_SIZE_MAX} workers, not {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut crew = self.shared().crew.lock();
        if crew.stopped {
            return Err(io::Error::other("the pool has stopped"));
        }
        crew.leavers.retain(|drive| !drive.has_ended());
        let before = crew.target;
        self.aim(&mut crew, size);
        for index in 0..size {
            if crew.members.get(index).is_none_or(|member| !member.is_alive())
                && let Err(error) = self.hire(&mut crew, index)
            {
                self.aim(&mut crew, index.max(before.min(size)));
                return Err(error);
            }
        }
        drop(crew);
        self.shared().idle.wake(usize::MAX);
        Ok(())
    }

    fn aim(&self, crew: &mut Crew, size: usize) {
        crew.target = size;
        self.shared().target.store(size, Ordering::SeqCst);
    }

    fn hire(&self, crew: &mut Crew, index: usize) -> io::Result<()> {
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(self.shared().clone(), index, counters.clone());
        let runtime = self.shared().around.runtime.clone();
        let drive = match self.shared().kind {
            PoolKind::Async => Drive::Task(runtime.spawn(worker.run())),
            PoolKind::Threads => {
                let thread = thread::Builder::new().name(format!("PoolWorker-{index}")).stack_size(STACK_BYTES);
                Drive::Thread(thread.spawn(move || runtime.block_on(worker.run()))?)
            }
        };
        let member = Member { alive: true, counters, drive };
        if index < crew.members.len() {
            let left = std::mem::replace(&mut crew.members[index], member);
            crew.past_steals += left.counters.steals();
            crew.leavers.push(left.drive);
        } else {
            crew.members.push(member);
        }
        Ok(())
    }

    /// Workers that there should be.
    pub fn size(&self) -> usize {
        self.shared().crew.lock().target
    }

    /// The pool in numbers.
    pub fn stats(&self) -> PoolStats {
        let crew = self.shared().crew.lock();
        let alive = crew.members.iter().filter(|member| member.is_alive());
        let busy = alive.clone().filter(|member| member.counters.is_busy()).count();
        let alive = alive.count();
        PoolStats {
            alive,
            busy,
            idle: alive - busy,
            steals: crew.past_steals + crew.members.iter().map(|member| member.counters.steals()).sum::<u64>(),
            assigned: self.shared().lanes.tally.counts(),
        }
    }

    /// A row per worker that is there, by number.
    pub fn workers(&self) -> Vec<WorkerStats> {
        let crew = self.shared().crew.lock();
        let queue_sizes = self.shared().lanes.queue_sizes(crew.members.len());
        let present = crew.members.iter().zip(queue_sizes).enumerate().filter(|(_, (member, _))| member.is_alive());
        present.map(|(index, (member, waiting))| member.counters.read(index, index < crew.target, waiting)).collect()
    }

    /// Workers count from zero again.
    pub fn reset_counters(&self) {
        let mut crew = self.shared().crew.lock();
        crew.past_steals = 0;
        for member in &crew.members {
            member.counters.reset();
        }
    }

    /// Lets every worker finish what it runs and leave, and waits until the last has gone. What has
    /// not begun stays unbegun.
    pub async fn stop(&self) {
        self.shared().dismiss();
        let mut present = self.shared().present.subscribe();
        // The sender lives as long as this handle, so this cannot fail.
        let _ = present.wait_for(|present| *present == 0).await;
        for drive in self.shared().take_drives() {
            // All have done their last step, so this takes no time. A panic has been printed by its hook.
            match drive {
                Drive::Task(task) => drop(task.await),
                Drive::Thread(thread) => drop(thread.join()),
            }
        }
    }
}
