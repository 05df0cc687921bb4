//! Unique keys: which tasks are added beside others with the same.

use std::time::Duration;

use crate::model::{Namespace, OnUniqueConflict, TaskId, TaskSpec, TaskState, Timestamp, UniqueKey};
use crate::scheduler::refusal::{KeyHolder, UniqueKeyTaken};

use super::super::submission::Accepted;
use super::history::{History, Known};
use super::world::World;

pub fn unique_key(number: u8, rule: u8, reuse_s: Option<u64>) -> UniqueKey {
    UniqueKey {
        key: format!("u{number}").into(),
        on_conflict: OnUniqueConflict::from_number(rule).unwrap(),
        reuse_result_within: reuse_s.map(Duration::from_secs),
    }
}

fn reuses(spec: &TaskSpec) -> Option<Duration> {
    spec.extras().unique.as_ref()?.reuse_result_within
}

fn key_of(spec: &TaskSpec) -> Option<(&Namespace, &str)> {
    spec.extras().unique.as_deref().map(|unique| (&spec.options.namespace, &*unique.key))
}

fn has_rule(spec: &TaskSpec, rule: OnUniqueConflict) -> bool {
    spec.extras().unique.as_ref().is_some_and(|unique| unique.on_conflict == rule)
}

impl History {
    /// The task whose result a submission uses at this time.
    pub fn reusable(&self, spec: &TaskSpec, now: Timestamp) -> Option<&TaskId> {
        let within = reuses(spec)?;
        let has_result = |task: &Known| task.state == TaskState::Completed && reuses(&task.spec).is_some();
        let results = self.tasks.iter().filter(|(_, task)| has_result(task) && key_of(&task.spec) == key_of(spec));
        let (id, task) = results.max_by_key(|(_, task)| task.ended)?;
        (self.end_time(task)?.after(within) >= now).then_some(id)
    }
}

/// Whether the submission may return this task, which has not ended.
pub fn uses_existing(task: &Known, spec: &TaskSpec) -> bool {
    let has_same_key = key_of(&task.spec) == key_of(spec);
    has_rule(spec, OnUniqueConflict::UseExisting) && has_same_key && !task.state.is_terminal()
}

/// Whether the task at a place is a duplicate of an earlier new one of the same submission, for its unique key.
pub fn repeats_earlier(specs: &[TaskSpec], accepted: &[Accepted], place: usize) -> bool {
    let own = &accepted[place];
    let first = (0..place).find(|earlier| accepted[*earlier].id == own.id && !accepted[*earlier].duplicate);
    own.duplicate
        && has_rule(&specs[place], OnUniqueConflict::UseExisting)
        && first.is_some_and(|first| {
            assert_eq!(own.state, accepted[first].state);
            key_of(&specs[first]) == key_of(&specs[place])
        })
}

impl World {
    /// Whether the task at a place of a submission may become a duplicate, for its unique key.
    pub fn may_use_another(&self, specs: &[TaskSpec], place: usize) -> bool {
        let spec = &specs[place];
        let has_same_key = |other: &TaskSpec| key_of(other) == key_of(spec);
        self.live.reusable(spec, self.at()).is_some()
            || has_rule(spec, OnUniqueConflict::UseExisting)
                && (specs[..place].iter().any(has_same_key)
                    || self.live.tasks.values().any(|task| uses_existing(task, spec)))
    }

    /// `before`: before the submission.
    pub fn unique_keys_are_resolved(&self, specs: &[TaskSpec], submitted: &[Accepted], before: &History) {
        for (place, (spec, accepted)) in specs.iter().zip(submitted).enumerate() {
            if accepted.duplicate || key_of(spec).is_none() {
                continue;
            }
            let unfinished = before.tasks.iter().filter(|(_, task)| !task.state.is_terminal());
            let others = unfinished.map(|(id, task)| (id, &*task.spec));
            let earlier = specs[..place].iter().zip(&submitted[..place]).filter(|(_, accepted)| !accepted.duplicate);
            let reusable = before.reusable(spec, self.at());
            let is_first = !earlier.clone().any(|(other, _)| key_of(other) == key_of(spec));
            assert!(!is_first || reusable.is_none(), "{} is added beside the result of {reusable:?}", accepted.id);
            let others = others.chain(earlier.map(|(spec, accepted)| (&accepted.id, spec)));
            for (id, _) in others.filter(|(_, other)| key_of(other) == key_of(spec)) {
                assert!(has_rule(spec, OnUniqueConflict::ReplaceQueued), "{} is added beside {id}", accepted.id);
                let state = self.live.tasks[id].state;
                let goes_on = state == TaskState::Running || self.is_claimed(id);
                assert!(goes_on || state.is_terminal(), "{id} is {state:?} and waits beside {}", accepted.id);
            }
        }
    }

    pub fn unique_key_is_taken(&self, specs: &[TaskSpec], taken: &UniqueKeyTaken) {
        let (holder, refused) = match &taken.holder {
            KeyHolder::Task(task) => {
                let task = &self.live.tasks[task];
                assert!(!task.state.is_terminal());
                (&*task.spec, specs)
            }
            KeyHolder::Submitted(place) => (&specs[*place], &specs[place + 1..]),
        };
        let is_refused = |spec: &TaskSpec| key_of(spec) == key_of(holder) && has_rule(spec, OnUniqueConflict::Fail);
        assert!(refused.iter().any(is_refused), "{taken}");
    }
}
