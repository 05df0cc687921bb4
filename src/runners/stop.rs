//! The signal that asks an attempt to stop: a cause, when to kill the handler, and the deadline of the attempt.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::CancelMode;

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

impl From<CancelMode> for StopCause {
    fn from(mode: CancelMode) -> Self {
        match mode {
            CancelMode::Graceful => Self::Cancel,
            CancelMode::Force => Self::Force,
        }
    }
}

/// Hears of requests to stop, as an alternative to waiting for them.
pub trait StopListener: Send + Sync {
    /// A stop of the attempt with this key was requested, for the first time or again.
    fn stop_requested(&self, key: u64);
}

#[derive(Debug, Default)]
pub struct StopSignal {
    cause: AtomicU8,
    requests: Mutex<Requests>,
    deadline: OnceLock<Instant>,
    requested: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    /// `None` before the first request.
    kill_at: Option<Instant>,
    listener: Option<(Weak<dyn StopListener>, u64)>,
}

impl StopSignal {
    /// Sets the deadline to `timeout` from now. Only the first call has an effect.
    pub fn start_timeout(&self, timeout: Duration) {
        let _ = self.deadline.set(Instant::now() + timeout);
    }

    /// `None` before the timeout is started.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    /// Requests a stop. A stronger cause replaces a weaker one. The handler is killed at the earliest time that any
    /// request allows; `grace` is the time that this one allows from now on.
    pub fn request(&self, cause: StopCause, grace: Duration) {
        let grace = if cause == StopCause::Force { Duration::ZERO } else { grace };
        let allowed = Instant::now() + grace;
        let mut requests = self.requests.lock();
        requests.kill_at = Some(requests.kill_at.map_or(allowed, |earlier| earlier.min(allowed)));
        // Under the lock, so that a listener either is called or sees the cause.
        self.cause.fetch_max(cause as u8, Ordering::AcqRel);
        let listener = requests.listener.clone();
        drop(requests);
        self.requested.notify_waiters();
        if let Some((listener, key)) = listener
            && let Some(listener) = listener.upgrade()
        {
            listener.stop_requested(key);
        }
    }

    /// Calls the listener at each later request. Returns whether a stop was requested before.
    pub fn listen(&self, listener: Weak<dyn StopListener>, key: u64) -> bool {
        let mut requests = self.requests.lock();
        requests.listener = Some((listener, key));
        requests.kill_at.is_some()
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

    /// Whether a stop was requested; a passed deadline is no request.
    pub fn was_requested(&self) -> bool {
        self.kill_at().is_some()
    }

    /// When the grace periods of a requested stop end.
    pub fn kill_at(&self) -> Option<Instant> {
        self.requests.lock().kill_at
    }

    /// Whether a requested stop has left the handler no time, or no time any more.
    pub fn kill_is_due(&self) -> bool {
        self.kill_at().is_some_and(|kill_at| kill_at <= Instant::now())
    }

    /// What is left of the grace periods of a requested stop.
    pub fn time_to_kill(&self) -> Duration {
        self.kill_at().map_or(Duration::ZERO, |kill_at| kill_at.saturating_duration_since(Instant::now()))
    }

    /// Waits until the grace periods of a requested stop have passed.
    pub async fn wait_for_kill(&self) {
        loop {
            let requested = self.requested.notified();
            tokio::pin!(requested);
            requested.as_mut().enable();
            if self.kill_is_due() {
                return;
            }
            match self.kill_at() {
                Some(kill_at) => tokio::select! {
                    () = requested => {}
                    () = tokio::time::sleep_until(kill_at) => {}
                },
                None => requested.await,
            }
        }
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
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_is_a_timeout() {
        let stop = StopSignal::default();
        stop.start_timeout(Duration::from_secs(5));
        assert_eq!(stop.cause(), None);
        assert_eq!(stop.wait(StopCause::Timeout).await, StopCause::Timeout);
    }

    #[test]
    fn a_listener_hears_of_later_requests_and_is_told_of_earlier_ones() {
        struct Heard(Mutex<Vec<u64>>);
        impl StopListener for Heard {
            fn stop_requested(&self, key: u64) {
                self.0.lock().push(key);
            }
        }
        let listener = Arc::new(Heard(Mutex::default()));
        let weak: Weak<dyn StopListener> = Arc::<Heard>::downgrade(&listener);
        let (early, late) = (StopSignal::default(), StopSignal::default());
        early.request(StopCause::Cancel, Duration::ZERO);
        assert!(early.listen(weak.clone(), 1));
        assert!(!late.listen(weak, 2));
        late.request(StopCause::Drain, Duration::ZERO);
        late.request(StopCause::Force, Duration::ZERO);
        assert_eq!(*listener.0.lock(), [2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stronger_cause_replaces_a_weaker_one() {
        let stop = StopSignal::default();
        stop.request(StopCause::Cancel, Duration::from_secs(1));
        stop.request(StopCause::Drain, Duration::ZERO);
        assert_eq!(stop.wait(StopCause::Timeout).await, StopCause::Cancel);
        stop.request(StopCause::Force, Duration::ZERO);
        assert_eq!(stop.wait(StopCause::Force).await, StopCause::Force);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_grace_of_all_requests_counts() {
        let stop = StopSignal::default();
        let start = Instant::now();
        stop.request(StopCause::Cancel, Duration::from_secs(300));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!stop.kill_is_due());
        stop.request(StopCause::Drain, Duration::from_secs(3));
        stop.request(StopCause::Drain, Duration::from_secs(30));
        stop.wait_for_kill().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        assert_eq!(stop.cause(), Some(StopCause::Cancel));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_request_ends_a_grace_period() {
        for (cause, grace) in [(StopCause::Force, Duration::from_hours(1)), (StopCause::Drain, Duration::ZERO)] {
            let stop = StopSignal::default();
            stop.request(StopCause::Cancel, Duration::from_hours(1));
            let start = Instant::now();
            tokio::join!(stop.wait_for_kill(), async { stop.request(cause, grace) });
            assert_eq!(start.elapsed(), Duration::ZERO, "{cause:?}");
        }
    }
}
