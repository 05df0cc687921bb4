//! Dispatch: which attempts the pools are given, and in what order.

use std::cmp::Reverse;

use crate::model::{Charge, Priority};
use crate::pool::{Assignment, Ticket};

use super::decision_log::DecisionReason;
use super::decisions::{Decisions, Dispatch};
use super::ready_queue::Popped;
use super::state::Core;
use super::table::TaskTable;

/// Of so many dispatches of a queue, one is of a priority whose tasks have waited too long.
const PROMOTION_INTERVAL: u32 = 4;
/// Stale entries of dispatched attempts that are kept in addition to as many as there are live ones.
const STALE_MAX: usize = 64;

impl Core {
    /// Dispatches eligible tasks to their pools, highest priority first. Call it after the commands.
    ///
    /// The window of a pool bounds, for each priority, the attempts of that priority *and higher*. So a full
    /// window of low-priority attempts never delays an urgent task.
    pub fn dispatch(&mut self, out: &mut Decisions) {
        if self.draining {
            return;
        }
        let is_trial = self.dispatch_suspect(out);
        let unstarted = self.pool_of_unstarted_trial();
        for index in 0..self.pools.len() {
            if self.starts_nothing(&self.pools[index]) || unstarted == Some(index) {
                continue;
            }
            for priority in Priority::DESCENDING.into_iter().filter(|_| !is_trial) {
                self.assign_priority(index, priority);
            }
            self.dispatch_assigned(index, out);
            if !is_trial {
                self.pools[index].queues.clear_changed();
            }
        }
    }

    /// Begins attempts of this priority. The queues of a remote pool share the slots that a namespace may have, so each of
    /// them gets one attempt at a time, beginning with a different one in each call.
    fn assign_priority(&mut self, pool: usize, priority: Priority) {
        // While attempts begin, other queues can only lose tasks that could start.
        let queues = self.pools[pool].queues.changed().len();
        let first = scatter(self.stamp, queues);
        let takes_turns = self.pools[pool].spec.max_running_per_namespace.is_some() && queues > 1;
        let mut is_done = false;
        while !is_done {
            is_done = true;
            for at in (first..queues).chain(0..first) {
                let queue = self.pools[pool].queues.changed()[at];
                while self.assign_next(pool, queue, priority) {
                    if takes_turns {
                        is_done = false;
                        break;
                    }
                }
            }
        }
    }

    /// Begins the next attempt of a queue, if its window has room. Returns false if there is none.
    fn assign_next(&mut self, pool: usize, queue: usize, priority: Priority) -> bool {
        if !self.pools[pool].has_room(queue, priority) {
            return false;
        }
        let promoted = self.overdue(pool, queue, priority);
        let (tasks, charge) = (&self.tasks, self.pools[pool].spec.charge);
        let (next, from) = (self.pools[pool].queues.get_mut(queue), promoted.unwrap_or(priority));
        let popped = next.and_then(|queue| queue.ready.pop(from, charge, |entry| Self::is_live(tasks, entry)));
        let Some(Popped { entry, rivals, cost }) = popped else { return false };
        let reason = if promoted.is_some() { DecisionReason::Promoted(rivals) } else { DecisionReason::Turn(rivals) };
        let expected_us = (charge == Charge::SlotTime).then_some(cost);
        let Some(assignment) = self.assign(entry.index, reason, expected_us) else { return false };
        if let Some(queue) = self.pools[pool].queues.get_mut(queue) {
            queue.since_promotion = if promoted.is_some() { 0 } else { queue.since_promotion.saturating_add(1) };
            queue.begun.push(assignment);
        }
        true
    }

    /// The lower priority of which the oldest task has waited too long, if tasks of this priority can start and enough others
    /// were dispatched since a task was promoted.
    fn overdue(&mut self, pool: usize, queue: usize, priority: Priority) -> Option<Priority> {
        let max_wait = self.pools[pool].spec.max_wait?;
        let queue = self.pools[pool].queues.get_mut(queue)?;
        if queue.since_promotion < PROMOTION_INTERVAL - 1 || queue.ready.startable(priority) == 0 {
            return None;
        }
        let lower = Priority::DESCENDING.into_iter().filter(|lower| *lower < priority);
        let oldest = lower.filter_map(|lower| {
            let oldest = queue.ready.oldest_startable(lower)?;
            Some((self.tasks.get(oldest.index)?.since, lower))
        });
        let (since, lower) = oldest.min_by_key(|(since, lower)| (*since, Reverse(*lower)))?;
        (self.now.since(since) > max_wait).then_some(lower)
    }

    /// Dispatches the attempts that have begun. What is held back is only known when all queues have theirs.
    fn dispatch_assigned(&mut self, index: usize, out: &mut Decisions) {
        let pool = u16::try_from(index).unwrap_or(u16::MAX);
        let queues = &mut self.pools[index].queues;
        for at in 0..queues.changed().len() {
            let Some(queue) = queues.get_mut(queues.changed()[at]) else { continue };
            let assignments = std::mem::take(&mut queue.begun);
            let held_back =
                std::array::from_fn(|p| Priority::from_index(p).is_some_and(|p| queue.ready.startable(p) > 0));
            if !assignments.is_empty() || held_back != queue.held_back {
                queue.held_back = held_back;
                out.dispatches.push(Dispatch { pool, handler: queue.handler.clone(), assignments, held_back });
            }
        }
    }

    /// Begins an attempt of a QUEUED task.
    pub(super) fn assign(
        &mut self,
        index: u32,
        reason: DecisionReason,
        expected_us: Option<u64>,
    ) -> Option<Assignment> {
        let (is_careful, fence) = (self.confirms_starts(), self.draw_stamp());
        let task = self.tasks.get_mut(index)?;
        task.stamp = fence;
        task.has_attempt = true;
        let ticket = Ticket { index, pool: task.pool, fence };
        let assignment = Assignment {
            ticket,
            spec: task.spec.clone(),
            submission: task.submission,
            attempt: u32::from(task.attempt) + 1,
            eligible_at: task.since,
            confirm: is_careful || task.spec.options.confirms_start(),
            payload_stored: task.payload_stored,
            urgency: match reason {
                DecisionReason::Promoted(_) => Priority::Critical,
                DecisionReason::Turn(_) | DecisionReason::Trial => task.spec.options.priority,
            },
        };
        let (priority, options) = (assignment.urgency.index(), &task.spec.options);
        let pool = &mut self.pools[usize::from(ticket.pool)];
        pool.take_slot(&options.namespace);
        let queue = pool.queue_for(&options.handler);
        queue.assigned[priority] += 1;
        queue.assigned_order[priority].push_back(ticket);
        pool.decisions.add(self.now, &assignment, reason, expected_us);
        if assignment.urgency != assignment.spec.options.priority {
            pool.promoted.insert(index);
        }
        pool.expected_us.extend(expected_us.map(|us| (index, us)));
        if is_careful {
            self.note_confirmation(ticket);
        }
        Some(assignment)
    }

    /// Records that the dispatched attempt of a task has started or will not start.
    pub(super) fn unassign(&mut self, index: u32) {
        let (tasks, pools) = (&self.tasks, &mut self.pools);
        let Some(task) = tasks.get(index) else { return };
        let (options, pool) = (&task.spec.options, &mut pools[usize::from(task.pool)]);
        let priority = if pool.promoted.remove(&index) { Priority::Critical } else { options.priority }.index();
        let Some(queue) = pool.queue_mut(options) else { return };
        let assigned = &mut queue.assigned[priority];
        *assigned -= 1;
        let order = &mut queue.assigned_order[priority];
        if order.len() > 2 * *assigned + STALE_MAX {
            order.retain(|ticket| is_assigned(tasks, *ticket));
        }
    }

    /// The first dispatched attempt of this priority that has not started.
    pub(super) fn oldest_assigned(&mut self, pool: usize, queue: usize, priority: Priority) -> Option<Ticket> {
        let queue = self.pools[pool].queues.get_mut(queue)?;
        let order = &mut queue.assigned_order[priority.index()];
        while order.front().is_some_and(|ticket| !is_assigned(&self.tasks, *ticket)) {
            order.pop_front();
        }
        order.front().copied()
    }
}

/// An index below `count` that differs from call to call, without a pattern that repeats soon.
fn scatter(stamp: u64, count: usize) -> usize {
    // The upper bits of the product with 2⁶⁴ divided by the golden ratio.
    let mixed = stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).unwrap_or(0).checked_rem(count).unwrap_or(0)
}

pub(super) fn is_assigned(tasks: &TaskTable, ticket: Ticket) -> bool {
    tasks.get(ticket.index).is_some_and(|task| task.is_dispatched() && task.stamp == ticket.fence)
}
