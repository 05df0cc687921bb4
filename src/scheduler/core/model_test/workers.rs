//! The work of the pools: attempts start, end and are taken back.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, Captured, HandlerName, Namespace, Output, Payload, StopMethod, TaskId, TaskSpec, TaskState, Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::{Outcome, StopCause};

use super::super::AttemptEnd;
use super::super::tests::{attempt_end, failed, request};
use super::cores::{MAX_RUNNING, is_remote};
use super::history::{Cause, History, Known};
use super::pools::Attempt;
use super::remote::{outlives, worker_name};
use super::world::World;

impl World {
    /// Whether the namespace has as many attempts in the pool as it may have.
    fn has_all_slots(&self, pool: usize, namespace: &Namespace) -> bool {
        let is_its = |(ticket, spec): &&(Ticket, Arc<TaskSpec>)| {
            usize::from(ticket.pool) == pool && spec.options.namespace == *namespace
        };
        MAX_RUNNING[pool].is_some_and(|max| self.given.iter().filter(is_its).count() >= max)
    }

    /// A free worker takes the most urgent attempt of those that it can run, unless the scheduler holds back a more urgent
    /// one. All workers of a pool that is not remote are the same.
    pub fn claim(&mut self, pool: usize, worker: usize) -> bool {
        let Some(at) = self.next_attempt(pool, worker) else { return false };
        nothing_more_urgent_waits(self, &self.pools[pool].assigned[at], worker);
        the_payload_is_that_of_the_submission(&self.durable, &self.pools[pool].assigned[at]);
        let Assignment { ticket, spec, submission, confirm, .. } = self.pools[pool].assigned.remove(at);
        let (id, once) = (spec.id.clone(), spec.options.at_most_once);
        assert!(confirm || !once, "a task that may not start twice begins after its start is durable");
        let attempt = Attempt { ticket, id, submission, worker, runs: !confirm, once, never_arrived: false };
        self.pools[pool].claimed.push(attempt);
        true
    }

    fn next_attempt(&self, index: usize, worker: usize) -> Option<usize> {
        let pool = &self.pools[index];
        let lacks_memory = self.core.memory_is_low() && !is_remote(index);
        let is_paused = lacks_memory || pool.settings.is_some_and(|settings| settings.paused);
        let (used, size) = if is_remote(index) {
            (pool.taken(worker), pool.workers[worker].slots)
        } else {
            (pool.claimed.len() + pool.running.len(), pool.size(index))
        };
        if is_paused || used >= size {
            return None;
        }
        let worker = &pool.workers[worker];
        let can_run = |assignment: &Assignment| !is_remote(index) || worker.offers(&assignment.spec.options);
        let urgency = |a: &Assignment| (a.urgency, std::cmp::Reverse(a.ticket.fence));
        let possible = (0..pool.assigned.len()).filter(|at| can_run(&pool.assigned[*at]));
        let first = possible.max_by_key(|at| urgency(&pool.assigned[*at]))?;
        let above = pool.assigned[first].urgency.index() + 1;
        let concerns =
            |handler: &Option<HandlerName>| handler.as_ref().is_none_or(|name| worker.handlers.contains(name));
        let held_back = pool.held_back.iter().any(|(handler, held)| concerns(handler) && held[above..].contains(&true));
        (!held_back).then_some(first)
    }

    /// Reports a start; the latest if there are not so many.
    pub fn report(&mut self, pick: usize) {
        let claimed: usize = self.pools.iter().map(|pool| pool.claimed.len()).sum();
        if claimed == 0 {
            return;
        }
        let mut pick = if pick == usize::MAX { claimed - 1 } else { pick % claimed };
        for pool in 0..self.pools.len() {
            let claimed = self.pools[pool].claimed.len();
            if pick < claimed {
                return self.report_one(pool, pick);
            }
            pick -= claimed;
        }
    }

    pub fn report_one(&mut self, pool: usize, at: usize) {
        let attempt = self.pools[pool].claimed.remove(at);
        let worker = if is_remote(pool) { worker_name(pool, attempt.worker) } else { "w".to_owned() };
        self.core.started(attempt.ticket, Timestamp(self.now), worker.into(), &mut self.out);
        self.pools[pool].running.push(attempt);
    }

    /// Every fourth attempt has a large result and output.
    pub fn end(&mut self, pick: usize, how: u8) {
        let bytes = if pick % 4 == 3 { 100 + pick % 500 } else { pick % 7 };
        let running: usize = self.pools.iter().map(|pool| pool.running.len()).sum();
        let mut pick = pick % running.max(1);
        let Some(pool) = self.pools.iter_mut().find(|pool| {
            let found = pick < pool.running.len();
            pick -= if found { 0 } else { pool.running.len() };
            found
        }) else {
            return;
        };
        let is_remote = outlives(pool.running[pick].ticket);
        if is_remote && !pool.running[pick].runs && !pool.running[pick].never_arrived {
            // Its start is not durable, and nobody asks it to stop.
            return;
        }
        let attempt = pool.running.remove(pick);
        let (outcome, cause) = match how {
            7.. if is_remote => (Outcome::WorkerLost, None),
            _ if attempt.never_arrived => (Outcome::WorkerLost, None),
            _ if !attempt.runs => (Outcome::Stopped(StopMethod::NeverStarted), Some(StopCause::Drain)),
            0..=2 => (Outcome::Completed(Payload { data: vec![1; bytes].into(), ..Payload::default() }), None),
            3 | 4 => (failed(), None),
            5 => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Timeout)),
            // A worker that has run it has reported that to the server before, and does not say now that nothing has run.
            6 if !self.ran.contains_key(&attempt.submission) => (Outcome::Unavailable("no memory".into()), None),
            _ => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain)),
        };
        if !matches!(outcome, Outcome::Unavailable(_)) {
            self.has_run(&attempt);
        }
        let stdout = Captured { head: vec![2; bytes].into(), ..Captured::default() };
        let output = (bytes > 3).then(|| Box::new(Output { stdout, ..Output::default() }));
        let end = AttemptEnd { output, ..attempt_end(attempt.ticket, self.now, outcome, cause) };
        self.core.ended(end, &mut self.out);
        let events = self.out.events.len();
        let repeated = attempt_end(attempt.ticket, self.now, Outcome::Completed(Payload::default()), None);
        self.core.ended(repeated, &mut self.out);
        assert_eq!(self.out.events.len(), events, "a second report of an attempt changes nothing");
        if is_remote {
            self.unsettled.push(attempt);
        }
    }

    pub fn has_run(&mut self, attempt: &Attempt) {
        if attempt.once && attempt.runs {
            // A worker can report the end of an attempt to two servers.
            let first = *self.ran.entry(attempt.submission).or_insert(attempt.ticket.fence);
            assert_eq!(first, attempt.ticket.fence, "{} runs at most once", attempt.id);
        }
    }

    pub fn cancel(&mut self, pick: usize, force: bool) {
        let Some(id) = self.live.tasks.keys().nth(pick % self.live.tasks.len().max(1)).cloned() else { return };
        let mut request = request(self.now);
        if force {
            (request.mode, request.grace) = (CancelMode::Force, Duration::ZERO);
        }
        let before = self.live.tasks[&id].state;
        match self.core.cancel(&id, request, &mut self.out) {
            Ok(_) => {
                self.answer_recalls();
                self.observe(&Cause::Input);
                let task = &self.live.tasks[&id];
                assert!(task.state == TaskState::Cancelled || task.is_cancelled, "an accepted cancel is an event");
            }
            Err(_) => assert!(matches!(before, TaskState::Completed | TaskState::Failed), "{id} is {before:?}"),
        }
    }

    /// Whether a worker has taken an attempt of the task and not reported its start.
    pub fn is_claimed(&self, id: &TaskId) -> bool {
        self.pools.iter().any(|pool| pool.claimed.iter().any(|attempt| attempt.id == *id))
    }

    pub fn answer_recalls(&mut self) {
        while let Some(ticket) = self.out.recalls.pop() {
            let in_pool = self.pools.iter_mut().map(|pool| &mut pool.assigned);
            let prepared = self.pending.dispatches.iter_mut().map(|dispatch| &mut dispatch.assignments);
            let mut won = false;
            for assignments in in_pool.chain(prepared) {
                let before = assignments.len();
                assignments.retain(|assignment| assignment.ticket != ticket);
                won |= assignments.len() < before;
            }
            self.core.recalled(self.at(), ticket, won, &mut self.out);
        }
    }
}

/// No attempt starts while its worker could run a task of higher priority of the same pool. Exempt is a task on its last
/// try, for which all others wait; until it has started, those of its pool that were dispatched before may start.
fn nothing_more_urgent_waits(world: &World, assignment: &Assignment, worker: usize) {
    let pool = usize::from(assignment.ticket.pool);
    if world.core.is_on_trial(assignment.ticket) || world.unstarted_trial == Some(pool) {
        return;
    }
    let options = &assignment.spec.options;
    for (id, task) in &world.durable.tasks {
        // Not only the durable state: it may have started or ended since then.
        let is_same = |now: &Known| now.state == TaskState::Queued && now.place == task.place;
        let is_queued = task.state == TaskState::Queued && world.live.tasks.get(id).is_some_and(is_same);
        let more_urgent = task.spec.options.pool == options.pool && task.spec.options.priority > assignment.urgency;
        let can_run = !is_remote(pool) || world.pools[pool].workers[worker].offers(&task.spec.options);
        let may_wait = !can_run || world.is_claimed(id) || world.has_all_slots(pool, &task.spec.options.namespace);
        assert!(!(is_queued && more_urgent) || may_wait, "{id} waits while {} starts", assignment.spec.id);
    }
}

fn the_payload_is_that_of_the_submission(durable: &History, assignment: &Assignment) {
    let task = &durable.tasks[&assignment.spec.id];
    assert_eq!(assignment.submission, task.submission, "the submission identifies the stored payload");
    if !assignment.payload_stored {
        assert_eq!(assignment.spec.payload, task.spec.payload, "the payload that runs is the one submitted");
    }
    assert_eq!(assignment.spec.extras().args, task.spec.extras().args);
}
