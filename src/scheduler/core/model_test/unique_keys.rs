//! Unique keys: which tasks are added beside others with the same.

use crate::model::{OnUniqueConflict, TaskSpec, TaskState, UniqueKey};

use super::super::submission::Accepted;
use super::history::{History, Known};
use super::world::World;

pub fn unique_key(number: u8, rule: u8) -> UniqueKey {
    UniqueKey { key: format!("u{number}").into(), on_conflict: OnUniqueConflict::from_number(rule).unwrap() }
}

/// Whether the task has the unique key of the submission, which has one.
pub fn has_same_key(task: &Known, spec: &TaskSpec) -> bool {
    let key = |spec: &TaskSpec| spec.extras().unique.as_ref().map(|unique| unique.key.clone());
    key(spec).is_some() && key(&task.spec) == key(spec) && task.spec.options.namespace == spec.options.namespace
}

/// Whether the submission may return this task.
pub fn uses_existing(task: &Known, spec: &TaskSpec) -> bool {
    let rule = spec.extras().unique.as_ref().map(|unique| unique.on_conflict);
    rule == Some(OnUniqueConflict::UseExisting) && has_same_key(task, spec) && !task.state.is_terminal()
}

impl World {
    /// `before`: before the submission.
    pub fn unique_keys_are_resolved(&self, specs: &[TaskSpec], accepted: &[Accepted], before: &History) {
        for (spec, accepted) in specs.iter().zip(accepted).filter(|(_, accepted)| !accepted.duplicate) {
            let Some(unique) = &spec.extras().unique else { continue };
            let unfinished = before.tasks.iter().filter(|(_, task)| !task.state.is_terminal());
            for (id, _) in unfinished.filter(|(_, task)| has_same_key(task, spec)) {
                assert_eq!(unique.on_conflict, OnUniqueConflict::ReplaceQueued, "{} is added beside {id}", accepted.id);
                let state = self.live.tasks[id].state;
                let goes_on = state == TaskState::Running || self.is_claimed(id);
                assert!(goes_on || state.is_terminal(), "{id} is {state:?} and waits beside {}", accepted.id);
            }
        }
    }
}
