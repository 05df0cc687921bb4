//! Why an attempt or a task did not complete.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureReason {
    /// The handler returned an error, or its process a non-zero exit code.
    HandlerError = 1,
    /// The attempt exceeded its timeout.
    Timeout = 2,
    Panic = 3,
    /// The process was ended by a signal that the server did not send.
    Killed = 4,
    /// The process exceeded its memory limit.
    OutOfMemory = 5,
    /// The server or worker failed and the task may not be started again.
    WorkerLost = 6,
    /// The task had not started when it expired.
    Expired = 7,
    /// A dependency failed.
    DependencyFailed = 8,
    /// The result exceeds the size limit.
    ResultTooLarge = 9,
    /// The handler could not parse the payload; never retried.
    InvalidPayload = 10,
    /// A WebAssembly guest has used up its call stack.
    StackOverflow = 11,
}

impl FailureReason {
    /// Name in the contract, without the prefix.
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
            Self::StackOverflow => "STACK_OVERFLOW",
        }
    }

    /// Inverse of `as u8`.
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
            11 => Self::StackOverflow,
            _ => return None,
        })
    }
}

/// Failure of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: FailureReason,
    /// One line.
    pub message: String,
    /// For example the last lines of stderr; may be empty.
    pub detail: String,
    /// The attempt that failed; 0 when none ran.
    pub attempt: u32,
    pub exit_code: Option<i32>,
    /// Signal that ended the process.
    pub signal: Option<i32>,
    /// Whether another attempt could succeed.
    pub retryable: bool,
    /// Delay before the next attempt, if the handler sets it.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// The last line of the detail, which mostly says what has failed.
    pub fn last_line(&self) -> &str {
        self.detail.trim_end().lines().last().unwrap_or_default()
    }

    /// Retryable unless the reason implies that another attempt would fail too.
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
