//! Promotion: while tasks of a lower priority have waited too long, few of higher ones are dispatched before one of them.

use std::collections::BTreeMap;

use crate::model::{TaskOptions, TaskState, Timestamp};
use crate::pool::Assignment;

use super::super::state::Core;
use super::cores::MAX_WAIT;
use super::fairness::band;
use super::history::History;

/// Of so many dispatches, one is of a priority whose tasks have waited too long.
const INTERVAL: usize = 4;

/// By pool and handler: attempts that were dispatched before tasks that had waited too long, since one was promoted.
#[derive(Default)]
pub struct Promotions(BTreeMap<(u16, Option<u8>), usize>);

impl Promotions {
    /// Checks what was dispatched in a step, in its order.
    pub fn observe<'a>(
        &mut self,
        core: &Core,
        live: &History,
        now: u64,
        dispatched: impl Iterator<Item = &'a Assignment> + Clone,
    ) {
        let is_overdue = |pool: u16, since: Timestamp| {
            MAX_WAIT[usize::from(pool)].is_some_and(|max| Timestamp(now).since(since) > max)
        };
        // Tasks that still wait have waited during the whole step.
        let waits = |options: &TaskOptions| {
            let (pool, handler, priority) = band(core, options);
            let mut queued = live.tasks.iter().filter(|(id, task)| {
                let other = &task.spec.options;
                let can_start = task.state == TaskState::Queued && core.ticket(id).is_none();
                let (of, by, with) = band(core, other);
                let is_held = core.pools[usize::from(of)].queues.is_full(&other.namespace);
                can_start && (of, by) == (pool, handler) && with < priority && !is_held && is_overdue(pool, task.since)
            });
            queued.next().is_some()
        };
        for assignment in dispatched.clone().filter(|assignment| !core.is_on_trial(assignment.ticket)) {
            let options = &assignment.spec.options;
            let (pool, handler, priority) = band(core, options);
            let passed = self.0.entry((pool, handler)).or_default();
            if assignment.urgency != priority {
                let of_band =
                    dispatched.clone().filter(|other| band(core, &other.spec.options) == (pool, handler, priority));
                let was_overdue = of_band.map(|other| other.eligible_at).any(|since| is_overdue(pool, since));
                let is_overdue = live.tasks.values().any(|task| {
                    let waits =
                        task.state == TaskState::Queued && band(core, &task.spec.options) == (pool, handler, priority);
                    waits && is_overdue(pool, task.since)
                });
                assert!(was_overdue || is_overdue, "{} is promoted without need", assignment.spec.id);
                *passed = 0;
            } else if waits(options) {
                *passed += 1;
                assert!(*passed < INTERVAL, "{passed} tasks start before some that have waited too long");
            }
        }
    }
}
