//! The bytes of a schedule, and of its events.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use super::corruption::Corruption;
use super::task::TemplateRecord;
use super::values::{name, nanos, variant};
use crate::model::schedule_rule::parse_zone;
use crate::model::{
    CronRule, DstPolicy, FailureReason, Namespace, Overlap, Revision, RunKind, Schedule, ScheduleChange, ScheduleError,
    ScheduleEvent, ScheduleId, ScheduleKey, ScheduleRule, ScheduleRun, ScheduleSpec, Scheduled, TaskId, TaskState,
    Timestamp,
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScheduleEventRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(oneof = "ChangeRecord", tags = "3, 4, 5, 6, 7, 8, 9, 10")]
    change: Option<ChangeRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum ChangeRecord {
    #[prost(message, tag = "3")]
    Created(Box<SpecRecord>),
    #[prost(message, tag = "4")]
    Updated(Box<SpecRecord>),
    #[prost(bool, tag = "5")]
    Paused(bool),
    #[prost(bool, tag = "6")]
    Resumed(bool),
    #[prost(uint64, tag = "7")]
    Held(u64),
    #[prost(uint64, tag = "8")]
    Skipped(u64),
    #[prost(message, tag = "9")]
    Missed(MissedRecord),
    #[prost(bool, tag = "10")]
    Deleted(bool),
}

#[derive(Clone, PartialEq, Message)]
struct MissedRecord {
    #[prost(uint64, tag = "1")]
    until: u64,
    #[prost(uint64, tag = "2")]
    count: u64,
    #[prost(string, tag = "3")]
    cause: String,
}

#[derive(Clone, PartialEq, Message)]
struct SpecRecord {
    /// Of a cron rule; empty for an interval.
    #[prost(string, tag = "1")]
    pattern: String,
    #[prost(string, tag = "2")]
    zone: String,
    #[prost(uint32, tag = "3")]
    dst: u32,
    #[prost(uint64, tag = "4")]
    every: u64,
    #[prost(uint64, tag = "5")]
    anchor: u64,
    #[prost(uint64, optional, tag = "6")]
    start_at: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    end_at: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    max_runs: Option<u64>,
    #[prost(uint64, tag = "9")]
    jitter: u64,
    #[prost(uint64, tag = "10")]
    catch_up_window: u64,
    #[prost(uint32, tag = "11")]
    overlap: u32,
    #[prost(message, optional, tag = "12")]
    task: Option<TemplateRecord>,
    #[prost(bool, tag = "13")]
    configured: bool,
}

#[derive(Clone, PartialEq, Message)]
struct RunRecord {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(uint64, tag = "2")]
    time: u64,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(uint64, tag = "4")]
    submitted_at: u64,
    #[prost(uint64, optional, tag = "5")]
    ended_at: Option<u64>,
    /// Of an ended one.
    #[prost(uint32, tag = "6")]
    state: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, optional, tag = "2")]
    task: Option<String>,
    /// Of a failed task.
    #[prost(uint32, tag = "3")]
    reason: u32,
    #[prost(string, tag = "4")]
    message: String,
}

/// A schedule; its key and the revision of its creation are stored beside.
#[derive(Clone, PartialEq, Message)]
pub struct ScheduleRecord {
    #[prost(message, optional, tag = "1")]
    spec: Option<SpecRecord>,
    #[prost(uint64, tag = "2")]
    created_at: u64,
    #[prost(uint64, tag = "3")]
    changed: u64,
    #[prost(uint64, tag = "4")]
    changed_at: u64,
    #[prost(uint64, tag = "5")]
    last_at: u64,
    #[prost(bool, tag = "6")]
    paused: bool,
    #[prost(uint64, tag = "7")]
    decided: u64,
    #[prost(uint64, optional, tag = "8")]
    waiting: Option<u64>,
    #[prost(uint64, tag = "9")]
    runs: u64,
    #[prost(uint64, tag = "10")]
    triggered: u64,
    #[prost(uint64, tag = "11")]
    caught_up: u64,
    #[prost(uint64, tag = "12")]
    skipped: u64,
    #[prost(uint64, tag = "13")]
    missed: u64,
    #[prost(uint64, tag = "14")]
    errors: u64,
    #[prost(string, repeated, tag = "15")]
    unfinished: Vec<String>,
    #[prost(message, optional, tag = "16")]
    last_run: Option<RunRecord>,
    #[prost(message, optional, tag = "17")]
    last_error: Option<ErrorRecord>,
}

impl From<&ScheduleEvent> for ScheduleEventRecord {
    fn from(event: &ScheduleEvent) -> Self {
        let change = match &event.change {
            ScheduleChange::Created { spec } => ChangeRecord::Created(Box::new((&**spec).into())),
            ScheduleChange::Updated { spec } => ChangeRecord::Updated(Box::new((&**spec).into())),
            ScheduleChange::Paused => ChangeRecord::Paused(true),
            ScheduleChange::Resumed => ChangeRecord::Resumed(true),
            ScheduleChange::Held { time } => ChangeRecord::Held(time.0),
            ScheduleChange::Skipped { time } => ChangeRecord::Skipped(time.0),
            ScheduleChange::Missed { until, count, cause } => {
                ChangeRecord::Missed(MissedRecord { until: until.0, count: *count, cause: cause.to_string() })
            }
            ScheduleChange::Deleted => ChangeRecord::Deleted(true),
        };
        let ScheduleKey { namespace, id } = &event.schedule;
        Self { namespace: namespace.to_string(), id: id.to_string(), change: Some(change) }
    }
}

impl ScheduleEventRecord {
    pub(super) fn into_model(self, revision: Revision, at: Timestamp) -> Result<ScheduleEvent, Corruption> {
        let schedule =
            ScheduleKey { namespace: name(&self.namespace, Namespace::parse)?, id: name(&self.id, ScheduleId::parse)? };
        let unknown = || Corruption::new("schedule event with an unknown change; a later version may have written it");
        let change = match self.change.ok_or_else(unknown)? {
            ChangeRecord::Created(spec) => ScheduleChange::Created { spec: Arc::new(spec.into_model()?) },
            ChangeRecord::Updated(spec) => ScheduleChange::Updated { spec: Arc::new(spec.into_model()?) },
            ChangeRecord::Paused(_) => ScheduleChange::Paused,
            ChangeRecord::Resumed(_) => ScheduleChange::Resumed,
            ChangeRecord::Held(time) => ScheduleChange::Held { time: Timestamp(time) },
            ChangeRecord::Skipped(time) => ScheduleChange::Skipped { time: Timestamp(time) },
            ChangeRecord::Missed(MissedRecord { until, count, cause }) => {
                ScheduleChange::Missed { until: Timestamp(until), count, cause: cause.into() }
            }
            ChangeRecord::Deleted(_) => ScheduleChange::Deleted,
        };
        Ok(ScheduleEvent { revision, at, schedule, change })
    }
}

impl From<&ScheduleSpec> for SpecRecord {
    fn from(spec: &ScheduleSpec) -> Self {
        let rule = match &spec.rule {
            ScheduleRule::Cron(cron) => Self {
                pattern: cron.pattern().to_owned(),
                zone: cron.zone().name().to_owned(),
                dst: cron.dst() as u32,
                ..Self::default()
            },
            ScheduleRule::Interval { every, anchor } => {
                Self { every: nanos(*every), anchor: anchor.0, ..Self::default() }
            }
        };
        Self {
            start_at: spec.start_at.map(|at| at.0),
            end_at: spec.end_at.map(|at| at.0),
            max_runs: spec.max_runs,
            jitter: nanos(spec.jitter),
            catch_up_window: nanos(spec.catch_up_window),
            overlap: spec.overlap as u32,
            task: Some((&spec.task).into()),
            configured: spec.configured,
            ..rule
        }
    }
}

impl SpecRecord {
    fn into_model(self) -> Result<ScheduleSpec, Corruption> {
        let rule = if self.pattern.is_empty() {
            ScheduleRule::Interval { every: Duration::from_nanos(self.every), anchor: Timestamp(self.anchor) }
        } else {
            let dst = variant("DST policy", self.dst, DstPolicy::from_number)?;
            let rule = parse_zone(&self.zone).and_then(|zone| CronRule::new(&self.pattern, zone, dst));
            ScheduleRule::Cron(rule.map_err(|error| Corruption::new(format!("rule of a schedule: {error}")))?)
        };
        let task = self.task.ok_or_else(|| Corruption::new("schedule without a task"))?;
        Ok(ScheduleSpec {
            rule,
            start_at: self.start_at.map(Timestamp),
            end_at: self.end_at.map(Timestamp),
            max_runs: self.max_runs,
            jitter: Duration::from_nanos(self.jitter),
            catch_up_window: Duration::from_nanos(self.catch_up_window),
            overlap: variant("overlap policy", self.overlap, Overlap::from_number)?,
            configured: self.configured,
            task: Arc::new(task.into_model()?),
        })
    }
}

impl From<&ScheduleRun> for RunRecord {
    fn from(run: &ScheduleRun) -> Self {
        Self {
            task: run.task.to_string(),
            time: run.scheduled.time.0,
            kind: run.scheduled.kind as u32,
            submitted_at: run.submitted_at.0,
            ended_at: run.end.map(|(at, _)| at.0),
            state: run.end.map_or(0, |(_, state)| state as u32),
        }
    }
}

impl RunRecord {
    fn into_model(self) -> Result<ScheduleRun, Corruption> {
        let end = |at| Ok::<_, Corruption>((Timestamp(at), variant("task state", self.state, TaskState::from_number)?));
        Ok(ScheduleRun {
            task: name(&self.task, TaskId::parse)?,
            scheduled: Scheduled {
                time: Timestamp(self.time),
                kind: variant("kind of a run", self.kind, RunKind::from_number)?,
            },
            submitted_at: Timestamp(self.submitted_at),
            end: self.ended_at.map(end).transpose()?,
        })
    }
}

impl From<&ScheduleError> for ErrorRecord {
    fn from(error: &ScheduleError) -> Self {
        Self {
            at: error.at.0,
            task: error.task.as_ref().map(|(task, _)| task.to_string()),
            reason: error.task.as_ref().map_or(0, |(_, reason)| *reason as u32),
            message: error.message.to_string(),
        }
    }
}

impl ErrorRecord {
    fn into_model(self) -> Result<ScheduleError, Corruption> {
        let task = |task: String| {
            let reason = variant("failure reason", self.reason, FailureReason::from_number)?;
            Ok::<_, Corruption>((name(&task, TaskId::parse)?, reason))
        };
        Ok(ScheduleError {
            at: Timestamp(self.at),
            task: self.task.map(task).transpose()?,
            message: self.message.into(),
        })
    }
}

/// The bytes of the spec of a schedule, which seldom changes, unlike the rest.
#[derive(Default)]
pub struct EncodedSpec(Option<(Arc<ScheduleSpec>, Vec<u8>)>);

/// Longer ones are not kept.
const ENCODED_SPEC_MAX: usize = 1_024;

impl EncodedSpec {
    /// The bytes of a [`ScheduleRecord`].
    pub fn record_of(&mut self, schedule: &Schedule) -> Vec<u8> {
        let known = self.0.take().filter(|(spec, _)| Arc::ptr_eq(spec, &schedule.spec));
        let (_, spec) = self.0.insert(known.unwrap_or_else(|| {
            let record = ScheduleRecord { spec: Some((&*schedule.spec).into()), ..ScheduleRecord::default() };
            (schedule.spec.clone(), record.encode_to_vec())
        }));
        // Messages that follow each other are one with the fields of both.
        let rest = ScheduleRecord::without_spec(schedule);
        let mut bytes = Vec::with_capacity(spec.len() + rest.encoded_len());
        bytes.extend_from_slice(spec);
        rest.encode_raw(&mut bytes);
        if spec.len() > ENCODED_SPEC_MAX {
            self.0 = None;
        }
        bytes
    }
}

impl ScheduleRecord {
    fn without_spec(schedule: &Schedule) -> Self {
        Self {
            spec: None,
            created_at: schedule.created_at.0,
            changed: schedule.changed.0,
            changed_at: schedule.changed_at.0,
            last_at: schedule.last_at.0,
            paused: schedule.paused,
            decided: schedule.decided.0,
            waiting: schedule.waiting.map(|at| at.0),
            runs: schedule.runs,
            triggered: schedule.triggered,
            caught_up: schedule.caught_up,
            skipped: schedule.skipped,
            missed: schedule.missed,
            errors: schedule.errors,
            unfinished: schedule.unfinished.iter().map(ToString::to_string).collect(),
            last_run: schedule.last_run.as_ref().map(Into::into),
            last_error: schedule.last_error.as_ref().map(Into::into),
        }
    }

    pub fn into_model(self, key: ScheduleKey, created: Revision) -> Result<Schedule, Corruption> {
        let unfinished = self.unfinished.iter().map(|task| name(task, TaskId::parse));
        Ok(Schedule {
            key,
            spec: Arc::new(self.spec.ok_or_else(|| Corruption::new("schedule without a spec"))?.into_model()?),
            created,
            created_at: Timestamp(self.created_at),
            changed: Revision(self.changed),
            changed_at: Timestamp(self.changed_at),
            last_at: Timestamp(self.last_at),
            paused: self.paused,
            decided: Timestamp(self.decided),
            waiting: self.waiting.map(Timestamp),
            runs: self.runs,
            triggered: self.triggered,
            caught_up: self.caught_up,
            skipped: self.skipped,
            missed: self.missed,
            errors: self.errors,
            unfinished: unfinished.collect::<Result<_, _>>()?,
            last_run: self.last_run.map(RunRecord::into_model).transpose()?,
            last_error: self.last_error.map(ErrorRecord::into_model).transpose()?,
        })
    }
}
