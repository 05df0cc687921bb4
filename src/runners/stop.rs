//! One way to end an attempt, for every runner: a cause, a deadline, and a wake-up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Why an attempt has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopCause {
    /// Its deadline has passed.
    Timeout = 1,
    /// The server shuts down; the attempt is not spent.
    Drain = 2,
    /// A caller cancelled it: ask, and force after the grace.
    Cancel = 3,
    /// A caller wants it gone at once.
    Force = 4,
}

/// Told once by whoever wants an attempt to end, watched by the runner.
#[derive(Debug, Default)]
pub struct Stop {
    cause: AtomicU8,
    grace: OnceLock<Duration>,
    deadline: OnceLock<Instant>,
    told: Notify,
}

impl Stop {
    /// Arms the time-out; called once, when the attempt begins.
    pub fn arm(&self, timeout: Duration) {
        let _ = self.deadline.set(Instant::now() + timeout);
    }

    /// Tells the runner to end. A stronger cause replaces a weaker one; `grace` is the first caller's.
    pub fn tell(&self, cause: StopCause, grace: Duration) {
        let _ = self.grace.set(grace);
        self.cause.fetch_max(cause as u8, Ordering::AcqRel);
        self.told.notify_waiters();
    }

    /// The cause, once there is one. Also looks at the deadline, so a loop that calls this every
    /// millisecond or so obeys its time-out.
    pub fn cause(&self) -> Option<StopCause> {
        if let Some(cause) = self.told_cause() {
            return Some(cause);
        }
        let deadline = self.deadline.get()?;
        if Instant::now() < *deadline {
            return None;
        }
        self.cause.fetch_max(StopCause::Timeout as u8, Ordering::AcqRel);
        self.told_cause()
    }

    /// The cause without a look at the clock: one atomic load, for tight loops.
    pub fn told_cause(&self) -> Option<StopCause> {
        match self.cause.load(Ordering::Acquire) {
            1 => Some(StopCause::Timeout),
            2 => Some(StopCause::Drain),
            3 => Some(StopCause::Cancel),
            4 => Some(StopCause::Force),
            _ => None,
        }
    }

    /// Time between asking and forcing, once told.
    pub fn grace(&self) -> Option<Duration> {
        self.grace.get().copied()
    }

    /// Waits until there is a cause at least as strong as `at_least`; a time-out counts as soon as
    /// the deadline passes.
    pub async fn wait(&self, at_least: StopCause) -> StopCause {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if let Some(cause) = self.cause().filter(|cause| *cause >= at_least) {
                return cause;
            }
            match self.deadline.get().copied().filter(|deadline| *deadline > Instant::now()) {
                Some(deadline) => tokio::select! {
                    () = told => {}
                    () = tokio::time::sleep_until(deadline) => {}
                },
                None => told.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_is_a_cause_of_its_own() {
        let stop = Stop::default();
        stop.arm(Duration::from_secs(5));
        assert_eq!(stop.cause(), None);
        assert_eq!(stop.wait(StopCause::Timeout).await, StopCause::Timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stronger_cause_replaces_a_weaker_one_and_never_the_reverse() {
        let stop = Stop::default();
        stop.tell(StopCause::Cancel, Duration::from_secs(1));
        stop.tell(StopCause::Drain, Duration::ZERO);
        assert_eq!(stop.wait(StopCause::Timeout).await, StopCause::Cancel);
        stop.tell(StopCause::Force, Duration::ZERO);
        assert_eq!(stop.wait(StopCause::Force).await, StopCause::Force);
        assert_eq!(stop.grace(), Some(Duration::from_secs(1)));
    }
}
