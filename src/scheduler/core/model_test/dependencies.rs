//! Dependencies: what every event has to obey, how a submission names parents, and their invariants.

use std::sync::Arc;

use crate::model::{
    Dependencies, FailureReason, OnParentFailure, Parent, Revision, TaskChange, TaskEvent, TaskId, TaskSpec, TaskState,
};
use crate::scheduler::refusal::ParentNotFound;

use super::history::{Cause, History, Known};
use super::steps::{NewTask, ParentName};
use super::world::World;

/// Ends of parents of which tasks take notice in one step: few, so that servers crash before it is done.
const RELEASES_MAX: usize = 2;

fn parents_of(spec: &TaskSpec) -> impl Iterator<Item = &TaskId> {
    spec.extras().dependencies.iter().flat_map(|dependencies| &dependencies.parents).map(|parent| &parent.id)
}

fn rule_of(spec: &TaskSpec) -> Option<OnParentFailure> {
    Some(spec.extras().dependencies.as_ref()?.on_parent_failure)
}

impl History {
    fn parents<'a>(&'a self, spec: &'a TaskSpec) -> impl Iterator<Item = &'a Known> {
        parents_of(spec).map(|id| self.tasks.get(id).expect("the parents of an unfinished task exist"))
    }

    /// Whether a task has a parent that has not ended, or not in a way that lets the task start.
    fn is_held(&self, spec: &TaskSpec) -> bool {
        let may_start = |parent: &Known| match parent.state {
            TaskState::Completed => true,
            state => state.is_terminal() && rule_of(spec) == Some(OnParentFailure::Run),
        };
        !self.parents(spec).all(may_start)
    }

    /// Whether a parent has ended in such a way that the task never starts.
    fn is_doomed(&self, spec: &TaskSpec) -> bool {
        let is_bad = |parent: &Known| matches!(parent.state, TaskState::Failed | TaskState::Cancelled);
        rule_of(spec) != Some(OnParentFailure::Run) && self.parents(spec).any(is_bad)
    }

    fn a_retry_has_the_newest_retries_of_the_parents(&self, spec: &TaskSpec) {
        if spec.extras().retry_of.is_none() {
            return;
        }
        for parent in self.parents(spec) {
            let newest = self.retries.get(&parent.submission);
            let newest = newest.and_then(|newest| self.tasks.values().find(|task| task.submission == *newest));
            assert!(newest.is_none(), "{} instead of {newest:?}", parent.spec.id);
        }
    }

    /// Takes note of a retry.
    pub fn add_retry(&mut self, spec: &TaskSpec, submission: Revision) {
        if let Some(ended) = spec.extras().retry_of.as_ref().and_then(|ended| self.tasks.get(ended)) {
            self.retries.insert(ended.submission, submission);
        }
    }

    /// Whether an unfinished task depends on the task.
    pub fn is_pinned(&self, id: &TaskId) -> bool {
        self.tasks.values().any(|task| !task.state.is_terminal() && parents_of(&task.spec).any(|parent| parent == id))
    }

    /// Checks an event before it is applied.
    pub fn observe_dependencies(&self, event: &TaskEvent) {
        if let TaskChange::Submitted { spec } = &event.change {
            self.a_retry_has_the_newest_retries_of_the_parents(spec);
            let namespace = &spec.options.namespace;
            assert!(self.parents(spec).all(|parent| parent.spec.options.namespace == *namespace));
            let waits = spec.extras().delay.is_some() || self.is_held(spec);
            assert!(!waits || event.hold.is_none(), "{event:?} waits for a limit before the others have ended");
            let waits = waits || event.hold.is_some();
            assert_eq!(event.state == TaskState::Waiting, waits, "{event:?}");
            return;
        }
        assert!(!matches!(event.change, TaskChange::Deleted) || !self.is_pinned(&event.task), "{event:?} is needed");
        let Some(task) = self.tasks.get(&event.task).filter(|task| task.spec.extras().dependencies.is_some()) else {
            return;
        };
        let (spec, rule) = (&task.spec, rule_of(&task.spec));
        match &event.change {
            TaskChange::Eligible | TaskChange::Held | TaskChange::Started { .. } => {
                assert!(!self.is_held(spec), "{event:?} before the end of all parents");
            }
            TaskChange::Updated { .. } => {
                let waits_for_others = event.state == TaskState::Waiting && event.hold.is_none();
                assert!(waits_for_others || !self.is_held(spec), "{event:?} before the end of all parents");
            }
            TaskChange::Failed { failure, .. } if failure.reason == FailureReason::DependencyFailed => {
                assert!(rule == Some(OnParentFailure::Fail) && self.is_doomed(spec) && !task.has_started, "{event:?}");
            }
            TaskChange::Cancelled { receipt, .. } if &*receipt.request.requested_by == "dependency" => {
                assert!(
                    rule == Some(OnParentFailure::Cancel) && self.is_doomed(spec) && !task.has_started,
                    "{event:?}"
                );
            }
            _ => {}
        }
    }
}

impl World {
    /// The spec of one of `count` tasks that are submitted together.
    pub fn spec_with_parents(&self, task: &NewTask, count: usize) -> TaskSpec {
        let mut spec = self.spec(task);
        let own = self.live.tasks.iter().filter(|(_, known)| known.spec.options.namespace == spec.options.namespace);
        let own: Vec<_> = own.map(|(id, _)| id).collect();
        let parent = |name: &ParentName| match name {
            ParentName::Existing(pick) => {
                let id = (*own.get(pick % own.len().max(1))?).clone();
                Some(Parent { id, place: None })
            }
            ParentName::Id(number) => Some(Parent { id: TaskId::parse(&format!("t{number}")).unwrap(), place: None }),
            ParentName::Submitted(pick) => (count > 1).then(|| Parent::at(u32::try_from(pick % count).unwrap())),
        };
        let mut parents: Vec<_> = task.parents.iter().filter_map(parent).collect();
        let ended: Vec<_> = own.iter().filter(|id| self.live.tasks[**id].state.is_terminal()).collect();
        // A retry is submitted alone.
        let retry_of = task.retry_of.filter(|_| count == 1).and_then(|pick| ended.get(pick % ended.len().max(1)));
        if let Some(ended) = retry_of {
            spec.extras.get_or_insert_default().retry_of = Some((**ended).clone());
            // The ended task had parents that existed.
            parents.retain(|parent| own.contains(&&parent.id));
        }
        parents.sort_by_key(|parent| parent.place.is_some());
        if !parents.is_empty() {
            let rules = [OnParentFailure::Fail, OnParentFailure::Run, OnParentFailure::Cancel];
            let on_parent_failure = rules[task.on_parent_failure % rules.len()];
            let dependencies = Dependencies { parents: parents.into(), on_parent_failure };
            spec.extras.get_or_insert_default().dependencies = Some(Arc::new(dependencies));
        }
        spec
    }

    /// A parent is refused only if no task of the namespace has the ID or, unless it is a parent of an ended task, gets it.
    pub fn parent_is_missing(&self, specs: &[TaskSpec], refusal: &ParentNotFound) {
        let is_it = |spec: &TaskSpec| spec.id == refusal.parent && spec.options.namespace == refusal.namespace;
        let exists = self.live.tasks.get(&refusal.parent).is_some_and(|known| is_it(&known.spec));
        let is_retry = specs.iter().any(|spec| spec.extras().retry_of.is_some());
        let is_new = |(place, spec)| !is_retry && is_it(spec) && !self.may_use_another(specs, place);
        assert!(!exists && !specs.iter().enumerate().any(is_new), "{refusal}");
    }

    /// Does what a turn of the service does.
    pub fn release_children(&mut self) {
        self.core.release_children(self.at(), RELEASES_MAX, &mut self.out);
        self.answer_recalls();
        self.observe(&Cause::Input);
    }

    /// Whether a task waits for parents, or will take notice of their ends in one of the next steps.
    pub fn waits_for_parents(&self, task: &Known) -> bool {
        !task.has_started && (self.live.is_held(&task.spec) || self.core.has_released_children())
    }
}

/// No task waits for parents that have ended, or although it can never start, longer than the server needs to take notice.
pub fn check(world: &World) {
    if world.core.has_released_children() {
        return;
    }
    for (id, task) in world.live.tasks.iter().filter(|(_, task)| task.state == TaskState::Waiting && !task.has_started)
    {
        assert!(!world.live.is_doomed(&task.spec), "{id} waits although a parent has not completed");
        let unfinished = world.live.parents(&task.spec).filter(|parent| !parent.state.is_terminal()).count();
        let count = world.core.unfinished_parents(id).map_or(0, |unfinished| unfinished.count);
        assert_eq!(count as usize, unfinished, "parents for which {id} waits");
    }
}
