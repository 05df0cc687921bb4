//! Figures of the pools, for metrics and API responses.

use std::time::Duration;

use crate::model::{DurationStats, PoolName, PoolSpec, Priority, Timestamp};
use crate::scheduler::refusal::Refusal;

use super::pool_state::{Counters, PoolState};
use super::state::Core;

/// All figures of a pool that the core has.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    pub spec: PoolSpec,
    /// WAITING tasks.
    pub waiting: u64,
    /// QUEUED tasks.
    pub queued: u64,
    /// RUNNING tasks.
    pub running: u64,
    /// QUEUED tasks of a remote pool whose handler no connected worker offers.
    pub without_worker: u64,
    /// QUEUED tasks by priority index.
    pub queued_by_priority: [u64; Priority::COUNT],
    /// Time since the oldest of them became eligible; zero if there is none.
    pub oldest_wait_by_priority: [Duration; Priority::COUNT],
    /// Time of the last reset.
    pub counters_since: Timestamp,
    pub counters: Counters,
    /// Time between becoming eligible and starting, since the last reset.
    pub wait_time: DurationStats,
    /// Time between starting and ending, since the last reset.
    pub run_time: DurationStats,
}

impl PoolSnapshot {
    /// Time since the oldest QUEUED task became eligible.
    pub fn oldest_wait(&self) -> Duration {
        self.oldest_wait_by_priority.into_iter().max().unwrap_or_default()
    }
}

/// The figures of a pool that are cheap to read.
#[derive(Clone, Debug)]
pub struct PoolLoad {
    pub spec: PoolSpec,
    /// WAITING tasks.
    pub waiting: u64,
    /// RUNNING tasks.
    pub running: u64,
    /// QUEUED tasks by priority index.
    pub queued_by_priority: [u64; Priority::COUNT],
    /// Time since the oldest of them became eligible; zero if there is none.
    pub oldest_wait_by_priority: [Duration; Priority::COUNT],
}

impl Core {
    /// The load of every configured pool, with the pool's index.
    pub fn loads(&mut self, now: Timestamp) -> Vec<(usize, PoolLoad)> {
        let configured: Vec<_> = (0..self.pools.len()).filter(|index| self.pools[*index].configured).collect();
        configured.into_iter().map(|index| (index, self.load(now, index))).collect()
    }

    fn load(&mut self, now: Timestamp, pool: usize) -> PoolLoad {
        let mut queued_by_priority = [0; Priority::COUNT];
        let mut oldest_wait_by_priority = [Duration::ZERO; Priority::COUNT];
        // A remote pool has a queue for each handler, and the figures are read every few seconds.
        let has_queued = self.pools[pool].queued > 0;
        for priority in Priority::DESCENDING.into_iter().filter(|_| has_queued) {
            let p = priority.index();
            queued_by_priority[p] = self.pools[pool].queued(priority) as u64;
            let queues = 0..self.pools[pool].queues.len();
            let waits = queues.map(|queue| self.oldest_wait(now, pool, queue, priority));
            oldest_wait_by_priority[p] = waits.max().unwrap_or_default();
        }
        let PoolState { spec, waiting, running, .. } = &self.pools[pool];
        let (spec, waiting, running) = (spec.clone(), *waiting, *running);
        PoolLoad { spec, waiting, running, queued_by_priority, oldest_wait_by_priority }
    }

    /// Index and snapshot of a configured pool.
    ///
    /// # Errors
    /// `UnknownPool`.
    pub fn pool_snapshot(&mut self, now: Timestamp, pool: &PoolName) -> Result<(u16, PoolSnapshot), Refusal> {
        let index = self.pool_index(pool)?;
        let load = self.load(now, usize::from(index));
        let state = &self.pools[usize::from(index)];
        let snapshot = PoolSnapshot {
            spec: load.spec,
            waiting: load.waiting,
            queued: state.queued,
            running: load.running,
            without_worker: state.without_worker(),
            queued_by_priority: load.queued_by_priority,
            oldest_wait_by_priority: load.oldest_wait_by_priority,
            counters_since: state.counters_since,
            counters: state.counters.clone(),
            wait_time: DurationStats::of_micros(&state.wait_us),
            run_time: DurationStats::of_micros(&state.run_us),
        };
        Ok((index, snapshot))
    }

    fn oldest_wait(&mut self, now: Timestamp, pool: usize, queue: usize, priority: Priority) -> Duration {
        let assigned = self.oldest_assigned(pool, queue, priority).map(|ticket| ticket.index);
        let tasks = &self.tasks;
        let queue = self.pools[pool].queues.get_mut(queue);
        let ready = queue.into_iter().flat_map(|queue| queue.ready.oldest(priority));
        let oldest = ready.map(|entry| entry.index).chain(assigned);
        let eligible_at = oldest.filter_map(|index| Some(tasks.get(index)?.since)).min();
        eligible_at.map_or(Duration::ZERO, |since| now.since(since))
    }
}
