//! All that the scheduler answers or decides by, in a form that does not depend on how it came to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{
    Batch, CancelRequest, FairnessKey, HandlerName, Holds, LimitId, Namespace, PoolName, PoolSettings, Priority,
    Registration, Revision, Schedule, TaskId, TaskState, Timestamp, Upload,
};

use super::super::limit_table;
use super::super::state::Core;
use super::super::timers::Purpose;

/// By what tasks that are dispatched in order have in common. Only a remote pool has a queue for each handler.
type Queues = BTreeMap<QueueName, (Vec<Turn>, BTreeMap<Turn, Vec<TaskId>>)>;
type QueueName = (PoolName, Option<HandlerName>, Priority);
/// A namespace and a fairness key.
type Turn = (Namespace, Option<FairnessKey>);

#[derive(Debug, PartialEq)]
pub struct Answers {
    revision: Revision,
    tasks: BTreeMap<TaskId, TaskAnswer>,
    /// Settings, etag, and numbers of WAITING, QUEUED and RUNNING tasks of each configured pool.
    pools: BTreeMap<PoolName, (PoolSettings, String, [u64; 3])>,
    /// QUEUED tasks that are not dispatched: whose turn it is, and the tasks of each in the order of their dispatch.
    queues: Queues,
    /// Deadlines in order, and whether each is an expiry.
    timers: Vec<(Timestamp, TaskId, bool)>,
    /// Finished tasks, without pinned ones, in the order in which the retention deletes them.
    finished: BTreeMap<Namespace, Vec<TaskId>>,
    registered: BTreeMap<HandlerName, Registration>,
    uploads: BTreeMap<HandlerName, Arc<Upload>>,
    /// In the order of creation.
    batches: Vec<Batch>,
    schedules: Vec<Schedule>,
    limits: BTreeMap<LimitId, LimitAnswer>,
    attached_bytes: u64,
    /// Of finished tasks, in the store.
    retained_bytes: u64,
    /// The tasks that are suspected of having crashed the server, the next one to try first.
    suspects: Vec<TaskId>,
}

#[derive(Debug, PartialEq)]
struct TaskAnswer {
    submission: Revision,
    submitted_at: Timestamp,
    state: TaskState,
    since: Timestamp,
    changed_at: Timestamp,
    attempt: u16,
    crashes: u16,
    /// Fence of the attempt of an earlier server that goes on.
    adopted: Option<u64>,
    cancel: Option<Box<CancelRequest>>,
    waits: bool,
    /// Number of parents of whose end it has to take notice.
    parents_left: u32,
    expires: bool,
    stored_bytes: u32,
}

impl Answers {
    /// # Panics
    /// If the answers differ.
    pub fn assert_same(&self, other: &Self, what: &str) {
        for (id, task) in &self.tasks {
            assert_eq!(Some(task), other.tasks.get(id), "{what}: {id}");
        }
        assert_eq!(self.pools, other.pools, "{what}: pools");
        assert_eq!(self.queues, other.queues, "{what}: order of the queues");
        assert_eq!(self.timers, other.timers, "{what}: timers");
        assert_eq!(self.finished, other.finished, "{what}: order of the retention");
        assert_eq!(self.batches, other.batches, "{what}: batches");
        assert_eq!(self.schedules, other.schedules, "{what}: schedules");
        assert_eq!(self.limits, other.limits, "{what}: limits");
        assert_eq!(self.suspects, other.suspects, "{what}: suspects");
        assert_eq!(self, other, "{what}");
    }

    pub fn of(core: &Core) -> Self {
        let id = |index: u32| core.tasks.get(index).map(|task| task.spec.id.clone());
        let tasks = core.tasks.iter().map(|(index, task)| {
            let answer = TaskAnswer {
                submission: task.submission,
                submitted_at: task.submitted_at,
                state: task.state,
                since: task.since,
                changed_at: task.changed_at(),
                attempt: task.attempt,
                // Nothing asks for that of a finished task.
                crashes: if task.state.is_terminal() { 0 } else { task.crashes },
                adopted: (task.state == TaskState::Running && task.has_attempt).then_some(task.stamp),
                cancel: task.cancel.clone(),
                waits: task.holds != Holds::NONE,
                parents_left: core.dependencies.left(index),
                expires: task.expires,
                stored_bytes: task.stored_bytes,
            };
            (task.spec.id.clone(), answer)
        });
        let live = core.timers.iter().filter(|timer| Core::is_armed(&core.tasks, *timer));
        let timers = live.map(|timer| Some((timer.at, id(timer.index)?, matches!(timer.purpose, Purpose::Expiry(_)))));
        let mut timers: Vec<_> = timers.flatten().collect();
        timers.sort_unstable();
        let suspects = core.quarantine.suspects.iter().filter(|suspect| suspect.is_pending(&core.tasks));
        Self {
            revision: core.revision,
            tasks: tasks.collect(),
            pools: pools(core),
            queues: queues(core),
            timers,
            finished: finished(core),
            registered: core.registered.clone(),
            uploads: core.uploads.clone(),
            batches: core.batches.iter().cloned().collect(),
            schedules: core.schedules.iter().cloned().collect(),
            limits: limits(core),
            attached_bytes: core.attached_in_memory(),
            retained_bytes: core.retained_bytes(),
            suspects: suspects.filter_map(|suspect| id(suspect.index)).collect(),
        }
    }
}

fn pools(core: &Core) -> BTreeMap<PoolName, (PoolSettings, String, [u64; 3])> {
    let configured = core.pools.iter().filter(|pool| pool.configured);
    let answer = configured.map(|pool| {
        let (view, counts) = (pool.view(), [pool.waiting, pool.queued, pool.running]);
        (pool.spec.name.clone(), (PoolSettings::of(&view.spec), view.etag, counts))
    });
    answer.collect()
}

fn queues(core: &Core) -> Queues {
    let mut queues = Queues::new();
    for (pool, queue) in core.pools.iter().flat_map(|pool| pool.queues.iter().map(move |queue| (pool, queue))) {
        for priority in Priority::DESCENDING {
            let live = queue.ready.entries(priority).filter(|(_, entry)| Core::is_live(&core.tasks, *entry));
            let mut tasks: BTreeMap<Turn, Vec<TaskId>> = BTreeMap::new();
            for ((namespace, key), entry) in live {
                let task = core.tasks.get(entry.index).expect("a live entry");
                tasks.entry((namespace.clone(), key.cloned())).or_default().push(task.spec.id.clone());
            }
            let name = (pool.spec.name.clone(), queue.handler.clone(), priority);
            if !tasks.is_empty() {
                queues.insert(name, (queue.ready.turns(priority), tasks));
            }
        }
    }
    queues
}

/// Numbers of unfinished tasks, places and reserved tokens; when the bucket is full, if it is not; and the tasks that wait.
type LimitAnswer = ([usize; 3], u64, Vec<TaskId>);

fn limits(core: &Core) -> BTreeMap<LimitId, LimitAnswer> {
    let id = |turn: &limit_table::Turn| core.tasks.get(turn.index).expect("a waiting task").spec.id.clone();
    let answer = |(limit, counts, full_at, waiting): (&LimitId, _, u64, &BTreeSet<limit_table::Turn>)| {
        let full_at = if full_at > core.now.0 * 1_000 { full_at } else { 0 };
        (limit.clone(), (counts, full_at, waiting.iter().map(id).collect()))
    };
    core.limits.iter().map(answer).collect()
}

pub fn finished(core: &Core) -> BTreeMap<Namespace, Vec<TaskId>> {
    let mut finished: BTreeMap<Namespace, Vec<TaskId>> = BTreeMap::new();
    for list in 0..core.finished.lists() {
        let all = core.finished.range(list, Revision(0), core.revision, usize::MAX);
        let is_deletable = |task: &super::super::finished::FinishedTask| {
            task.is_live(&core.tasks) && !core.finished.is_pinned(task.index)
        };
        for task in all.into_iter().filter(is_deletable) {
            let spec = &core.tasks.get(task.index).expect("a live entry").spec;
            finished.entry(spec.options.namespace.clone()).or_default().push(spec.id.clone());
        }
    }
    finished
}
