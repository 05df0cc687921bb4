//! An attempt in the table of its link: what its worker has heard about it, and what is due next.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::messages::{Assigned, Command, Token};
use crate::model::OutputStream;
use crate::runners::{Outcome, RunReport, StopCause, StopSignal};

/// Time in which a worker has to accept an attempt.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a link needs of an attempt.
pub trait LinkedAttempt: Clone + Send + Sync + 'static {
    fn token(&self) -> Token;

    /// Whether it fails if its worker is lost.
    fn at_most_once(&self) -> bool;

    fn stop(&self) -> &StopSignal;

    fn write_output(&self, stream: OutputStream, data: &[u8]);

    /// `fraction` is 0 to 1.
    fn report_progress(&self, fraction: f32, note: &str);
}

/// An attempt for a worker.
pub struct Start<A> {
    pub attempt: A,
    /// `None` if it has to be prepared; then [`Link::send`](super::Link::send) or [`Link::take`](super::Link::take) follows.
    pub assigned: Option<Arc<Assigned>>,
}

pub(super) struct Entry<A> {
    pub attempt: A,
    delivery: Delivery,
    cancel: Option<Cancel>,
}

enum Delivery {
    /// The worker has not heard of it.
    Preparing,
    /// It can be sent again on another stream. The time is that of the last sending.
    Sent(Arc<Assigned>, Instant),
    Accepted,
}

/// The last request to stop that the worker was sent.
struct Cancel {
    cause: StopCause,
    /// Whether it has to hear of the end of the grace period.
    kill_is_due: bool,
    /// Since when its acknowledgement is missing.
    unacknowledged_since: Option<Instant>,
}

impl<A: LinkedAttempt> Entry<A> {
    pub fn new(attempt: A) -> Self {
        Self { attempt, delivery: Delivery::Preparing, cancel: None }
    }

    /// An attempt that an earlier server has sent, and that the worker may have.
    pub fn adopted(attempt: A) -> Self {
        Self { attempt, delivery: Delivery::Accepted, cancel: None }
    }

    pub fn is_prepared(&self) -> bool {
        !matches!(self.delivery, Delivery::Preparing)
    }

    pub fn is_accepted(&self) -> bool {
        matches!(self.delivery, Delivery::Accepted)
    }

    pub fn send(&mut self, assigned: Arc<Assigned>, now: Instant) -> Command {
        self.delivery = Delivery::Sent(assigned.clone(), now);
        Command::Assign(assigned)
    }

    pub fn accept(&mut self) {
        self.delivery = Delivery::Accepted;
    }

    /// A part of the payload is sent. Returns false if the worker needs no more of it.
    pub fn chunk_sent(&mut self, now: Instant) -> bool {
        let Delivery::Sent(_, sent_at) = &mut self.delivery else { return false };
        *sent_at = now;
        true
    }

    pub fn acknowledge_cancel(&mut self) {
        if let Some(cancel) = &mut self.cancel {
            cancel.unacknowledged_since = None;
        }
    }

    /// The request to stop that the worker has to hear of now: the first one, one with a stronger cause, or the end of the
    /// grace period.
    pub fn next_cancel(&mut self, now: Instant) -> Option<Command> {
        let stop = self.attempt.stop();
        let cause = stop.requested_cause().filter(|_| self.is_prepared() && stop.was_requested())?;
        let (awaited, kill_is_due, since) = match &self.cancel {
            None => (Some(StopCause::Timeout), false, None),
            Some(last) => (stronger(last.cause), last.kill_is_due, last.unacknowledged_since),
        };
        let is_new = awaited.is_some_and(|awaited| cause >= awaited);
        let is_kill = kill_is_due && stop.kill_is_due();
        if !is_new && !is_kill {
            return None;
        }
        let grace = stop.time_to_kill();
        let cancel = Cancel { cause, kill_is_due: !grace.is_zero(), unacknowledged_since: Some(since.unwrap_or(now)) };
        self.cancel = Some(cancel);
        Some(Command::Cancel { token: self.attempt.token(), cause, grace })
    }

    /// When the deadline passes or the grace period ends, if the worker has to hear of it.
    pub fn due(&self) -> Option<Instant> {
        match &self.cancel {
            _ if !self.is_prepared() => None,
            None => self.attempt.stop().deadline(),
            Some(cancel) if cancel.kill_is_due => self.attempt.stop().kill_at(),
            Some(_) => None,
        }
    }

    /// A new stream has begun; `has` is whether the worker has the attempt. Adds what the worker has missed.
    pub fn begin_stream(&mut self, has: bool, now: Instant, commands: &mut Vec<Command>) {
        if has {
            self.delivery = Delivery::Accepted;
        }
        if let Delivery::Sent(assigned, sent_at) = &mut self.delivery {
            *sent_at = now;
            commands.push(Command::Assign(assigned.clone()));
        }
        if let Some(cancel) = &mut self.cancel {
            cancel.unacknowledged_since = Some(now);
            let (token, grace) = (self.attempt.token(), self.attempt.stop().time_to_kill());
            commands.push(Command::Cancel { token, cause: cancel.cause, grace });
        }
    }

    /// Whether the worker has not accepted it in time. One that has left will not accept what was on its way.
    pub fn is_given_up(&self, now: Instant, is_connected: bool, leaves: bool) -> bool {
        match &self.delivery {
            Delivery::Sent(_, sent_at) if is_connected => now.duration_since(*sent_at) >= ACCEPT_TIMEOUT,
            Delivery::Sent(..) => leaves,
            Delivery::Preparing | Delivery::Accepted => false,
        }
    }

    /// The worker has so much longer for its answers.
    pub fn postpone(&mut self, time: Duration, now: Instant) {
        if let Delivery::Sent(_, sent_at) = &mut self.delivery {
            *sent_at = now.min(*sent_at + time);
        }
        if let Some(since) = self.cancel.as_mut().and_then(|cancel| cancel.unacknowledged_since.as_mut()) {
            *since = now.min(*since + time);
        }
    }

    /// Since when the worker has not acknowledged a request to stop.
    pub fn ignores_cancel_since(&self) -> Option<Instant> {
        self.cancel.as_ref().and_then(|cancel| cancel.unacknowledged_since)
    }

    /// The end of an attempt that the worker has not accepted in time.
    pub fn not_accepted(self) -> (A, RunReport) {
        // If it may not start twice, only its acceptance may have been lost.
        let outcome = if self.attempt.at_most_once() {
            Outcome::WorkerLost
        } else {
            Outcome::Unavailable("the worker has not accepted the attempt in time".into())
        };
        (self.attempt, outcome.into())
    }

    /// The end of an attempt whose worker is lost.
    pub fn lost(self) -> (A, RunReport) {
        let outcome = if self.is_prepared() { Outcome::WorkerLost } else { not_sent() };
        (self.attempt, outcome.into())
    }

    /// The end that the worker has reported.
    pub fn finished(self, report: RunReport) -> (A, RunReport) {
        // A worker that has to leave may stop an attempt that the server has not asked to stop.
        let is_lost = matches!(report.outcome, Outcome::Stopped(_)) && self.attempt.stop().cause().is_none();
        let report = if is_lost { RunReport { outcome: Outcome::WorkerLost, ..report } } else { report };
        (self.attempt, report)
    }
}

/// The outcome of an attempt that no worker has heard of.
pub(super) fn not_sent() -> Outcome {
    Outcome::Unavailable("the worker has left".into())
}

fn stronger(cause: StopCause) -> Option<StopCause> {
    match cause {
        StopCause::Timeout | StopCause::Drain => Some(StopCause::Cancel),
        StopCause::Cancel => Some(StopCause::Force),
        StopCause::Force => None,
    }
}
