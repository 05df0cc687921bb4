//! Why the scheduler refuses a call: one struct per condition, and [`Refusal`] for any of them.

mod internal;
mod pool;
mod revision;
mod task;
mod unavailable;

pub use internal::Internal;
pub use pool::{EtagMismatch, QueueFull, UnknownPool};
pub use revision::{RevisionCompacted, RevisionInFuture};
pub use task::{BadField, RequestIdReused, TaskExists, TaskFinished, TaskNotFound, UnknownHandler};
pub use unavailable::{
    DrainPending, Draining, ProjectionUnavailable, SchedulerUnresponsive, StoreUnavailable, WatchDrained,
};

use crate::model::{Coded, Details, ErrorCode};

macro_rules! refusals {
    ($($name:ident),* $(,)?) => {
        #[derive(Clone, Debug, thiserror::Error)]
        pub enum Refusal {
            $(#[error(transparent)] $name(#[from] $name),)*
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
    BadField,
    UnknownPool,
    UnknownHandler,
    TaskNotFound,
    TaskExists,
    RequestIdReused,
    QueueFull,
    TaskFinished,
    RevisionCompacted,
    RevisionInFuture,
    EtagMismatch,
    Draining,
    WatchDrained,
    StoreUnavailable,
    ProjectionUnavailable,
    SchedulerUnresponsive,
    DrainPending,
    Internal,
}
