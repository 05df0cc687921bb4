//! Dependencies: waiting for parents, and what follows from their ends.
//!
//! A task that ends puts its waiting children on a list, which [`Core::release_children`] works off in steps, so that neither a
//! parent of very many children nor a long chain stops the scheduler. After a restart the list is made anew from the states
//! of the parents: to take notice of the same end again changes nothing.
//!
//! The parents of an unfinished task exist: those that have ended are pinned.

use std::sync::Arc;
use std::time::Duration;

use crate::model::limits::{PARENTS_EXAMINED_MAX, UNFINISHED_PARENTS_SHOWN};
use crate::model::{
    CancelMode, CancelRequest, Dependencies, Failure, FailureReason, Hold, Holds, OnParentFailure, TaskChange, TaskId,
    TaskSpec, TaskState, Timestamp,
};

use super::decisions::Decisions;
use super::dependency_table::Child;
use super::state::Core;
use super::table::TaskEntry;

/// Parents that a task waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnfinishedParents {
    pub count: u32,
    /// Some of them.
    pub ids: Vec<TaskId>,
}

/// A parent of a new task: its index, and whether the task waits for it.
pub(super) type NewParent = (u32, bool);

impl Core {
    /// The parents of a new task.
    pub(super) fn parents_of_new(&self, spec: &TaskSpec) -> Vec<NewParent> {
        let Some(dependencies) = &spec.extras().dependencies else { return Vec::new() };
        let find = |id: &TaskId| {
            let index = self.tasks.find(id)?;
            let state = self.tasks.get(index)?.state;
            let is_well = state == TaskState::Completed
                || state.is_terminal() && dependencies.on_parent_failure == OnParentFailure::Run;
            Some((index, !is_well))
        };
        dependencies.parents.iter().filter_map(|parent| find(&parent.id)).collect()
    }

    /// Records the parents of a task that was added.
    pub(super) fn add_parents(&mut self, index: u32, parents: Vec<NewParent>) {
        let Some(task) = self.tasks.get(index).filter(|_| !parents.is_empty()) else { return };
        let (child, left) = (Child { index, submission: task.submission }, task.holds.without(Hold::Parents));
        if !parents.iter().any(|(_, is_awaited)| *is_awaited) {
            self.set_holds(index, left);
        }
        for (parent, is_awaited) in parents {
            self.add_child(parent, child, is_awaited);
        }
    }

    fn add_child(&mut self, parent: u32, child: Child, is_awaited: bool) {
        let is_first = self.dependencies.add_child(parent, child, is_awaited);
        let Some(task) = self.tasks.get(parent).filter(|task| task.state.is_terminal()) else { return };
        if is_first {
            self.finished.pin(parent, &task.spec.options.namespace, task.stored_bytes);
        }
        self.dependencies.end_parent(parent);
    }

    /// Records the parents of all unfinished tasks. Call it when all tasks were restored and all events replayed.
    pub(super) fn restore_dependencies(&mut self) {
        let depends = |task: &TaskEntry| !task.state.is_terminal() && task.spec.extras().dependencies.is_some();
        let children = self.tasks.iter().filter(|(_, task)| depends(task));
        let mut children: Vec<_> = children.map(|(index, task)| Child { index, submission: task.submission }).collect();
        // The order in which they take notice of their parents.
        children.sort_unstable_by_key(|child| child.submission);
        for child in children {
            let Some(task) = self.tasks.get(child.index) else { continue };
            // Whether a task with a delay has taken notice of their ends is not known. It does so again.
            let may_wait = task.state == TaskState::Waiting && !task.has_started && !task.holds.contains(Hold::Limit);
            let (spec, holds) = (task.spec.clone(), task.holds.and(Holds::one_if(may_wait, Hold::Parents)));
            self.set_holds(child.index, holds);
            let waits = child.waits(&self.tasks);
            for (parent, _) in self.parents_of_new(&spec) {
                self.add_child(parent, child, waits);
            }
        }
    }

    /// What follows for its parents and its children from the end of a task, which had these dependencies.
    pub(super) fn end_dependencies(&mut self, index: u32, dependencies: Option<Arc<Dependencies>>) {
        if self.dependencies.end_parent(index)
            && let Some(task) = self.tasks.get(index)
        {
            self.finished.pin(index, &task.spec.options.namespace, task.stored_bytes);
        }
        let Some(dependencies) = dependencies else { return };
        self.dependencies.end_wait(index);
        for parent in &dependencies.parents {
            let Some(index) = self.tasks.find(&parent.id) else { continue };
            if self.dependencies.remove_child(index, &self.tasks)
                && let Some(task) = self.tasks.get(index).filter(|task| task.state.is_terminal())
            {
                let retention = &self.options.retention;
                self.finished.unpin(index, &task.spec.options.namespace, task.since, task.stored_bytes, retention);
            }
        }
    }

    /// Lets tasks take notice of the ends of their parents, up to `limit` times. Returns whether that was all. Each event is a
    /// decision of its own.
    pub fn release_children(&mut self, now: Timestamp, limit: usize, out: &mut Decisions) -> bool {
        for _ in 0..limit {
            let Some((parent, child)) = self.dependencies.pop_ended() else { return true };
            if child.waits(&self.tasks) {
                self.note_parent(now, parent, child.index, out);
            }
        }
        !self.has_released_children()
    }

    /// Whether tasks have to take notice of the end of a parent.
    pub fn has_released_children(&self) -> bool {
        self.dependencies.has_ended()
    }

    fn note_parent(&mut self, now: Timestamp, parent: u32, child: u32, out: &mut Decisions) {
        let (Some(parent), Some(task)) = (self.tasks.get(parent), self.tasks.get(child)) else { return };
        let Some(dependencies) = &task.spec.extras().dependencies else { return };
        let text = || {
            let how = if parent.state == TaskState::Cancelled { "was cancelled" } else { "has failed" };
            format!("the parent `{}` {how}", parent.spec.id)
        };
        match dependencies.on_parent_failure {
            OnParentFailure::Fail if parent.state != TaskState::Completed => {
                let failure = Box::new(Failure::new(FailureReason::DependencyFailed, text()));
                let change = TaskChange::Failed { failure, usage: None, output: None };
                self.emit(now, child, TaskState::Failed, None, change, out);
            }
            OnParentFailure::Cancel if parent.state != TaskState::Completed => {
                let request = CancelRequest {
                    requested_at: now,
                    reason: text().into(),
                    requested_by: "dependency".into(),
                    mode: CancelMode::Graceful,
                    grace: Duration::ZERO,
                };
                self.cancel_unfinished(child, request, out);
            }
            _ => {
                let left = task.holds.without(Hold::Parents);
                if self.dependencies.note_parent(child) {
                    self.keep_holds(now, child, left, out);
                }
            }
        }
    }

    /// Releases what the timer of a WAITING task was for.
    pub(super) fn release_timed_hold(&mut self, now: Timestamp, index: u32, out: &mut Decisions) {
        let Some(left) = self.tasks.get(index).map(|task| task.holds.untimed()) else { return };
        self.keep_holds(now, index, left, out);
        if !left.is_empty() {
            let tasks = &self.tasks;
            self.timers.mark_stale(|timer| Self::is_armed(tasks, timer));
        }
    }

    /// Releases all other holds of a WAITING task, which becomes QUEUED if none is left.
    fn keep_holds(&mut self, now: Timestamp, index: u32, left: Holds, out: &mut Decisions) {
        if left.is_empty() {
            self.emit(now, index, TaskState::Queued, None, TaskChange::Eligible, out);
        } else {
            self.set_holds(index, left);
        }
    }

    /// The parents that a task waits for; `None` if it waits for none.
    pub fn unfinished_parents(&self, id: &TaskId) -> Option<UnfinishedParents> {
        let index = self.tasks.find(id)?;
        let task = self.tasks.get(index).filter(|task| task.holds.contains(Hold::Parents))?;
        let is_unfinished = |id: &&TaskId| {
            let parent = self.tasks.find(id).and_then(|index| self.tasks.get(index));
            parent.is_some_and(|parent| !parent.state.is_terminal())
        };
        let parents = task.spec.extras().dependencies.iter().flat_map(|dependencies| &dependencies.parents);
        let examined = parents.map(|parent| &parent.id).take(PARENTS_EXAMINED_MAX);
        let ids = examined.filter(is_unfinished).take(UNFINISHED_PARENTS_SHOWN).cloned().collect();
        Some(UnfinishedParents { count: self.dependencies.left(index), ids })
    }

    /// Compares the table of dependencies with the tasks.
    #[cfg(test)]
    pub(super) fn check_dependencies(&self) {
        let mut expected: std::collections::BTreeMap<u32, (usize, usize)> = std::collections::BTreeMap::new();
        let waiting = self.dependencies.waiting();
        let mut waits = 0;
        for (index, task) in self.tasks.iter() {
            let holds = task.holds.contains(Hold::Parents);
            assert_eq!(waiting.contains_key(&index), holds, "{} waits for parents", task.spec.id);
            waits += usize::from(holds);
            let Some(dependencies) = &task.spec.extras().dependencies else { continue };
            for id in dependencies.parents.iter().map(|parent| &parent.id) {
                let parent = self.tasks.find(id).expect("the parents of an unfinished task exist");
                let state = self.tasks.get(parent).expect("a task").state;
                let counts = expected.entry(parent).or_default();
                counts.0 += 1;
                counts.1 += usize::from(holds && !state.is_terminal());
                assert_eq!(self.finished.is_pinned(parent), state.is_terminal(), "{id} is kept for its children");
            }
        }
        assert_eq!(self.dependencies.counts(&self.tasks), expected, "children of each task");
        assert_eq!(waiting.len(), waits);
        assert_eq!(self.finished.pinned(), expected.keys().filter(|parent| self.is_finished(**parent)).count());
    }

    #[cfg(test)]
    fn is_finished(&self, index: u32) -> bool {
        self.tasks.get(index).is_some_and(|task| task.state.is_terminal())
    }
}
