//! Pools whose slots are those of remote workers.

use crate::model::{HandlerName, TaskState};
use crate::pool::{Assignment, Ticket};

use super::decisions::{Adoption, Decisions};
use super::state::Core;

impl Core {
    /// Takes note of the workers that are connected to a remote pool: their slots, and for each handler in `slots` those of
    /// the workers that offer it. Tasks of a handler without slots are not dispatched and hold back no others.
    pub fn set_slots(&mut self, pool: u16, total: usize, slots: &[(HandlerName, usize)]) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool)).filter(|pool| pool.is_remote()) {
            pool.set_slots(total, slots);
        }
    }

    /// Keeps the attempts that remote workers ran when the previous server ended: their workers may connect again. Those of a
    /// pool that is not a remote one any more are left to be interrupted.
    pub(super) fn adopt_remote_attempts(&mut self, out: &mut Decisions) {
        let mut workers = std::mem::take(&mut self.remote_workers);
        let held = self.tasks.iter().filter(|(_, task)| task.state == TaskState::Running && task.has_attempt);
        let held: Vec<u32> = held.map(|(index, _)| index).collect();
        for index in held {
            let Some(task) = self.tasks.get_mut(index) else { continue };
            let pool = &mut self.pools[usize::from(task.pool)];
            let worker = workers.remove(&task.stamp).filter(|_| pool.is_remote() && pool.configured);
            let Some(worker) = worker else {
                task.has_attempt = false;
                pool.return_slot(index, &task.spec.options, None);
                continue;
            };
            let ticket = Ticket { index, pool: task.pool, fence: task.stamp };
            let assignment = Assignment {
                ticket,
                spec: task.spec.clone(),
                submission: task.submission,
                attempt: task.attempt.into(),
                eligible_at: task.since,
                confirm: false,
                payload_stored: task.payload_stored,
                urgency: task.spec.options.priority,
            };
            if let Some(request) = &task.cancel {
                let cause = request.mode.into();
                out.stops.push((ticket, cause, request.grace));
            }
            out.adoptions.push(Adoption { assignment, worker, started_at: task.since });
        }
    }
}
