//! Dispatch: which attempts the pools are given, and in what order.

use crate::model::Priority;
use crate::pool::{Assignment, Ticket};

use super::decisions::{Decisions, Dispatch};
use super::state::Core;
use super::table::TaskTable;

impl Core {
    /// Dispatches eligible tasks to their pools, highest priority first. Call it after the commands.
    ///
    /// The window of a pool bounds, for each priority, the attempts of that priority *and higher*. So a full
    /// window of low-priority attempts never delays an urgent task.
    pub fn dispatch(&mut self, out: &mut Decisions) {
        if self.draining || self.dispatch_suspect(out) {
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
            let held_back = std::array::from_fn(|p| Priority::from_index(p).is_some_and(|p| pool.ready.len(p) > 0));
            if !assignments.is_empty() || held_back != pool.held_back {
                pool.held_back = held_back;
                let pool = u16::try_from(index).unwrap_or(u16::MAX);
                out.dispatches.push(Dispatch { pool, assignments, held_back });
            }
        }
    }

    fn assign_next(&mut self, pool: usize, priority: Priority) -> Option<Assignment> {
        let tasks = &self.tasks;
        let entry = self.pools[pool].ready.pop(priority, |entry| Self::is_live(tasks, entry))?;
        self.assign(entry.index)
    }

    /// Begins an attempt of a task that has left the ready queue.
    pub(super) fn assign(&mut self, index: u32) -> Option<Assignment> {
        let is_careful = self.confirms_starts();
        let task = self.tasks.get_mut(index)?;
        self.fence += 1;
        task.fence = self.fence;
        task.assigned = true;
        let ticket = Ticket { index, pool: task.pool, fence: self.fence };
        let assignment = Assignment {
            ticket,
            spec: task.spec.clone(),
            attempt: task.attempt + 1,
            eligible_at: task.eligible_at,
            confirm: is_careful || task.spec.options.at_most_once,
            payload_stored: task.payload_stored,
        };
        let priority = task.spec.options.priority.index();
        let pool = &mut self.pools[usize::from(ticket.pool)];
        pool.assigned[priority] += 1;
        pool.assigned_order[priority].push_back(ticket);
        if is_careful {
            self.note_confirmation(ticket);
        }
        Some(assignment)
    }

    /// Records that a dispatched attempt has started or will not start.
    pub(super) fn unassign(&mut self, index: u32) {
        let Some(task) = self.tasks.get_mut(index).filter(|task| task.assigned) else { return };
        task.assigned = false;
        let (priority, pool) = (task.spec.options.priority, usize::from(task.pool));
        self.pools[pool].assigned[priority.index()] -= 1;
        self.oldest_assigned(pool, priority);
    }

    /// The first dispatched attempt of this priority that has not started. Removes stale entries before it.
    pub(super) fn oldest_assigned(&mut self, pool: usize, priority: Priority) -> Option<Ticket> {
        let order = &mut self.pools[pool].assigned_order[priority.index()];
        while let Some(ticket) = order.front() {
            if is_assigned(&self.tasks, *ticket) {
                return Some(*ticket);
            }
            order.pop_front();
        }
        None
    }
}

fn is_assigned(tasks: &TaskTable, ticket: Ticket) -> bool {
    tasks.get(ticket.index).is_some_and(|task| task.fence == ticket.fence && task.assigned)
}
