//! What happens to a server: the calls of clients, the work of its pools, time, and restarts.

use proptest::prelude::*;

use super::cores::{LOCAL_POOLS, POOLS};
use super::limits::LIMITS;
use super::schedules::{NewSchedule, new_schedule};

/// Workers of each remote pool.
pub const WORKERS: usize = 2;
/// Attempts that a remote worker runs at a time.
pub const WORKER_SLOTS_MAX: usize = 3;
/// Handlers of the tasks in remote pools.
pub const HANDLERS: u8 = 3;

#[derive(Clone, Debug)]
pub enum Step {
    Submit(Vec<NewTask>),
    /// Submits a task again that was submitted before.
    Repeat {
        pick: usize,
    },
    /// A worker takes an attempt, and its start is reported now or later.
    Claim {
        pool: usize,
        /// In a remote pool.
        worker: usize,
        report: bool,
    },
    /// A start is reported.
    Report {
        pick: usize,
    },
    /// An attempt ends.
    End {
        pick: usize,
        how: u8,
    },
    Cancel {
        pick: usize,
        force: bool,
    },
    /// Changes a task that may have started.
    Update {
        pick: usize,
        change: TaskChanges,
    },
    Advance {
        ms: u64,
    },
    UpdatePool {
        pool: usize,
        paused: Option<bool>,
        size: Option<usize>,
    },
    /// A pool that autoscales follows its load.
    ScalePool {
        pool: usize,
        size: usize,
    },
    /// Whether the memory of the server is low.
    SetMemory {
        low: bool,
    },
    /// A worker offers handlers in a remote pool.
    RegisterHandlers {
        pool: usize,
        handlers: Vec<u8>,
    },
    /// A remote worker connects, perhaps again.
    Connect {
        pool: usize,
        worker: usize,
        handlers: Vec<u8>,
        slots: usize,
        /// Whether it still has the attempts that it was sent.
        keeps: bool,
    },
    /// The stream of a remote worker breaks. Its attempts go on.
    Disconnect {
        pool: usize,
        worker: usize,
    },
    /// The lease of a remote worker ends.
    LoseWorker {
        pool: usize,
        worker: usize,
    },
    CreateBatch {
        key: (usize, u8),
        open: bool,
        completion: Option<NewTask>,
    },
    CloseBatch(usize, u8),
    CancelBatch {
        key: (usize, u8),
        force: bool,
    },
    DeleteBatch(usize, u8),
    CreateSchedule((usize, u8), NewSchedule),
    UpdateSchedule {
        key: (usize, u8),
        new: NewSchedule,
        /// With an outdated etag.
        stale: bool,
    },
    PauseSchedule((usize, u8), bool),
    DeleteSchedule(usize, u8),
    /// The configuration has these schedules.
    ConfigureSchedules(Vec<((usize, u8), NewSchedule)>),
    TriggerSchedule {
        key: (usize, u8),
        overlap: bool,
    },
    /// The configuration of the limit `api` changes; `None`: it is gone.
    SetLimit {
        max: Option<u32>,
    },
    Sweep {
        spare: usize,
    },
    /// Begins to delete finished tasks; the following steps continue.
    Delete(Deleted),
    Restart(Restart),
}

#[derive(Clone, Debug, Default)]
pub struct NewTask {
    pub id: u8,
    pub batch: Option<u8>,
    pub namespace: usize,
    /// Number of a fairness key.
    pub fairness_key: Option<u8>,
    pub pool: usize,
    /// In a remote pool.
    pub handler: u8,
    pub priority: usize,
    pub delay_ms: u64,
    pub expires_ms: Option<u64>,
    pub once: bool,
    pub request_id: Option<u8>,
    pub payload_bytes: usize,
    pub argument_bytes: usize,
    /// Back-off after the first failed attempt.
    pub back_off_s: u64,
    pub parents: Vec<ParentName>,
    pub on_parent_failure: usize,
    /// The ended task that it is a retry of.
    pub retry_of: Option<usize>,
    /// Numbers of limits; those that are the same as an earlier one are left out.
    pub limits: Vec<u8>,
    /// Number of a unique key, of the rule for conflicts, and for how long a result is used again.
    pub unique: Option<(u8, u8, Option<u64>)>,
}

/// What an update changes. Times count from now.
#[derive(Clone, Debug)]
pub struct TaskChanges {
    pub priority: Option<usize>,
    /// Bytes of a new label.
    pub label: Option<usize>,
    pub delay_ms: Option<u64>,
    /// 0: never.
    pub expires_ms: Option<u64>,
}

/// How a submission names a parent.
#[derive(Clone, Copy, Debug)]
pub enum ParentName {
    /// One of the existing tasks of its namespace.
    Existing(usize),
    /// A task that may not exist, or in another namespace.
    Id(u8),
    /// One of the tasks that are submitted with it.
    Submitted(usize),
}

/// Which tasks `DeleteTasks` names.
#[derive(Clone, Copy, Debug)]
pub enum Deleted {
    All,
    Namespace(usize),
    Id(u8),
    Completed,
}

#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// After a drain; otherwise the server is killed and loses what is not durable.
    pub clean: bool,
    /// Continue with the rows of the projection and the later events, instead of all events.
    pub from_rows: bool,
    /// How many of the events the rows contain, in 256ths.
    pub projected: u8,
    /// By how much the clock was set back or forward meanwhile.
    pub clock_ms: i64,
}

fn schedule_step(task: impl Strategy<Value = NewTask> + Clone + 'static) -> impl Strategy<Value = Step> {
    // Few, so that most calls meet one.
    let key = || (0..2_usize, 0..2_u8);
    prop_oneof![
        3 => (key(), new_schedule(task.clone())).prop_map(|(key, new)| Step::CreateSchedule(key, new)),
        1 => prop::collection::vec((key(), new_schedule(task.clone())), 0..3).prop_map(Step::ConfigureSchedules),
        1 => (key(), new_schedule(task), prop::bool::weighted(0.2))
            .prop_map(|(key, new, stale)| Step::UpdateSchedule { key, new, stale }),
        1 => (key(), any::<bool>()).prop_map(|(key, paused)| Step::PauseSchedule(key, paused)),
        1 => key().prop_map(|(namespace, schedule)| Step::DeleteSchedule(namespace, schedule)),
        1 => (key(), any::<bool>()).prop_map(|(key, overlap)| Step::TriggerSchedule { key, overlap }),
    ]
}

fn task_changes() -> impl Strategy<Value = TaskChanges> {
    let times = || proptest::option::weighted(0.3, prop_oneof![1 => Just(0_u64), 3 => 1..3_000_u64]);
    let changes = (proptest::option::of(0..4_usize), proptest::option::weighted(0.3, 1..250_usize), times(), times());
    changes.prop_map(|(priority, label, delay_ms, expires_ms)| TaskChanges { priority, label, delay_ms, expires_ms })
}

fn new_task() -> impl Strategy<Value = NewTask> + Clone + 'static {
    let payload = prop_oneof![3 => 0..40_usize, 1 => 200..700_usize];
    let parent = prop_oneof![
        6 => any::<usize>().prop_map(ParentName::Existing),
        1 => (0..14_u8).prop_map(ParentName::Id),
        3 => any::<usize>().prop_map(ParentName::Submitted),
    ];
    let parents = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(parent, 1..3)];
    let new = (
        ((0..14_u8, proptest::option::of(0..2_u8)), 0..3_usize, 0..POOLS.len(), 0..4_usize, 0..HANDLERS),
        (prop_oneof![4 => Just(0_u64), 1 => 1..2_000_u64], proptest::option::weighted(0.15, 1..3_000_u64)),
        (
            prop::bool::weighted(0.1),
            proptest::option::weighted(0.2, 0..4_u8),
            proptest::option::weighted(0.2, (0..2_u8, 1..4_u8, proptest::option::of(1..60_u64))),
        ),
        (payload, prop_oneof![4 => Just(0_usize), 1 => 200..600_usize], 0..3_u64, proptest::option::of(0..3_u8)),
        (
            (parents, 0..3_usize, proptest::option::weighted(0.3, any::<usize>())),
            prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(0..LIMITS, 1..4)],
        ),
    );
    new.prop_map(|(named, (delay_ms, expires_ms), (once, request_id, unique), rest, dependencies)| {
        let ((parents, on_parent_failure, retry_of), limits) = dependencies;
        let (
            ((id, batch), namespace, pool, priority, handler),
            (payload_bytes, argument_bytes, back_off_s, fairness_key),
        ) = (named, rest);
        NewTask {
            id,
            batch,
            namespace,
            fairness_key,
            pool,
            handler,
            priority,
            delay_ms,
            expires_ms,
            once,
            request_id,
            payload_bytes,
            argument_bytes,
            back_off_s,
            parents,
            on_parent_failure,
            retry_of,
            limits,
            unique,
        }
    })
}

/// A step, and whether its decisions become durable at once. Otherwise they wait for those of the next steps.
pub fn step() -> impl Strategy<Value = (Step, bool)> {
    let new = new_task();
    let deleted = prop_oneof![
        Just(Deleted::All),
        (0..3_usize).prop_map(Deleted::Namespace),
        (0..14_u8).prop_map(Deleted::Id),
        Just(Deleted::Completed)
    ];
    let clock = prop_oneof![4 => Just(1_i64), 1 => -5_000..0_i64, 1 => 1..90_000_i64];
    let restart = (prop::bool::weighted(0.3), any::<bool>(), any::<u8>(), clock)
        .prop_map(|(clean, from_rows, projected, clock_ms)| Restart { clean, from_rows, projected, clock_ms });
    let handlers = prop::collection::vec(0..HANDLERS, 1..3);
    let remote = || LOCAL_POOLS..POOLS.len();
    let batch = || (0..3_usize, 0..2_u8);
    let step = prop_oneof![
        10 => prop::collection::vec(new.clone(), 1..4).prop_map(Step::Submit),
        7 => schedule_step(new.clone()),
        3 => (batch(), any::<bool>(), proptest::option::of(new))
            .prop_map(|(key, open, completion)| Step::CreateBatch { key, open, completion }),
        1 => batch().prop_map(|(namespace, batch)| Step::CloseBatch(namespace, batch)),
        1 => (batch(), any::<bool>()).prop_map(|(key, force)| Step::CancelBatch { key, force }),
        1 => batch().prop_map(|(namespace, batch)| Step::DeleteBatch(namespace, batch)),
        1 => any::<usize>().prop_map(|pick| Step::Repeat { pick }),
        16 => (0..POOLS.len(), 0..WORKERS, prop::bool::weighted(0.8))
            .prop_map(|(pool, worker, report)| Step::Claim { pool, worker, report }),
        2 => any::<usize>().prop_map(|pick| Step::Report { pick }),
        10 => (any::<usize>(), 0..10_u8).prop_map(|(pick, how)| Step::End { pick, how }),
        3 => (any::<usize>(), prop::bool::weighted(0.3)).prop_map(|(pick, force)| Step::Cancel { pick, force }),
        3 => (any::<usize>(), task_changes()).prop_map(|(pick, change)| Step::Update { pick, change }),
        3 => prop_oneof![2 => 1..3_000_u64, 1 => 3_000..60_000_u64].prop_map(|ms| Step::Advance { ms }),
        2 => (0..POOLS.len(), any::<Option<bool>>(), proptest::option::of(1..4_usize))
            .prop_map(|(pool, paused, size)| Step::UpdatePool { pool, paused, size }),
        2 => (0..LOCAL_POOLS, 0..5_usize).prop_map(|(pool, size)| Step::ScalePool { pool, size }),
        1 => prop::bool::weighted(0.3).prop_map(|low| Step::SetMemory { low }),
        1 => (remote(), prop::collection::vec(0..HANDLERS, 0..3))
            .prop_map(|(pool, handlers)| Step::RegisterHandlers { pool, handlers }),
        5 => (remote(), 0..WORKERS, handlers, 1..=WORKER_SLOTS_MAX, prop::bool::weighted(0.8)).prop_map(
            |(pool, worker, handlers, slots, keeps)| Step::Connect { pool, worker, handlers, slots, keeps }
        ),
        1 => (remote(), 0..WORKERS).prop_map(|(pool, worker)| Step::Disconnect { pool, worker }),
        2 => (remote(), 0..WORKERS).prop_map(|(pool, worker)| Step::LoseWorker { pool, worker }),
        1 => proptest::option::weighted(0.8, 1..4_u32).prop_map(|max| Step::SetLimit { max }),
        2 => (0..4_usize).prop_map(|spare| Step::Sweep { spare }),
        1 => deleted.prop_map(Step::Delete),
        2 => restart.prop_map(Step::Restart),
    ];
    (step, prop::bool::weighted(0.8))
}
