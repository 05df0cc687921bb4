//! The one place where tasks change: an event happens.

use std::sync::Arc;

use crate::model::{Change, Event, InterruptCause, TaskExtras, TaskSpec, TaskState};

use super::Core;
use super::ready_queue::Entry;
use super::retention::Finish;
use super::table::{self, Slot};
use super::timers::{Due, Timer};

impl Core {
    /// A task comes into being.
    pub(super) fn insert(&mut self, event: &Event) {
        let Change::Submitted { spec } = &event.change else { return };
        let pool = self.pool_of(&spec.options.pool);
        let (digest, (spec, payload_stored)) = (table::digest(spec), self.keep(spec));
        let expected = spec.extras().not_before.filter(|at| *at > event.at).unwrap_or(event.at);
        let slot = self.tasks.insert(Slot {
            spec,
            submitted_at: event.at,
            eligible_at: expected,
            fence: 0,
            cancel: None,
            generation: 0,
            incarnation: 0,
            attempt: 0,
            digest,
            crashes: 0,
            pool,
            state: event.state,
            assigned: false,
            payload_stored,
        });
        self.revision = event.revision;
        self.pools[usize::from(pool)].counters.submitted += 1;
        self.add_expiry(slot);
        self.enter(slot, false);
    }

    /// What is kept of a task in memory, and whether its payload is not: there is a budget for payloads.
    pub(super) fn keep(&mut self, spec: &Arc<TaskSpec>) -> (Arc<TaskSpec>, bool) {
        let bytes = spec.payload.len() as u64;
        if bytes > 0 && self.payload_bytes + bytes > self.options.payload_bytes_max {
            return (Arc::new(spec.without_payload()), true);
        }
        self.payload_bytes += bytes;
        (spec.clone(), false)
    }

    pub(super) fn add_expiry(&mut self, slot: u32) {
        if let Some(task) = self.tasks.get(slot)
            && let Some(at) = task.spec.extras().expires_at
        {
            self.timers.add(Timer { at, slot, stamp: task.incarnation, due: Due::Expiry });
        }
    }

    /// A task changes.
    pub(super) fn evolve(&mut self, slot: u32, event: &Event) {
        self.revision = event.revision;
        if matches!(event.change, Change::Deleted) {
            self.forget(slot);
            return;
        }
        let moved = self.tasks.get(slot).is_some_and(|task| task.state != event.state);
        if moved {
            self.leave(slot);
        }
        let Some(task) = self.tasks.get_mut(slot) else { return };
        task.state = event.state;
        task.attempt = event.attempt;
        match &event.change {
            Change::Retrying { not_before, .. } => {
                task.eligible_at = *not_before;
                task.crashes = 0;
            }
            Change::Interrupted { cause } => {
                task.eligible_at = event.at;
                task.crashes += u16::from(*cause == InterruptCause::Crash);
            }
            Change::CancelRequested { request } => task.cancel = Some(request.clone()),
            Change::Eligible | Change::Completed { .. } | Change::Failed { .. } | Change::Cancelled { .. } => {
                task.eligible_at = event.at;
            }
            Change::Submitted { .. } | Change::Started { .. } | Change::Deleted => {}
        }
        if moved {
            self.count(slot, event);
            self.enter(slot, matches!(event.change, Change::Interrupted { .. }));
        }
    }

    /// Takes the task out of what counts or holds it in its present state.
    fn leave(&mut self, slot: u32) {
        let Some(task) = self.tasks.get(slot) else { return };
        let pool = usize::from(task.pool);
        let (state, assigned, priority) = (task.state, task.assigned, task.spec.options.priority);
        if let Some(count) = self.pools[pool].count(state) {
            *count -= 1;
        }
        if state != TaskState::Queued {
            return;
        }
        if let Some(task) = self.tasks.get_mut(slot) {
            task.generation = task.generation.wrapping_add(1);
        }
        if assigned {
            self.unassign(slot);
        } else {
            let tasks = &self.tasks;
            self.pools[pool].lanes.forget(priority, |entry| Self::is_live(tasks, entry));
        }
    }

    /// Puts the task where its state belongs.
    pub(super) fn enter(&mut self, slot: u32, first: bool) {
        let Some(task) = self.tasks.get_mut(slot) else { return };
        let pool = usize::from(task.pool);
        if task.state != TaskState::Running {
            task.fence = 0;
        }
        if let Some(count) = self.pools[pool].count(task.state) {
            *count += 1;
        }
        match task.state {
            TaskState::Waiting => {
                task.generation = task.generation.wrapping_add(1);
                let timer = Timer { at: task.eligible_at, slot, stamp: task.generation, due: Due::Eligible };
                self.timers.add(timer);
            }
            TaskState::Queued => {
                task.generation = task.generation.wrapping_add(1);
                let entry = Entry { slot, generation: task.generation };
                let (priority, key) = (task.spec.options.priority, &task.spec.options.namespace);
                let lanes = &mut self.pools[pool].lanes;
                if first {
                    lanes.push_front(priority, key, entry);
                } else {
                    lanes.push(priority, key, entry);
                }
            }
            TaskState::Running => {}
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => self.finish(slot),
        }
    }

    fn finish(&mut self, slot: u32) {
        let Some(task) = self.tasks.get_mut(slot) else { return };
        task.cancel = None;
        self.payload_bytes -= task.spec.payload.len() as u64;
        let extras = task.spec.extras();
        if !task.spec.payload.is_empty() || !extras.args.is_empty() || extras.trace.is_some() {
            let extras = TaskExtras { args: Box::default(), trace: None, ..extras.clone() }.boxed();
            task.spec = Arc::new(TaskSpec { extras, ..task.spec.without_payload() });
        }
        let finish = Finish { slot, incarnation: task.incarnation };
        self.finished.entry_ref(&task.spec.options.namespace).or_default().push_back(finish);
    }

    fn forget(&mut self, slot: u32) {
        if let Some(task) = self.tasks.remove(slot) {
            self.pools[usize::from(task.pool)].counters.deleted += 1;
        }
    }

    fn count(&mut self, slot: u32, event: &Event) {
        let Some(task) = self.tasks.get(slot) else { return };
        let pool = &mut self.pools[usize::from(task.pool)];
        match &event.change {
            Change::Started { .. } => {
                pool.counters.attempts += 1;
                pool.wait_us
                    .saturating_record(event.at.since(task.eligible_at).as_micros().try_into().unwrap_or(u64::MAX));
            }
            Change::Completed { usage, .. } => {
                pool.counters.completed += 1;
                pool.run_us.saturating_record(usage.run_time.as_micros().try_into().unwrap_or(u64::MAX));
            }
            Change::Retrying { usage, .. } => {
                pool.counters.retried += 1;
                pool.run_us.saturating_record(usage.run_time.as_micros().try_into().unwrap_or(u64::MAX));
            }
            Change::Failed { usage, .. } => {
                pool.counters.failed += 1;
                if let Some(usage) = usage {
                    pool.run_us.saturating_record(usage.run_time.as_micros().try_into().unwrap_or(u64::MAX));
                }
            }
            Change::Cancelled { .. } => pool.counters.cancelled += 1,
            _ => {}
        }
    }
}
