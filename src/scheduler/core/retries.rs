//! The newest retry of each task that was submitted once more, so that a retry of its child waits for that one.

use hashbrown::HashMap;

use crate::model::{TaskId, TaskSpec};

use super::table::TaskTable;

#[derive(Debug, Default)]
pub(super) struct Retries {
    /// By the task that was submitted once more. Both exist.
    newest: HashMap<TaskId, TaskId>,
}

impl Retries {
    /// A task was added; it is a retry, or not.
    pub fn add(&mut self, spec: &TaskSpec, tasks: &TaskTable) {
        if let Some(ended) = spec.extras().retry_of.as_ref().filter(|ended| tasks.find(ended).is_some()) {
            self.newest.insert(ended.clone(), spec.id.clone());
        }
    }

    /// A task was deleted.
    pub fn remove(&mut self, spec: &TaskSpec) {
        self.newest.remove(&spec.id);
        if let Some(ended) = &spec.extras().retry_of
            && self.newest.get(ended) == Some(&spec.id)
        {
            self.newest.remove(ended);
        }
    }

    /// The newest retry of a task, or of its retries; the task itself if there is none.
    pub fn newest_of<'a>(&'a self, mut id: &'a TaskId) -> &'a TaskId {
        // A retry is younger than its task, so that this ends.
        while let Some(retry) = self.newest.get(id) {
            id = retry;
        }
        id
    }
}
