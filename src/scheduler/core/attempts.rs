//! Reports of attempts: started, ended.

use std::sync::Arc;

use crate::model::{
    Artifacts, CancelReceipt, Failure, FailureReason, Hold, Holds, InterruptCause, Lease, Output, ResourceUsage,
    StopMethod, TaskChange, TaskState, Timestamp,
};
use crate::pool::Ticket;
use crate::runners::{Outcome, StopCause};

use super::decisions::Decisions;
use super::state::Core;
use super::table::TaskEntry;

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
    pub artifacts: Option<Arc<Artifacts>>,
}

impl Core {
    /// A worker has started an attempt. Does nothing if it is not the live attempt of its task.
    pub fn started(&mut self, ticket: Ticket, at: Timestamp, worker: Arc<str>, out: &mut Decisions) {
        let Some(task) = self.live(ticket, TaskState::Queued) else { return };
        let attempt = u32::from(task.attempt) + 1;
        let at = self.not_before_last_change(ticket.index, at);
        if task.spec.options.confirms_start() || self.quarantine.confirms(ticket) {
            out.confirms.push(ticket);
        }
        let pool = &mut self.pools[usize::from(ticket.pool)];
        pool.decisions.start(ticket, at, &worker);
        let is_remote = pool.is_remote();
        let lease = if is_remote { Lease::Remote { fence: ticket.fence } } else { Lease::Local { epoch: self.epoch } };
        let charges = self.charges(ticket.index, at);
        let change = TaskChange::Started { worker, lease, charges };
        self.emit(at, ticket.index, TaskState::Running, Some(attempt), change, out);
    }

    /// An attempt has ended. Does nothing if it is not the live attempt of its task.
    pub fn ended(&mut self, end: AttemptEnd, out: &mut Decisions) {
        let AttemptEnd { ticket, at, outcome, cause, usage, output, artifacts } = end;
        let index = ticket.index;
        let at = self.not_before_last_change(index, at);
        let Some(task) = self.live(ticket, TaskState::Running) else { return };
        if let Some(request) = task.cancel.clone() {
            let method = match outcome {
                Outcome::Stopped(method) => method,
                Outcome::Completed(_) | Outcome::Failed(_) => StopMethod::Finished,
                Outcome::Unavailable(_) => StopMethod::NeverStarted,
                Outcome::WorkerLost => StopMethod::Abort,
            };
            let receipt = Box::new(CancelReceipt { request: *request, stopped_at: at, method });
            let change = TaskChange::Cancelled { receipt, usage: Some(usage), output };
            return self.emit(at, index, TaskState::Cancelled, None, change, out);
        }
        match (outcome, cause) {
            (Outcome::Completed(result), _) => {
                let change = TaskChange::Completed { result, usage, output, artifacts };
                self.emit(at, index, TaskState::Completed, None, change, out);
            }
            (Outcome::Stopped(_) | Outcome::Failed(_), Some(StopCause::Timeout)) => {
                let limit = humantime::format_duration(task.spec.options.timeout);
                let failure = Failure::new(FailureReason::Timeout, format!("ran longer than {limit}"));
                self.attempt_failed(at, index, failure, usage, output, out);
            }
            (Outcome::Failed(failure), None) => self.attempt_failed(at, index, failure, usage, output, out),
            (Outcome::WorkerLost, _) => self.worker_lost(at, index, out),
            (Outcome::Unavailable(_), _) => self.interrupt(at, index, InterruptCause::Unavailable, out),
            (Outcome::Stopped(_) | Outcome::Failed(_), _) => self.interrupt(at, index, InterruptCause::Drain, out),
        }
    }

    /// The task of a live attempt, if it is in this state.
    fn live(&self, ticket: Ticket, state: TaskState) -> Option<&TaskEntry> {
        self.tasks
            .get(ticket.index)
            .filter(|task| task.state == state && task.has_attempt && task.stamp == ticket.fence)
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
        failure.attempt = task.attempt.into();
        let retry = &task.spec.options.retry;
        if !failure.retryable || failure.attempt >= retry.attempts_max || task.spec.options.at_most_once {
            let change = TaskChange::Failed { failure: Box::new(failure), usage: Some(usage), output };
            return self.emit(at, index, TaskState::Failed, None, change, out);
        }
        let delay = failure.retry_after.unwrap_or_else(|| retry.delay_after(&task.spec.id, failure.attempt));
        let state = Holds::one_if(!delay.is_zero(), Hold::BackOff).state();
        let change = TaskChange::Retrying { failure: Box::new(failure), not_before: at.after(delay), usage, output };
        self.emit(at, index, state, None, change, out);
    }

    /// The remote worker of a running task has disappeared.
    fn worker_lost(&mut self, at: Timestamp, index: u32, out: &mut Decisions) {
        let Some(task) = self.tasks.get(index) else { return };
        let losses = u32::from(task.crashes) + 1;
        if losses < self.options.crashes_max || task.spec.options.at_most_once {
            return self.interrupt(at, index, InterruptCause::WorkerLost, out);
        }
        let text = format!("the worker was lost {losses} times in a row while the task was running");
        self.fail_lost(at, index, text, out);
    }

    /// Fails a running task whose attempt was lost and which may not be started again.
    pub(super) fn fail_lost(&mut self, at: Timestamp, index: u32, text: impl Into<String>, out: &mut Decisions) {
        let Some(task) = self.tasks.get(index) else { return };
        let mut failure = Failure::new(FailureReason::WorkerLost, text);
        failure.attempt = task.attempt.into();
        let change = TaskChange::Failed { failure: Box::new(failure), usage: None, output: None };
        self.emit(at, index, TaskState::Failed, None, change, out);
    }

    /// Requeues a running task; the attempt does not count. A task that may not start twice fails, unless nothing
    /// of it has run.
    pub(super) fn interrupt(&mut self, at: Timestamp, index: u32, cause: InterruptCause, out: &mut Decisions) {
        let Some(task) = self.tasks.get(index) else { return };
        if task.spec.options.at_most_once && cause != InterruptCause::Unavailable {
            return self.fail_lost(at, index, "was interrupted and may not be started twice", out);
        }
        let attempt = u32::from(task.attempt).saturating_sub(1);
        self.emit(at, index, TaskState::Queued, Some(attempt), TaskChange::Interrupted { cause }, out);
    }
}
