//! Cores at the start of a server: without tasks, from all events, and from rows and later events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::batch_state::{batch_of, fold_batch, fold_task_into_batch};
use crate::model::schedule_state::{fold_schedule, fold_task_into_schedule, schedule_of};
use crate::model::{
    Autoscale, Batch, BatchKey, Catalog, Charge, Event, HandlerName, LimitRule, PoolKind, PoolName, PoolSpec, Revision,
    Schedule, ScheduleKey, Task,
};
use crate::store::fold;

use super::super::{Core, CoreOptions};
use super::fairness::weights;
use super::history::RETENTION;
use super::limits::{LIMIT_MAX, buckets, limit_name};

/// Pools with workers of their own, and then those of remote workers.
pub const POOLS: [&str; 4] = ["default", "other", "far", "farther"];
/// Number of pools with workers of their own.
pub const LOCAL_POOLS: usize = 2;
/// Attempts of one namespace that may run at once in each pool.
pub const MAX_RUNNING: [Option<usize>; POOLS.len()] = [None, Some(2), None, Some(2)];
/// Bounds of the size of the pools that autoscale.
pub const AUTOSCALE: [Option<Autoscale>; POOLS.len()] = [None, Some(Autoscale { min: 1, max: 3 }), None, None];
/// What each pool charges.
const CHARGES: [Charge; POOLS.len()] = [Charge::Tasks, Charge::SlotTime, Charge::SlotTime, Charge::Tasks];
pub const MAX_WAIT: [Option<Duration>; POOLS.len()] =
    [Some(Duration::from_secs(2)), None, None, Some(Duration::from_millis(500))];
/// Crashes of the server, or losses of its worker, in a row after which a task fails.
pub const CRASHES_MAX: u32 = 3;
pub const PAYLOAD_BYTES_MAX: u64 = 1_000;
pub const ATTACHED_BYTES_MAX: u64 = 16_000;

pub fn pool_name(pool: usize) -> PoolName {
    PoolName::parse(POOLS[pool]).unwrap()
}

pub fn is_remote(pool: usize) -> bool {
    pool >= LOCAL_POOLS
}

/// Whether the pool with this name is one of remote workers.
pub fn is_remote_name(pool: &PoolName) -> bool {
    (LOCAL_POOLS..POOLS.len()).any(|index| pool_name(index) == *pool)
}

pub fn handler_name(number: u8) -> HandlerName {
    HandlerName::parse(&format!("h{number}")).unwrap()
}

fn options() -> CoreOptions {
    let pool = |index: usize| {
        let pool = PoolSpec {
            max_running_per_namespace: MAX_RUNNING[index],
            weights: weights(),
            charge: CHARGES[index],
            max_wait: MAX_WAIT[index],
            ..PoolSpec::with_defaults(pool_name(index), 2)
        };
        if is_remote(index) {
            PoolSpec { kind: PoolKind::Remote, size: 0, ..pool }
        } else {
            PoolSpec { size: AUTOSCALE[index].map_or(2, |bounds| bounds.min), autoscale: AUTOSCALE[index], ..pool }
        }
    };
    let pools: Vec<_> = (0..POOLS.len()).map(pool).collect();
    let by_name = pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect();
    CoreOptions {
        pools,
        catalog: catalog(Some(LIMIT_MAX), by_name),
        retention: RETENTION,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        attached_bytes_max: ATTACHED_BYTES_MAX,
        crashes_max: CRASHES_MAX,
    }
}

/// `limit`: the places of the configured limit, if there is one.
pub fn catalog(limit: Option<u32>, pools: BTreeMap<PoolName, PoolSpec>) -> Arc<Catalog> {
    let limits = limit.map(|max| (limit_name(), LimitRule { max_running: Some(max), rate: None }));
    Arc::new(Catalog { pools, limits: limits.into_iter().collect(), ..Catalog::default() })
}

/// A core without tasks. It dispatches few attempts ahead, so that queues form.
pub fn new_core() -> Core {
    let mut core = Core::new(options());
    for pool in &mut core.pools {
        pool.prefetch = 0;
    }
    core
}

/// A core that continues after this revision of a projection.
pub fn begin_core(revision: Revision, subjects: &[Event]) -> Core {
    let mut core = new_core();
    for event in subjects {
        core.replay(event);
    }
    core.restore_revision(revision);
    core
}

/// A core that has read all events.
pub fn read_journal(journal: &[Event]) -> Core {
    let mut core = new_core();
    for event in journal {
        assert!(core.replay(event), "{event:?} is of an unknown task");
    }
    core
}

/// A core that has read the rows of a projection with the first `projected` events, and then the other events.
pub fn read_rows(journal: &[Event], projected: usize) -> Core {
    let (before, after) = journal.split_at(projected);
    let mut rows: BTreeMap<Revision, Option<Task>> = BTreeMap::new();
    let mut batches: BTreeMap<BatchKey, Option<Batch>> = BTreeMap::new();
    let mut schedules: BTreeMap<ScheduleKey, Option<Schedule>> = BTreeMap::new();
    let (mut submissions, mut subjects, mut handlers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for event in before {
        match event {
            Event::Task(event) => {
                let submission = *submissions.entry(event.task.clone()).or_insert(event.revision);
                let row = rows.entry(submission).or_default();
                fold(row, event);
                if row.is_none() {
                    submissions.remove(&event.task);
                }
                if let Some(key) = batch_of(event) {
                    fold_task_into_batch(batches.entry(key.to_key()).or_default(), event);
                }
                if let Some(schedule) =
                    schedule_of(event).and_then(|key| schedules.get_mut(&key.to_key())).and_then(Option::as_mut)
                {
                    fold_task_into_schedule(schedule, event);
                }
            }
            Event::Batch(event) => fold_batch(batches.entry(event.batch.clone()).or_default(), event),
            Event::Schedule(event) => fold_schedule(schedules.entry(event.schedule.clone()).or_default(), event),
            Event::Pool(pool) => drop(subjects.insert(pool.pool.clone(), event)),
            Event::Handler(handler) => drop(handlers.insert(handler.handler.clone(), event)),
        }
    }
    let subjects: Vec<Event> = subjects.into_values().chain(handlers.into_values()).cloned().collect();
    let mut core = begin_core(before.last().map_or(Revision(0), Event::revision), &subjects);
    batches.into_values().flatten().for_each(|batch| core.restore_batch(batch));
    schedules.into_values().flatten().for_each(|schedule| core.restore_schedule(schedule));
    for (limit, full_at) in buckets(before) {
        core.restore_bucket(&limit, full_at);
    }
    for mut task in rows.into_values().flatten() {
        let payload = task.spec.payload.clone();
        task.spec = Arc::new(task.spec.without_payload());
        core.restore(task.into(), &payload);
    }
    for event in after {
        assert!(core.replay(event), "{event:?} is of an unknown task");
    }
    core
}
