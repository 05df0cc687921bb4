//! Why a task has not started: everything that keeps it from starting, the tasks before it, and when it is likely to start.
//!
//! Looks at a bounded part of the queue, so that an answer costs the same however long the queue is.

use crate::model::{Hold, LimitHold, Priority, TaskId, TaskState, Timestamp};

use super::dependencies::UnfinishedParents;
use super::dispatch::is_assigned;
use super::dispatch_queue::DispatchQueue;
use super::key_queue::QueueEntry;
use super::limit_table::Usage;
use super::limits::turn;
use super::pool_state::PoolState;
use super::ready_queue::Rivals;
use super::state::Core;
use super::table::TaskEntry;

/// Tasks before another that are looked at.
const EXAMINED_MAX: usize = if cfg!(test) { 8 } else { 1_000 };
/// Ended attempts of a pool from which the run time of the next ones is estimated.
const RUNS_MIN: u64 = 10;

#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    pub state: TaskState,
    pub blockers: Vec<Blocker>,
    /// Of a QUEUED task.
    pub position: Option<Position>,
    /// `None` if the start depends on more than time and the tasks before.
    pub estimate: Option<Estimate>,
}

/// What keeps a task from starting.
#[derive(Clone, Debug, PartialEq)]
pub enum Blocker {
    /// The delay of the submission has not passed.
    Delay,
    /// The back-off after a failed attempt has not passed.
    BackOff,
    Parents(UnfinishedParents),
    /// A limit has no place or token.
    Limit {
        hold: LimitHold,
        /// Tasks that wait for the same limit and are before this one.
        before: u64,
        /// Whether there may be more of these: not all were looked at.
        at_least: bool,
    },
    PoolPaused,
    PoolNotConfigured,
    /// No connected worker of its pool offers its handler.
    NoWorker,
    /// All slots of its pool are taken.
    PoolFull {
        slots: usize,
    },
    /// Its namespace has all the slots of the pool that it may have.
    NamespaceFull {
        slots: usize,
    },
    /// The server has too little memory for more work of its own.
    LowMemory,
    /// After crashes, the server runs a suspected task alone.
    Trial,
    Draining,
}

/// The tasks that start before a QUEUED task, of the same pool, and in a remote pool of the same handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// QUEUED tasks of higher priorities.
    pub more_urgent: u64,
    /// QUEUED tasks of the same priority that are before it. Of its own namespace and fairness key only, if others take turns
    /// with that.
    pub before: u64,
    /// Whether there may be more of these: not all were looked at.
    pub at_least: bool,
    /// Other namespaces that take turns with that of the task.
    pub namespaces: u64,
    /// Other fairness keys of its namespace that take turns with that of the task.
    pub keys: u64,
    /// Whether the pool was given the task, which starts when a worker is free.
    pub is_dispatched: bool,
}

/// When a task is likely to start, if nothing more urgent is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimate {
    /// A slot is free, and no task is before it.
    Now,
    /// When the delay or the back-off has passed.
    AfterTimer,
    /// When the tasks before it have started, if all run as long as the earlier ones of the pool.
    ByRunTimes(Timestamp),
}

impl Core {
    /// `None` if there is no such task.
    pub fn explain(&self, now: Timestamp, id: &TaskId) -> Option<Explanation> {
        let index = self.tasks.find(id)?;
        let task = self.tasks.get(index)?;
        let (state, pool) = (task.state, &self.pools[usize::from(task.pool)]);
        let (mut blockers, mut position, mut estimate) = (Vec::new(), None, None);
        match state {
            TaskState::Waiting => {
                blockers = self.holds(index, task);
                let is_timed =
                    matches!(blockers[..], [Blocker::Delay | Blocker::BackOff]) && task.spec.options.limits.is_empty();
                blockers.extend(self.pool_blockers(task, pool));
                let has_queue = || pool.queue(&task.spec.options).is_some_and(|queue| ahead_of_new(queue, task) > 0);
                estimate = (is_timed && blockers.len() == 1 && free_slots(pool) > 0 && !has_queue())
                    .then_some(Estimate::AfterTimer);
            }
            TaskState::Queued => {
                blockers.extend(self.pool_blockers(task, pool));
                let is_next = blockers.is_empty();
                blockers.extend(is_full(pool).then_some(Blocker::PoolFull { slots: pool.spec.size }));
                if let Some(queue) = pool.queue(&task.spec.options) {
                    let found = self.position(index, task, queue);
                    estimate = is_next.then(|| estimated_start(now, found, task, pool, queue)).flatten();
                    position = Some(found);
                }
            }
            TaskState::Running | TaskState::Completed | TaskState::Failed | TaskState::Cancelled => {}
        }
        Some(Explanation { state, blockers, position, estimate })
    }

    /// Whether nothing but a suspected task is started.
    pub(super) fn is_in_trial(&self) -> bool {
        self.quarantine.barrier.is_some_and(|(_, until)| self.now < until)
    }

    /// Why a task is WAITING.
    fn holds(&self, index: u32, task: &TaskEntry) -> Vec<Blocker> {
        let timed = [(Hold::Delay, Blocker::Delay), (Hold::BackOff, Blocker::BackOff)];
        let timed = timed.into_iter().filter_map(|(hold, blocker)| task.holds.contains(hold).then_some(blocker));
        let parents = self.unfinished_parents(&task.spec.id).map(Blocker::Parents);
        timed.chain(parents).chain(self.limits_of(index, task)).collect()
    }

    /// The limits that a task waits for. It waits for one after the other; these are all that would not let it pass now.
    fn limits_of(&self, index: u32, task: &TaskEntry) -> Vec<Blocker> {
        if !task.holds.contains(Hold::Limit) {
            return Vec::new();
        }
        let (options, turn) = (&task.spec.options, turn(index, task));
        let blocker = |hold: LimitHold| {
            let limit = self.limits.find(options.limits[usize::from(hold.limit)].id(&options.namespace));
            let waiting = limit.into_iter().flat_map(|limit| limit.waiting.range(..turn));
            let before = waiting.take(EXAMINED_MAX + 1).count();
            Blocker::Limit { hold, before: before.min(EXAMINED_MAX) as u64, at_least: before > EXAMINED_MAX }
        };
        self.limit_holds(options, turn, Usage::Nothing).map(blocker).collect()
    }

    /// What keeps the pool from starting the task, besides others that have its slots.
    fn pool_blockers(&self, task: &TaskEntry, pool: &PoolState) -> Vec<Blocker> {
        let options = &task.spec.options;
        let has_worker = !pool.is_remote() || pool.queue(options).is_some_and(|queue| queue.slots > 0);
        let waits_for_dispatch = task.state == TaskState::Queued && !task.has_attempt;
        let slots = pool.spec.max_running_per_namespace.unwrap_or_default();
        let all = [
            (!pool.configured, Blocker::PoolNotConfigured),
            (pool.configured && pool.spec.paused, Blocker::PoolPaused),
            (pool.configured && !has_worker, Blocker::NoWorker),
            (waits_for_dispatch && pool.queues.is_full(&options.namespace), Blocker::NamespaceFull { slots }),
            (self.lacks_memory(pool), Blocker::LowMemory),
            (waits_for_dispatch && self.is_in_trial(), Blocker::Trial),
            (self.draining, Blocker::Draining),
        ];
        all.into_iter().filter_map(|(applies, blocker)| applies.then_some(blocker)).collect()
    }

    fn position(&self, index: u32, task: &TaskEntry, queue: &DispatchQueue) -> Position {
        let (options, is_dispatched) = (&task.spec.options, task.has_attempt);
        let is_promoted = self.pools[usize::from(task.pool)].promoted.contains(&index);
        let priority = if is_promoted { Priority::Critical } else { options.priority };
        let p = priority.index();
        let more_urgent = more_urgent(queue, priority);
        if is_dispatched {
            // The stale ones are bounded by the number of attempts that a pool is given.
            let live = queue.assigned_order[p].iter().filter(|ticket| is_assigned(&self.tasks, **ticket));
            let mut before = 0;
            let is_it = live.take(EXAMINED_MAX).any(|ticket| {
                let found = ticket.index == index;
                before += u64::from(!found);
                found
            });
            return Position { more_urgent, before, at_least: !is_it, namespaces: 0, keys: 0, is_dispatched };
        }
        let entry = QueueEntry { index, stamp: task.stamp };
        let is_live = |entry| Self::is_live(&self.tasks, entry);
        let (before, is_it) = queue.ready.before(options, entry, EXAMINED_MAX, is_live);
        let before = (before + queue.assigned[p]) as u64;
        let Rivals { namespaces, keys } = queue.ready.rivals(options);
        let (namespaces, keys) = (namespaces.into(), keys.into());
        Position { more_urgent, before, at_least: !is_it, namespaces, keys, is_dispatched }
    }
}

fn more_urgent(queue: &DispatchQueue, than: Priority) -> u64 {
    let higher = Priority::DESCENDING.into_iter().filter(|priority| *priority > than);
    higher.map(|priority| queue.len(priority) as u64).sum()
}

/// Number of QUEUED tasks that start before one that becomes eligible.
fn ahead_of_new(queue: &DispatchQueue, task: &TaskEntry) -> u64 {
    let priority = task.spec.options.priority;
    more_urgent(queue, priority) + queue.len(priority) as u64
}

/// Slots of the pool that no running task has.
fn free_slots(pool: &PoolState) -> u64 {
    (pool.spec.size as u64).saturating_sub(pool.running)
}

pub(super) fn is_full(pool: &PoolState) -> bool {
    pool.spec.size > 0 && free_slots(pool) == 0
}

/// Whether every slot of the pool takes the tasks of this queue, and only those, in its order.
fn has_whole_pool(pool: &PoolState, queue: &DispatchQueue) -> bool {
    let queued = || Priority::DESCENDING.into_iter().map(|priority| queue.len(priority) as u64).sum::<u64>();
    let is_alone = !pool.is_remote() || queue.slots == pool.spec.size && queued() == pool.queued;
    is_alone && pool.spec.max_running_per_namespace.is_none()
}

fn estimated_start(
    now: Timestamp,
    position: Position,
    task: &TaskEntry,
    pool: &PoolState,
    queue: &DispatchQueue,
) -> Option<Estimate> {
    let Position { more_urgent, before, at_least, is_dispatched, .. } = position;
    let options = &task.spec.options;
    let same_priority = queue.len(options.priority).saturating_sub(1) as u64;
    let of_same = if is_dispatched { before } else { queue.ready.starts_with(options, before + 1) - 1 };
    let ahead = more_urgent + of_same.min(same_priority);
    if at_least || pool.spec.size == 0 || !has_whole_pool(pool, queue) {
        return None;
    }
    let Some(starts) = (ahead + 1).checked_sub(free_slots(pool)).filter(|starts| *starts > 0) else {
        return Some(Estimate::Now);
    };
    if pool.run_us.len() < RUNS_MIN {
        return None;
    }
    // While all slots are taken, one of them becomes free in each of these intervals.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most ten days")]
    let interval = pool.run_us.mean() as u64 / pool.spec.size as u64;
    Some(Estimate::ByRunTimes(Timestamp(now.0.saturating_add(starts.saturating_mul(interval)))))
}
