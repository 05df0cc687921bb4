//! The state of the core, and how it emits events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::{
    CancelRequest, Catalog, Event, HandlerName, Holds, PoolChange, PoolName, PoolSpec, Registration, Retention,
    Revision, TaskChange, TaskEvent, TaskId, TaskOptions, TaskSpec, TaskState, Timestamp, Upload,
};
use crate::pool::Ticket;

use super::batch_table::BatchTable;
use super::decisions::{Decisions, Unattempted};
use super::dependency_table::DependencyTable;
use super::finished::FinishedTasks;
use super::key_queue::QueueEntry;
use super::limit_table::LimitTable;
use super::pool_state::PoolState;
use super::requests::RecentRequests;
use super::retries::Retries;
use super::schedule_table::ScheduleTable;
use super::suspects::Quarantine;
use super::table::{TaskEntry, TaskTable};
use super::timers::{Purpose, Timer, Timers};
use super::unique_table::UniqueKeys;

/// Bytes of arguments, labels and the like that count as part of what every task needs.
const ATTACHED_FREE: usize = 256;

/// Bytes that count toward [`CoreOptions::attached_bytes_max`].
pub(super) fn attached_bytes(spec: &TaskSpec) -> u64 {
    spec.attached_bytes().saturating_sub(ATTACHED_FREE) as u64
}

#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// In the order of the configuration.
    pub pools: Vec<PoolSpec>,
    /// The configured handlers and pools.
    pub catalog: Arc<Catalog>,
    pub retention: Retention,
    /// Bytes of payloads of unfinished tasks that are kept in memory.
    pub payload_bytes_max: u64,
    /// Bytes of batches, schedules and limits of tasks, and of arguments, labels, names and trace contexts of unfinished tasks
    /// beyond [`ATTACHED_FREE`] of each task.
    pub attached_bytes_max: u64,
    /// Consecutive server crashes after which a task that was running fails.
    pub crashes_max: u32,
}

#[derive(Debug)]
pub struct Core {
    pub(super) options: CoreOptions,
    pub(super) tasks: TaskTable,
    pub(super) timers: Timers,
    /// Those that were configured at the start come first, in the order of the options.
    pub(super) pools: Vec<PoolState>,
    pub(super) pool_names: HashMap<PoolName, u16>,
    /// Changes of pools that are not configured and had no tasks.
    pub(super) unapplied_changes: HashMap<PoolName, (Revision, PoolChange)>,
    /// Handlers that workers have registered, also those that the configuration has too.
    pub(super) registered: BTreeMap<HandlerName, Registration>,
    /// Uploaded handlers, also those that the configuration has too. Workers have registered none of them.
    pub(super) uploads: BTreeMap<HandlerName, Arc<Upload>>,
    pub(super) finished: FinishedTasks,
    pub(super) requests: RecentRequests,
    pub(super) revision: Revision,
    /// Recalls that the pools have not answered, by fence.
    pub(super) recalls: HashMap<u64, Recall>,
    /// Tasks that have ended, with the revision, and whose end has had no consequences yet.
    pub(super) ended: VecDeque<(u32, Revision)>,
    /// The newest stamp; the epoch is in its upper bits.
    pub(super) stamp: u64,
    /// Raised, durably, at every start of a server.
    pub(super) epoch: u64,
    pub(super) payload_bytes: u64,
    pub(super) attached_bytes: u64,
    pub(super) batches: BatchTable,
    pub(super) schedules: ScheduleTable,
    pub(super) dependencies: DependencyTable,
    pub(super) retries: Retries,
    pub(super) limits: LimitTable,
    pub(super) unique_keys: UniqueKeys,
    pub(super) draining: bool,
    /// Whether the server has too little memory for more work of its own.
    pub(super) memory_low: bool,
    pub(super) quarantine: Quarantine,
    /// While the core recovers: the remote workers of running attempts, by fence.
    pub(super) remote_workers: HashMap<u64, Arc<str>>,
    /// Time of the last call of [`Core::advance`].
    pub(super) now: Timestamp,
}

/// A recall that the pool has not answered.
#[derive(Debug)]
pub(super) struct Recall {
    /// The index may be that of another task by the time of the answer.
    pub submission: Revision,
    pub reason: RecallReason,
}

/// What an update makes of a task.
#[derive(Debug)]
pub(super) struct Changed {
    pub options: Arc<TaskOptions>,
    pub delay: Option<Duration>,
    pub expires_after: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum RecallReason {
    Cancel(Box<CancelRequest>),
    /// A new task replaces it. It goes on if it has started.
    Replace(Box<CancelRequest>),
    /// An update, unless it has started.
    Update(Box<Changed>),
    Expiry,
}

impl Core {
    pub fn new(options: CoreOptions) -> Self {
        let mut core = Self {
            tasks: TaskTable::default(),
            timers: Timers::default(),
            pools: Vec::new(),
            pool_names: HashMap::new(),
            unapplied_changes: HashMap::new(),
            registered: BTreeMap::new(),
            uploads: BTreeMap::new(),
            finished: FinishedTasks::default(),
            requests: RecentRequests::default(),
            revision: Revision::default(),
            recalls: HashMap::new(),
            ended: VecDeque::new(),
            stamp: 0,
            epoch: 0,
            payload_bytes: 0,
            attached_bytes: 0,
            batches: BatchTable::default(),
            schedules: ScheduleTable::default(),
            dependencies: DependencyTable::default(),
            retries: Retries::default(),
            limits: LimitTable::default(),
            unique_keys: UniqueKeys::default(),
            draining: false,
            memory_low: false,
            quarantine: Quarantine::default(),
            remote_workers: HashMap::new(),
            now: Timestamp::ZERO,
            options,
        };
        for spec in core.options.pools.clone() {
            core.add_pool(spec, true);
        }
        core
    }

    /// Revision of the newest event, durable or not.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Fires the timers that are due at `now`, and starts the runs of schedules. Call it before the commands of that time.
    pub fn advance(&mut self, now: Timestamp, out: &mut Decisions) {
        self.now = now;
        while let Some(timer) = self.timers.pop(now, |timer| Self::is_armed(&self.tasks, timer)) {
            match timer.purpose {
                Purpose::Hold(_) => self.release_timed_hold(now, timer.index, out),
                Purpose::Expiry(_) => self.expire(now, timer.index, out),
            }
        }
        self.limits.advance(now);
        self.admit_waiting(out);
        self.run_schedules(now, out);
    }

    /// When [`Core::advance`] has to be called next.
    pub fn next_due(&mut self) -> Option<Timestamp> {
        let timer = self.timers.next(|timer| Self::is_armed(&self.tasks, timer));
        let limit = if self.limits.has_changed() { Some(self.now) } else { self.limits.first_wake() };
        timer.into_iter().chain(self.quarantine.due()).chain(self.next_run_due()).chain(limit).min()
    }

    /// Refuses submissions and dispatches nothing from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Bytes of the payloads in memory, and of batches, schedules, arguments, labels and the like.
    pub fn memory_use(&self) -> (u64, u64) {
        (self.payload_bytes, self.attached_in_memory())
    }

    /// Bytes that [`CoreOptions::attached_bytes_max`] limits.
    pub(super) fn attached_in_memory(&self) -> u64 {
        self.attached_bytes + self.batches.bytes() + self.schedules.bytes() + self.limits.bytes()
    }

    /// Bytes of everything of variable size that the store keeps of finished tasks.
    pub fn retained_bytes(&self) -> u64 {
        self.finished.bytes()
    }

    /// Number of RUNNING tasks that run in this server. Those of remote workers go on without it.
    pub fn running(&self) -> u64 {
        self.pools.iter().filter(|pool| !pool.is_remote()).map(|pool| pool.running).sum()
    }

    /// Tickets of these tasks.
    pub fn running_tickets(&self) -> Vec<Ticket> {
        let is_local = |task: &TaskEntry| !self.pools[usize::from(task.pool)].is_remote();
        let running = self.tasks.iter().filter(|(_, task)| task.state == TaskState::Running && is_local(task));
        running.filter_map(|(index, _)| self.ticket_of(index)).collect()
    }

    /// The live attempt of a task, dispatched or running.
    pub fn ticket(&self, id: &TaskId) -> Option<Ticket> {
        self.ticket_of(self.tasks.find(id)?)
    }

    pub(super) fn ticket_of(&self, index: u32) -> Option<Ticket> {
        let task = self.tasks.get(index).filter(|task| task.has_attempt)?;
        Some(Ticket { index, pool: task.pool, fence: task.stamp })
    }

    /// A number that was never drawn before. Larger than all earlier ones.
    pub(super) fn draw_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// `at`, or the last time at which the task changed if that is later. The clock may have been set back before the
    /// start of this server; the times of a task never run backwards.
    pub(super) fn not_before_last_change(&self, index: u32, at: Timestamp) -> Timestamp {
        self.tasks.get(index).map_or(at, |task| at.max(task.changed_at()))
    }

    /// State and options of a task.
    pub fn task(&self, id: &TaskId) -> Option<(TaskState, &Arc<TaskOptions>)> {
        let task = self.tasks.get(self.tasks.find(id)?)?;
        Some((task.state, &task.spec.options))
    }

    /// Creates an event and applies it, and those that follow from it. A task whose limits have no place for it becomes WAITING
    /// instead of QUEUED.
    pub(super) fn emit(
        &mut self,
        at: Timestamp,
        index: u32,
        state: TaskState,
        attempt: Option<u32>,
        change: TaskChange,
        out: &mut Decisions,
    ) {
        self.emit_one(at, index, state, attempt, change, out);
        self.admit_waiting(out);
    }

    /// [`Core::emit`] without the tasks that wait for a limit.
    pub(super) fn emit_one(
        &mut self,
        at: Timestamp,
        index: u32,
        state: TaskState,
        attempt: Option<u32>,
        change: TaskChange,
        out: &mut Decisions,
    ) {
        let (state, change, hold) = self.within_limits(index, state, change);
        let at = self.not_before_last_change(index, at);
        let Some(task) = self.tasks.get(index) else { return };
        let ends = state.is_terminal() && !task.state.is_terminal();
        let dependencies = if ends { task.spec.extras().dependencies.clone() } else { None };
        let ends_without_attempt = ends && task.state != TaskState::Running;
        // The attempt belonged to the server before a restart.
        let lost_attempt = !task.has_attempt && (ends || matches!(change, TaskChange::Interrupted { .. }));
        if ends_without_attempt || lost_attempt {
            let (event, trace) = (out.events.len(), task.spec.extras().trace.clone());
            out.unattempted.push(Unattempted { event, trace, submitted_at: task.submitted_at });
        }
        let mut event = TaskEvent {
            revision: self.revision.next(),
            at,
            task: task.spec.id.clone(),
            options: task.spec.options.clone(),
            previous: task.state,
            state,
            attempt: attempt.unwrap_or(task.attempt.into()),
            holds: Holds::NONE,
            hold,
            change,
        };
        self.apply(index, &event);
        event.holds = self.holds_of(index);
        out.events.push(Event::Task(event));
        self.settle();
        if ends {
            self.end_dependencies(index, dependencies);
        }
        self.settle_batches(at, out);
    }

    /// The holds of a task. It has some if it is WAITING.
    pub(super) fn holds_of(&self, index: u32) -> Holds {
        self.tasks.get(index).map_or(Holds::NONE, |task| task.holds)
    }

    /// Gives a task other holds.
    pub(super) fn set_holds(&mut self, index: u32, holds: Holds) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        self.pools[usize::from(task.pool)].held.change(std::mem::replace(&mut task.holds, holds), holds);
    }

    /// Whether an entry of a ready queue is not stale.
    pub(super) fn is_live(tasks: &TaskTable, entry: QueueEntry) -> bool {
        let is_ready = |task: &TaskEntry| task.state == TaskState::Queued && !task.has_attempt;
        tasks.get(entry.index).is_some_and(|task| task.stamp == entry.stamp && is_ready(task))
    }

    /// Whether a timer is not stale.
    pub(super) fn is_armed(tasks: &TaskTable, timer: Timer) -> bool {
        tasks.get(timer.index).is_some_and(|task| match timer.purpose {
            Purpose::Hold(stamp) => task.stamp == stamp && task.holds.has_timer(),
            Purpose::Expiry(key) => tasks.expiry_key(timer.index) == Some(key),
        })
    }

    #[cfg(test)]
    pub fn state(&self, id: &TaskId) -> Option<TaskState> {
        Some(self.task(id)?.0)
    }

    /// Compares all counters with the tasks.
    ///
    /// # Panics
    /// If an invariant is violated, which is a bug of the core.
    #[cfg(test)]
    pub fn check(&self) {
        for (index, pool) in self.pools.iter().enumerate() {
            let own = || self.tasks.iter().filter(|(_, task)| usize::from(task.pool) == index);
            let count = |state| own().filter(|(_, task)| task.state == state).count() as u64;
            assert_eq!(pool.waiting, count(TaskState::Waiting), "number of waiting tasks");
            assert_eq!(pool.queued, count(TaskState::Queued), "number of queued tasks");
            assert_eq!(pool.running, count(TaskState::Running), "number of running tasks");
            for hold in crate::model::Hold::ALL {
                let held = own().filter(|(_, task)| task.holds.contains(hold)).count() as u64;
                assert_eq!(pool.held.of(hold), held, "number of tasks with {hold:?}");
            }
            let placed: usize = crate::model::Priority::DESCENDING.iter().map(|priority| pool.queued(*priority)).sum();
            assert_eq!(placed as u64, pool.queued, "every queued task is in the ready queue or assigned");
            let attempts = |namespace: &crate::model::Namespace| {
                let its = |task: &TaskEntry| task.has_attempt && task.spec.options.namespace == *namespace;
                own().filter(|(_, task)| its(task)).count()
            };
            let limited = pool.spec.max_running_per_namespace.is_some();
            for (_, task) in own().filter(|_| limited) {
                let namespace = &task.spec.options.namespace;
                assert_eq!(pool.queues.slots_of(namespace), attempts(namespace), "slots of {namespace}");
            }
            let has_attempt = |index: &u32| self.tasks.get(*index).is_some_and(|task| task.has_attempt);
            assert!(pool.expected_us.keys().all(has_attempt), "only live attempts are charged for expected time");
            let is_dispatched = |index: &u32| self.tasks.get(*index).is_some_and(TaskEntry::is_dispatched);
            assert!(pool.promoted.iter().all(is_dispatched), "only dispatched attempts are promoted");
            for queue in pool.queues.iter() {
                queue.ready.check(|key| pool.queues.is_full(key), |entry| Self::is_live(&self.tasks, entry));
                for (order, assigned) in queue.assigned_order.iter().zip(queue.assigned) {
                    assert!(order.len() <= 2 * assigned + 65, "{} entries for {assigned} attempts", order.len());
                }
            }
        }
        for (_, task) in self.tasks.iter() {
            assert_eq!(task.state == TaskState::Waiting, !task.holds.is_empty(), "a WAITING task has a hold");
            assert!(!task.expires || !task.state.is_terminal() && task.state != TaskState::Running);
        }
        let timers = |task: &TaskEntry| usize::from(task.holds.has_timer()) + usize::from(task.expires);
        let timers: usize = self.tasks.iter().map(|(_, task)| timers(task)).sum();
        assert_eq!(self.timers.live(), timers, "number of timers");
        assert!(self.timers.len() <= 2 * timers + 1_025, "{} timers for {timers}", self.timers.len());
        assert!(self.ended.is_empty(), "every end has had its consequences");
        let live = self.tasks.iter().filter(|(_, task)| !task.state.is_terminal());
        let bytes: u64 = live.map(|(_, task)| task.spec.payload.len() as u64).sum();
        assert_eq!(self.payload_bytes, bytes, "bytes of payloads in memory");
        let live = self.tasks.iter().filter(|(_, task)| !task.state.is_terminal());
        let bytes: u64 = live.map(|(_, task)| attached_bytes(&task.spec)).sum();
        assert_eq!(self.attached_bytes, bytes, "bytes of arguments and labels in memory");
        self.finished.check(&self.tasks);
        self.batches.check(&self.tasks);
        self.schedules.check(&self.tasks);
        self.requests.check();
        self.check_dependencies();
        self.check_limit_counts();
        self.check_unique_keys();
    }
}
