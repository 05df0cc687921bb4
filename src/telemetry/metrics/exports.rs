//! Counts of exported and lost telemetry.

use std::sync::Arc;

use crate::telemetry::export::counts::{Counts, Totals};

use super::registry::Metrics;
use super::table;

impl Metrics {
    pub fn observe_exports(&self, counts: &[Arc<Counts>; 3]) {
        let counts = counts.clone();
        self.instruments().observe(&table::TELEMETRY_ITEMS, move |o| {
            for each in &counts {
                let signal = ("signal", each.signal.name());
                let Totals { exported, queue_full, failed } = each.totals();
                for (outcome, items) in [("exported", exported), ("queue_full", queue_full), ("failed", failed)] {
                    o.count(items, &[signal, ("outcome", outcome)]);
                }
            }
        });
    }
}
