//! The output of the core: events to make durable, and effects to release afterwards.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{BatchKey, Event, HandlerName, Priority, Timestamp, TraceContext};
use crate::pool::{Assignment, Ticket};
use crate::runners::StopCause;

#[derive(Debug, Default)]
pub struct Decisions {
    /// In the order of their revisions.
    pub events: Vec<Event>,
    pub dispatches: Vec<Dispatch>,
    /// Attempts of an earlier server that remote workers may still run.
    pub adoptions: Vec<Adoption>,
    /// Running attempts to stop, with the cause and the time between the request and the kill.
    pub stops: Vec<(Ticket, StopCause, Duration)>,
    /// Started attempts that may run once their `Started` event is durable.
    pub confirms: Vec<Ticket>,
    /// Dispatched attempts to take back. Call `Core::recalled` with the pool's answer.
    pub recalls: Vec<Ticket>,
    /// Batches that have finished or were deleted.
    pub ended_batches: Vec<BatchKey>,
    /// Events to report to tracing.
    pub unattempted: Vec<Unattempted>,
}

/// Attempts for one pool.
#[derive(Debug)]
pub struct Dispatch {
    /// Index of the pool: in the order of `CoreOptions::pools`.
    pub pool: u16,
    /// In a remote pool, the handler of the attempts.
    pub handler: Option<HandlerName>,
    /// In the order in which they should start.
    pub assignments: Vec<Assignment>,
    /// By priority index: whether tasks, of this handler, remain that can start and were not dispatched.
    pub held_back: [bool; Priority::COUNT],
}

/// A running attempt of an earlier server.
#[derive(Debug)]
pub struct Adoption {
    pub assignment: Assignment,
    /// Qualified name of its worker, such as `remote/host-1`.
    pub worker: Arc<str>,
    pub started_at: Timestamp,
}

/// A task has ended or lost its attempt while this server has no attempt that could record the span.
#[derive(Debug)]
pub struct Unattempted {
    /// Index in [`Decisions::events`].
    pub event: usize,
    /// Trace context of the submission.
    pub trace: Option<Arc<TraceContext>>,
    pub submitted_at: Timestamp,
}
