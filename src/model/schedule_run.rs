//! Why a task of a schedule was submitted.

use super::clock::Timestamp;

/// The run of a schedule of which a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The time of the run; for a triggered one that of the trigger.
    pub time: Timestamp,
    pub kind: RunKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunKind {
    OnTime = 1,
    /// The server was down, or could not take the task.
    CaughtUp = 2,
    /// It waited for an unfinished task.
    Waited = 3,
    /// By a call.
    Triggered = 4,
}

impl RunKind {
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::OnTime, Self::CaughtUp, Self::Waited, Self::Triggered].into_iter().find(|kind| *kind as u8 == number)
    }
}
