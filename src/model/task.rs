//! A task and its status.

use std::sync::Arc;

use super::artifact::Artifacts;
use super::cancel::{CancelReceipt, CancelRequest};
use super::clock::Timestamp;
use super::failure::Failure;
use super::id::Revision;
use super::output::ResourceUsage;
use super::spec::{Payload, TaskSpec};
use super::task_limit::LimitHold;

/// State of a task. Terminal states never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskState {
    /// Not eligible yet: delayed, backing off after a failed attempt, or held by a limit.
    Waiting = 1,
    /// Eligible; starts when a worker is free.
    Queued = 2,
    /// An attempt is running.
    Running = 3,
    /// Ended successfully; has a result.
    Completed = 4,
    /// Ended with a failure.
    Failed = 5,
    /// Ended by a cancel; has a receipt.
    Cancelled = 6,
}

impl TaskState {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Inverse of `as u8`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Waiting,
            2 => Self::Queued,
            3 => Self::Running,
            4 => Self::Completed,
            5 => Self::Failed,
            6 => Self::Cancelled,
            _ => return None,
        })
    }

    /// Name in the contract, without the prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub spec: Arc<TaskSpec>,
    pub status: TaskStatus,
}

/// Status of a task at a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStatus {
    pub state: TaskState,
    /// Revision of the submission. Unlike the ID it is never used again.
    pub submission: Revision,
    /// Revision of the last change.
    pub revision: Revision,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Consecutive crashes of the server, or losses of its remote worker, while the task was running.
    pub crashes: u32,
    pub submitted_at: Timestamp,
    /// When the present state began, or in it the wait for a limit.
    pub since: Timestamp,
    /// The present state began with the interruption of an attempt, so that a QUEUED task starts before others.
    pub interrupted: bool,
    /// WAITING: when the task becomes eligible. Otherwise when it last became eligible.
    pub eligible_at: Timestamp,
    /// WAITING: the limit for which the task waits, if it waits for one.
    pub hold: Option<Box<LimitHold>>,
    /// Start of the current or last attempt.
    pub started_at: Option<Timestamp>,
    /// When the task reached its terminal state.
    pub finished_at: Option<Timestamp>,
    /// `pool/PoolWorker-N` of the current or last attempt.
    pub worker: Option<Arc<str>>,
    /// Fence of the current or last attempt if a remote worker holds it.
    pub remote_fence: Option<u64>,
    /// The last failure.
    pub failure: Option<Box<Failure>>,
    /// A cancel that has not finished.
    pub cancel_request: Option<Box<CancelRequest>>,
    /// Receipt of a finished cancel.
    pub cancel_receipt: Option<Box<CancelReceipt>>,
    /// Result of a COMPLETED task. The scheduler does not keep it in memory.
    pub result: Option<Payload>,
    /// Artifacts of a COMPLETED task. The scheduler does not keep them in memory.
    pub artifacts: Option<Arc<Artifacts>>,
    /// Cost of the last attempt.
    pub usage: Option<Box<ResourceUsage>>,
    /// Bytes written to stdout by the last attempt.
    pub stdout_bytes: u64,
    /// Bytes written to stderr by the last attempt.
    pub stderr_bytes: u64,
    /// Bytes of the result, and of outputs and failures of all attempts, as [`TaskEvent::content_bytes`] counts them.
    ///
    /// [`TaskEvent::content_bytes`]: super::event::TaskEvent::content_bytes
    pub produced_bytes: u64,
}

impl TaskStatus {
    /// The status right after submission.
    pub fn submitted(state: TaskState, revision: Revision, at: Timestamp, eligible_at: Timestamp) -> Self {
        Self {
            state,
            submission: revision,
            revision,
            attempt: 0,
            crashes: 0,
            submitted_at: at,
            since: at,
            interrupted: false,
            eligible_at,
            hold: None,
            started_at: None,
            finished_at: None,
            worker: None,
            remote_fence: None,
            failure: None,
            cancel_request: None,
            cancel_receipt: None,
            result: None,
            artifacts: None,
            usage: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            produced_bytes: 0,
        }
    }
}

/// The part of a task that the scheduler needs after a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveredTask {
    /// Without the payload, which the store passes separately.
    pub spec: Arc<TaskSpec>,
    /// Revision of the last change.
    pub revision: Revision,
    /// Revision of the submission.
    pub submission: Revision,
    pub submitted_at: Timestamp,
    /// WAITING: when the task becomes eligible.
    pub eligible_at: Timestamp,
    /// WAITING: the limit for which the task waits, if it waits for one.
    pub hold: Option<Box<LimitHold>>,
    /// When the present state began, or in it the wait for a limit.
    pub since: Timestamp,
    /// The present state began with the interruption of an attempt.
    pub interrupted: bool,
    /// Whether an attempt has ever started, also one that does not count.
    pub has_started: bool,
    /// A cancel that has not finished.
    pub cancel: Option<Box<CancelRequest>>,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Consecutive crashes of the server, or losses of its remote worker, while the task was running.
    pub crashes: u32,
    /// RUNNING: the worker, and the fence of the attempt, if a remote worker holds it.
    pub remote: Option<(Arc<str>, u64)>,
    pub state: TaskState,
    /// See [`TaskStatus::produced_bytes`].
    pub produced_bytes: u64,
}

impl From<Task> for RecoveredTask {
    fn from(Task { spec, status }: Task) -> Self {
        Self {
            spec,
            revision: status.revision,
            submission: status.submission,
            submitted_at: status.submitted_at,
            eligible_at: status.eligible_at,
            hold: status.hold,
            since: status.since,
            interrupted: status.interrupted,
            has_started: status.started_at.is_some(),
            cancel: status.cancel_request,
            attempt: status.attempt,
            crashes: status.crashes,
            remote: status.worker.zip(status.remote_fence),
            state: status.state,
            produced_bytes: status.produced_bytes,
        }
    }
}
