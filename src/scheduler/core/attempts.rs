//! What becomes of attempts: begun, ended, cancelled, expired.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, CancelReceipt, CancelRequest, Change, Failure, FailureReason, InterruptCause, Output as Written,
    ResourceUsage, StopMethod, TaskId, TaskState, Timestamp,
};
use crate::pool::Ticket;
use crate::runners::{Outcome, StopCause};
use crate::scheduler::refusal::{Refusal, TaskFinished, TaskNotFound};

use super::timers::Timer;
use super::{Core, Output};

/// How an attempt ended, as its pool reports it.
#[derive(Debug)]
pub struct Finished {
    /// Which attempt.
    pub ticket: Ticket,
    /// When.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Why it had been told to stop, if it had.
    pub cause: Option<StopCause>,
    /// What it cost.
    pub usage: Box<ResourceUsage>,
    /// What it wrote.
    pub output: Option<Box<Written>>,
}

impl Core {
    /// A worker has begun an attempt. Reports of attempts that are not the live one change nothing.
    pub fn started(&mut self, ticket: Ticket, at: Timestamp, worker: Arc<str>, out: &mut Output) {
        let Some(task) = self.tasks.get(ticket.index).filter(|task| task.fence == ticket.fence) else { return };
        if task.state != TaskState::Queued {
            return;
        }
        let attempt = task.attempt + 1;
        if task.spec.options.at_most_once {
            out.confirms.push(ticket);
        }
        self.emit(at, ticket.index, TaskState::Running, Some(attempt), Change::Started { worker }, out);
    }

    /// An attempt has ended. Reports of attempts that are not the live one change nothing.
    pub fn finished(&mut self, finished: Finished, out: &mut Output) {
        let Finished { ticket, at, outcome, cause, usage, output } = finished;
        let Some(task) = self.tasks.get(ticket.index).filter(|task| task.fence == ticket.fence) else { return };
        if task.state != TaskState::Running {
            return;
        }
        let slot = ticket.index;
        if let Some(request) = task.cancel.clone() {
            let method = match outcome {
                Outcome::Stopped(method) => method,
                Outcome::Completed(_) | Outcome::Failed(_) => StopMethod::Finished,
            };
            let receipt = Box::new(CancelReceipt { request: *request, stopped_at: at, method });
            let change = Change::Cancelled { receipt, usage: Some(usage), output };
            return self.emit(at, slot, TaskState::Cancelled, None, change, out);
        }
        match (outcome, cause) {
            (Outcome::Completed(result), _) => {
                let change = Change::Completed { result, usage, output };
                self.emit(at, slot, TaskState::Completed, None, change, out);
            }
            (Outcome::Stopped(_) | Outcome::Failed(_), Some(StopCause::Timeout)) => {
                let limit = humantime::format_duration(task.spec.options.timeout);
                let failure = Failure::new(FailureReason::Timeout, format!("ran longer than {limit}"));
                self.attempt_failed(at, slot, failure, usage, output, out);
            }
            (Outcome::Failed(failure), None) => self.attempt_failed(at, slot, failure, usage, output, out),
            (Outcome::Stopped(_) | Outcome::Failed(_), _) => self.interrupt(at, slot, InterruptCause::Drain, out),
        }
    }

    fn attempt_failed(
        &mut self,
        at: Timestamp,
        slot: u32,
        mut failure: Failure,
        usage: Box<ResourceUsage>,
        output: Option<Box<Written>>,
        out: &mut Output,
    ) {
        let Some(task) = self.tasks.get(slot) else { return };
        failure.attempt = task.attempt;
        let retry = &task.spec.options.retry;
        if !failure.retryable || task.attempt >= retry.attempts_max || task.spec.options.at_most_once {
            let change = Change::Failed { failure: Box::new(failure), usage: Some(usage), output };
            return self.emit(at, slot, TaskState::Failed, None, change, out);
        }
        let delay = failure.retry_after.unwrap_or_else(|| retry.delay_after(&task.spec.id, task.attempt));
        let state = if delay.is_zero() { TaskState::Queued } else { TaskState::Waiting };
        let change = Change::Retrying { failure: Box::new(failure), not_before: at.after(delay), usage, output };
        self.emit(at, slot, state, None, change, out);
    }

    /// Takes a running attempt back without spending it.
    pub(super) fn interrupt(&mut self, at: Timestamp, slot: u32, cause: InterruptCause, out: &mut Output) {
        let Some(task) = self.tasks.get(slot) else { return };
        if task.spec.options.at_most_once {
            let mut failure = Failure::new(FailureReason::WorkerLost, "was interrupted and may not be started twice");
            failure.attempt = task.attempt;
            let change = Change::Failed { failure: Box::new(failure), usage: None, output: None };
            return self.emit(at, slot, TaskState::Failed, None, change, out);
        }
        let unspent = task.attempt.saturating_sub(1);
        self.emit(at, slot, TaskState::Queued, Some(unspent), Change::Interrupted { cause }, out);
    }

    /// Ends a task. One whose attempt is assigned must have been recalled before, or have begun:
    /// `recalled` says that the recall came in time.
    ///
    /// Answers the state reached; RUNNING when the attempt has to be stopped first.
    ///
    /// # Errors
    /// [`TaskNotFound`], [`TaskFinished`] (but not for a task that a cancel ended: that is repeatable).
    pub fn cancel(
        &mut self,
        id: &TaskId,
        request: CancelRequest,
        recalled: bool,
        out: &mut Output,
    ) -> Result<TaskState, Refusal> {
        let not_found = || Refusal::from(TaskNotFound { task: id.clone() });
        let slot = self.tasks.find(id).ok_or_else(not_found)?;
        let task = self.tasks.get(slot).ok_or_else(not_found)?;
        let now = request.requested_at;
        match task.state {
            TaskState::Cancelled => Ok(TaskState::Cancelled),
            TaskState::Completed | TaskState::Failed => {
                Err(TaskFinished { task: id.clone(), state: task.state }.into())
            }
            TaskState::Running => Ok(self.stop(slot, request, out)),
            TaskState::Queued if task.fence != 0 && !recalled => Ok(self.stop(slot, request, out)),
            TaskState::Waiting | TaskState::Queued => {
                let receipt = CancelReceipt { request, stopped_at: now, method: StopMethod::NeverStarted };
                let change = Change::Cancelled { receipt: Box::new(receipt), usage: None, output: None };
                self.emit(now, slot, TaskState::Cancelled, None, change, out);
                Ok(TaskState::Cancelled)
            }
        }
    }

    /// Tells the live attempt to end. A repeated cancel is heard when it is harder than the first.
    fn stop(&mut self, slot: u32, request: CancelRequest, out: &mut Output) -> TaskState {
        let Some(task) = self.tasks.get(slot) else { return TaskState::Running };
        let (ticket, state) = (Ticket { index: slot, fence: task.fence }, task.state);
        let cause = if request.mode == CancelMode::Force { StopCause::Force } else { StopCause::Cancel };
        let harder = task.cancel.as_ref().is_none_or(|earlier| earlier.mode != request.mode);
        if harder {
            out.stops.push((ticket, cause, request.grace));
            let at = request.requested_at;
            self.emit(at, slot, state, None, Change::CancelRequested { request: Box::new(request) }, out);
        }
        // Its start may not be reported yet; to the caller it runs.
        TaskState::Running
    }

    /// A task has not started in time. An assigned attempt has to be recalled first.
    pub(super) fn expire(&mut self, now: Timestamp, timer: Timer, out: &mut Output) {
        let Some(task) = self.tasks.get(timer.slot).filter(|task| task.incarnation == timer.stamp) else { return };
        let unstarted = matches!(task.state, TaskState::Waiting | TaskState::Queued) && task.attempt == 0;
        if unstarted && task.fence != 0 {
            out.recalls.push(Ticket { index: timer.slot, fence: task.fence });
        } else if unstarted {
            self.fail_expired(now, timer.slot, out);
        }
    }

    /// The recall of an expired task's attempt came in time.
    pub fn recalled_expired(&mut self, now: Timestamp, ticket: Ticket, out: &mut Output) {
        if self.tasks.get(ticket.index).is_some_and(|task| task.fence == ticket.fence && task.assigned) {
            self.fail_expired(now, ticket.index, out);
        }
    }

    fn fail_expired(&mut self, now: Timestamp, slot: u32, out: &mut Output) {
        let Some(task) = self.tasks.get(slot) else { return };
        let waited = now.since(task.submitted_at);
        let waited = humantime::format_duration(Duration::from_millis(waited.as_millis().try_into().unwrap_or(0)));
        let failure = Failure::new(FailureReason::Expired, format!("had not started after {waited}"));
        let change = Change::Failed { failure: Box::new(failure), usage: None, output: None };
        self.emit(now, slot, TaskState::Failed, None, change, out);
    }
}
