//! Why the scheduler says no: one struct per condition.

use std::time::Duration;

use crate::model::{Coded, Details, ErrorCode, FieldViolation, HandlerName, PoolName, Revision, TaskId, TaskState};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Anything that the scheduler refuses.
        #[derive(Clone, Debug, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error(transparent)] $name(#[from] $name),)*
        }

        impl Coded for Refusal {
            fn code(&self) -> ErrorCode {
                match self { $(Self::$name(condition) => condition.code(),)* }
            }

            fn details(&self) -> Details {
                match self { $(Self::$name(condition) => condition.details(),)* }
            }
        }
    };
}

refusals! {
    /// A value does not fit what the server knows.
    BadField,
    /// No such pool.
    UnknownPool,
    /// No such handler.
    UnknownHandler,
    /// No such task.
    TaskNotFound,
    /// The chosen id is taken.
    TaskExists,
    /// The request id was used with another content.
    RequestIdReused,
    /// The pool's queue is at its bound.
    QueueFull,
    /// The task has ended.
    TaskFinished,
    /// The revision is no longer kept.
    RevisionCompacted,
    /// The revision has not happened.
    RevisionInFuture,
    /// Changed in between.
    EtagMismatch,
    /// Shutting down.
    Draining,
    /// Shutting down, said to a watch.
    WatchDrained,
    /// The store refuses writes.
    StoreUnavailable,
    /// The store cannot be asked.
    ProjectionUnavailable,
    /// The scheduler's loop does not answer.
    SchedulerUnresponsive,
    /// The same, said to who wants the server to end.
    DrainPending,
    /// Our fault.
    Internal,
}

/// A value does not fit what the server knows.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{field}` {description}")]
pub struct BadField {
    /// Path as in the contract.
    pub field: String,
    /// The value and the limit.
    pub description: String,
}

impl Coded for BadField {
    fn code(&self) -> ErrorCode {
        ErrorCode::InvalidField
    }

    fn details(&self) -> Details {
        let violation = FieldViolation { field: self.field.clone(), description: self.description.clone() };
        Details { violations: vec![violation], ..Details::default() }
    }
}

/// No such pool.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pool `{pool}` is not configured")]
pub struct UnknownPool {
    /// Its name.
    pub pool: PoolName,
}

impl Coded for UnknownPool {
    fn code(&self) -> ErrorCode {
        ErrorCode::UnknownPool
    }

    fn details(&self) -> Details {
        Details { resource: Some(("pool", self.pool.to_string())), ..Details::default() }
    }
}

/// No such handler.
#[derive(Clone, Debug, thiserror::Error)]
#[error("handler `{handler}` is not registered")]
pub struct UnknownHandler {
    /// Its name.
    pub handler: HandlerName,
}

impl Coded for UnknownHandler {
    fn code(&self) -> ErrorCode {
        ErrorCode::UnknownHandler
    }

    fn details(&self) -> Details {
        Details { resource: Some(("handler", self.handler.to_string())), ..Details::default() }
    }
}

/// No such task.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` does not exist, or was deleted")]
pub struct TaskNotFound {
    /// Its id.
    pub task: TaskId,
}

impl Coded for TaskNotFound {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskNotFound
    }

    fn details(&self) -> Details {
        Details { resource: Some(("task", self.task.to_string())), ..Details::default() }
    }
}

/// The chosen id is taken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` exists already with another content")]
pub struct TaskExists {
    /// Its id.
    pub task: TaskId,
}

impl Coded for TaskExists {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskExists
    }

    fn details(&self) -> Details {
        Details {
            metadata: vec![("existing_task", self.task.to_string())],
            resource: Some(("task", self.task.to_string())),
            ..Details::default()
        }
    }
}

/// The request id was used with another content.
#[derive(Clone, Debug, thiserror::Error)]
#[error("request id `{request_id}` was used for task `{task}` with another content")]
pub struct RequestIdReused {
    /// The request id.
    pub request_id: Box<str>,
    /// The task that it made.
    pub task: TaskId,
}

impl Coded for RequestIdReused {
    fn code(&self) -> ErrorCode {
        ErrorCode::RequestIdReused
    }

    fn details(&self) -> Details {
        Details { metadata: vec![("existing_task", self.task.to_string())], ..Details::default() }
    }
}

/// The pool's queue is at its bound.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pool `{pool}` is full: {waiting} tasks wait, {limit} may")]
pub struct QueueFull {
    /// The pool.
    pub pool: PoolName,
    /// Tasks that wait.
    pub waiting: u64,
    /// Tasks that may.
    pub limit: u64,
}

impl Coded for QueueFull {
    fn code(&self) -> ErrorCode {
        ErrorCode::QueueFull
    }

    fn details(&self) -> Details {
        Details {
            metadata: vec![("pool", self.pool.to_string()), ("limit", self.limit.to_string())],
            retry_after: Some(Duration::from_secs(1)),
            quota: Some((format!("pool:{}", self.pool), format!("at most {} tasks may wait", self.limit))),
            ..Details::default()
        }
    }
}

/// The task has ended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("task `{task}` has ended: it is {}", state.name())]
pub struct TaskFinished {
    /// Its id.
    pub task: TaskId,
    /// How it ended.
    pub state: TaskState,
}

impl Coded for TaskFinished {
    fn code(&self) -> ErrorCode {
        ErrorCode::TaskFinished
    }

    fn details(&self) -> Details {
        Details {
            metadata: vec![("state", self.state.name().to_owned())],
            precondition: Some((format!("task:{}", self.task), format!("must not be {}", self.state.name()))),
            ..Details::default()
        }
    }
}

/// The revision is no longer kept.
#[derive(Clone, Debug, thiserror::Error)]
#[error("events up to revision {oldest} are no longer kept; list the tasks, then watch from the list's revision")]
pub struct RevisionCompacted {
    /// The oldest revision that a watch can be resumed at.
    pub oldest: Revision,
}

impl Coded for RevisionCompacted {
    fn code(&self) -> ErrorCode {
        ErrorCode::RevisionCompacted
    }

    fn details(&self) -> Details {
        Details { metadata: vec![("oldest_revision", self.oldest.to_string())], ..Details::default() }
    }
}

/// The revision has not happened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("revision {wanted} has not happened yet, the newest is {newest}; is this another server's revision?")]
pub struct RevisionInFuture {
    /// What was asked for.
    pub wanted: Revision,
    /// The newest.
    pub newest: Revision,
}

impl Coded for RevisionInFuture {
    fn code(&self) -> ErrorCode {
        ErrorCode::RevisionInFuture
    }

    fn details(&self) -> Details {
        Details { metadata: vec![("newest_revision", self.newest.to_string())], ..Details::default() }
    }
}

/// Changed in between.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pool `{pool}` has changed: its etag is `{current}`, not `{given}`")]
pub struct EtagMismatch {
    /// The pool.
    pub pool: PoolName,
    /// What the caller has.
    pub given: String,
    /// What it is.
    pub current: String,
}

impl Coded for EtagMismatch {
    fn code(&self) -> ErrorCode {
        ErrorCode::EtagMismatch
    }

    fn details(&self) -> Details {
        Details { metadata: vec![("etag", self.current.clone())], ..Details::default() }
    }
}

/// Shutting down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub struct Draining;

impl Coded for Draining {
    fn code(&self) -> ErrorCode {
        ErrorCode::Draining
    }

    fn details(&self) -> Details {
        Details { retry_after: Some(Duration::from_secs(1)), ..Details::default() }
    }
}

/// Shutting down, said to a watch.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is shutting down; everything up to revision {reached} was told, watch on after it")]
pub struct WatchDrained {
    /// The revision to resume after.
    pub reached: Revision,
}

impl Coded for WatchDrained {
    fn code(&self) -> ErrorCode {
        ErrorCode::Draining
    }

    fn details(&self) -> Details {
        Details { metadata: vec![("revision", self.reached.to_string())], ..Draining.details() }
    }
}

/// The store refuses writes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("nothing can be accepted: {cause}")]
pub struct StoreUnavailable {
    /// The store's words.
    pub cause: String,
}

impl Coded for StoreUnavailable {
    fn code(&self) -> ErrorCode {
        ErrorCode::StoreUnavailable
    }

    fn details(&self) -> Details {
        Details { retry_after: Some(Duration::from_secs(1)), ..Details::default() }
    }
}

/// The store's answers are behind what was acknowledged, and cannot follow.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the answer is held up: {cause}")]
pub struct ProjectionUnavailable {
    /// The store's words.
    pub cause: String,
}

impl Coded for ProjectionUnavailable {
    fn code(&self) -> ErrorCode {
        ErrorCode::StoreUnavailable
    }

    fn details(&self) -> Details {
        Details { retry_after: Some(Duration::from_secs(1)), ..Details::default() }
    }
}

/// The scheduler's loop does not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the scheduler {}, as when a disk hangs; `lineshaft system health` and the server's log tell more", self.how())]
pub struct SchedulerUnresponsive {
    /// The watchdog knows that it hangs; otherwise it only has not answered so far.
    pub stalled: bool,
    /// For how long.
    pub silence: Duration,
}

impl SchedulerUnresponsive {
    /// What follows after its name.
    pub fn how(&self) -> String {
        let what = if self.stalled { "shown no sign of life" } else { "not answered" };
        format!("has {what} for {} s", self.silence.as_secs())
    }
}

impl Coded for SchedulerUnresponsive {
    fn code(&self) -> ErrorCode {
        ErrorCode::SchedulerStalled
    }

    fn details(&self) -> Details {
        Details {
            metadata: vec![("part", "scheduler".to_owned()), ("silent_seconds", self.silence.as_secs().to_string())],
            retry_after: Some(Duration::from_secs(1)),
            ..Details::default()
        }
    }
}

/// The scheduler's loop does not answer; it will drain when it gets on.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server was asked to end and will as soon as its scheduler gets on: {0}")]
pub struct DrainPending(pub SchedulerUnresponsive);

impl Coded for DrainPending {
    fn code(&self) -> ErrorCode {
        self.0.code()
    }

    fn details(&self) -> Details {
        self.0.details()
    }
}

/// Our fault.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Internal {
    /// For the log.
    pub cause: String,
}

impl Coded for Internal {
    fn code(&self) -> ErrorCode {
        ErrorCode::Internal
    }
}
