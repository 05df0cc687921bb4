//! Why the scheduler refuses a call: one struct per condition, and [`Refusal`] for any of them.

mod batch;
mod handler;
mod internal;
mod limit;
mod pool;
mod revision;
mod schedule;
mod task;
mod unavailable;

pub use batch::{BatchClosed, BatchExists, BatchFinished, BatchNotFinished, BatchNotFound};
pub use handler::{HandlerNotUploaded, WasmUnsupported};
pub use internal::Internal;
pub use limit::TooManyLimitKeys;
pub use pool::{EtagMismatch, NotRemotePool, QueueFull, UnknownPool};
pub use revision::{RevisionCompacted, RevisionInFuture};
pub use schedule::{ScheduleBusy, ScheduleConfigured, ScheduleExists, ScheduleNotFound, TooManySchedules};
pub use task::{
    ArtifactNotFound, BadField, KeyHolder, ParentNotFound, RequestIdReused, TaskExists, TaskFinished, TaskNotFinished,
    TaskNotFound, TaskStarted, UniqueKeyTaken, UnknownHandler,
};
pub use unavailable::{
    DrainPending, Draining, ProjectionUnavailable, SchedulerUnresponsive, StoreUnavailable, StoreUnreadable,
    WatchDrained,
};

use crate::model::{Coded, Details, ErrorCode, MemoryFull};
use crate::store::StoreError;

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

impl Refusal {
    /// The same refusal of a submission that is a field of the request. `path` is that of its fields, such as `task.`
    #[must_use]
    pub fn in_message(mut self, path: impl std::fmt::Display) -> Self {
        if let Self::BadField(BadField { field, .. }) | Self::ParentNotFound(ParentNotFound { field, .. }) = &mut self {
            field.insert_str(0, &path.to_string());
        }
        self
    }

    /// The same refusal of a submission whose request ID was derived from that of its call.
    #[must_use]
    pub fn of_call(mut self, request_id: &str) -> Self {
        if let Self::RequestIdReused(reused) = &mut self {
            reused.request_id = request_id.into();
        }
        self
    }

    /// Why a read of the store failed.
    pub(super) fn of_read(error: &StoreError) -> Self {
        let cause = error.to_string();
        if error.is_damage() { Internal { cause }.into() } else { StoreUnreadable { cause }.into() }
    }
}

refusals! {
    BadField,
    UnknownPool,
    NotRemotePool,
    UnknownHandler,
    TaskNotFound,
    TaskExists,
    RequestIdReused,
    UniqueKeyTaken,
    ParentNotFound,
    QueueFull,
    MemoryFull,
    TaskFinished,
    TaskStarted,
    TaskNotFinished,
    BatchNotFound,
    BatchExists,
    BatchClosed,
    BatchFinished,
    BatchNotFinished,
    ScheduleNotFound,
    ScheduleExists,
    ScheduleBusy,
    ScheduleConfigured,
    TooManySchedules,
    HandlerNotUploaded,
    WasmUnsupported,
    TooManyLimitKeys,
    RevisionCompacted,
    RevisionInFuture,
    EtagMismatch,
    Draining,
    WatchDrained,
    StoreUnavailable,
    ProjectionUnavailable,
    StoreUnreadable,
    SchedulerUnresponsive,
    DrainPending,
    Internal,
}
