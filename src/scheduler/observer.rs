//! Telemetry of the scheduler's loop: heartbeats, commits and the load of the pools.

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

/// Minimum time between two publications of the pools' load.
const INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Observer {
    telemetry: Telemetry,
    meter: CommitMeter,
    commit_began: Instant,
    publish_at: Instant,
    /// By pool: the last value of its counter, which can be reset, and the total that is never reset.
    steals: Vec<(u64, u64)>,
}

impl Observer {
    pub fn new(telemetry: Telemetry, catalog: Arc<Catalog>) -> Self {
        let now = Instant::now();
        let meter = CommitMeter::new(&telemetry.metrics, catalog);
        Self { telemetry, meter, commit_began: now, publish_at: now, steals: Vec::new() }
    }

    pub fn commit_started(&mut self) {
        self.commit_began = Instant::now();
    }

    pub fn commit_durable(&mut self, events: &[Event]) {
        self.meter.durable(events, self.commit_began.elapsed());
    }

    pub fn commit_refused(&mut self) {
        self.meter.refused();
    }

    pub fn heartbeat(&self, store_refuses: bool) {
        self.telemetry.liveness.heartbeat(store_refuses);
    }

    /// No more heartbeats follow: the loop has ended.
    pub fn stop(&self) {
        self.telemetry.liveness.stop_heartbeat();
    }

    /// Publishes the load of the pools, at most once per [`INTERVAL`].
    pub fn publish_loads(
        &mut self,
        now: Timestamp,
        core: &mut Core,
        pools: &[Pool],
        hub: &Hub,
        projection: &dyn Projection,
    ) {
        let instant = Instant::now();
        if instant < self.publish_at {
            return;
        }
        self.publish_at = instant + INTERVAL;
        let gauges = self.telemetry.gauges.clone();
        let reached = projection.revision().borrow().0;
        gauges.projection_lag.store(hub.revision().0.saturating_sub(reached), Ordering::Relaxed);
        let loads = core.loads(now);
        let readings = loads.into_iter().filter_map(|(index, load)| {
            let pool = pools.get(index)?;
            Some(self.reading(now, index, load, pool))
        });
        gauges.pools.publish(readings.collect());
    }

    fn reading(&mut self, now: Timestamp, index: usize, load: PoolLoad, pool: &Pool) -> PoolReading {
        let stats = pool.stats();
        let oldest = |p: usize| {
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
            oldest: std::array::from_fn::<_, { Priority::COUNT }, _>(oldest),
            steals: self.total_steals(index, stats.steals),
            name: load.spec.name,
        }
    }

    fn total_steals(&mut self, index: usize, current: u64) -> u64 {
        if self.steals.len() <= index {
            self.steals.resize(index + 1, (0, 0));
        }
        let (last, total) = &mut self.steals[index];
        *total += current.checked_sub(*last).unwrap_or(current);
        *last = current;
        *total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_steals_do_not_decrease_when_the_counters_of_a_pool_are_reset() {
        let mut observer = Observer::new(Telemetry::off(), Arc::default());
        assert_eq!(observer.total_steals(1, 5), 5);
        assert_eq!(observer.total_steals(1, 8), 8);
        assert_eq!(observer.total_steals(1, 2), 10, "the counter was reset in between");
        assert_eq!(observer.total_steals(0, 1), 1);
    }
}
