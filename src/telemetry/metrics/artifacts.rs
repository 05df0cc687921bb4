//! Counts of stored and removed artifacts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::registry::Metrics;
use super::table;

#[derive(Debug, Default)]
pub struct ArtifactCounts {
    pub stored: AtomicU64,
    /// Removed because of their age.
    pub expired: AtomicU64,
    /// Removed with their task.
    pub deleted: AtomicU64,
    /// Removed because no task names them.
    pub unnamed: AtomicU64,
}

impl Metrics {
    pub fn observe_artifacts(&self, counts: &Arc<ArtifactCounts>) {
        let stored = Arc::clone(counts);
        self.instruments()
            .observe(&table::ARTIFACTS_STORED, move |o| o.count(stored.stored.load(Ordering::Relaxed), &[]));
        let removed = Arc::clone(counts);
        self.instruments().observe(&table::ARTIFACTS_REMOVED, move |o| {
            for (reason, count) in
                [("age", &removed.expired), ("task_deleted", &removed.deleted), ("unnamed", &removed.unnamed)]
            {
                o.count(count.load(Ordering::Relaxed), &[("reason", reason)]);
            }
        });
    }
}
