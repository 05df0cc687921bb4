//! Records of task options, task specs and task statuses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::artifact::ArtifactsRecord;
use super::corruption::Corruption;
use super::dependencies::DependenciesRecord;
use super::task_limit::{LimitHoldRecord, TaskLimitRecord};
use super::trace::TraceRecord;
use super::values::{
    FailureRecord, PayloadRecord, ReceiptRecord, RequestRecord, UsageRecord, name, nanos, unknown, variant,
};
use crate::model::limits::OUTPUT_KEPT_BYTES;
use crate::model::{
    BatchId, Durability, FairnessKey, HandlerName, Namespace, OnUniqueConflict, PoolName, Priority, RequestKey,
    RetryPolicy, Revision, RunKind, ScheduleId, Scheduled, SubmissionDigest, TaskExtras, TaskId, TaskOptions, TaskSpec,
    TaskState, TaskStatus, Timestamp, UniqueKey,
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelRecord {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

type Label = (Box<str>, Box<str>);

impl From<&Label> for LabelRecord {
    fn from((key, value): &Label) -> Self {
        Self { key: key.to_string(), value: value.to_string() }
    }
}

impl LabelRecord {
    pub(super) fn into_model(self) -> Label {
        (self.key.into(), self.value.into())
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct OptionsRecord {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    handler: String,
    #[prost(string, tag = "3")]
    pool: String,
    #[prost(uint32, tag = "4")]
    priority: u32,
    #[prost(string, tag = "5")]
    display_name: String,
    #[prost(message, repeated, tag = "6")]
    labels: Vec<LabelRecord>,
    #[prost(string, optional, tag = "7")]
    batch: Option<String>,
    #[prost(uint64, tag = "8")]
    timeout: u64,
    #[prost(uint32, tag = "9")]
    attempts_max: u32,
    #[prost(uint64, tag = "10")]
    delay: u64,
    #[prost(double, tag = "11")]
    factor: f64,
    #[prost(uint64, tag = "12")]
    delay_max: u64,
    #[prost(double, tag = "13")]
    jitter: f64,
    #[prost(bool, tag = "14")]
    at_most_once: bool,
    #[prost(uint32, tag = "15")]
    durability: u32,
    #[prost(string, tag = "16")]
    content_type: String,
    #[prost(string, tag = "17")]
    submitted_by: String,
    #[prost(string, optional, tag = "18")]
    schedule: Option<String>,
    #[prost(message, repeated, tag = "20")]
    limits: Vec<TaskLimitRecord>,
    #[prost(string, optional, tag = "21")]
    fairness_key: Option<String>,
    /// Only in a commit: the index of earlier options that these resemble. Of what both have in common the fields are empty.
    #[prost(uint32, optional, tag = "22")]
    like: Option<u32>,
}

impl From<&TaskOptions> for OptionsRecord {
    fn from(options: &TaskOptions) -> Self {
        Self {
            namespace: options.namespace.to_string(),
            handler: options.handler.to_string(),
            pool: options.pool.to_string(),
            priority: options.priority as u32,
            display_name: options.display_name.to_string(),
            labels: options.labels.iter().map(Into::into).collect(),
            batch: options.batch.as_ref().map(ToString::to_string),
            timeout: nanos(options.timeout),
            attempts_max: options.retry.attempts_max,
            delay: nanos(options.retry.delay),
            factor: options.retry.factor,
            delay_max: nanos(options.retry.delay_max),
            jitter: options.retry.jitter,
            at_most_once: options.at_most_once,
            durability: options.durability as u32,
            content_type: options.content_type.to_string(),
            submitted_by: options.submitted_by.to_string(),
            schedule: options.schedule.as_ref().map(ToString::to_string),
            limits: options.limits.iter().map(Into::into).collect(),
            fairness_key: options.fairness_key.as_ref().map(ToString::to_string),
            like: None,
        }
    }
}

impl OptionsRecord {
    /// Options that resemble those with this index in the same commit.
    pub(super) fn resembling(index: u32, options: &TaskOptions) -> Self {
        Self {
            display_name: options.display_name.to_string(),
            labels: options.labels.iter().map(Into::into).collect(),
            batch: options.batch.as_ref().map(ToString::to_string),
            schedule: options.schedule.as_ref().map(ToString::to_string),
            limits: options.limits.iter().map(Into::into).collect(),
            fairness_key: options.fairness_key.as_ref().map(ToString::to_string),
            like: Some(index),
            ..Self::default()
        }
    }

    /// The options from a commit. `earlier`: those before them in it.
    pub(super) fn into_model_after(self, earlier: &[Arc<TaskOptions>]) -> Result<TaskOptions, Corruption> {
        let Some(index) = self.like else { return self.into_model() };
        let like = usize::try_from(index).ok().and_then(|index| earlier.get(index));
        let like = like.ok_or_else(|| Corruption::new(format!("task options {index} are missing")))?;
        Ok(TaskOptions {
            fairness_key: self.fairness_key.as_deref().map(|key| name(key, FairnessKey::parse)).transpose()?,
            display_name: self.display_name.into(),
            labels: self.labels.into_iter().map(LabelRecord::into_model).collect(),
            batch: self.batch.as_deref().map(|batch| name(batch, BatchId::parse)).transpose()?,
            schedule: self.schedule.as_deref().map(|schedule| name(schedule, ScheduleId::parse)).transpose()?,
            limits: self.limits.into_iter().map(TaskLimitRecord::into_model).collect::<Result<_, _>>()?,
            namespace: like.namespace.clone(),
            handler: like.handler.clone(),
            pool: like.pool.clone(),
            priority: like.priority,
            timeout: like.timeout,
            retry: like.retry.clone(),
            at_most_once: like.at_most_once,
            durability: like.durability,
            content_type: like.content_type.clone(),
            submitted_by: like.submitted_by.clone(),
        })
    }

    pub fn into_model(self) -> Result<TaskOptions, Corruption> {
        Ok(TaskOptions {
            namespace: name(&self.namespace, Namespace::parse)?,
            handler: name(&self.handler, HandlerName::parse)?,
            pool: name(&self.pool, PoolName::parse)?,
            priority: variant("priority", self.priority, |number| Priority::from_index(number.into()))?,
            fairness_key: self.fairness_key.as_deref().map(|key| name(key, FairnessKey::parse)).transpose()?,
            display_name: self.display_name.into(),
            labels: self.labels.into_iter().map(LabelRecord::into_model).collect(),
            batch: self.batch.as_deref().map(|batch| name(batch, BatchId::parse)).transpose()?,
            timeout: Duration::from_nanos(self.timeout),
            retry: RetryPolicy {
                attempts_max: self.attempts_max,
                delay: Duration::from_nanos(self.delay),
                factor: self.factor,
                delay_max: Duration::from_nanos(self.delay_max),
                jitter: self.jitter,
            },
            at_most_once: self.at_most_once,
            durability: match self.durability {
                1 => Durability::Fsync,
                2 => Durability::Memory,
                other => return Err(unknown("durability", other)),
            },
            limits: self.limits.into_iter().map(TaskLimitRecord::into_model).collect::<Result<_, _>>()?,
            content_type: self.content_type.into(),
            submitted_by: self.submitted_by.into(),
            schedule: self.schedule.as_deref().map(|schedule| name(schedule, ScheduleId::parse)).transpose()?,
        })
    }
}

/// A task spec without its id and its options, which are stored separately.
#[derive(Clone, PartialEq, Message)]
pub struct SpecRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub payload: Bytes,
    #[prost(string, repeated, tag = "2")]
    args: Vec<String>,
    #[prost(string, optional, tag = "3")]
    request_id: Option<String>,
    /// Older versions write the times at which the delay ends and the task expires instead of durations.
    #[prost(uint64, optional, tag = "4")]
    not_before: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    expires_at: Option<u64>,
    /// The payload is stored separately because of its size.
    #[prost(bool, tag = "6")]
    pub payload_separate: bool,
    /// Older versions do not write it.
    #[prost(message, optional, tag = "7")]
    trace: Option<TraceRecord>,
    #[prost(uint64, optional, tag = "8")]
    delay: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    expires_after: Option<u64>,
    /// Digest of a submission with a request id. Older versions do not write it.
    #[prost(bytes = "vec", tag = "10")]
    request_digest: Vec<u8>,
    /// The batch of which the task is the completion.
    #[prost(string, optional, tag = "11")]
    completes: Option<String>,
    /// The time of the run of a schedule, and its kind.
    #[prost(uint64, optional, tag = "12")]
    scheduled_time: Option<u64>,
    #[prost(uint32, tag = "13")]
    run_kind: u32,
    #[prost(string, optional, tag = "14")]
    retry_of: Option<String>,
    #[prost(message, optional, tag = "15")]
    dependencies: Option<DependenciesRecord>,
    #[prost(string, optional, tag = "16")]
    unique_key: Option<String>,
    #[prost(uint32, tag = "17")]
    on_unique_conflict: u32,
    #[prost(bool, tag = "18")]
    updated: bool,
    /// Nanoseconds.
    #[prost(uint64, optional, tag = "19")]
    reuse_result_within: Option<u64>,
}

impl From<&Arc<TaskSpec>> for SpecRecord {
    fn from(spec: &Arc<TaskSpec>) -> Self {
        let extras = spec.extras();
        let digest = extras.request.as_ref().and_then(|key| key.digest);
        Self {
            payload: TaskSpec::payload_of(spec),
            args: extras.args.iter().map(ToString::to_string).collect(),
            request_id: extras.request_id().map(str::to_owned),
            not_before: None,
            expires_at: None,
            payload_separate: false,
            trace: extras.trace.as_deref().map(Into::into),
            delay: extras.delay.map(nanos),
            expires_after: extras.expires_after.map(nanos),
            request_digest: digest.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
            completes: extras.completes.as_ref().map(ToString::to_string),
            scheduled_time: extras.scheduled.map(|scheduled| scheduled.time.0),
            run_kind: extras.scheduled.map_or(0, |scheduled| scheduled.kind as u32),
            retry_of: extras.retry_of.as_ref().map(ToString::to_string),
            dependencies: extras.dependencies.as_deref().map(Into::into),
            unique_key: extras.unique.as_ref().map(|unique| unique.key.to_string()),
            on_unique_conflict: extras.unique.as_ref().map_or(0, |unique| unique.on_conflict as u32),
            updated: extras.updated,
            reuse_result_within: extras.unique.as_ref().and_then(|unique| unique.reuse_result_within).map(nanos),
        }
    }
}

impl SpecRecord {
    /// As [`TaskSpec::update`], without the options.
    pub fn update(&mut self, delay: Option<Duration>, expires_after: Option<Duration>) {
        (self.delay, self.not_before) = (delay.map(nanos), None);
        (self.expires_after, self.expires_at) = (expires_after.map(nanos), None);
        self.updated = true;
    }

    pub fn into_model(
        self,
        id: TaskId,
        options: Arc<TaskOptions>,
        submitted_at: Timestamp,
    ) -> Result<TaskSpec, Corruption> {
        let digest = SubmissionDigest::from_bytes(&self.request_digest);
        let until = |at: u64| Timestamp(at).since(submitted_at);
        let extras = TaskExtras {
            args: self.args.into_iter().map(String::into_boxed_str).collect(),
            request: self.request_id.map(|id| Arc::new(RequestKey { id: id.into(), digest })),
            delay: self.delay.map(Duration::from_nanos).or(self.not_before.map(until)),
            expires_after: self.expires_after.map(Duration::from_nanos).or(self.expires_at.map(until)),
            trace: self.trace.map(|trace| Arc::new(trace.into_model())),
            completes: self.completes.as_deref().map(|batch| name(batch, BatchId::parse)).transpose()?,
            scheduled: self.scheduled_time.map(|time| scheduled(time, self.run_kind)).transpose()?,
            retry_of: self.retry_of.as_deref().map(|task| name(task, TaskId::parse)).transpose()?,
            dependencies: self.dependencies.map(DependenciesRecord::into_model).transpose()?.map(Arc::new),
            unique: self
                .unique_key
                .map(|key| unique_key(key, self.on_unique_conflict, self.reuse_result_within))
                .transpose()?,
            updated: self.updated,
        };
        Ok(TaskSpec { id, options, payload: Vec::from(self.payload).into(), extras: extras.boxed() })
    }
}

/// A task that is submitted later.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TemplateRecord {
    #[prost(string, tag = "1")]
    task: String,
    #[prost(message, optional, tag = "2")]
    options: Option<OptionsRecord>,
    #[prost(message, optional, tag = "3")]
    spec: Option<SpecRecord>,
}

impl From<&Arc<TaskSpec>> for TemplateRecord {
    fn from(spec: &Arc<TaskSpec>) -> Self {
        let (options, record) = ((&*spec.options).into(), spec.into());
        Self { task: spec.id.to_string(), options: Some(options), spec: Some(record) }
    }
}

impl TemplateRecord {
    pub(super) fn into_model(self) -> Result<TaskSpec, Corruption> {
        let missing = || Corruption::new("incomplete task of a batch or schedule");
        let options = Arc::new(self.options.ok_or_else(missing)?.into_model()?);
        self.spec.ok_or_else(missing)?.into_model(name(&self.task, TaskId::parse)?, options, Timestamp::ZERO)
    }
}

fn scheduled(time: u64, kind: u32) -> Result<Scheduled, Corruption> {
    Ok(Scheduled { time: Timestamp(time), kind: variant("kind of a run", kind, RunKind::from_number)? })
}

fn unique_key(key: String, on_conflict: u32, reuse_result_within: Option<u64>) -> Result<Box<UniqueKey>, Corruption> {
    let on_conflict = variant("rule for unique keys", on_conflict, OnUniqueConflict::from_number)?;
    let reuse_result_within = reuse_result_within.map(Duration::from_nanos);
    Ok(Box::new(UniqueKey { key: key.into(), on_conflict, reuse_result_within }))
}

/// A task status; the result only when it is small.
#[derive(Clone, PartialEq, Message)]
pub struct StatusRecord {
    #[prost(uint32, tag = "1")]
    state: u32,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(uint32, tag = "4")]
    crashes: u32,
    #[prost(uint64, tag = "5")]
    submitted_at: u64,
    #[prost(uint64, tag = "6")]
    eligible_at: u64,
    #[prost(uint64, optional, tag = "7")]
    started_at: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    finished_at: Option<u64>,
    #[prost(string, optional, tag = "9")]
    worker: Option<String>,
    #[prost(message, optional, tag = "10")]
    failure: Option<FailureRecord>,
    #[prost(message, optional, tag = "11")]
    cancel_request: Option<RequestRecord>,
    #[prost(message, optional, tag = "12")]
    cancel_receipt: Option<ReceiptRecord>,
    #[prost(message, optional, tag = "13")]
    usage: Option<UsageRecord>,
    #[prost(uint64, tag = "14")]
    stdout_bytes: u64,
    #[prost(uint64, tag = "15")]
    stderr_bytes: u64,
    /// A large result is stored separately.
    #[prost(message, optional, tag = "16")]
    pub result: Option<PayloadRecord>,
    /// Older versions do not write it.
    #[prost(uint64, optional, tag = "17")]
    since: Option<u64>,
    #[prost(bool, tag = "18")]
    interrupted: bool,
    /// Older versions do not write it.
    #[prost(uint64, optional, tag = "19")]
    produced_bytes: Option<u64>,
    /// Of the current or last attempt, if a remote worker holds it.
    #[prost(uint64, optional, tag = "20")]
    remote_fence: Option<u64>,
    #[prost(message, optional, tag = "22")]
    hold: Option<LimitHoldRecord>,
    #[prost(message, optional, tag = "24")]
    artifacts: Option<ArtifactsRecord>,
}

impl From<&TaskStatus> for StatusRecord {
    fn from(status: &TaskStatus) -> Self {
        Self {
            state: status.state as u32,
            revision: status.revision.0,
            attempt: status.attempt,
            crashes: status.crashes,
            submitted_at: status.submitted_at.0,
            eligible_at: status.eligible_at.0,
            started_at: status.started_at.map(|at| at.0),
            finished_at: status.finished_at.map(|at| at.0),
            worker: status.worker.as_deref().map(str::to_owned),
            failure: status.failure.as_deref().map(Into::into),
            cancel_request: status.cancel_request.as_deref().map(Into::into),
            cancel_receipt: status.cancel_receipt.as_deref().map(Into::into),
            usage: status.usage.as_deref().map(Into::into),
            stdout_bytes: status.stdout_bytes,
            stderr_bytes: status.stderr_bytes,
            result: None,
            since: Some(status.since.0),
            interrupted: status.interrupted,
            produced_bytes: Some(status.produced_bytes),
            remote_fence: status.remote_fence,
            hold: status.hold.as_deref().map(Into::into),
            artifacts: status.artifacts.as_deref().map(Into::into),
        }
    }
}

impl StatusRecord {
    /// What an older version did not write: the result, and what was kept of the last attempt's output.
    fn estimated_bytes(&self) -> u64 {
        let kept = |written: u64| written.min(2 * OUTPUT_KEPT_BYTES as u64);
        let result = self.usage.as_ref().map_or(0, |usage| usage.result_bytes);
        result + kept(self.stdout_bytes) + kept(self.stderr_bytes)
    }

    /// When the state began, or a time before that which an older version knew.
    fn state_since(&self) -> Timestamp {
        let started_at = self.started_at.unwrap_or(self.submitted_at);
        let earlier = match u8::try_from(self.state).ok().and_then(TaskState::from_number) {
            Some(TaskState::Queued) => self.eligible_at,
            Some(TaskState::Waiting | TaskState::Running) => started_at,
            _ => self.finished_at.unwrap_or(started_at),
        };
        Timestamp(self.since.unwrap_or(earlier))
    }

    /// `submission`: the revision of the task's submission, which is the key of its row.
    pub fn into_model(self, submission: Revision) -> Result<TaskStatus, Corruption> {
        let produced_bytes = self.produced_bytes.unwrap_or_else(|| self.estimated_bytes());
        let state = variant("task state", self.state, TaskState::from_number)?;
        // An older version kept the failure of an earlier attempt.
        let is_past = matches!(state, TaskState::Running | TaskState::Completed | TaskState::Cancelled);
        let since = self.state_since();
        let failure = self.failure.filter(|_| !is_past);
        Ok(TaskStatus {
            produced_bytes,
            state,
            submission,
            revision: Revision(self.revision),
            attempt: self.attempt,
            crashes: self.crashes,
            submitted_at: Timestamp(self.submitted_at),
            since,
            interrupted: self.interrupted,
            eligible_at: Timestamp(self.eligible_at),
            hold: self.hold.map(LimitHoldRecord::into_model).transpose()?,
            started_at: self.started_at.map(Timestamp),
            finished_at: self.finished_at.map(Timestamp),
            worker: self.worker.map(Into::into),
            remote_fence: self.remote_fence,
            failure: failure.map(FailureRecord::into_model).transpose()?.map(Box::new),
            cancel_request: self.cancel_request.map(RequestRecord::into_model).transpose()?.map(Box::new),
            cancel_receipt: self.cancel_receipt.map(ReceiptRecord::into_model).transpose()?.map(Box::new),
            result: self.result.map(PayloadRecord::into_model),
            artifacts: self.artifacts.map(ArtifactsRecord::into_model).transpose()?.map(Arc::new),
            usage: self.usage.map(|usage| Box::new(usage.into_model())),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Failure, FailureReason, ResourceUsage};
    use crate::store::tests::fixtures;

    /// Payload `abc` and the argument `-v`, as written by versions without traces.
    const WITHOUT_TRACE: &[u8] = b"\x0a\x03abc\x12\x02-v";

    #[test]
    fn times_of_older_versions_become_durations_from_the_submission() {
        // not_before = 1,500, expires_at = 900.
        let record = SpecRecord::decode(&b"\x20\xdc\x0b\x28\x84\x07"[..]).unwrap();
        let id = TaskId::parse("t").unwrap();
        let spec = record.into_model(id, Arc::new(fixtures::options(0)), Timestamp(1_000)).unwrap();
        let extras = spec.extras();
        assert_eq!((extras.delay, extras.expires_after), (Some(Duration::from_micros(500)), Some(Duration::ZERO)));
    }

    #[test]
    fn the_beginning_of_a_state_that_an_older_version_did_not_write_is_estimated() {
        let mut status = TaskStatus::submitted(TaskState::Queued, Revision(1), Timestamp(1), Timestamp(2));
        (status.started_at, status.finished_at) = (Some(Timestamp(3)), Some(Timestamp(4)));
        let since = |state| {
            let record = StatusRecord { since: None, ..StatusRecord::from(&TaskStatus { state, ..status.clone() }) };
            record.into_model(Revision(1)).unwrap().since.0
        };
        let expected =
            [(TaskState::Queued, 2), (TaskState::Waiting, 3), (TaskState::Running, 3), (TaskState::Cancelled, 4)];
        for (state, at) in expected {
            assert_eq!(since(state), at, "{state:?}");
        }
    }

    #[test]
    fn the_bytes_of_a_task_that_an_older_version_did_not_count_are_estimated() {
        let mut status = TaskStatus::submitted(TaskState::Completed, Revision(1), Timestamp(1), Timestamp(2));
        status.usage = Some(Box::new(ResourceUsage { result_bytes: 1_000, ..ResourceUsage::default() }));
        (status.stdout_bytes, status.stderr_bytes) = (1 << 30, 7);
        let record = StatusRecord { produced_bytes: None, ..StatusRecord::from(&status) };
        assert_eq!(record.into_model(Revision(1)).unwrap().produced_bytes, 1_000 + (128 << 10) + 7);
    }

    #[test]
    fn a_failure_that_an_older_version_kept_beyond_its_attempt_is_left_out() {
        let failure = Box::new(Failure::new(FailureReason::HandlerError, "exited with code 1"));
        for (state, expected) in [
            (TaskState::Waiting, true),
            (TaskState::Queued, true),
            (TaskState::Failed, true),
            (TaskState::Running, false),
            (TaskState::Completed, false),
            (TaskState::Cancelled, false),
        ] {
            let mut status = TaskStatus::submitted(state, Revision(1), Timestamp(1), Timestamp(2));
            status.failure = Some(failure.clone());
            let read = StatusRecord::from(&status).into_model(Revision(1)).unwrap();
            assert_eq!(read.failure.is_some(), expected, "{state:?}");
        }
    }

    #[test]
    fn a_spec_without_a_trace_has_the_older_format() {
        let id = TaskId::parse("t").unwrap();
        let record = SpecRecord::decode(WITHOUT_TRACE).unwrap();
        let spec = record.into_model(id, Arc::new(fixtures::options(0)), Timestamp::ZERO).unwrap();
        let extras = spec.extras();
        assert_eq!((&spec.payload[..], &*extras.args, &extras.trace), (&b"abc"[..], &["-v".into()][..], &None));
        assert_eq!(SpecRecord::from(&Arc::new(spec)).encode_to_vec(), WITHOUT_TRACE);
    }
}
