//! What follows from the end of a task, in one place.
//!
//! Every transition to a terminal state adds the task to a list, and [`Core::settle`] works the list off. So a
//! consequence that ends further tasks adds them to the list instead of calling itself, however long the chain is.

use std::sync::Arc;

use crate::model::{Revision, TaskExtras, TaskSpec, TaskState};

use super::finished::FinishedTask;
use super::state::{Core, attached_bytes};

impl Core {
    /// Runs the consequences of all ends since the last call. Called after each event, also during a replay.
    pub(super) fn settle(&mut self) {
        while let Some((index, revision)) = self.ended.pop_front() {
            self.release_memory(index);
            self.begin_retention(index, revision);
            self.unique_keys.add_result(&self.tasks, index, revision);
        }
    }

    /// Drops what a finished task does not need.
    fn release_memory(&mut self, index: u32) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.cancel = None;
        self.payload_bytes -= task.spec.payload.len() as u64;
        self.attached_bytes -= attached_bytes(&task.spec);
        let is_completed = task.state == TaskState::Completed;
        let extras = task.spec.extras();
        let has_more = !extras.args.is_empty()
            || extras.trace.is_some()
            || extras.dependencies.is_some()
            || extras.unique.is_some();
        if has_more || !task.spec.payload.is_empty() {
            let (args, dependencies) = (Box::default(), None);
            let kept = extras.clone();
            // By which its result is found.
            let unique = kept.unique.filter(|unique| is_completed && unique.reuse_result_within.is_some());
            let extras = TaskExtras { args, request: None, trace: None, dependencies, unique, ..kept }.boxed();
            task.spec = Arc::new(TaskSpec { extras, ..task.spec.without_payload() });
        }
    }

    fn begin_retention(&mut self, index: u32, ended: Revision) {
        let Some(task) = self.tasks.get(index) else { return };
        let finished = FinishedTask { ended, index, submission: task.submission };
        let namespace = &task.spec.options.namespace;
        self.finished.push(namespace, finished, task.since, task.stored_bytes, &self.options.retention);
    }
}
