//! What the loop tells about itself: beats, commits, and how the pools stand.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Catalog, Event, Priority, Timestamp};
use crate::pool::Pool;
use crate::store::Projection;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{CommitMeter, PoolReading};

use super::core::{Core, PoolLoad};
use super::hub::Hub;

/// Time between two looks at the pools while there is much to do.
const INTERVAL: Duration = Duration::from_millis(250);

/// Owned by the loop; nobody waits for it.
pub(super) struct Observer {
    telemetry: Telemetry,
    meter: CommitMeter,
    commit_began: Instant,
    look_at: Instant,
    /// By pool: steals as last read, and in total. What is read starts over when counters are reset.
    steals: Vec<(u64, u64)>,
}

impl Observer {
    pub fn new(telemetry: Telemetry, catalog: Arc<Catalog>) -> Self {
        let now = Instant::now();
        let meter = CommitMeter::new(&telemetry.metrics, catalog);
        Self { telemetry, meter, commit_began: now, look_at: now, steals: Vec::new() }
    }

    /// A commit is handed to the store.
    pub fn commit_begins(&mut self) {
        self.commit_began = Instant::now();
    }

    /// It is durable.
    pub fn durable(&mut self, events: &[Event]) {
        self.meter.durable(events, self.commit_began.elapsed());
    }

    /// It was refused.
    pub fn refused(&mut self) {
        self.meter.refused();
    }

    /// The loop gets on.
    pub fn heartbeat(&self, store_refuses: bool) {
        self.telemetry.liveness.heartbeat(store_refuses);
    }

    /// The loop ends.
    pub fn stop_heartbeat(&self) {
        self.telemetry.liveness.stop_heartbeat();
    }

    /// Publishes how the pools stand, if it was not done just now.
    pub fn look(
        &mut self,
        now: Timestamp,
        core: &mut Core,
        pools: &[Option<Pool>],
        hub: &Hub,
        tables: &dyn Projection,
    ) {
        let instant = Instant::now();
        if instant < self.look_at {
            return;
        }
        self.look_at = instant + INTERVAL;
        let gauges = self.telemetry.gauges.clone();
        let reached = tables.revision().borrow().0;
        gauges.projection_lag.store(hub.revision().0.saturating_sub(reached), Ordering::Relaxed);
        let loads = core.loads(now);
        let readings = loads.into_iter().filter_map(|(index, load)| {
            let pool = pools.get(index)?.as_ref()?;
            Some(self.reading(now, index, load, pool))
        });
        gauges.pools.publish(readings.collect());
    }

    fn reading(&mut self, now: Timestamp, index: usize, load: PoolLoad, pool: &Pool) -> PoolReading {
        let stats = pool.stats();
        let since = |p: usize| {
            let age = u64::try_from(load.oldest_wait_by_priority[p].as_micros()).unwrap_or(u64::MAX);
            (load.queued_by_priority[p] > 0).then(|| Timestamp(now.0.saturating_sub(age)))
        };
        PoolReading {
            size: load.spec.size,
            busy: stats.busy,
            idle: stats.idle,
            paused: load.spec.paused,
            queue_limit: load.spec.queue_limit,
            waiting: load.waiting,
            running: load.running,
            queued: load.queued_by_priority,
            oldest: std::array::from_fn::<_, { Priority::COUNT }, _>(since),
            steals: self.steals_in_total(index, stats.steals),
            name: load.spec.name,
        }
    }

    fn steals_in_total(&mut self, index: usize, read: u64) -> u64 {
        if self.steals.len() <= index {
            self.steals.resize(index + 1, (0, 0));
        }
        let (last, total) = &mut self.steals[index];
        *total += read.checked_sub(*last).unwrap_or(read);
        *last = read;
        *total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steals_never_go_back_when_a_pools_counters_are_reset() {
        let mut observer = Observer::new(Telemetry::off(), Arc::default());
        assert_eq!(observer.steals_in_total(1, 5), 5);
        assert_eq!(observer.steals_in_total(1, 8), 8);
        assert_eq!(observer.steals_in_total(1, 2), 10, "they were reset in between");
        assert_eq!(observer.steals_in_total(0, 1), 1);
    }
}
