//! Telemetry of the scheduler's loop: heartbeats, commits and the load of the pools.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Event, MemoryAccount, MemoryPart, Priority, SharedCatalog, Timestamp};
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
    memory: MemoryAccount,
    meter: CommitMeter,
    publish_at: Instant,
}

impl Observer {
    pub fn new(telemetry: Telemetry, catalog: SharedCatalog, memory: MemoryAccount) -> Self {
        let now = Instant::now();
        let meter = CommitMeter::new(&telemetry.metrics, catalog);
        Self { telemetry, memory, meter, publish_at: now }
    }

    pub fn commit_durable(&mut self, events: &[Event], duration: Duration) {
        self.meter.durable(events, duration);
        self.telemetry.gauges.commit_times.record(duration);
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
        pools: &[Option<Pool>],
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
        let (payloads, attached) = core.memory_use();
        self.memory.publish(MemoryPart::Payloads, payloads);
        self.memory.publish(MemoryPart::Attached, attached);
        gauges.retained_bytes.store(core.retained_bytes(), Ordering::Relaxed);
        gauges.blocked.store(Arc::new(core.blocked()));
        let loads = core.loads(now);
        let readings = loads.into_iter().filter_map(|(index, load)| {
            let pool = pools.get(index)?.as_ref()?;
            Some(reading(instant, load, pool))
        });
        gauges.pools.publish(readings.collect());
    }
}

fn reading(now: Instant, load: PoolLoad, pool: &Pool) -> PoolReading {
    let stats = pool.stats();
    let oldest = |p: usize| {
        let since = || now.checked_sub(load.oldest_wait_by_priority[p]);
        if load.queued_by_priority[p] > 0 { since() } else { None }
    };
    PoolReading {
        size: load.spec.size,
        busy: stats.busy,
        idle: stats.idle,
        paused: load.spec.paused,
        queue_limit: load.spec.queue_limit,
        default_timeout: load.spec.timeout,
        waiting: load.waiting,
        running: load.running,
        queued: load.queued_by_priority,
        oldest: std::array::from_fn::<_, { Priority::COUNT }, _>(oldest),
        name: load.spec.name,
    }
}
