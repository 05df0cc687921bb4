//! Why an attempt or a task did not complete.

use std::time::Duration;

/// The kinds of failure that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureReason {
    /// The handler said so: an error value, a non-zero exit code.
    HandlerError = 1,
    /// The attempt ran longer than its time-out.
    Timeout = 2,
    /// The handler panicked.
    Panic = 3,
    /// A signal that nobody here sent ended the process.
    Killed = 4,
    /// The memory limit was reached.
    OutOfMemory = 5,
    /// The server or worker went away and the task may not be run again.
    WorkerLost = 6,
    /// It had not started by its expiry.
    Expired = 7,
    /// A task that it depends on failed.
    DependencyFailed = 8,
    /// The result is larger than the limit.
    ResultTooLarge = 9,
    /// The handler cannot read its payload; never retried.
    InvalidPayload = 10,
}

impl FailureReason {
    /// Name as in the contract, without its prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandlerError => "HANDLER_ERROR",
            Self::Timeout => "TIMEOUT",
            Self::Panic => "PANIC",
            Self::Killed => "KILLED",
            Self::OutOfMemory => "OUT_OF_MEMORY",
            Self::WorkerLost => "WORKER_LOST",
            Self::Expired => "EXPIRED",
            Self::DependencyFailed => "DEPENDENCY_FAILED",
            Self::ResultTooLarge => "RESULT_TOO_LARGE",
            Self::InvalidPayload => "INVALID_PAYLOAD",
        }
    }

    /// Reverses `as u8`.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::HandlerError,
            2 => Self::Timeout,
            3 => Self::Panic,
            4 => Self::Killed,
            5 => Self::OutOfMemory,
            6 => Self::WorkerLost,
            7 => Self::Expired,
            8 => Self::DependencyFailed,
            9 => Self::ResultTooLarge,
            10 => Self::InvalidPayload,
            _ => return None,
        })
    }
}

/// What went wrong with one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub reason: FailureReason,
    /// One line for people.
    pub message: String,
    /// More for people, such as the last lines of stderr; may be empty.
    pub detail: String,
    /// The attempt that failed; 0 when none ran.
    pub attempt: u32,
    /// Exit code of a process.
    pub exit_code: Option<i32>,
    /// Signal that ended a process.
    pub signal: Option<i32>,
    /// Whether another attempt may help.
    pub retryable: bool,
    /// The handler's own wish for the delay before the next attempt.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of the given kind; retryable unless the kind says that another try cannot help.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let retryable = !matches!(
            reason,
            FailureReason::InvalidPayload
                | FailureReason::Expired
                | FailureReason::DependencyFailed
                | FailureReason::ResultTooLarge
                | FailureReason::WorkerLost
        );
        Self {
            reason,
            message: message.into(),
            detail: String::new(),
            attempt: 0,
            exit_code: None,
            signal: None,
            retryable,
            retry_after: None,
        }
    }
}
