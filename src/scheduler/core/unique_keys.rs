//! Unique keys: what a submission does while an unfinished task has its key.

use std::time::Duration;

use hashbrown::HashSet;

use crate::model::{CancelMode, CancelRequest, Namespace, OnUniqueConflict, TaskId, TaskSpec, TaskState, Timestamp};
use crate::scheduler::refusal::{BadField, Refusal, UniqueKeyTaken};

use super::decisions::Decisions;
use super::state::Core;
use super::submission::Accepted;
use super::table::TaskEntry;

/// A task that a new one replaces.
#[derive(Debug)]
pub(super) struct Replaced {
    index: u32,
    by: TaskId,
    requested_by: Box<str>,
}

impl Core {
    /// Finds the unfinished tasks with the unique keys of new tasks. A new task that uses an existing one becomes a duplicate of it.
    /// Returns the tasks to replace.
    ///
    /// # Errors
    /// [`UniqueKeyTaken`], and [`BadField`] for a key that appears twice in the submission.
    pub(super) fn resolve_unique_keys(
        &self,
        specs: &[TaskSpec],
        accepted: &mut [Accepted],
    ) -> Result<Vec<Replaced>, Refusal> {
        let mut replaced = Vec::new();
        let mut keys: HashSet<(&Namespace, &str)> = HashSet::new();
        for (place, (spec, accepted)) in specs.iter().zip(accepted).enumerate() {
            let Some(unique) = spec.extras().unique.as_deref().filter(|_| !accepted.duplicate) else { continue };
            if !keys.insert((&spec.options.namespace, &*unique.key)) {
                let description = format!("is `{}`, which appears twice in this batch", unique.key);
                return Err(BadField { field: format!("tasks[{place}].unique_key"), description }.into());
            }
            let existing = self.unique_keys.with_key_of(&self.tasks, spec);
            let Some(&(_, newest)) = existing.last() else { continue };
            match unique.on_conflict {
                OnUniqueConflict::Fail => {
                    return Err(UniqueKeyTaken { key: unique.key.clone(), task: newest.spec.id.clone() }.into());
                }
                OnUniqueConflict::UseExisting => {
                    *accepted = Accepted { id: newest.spec.id.clone(), state: Some(newest.state), duplicate: true };
                }
                OnUniqueConflict::ReplaceQueued => {
                    let requested_by = &spec.options.submitted_by;
                    replaced.extend(existing.into_iter().filter(|(_, entry)| is_pending(entry)).map(|(index, _)| {
                        Replaced { index, by: accepted.id.clone(), requested_by: requested_by.clone() }
                    }));
                }
            }
        }
        Ok(replaced)
    }

    /// Cancels a task unless it has started. Call it after the new task was added, so that a batch of both does not finish between
    /// them.
    pub(super) fn replace(&mut self, now: Timestamp, replaced: Replaced, out: &mut Decisions) {
        let Replaced { index, by, requested_by } = replaced;
        if !self.tasks.get(index).is_some_and(is_pending) {
            return;
        }
        let request = CancelRequest {
            requested_at: self.not_before_last_change(index, now),
            reason: format!("replaced by task {by}").into(),
            requested_by,
            mode: CancelMode::Graceful,
            grace: Duration::ZERO,
        };
        self.cancel_unless_started(index, request, out);
    }

    /// Compares the index with the tasks.
    #[cfg(test)]
    pub(super) fn check_unique_keys(&self) {
        let mut count = 0;
        for (index, task) in self.tasks.iter().filter(|(_, task)| !task.state.is_terminal()) {
            if task.spec.extras().unique.is_some() {
                let found = self.unique_keys.with_key_of(&self.tasks, &task.spec);
                assert!(found.iter().any(|(other, _)| *other == index), "{} is found by its unique key", task.spec.id);
                count += 1;
            }
        }
        assert_eq!(self.unique_keys.len(), count, "number of tasks with a unique key");
    }
}

fn is_pending(task: &TaskEntry) -> bool {
    matches!(task.state, TaskState::Waiting | TaskState::Queued)
}
