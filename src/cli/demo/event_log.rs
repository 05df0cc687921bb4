//! The events that the watch delivered, by task.

use std::collections::HashMap;

use crate::proto::v1::{TaskEvent, TaskState};

/// All events since the submission. A task is identified by its index in the submission.
pub struct EventLog {
    ids: Vec<String>,
    index_of: HashMap<String, usize>,
    /// Events of each task, in the order of their arrival.
    by_task: Vec<Vec<TaskEvent>>,
    /// Revisions in the order of their arrival.
    revisions: Vec<u64>,
    /// IDs of tasks that the demo did not submit.
    unknown: Vec<String>,
    unfinished: usize,
}

impl EventLog {
    pub fn new(ids: Vec<String>) -> Self {
        let index_of = ids.iter().enumerate().map(|(index, id)| (id.clone(), index)).collect();
        let by_task = vec![Vec::new(); ids.len()];
        let unfinished = ids.len();
        Self { ids, index_of, by_task, revisions: Vec::new(), unknown: Vec::new(), unfinished }
    }

    pub fn add(&mut self, event: TaskEvent) {
        self.revisions.push(event.revision);
        match self.index(&event.task_id) {
            Some(index) => {
                let ended_before = self.by_task[index].last().is_some_and(|last| is_terminal(last.state()));
                if is_terminal(event.state()) && !ended_before {
                    self.unfinished -= 1;
                }
                self.by_task[index].push(event);
            }
            None => self.unknown.push(event.task_id),
        }
    }

    pub fn index(&self, id: &str) -> Option<usize> {
        self.index_of.get(id).copied()
    }

    pub fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    pub fn events_of(&self, index: usize) -> &[TaskEvent] {
        &self.by_task[index]
    }

    pub fn task_count(&self) -> usize {
        self.ids.len()
    }

    pub fn revisions(&self) -> &[u64] {
        &self.revisions
    }

    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    pub fn event_count(&self) -> usize {
        self.revisions.len()
    }

    pub fn unfinished(&self) -> usize {
        self.unfinished
    }
}

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
    fn each_task_is_counted_as_finished_once() {
        let mut log = EventLog::new(vec!["a".to_owned(), "b".to_owned()]);
        log.add(event(1, "a", TaskState::Completed));
        log.add(event(2, "a", TaskState::Completed));
        assert_eq!(log.unfinished(), 1);
        log.add(event(3, "b", TaskState::Failed));
        log.add(event(4, "c", TaskState::Queued));
        assert_eq!(log.unfinished(), 0);
        assert_eq!((log.events_of(0).len(), log.unknown().len(), log.event_count()), (2, 1, 4));
    }
}
