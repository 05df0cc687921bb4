//! How long callers wait for the scheduler, so that none waits for ever when a disk hangs.
//!
//! A question gets an answer or a refusal within a bounded time. A change waits for its commit as long as its
//! caller does: a refusal could not tell whether it took place.

use std::time::Duration;

use crate::model::Revision;
use crate::store::Projection;
use crate::telemetry::liveness::{Component, NotReady};

use super::handle::Handle;
use super::message::{Reply, Request};
use super::refusal::{Draining, Internal, ProjectionUnavailable, Refusal, SchedulerUnresponsive};

/// How long the scheduler's loop may take to answer a question. A disk that is slow for once is no reason to refuse.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the tables for questions may stand still behind what is durable. A transaction is large when much is done.
pub(super) const PROJECTION_STALL_TIMEOUT: Duration = Duration::from_secs(30);

impl Handle {
    /// Asks the loop what changes nothing. Asks at once; not at all when the loop is known to hang, so that its
    /// inbox does not grow.
    ///
    /// # Errors
    /// [`SchedulerUnresponsive`], [`Draining`], and what the answer is.
    pub(super) fn ask_within<T: Send, R: FnOnce(Reply<T>) -> Request>(
        &self,
        patience: Duration,
        request: R,
    ) -> impl Future<Output = Result<T, Refusal>> + Send + use<T, R> {
        let asked = match self.stalled() {
            Some(silent) => Err(silent),
            None => Ok(self.ask(request)),
        };
        async move {
            match tokio::time::timeout(patience, asked?).await {
                Ok(answer) => answer.map_err(|_| Draining)?,
                Err(_) => Err(SchedulerUnresponsive { stalled: false, silence: patience }.into()),
            }
        }
    }

    fn stalled(&self) -> Option<SchedulerUnresponsive> {
        let liveness = &self.shared.liveness;
        let stalled = liveness.not_ready_reasons().contains(&NotReady::Stalled(Component::Scheduler));
        stalled.then(|| SchedulerUnresponsive { stalled, silence: liveness.stall_status(Component::Scheduler).0 })
    }
}

/// Waits until the tables show what is durable, and for as long as they come nearer.
///
/// # Errors
/// [`ProjectionUnavailable`] when they cannot be written, or have not moved for `patience`.
pub(super) async fn wait_for_revision(
    tables: &dyn Projection,
    wanted: Revision,
    patience: Duration,
) -> Result<(), Refusal> {
    let mut reached = tables.revision();
    if *reached.borrow() < wanted {
        tables.flush();
    }
    let mut trouble = tables.fault();
    loop {
        let here = *reached.borrow_and_update();
        if here >= wanted {
            return Ok(());
        }
        tokio::select! {
            biased;
            moved = reached.changed() => moved.map_err(|_| Internal { cause: "the projection has stopped".to_owned() })?,
            Ok(trouble) = trouble.wait_for(Option::is_some) => {
                let cause = trouble.as_ref().map(ToString::to_string).unwrap_or_default();
                return Err(ProjectionUnavailable { cause }.into());
            }
            () = tokio::time::sleep(patience) => {
                let (silence, missing) = (patience.as_secs(), wanted.0 - here.0);
                let cause = format!(
                    "the tables have not moved for {silence} s and lack {missing} revisions, as when a disk hangs; \
                     `lineshaft system health` and the server's log tell more"
                );
                return Err(ProjectionUnavailable { cause }.into());
            }
        }
    }
}

/// Waits until the tables are written again, or are given up for good.
pub(super) async fn wait_until_writable(tables: &dyn Projection) {
    if tables.fault().wait_for(Option::is_none).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::model::{Output, Task, TaskFilter, TaskId};
    use crate::store::{Commit, Page, PageCursor, PageSize, StoreError};

    /// Tables that get as far as they are told.
    struct Tables {
        reached: watch::Receiver<Revision>,
        trouble: watch::Sender<Option<StoreError>>,
    }

    impl Projection for Tables {
        fn apply(&self, _: std::sync::Arc<Commit>) {}

        fn flush(&self) {}

        fn revision(&self) -> watch::Receiver<Revision> {
            self.reached.clone()
        }

        fn fault(&self) -> watch::Receiver<Option<StoreError>> {
            self.trouble.subscribe()
        }

        fn get(&self, _: &TaskId) -> Result<Option<Task>, StoreError> {
            Err(StoreError::Closed)
        }

        fn output(&self, _: &TaskId, _: u32) -> Result<Option<(u32, Output)>, StoreError> {
            Err(StoreError::Closed)
        }

        fn list(&self, _: &TaskFilter, _: PageSize, _: Option<PageCursor>) -> Result<Page, StoreError> {
            Err(StoreError::Closed)
        }

        fn checkpoint(&self) -> Result<Revision, StoreError> {
            Err(StoreError::Closed)
        }
    }

    fn tables() -> (watch::Sender<Revision>, Tables) {
        let (reach, reached) = watch::channel(Revision(7));
        (reach, Tables { reached, trouble: watch::Sender::new(None) })
    }

    #[tokio::test(start_paused = true)]
    async fn tables_that_stand_still_are_given_up_and_those_that_come_nearer_are_not() {
        let (reach, tables) = tables();
        let near = async {
            for revision in 8..=12 {
                tokio::time::sleep(PROJECTION_STALL_TIMEOUT * 3 / 4).await;
                reach.send_replace(Revision(revision));
            }
        };
        let (found, ()) = tokio::join!(wait_for_revision(&tables, Revision(12), PROJECTION_STALL_TIMEOUT), near);
        found.unwrap();
        let refusal = wait_for_revision(&tables, Revision(20), PROJECTION_STALL_TIMEOUT).await.unwrap_err();
        assert!(matches!(refusal, Refusal::ProjectionUnavailable(_)), "{refusal:?}");
        let said = refusal.to_string();
        assert!(said.contains("not moved for 30 s") && said.contains("lack 8 revisions"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn tables_that_cannot_be_written_are_not_waited_for() {
        let (_reach, tables) = tables();
        tables.trouble.send_replace(Some(StoreError::Closed));
        let before = tokio::time::Instant::now();
        let refusal = wait_for_revision(&tables, Revision(8), PROJECTION_STALL_TIMEOUT).await.unwrap_err();
        assert!(matches!(refusal, Refusal::ProjectionUnavailable(_)), "{refusal:?}");
        assert_eq!(before.elapsed(), Duration::ZERO);
        wait_for_revision(&tables, Revision(7), PROJECTION_STALL_TIMEOUT).await.unwrap();
    }
}
