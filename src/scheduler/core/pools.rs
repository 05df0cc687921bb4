//! The pools as the core sees them: what waits, what was handed out, what was counted.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::model::{PoolName, PoolSpec, Priority, TaskState, Timestamp};
use crate::pool::{Assignment, Ticket};
use crate::scheduler::refusal::{EtagMismatch, Refusal, UnknownPool};

use super::ready_queue::{Entry, ReadyQueue};
use super::{Core, Dispatch, Output};

/// Attempts that a pool is given beyond two for each worker, so that workers never wait for a commit.
const PREFETCH: usize = 512;

/// Counts since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks accepted.
    pub submitted: u64,
    /// Tasks COMPLETED.
    pub completed: u64,
    /// Tasks FAILED.
    pub failed: u64,
    /// Tasks CANCELLED.
    pub cancelled: u64,
    /// Failed attempts that are tried again.
    pub retried: u64,
    /// Attempts started.
    pub attempts: u64,
    /// Finished tasks that were forgotten.
    pub deleted: u64,
}

/// A distribution of times since the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationStats {
    /// How many were measured.
    pub count: u64,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// A pool as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Size, bounds and the rest.
    pub spec: PoolSpec,
    /// Changes with every update.
    pub etag: String,
}

/// What to change of a pool; `None` leaves it.
#[derive(Clone, Debug)]
pub struct PoolUpdate {
    /// Which pool.
    pub name: PoolName,
    /// Workers, 1 to 1,000.
    pub size: Option<usize>,
    /// Whether it starts nothing.
    pub paused: Option<bool>,
    /// Tasks that may wait in it.
    pub queue_limit: Option<usize>,
    /// Refuse unless the pool still has this etag.
    pub etag: Option<String>,
}

/// How a pool does, as far as the core knows.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// The pool.
    pub spec: PoolSpec,
    /// WAITING tasks.
    pub waiting: u64,
    /// QUEUED tasks.
    pub queued: u64,
    /// RUNNING tasks.
    pub running: u64,
    /// QUEUED tasks by priority index.
    pub queued_by_priority: [u64; Priority::COUNT],
    /// Age of the oldest of them.
    pub oldest_wait_by_priority: [Duration; Priority::COUNT],
    /// When counting began.
    pub counters_since: Timestamp,
    /// What was counted.
    pub counters: Counters,
    /// Eligible to started.
    pub wait_time: DurationStats,
    /// Started to ended.
    pub run_time: DurationStats,
}

impl PoolSnapshot {
    /// Age of the oldest QUEUED task.
    pub fn oldest_wait(&self) -> Duration {
        self.oldest_wait_by_priority.into_iter().max().unwrap_or_default()
    }
}

/// How a pool stands.
#[derive(Clone, Debug)]
pub struct PoolLoad {
    /// The pool.
    pub spec: PoolSpec,
    /// WAITING tasks.
    pub waiting: u64,
    /// RUNNING tasks.
    pub running: u64,
    /// QUEUED tasks by priority index.
    pub queued_by_priority: [u64; Priority::COUNT],
    /// Age of the oldest of them.
    pub oldest_wait_by_priority: [Duration; Priority::COUNT],
}

#[derive(Debug)]
pub(super) struct PoolState {
    pub spec: PoolSpec,
    pub lanes: ReadyQueue,
    /// Attempts handed out and not begun, by priority index.
    pub assigned: [usize; Priority::COUNT],
    /// The same in order; fronts that have begun are stale.
    assigned_order: [VecDeque<Ticket>; Priority::COUNT],
    held_back: [bool; Priority::COUNT],
    pub waiting: u64,
    pub queued: u64,
    pub running: u64,
    pub counters: Counters,
    pub wait_us: Histogram<u64>,
    pub run_us: Histogram<u64>,
    counters_since: Timestamp,
    version: u64,
    /// Not configured any more: keeps its tasks, starts nothing.
    orphaned: bool,
}

fn histogram() -> Histogram<u64> {
    // Two digits from 1 µs to 10 days; beyond is recorded as the highest.
    Histogram::new_with_bounds(1, 864_000_000_000, 2).unwrap_or_else(|_| unreachable!("the bounds are valid"))
}

impl PoolState {
    fn window(&self) -> usize {
        2 * self.spec.size + PREFETCH
    }

    fn view(&self) -> PoolView {
        let PoolSpec { size, queue_limit, paused, .. } = &self.spec;
        // With what can be changed, since the count begins anew with every server.
        let etag = format!("{size:x}-{queue_limit:x}-{}-{:x}", u8::from(*paused), self.version);
        PoolView { spec: self.spec.clone(), etag }
    }

    pub fn count(&mut self, state: TaskState) -> Option<&mut u64> {
        match state {
            TaskState::Waiting => Some(&mut self.waiting),
            TaskState::Queued => Some(&mut self.queued),
            TaskState::Running => Some(&mut self.running),
            _ => None,
        }
    }

    fn reset_counters(&mut self, now: Timestamp) {
        self.counters = Counters::default();
        self.wait_us.reset();
        self.run_us.reset();
        self.counters_since = now;
    }
}

impl Core {
    /// Adds a pool and answers its index.
    pub(super) fn add_pool(&mut self, spec: PoolSpec) -> u16 {
        let index = u16::try_from(self.pools.len()).unwrap_or(u16::MAX);
        self.pool_names.insert(spec.name.clone(), index);
        self.pools.push(PoolState {
            spec,
            lanes: ReadyQueue::default(),
            assigned: [0; Priority::COUNT],
            assigned_order: Default::default(),
            held_back: [false; Priority::COUNT],
            waiting: 0,
            queued: 0,
            running: 0,
            counters: Counters::default(),
            wait_us: histogram(),
            run_us: histogram(),
            counters_since: Timestamp::ZERO,
            version: 0,
            orphaned: false,
        });
        index
    }

    /// The pool of a task; one that is no longer configured keeps its tasks and starts nothing.
    pub(super) fn pool_of(&mut self, name: &PoolName) -> u16 {
        if let Some(index) = self.pool_names.get(name) {
            return *index;
        }
        let index = self.add_pool(PoolSpec { paused: true, ..PoolSpec::with_defaults(name.clone(), 1) });
        self.pools[usize::from(index)].orphaned = true;
        index
    }

    /// Index of a configured pool.
    ///
    /// # Errors
    /// [`UnknownPool`].
    pub fn pool_index(&self, name: &PoolName) -> Result<u16, Refusal> {
        let found = self.pool_names.get(name).copied().filter(|index| !self.pools[usize::from(*index)].orphaned);
        found.ok_or_else(|| UnknownPool { pool: name.clone() }.into())
    }

    /// Hands eligible tasks to their pools, most urgent first. To be called after commands.
    ///
    /// A pool is given a bounded number of attempts of each priority *or higher*, so that an urgent
    /// task never waits behind a full window of less urgent ones.
    pub fn dispatch(&mut self, out: &mut Output) {
        if self.draining {
            return;
        }
        for index in 0..self.pools.len() {
            if self.pools[index].spec.paused {
                continue;
            }
            let mut assignments = Vec::new();
            let mut ahead = 0;
            for priority in Priority::DESCENDING {
                ahead += self.pools[index].assigned[priority.index()];
                while ahead < self.pools[index].window()
                    && let Some(assignment) = self.assign_next(index, priority)
                {
                    assignments.push(assignment);
                    ahead += 1;
                }
            }
            let pool = &mut self.pools[index];
            let held_back = std::array::from_fn(|p| Priority::from_index(p).is_some_and(|p| pool.lanes.len(p) > 0));
            if !assignments.is_empty() || held_back != pool.held_back {
                pool.held_back = held_back;
                let pool = u16::try_from(index).unwrap_or(u16::MAX);
                out.dispatches.push(Dispatch { pool, assignments, held_back });
            }
        }
    }

    fn assign_next(&mut self, pool: usize, priority: Priority) -> Option<Assignment> {
        let tasks = &self.tasks;
        let entry = self.pools[pool].lanes.pop(priority, |entry| Self::is_live(tasks, entry))?;
        let task = self.tasks.get_mut(entry.slot)?;
        self.fence += 1;
        task.fence = self.fence;
        task.assigned = true;
        let ticket = Ticket { index: entry.slot, fence: self.fence };
        let assignment = Assignment {
            ticket,
            spec: task.spec.clone(),
            attempt: task.attempt + 1,
            eligible_at: task.eligible_at,
            confirm: task.spec.options.at_most_once,
            payload_stored: task.payload_stored,
        };
        self.pools[pool].assigned[priority.index()] += 1;
        self.pools[pool].assigned_order[priority.index()].push_back(ticket);
        Some(assignment)
    }

    /// All configured pools.
    pub fn pool_views(&self) -> Vec<PoolView> {
        self.pools.iter().filter(|pool| !pool.orphaned).map(PoolState::view).collect()
    }

    /// Changes a pool; answers its index and how it is now.
    ///
    /// # Errors
    /// [`UnknownPool`], [`EtagMismatch`].
    pub fn update_pool(&mut self, update: &PoolUpdate) -> Result<(u16, PoolView), Refusal> {
        let index = self.pool_index(&update.name)?;
        let pool = &mut self.pools[usize::from(index)];
        let current = pool.view().etag;
        if let Some(given) = update.etag.as_ref().filter(|given| **given != current) {
            return Err(EtagMismatch { pool: update.name.clone(), given: given.clone(), current }.into());
        }
        pool.spec.size = update.size.unwrap_or(pool.spec.size);
        pool.spec.paused = update.paused.unwrap_or(pool.spec.paused);
        pool.spec.queue_limit = update.queue_limit.unwrap_or(pool.spec.queue_limit);
        pool.version += 1;
        Ok((index, pool.view()))
    }

    /// Counting begins anew.
    ///
    /// # Errors
    /// [`UnknownPool`].
    pub fn reset_counters(&mut self, now: Timestamp, pool: &PoolName) -> Result<u16, Refusal> {
        let index = self.pool_index(pool)?;
        self.pools[usize::from(index)].reset_counters(now);
        Ok(index)
    }

    /// Counting begins anew in every pool: after recovery, whose events were counted before.
    pub fn reset_all_counters(&mut self, now: Timestamp) {
        for pool in &mut self.pools {
            pool.reset_counters(now);
        }
    }

    /// How every configured pool stands, with its index; leaves out what takes longer to read.
    pub fn loads(&mut self, now: Timestamp) -> Vec<(usize, PoolLoad)> {
        let configured: Vec<_> = (0..self.pools.len()).filter(|index| !self.pools[*index].orphaned).collect();
        let load = |index| {
            let (queued_by_priority, oldest_wait_by_priority) = self.depths(now, index);
            let PoolState { spec, waiting, running, .. } = &self.pools[index];
            let (spec, waiting, running) = (spec.clone(), *waiting, *running);
            (index, PoolLoad { spec, waiting, running, queued_by_priority, oldest_wait_by_priority })
        };
        configured.into_iter().map(load).collect()
    }

    /// QUEUED tasks and the age of the oldest, by priority index.
    fn depths(&mut self, now: Timestamp, pool: usize) -> ([u64; Priority::COUNT], [Duration; Priority::COUNT]) {
        let mut queued = [0; Priority::COUNT];
        let mut oldest = [Duration::ZERO; Priority::COUNT];
        for priority in Priority::DESCENDING {
            let (state, p) = (&self.pools[pool], priority.index());
            queued[p] = (state.lanes.len(priority) + state.assigned[p]) as u64;
            oldest[p] = self.oldest_wait(now, pool, priority);
        }
        (queued, oldest)
    }

    /// How a pool does.
    ///
    /// # Errors
    /// [`UnknownPool`].
    pub fn read_pool(&mut self, now: Timestamp, pool: &PoolName) -> Result<(u16, PoolSnapshot), Refusal> {
        let index = self.pool_index(pool)?;
        let (queued_by_priority, oldest_wait_by_priority) = self.depths(now, usize::from(index));
        let state = &self.pools[usize::from(index)];
        let reading = PoolSnapshot {
            spec: state.spec.clone(),
            waiting: state.waiting,
            queued: state.queued,
            running: state.running,
            queued_by_priority,
            oldest_wait_by_priority,
            counters_since: state.counters_since,
            counters: state.counters.clone(),
            wait_time: times(&state.wait_us),
            run_time: times(&state.run_us),
        };
        Ok((index, reading))
    }

    fn oldest_wait(&mut self, now: Timestamp, pool: usize, priority: Priority) -> Duration {
        let tasks = &self.tasks;
        let is_assigned =
            |ticket: &Ticket| tasks.get(ticket.index).is_some_and(|task| task.fence == ticket.fence && task.assigned);
        let state = &mut self.pools[pool];
        let order = &mut state.assigned_order[priority.index()];
        while order.front().is_some_and(|ticket| !is_assigned(ticket)) {
            order.pop_front();
        }
        let handed_out = order.front().map(|ticket| ticket.index);
        let fronts = state.lanes.fronts(priority, |entry: Entry| Self::is_live(tasks, entry)).map(|entry| entry.slot);
        let eligible = fronts.chain(handed_out).filter_map(|slot| Some(tasks.get(slot)?.eligible_at));
        eligible.min().map_or(Duration::ZERO, |since| now.since(since))
    }

    /// An attempt that was handed out has begun, or will not.
    pub(super) fn unassign(&mut self, slot: u32) {
        let Some(task) = self.tasks.get_mut(slot).filter(|task| task.assigned) else { return };
        task.assigned = false;
        let priority = task.spec.options.priority.index();
        let tasks = &self.tasks;
        let Some(pool) = tasks.get(slot).and_then(|task| self.pools.get_mut(usize::from(task.pool))) else { return };
        pool.assigned[priority] -= 1;
        let order = &mut pool.assigned_order[priority];
        let is_assigned = |t: &Ticket| tasks.get(t.index).is_some_and(|task| task.fence == t.fence && task.assigned);
        while order.front().is_some_and(|ticket| !is_assigned(ticket)) {
            order.pop_front();
        }
    }
}

fn times(histogram: &Histogram<u64>) -> DurationStats {
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    DurationStats {
        count: histogram.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        max: Duration::from_micros(histogram.max()),
    }
}
