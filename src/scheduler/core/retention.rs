//! Deleting finished tasks: by number, bytes and age, and on request.
//!
//! Both work in steps, so that a long backlog does not stop the scheduler.

use std::ops::Range;

use crate::model::{Revision, TaskChange, TaskFilter, TaskId, Timestamp};

use super::decisions::Decisions;
use super::state::Core;

/// Tasks that one sweep deletes at most.
const SWEEP_MAX: usize = 16_384;

/// A request to delete the finished tasks that match a filter.
///
/// It concerns the tasks that had ended when it began. A task that is submitted or ends while the request is carried
/// out stays, even if it matches.
#[derive(Debug)]
pub struct Deletion {
    /// Without its IDs.
    filter: TaskFilter,
    ids: Vec<TaskId>,
    /// Lists of the namespaces that the filter names.
    named: Vec<u32>,
    /// All lists if it names none.
    all: Range<u32>,
    /// The list that is being read, and the last end read.
    position: Option<(u32, Revision)>,
    /// Revision at which the request began.
    until: Revision,
    deleted: u64,
}

impl Deletion {
    /// Number of tasks deleted so far.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }
}

impl Core {
    /// Deletes finished tasks that exceed the retention, the oldest end of a namespace first, and then batches that had no
    /// task for too long. Returns whether more may be due.
    ///
    /// Deletes at most `spare` tasks and twice as many as have ended since the last call, so that a backlog shrinks
    /// at every rate of submissions.
    pub fn sweep(&mut self, now: Timestamp, spare: usize, out: &mut Decisions) -> bool {
        let limit = (spare + 2 * self.finished.take_added()).min(SWEEP_MAX);
        for _ in 0..limit {
            match self.pop_due(now) {
                Some(index) => self.delete(now, index, out),
                None if !self.delete_idle_batch(now, out) => return false,
                None => {}
            }
        }
        true
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        let retention = &self.options.retention;
        let over = self.finished.pop_over(retention, &self.tasks);
        over.or_else(|| {
            let age = u64::try_from(retention.age.as_micros()).ok()?;
            self.finished.pop_aged(Timestamp(now.0.checked_sub(age)?), &self.tasks)
        })
    }

    /// Begins to delete the finished tasks that match the filter.
    pub fn begin_deletion(&self, mut filter: TaskFilter) -> Deletion {
        let mut ids = std::mem::take(&mut filter.ids);
        let is_by_id = !ids.is_empty();
        // What ends later stays.
        ids.retain(|id| {
            let task = self.tasks.find(id).and_then(|index| self.tasks.get(index));
            task.is_some_and(|task| task.state.is_terminal())
        });
        let named: Vec<u32> = filter.namespaces.iter().filter_map(|name| self.finished.list_of(name)).collect();
        let all = if filter.namespaces.is_empty() && !is_by_id { 0..self.finished.lists() } else { 0..0 };
        let named = if is_by_id { Vec::new() } else { named };
        Deletion { filter, ids, named, all, position: None, until: self.revision, deleted: 0 }
    }

    /// Continues a deletion; reads at most `limit` finished tasks. Returns whether it is complete.
    pub fn continue_deletion(
        &mut self,
        now: Timestamp,
        deletion: &mut Deletion,
        limit: usize,
        out: &mut Decisions,
    ) -> bool {
        let first_id = deletion.ids.len().saturating_sub(limit);
        for id in deletion.ids.split_off(first_id) {
            if let Some(index) = self.tasks.find(&id) {
                self.delete_if_matching(now, index, deletion, out);
            }
        }
        if first_id > 0 {
            return false;
        }
        let mut left = limit;
        while left > 0 {
            let next_list = || deletion.named.pop().or_else(|| deletion.all.next()).map(|list| (list, Revision(0)));
            let Some((list, after)) = deletion.position.take().or_else(next_list) else { return true };
            let tasks = self.finished.range(list, after, deletion.until, left);
            // An empty list counts as well: there may be many.
            left -= tasks.len().max(1);
            deletion.position = tasks.last().map(|last| (list, last.ended));
            for task in tasks {
                if task.is_live(&self.tasks) {
                    self.delete_if_matching(now, task.index, deletion, out);
                }
            }
        }
        false
    }

    fn delete_if_matching(&mut self, now: Timestamp, index: u32, deletion: &mut Deletion, out: &mut Decisions) {
        let matches = self.tasks.get(index).is_some_and(|task| {
            task.state.is_terminal() && deletion.filter.matches(&task.spec, task.state, task.submitted_at)
        });
        if matches && !self.finished.is_pinned(index) {
            self.delete(now, index, out);
            deletion.deleted += 1;
        }
    }

    /// Deletes the finished tasks that match the filter in one step and returns their number.
    #[cfg(test)]
    pub fn delete_matching(&mut self, now: Timestamp, filter: &TaskFilter, out: &mut Decisions) -> u64 {
        let mut deletion = self.begin_deletion(filter.clone());
        while !self.continue_deletion(now, &mut deletion, 3, out) {}
        deletion.deleted()
    }

    fn delete(&mut self, now: Timestamp, index: u32, out: &mut Decisions) {
        if let Some(state) = self.tasks.get(index).map(|task| task.state) {
            self.emit(now, index, state, None, TaskChange::Deleted, out);
        }
    }
}
