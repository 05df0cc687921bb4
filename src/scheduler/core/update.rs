//! Updating a task that has not started.
//!
//! A QUEUED task is queued anew, behind the others of its priority. One that was dispatched is taken back from its pool first.

use std::sync::Arc;
use std::time::Duration;

use crate::model::limits::LABELS_MAX;
use crate::model::{
    Event, Hold, Holds, LimitHold, TaskChange, TaskEvent, TaskId, TaskOptions, TaskState, TaskUpdate, Timestamp,
};
use crate::scheduler::refusal::{BadField, Refusal, TaskFinished, TaskNotFound, TaskStarted};

use super::apply::Entered;
use super::decisions::Decisions;
use super::limit_table::{Turn, Usage};
use super::state::{Changed, Core, RecallReason, attached_bytes};
use super::table::TaskEntry;
use super::timers::{Purpose, Timer};

impl Core {
    /// Updates a task and returns its new state; `None` if a recall decides. An update that changes nothing is not an error.
    /// `intern` finds equal options.
    ///
    /// # Errors
    /// [`TaskNotFound`], [`TaskFinished`], [`TaskStarted`], `MemoryFull`, and [`BadField`] if the task would have too many labels.
    pub fn update_task(
        &mut self,
        now: Timestamp,
        id: &TaskId,
        update: &TaskUpdate,
        intern: impl FnOnce(TaskOptions) -> Arc<TaskOptions>,
        out: &mut Decisions,
    ) -> Result<Option<TaskState>, Refusal> {
        let found = self.tasks.find(id).and_then(|index| Some((index, self.tasks.get(index)?)));
        let (index, task) = found.ok_or_else(|| TaskNotFound { task: id.clone() })?;
        if task.state.is_terminal() {
            return Err(TaskFinished { task: id.clone(), state: task.state }.into());
        }
        if task.has_started {
            return Err(TaskStarted { task: id.clone(), state: task.state }.into());
        }
        let (spec, state) = (&task.spec, task.state);
        let after = |at: Timestamp| Some(at.since(task.submitted_at)).filter(|after| !after.is_zero());
        let extras = spec.extras();
        let options = update.options(&spec.options);
        let delay = update.not_before.map_or(extras.delay, after);
        let expires_after =
            update.expiry.map_or(extras.expires_after, |expiry| Some(expiry.at()?.since(task.submitted_at)));
        if options == *spec.options && delay == extras.delay && expires_after == extras.expires_after {
            return Ok(Some(state));
        }
        if options.labels.len() > LABELS_MAX {
            let count = options.labels.len();
            let description = format!("would leave task `{id}` with {count} labels, at most {LABELS_MAX} are allowed");
            return Err(BadField { field: "update.labels".to_owned(), description }.into());
        }
        let mut spec = spec.without_payload();
        let before = attached_bytes(&spec);
        spec.update(intern(options), delay, expires_after);
        self.check_attached(attached_bytes(&spec).saturating_sub(before))?;
        let changed = Changed { options: spec.options, delay, expires_after };
        if self.ticket_of(index).is_some() {
            self.recall(index, RecallReason::Update(Box::new(changed)), out);
            return Ok(None);
        }
        self.emit_updated(now, index, changed, out);
        Ok(self.tasks.get(index).map(|task| task.state))
    }

    /// Updates a task without a live attempt, except one that a recall has just taken back.
    pub(super) fn emit_updated(&mut self, now: Timestamp, index: u32, changed: Changed, out: &mut Decisions) {
        let Changed { options, delay, expires_after } = changed;
        let at = self.not_before_last_change(index, now);
        let Some(task) = self.tasks.get(index) else { return };
        let waits = task.holds.contains(Hold::Parents) || is_delayed(task, delay, at);
        let (state, hold) = if waits {
            (TaskState::Waiting, None)
        } else {
            match self.hold_of_updated(index, task, &options) {
                None => (TaskState::Queued, None),
                hold => (TaskState::Waiting, hold),
            }
        };
        let mut event = TaskEvent {
            revision: self.revision.next(),
            at,
            task: task.spec.id.clone(),
            options,
            previous: task.state,
            state,
            attempt: task.attempt.into(),
            holds: Holds::NONE,
            hold,
            change: TaskChange::Updated { delay, expires_after, before: Some(task.spec.options.clone()) },
        };
        self.apply(index, &event);
        event.holds = self.holds_of(index);
        out.events.push(Event::Task(event));
        // It may have given up places.
        self.admit_waiting(out);
    }

    /// The limit that keeps a task from being QUEUED with its new priority. A QUEUED task keeps its places.
    fn hold_of_updated(&self, index: u32, task: &TaskEntry, options: &TaskOptions) -> Option<Box<LimitHold>> {
        let turn = Turn::new(options.priority, task.submission, index);
        let is_waiting = task.state == TaskState::Waiting;
        if is_waiting { self.limit_hold(options, turn, Usage::Nothing) } else { None }
    }

    /// Applies an `Updated` event.
    pub(super) fn apply_updated(
        &mut self,
        index: u32,
        event: &TaskEvent,
        delay: Option<Duration>,
        expires_after: Option<Duration>,
    ) {
        let stamp = self.draw_stamp();
        self.leave_limits(index);
        let Some(task) = self.tasks.get_mut(index) else { return };
        let (previous, was_dispatched, held) = (task.state, task.is_dispatched(), task.holds);
        // Every entry of the task in a queue and its timer are stale from now on.
        task.stamp = stamp;
        task.has_attempt = false;
        if was_dispatched {
            self.pools[usize::from(task.pool)].return_slot(index, &task.spec.options, None);
        }
        self.leave_state(index, previous, was_dispatched, held);
        self.replace_spec(index, &event.options, delay, expires_after, stamp);
        let Some(task) = self.tasks.get_mut(index) else { return };
        (task.state, task.since) = (event.state, event.at);
        let holds = if event.state != TaskState::Waiting {
            Holds::NONE
        } else if event.hold.is_some() {
            Holds::one_if(true, Hold::Limit)
        } else {
            // A delay that has passed is released by its timer: a restart does not know whether it was.
            held.only(Hold::Parents).and(Holds::one_if(delay.is_some(), Hold::Delay))
        };
        let eligible_at = task.submitted_at.after(delay.unwrap_or_default());
        self.set_holds(index, holds);
        self.enter_state(index, &Entered { stamp, revision: event.revision, eligible_at, interrupted: false });
        self.enter_limits(index, event.hold.as_deref());
    }

    /// Replaces the spec of a task that is in no queue, and the timer of its expiry.
    fn replace_spec(
        &mut self,
        index: u32,
        options: &Arc<TaskOptions>,
        delay: Option<Duration>,
        expires_after: Option<Duration>,
        stamp: u64,
    ) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let former = task.spec.extras().expires_after;
        self.attached_bytes -= attached_bytes(&task.spec);
        task.stored_bytes -= u32::try_from(task.spec.attached_bytes()).unwrap_or(u32::MAX).min(task.stored_bytes);
        Arc::make_mut(&mut task.spec).update(options.clone(), delay, expires_after);
        self.attached_bytes += attached_bytes(&task.spec);
        let stored = task.spec.attached_bytes() as u64;
        task.add_stored(stored);
        let submitted_at = task.submitted_at;
        if expires_after == former {
            return;
        }
        self.disarm_expiry(index);
        if let Some(after) = expires_after
            && let Some(key) = self.tasks.renew_expiry(index, stamp)
        {
            self.timers.add(Timer { at: submitted_at.after(after), index, purpose: Purpose::Expiry(key) });
        }
    }
}

/// Whether the delay of a task has not passed.
fn is_delayed(task: &TaskEntry, delay: Option<Duration>, at: Timestamp) -> bool {
    delay.is_some_and(|delay| task.submitted_at.after(delay) > at)
}
