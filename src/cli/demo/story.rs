//! What the watch told, task by task.

use std::collections::HashMap;

use crate::proto::v1::{TaskEvent, TaskState};

/// All events since the submission.
pub struct Story {
    ids: Vec<String>,
    numbers: HashMap<String, usize>,
    /// Events of each task, in the order in which they came.
    chapters: Vec<Vec<TaskEvent>>,
    /// Revisions in the order in which they came.
    revisions: Vec<u64>,
    strangers: Vec<String>,
    open: usize,
}

impl Story {
    /// Nothing has happened yet to these tasks.
    pub fn new(ids: Vec<String>) -> Self {
        let numbers = ids.iter().enumerate().map(|(number, id)| (id.clone(), number)).collect();
        let chapters = vec![Vec::new(); ids.len()];
        let open = ids.len();
        Self { ids, numbers, chapters, revisions: Vec::new(), strangers: Vec::new(), open }
    }

    /// Adds what happened next.
    pub fn add(&mut self, event: TaskEvent) {
        self.revisions.push(event.revision);
        match self.number(&event.task_id) {
            Some(number) => {
                let ended_before = self.chapters[number].last().is_some_and(|last| is_terminal(last.state()));
                if is_terminal(event.state()) && !ended_before {
                    self.open -= 1;
                }
                self.chapters[number].push(event);
            }
            None => self.strangers.push(event.task_id),
        }
    }

    /// Place of a task in the plan.
    pub fn number(&self, id: &str) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    /// Identity of a task of the plan.
    pub fn id(&self, number: usize) -> &str {
        &self.ids[number]
    }

    /// Events of one task.
    pub fn of(&self, number: usize) -> &[TaskEvent] {
        &self.chapters[number]
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.ids.len()
    }

    /// Revisions in the order in which they came.
    pub fn revisions(&self) -> &[u64] {
        &self.revisions
    }

    /// Tasks that nobody here has submitted.
    pub fn strangers(&self) -> &[String] {
        &self.strangers
    }

    /// How many events there were.
    pub fn events(&self) -> usize {
        self.revisions.len()
    }

    /// Tasks that have not ended.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether every task has ended.
    pub fn is_over(&self) -> bool {
        self.open == 0
    }
}

/// Whether a state is the last of a task.
pub fn is_terminal(state: TaskState) -> bool {
    matches!(state, TaskState::Completed | TaskState::Failed | TaskState::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, id: &str, state: TaskState) -> TaskEvent {
        TaskEvent { revision, task_id: id.to_owned(), state: state.into(), ..TaskEvent::default() }
    }

    #[test]
    fn a_story_is_over_when_each_task_has_ended_once() {
        let mut story = Story::new(vec!["a".to_owned(), "b".to_owned()]);
        story.add(event(1, "a", TaskState::Completed));
        story.add(event(2, "a", TaskState::Completed));
        assert!(!story.is_over() && story.open() == 1);
        story.add(event(3, "b", TaskState::Failed));
        story.add(event(4, "c", TaskState::Queued));
        assert!(story.is_over());
        assert_eq!((story.of(0).len(), story.strangers().len(), story.events()), (2, 1, 4));
    }
}
