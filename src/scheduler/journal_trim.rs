//! Trims the journal behind the projection to the watch window, and removes waiters that no longer wait.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::Revision;
use crate::store::Store;

use super::hub::Hub;

const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `stop` is cancelled. Keeps at least `window` events for watchers.
pub(super) async fn run(store: Store, hub: Arc<Hub>, window: u64, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        hub.remove_closed_waiters();
        let projected = store.projection.revision().borrow().0;
        let oldest = store.journal.oldest().0;
        // Trimming a quarter of the window at a time keeps the trims small and rare.
        if projected.saturating_sub(oldest) < window + window / 4 {
            continue;
        }
        let store = store.clone();
        let trimmed = tokio::task::spawn_blocking(move || {
            let checkpoint = store.projection.checkpoint()?;
            store.journal.trim(Revision(checkpoint.0.min(projected.saturating_sub(window))))
        });
        match trimmed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to trim the journal"),
            Err(error) => tracing::warn!(%error, "failed to trim the journal"),
        }
    }
}
