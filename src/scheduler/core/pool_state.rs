//! What the core stores for each pool.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::model::{PoolChange, PoolSettings, PoolSpec, Priority, Revision, TaskState, Timestamp};
use crate::pool::Ticket;

use super::ready_queue::ReadyQueue;

/// Attempts that a pool is given in addition to two for each worker, so that workers never wait for a commit.
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
    pub ready: ReadyQueue,
    /// Number of dispatched attempts that have not started, by priority index.
    pub assigned: [usize; Priority::COUNT],
    /// The same attempts in the order of their dispatch; others are stale, and bounded by the number of these.
    pub assigned_order: [VecDeque<Ticket>; Priority::COUNT],
    /// As last sent to the pool.
    pub held_back: [bool; Priority::COUNT],
    /// Attempts that it is given in addition to two for each worker.
    pub prefetch: usize,
    pub waiting: u64,
    pub queued: u64,
    pub running: u64,
    pub counters: Counters,
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
        Self {
            configuration: PoolSettings::of(&spec),
            ready: ReadyQueue::new(spec.max_running_per_namespace),
            spec,
            assigned: [0; Priority::COUNT],
            assigned_order: Default::default(),
            held_back: [false; Priority::COUNT],
            prefetch: PREFETCH,
            waiting: 0,
            queued: 0,
            running: 0,
            counters: Counters::default(),
            wait_us: histogram(),
            run_us: histogram(),
            counters_since: Timestamp::ZERO,
            change: None,
            configured,
        }
    }

    /// Number of attempts that may be dispatched ahead of their start.
    pub fn window(&self) -> usize {
        2 * self.spec.size + self.prefetch
    }

    pub fn view(&self) -> PoolView {
        let PoolSpec { size, queue_limit, paused, .. } = &self.spec;
        // Contains the settings because the configuration can change them without an event.
        let version = self.change.map_or(0, |(revision, _)| revision.0);
        let etag = format!("{size:x}-{queue_limit:x}-{}-{version:x}", u8::from(*paused));
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
