//! The pools around the core: what they were given and what runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Autoscale, HandlerName, PoolSettings, Priority, Revision, TaskId, TaskOptions, TaskState};
use crate::pool::{Assignment, Ticket};

use super::super::Core;
use super::cores::AUTOSCALE;
use super::history::{History, Known};
use super::steps::WORKERS;

/// A pool as its durable settings and the released dispatches made it.
#[derive(Default)]
pub struct Pool {
    pub settings: Option<PoolSettings>,
    /// What the load of a pool that autoscales has needed last.
    pub scaled_to: Option<usize>,
    /// By handler, and by priority index. In a pool with workers of its own the handler is `None`.
    pub held_back: BTreeMap<Option<HandlerName>, [bool; Priority::COUNT]>,
    /// Not started.
    pub assigned: Vec<Assignment>,
    /// Started; not reported.
    pub claimed: Vec<Attempt>,
    /// Reported.
    pub running: Vec<Attempt>,
    /// Of a remote pool.
    pub workers: [Worker; WORKERS],
}

/// A remote worker.
#[derive(Default)]
pub struct Worker {
    pub handlers: BTreeSet<HandlerName>,
    pub slots: usize,
    pub is_connected: bool,
}

pub struct Attempt {
    pub ticket: Ticket,
    pub id: TaskId,
    pub submission: Revision,
    /// In a remote pool.
    pub worker: usize,
    /// The handler runs, because the attempt needs no confirmation or has it.
    pub runs: bool,
    pub once: bool,
    /// An earlier server ended before it could send the attempt to its worker.
    pub never_arrived: bool,
}

impl Worker {
    pub fn offers(&self, options: &TaskOptions) -> bool {
        self.is_connected && self.handlers.contains(&options.handler)
    }
}

impl Pool {
    /// Workers of this pool, which is not a remote one.
    pub fn size(&self, index: usize) -> usize {
        match AUTOSCALE[index] {
            Some(Autoscale { min, .. }) => self.scaled_to.unwrap_or(min),
            None => self.settings.map_or(2, |settings| settings.size),
        }
    }

    /// Slots of the connected workers: all, and those of each handler that has some.
    pub fn slots(&self) -> (usize, Vec<(HandlerName, usize)>) {
        let mut by_handler: BTreeMap<HandlerName, usize> = BTreeMap::new();
        let connected = || self.workers.iter().filter(|worker| worker.is_connected);
        for worker in connected() {
            for handler in &worker.handlers {
                *by_handler.entry(handler.clone()).or_default() += worker.slots;
            }
        }
        (connected().map(|worker| worker.slots).sum(), by_handler.into_iter().collect())
    }

    /// Attempts that have a slot of a remote worker.
    pub fn taken(&self, worker: usize) -> usize {
        self.claimed.iter().chain(&self.running).filter(|attempt| attempt.worker == worker).count()
    }
}

/// A namespace that may not have more slots of a pool has given them to its most urgent tasks.
pub fn no_slot_of_a_namespace_goes_to_a_lower_priority(live: &History, core: &Core, assignment: &Assignment) {
    let options = &assignment.spec.options;
    if core.is_on_trial(assignment.ticket) || assignment.urgency != options.priority {
        return;
    }
    let pool = &core.pools[usize::from(assignment.ticket.pool)];
    let is_its = |task: &Known| {
        let other = &task.spec.options;
        other.pool == options.pool && other.namespace == options.namespace && other.priority > options.priority
    };
    let queued = live.tasks.iter().filter(|(_, other)| other.state == TaskState::Queued && is_its(other));
    for (id, other) in queued.filter(|(id, _)| core.ticket(id).is_none()) {
        let handler = pool.is_remote().then_some(&other.spec.options.handler);
        let queue = pool.queues.iter().position(|queue| queue.handler.as_ref() == handler).expect("its queue");
        let has_room = pool.has_room(queue, other.spec.options.priority);
        assert!(!has_room, "{id} waits and {} is dispatched", assignment.spec.id);
    }
}

/// Inside a key no task overtakes an older one. Exempt is one on its last try, which goes before all others.
pub fn assignments_of_a_key_are_in_order(live: &History, core: &Core, assignment: &Assignment) {
    let task = &live.tasks[&assignment.spec.id];
    if core.is_on_trial(assignment.ticket) {
        return;
    }
    let queued = live.tasks.iter().filter(|(id, other)| other.state == TaskState::Queued && core.ticket(id).is_none());
    for (id, other) in queued.filter(|(_, other)| other.key() == task.key()) {
        assert!(other.place > task.place, "{id} waits longer than {}", assignment.spec.id);
    }
}
