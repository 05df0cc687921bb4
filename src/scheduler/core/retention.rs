//! Deleting finished tasks: by count and age, and on request.

use crate::model::{TaskChange, TaskFilter, Timestamp};

use super::decisions::Decisions;
use super::state::Core;
use super::table::TaskEntry;

impl Core {
    /// Deletes up to `limit` finished tasks that exceed the retention count or age. Returns whether more may
    /// remain.
    pub fn sweep(&mut self, now: Timestamp, limit: usize, out: &mut Decisions) -> bool {
        let mut due = Vec::new();
        let (count_max, age_max) = (self.options.retention_count, self.options.retention_age);
        for queue in self.finished.values_mut() {
            while due.len() < limit
                && let Some(oldest) = queue.front().copied()
            {
                let Some(task) = self.tasks.get(oldest.index).filter(|task| task.incarnation == oldest.incarnation)
                else {
                    queue.pop_front();
                    continue;
                };
                if queue.len() <= count_max && now.since(task.eligible_at) < age_max {
                    break;
                }
                queue.pop_front();
                due.push(oldest.index);
            }
        }
        self.finished.retain(|_, queue| !queue.is_empty());
        for index in &due {
            self.delete(now, *index, out);
        }
        due.len() == limit
    }

    /// Deletes the finished tasks that match the filter and returns their number.
    pub fn delete_matching(&mut self, now: Timestamp, filter: &TaskFilter, out: &mut Decisions) -> u64 {
        let matches =
            |task: &TaskEntry| task.state.is_terminal() && filter.matches(&task.spec, task.state, task.submitted_at);
        let due: Vec<u32> = self.tasks.iter().filter(|(_, task)| matches(task)).map(|(index, _)| index).collect();
        for index in &due {
            self.delete(now, *index, out);
        }
        due.len() as u64
    }

    fn delete(&mut self, now: Timestamp, index: u32, out: &mut Decisions) {
        if let Some(state) = self.tasks.get(index).map(|task| task.state) {
            self.emit(now, index, state, None, TaskChange::Deleted, out);
        }
    }
}
