//! Errors that callers can meet: a code that programs branch on, and details.
//!
//! Each condition is a struct that implements [`Coded`]. `api::status` maps [`ErrorCode`] to gRPC status codes.

use std::borrow::Cow;
use std::time::Duration;

/// `ErrorInfo.reason` of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A field is missing, malformed or out of range.
    InvalidField,
    UnknownHandler,
    UnknownPool,
    /// The handler may not run in this pool.
    PoolNotAllowed,
    /// The task does not exist or was deleted.
    TaskNotFound,
    /// The chosen task ID is used by a task with different content.
    TaskExists,
    /// The request ID was used for a task with different content.
    RequestIdReused,
    /// A task on which the submission depends does not exist or was deleted.
    ParentNotFound,
    /// The pool has reached its queue limit.
    QueueFull,
    /// Requests, or arguments, labels and the like of unfinished tasks, have reached their limit of memory.
    MemoryFull,
    /// The task has already ended.
    TaskFinished,
    /// The task has already started.
    TaskStarted,
    /// The task has not ended yet.
    TaskNotFinished,
    /// The task has left no artifact with the name, or it was removed.
    ArtifactNotFound,
    /// The batch does not exist or was deleted.
    BatchNotFound,
    /// The chosen batch ID is used by a batch with different content.
    BatchExists,
    /// The batch takes no more tasks.
    BatchClosed,
    /// All tasks of the batch have already ended.
    BatchFinished,
    /// The batch has unfinished tasks, or is open.
    BatchNotFinished,
    /// The schedule does not exist or was deleted.
    ScheduleNotFound,
    /// The ID is used by a schedule with different content.
    ScheduleExists,
    /// The schedule has an unfinished task.
    ScheduleBusy,
    /// The schedule is part of the configuration.
    ScheduleConfigured,
    /// The namespace has as many schedules as it may have.
    TooManySchedules,
    /// The handler has another source than an upload.
    HandlerNotUploaded,
    /// The namespace uses as many keys of limits as it may.
    TooManyLimitKeys,
    /// An unfinished task has the unique key.
    UniqueKeyTaken,
    /// The events after the revision were deleted.
    RevisionCompacted,
    RevisionInFuture,
    /// The resource was changed since the caller read it.
    EtagMismatch,
    /// Another stream has introduced itself with the same worker ID.
    WorkerReplaced,
    /// The worker was silent for longer than its lease, or ignored a cancel.
    WorkerEvicted,
    /// The server is shutting down.
    Draining,
    /// The store refuses writes, or its projection is behind.
    StoreUnavailable,
    /// The scheduler's loop does not answer.
    SchedulerStalled,
    /// The server has too many calls in progress.
    Overloaded,
    MessageTooLarge,
    /// The server does not implement the call or this form of it.
    Unsupported,
    /// A web page of another origin may not make this request.
    ForeignOrigin,
    DeadlineExceeded,
    /// The call has no valid credentials.
    Unauthenticated,
    /// The caller lacks the required role.
    PermissionDenied,
    /// The caller exceeds its rate limit.
    RateLimited,
    /// The caller has too many unfinished tasks, payload bytes or open streams.
    QuotaExceeded,
    /// A bug or an unexpected failure. The caller receives an incident ID; the cause is in the log.
    Internal,
}

impl ErrorCode {
    #[cfg(test)]
    pub const ALL: [Self; 45] = [
        Self::InvalidField,
        Self::UnknownHandler,
        Self::UnknownPool,
        Self::PoolNotAllowed,
        Self::TaskNotFound,
        Self::TaskExists,
        Self::RequestIdReused,
        Self::ParentNotFound,
        Self::QueueFull,
        Self::MemoryFull,
        Self::TaskFinished,
        Self::TaskStarted,
        Self::TaskNotFinished,
        Self::ArtifactNotFound,
        Self::BatchNotFound,
        Self::BatchExists,
        Self::BatchClosed,
        Self::BatchFinished,
        Self::BatchNotFinished,
        Self::ScheduleNotFound,
        Self::ScheduleExists,
        Self::ScheduleBusy,
        Self::ScheduleConfigured,
        Self::TooManySchedules,
        Self::HandlerNotUploaded,
        Self::TooManyLimitKeys,
        Self::UniqueKeyTaken,
        Self::RevisionCompacted,
        Self::RevisionInFuture,
        Self::EtagMismatch,
        Self::WorkerReplaced,
        Self::WorkerEvicted,
        Self::Draining,
        Self::StoreUnavailable,
        Self::SchedulerStalled,
        Self::Overloaded,
        Self::MessageTooLarge,
        Self::Unsupported,
        Self::ForeignOrigin,
        Self::DeadlineExceeded,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::Internal,
    ];

    /// `ErrorInfo.reason`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidField => "INVALID_FIELD",
            Self::UnknownHandler => "UNKNOWN_HANDLER",
            Self::UnknownPool => "UNKNOWN_POOL",
            Self::PoolNotAllowed => "POOL_NOT_ALLOWED",
            Self::TaskNotFound => "TASK_NOT_FOUND",
            Self::TaskExists => "TASK_EXISTS",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::ParentNotFound => "PARENT_NOT_FOUND",
            Self::QueueFull => "QUEUE_FULL",
            Self::MemoryFull => "MEMORY_FULL",
            Self::TaskFinished => "TASK_FINISHED",
            Self::TaskStarted => "TASK_STARTED",
            Self::TaskNotFinished => "TASK_NOT_FINISHED",
            Self::ArtifactNotFound => "ARTIFACT_NOT_FOUND",
            Self::BatchNotFound => "BATCH_NOT_FOUND",
            Self::BatchExists => "BATCH_EXISTS",
            Self::BatchClosed => "BATCH_CLOSED",
            Self::BatchFinished => "BATCH_FINISHED",
            Self::BatchNotFinished => "BATCH_NOT_FINISHED",
            Self::ScheduleNotFound => "SCHEDULE_NOT_FOUND",
            Self::ScheduleExists => "SCHEDULE_EXISTS",
            Self::ScheduleBusy => "SCHEDULE_BUSY",
            Self::ScheduleConfigured => "SCHEDULE_CONFIGURED",
            Self::TooManySchedules => "TOO_MANY_SCHEDULES",
            Self::HandlerNotUploaded => "HANDLER_NOT_UPLOADED",
            Self::TooManyLimitKeys => "TOO_MANY_LIMIT_KEYS",
            Self::UniqueKeyTaken => "UNIQUE_KEY_TAKEN",
            Self::RevisionCompacted => "REVISION_COMPACTED",
            Self::RevisionInFuture => "REVISION_IN_FUTURE",
            Self::EtagMismatch => "ETAG_MISMATCH",
            Self::WorkerReplaced => "WORKER_REPLACED",
            Self::WorkerEvicted => "WORKER_EVICTED",
            Self::Draining => "DRAINING",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::SchedulerStalled => "SCHEDULER_STALLED",
            Self::Overloaded => "OVERLOADED",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::Unsupported => "UNSUPPORTED",
            Self::ForeignOrigin => "FOREIGN_ORIGIN",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::RateLimited => "RATE_LIMITED",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::Internal => "INTERNAL",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path in the request, such as `tasks[3].retry.factor`.
    pub field: String,
    /// Why it is invalid, with the value and the limit.
    pub description: String,
}

/// Machine-readable parts of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Values that appear in the message.
    pub metadata: Vec<(&'static str, String)>,
    pub violations: Vec<FieldViolation>,
    /// How long to wait before retrying.
    pub retry_after: Option<Duration>,
    /// Exceeded quota: subject and description.
    pub quota: Option<(String, String)>,
    /// Precondition that is not met: subject and description.
    pub precondition: Option<(String, String)>,
    /// Resource that the error is about: type (such as `task`) and name.
    pub resource: Option<(&'static str, String)>,
}

impl Details {
    pub fn retry_after(delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..Self::default() }
    }

    #[must_use]
    pub fn with_metadata(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    #[must_use]
    pub fn with_resource(self, kind: &'static str, name: impl ToString) -> Self {
        Self { resource: Some((kind, name.to_string())), ..self }
    }
}

/// An error with a code.
pub trait Coded: std::error::Error + Send + Sync + 'static {
    fn code(&self) -> ErrorCode;

    fn details(&self) -> Details {
        Details::default()
    }

    /// Message for the caller.
    fn public_message(&self) -> Cow<'static, str> {
        Cow::Owned(self.to_string())
    }
}

/// The text of the deepest cause, for errors of libraries whose outer layers only say what was attempted.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
