//! Unique keys: what a submission does while an unfinished task has its key, or a completed one has a result for it.

use std::time::Duration;

use hashbrown::HashMap;

use crate::model::{
    CancelMode, CancelRequest, Namespace, OnUniqueConflict, Revision, TaskId, TaskSpec, TaskState, Timestamp, UniqueKey,
};
use crate::scheduler::refusal::{KeyHolder, UniqueKeyTaken};

use super::decisions::Decisions;
use super::state::Core;
use super::submission::Accepted;
use super::table::TaskEntry;

/// What the unique keys of a submission do.
#[derive(Debug, Default)]
pub(super) struct KeyEffects {
    replaced: Vec<Replaced>,
    /// Places of tasks that became duplicates of an earlier new task of the submission, with its place.
    repeated: Vec<(usize, usize)>,
    /// Submissions of the tasks whose results are used.
    pub reused: Vec<Revision>,
}

/// A task that a new one replaces. It can be of the same submission.
#[derive(Debug)]
struct Replaced {
    task: TaskId,
    by: TaskId,
    requested_by: Box<str>,
}

impl Core {
    /// Finds the tasks with the unique keys of new tasks, as if the tasks were submitted one after the other. A new task that
    /// uses an existing one or its result becomes a duplicate of it.
    ///
    /// # Errors
    /// [`UniqueKeyTaken`].
    pub(super) fn resolve_unique_keys(
        &self,
        now: Timestamp,
        specs: &[TaskSpec],
        accepted: &mut [Accepted],
    ) -> Result<KeyEffects, UniqueKeyTaken> {
        let mut effects = KeyEffects::default();
        // The newest task of the submission with each key.
        let mut newest: HashMap<(&Namespace, &str), usize> = HashMap::new();
        for (place, spec) in specs.iter().enumerate() {
            let Some(unique) = spec.extras().unique.as_deref().filter(|_| !accepted[place].duplicate) else { continue };
            let key = (&spec.options.namespace, &*unique.key);
            let earlier = newest.get(&key).copied();
            if earlier.is_none()
                && let Some(task) = self.reusable_result(now, spec, unique)
            {
                effects.reused.push(task.submission);
                accepted[place] = Accepted { id: task.spec.id.clone(), state: Some(task.state), duplicate: true };
                continue;
            }
            // An earlier one has replaced those that exist, or there were none.
            let existing = if earlier.is_none() { self.unique_keys.with_key_of(&self.tasks, spec) } else { Vec::new() };
            let holder = match (earlier, existing.last()) {
                (Some(earlier), _) => Some((&accepted[earlier].id, None, KeyHolder::Submitted(earlier))),
                (None, Some((_, task))) => {
                    Some((&task.spec.id, Some(task.state), KeyHolder::Task(task.spec.id.clone())))
                }
                (None, None) => None,
            };
            match (unique.on_conflict, holder) {
                (OnUniqueConflict::Fail, Some((.., holder))) => {
                    return Err(UniqueKeyTaken { key: unique.key.clone(), holder });
                }
                (OnUniqueConflict::UseExisting, Some((id, state, _))) => {
                    effects.repeated.extend(earlier.map(|earlier| (place, earlier)));
                    accepted[place] = Accepted { id: id.clone(), state, duplicate: true };
                    continue;
                }
                (OnUniqueConflict::ReplaceQueued, Some(_)) => {
                    let pending = existing.into_iter().filter(|(_, task)| is_pending(task));
                    let tasks =
                        pending.map(|(_, task)| &task.spec.id).chain(earlier.map(|earlier| &accepted[earlier].id));
                    let (by, requested_by) = (&accepted[place].id, &spec.options.submitted_by);
                    let replaced = tasks.map(|task| Replaced {
                        task: task.clone(),
                        by: by.clone(),
                        requested_by: requested_by.clone(),
                    });
                    effects.replaced.extend(replaced);
                }
                (_, None) => {}
            }
            newest.insert(key, place);
        }
        Ok(effects)
    }

    /// The task whose result a new one uses.
    fn reusable_result(&self, now: Timestamp, spec: &TaskSpec, unique: &UniqueKey) -> Option<&TaskEntry> {
        let within = unique.reuse_result_within?;
        let (task, ended) = self.unique_keys.result_for(&self.tasks, spec)?;
        (self.finished.end_time(ended, task.since).after(within) >= now).then_some(task)
    }

    /// Cancels the tasks that are replaced, unless they have started, and reports the states of those that are used. Call it after
    /// the new tasks were added, so that a batch of both does not finish between them.
    pub(super) fn apply_unique_keys(
        &mut self,
        now: Timestamp,
        effects: KeyEffects,
        accepted: &mut [Accepted],
        out: &mut Decisions,
    ) {
        for (place, earlier) in effects.repeated {
            accepted[place].state = accepted[earlier].state;
        }
        for Replaced { task, by, requested_by } in effects.replaced {
            let Some(index) = self.tasks.find(&task) else { continue };
            if !self.tasks.get(index).is_some_and(is_pending) {
                continue;
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
        let has_result = |task: &TaskEntry| task.state == TaskState::Completed && task.spec.extras().unique.is_some();
        let mut results: Vec<u32> = self.unique_keys.results().collect();
        results.sort_unstable();
        let expected = self.tasks.iter().filter(|(_, task)| has_result(task)).map(|(index, _)| index);
        assert!(expected.eq(results.iter().copied()), "tasks whose results can be used again");
    }
}

fn is_pending(task: &TaskEntry) -> bool {
    matches!(task.state, TaskState::Waiting | TaskState::Queued)
}
