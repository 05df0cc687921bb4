//! Recovery after a stop or a crash: first the tasks of the projection, then the later events of the journal,
//! then decisions about the tasks that were running.

use std::sync::Arc;

use crate::model::{
    CancelReceipt, Event, Hold, Holds, InterruptCause, Lease, RecoveredTask, Revision, StopMethod, TaskChange,
    TaskState, Timestamp,
};

use super::apply::Entered;
use super::decisions::Decisions;
use super::state::{Core, attached_bytes};
use super::table::TaskEntry;
use super::timers::Purpose;

/// Bits of a stamp that count the stamps of one epoch; the epoch is above them.
const STAMP_BITS: u32 = 44;

/// Number of tasks in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCounts {
    pub tasks: usize,
    /// Tasks that have not ended.
    pub unfinished: usize,
}

impl Core {
    /// Counts the tasks by iterating over all of them.
    pub fn recovery_counts(&self) -> RecoveryCounts {
        self.tasks.iter().fold(RecoveryCounts::default(), |counts, (_, task)| RecoveryCounts {
            tasks: counts.tasks + 1,
            unfinished: counts.unfinished + usize::from(!task.state.is_terminal()),
        })
    }

    /// Continues after the revision of the store's projection. Call it before the tasks are restored.
    pub fn restore_revision(&mut self, revision: Revision) {
        self.revision = revision;
        // Restored tasks have the revision of their last change as their stamp.
        self.stamp = revision.0;
        self.requests.begin_after(revision);
    }

    /// Adds a task from the store's projection. Call it in the order of submission. Copies the payload if the task needs
    /// it and the payload budget has room.
    pub fn restore(&mut self, mut task: RecoveredTask, payload: &[u8]) {
        let pool = self.pool_of(&task.spec.options.pool);
        // Released when the task ends, and at once if it has.
        self.attached_bytes += attached_bytes(&task.spec);
        let stored_bytes = (payload.len() + task.spec.attached_bytes()) as u64 + task.produced_bytes;
        let mut payload_stored = false;
        if !task.state.is_terminal() {
            payload_stored = !self.reserve_payload(payload.len());
            if !payload_stored && !payload.is_empty() {
                Arc::make_mut(&mut task.spec).payload = payload.into();
            }
        }
        let holds = if task.hold.is_some() {
            Holds::one_if(task.state == TaskState::Waiting, Hold::Limit)
        } else if task.attempt == 0 {
            Holds::of_submitted(task.state, task.spec.extras())
        } else {
            Holds::one_if(task.state == TaskState::Waiting, Hold::BackOff)
        };
        let may_expire = !task.has_started && !task.state.is_terminal();
        let remote = task.remote.filter(|_| task.state == TaskState::Running).map(|(worker, fence)| {
            let pool = &mut self.pools[usize::from(pool)];
            // Slots are counted in the queues, and a running task needs none of its own.
            pool.queue_for(&task.spec.options.handler);
            pool.take_slot(&task.spec.options.namespace);
            self.remote_workers.insert(fence, worker);
            fence
        });
        let mut entry = TaskEntry {
            expires: may_expire && task.spec.extras().expires_after.is_some(),
            spec: task.spec,
            submission: task.submission,
            submitted_at: task.submitted_at,
            since: task.since,
            stamp: remote.unwrap_or(0),
            cancel: task.cancel,
            stored_bytes: 0,
            attempt: u16::try_from(task.attempt).unwrap_or(u16::MAX),
            crashes: u16::try_from(task.crashes).unwrap_or(u16::MAX),
            pool,
            state: task.state,
            holds,
            has_attempt: remote.is_some(),
            has_started: task.has_started,
            payload_stored,
        };
        entry.add_stored(stored_bytes);
        let (runs, revision) = (entry.state == TaskState::Running, task.revision);
        // The revision is unique like a stamp, and orders the queues; see `recover`.
        let entered =
            Entered { stamp: revision.0, revision, eligible_at: task.eligible_at, interrupted: task.interrupted };
        let index = self.add_task(entry, entered, task.hold.as_deref());
        if runs {
            self.quarantine.note_start(index, Some(revision));
        }
        self.settle();
    }

    /// Applies an event of the journal. Returns false if its task is unknown, so that nothing but the revision changes.
    pub fn replay(&mut self, event: &Event) -> bool {
        let event = match event {
            Event::Task(event) => event,
            Event::Pool(event) => {
                self.apply_pool(event);
                return true;
            }
            Event::Handler(event) => {
                self.apply_handler(event);
                return true;
            }
            Event::Batch(event) => {
                self.apply_batch(event);
                return true;
            }
            Event::Schedule(event) => {
                self.apply_schedule(event);
                return true;
            }
        };
        if matches!(event.change, TaskChange::Submitted { .. }) {
            self.apply_submitted(event);
        } else if let Some(index) = self.tasks.find(&event.task) {
            if event.state != TaskState::Running
                && let Some(task) = self.tasks.get(index).filter(|task| task.has_attempt)
            {
                self.remote_workers.remove(&task.stamp);
            }
            self.apply(index, event);
            if let TaskChange::Started { worker, lease: Lease::Remote { fence }, .. } = &event.change {
                self.remote_workers.insert(*fence, worker.clone());
            }
            let starts = matches!(event.change, TaskChange::Started { .. });
            if starts || event.state != TaskState::Running {
                self.quarantine.note_start(index, starts.then_some(event.revision));
            }
            self.settle();
        } else {
            self.revision = event.revision;
            return false;
        }
        true
    }

    /// Begins the epoch of this server. Its stamps are larger than those of earlier epochs, so a report about an attempt of
    /// an earlier server matches nothing, and than those that were drawn while tasks were restored. Call it once, after
    /// the tasks were restored and before anything is dispatched.
    pub fn begin_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.stamp += epoch << STAMP_BITS;
    }

    /// Decides about the tasks that were running when the previous server ended. Call it once, after all tasks
    /// were restored and all events replayed.
    pub fn recover(&mut self, now: Timestamp, out: &mut Decisions) {
        self.now = now;
        self.finished.order_restored(&self.tasks, self.revision, now);
        self.restore_dependencies();
        self.limit_waits(now);
        self.limits.begin(now);
        self.schedules.begin(now);
        self.adopt_remote_attempts(out);
        let had_attempt = |task: &TaskEntry| {
            !task.has_attempt && task.state == TaskState::Running
                || (task.state == TaskState::Queued && task.cancel.is_some())
        };
        let interrupted = self.tasks.iter().filter(|(_, task)| had_attempt(task));
        let mut indices: Vec<u32> = interrupted.map(|(index, _)| index).collect();
        // Interrupted tasks are queued again in the order in which they had started.
        indices.sort_unstable_by_key(|index| {
            let task = self.tasks.get(*index)?;
            let start = self.quarantine.starts.get(index).filter(|_| task.cancel.is_none());
            Some((start.copied(), task.submission))
        });
        let ran_alone = self.running() == 1;
        if self.running() > 0 {
            self.be_careful(now);
        }
        let mut culprit_found = false;
        for index in indices {
            culprit_found |= self.recover_one(now, index, ran_alone, out);
        }
        self.quarantine_suspects(culprit_found);
        // They may have been changed meanwhile.
        self.limits.mark_all_changed();
        self.admit_waiting(out);
        // The server may have ended between the end of a batch and what follows from it.
        self.batches.mark_all_changed();
        self.settle_batches(now, out);
        out.ended_batches.clear();
        self.recover_schedules(now, out);
        // Without the tasks that have just been cancelled: what is known of their places depends on what was restored.
        let tasks = &self.tasks;
        for queue in self.pools.iter_mut().flat_map(|pool| pool.queues.iter_mut()) {
            queue.ready.order_restored(|entry| Self::is_live(tasks, entry));
        }
    }

    /// Shortens what is left of delays, back-offs and expiries to their durations. It is longer if the clock is behind the
    /// times in the store: it was set back, or was ahead before.
    fn limit_waits(&mut self, now: Timestamp) {
        let tasks = &self.tasks;
        self.timers.reschedule(|timer| {
            let Some(task) = tasks.get(timer.index) else { return timer.at };
            let began = if matches!(timer.purpose, Purpose::Expiry(_)) { task.submitted_at } else { task.since };
            Timestamp(timer.at.0 - began.0.saturating_sub(now.0).min(timer.at.0))
        });
    }

    /// Returns whether the task fails because it crashed the server.
    fn recover_one(&mut self, now: Timestamp, index: u32, ran_alone: bool, out: &mut Decisions) -> bool {
        let now = self.not_before_last_change(index, now);
        let Some(task) = self.tasks.get(index) else { return false };
        if let Some(request) = task.cancel.clone() {
            let started = task.state == TaskState::Running;
            let method = if started { StopMethod::Abort } else { StopMethod::NeverStarted };
            let receipt = Box::new(CancelReceipt { request: *request, stopped_at: now, method });
            let change = TaskChange::Cancelled { receipt, usage: None, output: None };
            self.emit(now, index, TaskState::Cancelled, None, change, out);
            return false;
        }
        if ran_alone && self.is_on_last_try(task.crashes) && !task.spec.options.at_most_once {
            let crashes = task.crashes + 1;
            let text = format!(
                "the server crashed {crashes} times in a row while the task was running, the last time while it ran alone"
            );
            self.fail_lost(now, index, text, out);
            return true;
        }
        self.interrupt(now, index, InterruptCause::Crash, out);
        false
    }
}
