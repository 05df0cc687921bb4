//! Forgetting finished tasks, by count and age, in small steps.

use crate::model::{Change, TaskFilter, Timestamp};

use super::{Core, Output};

/// A finished task, in the order of finishing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    pub slot: u32,
    pub incarnation: u32,
}

impl Core {
    /// Forgets finished tasks beyond the bounds, at most `steps` of them. Answers whether more remain.
    pub fn sweep(&mut self, now: Timestamp, steps: usize, out: &mut Output) -> bool {
        let mut due = Vec::new();
        let (count_max, age_max) = (self.options.retention_count, self.options.retention_age);
        for queue in self.finished.values_mut() {
            while due.len() < steps
                && let Some(oldest) = queue.front().copied()
            {
                let Some(task) = self.tasks.get(oldest.slot).filter(|task| task.incarnation == oldest.incarnation)
                else {
                    queue.pop_front();
                    continue;
                };
                if queue.len() <= count_max && now.since(task.eligible_at) < age_max {
                    break;
                }
                queue.pop_front();
                due.push(oldest.slot);
            }
        }
        self.finished.retain(|_, queue| !queue.is_empty());
        for slot in &due {
            self.delete(now, *slot, out);
        }
        due.len() == steps
    }

    /// Forgets finished tasks that match. Answers how many.
    pub fn delete_matching(&mut self, now: Timestamp, filter: &TaskFilter, out: &mut Output) -> u64 {
        let matches = |task: &super::table::Slot| {
            task.state.is_terminal() && filter.matches(&task.spec, task.state, task.submitted_at)
        };
        let due: Vec<u32> = self.tasks.iter().filter(|(_, task)| matches(task)).map(|(slot, _)| slot).collect();
        for slot in &due {
            self.delete(now, *slot, out);
        }
        due.len() as u64
    }

    fn delete(&mut self, now: Timestamp, slot: u32, out: &mut Output) {
        if let Some(state) = self.tasks.get(slot).map(|task| task.state) {
            self.emit(now, slot, state, None, Change::Deleted, out);
        }
    }
}
