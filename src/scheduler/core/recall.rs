//! Ending tasks from outside, by cancel and expiry, and taking dispatched attempts back.
//!
//! A pool may have started a dispatched attempt without having reported it yet. So the core first asks the pool for
//! the attempt (`Decisions::recalls`), and decides in [`Core::recalled`], which has the pool's answer. Meanwhile the
//! task changes as if no recall were under way.

use std::time::Duration;

use hashbrown::hash_map::Entry;

use crate::model::{
    CancelReceipt, CancelRequest, Failure, FailureReason, StopMethod, TaskChange, TaskId, TaskState, Timestamp,
};
use crate::pool::Ticket;
use crate::scheduler::refusal::{Refusal, TaskFinished, TaskNotFound};

use super::decisions::Decisions;
use super::state::{Core, Recall, RecallReason};
use super::table::TaskEntry;

impl Core {
    /// Cancels a task and returns its new state: RUNNING if its attempt has to be stopped first, `None` if a recall
    /// decides. Cancelling a CANCELLED task again is not an error.
    ///
    /// # Errors
    /// [`TaskNotFound`], [`TaskFinished`].
    pub fn cancel(
        &mut self,
        id: &TaskId,
        request: CancelRequest,
        out: &mut Decisions,
    ) -> Result<Option<TaskState>, Refusal> {
        let not_found = || Refusal::from(TaskNotFound { task: id.clone() });
        let index = self.tasks.find(id).ok_or_else(not_found)?;
        match self.tasks.get(index).ok_or_else(not_found)?.state {
            TaskState::Cancelled => Ok(Some(TaskState::Cancelled)),
            state @ (TaskState::Completed | TaskState::Failed) => Err(TaskFinished { task: id.clone(), state }.into()),
            _ => Ok(self.cancel_unfinished(index, request, out)),
        }
    }

    /// Cancels a task that has not ended. Returns what [`Core::cancel`] does.
    pub(super) fn cancel_unfinished(
        &mut self,
        index: u32,
        mut request: CancelRequest,
        out: &mut Decisions,
    ) -> Option<TaskState> {
        request.requested_at = self.not_before_last_change(index, request.requested_at);
        match self.tasks.get(index)?.state {
            TaskState::Running => Some(self.request_stop(index, request, out)),
            TaskState::Queued if self.ticket_of(index).is_some() => {
                self.recall(index, RecallReason::Cancel(Box::new(request)), out);
                None
            }
            _ => {
                let at = request.requested_at;
                self.end_cancelled(at, index, request, out);
                Some(TaskState::Cancelled)
            }
        }
    }

    /// Cancels a WAITING or QUEUED task, unless the pool has started its attempt.
    pub(super) fn cancel_unless_started(&mut self, index: u32, request: CancelRequest, out: &mut Decisions) {
        if self.ticket_of(index).is_some() {
            self.recall(index, RecallReason::Replace(Box::new(request)), out);
        } else {
            self.end_cancelled(request.requested_at, index, request, out);
        }
    }

    /// Asks the pool for a dispatched attempt.
    pub(super) fn recall(&mut self, index: u32, reason: RecallReason, out: &mut Decisions) {
        let (Some(ticket), Some(task)) = (self.ticket_of(index), self.tasks.get(index)) else { return };
        let recall = Recall { submission: task.submission, reason };
        match self.recalls.entry(ticket.fence) {
            Entry::Vacant(entry) => {
                entry.insert(recall);
                out.recalls.push(ticket);
            }
            // A cancel also decides about a task that expires.
            Entry::Occupied(mut entry) if matches!(recall.reason, RecallReason::Cancel(_)) => {
                entry.insert(recall);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The pool's answer to a recall. If `won`, the attempt never starts and is never reported.
    pub fn recalled(&mut self, now: Timestamp, ticket: Ticket, won: bool, out: &mut Decisions) {
        let Some(Recall { submission, reason }) = self.recalls.remove(&ticket.fence) else { return };
        let index = ticket.index;
        let unfinished = |task: &TaskEntry| task.submission == submission && !task.state.is_terminal();
        if !self.tasks.get(index).is_some_and(unfinished) {
            return;
        }
        let is_current = self.ticket_of(index) == Some(ticket);
        match reason {
            RecallReason::Cancel(request) | RecallReason::Replace(request) if won => {
                self.end_cancelled(now, index, *request, out);
            }
            RecallReason::Cancel(request) if is_current => {
                self.request_stop(index, *request, out);
            }
            // The attempt has ended meanwhile, and the task has not.
            RecallReason::Cancel(request) => {
                self.cancel_unfinished(index, *request, out);
            }
            RecallReason::Expiry if won => self.end_expired(now, index, out),
            RecallReason::Update(changed) if won && is_current => self.emit_updated(now, index, *changed, out),
            RecallReason::Expiry | RecallReason::Replace(_) | RecallReason::Update(_) => {}
        }
    }

    /// Asks the live attempt to stop. A repeated cancel has an effect only if it is stronger or allows less time.
    fn request_stop(&mut self, index: u32, request: CancelRequest, out: &mut Decisions) -> TaskState {
        if let (Some(task), Some(ticket)) = (self.tasks.get(index), self.ticket_of(index))
            && task.cancel.as_ref().is_none_or(|earlier| request.stops_before(earlier))
        {
            let (at, state) = (request.requested_at, task.state);
            let cause = request.mode.into();
            out.stops.push((ticket, cause, request.grace));
            self.emit(at, index, state, None, TaskChange::CancelRequested { request: Box::new(request) }, out);
        }
        // The start may not be reported yet; to the caller the task is running.
        TaskState::Running
    }

    fn end_cancelled(&mut self, at: Timestamp, index: u32, request: CancelRequest, out: &mut Decisions) {
        let at = at.max(request.requested_at);
        let receipt = Box::new(CancelReceipt { request, stopped_at: at, method: StopMethod::NeverStarted });
        let change = TaskChange::Cancelled { receipt, usage: None, output: None };
        self.emit(at, index, TaskState::Cancelled, None, change, out);
    }

    /// Ends a task that has not started in time.
    pub(super) fn expire(&mut self, now: Timestamp, index: u32, out: &mut Decisions) {
        self.disarm_expiry(index);
        if self.ticket_of(index).is_some() {
            self.recall(index, RecallReason::Expiry, out);
        } else {
            self.end_expired(now, index, out);
        }
    }

    fn end_expired(&mut self, now: Timestamp, index: u32, out: &mut Decisions) {
        let Some(task) = self.tasks.get(index) else { return };
        let waited = now.since(task.submitted_at);
        let waited = humantime::format_duration(Duration::from_millis(waited.as_millis().try_into().unwrap_or(0)));
        let failure = Failure::new(FailureReason::Expired, format!("had not started after {waited}"));
        let change = TaskChange::Failed { failure: Box::new(failure), usage: None, output: None };
        self.emit(now, index, TaskState::Failed, None, change, out);
    }
}
