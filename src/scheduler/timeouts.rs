//! Time limits for callers, so that no call waits forever when a disk hangs.
//!
//! A query is answered or refused within a bounded time. A change waits for its commit as long as the caller
//! does, because a refusal could not state whether the change took place.

use std::time::Duration;

use crate::model::Revision;
use crate::store::{Projection, StoreError};

use super::refusal::{Internal, ProjectionUnavailable, Refusal};

/// How long the scheduler's loop may take to answer a query. Long enough for a single slow sync.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for the memory of its response. Long enough for the responses before it to be read.
pub(super) const MEMORY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the projection may make no progress while it is behind. Long enough for a large transaction.
pub(super) const PROJECTION_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until the projection has reached `wanted`, as long as it makes progress.
///
/// # Errors
/// [`ProjectionUnavailable`] if the projection cannot be written or has made no progress for `stall_timeout`.
pub(super) async fn wait_for_revision(
    projection: &dyn Projection,
    wanted: Revision,
    stall_timeout: Duration,
) -> Result<(), Refusal> {
    let mut reached = projection.revision();
    if *reached.borrow() < wanted {
        projection.flush();
    }
    let mut fault = projection.fault();
    loop {
        let current = *reached.borrow_and_update();
        if current >= wanted {
            return Ok(());
        }
        tokio::select! {
            biased;
            changed = reached.changed() => {
                changed.map_err(|_| stopped(projection))?;
            }
            Ok(fault) = fault.wait_for(Option::is_some) => {
                return Err(fault.as_ref().map_or_else(|| stopped(projection), of_fault));
            }
            () = tokio::time::sleep(stall_timeout) => {
                let (seconds, missing) = (stall_timeout.as_secs(), wanted.0 - current.0);
                let cause = format!(
                    "no progress for {seconds} s, {missing} revisions missing, for example because a disk hangs; \
                     see `lineshaft system health` and the server's log"
                );
                return Err(ProjectionUnavailable { cause }.into());
            }
        }
    }
}

/// Why the projection's thread has ended.
fn stopped(projection: &dyn Projection) -> Refusal {
    let fault = projection.fault().borrow().as_ref().map(of_fault);
    fault.unwrap_or_else(|| Internal { cause: "the projection has stopped".to_owned() }.into())
}

fn of_fault(fault: &StoreError) -> Refusal {
    let cause = fault.to_string();
    if fault.is_damage() { Internal { cause }.into() } else { ProjectionUnavailable { cause }.into() }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::model::{Output, RequestName, Task, TaskFilter, TaskId};
    use crate::store::{Commit, FoundRequests, Page, PageCursor, PageSize};

    /// A projection whose progress the test controls.
    struct ControlledProjection {
        reached: watch::Receiver<Revision>,
        fault: watch::Sender<Option<StoreError>>,
    }

    impl Projection for ControlledProjection {
        fn apply(&self, _: std::sync::Arc<Commit>) {}

        fn flush(&self) {}

        fn revision(&self) -> watch::Receiver<Revision> {
            self.reached.clone()
        }

        fn fault(&self) -> watch::Receiver<Option<StoreError>> {
            self.fault.subscribe()
        }

        fn task_revision(&self) -> Revision {
            *self.reached.borrow()
        }

        fn payload(&self, _: Revision) -> Result<Option<bytes::Bytes>, StoreError> {
            Err(StoreError::Closed)
        }

        fn recent(&self, _: &TaskId) -> Option<Task> {
            None
        }

        fn get(&self, _: &TaskId, _: bool) -> Result<Option<Task>, StoreError> {
            Err(StoreError::Closed)
        }

        fn stored_bytes(&self, _: &TaskId, _: bool) -> Result<u64, StoreError> {
            Err(StoreError::Closed)
        }

        fn output(&self, _: &TaskId, _: u32) -> Result<Option<(u32, Output)>, StoreError> {
            Err(StoreError::Closed)
        }

        fn list(&self, _: &TaskFilter, _: PageSize, _: Option<PageCursor>) -> Result<Page, StoreError> {
            Err(StoreError::Closed)
        }

        fn requests(&self, _: &[RequestName]) -> Result<FoundRequests, StoreError> {
            Err(StoreError::Closed)
        }

        fn checkpoint(&self) -> Result<Revision, StoreError> {
            Err(StoreError::Closed)
        }
    }

    fn projection() -> (watch::Sender<Revision>, ControlledProjection) {
        let (progress, reached) = watch::channel(Revision(7));
        (progress, ControlledProjection { reached, fault: watch::Sender::new(None) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_projection_that_makes_progress_is_waited_for() {
        let (progress, projection) = projection();
        let advance = async {
            for revision in 8..=12 {
                tokio::time::sleep(PROJECTION_STALL_TIMEOUT * 3 / 4).await;
                progress.send_replace(Revision(revision));
            }
        };
        let wait = wait_for_revision(&projection, Revision(12), PROJECTION_STALL_TIMEOUT);
        let (result, ()) = tokio::join!(wait, advance);
        result.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_projection_without_progress_is_refused_after_the_timeout() {
        let (_progress, projection) = projection();
        let wait = wait_for_revision(&projection, Revision(15), PROJECTION_STALL_TIMEOUT);
        let refusal = wait.await.unwrap_err();
        assert!(matches!(refusal, Refusal::ProjectionUnavailable(_)), "{refusal:?}");
        let text = refusal.to_string();
        assert!(text.contains("no progress for 30 s") && text.contains("8 revisions missing"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn damage_is_not_reported_as_a_passing_fault() {
        let (progress, projection) = projection();
        let path = "projection.db".into();
        projection.fault.send_replace(Some(StoreError::Malformed { path, detail: String::new() }));
        for progress in [Some(progress), None] {
            let wait = wait_for_revision(&projection, Revision(8), PROJECTION_STALL_TIMEOUT);
            let refusal = wait.await.unwrap_err();
            assert!(
                matches!(&refusal, Refusal::Internal(cause) if cause.to_string().contains("corrupt")),
                "{refusal:?}"
            );
            drop(progress);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_projection_that_cannot_be_written_is_refused_at_once() {
        let (_progress, projection) = projection();
        projection.fault.send_replace(Some(StoreError::Closed));
        let before = tokio::time::Instant::now();
        let wait = wait_for_revision(&projection, Revision(8), PROJECTION_STALL_TIMEOUT);
        let refusal = wait.await.unwrap_err();
        assert!(matches!(refusal, Refusal::ProjectionUnavailable(_)), "{refusal:?}");
        assert_eq!(before.elapsed(), Duration::ZERO);
        wait_for_revision(&projection, Revision(7), PROJECTION_STALL_TIMEOUT).await.unwrap();
    }
}
