//! Trims the journal behind the projection to the watch window, and removes waiters that no longer wait.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::Revision;
use crate::store::{Journal, Store};

use super::hub::Hub;

const INTERVAL: Duration = Duration::from_secs(5);

/// What the journal keeps for watchers.
#[derive(Clone, Copy, Debug)]
pub struct WatchWindow {
    /// At least this many events, unless they have more bytes.
    pub events: u64,
    pub bytes: u64,
}

impl WatchWindow {
    /// Up to where the journal is to be trimmed, if it is worth it: a quarter of the window at a time keeps trims rare.
    fn excess(self, projected: Revision, journal: &dyn Journal) -> Option<Revision> {
        let (is_long, most) = (self.events + self.events / 4, self.bytes.saturating_add(self.bytes / 4));
        let by_count = (projected.0.saturating_sub(journal.oldest().0) >= is_long).then(|| projected.0 - self.events);
        let by_bytes = journal.excess(most).and_then(|_| journal.excess(self.bytes)).map(|excess| excess.0);
        let excess = by_count.max(by_bytes)?.min(projected.0);
        (excess > journal.oldest().0).then_some(Revision(excess))
    }
}

/// Runs until `stop` is cancelled.
pub(super) async fn run(store: Store, hub: Arc<Hub>, window: WatchWindow, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        hub.remove_closed_waiters();
        let projected = *store.projection.revision().borrow();
        let Some(excess) = window.excess(projected, &*store.journal) else { continue };
        let store = store.clone();
        let trimmed = tokio::task::spawn_blocking(move || {
            let checkpoint = store.projection.checkpoint()?;
            store.journal.trim(checkpoint.min(excess))
        });
        match trimmed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to trim the journal"),
            Err(error) => tracing::warn!(%error, "failed to trim the journal"),
        }
    }
}
