//! What holds after every step. `history` has the rules that every single event obeys, and `pools` and
//! `workers` those of the moment in which an attempt is dispatched or starts.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{PoolName, PoolSettings, PoolSpec, Priority, TaskId, TaskState};

use super::super::dispatch_queue::DispatchQueue;
use super::cores::{ATTACHED_BYTES_MAX, MAX_RUNNING, PAYLOAD_BYTES_MAX, POOLS, is_remote, pool_name};
use super::history::Known;
use super::steps::{WORKER_SLOTS_MAX, WORKERS};
use super::world::World;

pub fn check(world: &World) {
    world.core.check();
    the_core_and_the_events_agree(world);
    every_acknowledged_task_exists(world);
    a_task_has_at_most_one_live_attempt(world);
    used_slots_equal_live_attempts(world);
    no_more_attempts_run_than_there_are_slots(world);
    no_namespace_has_more_slots_than_it_may(world);
    free_slots_are_given_to_startable_tasks(world);
    tasks_without_a_capable_worker_wait(world);
    nothing_is_overdue(world);
    counts_equal_the_number_of_tasks(world);
    pools_have_the_settings_of_their_last_change(world);
    the_retention_has_the_order_of_the_ends(world);
    memory_is_bounded(world);
    super::batches::check(world);
    super::schedules::check(world);
    super::dependencies::check(world);
    super::limits::check(world);
}

fn the_core_and_the_events_agree(world: &World) {
    assert_eq!(world.core.revision(), world.live.revision);
    for (id, task) in &world.live.tasks {
        assert_eq!(world.core.state(id), Some(task.state), "state of {id} in the core and in the events");
    }
    assert_eq!(world.core.recovery_counts().tasks, world.live.tasks.len());
}

fn every_acknowledged_task_exists(world: &World) {
    for (submission, id) in &world.accepted {
        let exists = world.live.tasks.get(id).is_some_and(|task| task.submission == *submission);
        assert!(exists || world.live.deleted.contains(submission), "{id} was accepted as {submission:?}");
    }
}

fn a_task_has_at_most_one_live_attempt(world: &World) {
    let mut ids = BTreeSet::new();
    for pool in &world.pools {
        let started = pool.claimed.iter().chain(&pool.running).map(|attempt| &attempt.id);
        for id in pool.assigned.iter().map(|assignment| &assignment.spec.id).chain(started) {
            assert!(ids.insert(id.clone()), "{id} has two attempts");
        }
    }
    for dispatch in &world.pending.dispatches {
        for assignment in &dispatch.assignments {
            assert!(ids.insert(assignment.spec.id.clone()), "{} has two attempts", assignment.spec.id);
        }
    }
}

fn used_slots_equal_live_attempts(world: &World) {
    for (index, pool) in world.pools.iter().enumerate() {
        assert_eq!(world.core.pools[index].running, pool.running.len() as u64, "attempts whose start was reported");
        let tickets = pool.claimed.iter().chain(&pool.running).map(|attempt| (&attempt.id, attempt.ticket));
        let assigned = pool.assigned.iter().map(|assignment| (&assignment.spec.id, assignment.ticket));
        for (id, ticket) in tickets.chain(assigned) {
            assert_eq!(world.core.ticket(id), Some(ticket), "the live attempt of {id}");
        }
    }
}

fn no_more_attempts_run_than_there_are_slots(world: &World) {
    for (index, pool) in world.pools.iter().enumerate() {
        // A pool that shrinks lets its attempts end, and so does a worker that connects with fewer slots.
        let used = if is_remote(index) {
            (0..WORKERS).map(|worker| pool.taken(worker)).max().unwrap_or_default()
        } else {
            pool.claimed.len() + pool.running.len()
        };
        assert!(used <= WORKER_SLOTS_MAX, "{used} slots are used");
    }
}

fn no_namespace_has_more_slots_than_it_may(world: &World) {
    let mut slots: BTreeMap<_, usize> = BTreeMap::new();
    for (ticket, spec) in &world.given {
        *slots.entry((ticket.pool, &spec.options.namespace)).or_default() += 1;
    }
    for ((pool, namespace), slots) in slots {
        let max = MAX_RUNNING[usize::from(pool)];
        assert!(max.is_none_or(|max| slots <= max), "{namespace} has {slots} slots in pool {pool}");
    }
}

/// QUEUED tasks of a queue that are not dispatched and whose namespace may have more slots in the pool.
fn startable(world: &World, pool: &PoolSpec, queue: &DispatchQueue, priority: Priority) -> usize {
    let own = || world.live.tasks.iter().filter(|(_, task)| task.spec.options.pool == pool.name);
    let mut slots: BTreeMap<_, usize> = BTreeMap::new();
    for (_, task) in own().filter(|(id, _)| world.core.ticket(id).is_some()) {
        *slots.entry(&task.spec.options.namespace).or_default() += 1;
    }
    let can_start = |id: &TaskId, task: &Known| {
        let is_full =
            pool.max_running_per_namespace.is_some_and(|max| slots.get(task.key().3).is_some_and(|n| *n >= max));
        let is_its = queue.handler.as_ref().is_none_or(|handler| task.key().1 == handler) && task.key().2 == priority;
        task.state == TaskState::Queued && world.core.ticket(id).is_none() && is_its && !is_full
    };
    own().filter(|(id, task)| can_start(id, task)).count()
}

/// As long as a pool is given fewer attempts than its window has room for, no task of it waits. A remote pool has a
/// window for each handler, which does not depend on those of the others.
fn free_slots_are_given_to_startable_tasks(world: &World) {
    let is_trial = world.core.quarantine.barrier.is_some() || !world.core.quarantine.suspects.is_empty();
    for pool in world.core.pools.iter().filter(|pool| !world.core.starts_nothing(pool) && !is_trial) {
        for (index, queue) in pool.queues.iter().enumerate() {
            let (mut ahead, window) = (0, pool.window(index));
            for priority in Priority::DESCENDING {
                ahead += queue.assigned[priority.index()];
                let waiting = startable(world, &pool.spec, queue, priority);
                let name = (&pool.spec.name, &queue.handler);
                assert!(waiting == 0 || ahead >= window, "{waiting} tasks of {name:?} wait for nothing");
                let told = queue.held_back[priority.index()];
                assert_eq!(told, waiting > 0, "whether {priority:?} of {name:?} is held back");
            }
        }
    }
}

/// The tasks of a remote pool that no connected worker can run are counted, and are given to no worker.
fn tasks_without_a_capable_worker_wait(world: &World) {
    for (index, pool) in world.pools.iter().enumerate().filter(|(index, _)| is_remote(*index)) {
        let has_worker = |task: &Known| pool.workers.iter().any(|worker| worker.offers(&task.spec.options));
        let is_its = |task: &Known| task.spec.options.pool == pool_name(index) && task.state == TaskState::Queued;
        let waiting = world.live.tasks.values().filter(|task| is_its(task) && !has_worker(task));
        assert_eq!(world.core.pools[index].without_worker(), waiting.count() as u64, "tasks without a worker");
    }
}

fn nothing_is_overdue(world: &World) {
    for (id, task) in &world.live.tasks {
        let waits_until = task.waits_until(world.live.start);
        let is_due = |task| waits_until <= world.at() && !world.waits_for_parents(task) && !task.is_held;
        assert!(task.state != TaskState::Waiting || !is_due(task), "{id} waits until {waits_until}");
        // An attempt that may have been started is not expired.
        let has_attempt = world.core.ticket(id).is_some();
        let expires_at = task.expires_at(world.live.start).filter(|_| !task.state.is_terminal() && !has_attempt);
        assert!(expires_at.is_none_or(|at| at > world.at()), "{id} expires at {expires_at:?}");
    }
}

fn counts_equal_the_number_of_tasks(world: &World) {
    for (pool, name) in world.core.pools.iter().zip(POOLS) {
        let name = PoolName::parse(name).unwrap();
        let own = || world.live.tasks.values().filter(|task| task.spec.options.pool == name);
        let states = [TaskState::Waiting, TaskState::Queued, TaskState::Running];
        let counts = states.map(|state| own().filter(|task| task.state == state).count() as u64);
        assert_eq!([pool.waiting, pool.queued, pool.running], counts, "numbers of tasks of {name}");
    }
}

fn pools_have_the_settings_of_their_last_change(world: &World) {
    for (index, (view, pool)) in world.core.pool_views().iter().zip(&world.pools).enumerate() {
        let set = world.live.pools.get(&view.spec.name).copied();
        let expected = set.unwrap_or(PoolSettings { size: 2, ..PoolSettings::of(&view.spec) });
        let size = if view.spec.has_fixed_size() { expected.size } else { 0 };
        assert_eq!(PoolSettings::of(&view.spec), PoolSettings { size, ..expected });
        // That of others is no setting.
        let size = if is_remote(index) { pool.slots().0 } else { pool.size(index) };
        assert!(view.spec.has_fixed_size() || view.spec.size == size);
    }
}

fn the_retention_has_the_order_of_the_ends(world: &World) {
    let in_core = super::answers::finished(&world.core);
    let in_core: BTreeMap<_, Vec<_>> =
        in_core.iter().map(|(namespace, ids)| (namespace, ids.iter().collect())).collect();
    assert_eq!(in_core, world.live.finished());
}

fn memory_is_bounded(world: &World) {
    assert!(world.core.payload_bytes <= PAYLOAD_BYTES_MAX, "{} bytes of payloads", world.core.payload_bytes);
    let attached = world.core.attached_in_memory() - world.limits.restored_bytes(&world.core);
    assert!(attached <= ATTACHED_BYTES_MAX, "{attached} bytes of batches, arguments and the like");
}
