//! The signal that asks an attempt to stop: a cause, a grace period, and the deadline of the attempt.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Why an attempt has to stop. A later variant is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopCause {
    /// The deadline of the attempt has passed.
    Timeout = 1,
    /// The server is shutting down. The attempt does not count against the retry limit.
    Drain = 2,
    /// A caller cancelled the task: the handler is asked to stop, and killed after the grace period.
    Cancel = 3,
    /// A caller cancelled the task by force: the handler is killed at once.
    Force = 4,
}

#[derive(Debug, Default)]
pub struct StopSignal {
    cause: AtomicU8,
    grace: OnceLock<Duration>,
    deadline: OnceLock<Instant>,
    requested: Notify,
}

impl StopSignal {
    /// Sets the deadline to `timeout` from now. Only the first call has an effect.
    pub fn start_timeout(&self, timeout: Duration) {
        let _ = self.deadline.set(Instant::now() + timeout);
    }

    /// Requests a stop. A stronger cause replaces a weaker one; the grace of the first request is kept.
    pub fn request(&self, cause: StopCause, grace: Duration) {
        let _ = self.grace.set(grace);
        self.cause.fetch_max(cause as u8, Ordering::AcqRel);
        self.requested.notify_waiters();
    }

    /// The cause, if a stop was requested or the deadline has passed. A loop that calls this about every
    /// millisecond obeys its timeout.
    pub fn cause(&self) -> Option<StopCause> {
        if let Some(cause) = self.requested_cause() {
            return Some(cause);
        }
        let deadline = self.deadline.get()?;
        if Instant::now() < *deadline {
            return None;
        }
        self.cause.fetch_max(StopCause::Timeout as u8, Ordering::AcqRel);
        self.requested_cause()
    }

    /// The cause, without checking the deadline: one atomic load, for tight loops.
    pub fn requested_cause(&self) -> Option<StopCause> {
        match self.cause.load(Ordering::Acquire) {
            1 => Some(StopCause::Timeout),
            2 => Some(StopCause::Drain),
            3 => Some(StopCause::Cancel),
            4 => Some(StopCause::Force),
            _ => None,
        }
    }

    /// The time between asking the handler to stop and killing it; `None` before the first request.
    pub fn grace(&self) -> Option<Duration> {
        self.grace.get().copied()
    }

    /// Waits for a cause at least as strong as `at_least`. A passed deadline counts as [`StopCause::Timeout`].
    pub async fn wait(&self, at_least: StopCause) -> StopCause {
        loop {
            let requested = self.requested.notified();
            tokio::pin!(requested);
            requested.as_mut().enable();
            if let Some(cause) = self.cause().filter(|cause| *cause >= at_least) {
                return cause;
            }
            match self.deadline.get().copied().filter(|deadline| *deadline > Instant::now()) {
                Some(deadline) => tokio::select! {
                    () = requested => {}
                    () = tokio::time::sleep_until(deadline) => {}
                },
                None => requested.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_is_a_timeout() {
        let stop = StopSignal::default();
        stop.start_timeout(Duration::from_secs(5));
        assert_eq!(stop.cause(), None);
        assert_eq!(stop.wait(StopCause::Timeout).await, StopCause::Timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stronger_cause_replaces_a_weaker_one() {
        let stop = StopSignal::default();
        stop.request(StopCause::Cancel, Duration::from_secs(1));
        stop.request(StopCause::Drain, Duration::ZERO);
        assert_eq!(stop.wait(StopCause::Timeout).await, StopCause::Cancel);
        stop.request(StopCause::Force, Duration::ZERO);
        assert_eq!(stop.wait(StopCause::Force).await, StopCause::Force);
        assert_eq!(stop.grace(), Some(Duration::from_secs(1)));
    }
}
