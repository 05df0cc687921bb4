//! A task: what was asked for, how it stands, and what it cost.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use super::clock::Timestamp;
use super::failure::Failure;
use super::id::{BatchId, HandlerName, Namespace, PoolName, Revision, TaskId};
use super::pool::Durability;
use super::priority::Priority;
use super::retry::RetryPolicy;
use super::trace::TraceContext;

/// Where a task stands. Terminal states never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskState {
    /// Not eligible yet: delay or back-off.
    Waiting = 1,
    /// Eligible; runs when a worker is free.
    Queued = 2,
    /// An attempt is under way.
    Running = 3,
    /// Ended well; has a result.
    Completed = 4,
    /// Ended badly; has a failure.
    Failed = 5,
    /// Ended by a cancel; has a receipt.
    Cancelled = 6,
}

impl TaskState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether the task has ended for good.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Reverses `as u8`.
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

    /// Name as in the contract, without its prefix.
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

/// Bytes with a content type: a payload or a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The bytes.
    pub data: Bytes,
    /// A MIME type, such as `application/json`.
    pub content_type: Arc<str>,
}

/// Content type of JSON payloads and results.
pub const JSON: &str = "application/json";
/// Content type when nobody says.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// What many tasks have in common. Shared between them, so that a queued task costs little memory.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOptions {
    /// Tenant.
    pub namespace: Namespace,
    /// What runs.
    pub handler: HandlerName,
    /// Where it runs; already resolved from the handler's default.
    pub pool: PoolName,
    /// How urgent it is.
    pub priority: Priority,
    /// For people; may be empty.
    pub display_name: Box<str>,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Tasks submitted together.
    pub batch: Option<BatchId>,
    /// Time-out of each attempt.
    pub timeout: Duration,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// Never started twice, even when the server crashed in between.
    pub at_most_once: bool,
    /// What an acknowledgement promised.
    pub durability: Durability,
    /// Content type of the payload.
    pub content_type: Arc<str>,
    /// Who submitted it: peer address or identity.
    pub submitted_by: Box<str>,
}

#[cfg(test)]
impl TaskOptions {
    /// Those of a test that minds only some of them.
    pub(crate) fn sample() -> Self {
        Self {
            namespace: Namespace::default(),
            handler: HandlerName::parse("work").unwrap(),
            pool: PoolName::parse("p").unwrap(),
            priority: Priority::Normal,
            display_name: "".into(),
            labels: Box::default(),
            batch: None,
            timeout: Duration::from_secs(300),
            retry: RetryPolicy::default(),
            at_most_once: false,
            durability: Durability::Fsync,
            content_type: "text/plain".into(),
            submitted_by: "test".into(),
        }
    }
}

// Equality is an equivalence: the numbers of a retry policy are parsed, and never NaN.
impl Eq for TaskOptions {}

impl Hash for TaskOptions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What tells tasks apart in practice; the rest only decides equality.
        self.namespace.hash(state);
        self.handler.hash(state);
        self.pool.hash(state);
        self.priority.hash(state);
        self.labels.hash(state);
        self.display_name.hash(state);
        self.batch.hash(state);
        self.submitted_by.hash(state);
    }
}

/// What was asked for; never changes after submission.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpec {
    /// Identity.
    pub id: TaskId,
    /// What it shares with its like.
    pub options: Arc<TaskOptions>,
    /// The input. Not `Bytes`: the spec is shared as a whole, and that costs a queued task 40 bytes more.
    pub payload: Box<[u8]>,
    /// What few tasks ask for; read by [`TaskSpec::extras`].
    pub extras: Option<Box<TaskExtras>>,
}

/// What few tasks ask for, apart, so that the others stay small.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskExtras {
    /// Arguments added to those of a process handler's registration.
    pub args: Box<[Box<str>]>,
    /// Idempotency key of the submission.
    pub request_id: Option<Box<str>>,
    /// Does not start before this time.
    pub not_before: Option<Timestamp>,
    /// Fails with EXPIRED when it has not started by this time.
    pub expires_at: Option<Timestamp>,
    /// Where in a trace it was submitted.
    pub trace: Option<Arc<TraceContext>>,
}

static NO_EXTRAS: LazyLock<TaskExtras> = LazyLock::new(TaskExtras::default);

impl TaskExtras {
    /// As a spec holds them; nothing when nothing is asked for.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != *NO_EXTRAS).then(|| Box::new(self))
    }
}

impl TaskSpec {
    /// What was asked for beyond the usual.
    pub fn extras(&self) -> &TaskExtras {
        self.extras.as_deref().unwrap_or(&NO_EXTRAS)
    }

    /// The same without its payload.
    #[must_use]
    pub fn without_payload(&self) -> Self {
        Self {
            id: self.id.clone(),
            options: self.options.clone(),
            payload: Box::default(),
            extras: self.extras.clone(),
        }
    }

    /// The payload, shared with the spec.
    pub fn payload_of(spec: &Arc<Self>) -> Bytes {
        struct Owner(Arc<TaskSpec>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0.payload
            }
        }
        if spec.payload.is_empty() { Bytes::new() } else { Bytes::from_owner(Owner(Arc::clone(spec))) }
    }
}

/// How a cancel is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CancelMode {
    /// Ask, then force after the grace.
    #[default]
    Graceful = 1,
    /// Force at once.
    Force = 2,
}

/// A cancel of a running task that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// When it was accepted.
    pub requested_at: Timestamp,
    /// The caller's words; may be empty.
    pub reason: Box<str>,
    /// Peer address or identity.
    pub requested_by: Box<str>,
    /// Ask or force.
    pub mode: CancelMode,
    /// Time between asking and forcing.
    pub grace: Duration,
}

/// What ended the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StopMethod {
    /// It had not begun.
    NeverStarted = 1,
    /// The handler saw its token and returned.
    Token = 2,
    /// SIGTERM to the process group.
    SignalTerm = 3,
    /// SIGKILL to the process group.
    SignalKill = 4,
    /// The future was dropped.
    Abort = 5,
    /// The work ended by itself before the stop took hold.
    Finished = 6,
}

impl StopMethod {
    /// Reverses `as u8`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NeverStarted,
            2 => Self::Token,
            3 => Self::SignalTerm,
            4 => Self::SignalKill,
            5 => Self::Abort,
            6 => Self::Finished,
            _ => return None,
        })
    }
}

/// Proof of a cancel: who asked, when the work had really stopped, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelReceipt {
    /// The accepted request.
    pub request: CancelRequest,
    /// When nothing of the task ran any more.
    pub stopped_at: Timestamp,
    /// What stopped it.
    pub method: StopMethod,
}

/// What one attempt cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Eligible but not running, before this attempt.
    pub queue_time: Duration,
    /// From start to end.
    pub run_time: Duration,
    /// Processor time, where the runner can tell.
    pub cpu_time: Option<Duration>,
    /// Largest resident size in bytes, where the runner can tell.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes written to stdout and stderr, kept or not.
    pub output_bytes: u64,
    /// Bytes of the result.
    pub result_bytes: u64,
}

/// One of the streams that an attempt writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OutputStream {
    /// Standard output.
    Stdout = 1,
    /// Standard error, and the log of built-in handlers.
    Stderr = 2,
}

/// What was kept of one stream: its head and its tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes.
    pub head: Bytes,
    /// The last bytes, when there was more than the head holds.
    pub tail: Bytes,
    /// All bytes written; `total - head - tail` were not kept.
    pub total: u64,
}

/// Both streams of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
}

/// How a task stands at a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStatus {
    /// The state.
    pub state: TaskState,
    /// Revision of the last change.
    pub revision: Revision,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Server crashes in a row while it was running.
    pub crashes: u32,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// WAITING: when it becomes eligible. Otherwise when it last became so.
    pub eligible_at: Timestamp,
    /// Start of the current or last attempt.
    pub started_at: Option<Timestamp>,
    /// When it reached its terminal state.
    pub finished_at: Option<Timestamp>,
    /// `pool/PoolWorker-N` of the current or last attempt.
    pub worker: Option<Arc<str>>,
    /// The last failure.
    pub failure: Option<Box<Failure>>,
    /// A cancel that is under way.
    pub cancel_request: Option<Box<CancelRequest>>,
    /// The proof of a finished cancel.
    pub cancel_receipt: Option<Box<CancelReceipt>>,
    /// COMPLETED: the result. The scheduler's memory never holds it.
    pub result: Option<Payload>,
    /// What the last attempt cost.
    pub usage: Option<Box<ResourceUsage>>,
    /// Bytes written to stdout by the last attempt.
    pub stdout_bytes: u64,
    /// Bytes written to stderr by the last attempt.
    pub stderr_bytes: u64,
}

impl TaskStatus {
    /// The status right after submission.
    pub fn submitted(state: TaskState, revision: Revision, at: Timestamp, eligible_at: Timestamp) -> Self {
        Self {
            state,
            revision,
            attempt: 0,
            crashes: 0,
            submitted_at: at,
            eligible_at,
            started_at: None,
            finished_at: None,
            worker: None,
            failure: None,
            cancel_request: None,
            cancel_receipt: None,
            result: None,
            usage: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
        }
    }
}

/// A task as an answer shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// How it stands.
    pub status: TaskStatus,
}

/// What a restart needs to know of a task. There are many at once, so it is not all that an answer shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// What was asked for.
    pub spec: Arc<TaskSpec>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When it ended; otherwise when it becomes or became eligible.
    pub eligible_at: Timestamp,
    /// A cancel that is under way.
    pub cancel: Option<Box<CancelRequest>>,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Server crashes in a row while it was running.
    pub crashes: u32,
    /// Its state.
    pub state: TaskState,
}

impl From<Task> for Standing {
    fn from(Task { spec, status }: Task) -> Self {
        Self {
            spec,
            submitted_at: status.submitted_at,
            eligible_at: status.finished_at.unwrap_or(status.eligible_at),
            cancel: status.cancel_request,
            attempt: status.attempt,
            crashes: status.crashes,
            state: status.state,
        }
    }
}
