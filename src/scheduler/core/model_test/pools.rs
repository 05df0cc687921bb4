//! The pools around the core: what they were given and what runs.

use crate::model::{PoolSettings, Priority, Revision, TaskId, TaskState};
use crate::pool::{Assignment, Ticket};

use super::super::Core;
use super::history::History;

/// A pool as its durable settings and the released dispatches made it.
#[derive(Default)]
pub struct Pool {
    pub settings: Option<PoolSettings>,
    pub held_back: [bool; Priority::COUNT],
    /// Not started.
    pub assigned: Vec<Assignment>,
    /// Started; not reported.
    pub claimed: Vec<Attempt>,
    /// Reported.
    pub running: Vec<Attempt>,
}

pub struct Attempt {
    pub ticket: Ticket,
    pub id: TaskId,
    pub submission: Revision,
    /// The handler runs, because the attempt needs no confirmation or has it.
    pub runs: bool,
    pub once: bool,
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
