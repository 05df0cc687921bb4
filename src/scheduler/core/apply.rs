//! The only place where tasks change: applying an event.

use std::sync::Arc;

use crate::model::{Hold, Holds, Lease, LimitHold, Revision, TaskChange, TaskEvent, TaskSpec, TaskState, Timestamp};

use super::key_queue::QueueEntry;
use super::state::{Core, attached_bytes};
use super::table::TaskEntry;
use super::timers::{Purpose, Timer};

/// How a task has entered its state.
pub(super) struct Entered {
    /// For its timer or its entry in a queue.
    pub stamp: u64,
    pub revision: Revision,
    /// Matters for WAITING tasks only.
    pub eligible_at: Timestamp,
    /// Its attempt was interrupted, so that it starts before others.
    pub interrupted: bool,
}

impl Core {
    /// Applies a `Submitted` event: adds the task and returns its index.
    pub(super) fn apply_submitted(&mut self, event: &TaskEvent) -> Option<u32> {
        let TaskChange::Submitted { spec } = &event.change else { return None };
        let extras = spec.extras();
        let eligible_at = event.at.after(extras.delay.unwrap_or_default());
        let pool = self.pool_of(&spec.options.pool);
        self.revision = event.revision;
        self.pools[usize::from(pool)].counters.submitted += 1;
        self.requests.add(event, spec);
        self.attached_bytes += attached_bytes(spec);
        let expires = extras.expires_after.is_some();
        self.batches.apply_task(event);
        self.schedules.apply_task(event);
        let (spec, payload_stored) = self.retain_payload(spec);
        let mut entry = TaskEntry {
            spec,
            submission: event.revision,
            submitted_at: event.at,
            since: event.at,
            stamp: 0,
            cancel: None,
            stored_bytes: 0,
            attempt: 0,
            crashes: 0,
            pool,
            state: event.state,
            holds: match event.hold {
                Some(_) => Holds::one_if(true, Hold::Limit),
                None => Holds::of_submitted(event.state, extras),
            },
            has_attempt: false,
            has_started: false,
            expires,
            payload_stored,
        };
        entry.add_stored(event.content_bytes() as u64);
        let (stamp, revision) = (self.draw_stamp(), event.revision);
        let entered = Entered { stamp, revision, eligible_at, interrupted: false };
        Some(self.add_task(entry, entered, event.hold.as_deref()))
    }

    /// Adds a task to the table and to the structures of its state. Returns the index.
    pub(super) fn add_task(&mut self, entry: TaskEntry, entered: Entered, hold: Option<&LimitHold>) -> u32 {
        let expires_at = entry.spec.extras().expires_after.filter(|_| entry.expires);
        let expires_at = expires_at.map(|after| entry.submitted_at.after(after));
        let is_unfinished = !entry.state.is_terminal();
        self.pools[usize::from(entry.pool)].held.change(Holds::NONE, entry.holds);
        self.retries.add(&entry.spec, &self.tasks);
        let index = self.tasks.insert(entry);
        if let (Some(at), Some(key)) = (expires_at, self.tasks.expiry_key(index)) {
            self.timers.add(Timer { at, index, purpose: Purpose::Expiry(key) });
        }
        self.enter_state(index, &entered);
        if is_unfinished {
            self.add_to_limits(index, hold);
            self.unique_keys.add(&self.tasks, index);
        }
        index
    }

    /// Applies any other event to an existing task.
    pub(super) fn apply(&mut self, index: u32, event: &TaskEvent) {
        self.revision = event.revision;
        self.batches.apply_task(event);
        self.schedules.apply_task(event);
        if matches!(event.change, TaskChange::Deleted) {
            if let Some(task) = self.tasks.remove(index) {
                self.pools[usize::from(task.pool)].counters.deleted += 1;
                self.finished.remove(&task.spec.options.namespace, task.stored_bytes, &self.tasks);
                self.unique_keys.remove_result(index, &task.spec);
                self.retries.remove(&task.spec);
            }
            return;
        }
        if let TaskChange::Updated { delay, expires_after, .. } = event.change {
            return self.apply_updated(index, event, delay, expires_after);
        }
        self.count(index, event);
        let Some(task) = self.tasks.get_mut(index) else { return };
        let (previous, was_dispatched, held) = (task.state, task.is_dispatched(), task.holds);
        let (had_attempt, began) = (task.has_attempt, task.since);
        task.attempt = u16::try_from(event.attempt).unwrap_or(u16::MAX);
        task.add_stored(event.content_bytes() as u64);
        match &event.change {
            TaskChange::Retrying { .. } => task.crashes = 0,
            TaskChange::Interrupted { cause } => task.crashes += u16::from(cause.counts_as_crash()),
            TaskChange::CancelRequested { request } => task.cancel = Some(request.clone()),
            _ => {}
        }
        if matches!(event.change, TaskChange::Held) {
            return self.hold_by_limit(index, held, event);
        }
        if previous == event.state {
            return;
        }
        task.state = event.state;
        task.since = event.at;
        if event.state.is_terminal() {
            self.unique_keys.remove(index, &task.spec);
        }
        let reason = if event.hold.is_some() { Hold::Limit } else { Hold::BackOff };
        let holds = Holds::one_if(event.state == TaskState::Waiting, reason);
        self.pools[usize::from(task.pool)].held.change(std::mem::replace(&mut task.holds, holds), holds);
        task.has_attempt &= event.state == TaskState::Running;
        task.has_started |= event.state == TaskState::Running;
        if let TaskChange::Started { lease: Lease::Remote { fence }, .. } = event.change
            && !had_attempt
        {
            // While an earlier server ran.
            (task.has_attempt, task.stamp) = (true, fence);
            self.pools[usize::from(task.pool)].take_slot(&task.spec.options.namespace);
        }
        if had_attempt && !task.has_attempt {
            let taken = (previous == TaskState::Running).then(|| event.at.since(began));
            self.pools[usize::from(task.pool)].return_slot(index, &task.spec.options, taken);
        }
        self.leave_state(index, previous, was_dispatched, held);
        if event.state == TaskState::Running || event.state.is_terminal() {
            self.disarm_expiry(index);
        }
        let eligible_at = match event.change {
            TaskChange::Retrying { not_before, .. } => not_before,
            _ => event.at,
        };
        let interrupted = matches!(event.change, TaskChange::Interrupted { .. });
        let (stamp, revision) = (self.draw_stamp(), event.revision);
        self.enter_state(index, &Entered { stamp, revision, eligible_at, interrupted });
        self.move_in_limits(index, previous, event.hold.as_deref(), &event.change);
    }

    /// A limit holds the task instead of a timer.
    fn hold_by_limit(&mut self, index: u32, held: Holds, event: &TaskEvent) {
        let stamp = self.draw_stamp();
        let Some(task) = self.tasks.get_mut(index) else { return };
        (task.stamp, task.since) = (stamp, event.at);
        self.set_holds(index, Holds::one_if(true, Hold::Limit));
        let tasks = &self.tasks;
        if held.has_timer() {
            self.timers.mark_stale(|timer| Self::is_armed(tasks, timer));
        }
        self.move_in_limits(index, event.previous, event.hold.as_deref(), &event.change);
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

    /// The task cannot expire any more: it has started, has ended, or its timer has fired.
    pub(super) fn disarm_expiry(&mut self, index: u32) {
        if !self.tasks.get(index).is_some_and(|task| task.expires) {
            return;
        }
        self.tasks.remove_expiry(index);
        let tasks = &self.tasks;
        self.timers.mark_stale(|timer| Self::is_armed(tasks, timer));
    }

    /// Removes the task from the counts and structures of its former state.
    pub(super) fn leave_state(&mut self, index: u32, previous: TaskState, was_dispatched: bool, held: Holds) {
        let Some(task) = self.tasks.get(index) else { return };
        let pool = usize::from(task.pool);
        if let Some(count) = self.pools[pool].count_mut(previous) {
            *count -= 1;
        }
        let tasks = &self.tasks;
        if held.has_timer() {
            self.timers.mark_stale(|timer| Self::is_armed(tasks, timer));
        }
        if was_dispatched {
            self.unassign(index);
        } else if previous == TaskState::Queued {
            self.leave_ready_queue(index);
        }
    }

    /// Records that the entry of the task in its ready queue has become stale.
    pub(super) fn leave_ready_queue(&mut self, index: u32) {
        let (tasks, pools) = (&self.tasks, &mut self.pools);
        let Some(task) = tasks.get(index) else { return };
        let options = &task.spec.options;
        if let Some(queue) = pools[usize::from(task.pool)].queue_mut(options) {
            queue.ready.mark_stale(options, |entry| Self::is_live(tasks, entry));
        }
    }

    /// Adds the task to the counts and structures of its state.
    pub(super) fn enter_state(&mut self, index: u32, entered: &Entered) {
        let Entered { stamp, revision, eligible_at, interrupted } = *entered;
        let Some(task) = self.tasks.get_mut(index) else { return };
        let pool = &mut self.pools[usize::from(task.pool)];
        if let Some(count) = pool.count_mut(task.state) {
            *count += 1;
        }
        match task.state {
            TaskState::Waiting => {
                task.stamp = stamp;
                if task.holds.has_timer() {
                    self.timers.add(Timer { at: eligible_at, index, purpose: Purpose::Hold(stamp) });
                }
            }
            TaskState::Queued => {
                task.stamp = stamp;
                let (entry, options) = (QueueEntry { index, stamp }, &task.spec.options);
                pool.push(options, entry, interrupted);
            }
            // The stamp stays that of the attempt.
            TaskState::Running => {}
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => self.ended.push_back((index, revision)),
        }
    }

    fn count(&mut self, index: u32, event: &TaskEvent) {
        let Some(task) = self.tasks.get(index) else { return };
        let pool = &mut self.pools[usize::from(task.pool)];
        let usage = match &event.change {
            TaskChange::Started { .. } => {
                pool.counters.attempts += 1;
                let waited = event.at.since(task.since);
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
            pool.queue_for(&task.spec.options.handler).run_time.add(usage.run_time);
        }
    }
}
