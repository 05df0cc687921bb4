//! Schedules: creating, changing, pausing and deleting them, and their runs.
//!
//! A run is decided by one event: the submission of its task, or that it does not take place. `Schedule::decided` follows from
//! these events, so that no run is decided twice, also not after a crash or if the clock was set back.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::limits::{NAME_BYTES_MAX, SCHEDULE_UNFINISHED_MAX, SCHEDULES_MAX};
use crate::model::{
    CancelMode, CancelRequest, Event, Namespace, Overlap, Revision, RunKind, Schedule, ScheduleChange, ScheduleEvent,
    ScheduleKey, ScheduleSpec, ScheduleState, Scheduled, TaskId, TaskSpec, Timestamp,
};
use crate::scheduler::refusal::{
    Draining, EtagMismatch, Internal, Refusal, ScheduleBusy, ScheduleConfigured, ScheduleExists, ScheduleNotFound,
    TaskExists, TooManySchedules,
};

use super::decisions::Decisions;
use super::state::{Core, attached_bytes};

/// Schedules that one page of a list looks at.
const LISTED_MAX: usize = if cfg!(test) { 8 } else { 10_000 };
/// Decisions about runs at one time; others follow in the next turn of the loop.
const DECISIONS_MAX: usize = if cfg!(test) { 4 } else { 1_024 };
/// Missed runs that are counted at once.
const MISSED_COUNTED_MAX: u64 = if cfg!(test) { 5 } else { 1_000 };
/// A run that starts later than this after it was due counts as caught up, and no run is missed before.
pub(super) const ON_TIME: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Time between two tries to submit a task that a pool or the memory refuses.
const RETRY: Duration = Duration::from_secs(1);
/// Reason of the cancel of a task that is replaced by the next run.
const OVERTAKEN: &str = "the next run of the schedule is due";

/// Which schedules a list contains.
#[derive(Clone, Debug, Default)]
pub struct ScheduleFilter {
    /// Any of these; all if it is empty.
    pub namespaces: Vec<Namespace>,
    /// Any of these; all if it is empty.
    pub states: Vec<ScheduleState>,
}

/// Some schedules, the newest first.
#[derive(Clone, Debug)]
pub struct SchedulePage {
    pub schedules: Vec<Schedule>,
    /// The next page has schedules that were created before; `None` after the last page.
    pub next: Option<Revision>,
}

/// A change that a caller asks for.
#[derive(Clone, Debug)]
pub enum ScheduleUpdate {
    /// Replaces the spec.
    Spec(ScheduleSpec),
    Paused(bool),
    Delete,
}

impl Core {
    /// Creates a schedule. Returns the existing one, and true, if it was created by the same request.
    ///
    /// # Errors
    /// [`Draining`], [`ScheduleExists`], [`TooManySchedules`], `MemoryFull`.
    pub fn create_schedule(
        &mut self,
        now: Timestamp,
        key: ScheduleKey,
        spec: ScheduleSpec,
        out: &mut Decisions,
    ) -> Result<(Schedule, bool), Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        if let Some(existing) = self.schedules.find(key.by_ref()) {
            let repeats = existing.spec.repeats(&spec);
            return if repeats { Ok((existing.clone(), true)) } else { Err(ScheduleExists { schedule: key }.into()) };
        }
        if self.schedules.count_in(&key.namespace) >= SCHEDULES_MAX {
            return Err(TooManySchedules { namespace: key.namespace }.into());
        }
        self.check_attached(Schedule::bytes_of(&spec) as u64)?;
        let spec = Arc::new(spec.anchored(None, now));
        self.emit_schedule(now, key.clone(), ScheduleChange::Created { spec }, out);
        Ok((self.schedule(&key)?.clone(), false))
    }

    /// # Errors
    /// [`ScheduleNotFound`].
    pub fn schedule(&self, key: &ScheduleKey) -> Result<&Schedule, Refusal> {
        let found = self.schedules.find(key.by_ref());
        found.ok_or_else(|| ScheduleNotFound { schedule: key.clone() }.into())
    }

    /// Schedules that match and were created before `before`, the newest first: at most `count`, and about as many as have
    /// `bytes`. A page may have fewer, even none, if there are more.
    pub fn list_schedules(
        &self,
        filter: &ScheduleFilter,
        before: Option<Revision>,
        count: usize,
        bytes: usize,
    ) -> SchedulePage {
        let matches = |schedule: &Schedule, state| {
            (filter.namespaces.is_empty() || filter.namespaces.contains(&schedule.key.namespace))
                && (filter.states.is_empty() || filter.states.contains(&state))
        };
        let before = before.unwrap_or_else(|| self.revision.next());
        let (mut schedules, mut used) = (Vec::new(), 0);
        for (examined, (schedule, state)) in self.schedules.newest_before(before).enumerate() {
            let next = Some(schedule.created.next());
            if examined == LISTED_MAX || schedules.len() == count {
                return SchedulePage { schedules, next };
            }
            if matches(schedule, state) {
                used += schedule.bytes() + schedule.unfinished.len() * 2 * NAME_BYTES_MAX;
                if used > bytes && !schedules.is_empty() {
                    return SchedulePage { schedules, next };
                }
                schedules.push(schedule.clone());
            }
        }
        SchedulePage { schedules, next: None }
    }

    /// Changes a schedule, and returns it; a deleted one as it was.
    ///
    /// # Errors
    /// [`Draining`], [`ScheduleNotFound`], [`ScheduleConfigured`], [`EtagMismatch`], `MemoryFull`.
    pub fn update_schedule(
        &mut self,
        now: Timestamp,
        key: &ScheduleKey,
        update: ScheduleUpdate,
        etag: Option<&str>,
        out: &mut Decisions,
    ) -> Result<Schedule, Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        let schedule = self.schedule(key)?;
        if schedule.spec.configured && !matches!(update, ScheduleUpdate::Paused(_)) {
            return Err(ScheduleConfigured { schedule: key.clone() }.into());
        }
        let current = schedule.etag();
        if let Some(given) = etag.filter(|given| *given != current) {
            return Err(EtagMismatch { subject: format!("schedule `{key}`"), given: given.to_owned(), current }.into());
        }
        let change = match update {
            ScheduleUpdate::Spec(spec) if schedule.spec.repeats(&spec) => return Ok(schedule.clone()),
            ScheduleUpdate::Spec(spec) => {
                let added = Schedule::bytes_of(&spec).saturating_sub(schedule.bytes());
                self.check_attached(added as u64)?;
                ScheduleChange::Updated { spec: Arc::new(spec.anchored(Some(&schedule.spec), now)) }
            }
            ScheduleUpdate::Paused(paused) if schedule.paused == paused => return Ok(schedule.clone()),
            ScheduleUpdate::Paused(true) => ScheduleChange::Paused,
            ScheduleUpdate::Paused(false) => ScheduleChange::Resumed,
            ScheduleUpdate::Delete => ScheduleChange::Deleted,
        };
        let before = schedule.clone();
        self.change_schedule(now, key, change, out);
        Ok(self.schedules.find(key.by_ref()).cloned().unwrap_or(before))
    }

    /// Makes these the schedules of the configuration: creates and updates what differs, and deletes what it no longer has. A
    /// schedule that a caller has created under the same key becomes one of the configuration.
    ///
    /// # Errors
    /// [`Draining`], [`TooManySchedules`], `MemoryFull`; then nothing has changed.
    pub fn configure_schedules(
        &mut self,
        now: Timestamp,
        configured: HashMap<ScheduleKey, ScheduleSpec>,
        out: &mut Decisions,
    ) -> Result<(), Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        let (mut counts, mut changes) = (HashMap::<Namespace, usize>::new(), Vec::new());
        let (mut added, mut freed) = (0, 0);
        for (schedule, _) in self.schedules.newest_before(self.revision.next()) {
            if schedule.spec.configured && !configured.contains_key(&schedule.key) {
                freed += schedule.bytes();
                changes.push((schedule.key.clone(), ScheduleChange::Deleted));
            } else {
                *counts.entry_ref(&schedule.key.namespace).or_default() += 1;
            }
        }
        for (key, spec) in configured {
            let existing = self.schedules.find(key.by_ref());
            let old = existing.map(|schedule| &*schedule.spec);
            if old.is_some_and(|old| old.repeats(&spec)) {
                continue;
            }
            let bytes = Schedule::bytes_of(&spec);
            added += bytes.saturating_sub(existing.map_or(0, Schedule::bytes));
            let spec = Arc::new(spec.anchored(old, now));
            let change = if old.is_some() {
                ScheduleChange::Updated { spec }
            } else {
                *counts.entry_ref(&key.namespace).or_default() += 1;
                ScheduleChange::Created { spec }
            };
            changes.push((key, change));
        }
        if let Some((namespace, _)) = counts.into_iter().find(|(_, count)| *count > SCHEDULES_MAX) {
            return Err(TooManySchedules { namespace }.into());
        }
        self.check_attached(added.saturating_sub(freed) as u64)?;
        changes.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, change) in changes {
            self.change_schedule(now, &key, change, out);
        }
        Ok(())
    }

    fn change_schedule(&mut self, now: Timestamp, key: &ScheduleKey, change: ScheduleChange, out: &mut Decisions) {
        let created = self.schedules.find(key.by_ref()).map(|schedule| schedule.created);
        self.emit_schedule(now, key.clone(), change, out);
        if let Some(created) = created {
            self.cancel_overtaken(now, created, out);
        }
    }

    /// Submits the task of a schedule now, whether it is paused or has finished. `overlap`: also if a task of the schedule is
    /// unfinished.
    ///
    /// # Errors
    /// [`Draining`], [`ScheduleNotFound`], [`ScheduleBusy`], `QueueFull`, `MemoryFull`, `UnknownPool`.
    pub fn trigger_schedule(
        &mut self,
        now: Timestamp,
        key: &ScheduleKey,
        overlap: bool,
        out: &mut Decisions,
    ) -> Result<(Schedule, TaskId), Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        let schedule = self.schedule(key)?;
        let (created, unfinished) = (schedule.created, schedule.unfinished.len());
        let may_overlap = overlap || schedule.spec.overlap == Overlap::Allow;
        if unfinished >= if may_overlap { SCHEDULE_UNFINISHED_MAX } else { 1 } {
            let task = schedule.unfinished[0].clone();
            return Err(ScheduleBusy { schedule: key.clone(), task, unfinished: unfinished as u64 }.into());
        }
        let mut time = now;
        loop {
            match self.submit_run(now, created, Scheduled { time, kind: RunKind::Triggered }, out) {
                Err(Refusal::TaskExists(_)) => time = Timestamp(time.0 + 1),
                Err(refusal) => return Err(refusal),
                Ok(task) => return Ok((self.schedule(key)?.clone(), task)),
            }
        }
    }

    /// Decides about the runs that are due, within a bound. A drain leaves them to the next server.
    pub(super) fn run_schedules(&mut self, now: Timestamp, out: &mut Decisions) {
        for _ in 0..DECISIONS_MAX {
            let due = self.schedules.first_wake().filter(|(at, _)| *at <= now && !self.draining);
            let Some((_, created)) = due else { return };
            self.decide_run(now, created, out);
        }
    }

    /// When the next run has to be decided.
    pub(super) fn next_run_due(&self) -> Option<Timestamp> {
        self.schedules.first_wake().filter(|_| !self.draining).map(|(at, _)| at)
    }

    fn decide_run(&mut self, now: Timestamp, created: Revision, out: &mut Decisions) {
        let Some(schedule) = self.schedules.get(created) else { return };
        if let Some(time) = schedule.waiting.filter(|_| schedule.unfinished.is_empty()) {
            return self.start_run(now, created, Scheduled { time, kind: RunKind::Waited }, out);
        }
        let Some(time) = self.schedules.next_time(created) else { return };
        let (due, clock) = (schedule.due(time), self.schedules.clock(created, now));
        if clock > due.after(schedule.spec.catch_up_window.max(ON_TIME)) {
            return self.miss_runs(now, created, out);
        }
        let (key, overlap, unfinished) = (&schedule.key, schedule.spec.overlap, schedule.unfinished.len());
        let change = match overlap {
            _ if unfinished == 0 => None,
            Overlap::Allow if unfinished < SCHEDULE_UNFINISHED_MAX => None,
            Overlap::Queue if schedule.waiting.is_none() => Some(ScheduleChange::Held { time }),
            Overlap::CancelOld => Some(ScheduleChange::Held { time }),
            Overlap::Skip | Overlap::Queue | Overlap::Allow => Some(ScheduleChange::Skipped { time }),
        };
        if let Some(change) = change {
            self.emit_schedule(now, key.clone(), change, out);
            return self.cancel_overtaken(now, created, out);
        }
        let kind = if clock > due.after(ON_TIME) { RunKind::CaughtUp } else { RunKind::OnTime };
        self.start_run(now, created, Scheduled { time, kind }, out);
    }

    /// Submits the task of a run, or tries again later.
    fn start_run(&mut self, now: Timestamp, created: Revision, scheduled: Scheduled, out: &mut Decisions) {
        match self.submit_run(now, created, scheduled, out) {
            Ok(_) => {}
            // The clock was set back before a schedule was created again or changed, or a client chose this ID.
            Err(Refusal::TaskExists(_)) => {
                if let Some(key) = self.schedules.get(created).map(|schedule| schedule.key.clone()) {
                    self.emit_schedule(now, key, ScheduleChange::Skipped { time: scheduled.time }, out);
                }
            }
            Err(refusal) => self.schedules.postpone(created, now.after(RETRY), refusal.to_string()),
        }
    }

    fn submit_run(
        &mut self,
        now: Timestamp,
        created: Revision,
        scheduled: Scheduled,
        out: &mut Decisions,
    ) -> Result<TaskId, Refusal> {
        let Some(schedule) = self.schedules.get(created) else { return Err(Draining.into()) };
        let now = now.max(schedule.last_at);
        let task = schedule.task(scheduled).map_err(Internal::from_error)?;
        let id = task.id.clone();
        if self.tasks.find(&id).is_some() {
            return Err(TaskExists { task: id }.into());
        }
        let new = || std::iter::once::<&TaskSpec>(&task);
        let batch_bytes = self.check_batches(new(), false)?;
        self.check_queue_limits(new())?;
        let limit_bytes = self.check_limits(new())?;
        self.check_attached(batch_bytes + limit_bytes + attached_bytes(&task))?;
        self.add(now, task, out);
        Ok(id)
    }

    /// Passes over the runs whose catch-up window has ended.
    fn miss_runs(&mut self, now: Timestamp, created: Revision, out: &mut Decisions) {
        let Some(schedule) = self.schedules.get(created) else { return };
        let spec = &schedule.spec;
        let clock = self.schedules.clock(created, now);
        let window = spec.catch_up_window.max(ON_TIME);
        let is_missed = |time: &Timestamp| clock > schedule.due(*time).after(window);
        let (mut count, mut until) = (0, None);
        for time in schedule.times().take_while(is_missed) {
            (count, until) = (count + 1, Some(time));
            if count == MISSED_COUNTED_MAX {
                // Whatever their jitter, those before are missed, too. They are not counted.
                let window = window + spec.jitter + Duration::from_micros(1);
                let all = Timestamp(clock.0.saturating_sub(u64::try_from(window.as_micros()).unwrap_or(u64::MAX)));
                until = Some(all.max(time));
                break;
            }
        }
        let cause = self.schedules.refusal(created).unwrap_or_default().into();
        if let Some(until) = until {
            self.emit_schedule(now, schedule.key.clone(), ScheduleChange::Missed { until, count, cause }, out);
        }
    }

    /// Cancels the unfinished tasks of a schedule if a run waits that replaces them.
    fn cancel_overtaken(&mut self, now: Timestamp, created: Revision, out: &mut Decisions) {
        let waits = |schedule: &&Schedule| schedule.waiting.is_some() && schedule.spec.overlap == Overlap::CancelOld;
        let Some(schedule) = self.schedules.get(created).filter(waits) else { return };
        for task in schedule.unfinished.clone() {
            let Some(index) = self.tasks.find(&task) else { continue };
            let Some(entry) = self.tasks.get(index).filter(|entry| entry.cancel.is_none()) else { continue };
            let request = CancelRequest {
                requested_at: now,
                reason: OVERTAKEN.into(),
                requested_by: "schedule".into(),
                mode: CancelMode::Graceful,
                grace: self.options.catalog.grace_of(&entry.spec.options.handler),
            };
            self.cancel_unfinished(index, request, out);
        }
    }

    /// The server may have ended between the decision that a run waits and the cancel of the tasks before it.
    pub(super) fn recover_schedules(&mut self, now: Timestamp, out: &mut Decisions) {
        let waiting = self.schedules.iter().filter(|schedule| schedule.waiting.is_some());
        for created in waiting.map(|schedule| schedule.created).collect::<Vec<_>>() {
            self.cancel_overtaken(now, created, out);
        }
    }

    /// Adds a schedule from the store's projection. Call it before the tasks are restored.
    pub fn restore_schedule(&mut self, schedule: Schedule) {
        self.schedules.restore(schedule);
    }

    /// Applies an event of a schedule.
    pub(super) fn apply_schedule(&mut self, event: &ScheduleEvent) {
        self.revision = event.revision;
        self.schedules.apply(event);
    }

    fn emit_schedule(&mut self, at: Timestamp, key: ScheduleKey, change: ScheduleChange, out: &mut Decisions) {
        // The clock may have been set back before the start of this server.
        let at = self.schedules.find(key.by_ref()).map_or(at, |schedule| at.max(schedule.last_at));
        let event = ScheduleEvent { revision: self.revision.next(), at, schedule: key, change };
        self.apply_schedule(&event);
        out.events.push(Event::Schedule(event));
    }
}
