//! Updates of tasks that have not started.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{NewExpiry, Priority, TaskChange, TaskEvent, TaskState, TaskUpdate, Timestamp};
use crate::scheduler::refusal::Refusal;

use super::history::{Cause, Known};
use super::steps::TaskChanges;
use super::world::World;

impl Known {
    pub fn update(&mut self, event: &TaskEvent, delay: Option<Duration>, expires_after: Option<Duration>) {
        if expires_after != self.spec.extras().expires_after {
            self.expiry_set = event.revision;
        }
        self.stored_bytes -= self.spec.attached_bytes();
        Arc::make_mut(&mut self.spec).update(event.options.clone(), delay, expires_after);
        self.stored_bytes += self.spec.attached_bytes();
        self.waits_until = self.submitted_at.after(delay.unwrap_or_default());
    }
}

pub fn only_a_task_that_has_not_started_is_updated(task: &Known, event: &TaskEvent) {
    if !matches!(event.change, TaskChange::Updated { .. }) {
        return;
    }
    assert!(!task.has_started && !task.is_cancelled, "{event:?} of a task that has started");
    let is_unfinished = |state| matches!(state, TaskState::Waiting | TaskState::Queued);
    assert!(is_unfinished(event.previous) && is_unfinished(event.state), "{event:?}");
}

impl World {
    /// An accepted update is complete, and a refused one changes nothing.
    pub fn update_task(&mut self, pick: usize, change: &TaskChanges) {
        let Some(id) = self.live.tasks.keys().nth(pick % self.live.tasks.len().max(1)).cloned() else { return };
        let at = |ms: u64| (ms > 0).then(|| self.at().after(Duration::from_millis(ms)));
        let update = TaskUpdate {
            priority: change.priority.and_then(Priority::from_index),
            labels: change.label.iter().map(|bytes| ("l".into(), "x".repeat(*bytes).into())).collect(),
            not_before: change.delay_ms.map(|ms| at(ms).unwrap_or(Timestamp::ZERO)),
            expiry: change.expires_ms.map(|ms| at(ms).map_or(NewExpiry::Never, NewExpiry::At)),
            ..TaskUpdate::default()
        };
        let (before, events) = (self.live.tasks[&id].clone(), self.out.events.len());
        let updated = self.core.update_task(self.at(), &id, &update, Arc::new, &mut self.out);
        self.answer_recalls();
        let refused = match updated {
            Ok(Some(_)) => false,
            // It was claimed, and its start was not reported.
            Ok(None) => self.is_claimed(&id),
            Err(Refusal::TaskStarted(_)) => {
                assert!(before.has_started && !before.state.is_terminal());
                true
            }
            Err(Refusal::TaskFinished(_)) => {
                assert!(before.state.is_terminal());
                true
            }
            Err(Refusal::MemoryFull(_)) => true,
            Err(refusal) => panic!("{refusal}"),
        };
        if refused {
            assert_eq!(self.out.events.len(), events, "a refused update of {id} changes nothing");
            return;
        }
        self.observe(&Cause::Input);
        let task = &self.live.tasks[&id];
        assert_eq!(task.spec.options, update.options(&before.spec.options).into(), "{id} has its new options");
        let present = |after: Option<Duration>| after.map(|after| task.submitted_at.after(after));
        let extras = task.spec.extras();
        if let Some(not_before) = update.not_before {
            assert_eq!(
                present(extras.delay).unwrap_or_default(),
                if not_before > task.submitted_at { not_before } else { Timestamp::ZERO }
            );
        }
        if let Some(expiry) = update.expiry {
            assert_eq!(present(extras.expires_after), expiry.at().map(|at| at.max(task.submitted_at)));
        }
    }
}
