//! The only place where tasks change: applying an event.

use std::sync::Arc;

use crate::model::{InterruptCause, Revision, TaskChange, TaskEvent, TaskExtras, TaskSpec, TaskState};

use super::finished::FinishedTask;
use super::ready_queue::QueueEntry;
use super::state::{Core, attached_bytes};
use super::table::{self, TaskEntry};
use super::timers::{Timer, TimerKind};

impl Core {
    /// Applies a `Submitted` event: adds the task.
    pub(super) fn apply_submitted(&mut self, event: &TaskEvent) {
        let TaskChange::Submitted { spec } = &event.change else { return };
        let pool = self.pool_of(&spec.options.pool);
        let digest = table::digest(&spec.payload, &spec.extras().args);
        self.attached_bytes += attached_bytes(spec);
        let (spec, payload_stored) = self.retain_payload(spec);
        let eligible_at = spec.extras().not_before.filter(|at| *at > event.at).unwrap_or(event.at);
        let index = self.tasks.insert(TaskEntry {
            spec,
            submitted_at: event.at,
            eligible_at,
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
        self.add_expiry_timer(index);
        self.enter_state(index, event.revision, false);
    }

    /// Applies any other event to an existing task.
    pub(super) fn apply(&mut self, index: u32, event: &TaskEvent) {
        self.revision = event.revision;
        if matches!(event.change, TaskChange::Deleted) {
            if let Some(task) = self.tasks.remove(index) {
                self.pools[usize::from(task.pool)].counters.deleted += 1;
                self.finished.remove(&task.spec.options.namespace, &self.tasks);
            }
            return;
        }
        let changes_state = self.tasks.get(index).is_some_and(|task| task.state != event.state);
        if changes_state {
            self.leave_state(index);
        }
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.state = event.state;
        task.attempt = event.attempt;
        match &event.change {
            TaskChange::Retrying { not_before, .. } => {
                task.eligible_at = *not_before;
                task.crashes = 0;
            }
            TaskChange::Interrupted { cause } => {
                task.eligible_at = event.at;
                task.crashes += u16::from(*cause == InterruptCause::Crash);
            }
            TaskChange::CancelRequested { request } => task.cancel = Some(request.clone()),
            TaskChange::Eligible
            | TaskChange::Completed { .. }
            | TaskChange::Failed { .. }
            | TaskChange::Cancelled { .. } => {
                task.eligible_at = event.at;
            }
            TaskChange::Submitted { .. } | TaskChange::Started { .. } | TaskChange::Deleted => {}
        }
        if changes_state {
            self.count(index, event);
            self.enter_state(index, event.revision, matches!(event.change, TaskChange::Interrupted { .. }));
        }
    }

    /// Counts a payload that is kept in memory. Returns false if the payload budget has no room for it.
    pub(super) fn reserve_payload(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if bytes > 0 && self.payload_bytes + bytes > self.options.payload_bytes_max {
            return false;
        }
        self.payload_bytes += bytes;
        true
    }

    /// The spec to keep in memory, and whether its payload was left out because the payload budget is used up.
    pub(super) fn retain_payload(&mut self, spec: &Arc<TaskSpec>) -> (Arc<TaskSpec>, bool) {
        if !self.reserve_payload(spec.payload.len()) {
            return (Arc::new(spec.without_payload()), true);
        }
        (spec.clone(), false)
    }

    pub(super) fn add_expiry_timer(&mut self, index: u32) {
        if let Some(task) = self.tasks.get(index)
            && let Some(at) = task.spec.extras().expires_at
        {
            self.timers.add(Timer { at, index, stamp: task.incarnation, kind: TimerKind::Expiry });
        }
    }

    /// Removes the task from the counts and queues of its present state.
    fn leave_state(&mut self, index: u32) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let pool = usize::from(task.pool);
        if let Some(count) = self.pools[pool].count_mut(task.state) {
            *count -= 1;
        }
        if task.state != TaskState::Queued {
            return;
        }
        if task.assigned {
            task.generation = task.generation.wrapping_add(1);
            self.unassign(index);
        } else {
            self.leave_ready_queue(index);
        }
    }

    pub(super) fn leave_ready_queue(&mut self, index: u32) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.generation = task.generation.wrapping_add(1);
        let (tasks, pools) = (&self.tasks, &mut self.pools);
        let Some(task) = tasks.get(index) else { return };
        let (priority, key) = (task.spec.options.priority, &task.spec.options.namespace);
        pools[usize::from(task.pool)].ready.mark_stale(priority, key, |entry| Self::is_live(tasks, entry));
    }

    /// Adds the task to the counts and queues of its state, which it entered at `revision`; `first` puts it at the
    /// front of its queue.
    pub(super) fn enter_state(&mut self, index: u32, revision: Revision, first: bool) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let pool = &mut self.pools[usize::from(task.pool)];
        if task.state != TaskState::Running {
            task.fence = 0;
        }
        if let Some(count) = pool.count_mut(task.state) {
            *count += 1;
        }
        match task.state {
            TaskState::Waiting => {
                task.generation = task.generation.wrapping_add(1);
                let (at, stamp) = (task.eligible_at, task.generation);
                self.timers.add(Timer { at, index, stamp, kind: TimerKind::Eligible });
            }
            TaskState::Queued => {
                task.generation = task.generation.wrapping_add(1);
                let entry = QueueEntry { index, generation: task.generation };
                let (priority, key) = (task.spec.options.priority, &task.spec.options.namespace);
                if first {
                    pool.ready.push_front(priority, key, entry);
                } else {
                    pool.ready.push(priority, key, entry);
                }
            }
            TaskState::Running => {}
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => self.release_memory(index, revision),
        }
    }

    /// Drops what a finished task does not need, and queues the task for retention.
    fn release_memory(&mut self, index: u32, ended: Revision) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        task.cancel = None;
        self.payload_bytes -= task.spec.payload.len() as u64;
        self.attached_bytes -= attached_bytes(&task.spec);
        let extras = task.spec.extras();
        if !task.spec.payload.is_empty() || !extras.args.is_empty() || extras.trace.is_some() {
            let extras = TaskExtras { args: Box::default(), trace: None, ..extras.clone() }.boxed();
            task.spec = Arc::new(TaskSpec { extras, ..task.spec.without_payload() });
        }
        let finished = FinishedTask { ended, index, incarnation: task.incarnation };
        let (namespace, at) = (&task.spec.options.namespace, task.eligible_at);
        self.finished.push(namespace, finished, at, self.options.retention_count);
    }

    fn count(&mut self, index: u32, event: &TaskEvent) {
        let Some(task) = self.tasks.get(index) else { return };
        let pool = &mut self.pools[usize::from(task.pool)];
        let usage = match &event.change {
            TaskChange::Started { .. } => {
                pool.counters.attempts += 1;
                let waited = event.at.since(task.eligible_at);
                pool.wait_us.saturating_record(waited.as_micros().try_into().unwrap_or(u64::MAX));
                None
            }
            TaskChange::Completed { usage, .. } => {
                pool.counters.completed += 1;
                Some(usage)
            }
            TaskChange::Retrying { usage, .. } => {
                pool.counters.retried += 1;
                Some(usage)
            }
            TaskChange::Failed { usage, .. } => {
                pool.counters.failed += 1;
                usage.as_ref()
            }
            TaskChange::Cancelled { .. } => {
                pool.counters.cancelled += 1;
                None
            }
            _ => None,
        };
        if let Some(usage) = usage {
            pool.run_us.saturating_record(usage.run_time.as_micros().try_into().unwrap_or(u64::MAX));
        }
    }
}
