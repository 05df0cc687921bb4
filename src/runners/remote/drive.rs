//! What drives the attempts of a link: one loop for all of them.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::entry::LinkedAttempt;
use super::link::{Checked, Ended, Link, LinkEnd};
use crate::runners::StopCause;

/// How often a link is checked for a worker that does not answer.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What the attempts of a link belong to.
pub trait LinkHost<A>: Sync {
    /// Time to stop after the deadline.
    fn grace_of(&self, attempt: &A) -> Duration;

    /// These attempts are no longer the link's, which goes on.
    fn ended(&self, ended: Vec<Ended<A>>);

    /// Whether the worker accepts no further attempts.
    fn is_leaving(&self) -> bool;

    /// Whether the attempts are left to the next server, so that none of them is given up.
    fn is_draining(&self) -> bool;
}

impl<A: LinkedAttempt> Link<A> {
    /// Stops attempts at their deadlines, and gives up those that the worker does not accept, until the link is over.
    /// Returns why, with the attempts that the worker had.
    pub async fn drive(&self, host: &impl LinkHost<A>) -> (LinkEnd, Vec<Ended<A>>) {
        let mut check_at = Instant::now() + CHECK_INTERVAL;
        loop {
            let due = self.next_due().map_or(check_at, |due| due.min(check_at));
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.due_earlier.notified() => continue,
            }
            let now = Instant::now();
            for attempt in self.take_overdue(now) {
                attempt.stop().request(StopCause::Timeout, host.grace_of(&attempt));
            }
            if now < check_at {
                continue;
            }
            // This process was stopped, or its machine: what the worker has sent meanwhile is not read yet.
            let lost = now.duration_since(check_at);
            if lost >= CHECK_INTERVAL {
                self.postpone(lost, now);
            }
            check_at = now + CHECK_INTERVAL;
            if host.is_draining() {
                continue;
            }
            match self.check(host.is_leaving()) {
                Checked { end: Some(end), ended } => return (end, ended),
                Checked { ended, .. } if ended.is_empty() => {}
                Checked { ended, .. } => host.ended(ended),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::super::link::tests::Attempt;
    use super::super::messages::CloseReason;
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    struct Host;

    impl LinkHost<Attempt> for Host {
        fn grace_of(&self, _: &Attempt) -> Duration {
            Duration::ZERO
        }

        fn ended(&self, _: Vec<Ended<Attempt>>) {}

        fn is_leaving(&self) -> bool {
            false
        }

        fn is_draining(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_the_server_was_stopped_is_none_in_which_the_worker_was_silent() {
        let link: Arc<Link<Attempt>> = Link::new(LEASE);
        let _stream = link.connect(&[]).unwrap();
        let mut drive = Box::pin(link.drive(&Host));
        assert!((&mut drive).now_or_never().is_none());
        tokio::time::advance(10 * LEASE).await;
        let more = tokio::time::timeout(LEASE / 2, &mut drive).await;
        assert!(more.is_err(), "what it has sent was not read");
        let (silent, _) = drive.await;
        assert!(matches!(silent, LinkEnd::Closed(CloseReason::Silent)), "{silent:?}");
    }
}
