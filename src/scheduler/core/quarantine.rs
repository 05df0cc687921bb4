//! Finding the task that crashes the server.
//!
//! All tasks that were running at a crash are suspects, also those that had nothing to do with it. So a task fails
//! only after a crash while it ran alone:
//!
//! - After a crash each attempt begins only when its start is durable, for [`CAREFUL_TIME`]. Otherwise a task that
//!   crashes the server within a millisecond would not be among those that were running.
//! - A task that has one more crash before the limit is on its last try. Such tasks start one by one, before all
//!   others, and nothing else starts until the task has ended or has run for [`TRIAL_TIME`]. The time doubles with
//!   each further crash.
//! - The task that started last is the most suspicious one and is first after the next crash, so that nothing else
//!   is running then.

use std::cmp::Reverse;
use std::time::Duration;

use crate::model::{Priority, TaskState, Timestamp};
use crate::pool::Ticket;

use super::decision_log::DecisionReason;
use super::decisions::{Decisions, Dispatch};
use super::state::Core;
use super::suspects::{Quarantine, Suspect, is_live};
use super::table::TaskEntry;

/// How long all starts are confirmed after a crash, and after a task on its last try has started.
const CAREFUL_TIME: Duration = Duration::from_secs(10);
/// How long a task on its last try runs alone.
const TRIAL_TIME: Duration = Duration::from_secs(10);
/// The trial time doubles at most this often.
const DOUBLINGS_MAX: u32 = 10;

impl Core {
    /// Confirms starts from now on, since the previous server crashed.
    pub fn be_careful(&mut self, now: Timestamp) {
        self.quarantine.careful_until = self.quarantine.careful_until.max(now.after(CAREFUL_TIME));
    }

    /// Whether a task that was running at `crashes` consecutive crashes fails at the next one.
    pub(super) fn is_on_last_try(&self, crashes: u16) -> bool {
        // One crash is never enough: the task was not alone, or it is not known whether it was.
        crashes >= 1 && u32::from(crashes) + 1 >= self.options.crashes_max
    }

    /// Orders the tasks that are on their last try, after recovery has requeued them. `culprit_found` ends the
    /// suspicion against all tasks.
    pub(super) fn quarantine_suspects(&mut self, culprit_found: bool) {
        let starts = std::mem::take(&mut self.quarantine.starts);
        // What runs in another program does not crash the server.
        let is_local = |task: &TaskEntry| !self.pools[usize::from(task.pool)].is_remote();
        let is_suspected = |task: &TaskEntry| task.crashes > 0 && !task.state.is_terminal() && is_local(task);
        let suspected = self.tasks.iter().filter(|(_, task)| is_suspected(task));
        let suspected: Vec<u32> = suspected.map(|(index, _)| index).collect();
        let mut suspects = Vec::new();
        for index in suspected {
            let Some(task) = self.tasks.get_mut(index) else { continue };
            if culprit_found {
                task.crashes = 0;
                continue;
            }
            let (suspect, crashes) = (Suspect { index, submission: task.submission }, task.crashes);
            if self.is_on_last_try(crashes) {
                suspects.push((Reverse(starts.get(&index).copied()), suspect.submission, suspect));
            }
        }
        suspects.sort_unstable_by_key(|(start, submission, _)| (*start, *submission));
        self.quarantine.suspects = suspects.into_iter().map(|(.., suspect)| suspect).collect();
    }

    /// Whether the start of an attempt that is dispatched now has to be durable before its handler runs.
    pub(super) fn confirms_starts(&self) -> bool {
        self.now < self.quarantine.careful_until || !self.quarantine.trials.is_empty()
    }

    /// Records a dispatched attempt whose start has to be confirmed.
    pub(super) fn note_confirmation(&mut self, ticket: Ticket) {
        self.quarantine.confirmed_to = ticket.fence;
    }

    /// Dispatches the next task on its last try, if there is one and its turn has come. Returns whether nothing else
    /// may be dispatched.
    pub(super) fn dispatch_suspect(&mut self, out: &mut Decisions) -> bool {
        let Quarantine { suspects, trials, barrier, .. } = &mut self.quarantine;
        if suspects.is_empty() && trials.is_empty() {
            return false;
        }
        trials.retain(|ticket| is_live(&self.tasks, *ticket));
        *barrier = barrier.filter(|(ticket, until)| self.now < *until && is_live(&self.tasks, *ticket));
        if barrier.is_some() {
            return true;
        }
        suspects.retain(|suspect| suspect.is_pending(&self.tasks));
        let may_start = |suspect: &Suspect| {
            self.tasks.get(suspect.index).is_some_and(|task| {
                let pool = &self.pools[usize::from(task.pool)];
                let options = &task.spec.options;
                let is_held = pool.spec.paused || self.memory_low || pool.queues.is_full(&options.namespace);
                task.state == TaskState::Queued && !is_held
            })
        };
        let Some(next) = suspects.iter().position(may_start).and_then(|at| suspects.remove(at)) else { return false };
        self.start_trial(next.index, out);
        true
    }

    /// The pool of a task on its last try that is dispatched and has not started. Nothing there may hold it back.
    pub(super) fn pool_of_unstarted_trial(&self) -> Option<usize> {
        let (ticket, _) = self.quarantine.barrier?;
        let task = self.tasks.get(ticket.index).filter(|task| task.is_dispatched() && task.stamp == ticket.fence);
        task.map(|task| usize::from(task.pool))
    }

    fn start_trial(&mut self, index: u32, out: &mut Decisions) {
        let Some(crashes) = self.tasks.get(index).map(|task| u32::from(task.crashes)) else { return };
        let doublings = (crashes + 1).saturating_sub(self.options.crashes_max).min(DOUBLINGS_MAX);
        let until = self.now.after(TRIAL_TIME * (1 << doublings));
        self.be_careful(until);
        let Some(assignment) = self.assign(index, DecisionReason::Trial, None) else { return };
        // It has an ordinary place in the ready queue.
        self.leave_ready_queue(index);
        let ticket = assignment.ticket;
        self.quarantine.trials.push(ticket);
        self.quarantine.barrier = Some((ticket, until));
        // More urgent tasks wait for the trial.
        let held_back = [false; Priority::COUNT];
        let queue = self.pools[usize::from(ticket.pool)].queue_for(&assignment.spec.options.handler);
        queue.held_back = held_back;
        let handler = queue.handler.clone();
        out.dispatches.push(Dispatch { pool: ticket.pool, handler, assignments: vec![assignment], held_back });
    }

    /// Whether this attempt is the last try of its task, for which more urgent tasks wait.
    #[cfg(test)]
    pub fn is_on_trial(&self, ticket: Ticket) -> bool {
        self.quarantine.trials.contains(&ticket)
    }
}
