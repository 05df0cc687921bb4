//! Names of schedules, what their callers ask for, and their events. `schedule_state` has their state, `schedule_rule` their
//! times.

use std::fmt::{self, Write};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike, Timelike};
use hashbrown::Equivalent;
use siphasher::sip::SipHasher13;

use super::clock::Timestamp;
use super::id::{NameError, Namespace, Revision, ScheduleId, TaskId};
use super::limits::SCHEDULE_ID_BYTES_MAX;
use super::schedule_rule::ScheduleRule;
use super::spec::TaskSpec;

/// The name of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleKey {
    pub namespace: Namespace,
    pub id: ScheduleId,
}

/// A [`ScheduleKey`] for look-ups.
#[derive(Clone, Copy, Debug, Hash)]
pub struct ScheduleKeyRef<'a> {
    pub namespace: &'a Namespace,
    pub id: &'a ScheduleId,
}

impl ScheduleKey {
    pub fn by_ref(&self) -> ScheduleKeyRef<'_> {
        ScheduleKeyRef { namespace: &self.namespace, id: &self.id }
    }
}

impl ScheduleKeyRef<'_> {
    pub fn to_key(self) -> ScheduleKey {
        ScheduleKey { namespace: self.namespace.clone(), id: self.id.clone() }
    }
}

impl Equivalent<ScheduleKey> for ScheduleKeyRef<'_> {
    fn equivalent(&self, key: &ScheduleKey) -> bool {
        *self.id == key.id && *self.namespace == key.namespace
    }
}

impl fmt::Display for ScheduleKey {
    /// As for tasks: an ID in the namespace `default` stands for itself; others follow their namespace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == Namespace::default() {
            return fmt::Display::fmt(&self.id, f);
        }
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// A schedule as a caller names it: `NAMESPACE/ID`, or an ID alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRef {
    pub namespace: Option<Namespace>,
    pub id: ScheduleId,
}

impl ScheduleRef {
    /// # Errors
    /// [`NameError`] if a part is not a valid name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, id)) => Ok(Self { namespace: Some(Namespace::parse(namespace)?), id: schedule_id(id)? }),
            None => Ok(Self { namespace: None, id: schedule_id(text)? }),
        }
    }
}

/// Parses 1 to [`SCHEDULE_ID_BYTES_MAX`] of `[A-Za-z0-9._:-]`.
///
/// # Errors
/// [`NameError`].
pub fn schedule_id(text: &str) -> Result<ScheduleId, NameError> {
    if text.len() > SCHEDULE_ID_BYTES_MAX {
        return Err(NameError::TooLong { length: text.len(), limit: SCHEDULE_ID_BYTES_MAX });
    }
    ScheduleId::parse(text)
}

/// What happens to a run that is due while a task of the schedule is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Overlap {
    /// It does not take place.
    #[default]
    Skip = 1,
    /// It starts when the unfinished tasks have ended. One run can wait; others that are due meanwhile do not take place.
    Queue = 2,
    /// It starts at once.
    Allow = 3,
    /// The unfinished tasks are cancelled, and it starts when they have ended. The newest such run replaces an earlier one.
    CancelOld = 4,
}

impl Overlap {
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Skip, Self::Queue, Self::Allow, Self::CancelOld].into_iter().find(|overlap| *overlap as u8 == number)
    }
}

/// What the caller asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleSpec {
    pub rule: ScheduleRule,
    /// No run is before.
    pub start_at: Option<Timestamp>,
    /// No run is after.
    pub end_at: Option<Timestamp>,
    /// Runs after which it has finished, without those that are triggered.
    pub max_runs: Option<u64>,
    /// Each run is late by up to this time, which depends on the schedule and the run only.
    pub jitter: Duration,
    /// A run that cannot start within this time does not take place.
    pub catch_up_window: Duration,
    pub overlap: Overlap,
    /// Whether it is part of the configuration of the server.
    pub configured: bool,
    /// The task of each run, apart from its ID.
    pub task: Arc<TaskSpec>,
}

impl ScheduleSpec {
    /// The ID of the tasks in [`ScheduleSpec::task`], which stands for none.
    pub const NO_TASK_ID: TaskId = TaskId::Uuid([0; 16]);

    /// Whether both ask for the same.
    pub fn repeats(&self, other: &Self) -> bool {
        let rest = |spec: &Self| {
            let limits = (spec.start_at, spec.end_at, spec.max_runs);
            (limits, spec.jitter, spec.catch_up_window, spec.overlap, spec.configured)
        };
        self.rule.repeats(&other.rule) && rest(self) == rest(other) && self.task.repeats(&other.task)
    }

    /// Bytes of everything of variable size.
    pub(super) fn content_bytes(&self) -> usize {
        let pattern = match &self.rule {
            ScheduleRule::Cron(rule) => rule.pattern().len() + rule.zone().name().len(),
            ScheduleRule::Interval { .. } => 0,
        };
        pattern + self.task.attached_bytes() + self.task.payload.len()
    }

    /// By how much the run of this time is late.
    pub fn jitter_of(&self, key: &ScheduleKey, time: Timestamp) -> Duration {
        if self.jitter.is_zero() {
            return Duration::ZERO;
        }
        let Some(values) = u64::try_from(self.jitter.as_micros()).ok().and_then(|jitter| jitter.checked_add(1)) else {
            return self.jitter;
        };
        // The keys never change, so that every version has the same jitter.
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        hasher.write(key.namespace.as_str().as_bytes());
        hasher.write(b"/");
        hasher.write(key.id.as_str().as_bytes());
        hasher.write(&time.0.to_le_bytes());
        Duration::from_micros(hasher.finish() % values)
    }
}

impl ScheduleKey {
    /// The ID of the task of a run: the same for the same run, so that it can be submitted only once.
    ///
    /// # Errors
    /// [`NameError`] if the ID of the schedule is too long.
    pub fn task_id(&self, time: Timestamp) -> Result<TaskId, NameError> {
        let at = i64::try_from(time.0).ok().and_then(DateTime::from_timestamp_micros).unwrap_or_default();
        let date = at.year().unsigned_abs() * 10_000 + at.month() * 100 + at.day();
        let clock = at.hour() * 10_000 + at.minute() * 100 + at.second();
        let mut name = String::with_capacity(self.id.as_str().len() + 25);
        name.push_str(self.id.as_str());
        // Without a pattern of chrono, which is parsed for each run, and with one number for each part.
        let written = match time.0 % 1_000_000 {
            0 => write!(name, ":{date:08}T{clock:06}Z"),
            micros => write!(name, ":{date:08}T{clock:06}.{micros:06}Z"),
        };
        debug_assert!(written.is_ok(), "a text takes everything");
        TaskId::named(&self.namespace, &name)
    }
}

/// A state change of a schedule that does not follow from the events of its tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleEvent {
    pub revision: Revision,
    pub at: Timestamp,
    pub schedule: ScheduleKey,
    pub change: ScheduleChange,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ScheduleChange {
    Created {
        spec: Arc<ScheduleSpec>,
    },
    Updated {
        spec: Arc<ScheduleSpec>,
    },
    /// Runs that are due from now on do not take place, nor does one that waits.
    Paused,
    /// Only runs after this event take place.
    Resumed,
    /// The run of this time waits for an unfinished task, and replaces one that waited before.
    Held {
        time: Timestamp,
    },
    /// The run of this time does not take place: a task of the schedule is unfinished, or the task of the run exists.
    Skipped {
        time: Timestamp,
    },
    /// The runs up to this time do not take place, because they could not start within the catch-up window.
    Missed {
        until: Timestamp,
        count: u64,
        /// Why their tasks were refused; empty if the server was down.
        cause: Box<str>,
    },
    /// Its tasks stay.
    Deleted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_run_is_its_time() {
        let key = ScheduleKey { namespace: Namespace::default(), id: schedule_id("nightly").unwrap() };
        let id = |micros| key.task_id(Timestamp(micros)).unwrap().to_string();
        assert_eq!(id(1_782_882_001_000_000), "nightly:20260701T050001Z");
        assert_eq!(id(1_782_882_001_000_250), "nightly:20260701T050001.000250Z");
        assert_eq!(id(0), "nightly:19700101T000000Z");
    }
}
