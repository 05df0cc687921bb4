//! Cancelling a task: the accepted request, and the receipt once nothing of the task runs any more.

use std::time::Duration;

use super::clock::Timestamp;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CancelMode {
    /// Ask the attempt to stop; kill it after the grace period.
    #[default]
    Graceful = 1,
    /// Kill the attempt at once.
    Force = 2,
}

/// An accepted cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    pub requested_at: Timestamp,
    /// Free text of the caller; may be empty.
    pub reason: Box<str>,
    /// Peer address or identity of the caller.
    pub requested_by: Box<str>,
    pub mode: CancelMode,
    /// Time between the request to stop and the kill.
    pub grace: Duration,
}

impl CancelRequest {
    /// Whether it kills the attempt at once although `earlier` does not, or earlier than `earlier` does.
    pub fn stops_before(&self, earlier: &Self) -> bool {
        let kill_at = |request: &Self| request.requested_at.after(request.grace);
        let forces = self.mode == CancelMode::Force && earlier.mode != CancelMode::Force;
        forces || kill_at(self) < kill_at(earlier)
    }
}

/// What ended the attempt of a cancelled task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StopMethod {
    /// No attempt was running.
    NeverStarted = 1,
    /// The handler saw its stop token and returned.
    Token = 2,
    /// SIGTERM to all processes of the attempt.
    SignalTerm = 3,
    /// SIGKILL to all processes of the attempt.
    SignalKill = 4,
    /// The future was dropped.
    Abort = 5,
    /// The attempt ended by itself before the stop took effect.
    Finished = 6,
}

impl StopMethod {
    /// Inverse of `as u8`.
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

/// Proof of a finished cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelReceipt {
    pub request: CancelRequest,
    /// When nothing of the task ran any more.
    pub stopped_at: Timestamp,
    pub method: StopMethod,
}
