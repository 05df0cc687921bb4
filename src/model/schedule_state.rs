//! The state of a schedule, which follows from events: its own, and those of its tasks.
//!
//! The core and the projection apply them with the functions of this file, so that both know the same. The submission of the
//! task of a run is one event, which also marks the run as done: a crash can neither lose nor repeat it.

use std::sync::Arc;

use super::clock::Timestamp;
use super::event::{TaskChange, TaskEvent};
use super::failure::FailureReason;
use super::id::{NameError, Revision, TaskId};
use super::limits::BATCH_FAILURE_TEXT_MAX;
use super::schedule::{ScheduleChange, ScheduleEvent, ScheduleKey, ScheduleKeyRef, ScheduleSpec};
use super::schedule_run::{RunKind, Scheduled};
use super::spec::TaskSpec;
use super::task::TaskState;

/// About the bytes of a schedule in memory, without its parts of variable size. The IDs of its unfinished tasks belong to those
/// tasks.
const FIXED_BYTES: usize = if cfg!(test) { 1_024 } else { 2_048 };

/// A run of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleRun {
    pub task: TaskId,
    pub scheduled: Scheduled,
    pub submitted_at: Timestamp,
    /// When and how the task ended.
    pub end: Option<(Timestamp, TaskState)>,
}

/// Why a run failed or could not take place.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleError {
    pub at: Timestamp,
    /// The failed task; `None` if none was submitted.
    pub task: Option<(TaskId, FailureReason)>,
    /// At most [`BATCH_FAILURE_TEXT_MAX`] bytes.
    pub message: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleState {
    Active,
    Paused,
    /// No run follows.
    Finished,
}

/// A schedule at a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub key: ScheduleKey,
    pub spec: Arc<ScheduleSpec>,
    /// Revision of the creation. Unlike the key it is never used again.
    pub created: Revision,
    pub created_at: Timestamp,
    /// Revision and time of the last change that a caller or the configuration made.
    pub changed: Revision,
    pub changed_at: Timestamp,
    /// Time of the last event of the schedule. Its times never run backwards.
    pub last_at: Timestamp,
    pub paused: bool,
    /// The runs up to this time have been decided.
    pub decided: Timestamp,
    /// The time of the run that waits for an unfinished task.
    pub waiting: Option<Timestamp>,
    /// Runs that took place, without triggered ones.
    pub runs: u64,
    /// Runs by a call.
    pub triggered: u64,
    /// Of [`Schedule::runs`], those that took place late.
    pub caught_up: u64,
    /// Runs that did not take place because of an unfinished task.
    pub skipped: u64,
    /// Runs that did not take place because they could not start within the catch-up window.
    pub missed: u64,
    /// Failed tasks.
    pub errors: u64,
    /// Unfinished tasks, the oldest first; at most [`super::limits::SCHEDULE_UNFINISHED_MAX`].
    pub unfinished: Vec<TaskId>,
    pub last_run: Option<ScheduleRun>,
    pub last_error: Option<ScheduleError>,
}

impl Schedule {
    fn new(key: ScheduleKey, spec: Arc<ScheduleSpec>, created: Revision, created_at: Timestamp) -> Self {
        Self {
            key,
            spec,
            created,
            created_at,
            changed: created,
            changed_at: created_at,
            last_at: created_at,
            paused: false,
            decided: created_at,
            waiting: None,
            runs: 0,
            triggered: 0,
            caught_up: 0,
            skipped: 0,
            missed: 0,
            errors: 0,
            unfinished: Vec::new(),
            last_run: None,
            last_error: None,
        }
    }

    pub fn state(&self) -> ScheduleState {
        self.state_with(self.next_time())
    }

    /// The state, if [`Schedule::next_time`], which takes some time to find, is known.
    pub fn state_with(&self, next_time: Option<Timestamp>) -> ScheduleState {
        match (self.paused, next_time) {
            (true, _) => ScheduleState::Paused,
            (false, None) if self.waiting.is_none() => ScheduleState::Finished,
            (false, _) => ScheduleState::Active,
        }
    }

    /// What a caller that changes the schedule can compare.
    pub fn etag(&self) -> String {
        format!("{:x}", self.changed.0)
    }

    /// The time of the next run that is not decided; `None` while it is paused or if none follows.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.times().next()
    }

    /// The times of the next runs.
    pub fn times(&self) -> impl Iterator<Item = Timestamp> + use<'_> {
        let spec = &*self.spec;
        let taken = self.runs + u64::from(self.waiting.is_some());
        let left = spec.max_runs.map_or(u64::MAX, |max| max.saturating_sub(taken));
        let left = if self.paused { 0 } else { usize::try_from(left).unwrap_or(usize::MAX) };
        spec.times_after(self.decided).take(left)
    }

    /// When the run of this time is due.
    pub fn due(&self, time: Timestamp) -> Timestamp {
        time.after(self.spec.jitter_of(&self.key, time))
    }

    /// The task of a run.
    ///
    /// # Errors
    /// [`NameError`] if the ID of the schedule is too long.
    pub fn task(&self, scheduled: Scheduled) -> Result<TaskSpec, NameError> {
        let template = &self.spec.task;
        let mut extras = template.extras().clone();
        extras.scheduled = Some(scheduled);
        Ok(TaskSpec {
            id: self.key.task_id(scheduled.time)?,
            options: template.options.clone(),
            payload: template.payload.clone(),
            extras: extras.boxed(),
        })
    }

    /// About the bytes that it can occupy in memory.
    pub fn bytes(&self) -> usize {
        Self::bytes_of(&self.spec)
    }

    /// [`Schedule::bytes`] of a schedule with this spec.
    pub fn bytes_of(spec: &ScheduleSpec) -> usize {
        FIXED_BYTES + spec.content_bytes()
    }

    fn set_spec(&mut self, spec: &Arc<ScheduleSpec>, at: Timestamp) {
        let times = |spec: &ScheduleSpec| (spec.rule.clone(), spec.start_at);
        let was_finished = self.state() == ScheduleState::Finished;
        if was_finished || times(&self.spec) != times(spec) {
            self.pass_over(at);
        }
        self.spec = spec.clone();
    }

    /// The runs until now do not take place. The clock may be behind the last run that did.
    fn pass_over(&mut self, now: Timestamp) {
        self.decided = self.decided.max(now);
    }

    fn drop_waiting(&mut self) {
        self.skipped += u64::from(self.waiting.take().is_some());
    }

    /// A task of the schedule was submitted.
    fn add_run(&mut self, event: &TaskEvent, scheduled: Scheduled) {
        if scheduled.kind == RunKind::Triggered {
            self.triggered += 1;
        } else {
            self.runs += 1;
            self.caught_up += u64::from(scheduled.kind == RunKind::CaughtUp);
            self.decided = self.decided.max(scheduled.time);
        }
        if scheduled.kind == RunKind::Waited {
            self.waiting = None;
        }
        self.last_at = self.last_at.max(event.at);
        self.unfinished.push(event.task.clone());
        let run = ScheduleRun { task: event.task.clone(), scheduled, submitted_at: event.at, end: None };
        self.last_run = Some(run);
    }

    /// A task of the schedule has ended.
    fn end_run(&mut self, event: &TaskEvent) {
        let Some(index) = self.unfinished.iter().position(|task| *task == event.task) else { return };
        self.unfinished.remove(index);
        self.last_at = self.last_at.max(event.at);
        if let Some(run) = self.last_run.as_mut().filter(|run| run.task == event.task) {
            run.end = Some((event.at, event.state));
        }
        if let TaskChange::Failed { failure, .. } = &event.change {
            self.errors += 1;
            let task = Some((event.task.clone(), failure.reason));
            self.last_error = Some(ScheduleError { at: event.at, task, message: shortened(&failure.message) });
        }
    }
}

impl ScheduleSpec {
    /// The times of the rule after `after`, from the start to the end.
    pub fn times_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + use<'_> {
        self.rule.times_within(after, self.start_at, self.end_at)
    }

    /// This spec for a schedule that has `former` or is new: an interval goes on, or begins at the start or now.
    #[must_use]
    pub fn anchored(self, former: Option<&Self>, now: Timestamp) -> Self {
        let kept = former.filter(|former| former.rule.repeats(&self.rule) && former.start_at == self.start_at);
        let rule = kept.map_or_else(|| self.rule.clone().anchored(self.start_at, now), |former| former.rule.clone());
        Self { rule, ..self }
    }
}

fn shortened(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(BATCH_FAILURE_TEXT_MAX)].into()
}

/// The schedule that an event of a task changes.
pub fn schedule_of(event: &TaskEvent) -> Option<ScheduleKeyRef<'_>> {
    let id = event.options.schedule.as_ref()?;
    let changes = matches!(event.change, TaskChange::Submitted { .. })
        || event.state.is_terminal() && !matches!(event.change, TaskChange::Deleted);
    changes.then_some(ScheduleKeyRef { namespace: &event.options.namespace, id })
}

/// Applies an event of a task to its schedule, if that still exists.
pub fn fold_task_into_schedule(schedule: &mut Schedule, event: &TaskEvent) {
    match &event.change {
        TaskChange::Submitted { spec } => {
            if let Some(scheduled) = spec.extras().scheduled {
                schedule.add_run(event, scheduled);
            }
        }
        _ => schedule.end_run(event),
    }
}

/// Applies an event to its schedule; `None` is a schedule that does not exist. Apart from `Created`, an event of such a
/// schedule changes nothing.
pub fn fold_schedule(schedule: &mut Option<Schedule>, event: &ScheduleEvent) {
    if let ScheduleChange::Created { spec } = &event.change {
        *schedule = Some(Schedule::new(event.schedule.clone(), spec.clone(), event.revision, event.at));
        return;
    }
    let Some(existing) = schedule else { return };
    existing.last_at = existing.last_at.max(event.at);
    if matches!(event.change, ScheduleChange::Updated { .. } | ScheduleChange::Paused | ScheduleChange::Resumed) {
        (existing.changed, existing.changed_at) = (event.revision, event.at);
    }
    match &event.change {
        ScheduleChange::Created { .. } => {}
        ScheduleChange::Updated { spec } => existing.set_spec(spec, event.at),
        ScheduleChange::Paused => {
            existing.drop_waiting();
            existing.paused = true;
        }
        ScheduleChange::Resumed => {
            existing.paused = false;
            existing.pass_over(event.at);
        }
        ScheduleChange::Held { time } => {
            existing.drop_waiting();
            (existing.waiting, existing.decided) = (Some(*time), *time);
        }
        ScheduleChange::Skipped { time } => {
            existing.skipped += 1;
            existing.decided = existing.decided.max(*time);
            if existing.waiting == Some(*time) {
                existing.waiting = None;
            }
        }
        ScheduleChange::Missed { until, count, cause } => {
            existing.missed += count;
            existing.decided = existing.decided.max(*until);
            if !cause.is_empty() {
                existing.last_error = Some(ScheduleError { at: event.at, task: None, message: shortened(cause) });
            }
        }
        ScheduleChange::Deleted => *schedule = None,
    }
}
