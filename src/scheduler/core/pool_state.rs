//! What the core stores for each pool.

use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use hdrhistogram::Histogram;

use crate::model::{
    HandlerName, Namespace, PoolChange, PoolKind, PoolSettings, PoolSpec, Priority, Revision, TaskOptions, TaskState,
    Timestamp,
};

use super::decision_log::DecisionLog;
use super::dispatch_queue::DispatchQueue;
use super::dispatch_queues::DispatchQueues;
use super::held_tasks::HeldTasks;
use super::key_queue::QueueEntry;

/// Attempts that a pool is given at most in addition to two for each worker.
const PREFETCH: usize = 512;

/// Counts since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accepted tasks.
    pub submitted: u64,
    /// COMPLETED tasks.
    pub completed: u64,
    /// FAILED tasks.
    pub failed: u64,
    /// CANCELLED tasks.
    pub cancelled: u64,
    /// Failed attempts that were followed by a retry.
    pub retried: u64,
    /// Started attempts.
    pub attempts: u64,
    /// Deleted finished tasks.
    pub deleted: u64,
}

/// A pool's settings and their version.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    pub spec: PoolSpec,
    /// Changes with every update.
    pub etag: String,
}

#[derive(Debug)]
pub struct PoolState {
    pub spec: PoolSpec,
    /// One, or in a remote pool one for each handler that a task has named or a worker has offered.
    pub queues: DispatchQueues,
    /// Attempts that it is given at most in addition to two for each worker.
    pub prefetch: usize,
    pub waiting: u64,
    pub held: HeldTasks,
    pub queued: u64,
    pub running: u64,
    pub counters: Counters,
    /// Indexes of tasks that were promoted and have not started.
    pub promoted: HashSet<u32>,
    /// By index of the task: what its key was charged for the slot time of its attempt.
    pub expected_us: HashMap<u32, u64>,
    /// Since the start of the server.
    pub decisions: DecisionLog,
    pub wait_us: Histogram<u64>,
    pub run_us: Histogram<u64>,
    pub counters_since: Timestamp,
    /// The settings in the configuration.
    pub configuration: PoolSettings,
    /// The last change at run time and its revision.
    pub change: Option<(Revision, PoolChange)>,
    /// False for a pool that only recovered tasks name: it keeps its tasks and starts none.
    pub configured: bool,
}

impl PoolState {
    pub fn new(spec: PoolSpec, configured: bool) -> Self {
        let mut queues = DispatchQueues::new(spec.max_running_per_namespace, spec.weights.clone());
        if spec.kind != PoolKind::Remote {
            queues.add(DispatchQueue::new(None));
        }
        Self {
            configuration: PoolSettings::of(&spec),
            queues,
            spec,
            prefetch: PREFETCH,
            waiting: 0,
            held: HeldTasks::default(),
            queued: 0,
            running: 0,
            counters: Counters::default(),
            promoted: HashSet::new(),
            expected_us: HashMap::new(),
            decisions: DecisionLog::default(),
            wait_us: histogram(),
            run_us: histogram(),
            counters_since: Timestamp::ZERO,
            change: None,
            configured,
        }
    }

    pub fn is_remote(&self) -> bool {
        self.spec.kind == PoolKind::Remote
    }

    /// The queue of the tasks with these options. It exists if there is such a task.
    pub fn queue_mut(&mut self, options: &TaskOptions) -> Option<&mut DispatchQueue> {
        let index = self.queue_index(&options.handler)?;
        self.queues.change(index)
    }

    /// As [`PoolState::queue_mut`], to read.
    pub fn queue(&self, options: &TaskOptions) -> Option<&DispatchQueue> {
        self.queues.get(self.queue_index(&options.handler)?)
    }

    fn queue_index(&self, handler: &HandlerName) -> Option<usize> {
        if self.is_remote() { self.queues.index_of(handler) } else { Some(0) }
    }

    /// The queue of a handler; adds it if there is none.
    pub fn queue_for(&mut self, handler: &HandlerName) -> &mut DispatchQueue {
        let index = self.index_for(handler);
        self.queues.change(index).unwrap_or_else(|| unreachable!("the queue was found or added"))
    }

    fn index_for(&mut self, handler: &HandlerName) -> usize {
        let index = self.queue_index(handler);
        index.unwrap_or_else(|| self.queues.add(DispatchQueue::new(Some(handler.clone()))))
    }

    /// Adds a QUEUED task to its queue.
    pub fn push(&mut self, options: &TaskOptions, entry: QueueEntry, interrupted: bool) {
        let index = self.index_for(&options.handler);
        self.queues.push(index, options, entry, interrupted);
    }

    /// Sets the slots of the workers of a remote pool: all, and those for each handler.
    pub fn set_slots(&mut self, total: usize, slots: &[(HandlerName, usize)]) {
        self.spec.size = total;
        self.queues.set_slots(slots, |handler| DispatchQueue::new(Some(handler.clone())));
    }

    /// Number of attempts of a queue that may be dispatched ahead of their start.
    pub fn window(&self, queue: usize) -> usize {
        let Some(queue) = self.queues.get(queue) else { return 0 };
        let workers = if self.is_remote() { queue.slots } else { self.spec.size };
        2 * workers + queue.soon(workers).min(self.prefetch)
    }

    /// Whether the window of a queue has room for an attempt of this priority.
    pub fn has_room(&self, queue: usize, priority: Priority) -> bool {
        let assigned = self.queues.get(queue).map(|queue| &queue.assigned[priority.index()..]);
        assigned.into_iter().flatten().sum::<usize>() < self.window(queue)
    }

    /// Number of QUEUED tasks of this priority.
    pub fn queued(&self, priority: Priority) -> usize {
        self.queues.iter().map(|queue| queue.len(priority)).sum()
    }

    /// Number of QUEUED tasks of a remote pool whose handler no connected worker offers.
    pub fn without_worker(&self) -> u64 {
        if self.queued == 0 {
            return 0;
        }
        let without = self.queues.iter().filter(|queue| self.is_remote() && queue.slots == 0);
        without.flat_map(|queue| Priority::DESCENDING.map(|priority| queue.len(priority) as u64)).sum()
    }

    /// Records that an attempt of the namespace has a slot of the pool.
    pub fn take_slot(&mut self, namespace: &Namespace) {
        self.queues.take_slot(namespace);
    }

    /// Records that the attempt of a task with these options has lost its slot, after a time, or without having started.
    pub fn return_slot(&mut self, index: u32, options: &TaskOptions, taken: Option<Duration>) {
        self.queues.return_slot(&options.namespace);
        let Some(charged) = self.expected_us.remove(&index) else { return };
        if let Some(queue) = self.queue_index(&options.handler).and_then(|queue| self.queues.get_mut(queue)) {
            queue.ready.settle(options, charged, taken);
        }
    }

    pub fn view(&self) -> PoolView {
        let PoolSettings { size, queue_limit, paused } = PoolSettings::of(&self.spec);
        // Contains the settings because the configuration can change them without an event.
        let version = self.change.map_or(0, |(revision, _)| revision.0);
        let etag = format!("{size:x}-{queue_limit:x}-{}-{version:x}", u8::from(paused));
        PoolView { spec: self.spec.clone(), etag }
    }

    /// The number of tasks in a state that is not terminal.
    pub fn count_mut(&mut self, state: TaskState) -> Option<&mut u64> {
        match state {
            TaskState::Waiting => Some(&mut self.waiting),
            TaskState::Queued => Some(&mut self.queued),
            TaskState::Running => Some(&mut self.running),
            _ => None,
        }
    }

    pub fn reset_counters(&mut self, now: Timestamp) {
        self.counters = Counters::default();
        self.wait_us.reset();
        self.run_us.reset();
        self.counters_since = now;
    }
}

fn histogram() -> Histogram<u64> {
    // Two significant digits from 1 µs to 10 days; longer times count as 10 days.
    Histogram::new_with_bounds(1, 864_000_000_000, 2).unwrap_or_else(|_| unreachable!("the bounds are valid"))
}
