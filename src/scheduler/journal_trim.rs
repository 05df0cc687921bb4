//! Housekeeping beside the loop: trims the journal behind the projection, so that it keeps the watch
//! window and not for ever, and forgets waiters that have gone.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::Revision;
use crate::store::Store;

use super::hub::Hub;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until `stop`. Keeps at least `window` events for watchers.
pub(super) async fn run(store: Store, hub: Arc<Hub>, window: u64, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        hub.forget_closed();
        let reached = store.projection.revision().borrow().0;
        let oldest = store.journal.oldest().0;
        // Trimming by a quarter of the window at a time keeps the work small and rare.
        if reached.saturating_sub(oldest) < window + window / 4 {
            continue;
        }
        let store = store.clone();
        let trimmed = tokio::task::spawn_blocking(move || {
            let safe = store.projection.checkpoint()?;
            store.journal.trim(Revision(safe.0.min(reached.saturating_sub(window))))
        });
        match trimmed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to trim the journal"),
            Err(error) => tracing::warn!(%error, "failed to trim the journal"),
        }
    }
}
