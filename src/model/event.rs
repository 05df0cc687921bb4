//! Events: the state changes of tasks, batches, schedules, pools and handlers, as the journal stores them and watches deliver them.

use std::sync::Arc;
use std::time::Duration;

use super::artifact::Artifacts;
use super::batch::{BatchChange, BatchEvent};
use super::cancel::{CancelReceipt, CancelRequest};
use super::catalog::Registration;
use super::clock::Timestamp;
use super::failure::Failure;
use super::holds::Holds;
use super::id::{HandlerName, PoolName, Revision, TaskId};
use super::output::{Output, ResourceUsage};
use super::pool::PoolSettings;
use super::schedule::{ScheduleChange, ScheduleEvent};
use super::spec::{Payload, TaskOptions, TaskSpec};
use super::task::TaskState;
use super::task_limit::{LimitCharge, LimitHold};
use super::upload::Upload;

/// About the bytes of an event in a commit, without those of variable length.
const ENCODED_BYTES_FIXED: usize = 128;
/// About the bytes of the allocations of an event, on average, without those of variable length.
const ALLOCATED_BYTES: usize = 48;

/// An entry of the server's event log: a numbered state change of one subject. The log numbers the events of all
/// subjects together and without gaps. The state of the scheduler can be rebuilt from all events.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Task(TaskEvent),
    Batch(BatchEvent),
    Schedule(ScheduleEvent),
    Pool(PoolEvent),
    Handler(HandlerEvent),
}

// Millions of events are of tasks: other subjects must not make them larger.
const _: () = assert!(size_of::<Event>() == size_of::<TaskEvent>());

/// A state change of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEvent {
    pub revision: Revision,
    pub at: Timestamp,
    pub task: TaskId,
    /// Options of the task, so that filters need no look-up.
    pub options: Arc<TaskOptions>,
    /// State before the event; equal to `state` for `Submitted` and if only a detail has changed.
    pub previous: TaskState,
    /// State after the event.
    pub state: TaskState,
    /// Current attempt after the event; 0 before the first.
    pub attempt: u32,
    /// WAITING: why. No event tells when one of several is released.
    pub holds: Holds,
    /// WAITING: the limit for which the task waits, if it waits for one.
    pub hold: Option<Box<LimitHold>>,
    pub change: TaskChange,
}

/// A change of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEvent {
    pub revision: Revision,
    pub at: Timestamp,
    pub pool: PoolName,
    pub change: PoolChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolChange {
    /// The settings were changed while the server ran.
    Updated {
        /// The settings in the configuration at that time.
        configured: PoolSettings,
        /// The settings after the change.
        set: PoolSettings,
    },
}

/// A change of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerEvent {
    pub revision: Revision,
    pub at: Timestamp,
    pub handler: HandlerName,
    pub change: HandlerChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerChange {
    /// A worker offered it for the first time, or for the first time in another pool. Replaces an earlier registration.
    Registered(Registration),
    /// A caller uploaded it. Replaces an earlier upload.
    Uploaded(Arc<Upload>),
    /// A caller deleted the upload.
    Deleted,
}

/// Why a running attempt was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InterruptCause {
    /// The server was drained.
    Drain = 1,
    /// The server crashed.
    Crash = 2,
    /// The server lacked a resource to run it, or the remote worker has not accepted it; nothing of it has run.
    Unavailable = 3,
    /// The remote worker disappeared.
    WorkerLost = 4,
}

/// What holds a running attempt, and with it whether the attempt can outlive the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// A worker of the server with this epoch, so the attempt ended with that server at the latest.
    Local {
        /// 0 if the server did not record it.
        epoch: u64,
    },
    /// A remote worker, for which the attempt has this fence. It can outlive the server.
    Remote { fence: u64 },
}

#[derive(Clone, Debug, PartialEq)]
pub enum TaskChange {
    /// Accepted as WAITING or QUEUED.
    Submitted { spec: Arc<TaskSpec> },
    /// WAITING or QUEUED before the first start: the options were replaced by those of the event, and these fields of the extras.
    /// A QUEUED task is queued anew, or is WAITING with a new delay.
    Updated {
        /// As in [`TaskExtras`](super::spec::TaskExtras).
        delay: Option<Duration>,
        expires_after: Option<Duration>,
        /// The options that were replaced; `None` if an earlier version has written the event.
        before: Option<Arc<TaskOptions>>,
    },
    /// WAITING → QUEUED.
    Eligible,
    /// The delay or the back-off has passed, but a limit holds the task; the state stays WAITING.
    Held,
    /// QUEUED → RUNNING.
    Started {
        /// `pool/PoolWorker-N`.
        worker: Arc<str>,
        lease: Lease,
        /// Of the limits with a rate.
        charges: Box<[LimitCharge]>,
    },
    /// RUNNING → COMPLETED.
    Completed {
        result: Payload,
        usage: Box<ResourceUsage>,
        /// `None` if nothing was written.
        output: Option<Box<Output>>,
        /// `None` if it left none.
        artifacts: Option<Arc<Artifacts>>,
    },
    /// RUNNING → WAITING, or QUEUED without a delay and a limit that holds the task: the attempt failed and the task is retried.
    Retrying {
        failure: Box<Failure>,
        /// When the next attempt may start.
        not_before: Timestamp,
        usage: Box<ResourceUsage>,
        output: Option<Box<Output>>,
    },
    /// → FAILED.
    Failed {
        failure: Box<Failure>,
        /// Usage of the last attempt, if the task failed with it.
        usage: Option<Box<ResourceUsage>>,
        output: Option<Box<Output>>,
    },
    /// RUNNING → QUEUED, or WAITING if a limit holds the task; the attempt does not count.
    Interrupted { cause: InterruptCause },
    /// A cancel of a running task was accepted; the state stays RUNNING.
    CancelRequested { request: Box<CancelRequest> },
    /// → CANCELLED.
    Cancelled {
        receipt: Box<CancelReceipt>,
        /// Usage of the attempt, if one ran.
        usage: Option<Box<ResourceUsage>>,
        output: Option<Box<Output>>,
    },
    /// A finished task was deleted, by retention or `DeleteTasks`. The state does not change.
    Deleted,
}

impl InterruptCause {
    /// Whether the task may be the reason for it. After several of these in a row the task fails.
    pub fn counts_as_crash(self) -> bool {
        matches!(self, Self::Crash | Self::WorkerLost)
    }
}

impl Event {
    /// Position in the server's event log.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Task(event) => event.revision,
            Self::Batch(event) => event.revision,
            Self::Schedule(event) => event.revision,
            Self::Pool(event) => event.revision,
            Self::Handler(event) => event.revision,
        }
    }

    pub fn at(&self) -> Timestamp {
        match self {
            Self::Task(event) => event.at,
            Self::Batch(event) => event.at,
            Self::Schedule(event) => event.at,
            Self::Pool(event) => event.at,
            Self::Handler(event) => event.at,
        }
    }

    /// The event of a task; `None` for other subjects.
    pub fn task(&self) -> Option<&TaskEvent> {
        match self {
            Self::Task(event) => Some(event),
            Self::Batch(_) | Self::Schedule(_) | Self::Pool(_) | Self::Handler(_) => None,
        }
    }

    /// Bytes of payload, result and output.
    pub fn weight(&self) -> usize {
        self.task().map_or(0, TaskEvent::weight)
    }

    /// About the bytes that an event occupies in memory in addition to those that it adds to a commit, without what it
    /// shares with other events.
    pub const UNENCODED_BYTES: usize = size_of::<Self>() + ALLOCATED_BYTES - ENCODED_BYTES_FIXED;

    /// About the bytes that the event adds to a commit after another event. A commit has the same options once: here those that are
    /// the object of the event before.
    pub fn encoded_bytes(&self, before: Option<&Self>) -> usize {
        let is_shared = |options: &Arc<TaskOptions>| {
            before.and_then(Self::task).is_some_and(|before| Arc::ptr_eq(&before.options, options))
        };
        let options = match self {
            // Counted with the change.
            Self::Task(TaskEvent { change: TaskChange::Submitted { .. } | TaskChange::Updated { .. }, .. }) => 0,
            Self::Task(event) if !is_shared(&event.options) => event.options.attached_bytes(),
            _ => 0,
        };
        ENCODED_BYTES_FIXED + options + self.variable_bytes()
    }

    /// The same of consecutive events.
    pub fn all_encoded_bytes<'a>(events: &'a [Self], mut before: Option<&'a Self>) -> usize {
        events.iter().map(|event| event.encoded_bytes(before.replace(event))).sum()
    }

    fn variable_bytes(&self) -> usize {
        match self {
            Self::Task(TaskEvent { change: TaskChange::Updated { before, .. }, options, .. }) => {
                options.attached_bytes() + before.as_ref().map_or(0, |before| before.attached_bytes())
            }
            Self::Task(event) => event.content_bytes(),
            Self::Batch(event) => match &event.change {
                BatchChange::Created { spec } => spec.content_bytes(),
                BatchChange::CancelRequested { request } => request.reason.len() + request.requested_by.len(),
                BatchChange::Closed | BatchChange::Deleted => 0,
            },
            Self::Schedule(event) => match &event.change {
                ScheduleChange::Created { spec } | ScheduleChange::Updated { spec } => spec.content_bytes(),
                ScheduleChange::Missed { cause, .. } => cause.len(),
                _ => 0,
            },
            Self::Pool(_) => 0,
            Self::Handler(event) => event.handler.as_str().len() + event.change.content_bytes(),
        }
    }
}

impl HandlerChange {
    /// Bytes of everything of variable size.
    fn content_bytes(&self) -> usize {
        match self {
            Self::Registered(Registration { pools, description }) => {
                let pools: usize = pools.iter().map(|pool| size_of::<PoolName>() + pool.as_str().len()).sum();
                description.len() + pools
            }
            Self::Uploaded(upload) => upload.pool.as_str().len() + upload.settings.bytes(),
            Self::Deleted => 0,
        }
    }
}

impl TaskEvent {
    /// Bytes of everything of variable size: payload, arguments, labels and names; result, output, failure and the list of
    /// artifacts.
    pub fn content_bytes(&self) -> usize {
        match &self.change {
            TaskChange::Submitted { spec } => spec.payload.len() + spec.attached_bytes(),
            TaskChange::Completed { artifacts, .. } => {
                self.weight() + artifacts.as_deref().map_or(0, Artifacts::content_bytes)
            }
            TaskChange::Retrying { failure, .. } | TaskChange::Failed { failure, .. } => {
                self.weight() + failure.message.len() + failure.detail.len()
            }
            _ => self.weight(),
        }
    }

    /// Bytes of payload, result and output.
    pub fn weight(&self) -> usize {
        let output_bytes = |output: &Option<Box<Output>>| {
            output.as_ref().map_or(0, |output| {
                [&output.stdout, &output.stderr].iter().map(|kept| kept.head.len() + kept.tail.len()).sum()
            })
        };
        match &self.change {
            TaskChange::Submitted { spec } => spec.payload.len(),
            TaskChange::Completed { result, output, .. } => result.data.len() + output_bytes(output),
            TaskChange::Retrying { output, .. }
            | TaskChange::Failed { output, .. }
            | TaskChange::Cancelled { output, .. } => output_bytes(output),
            _ => 0,
        }
    }
}
