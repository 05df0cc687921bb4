//! Conditions of the server: a later call, or another server, can succeed.

use std::time::Duration;

use crate::model::{Coded, Details, ErrorCode, ResumeToken};

const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub struct Draining;

impl Coded for Draining {
    fn code(&self) -> ErrorCode {
        ErrorCode::Draining
    }

    fn details(&self) -> Details {
        Details::retry_after(RETRY_AFTER)
    }
}

/// The server is shutting down, so that a watch ends.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is shutting down; all events up to revision {} were sent, resume the watch with the token", .resume.revision)]
pub struct WatchDrained {
    /// Continues after the last event that was sent.
    pub resume: ResumeToken,
}

impl Coded for WatchDrained {
    fn code(&self) -> ErrorCode {
        ErrorCode::Draining
    }

    fn details(&self) -> Details {
        Details::retry_after(RETRY_AFTER).with_metadata("resume_token", self.resume)
    }
}

/// The store refuses writes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store refuses writes: {cause}")]
pub struct StoreUnavailable {
    /// Error of the store.
    pub cause: String,
}

impl Coded for StoreUnavailable {
    fn code(&self) -> ErrorCode {
        ErrorCode::StoreUnavailable
    }

    fn details(&self) -> Details {
        Details::retry_after(RETRY_AFTER)
    }
}

/// The projection lacks acknowledged events and is not catching up.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the projection is behind the journal: {cause}")]
pub struct ProjectionUnavailable {
    pub cause: String,
}

impl Coded for ProjectionUnavailable {
    fn code(&self) -> ErrorCode {
        ErrorCode::StoreUnavailable
    }

    fn details(&self) -> Details {
        Details::retry_after(RETRY_AFTER)
    }
}

/// The store cannot be read at present.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store cannot be read: {cause}")]
pub struct StoreUnreadable {
    /// Error of the store.
    pub cause: String,
}

impl Coded for StoreUnreadable {
    fn code(&self) -> ErrorCode {
        ErrorCode::StoreUnavailable
    }

    fn details(&self) -> Details {
        Details::retry_after(RETRY_AFTER)
    }
}

/// The scheduler's loop does not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the scheduler {}, for example because a disk hangs; see `lineshaft system health` and the server's log", self.description())]
pub struct SchedulerUnresponsive {
    /// Whether the watchdog has detected a stall. If not, only this call was not answered in time.
    pub stalled: bool,
    pub silence: Duration,
}

impl SchedulerUnresponsive {
    /// The state of the scheduler, as the end of a sentence.
    pub fn description(&self) -> String {
        let state = if self.stalled { "made progress" } else { "answered" };
        format!("has not {state} for {} s", self.silence.as_secs())
    }
}

impl Coded for SchedulerUnresponsive {
    fn code(&self) -> ErrorCode {
        ErrorCode::SchedulerStalled
    }

    fn details(&self) -> Details {
        Details::retry_after(RETRY_AFTER)
            .with_metadata("part", "scheduler")
            .with_metadata("silent_seconds", self.silence.as_secs())
    }
}

/// A drain was requested while the scheduler's loop does not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the drain starts once the scheduler responds again: {0}")]
pub struct DrainPending(pub SchedulerUnresponsive);

impl Coded for DrainPending {
    fn code(&self) -> ErrorCode {
        self.0.code()
    }

    fn details(&self) -> Details {
        self.0.details()
    }
}
