//! Events of attempts: started, ended, cancelled, expired.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, CancelReceipt, CancelRequest, Failure, FailureReason, InterruptCause, Output, ResourceUsage,
    StopMethod, TaskChange, TaskId, TaskState, Timestamp,
};
use crate::pool::Ticket;
use crate::runners::{Outcome, StopCause};
use crate::scheduler::refusal::{Refusal, TaskFinished, TaskNotFound};

use super::decisions::Decisions;
use super::state::Core;
use super::timers::Timer;

/// Report of a pool that an attempt has ended.
#[derive(Debug)]
pub struct AttemptEnd {
    pub ticket: Ticket,
    pub at: Timestamp,
    pub outcome: Outcome,
    /// Why the attempt was asked to stop, if it was.
    pub cause: Option<StopCause>,
    pub usage: Box<ResourceUsage>,
    pub output: Option<Box<Output>>,
}

impl Core {
    /// A worker has started an attempt. Does nothing if it is not the live attempt of its task.
    pub fn started(&mut self, ticket: Ticket, at: Timestamp, worker: Arc<str>, out: &mut Decisions) {
        let Some(task) = self.tasks.get(ticket.index).filter(|task| task.fence == ticket.fence) else { return };
        if task.state != TaskState::Queued {
            return;
        }
        let attempt = task.attempt + 1;
        if task.spec.options.at_most_once {
            out.confirms.push(ticket);
        }
        self.emit(at, ticket.index, TaskState::Running, Some(attempt), TaskChange::Started { worker }, out);
    }

    /// An attempt has ended. Does nothing if it is not the live attempt of its task.
    pub fn ended(&mut self, end: AttemptEnd, out: &mut Decisions) {
        let AttemptEnd { ticket, at, outcome, cause, usage, output } = end;
        let Some(task) = self.tasks.get(ticket.index).filter(|task| task.fence == ticket.fence) else { return };
        if task.state != TaskState::Running {
            return;
        }
        let index = ticket.index;
        if let Some(request) = task.cancel.clone() {
            let method = match outcome {
                Outcome::Stopped(method) => method,
                Outcome::Completed(_) | Outcome::Failed(_) => StopMethod::Finished,
                Outcome::Unavailable(_) => StopMethod::NeverStarted,
            };
            let receipt = Box::new(CancelReceipt { request: *request, stopped_at: at, method });
            let change = TaskChange::Cancelled { receipt, usage: Some(usage), output };
            return self.emit(at, index, TaskState::Cancelled, None, change, out);
        }
        match (outcome, cause) {
            (Outcome::Completed(result), _) => {
                let change = TaskChange::Completed { result, usage, output };
                self.emit(at, index, TaskState::Completed, None, change, out);
            }
            (Outcome::Stopped(_) | Outcome::Failed(_), Some(StopCause::Timeout)) => {
                let limit = humantime::format_duration(task.spec.options.timeout);
                let failure = Failure::new(FailureReason::Timeout, format!("ran longer than {limit}"));
                self.attempt_failed(at, index, failure, usage, output, out);
            }
            (Outcome::Failed(failure), None) => self.attempt_failed(at, index, failure, usage, output, out),
            (Outcome::Unavailable(_), _) => self.interrupt(at, index, InterruptCause::Unavailable, out),
            (Outcome::Stopped(_) | Outcome::Failed(_), _) => self.interrupt(at, index, InterruptCause::Drain, out),
        }
    }

    /// Retries the task after its back-off, or fails it.
    fn attempt_failed(
        &mut self,
        at: Timestamp,
        index: u32,
        mut failure: Failure,
        usage: Box<ResourceUsage>,
        output: Option<Box<Output>>,
        out: &mut Decisions,
    ) {
        let Some(task) = self.tasks.get(index) else { return };
        failure.attempt = task.attempt;
        let retry = &task.spec.options.retry;
        if !failure.retryable || task.attempt >= retry.attempts_max || task.spec.options.at_most_once {
            let change = TaskChange::Failed { failure: Box::new(failure), usage: Some(usage), output };
            return self.emit(at, index, TaskState::Failed, None, change, out);
        }
        let delay = failure.retry_after.unwrap_or_else(|| retry.delay_after(&task.spec.id, task.attempt));
        let state = if delay.is_zero() { TaskState::Queued } else { TaskState::Waiting };
        let change = TaskChange::Retrying { failure: Box::new(failure), not_before: at.after(delay), usage, output };
        self.emit(at, index, state, None, change, out);
    }

    /// Requeues a running task; the attempt does not count. A task that may not start twice fails, unless nothing
    /// of it has run.
    pub(super) fn interrupt(&mut self, at: Timestamp, index: u32, cause: InterruptCause, out: &mut Decisions) {
        let Some(task) = self.tasks.get(index) else { return };
        if task.spec.options.at_most_once && cause != InterruptCause::Unavailable {
            let mut failure = Failure::new(FailureReason::WorkerLost, "was interrupted and may not be started twice");
            failure.attempt = task.attempt;
            let change = TaskChange::Failed { failure: Box::new(failure), usage: None, output: None };
            return self.emit(at, index, TaskState::Failed, None, change, out);
        }
        let attempt = task.attempt.saturating_sub(1);
        self.emit(at, index, TaskState::Queued, Some(attempt), TaskChange::Interrupted { cause }, out);
    }

    /// Cancels a task. If its attempt is dispatched, the caller must have tried to recall it before; `recalled`
    /// is whether the recall succeeded.
    ///
    /// Returns the new state: RUNNING if the attempt has to be stopped first. Cancelling a CANCELLED task again
    /// is not an error.
    ///
    /// # Errors
    /// [`TaskNotFound`], [`TaskFinished`].
    pub fn cancel(
        &mut self,
        id: &TaskId,
        request: CancelRequest,
        recalled: bool,
        out: &mut Decisions,
    ) -> Result<TaskState, Refusal> {
        let not_found = || Refusal::from(TaskNotFound { task: id.clone() });
        let index = self.tasks.find(id).ok_or_else(not_found)?;
        let task = self.tasks.get(index).ok_or_else(not_found)?;
        let now = request.requested_at;
        match task.state {
            TaskState::Cancelled => Ok(TaskState::Cancelled),
            TaskState::Completed | TaskState::Failed => {
                Err(TaskFinished { task: id.clone(), state: task.state }.into())
            }
            TaskState::Running => Ok(self.request_stop(index, request, out)),
            TaskState::Queued if task.fence != 0 && !recalled => Ok(self.request_stop(index, request, out)),
            TaskState::Waiting | TaskState::Queued => {
                let receipt = CancelReceipt { request, stopped_at: now, method: StopMethod::NeverStarted };
                let change = TaskChange::Cancelled { receipt: Box::new(receipt), usage: None, output: None };
                self.emit(now, index, TaskState::Cancelled, None, change, out);
                Ok(TaskState::Cancelled)
            }
        }
    }

    /// Asks the live attempt to stop. A repeated cancel has an effect only if its mode differs.
    fn request_stop(&mut self, index: u32, request: CancelRequest, out: &mut Decisions) -> TaskState {
        let Some(task) = self.tasks.get(index) else { return TaskState::Running };
        let (ticket, state) = (Ticket { index, fence: task.fence }, task.state);
        let cause = if request.mode == CancelMode::Force { StopCause::Force } else { StopCause::Cancel };
        let is_new = task.cancel.as_ref().is_none_or(|earlier| earlier.mode != request.mode);
        if is_new {
            out.stops.push((ticket, cause, request.grace));
            let at = request.requested_at;
            self.emit(at, index, state, None, TaskChange::CancelRequested { request: Box::new(request) }, out);
        }
        // The start may not be reported yet; to the caller the task is running.
        TaskState::Running
    }

    /// Handles an expiry timer. A dispatched attempt has to be recalled before its task fails.
    pub(super) fn expire(&mut self, now: Timestamp, timer: Timer, out: &mut Decisions) {
        let Some(task) = self.tasks.get(timer.index).filter(|task| task.incarnation == timer.stamp) else { return };
        let not_started = matches!(task.state, TaskState::Waiting | TaskState::Queued) && task.attempt == 0;
        if not_started && task.fence != 0 {
            out.recalls.push(Ticket { index: timer.index, fence: task.fence });
        } else if not_started {
            self.fail_expired(now, timer.index, out);
        }
    }

    /// The attempt of an expired task was recalled before it started.
    pub fn recalled_expired(&mut self, now: Timestamp, ticket: Ticket, out: &mut Decisions) {
        if self.tasks.get(ticket.index).is_some_and(|task| task.fence == ticket.fence && task.assigned) {
            self.fail_expired(now, ticket.index, out);
        }
    }

    fn fail_expired(&mut self, now: Timestamp, index: u32, out: &mut Decisions) {
        let Some(task) = self.tasks.get(index) else { return };
        let waited = now.since(task.submitted_at);
        let waited = humantime::format_duration(Duration::from_millis(waited.as_millis().try_into().unwrap_or(0)));
        let failure = Failure::new(FailureReason::Expired, format!("had not started after {waited}"));
        let change = TaskChange::Failed { failure: Box::new(failure), usage: None, output: None };
        self.emit(now, index, TaskState::Failed, None, change, out);
    }
}
