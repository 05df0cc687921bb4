//! Remote workers: they connect, disconnect and are lost, and their attempts outlive a server.

use std::collections::BTreeMap;

use crate::model::TaskState;
use crate::pool::Ticket;
use crate::runners::Outcome;

use super::super::tests::attempt_end;
use super::super::{Adoption, Decisions};
use super::cores::{handler_name, is_remote, pool_name};
use super::pools::{Attempt, Worker};
use super::world::World;

impl World {
    pub fn connect(&mut self, pool: usize, worker: usize, handlers: &[u8], slots: usize, keeps: bool) {
        let handlers = handlers.iter().map(|number| handler_name(*number)).collect();
        // The pool uses the slots before the core has heard of them.
        self.pools[pool].workers[worker] = Worker { handlers, slots, is_connected: true };
        self.report_slots(pool);
        if !keeps {
            self.lose_attempts(pool, worker);
        }
    }

    pub fn disconnect(&mut self, pool: usize, worker: usize) {
        self.pools[pool].workers[worker].is_connected = false;
        self.report_slots(pool);
    }

    pub fn lose_worker(&mut self, pool: usize, worker: usize) {
        self.disconnect(pool, worker);
        self.lose_attempts(pool, worker);
    }

    fn report_slots(&mut self, pool: usize) {
        let (total, slots) = self.pools[pool].slots();
        self.core.set_slots(u16::try_from(pool).unwrap(), total, &slots);
    }

    /// The worker does not have the attempts any more that it was sent.
    fn lose_attempts(&mut self, pool: usize, worker: usize) {
        while let Some(at) = self.pools[pool].claimed.iter().position(|attempt| attempt.worker == worker) {
            self.report_one(pool, at);
        }
        let is_lost = |attempt: &Attempt| attempt.worker == worker && (attempt.runs || attempt.never_arrived);
        while let Some(at) = self.pools[pool].running.iter().position(is_lost) {
            let attempt = self.pools[pool].running.remove(at);
            self.has_run(&attempt);
            self.core.ended(attempt_end(attempt.ticket, self.now, Outcome::WorkerLost, None), &mut self.out);
            self.unsettled.push(attempt);
        }
    }

    /// The attempts of remote workers go on, if their start is durable. `earlier` are all that the workers have, by fence;
    /// returns those that were not taken over.
    pub fn adopt(&mut self, mut earlier: BTreeMap<u64, Attempt>) -> Vec<Attempt> {
        self.running_remote_attempts_are_adopted();
        for Adoption { assignment, worker, .. } in std::mem::take(&mut self.out.adoptions) {
            let fence = assignment.ticket.fence;
            let attempt = earlier.remove(&fence).expect("a worker has been sent the attempt, or is about to be");
            let pool = usize::from(assignment.ticket.pool);
            assert_eq!(worker_name(pool, attempt.worker), *worker);
            assert_eq!((&attempt.id, attempt.submission), (&assignment.spec.id, assignment.submission));
            self.given.push((assignment.ticket, assignment.spec));
            let never_arrived = attempt.never_arrived || !attempt.runs;
            self.pools[pool].running.push(Attempt { ticket: assignment.ticket, never_arrived, ..attempt });
        }
        earlier.into_values().collect()
    }

    fn running_remote_attempts_are_adopted(&self) {
        let is_adopted =
            |task: &&super::history::Known| task.state == TaskState::Running && task.remote_start.is_some();
        let mut expected: Vec<_> =
            self.durable.tasks.values().filter(is_adopted).map(|task| task.remote_start.clone().unwrap()).collect();
        expected.sort_unstable();
        let adopted = &self.out.adoptions;
        let mut found: Vec<_> =
            adopted.iter().map(|adoption| (adoption.assignment.ticket.fence, adoption.worker.clone())).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "attempts of remote workers go on");
        for Adoption { assignment, started_at, .. } in adopted {
            let (ticket, id) = (assignment.ticket, &assignment.spec.id);
            let task = &self.durable.tasks[id];
            assert_eq!(self.core.ticket(id), Some(ticket), "the live attempt of {id}");
            assert_eq!((assignment.attempt, *started_at), (task.attempt, task.since));
            let is_stopped = self.out.stops.iter().any(|(stopped, ..)| *stopped == ticket);
            assert_eq!(is_stopped, task.is_cancelled, "an attempt that was asked to stop is asked again");
        }
    }
}

/// Whether attempts of this pool outlive the server.
pub fn outlives(ticket: Ticket) -> bool {
    is_remote(usize::from(ticket.pool))
}

/// What two cores that recovered from the same events have to agree upon.
pub fn adoptions(out: &Decisions) -> Vec<String> {
    let mut adoptions: Vec<_> = out.adoptions.iter().map(adoption).collect();
    adoptions.sort_unstable();
    adoptions
}

fn adoption(adoption: &Adoption) -> String {
    let Adoption { assignment, worker, started_at } = adoption;
    let (fence, spec, submission) = (assignment.ticket.fence, &assignment.spec.id, assignment.submission);
    format!("{fence:x} {spec} {submission:?} {} {worker} {started_at:?}", assignment.attempt)
}

pub fn worker_name(pool: usize, worker: usize) -> String {
    format!("{}/w{worker}", pool_name(pool))
}
