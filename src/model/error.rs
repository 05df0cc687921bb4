//! What every refusal tells: a code that programs branch on, and details that name field, value and limit.
//!
//! A condition is a struct of its own that implements [`Coded`]; `api::status` holds the only table
//! from [`ErrorCode`] to gRPC.

use std::borrow::Cow;
use std::time::Duration;

/// Machine-readable reason of a refusal, `ErrorInfo.reason` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A field is missing, malformed or out of range.
    InvalidField,
    /// No such handler is registered.
    UnknownHandler,
    /// No such pool is configured.
    UnknownPool,
    /// The handler may not run in that pool.
    PoolNotAllowed,
    /// No such task, or it was deleted.
    TaskNotFound,
    /// The chosen task id is taken.
    TaskExists,
    /// The request id was used with another content.
    RequestIdReused,
    /// The pool's queue is at its bound.
    QueueFull,
    /// The task has ended already.
    TaskFinished,
    /// The wanted revision is no longer kept.
    RevisionCompacted,
    /// The wanted revision has not happened yet.
    RevisionInFuture,
    /// Somebody else changed it in between.
    EtagMismatch,
    /// The server is shutting down.
    Draining,
    /// The store refuses writes: disk full or failing.
    StoreUnavailable,
    /// The scheduler's loop does not answer.
    SchedulerStalled,
    /// Too much at once.
    Overloaded,
    /// A message beyond the limit.
    MessageTooLarge,
    /// Such a call, or such a form of it, is not served here.
    Unsupported,
    /// A web page of another site may not do this.
    ForeignOrigin,
    /// The caller's deadline has passed.
    DeadlineExceeded,
    /// Nobody who is known calls: no token, or one that is not valid.
    Unauthenticated,
    /// The caller may not do that.
    PermissionDenied,
    /// The caller does too much a second.
    RateLimited,
    /// The caller has too much under way.
    QuotaExceeded,
    /// Our fault; the caller learns an incident id, the log the rest.
    Internal,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::InvalidField,
        Self::UnknownHandler,
        Self::UnknownPool,
        Self::PoolNotAllowed,
        Self::TaskNotFound,
        Self::TaskExists,
        Self::RequestIdReused,
        Self::QueueFull,
        Self::TaskFinished,
        Self::RevisionCompacted,
        Self::RevisionInFuture,
        Self::EtagMismatch,
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
            Self::QueueFull => "QUEUE_FULL",
            Self::TaskFinished => "TASK_FINISHED",
            Self::RevisionCompacted => "REVISION_COMPACTED",
            Self::RevisionInFuture => "REVISION_IN_FUTURE",
            Self::EtagMismatch => "ETAG_MISMATCH",
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

/// One bad field: where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path as in the contract, such as `tasks[3].retry.factor`.
    pub field: String,
    /// What is wrong, with the value and the limit.
    pub description: String,
}

/// What goes with a refusal besides its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Anything dynamic in the text, again for programs.
    pub metadata: Vec<(&'static str, String)>,
    /// The bad fields.
    pub violations: Vec<FieldViolation>,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    /// What quota is used up: subject and description.
    pub quota: Option<(String, String)>,
    /// What precondition is not met: subject and description.
    pub precondition: Option<(String, String)>,
    /// What it is about: type (such as `task`) and name.
    pub resource: Option<(&'static str, String)>,
}

/// A condition that reaches callers.
pub trait Coded: std::error::Error + Send + Sync + 'static {
    /// Its code.
    fn code(&self) -> ErrorCode;

    /// Its details; none by default.
    fn details(&self) -> Details {
        Details::default()
    }

    /// Text for the caller; the error's own by default.
    fn public_message(&self) -> Cow<'static, str> {
        Cow::Owned(self.to_string())
    }
}
