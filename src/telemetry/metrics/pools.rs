//! State of pools, store and watches, as last published by their owners.
//!
//! The scheduler's loop publishes; readers get the last published state and never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::model::{BlockedTasks, BlockerKind, MemoryAccount, MemoryPart, PoolName, Priority};

use crate::telemetry::liveness::{Component, Liveness};

use super::commit_times::CommitTimes;
use super::instruments::Observation;
use super::registry::Metrics;
use super::table;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReading {
    pub name: PoolName,
    /// Workers that the pool should have.
    pub size: usize,
    pub busy: usize,
    pub idle: usize,
    pub paused: bool,
    /// Tasks that may wait in the pool.
    pub queue_limit: usize,
    /// Of tasks without a timeout.
    pub default_timeout: Duration,
    pub waiting: u64,
    pub running: u64,
    /// QUEUED tasks by priority index.
    pub queued: [u64; Priority::COUNT],
    /// When the oldest of them became eligible.
    pub oldest: [Option<Instant>; Priority::COUNT],
}

impl PoolReading {
    pub fn queued(&self) -> u64 {
        self.queued.iter().sum()
    }

    /// Zero if no task is QUEUED.
    pub fn oldest_age(&self) -> Duration {
        self.oldest.iter().flatten().min().map_or(Duration::ZERO, Instant::elapsed)
    }

    #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
    pub fn utilization(&self) -> f64 {
        let workers = self.busy + self.idle;
        if workers == 0 { 0.0 } else { self.busy as f64 / workers as f64 }
    }
}

#[derive(Debug, Default)]
pub struct PoolGauges(ArcSwap<Vec<PoolReading>>);

impl PoolGauges {
    pub fn publish(&self, pools: Vec<PoolReading>) {
        self.0.store(Arc::new(pools));
    }

    /// As last published.
    pub fn read(&self) -> Arc<Vec<PoolReading>> {
        self.0.load_full()
    }
}

/// Counts of watches and their events.
#[derive(Debug, Default)]
pub struct WatchMeter {
    pub open: AtomicU64,
    pub events: AtomicU64,
    /// Reads of the journal for watches that had fallen behind.
    pub catch_ups: AtomicU64,
}

/// State that the scheduler's loop publishes.
#[derive(Debug, Default)]
pub struct ServerGauges {
    pub pools: PoolGauges,
    pub blocked: ArcSwap<Vec<BlockedTasks>>,
    pub commit_times: CommitTimes,
    pub watches: Arc<WatchMeter>,
    /// Durable events that the projection does not contain yet.
    pub projection_lag: AtomicU64,
    /// Bytes of finished tasks that the store keeps.
    pub retained_bytes: AtomicU64,
    /// 1 if the last reload of the configuration was refused.
    pub config_refused: AtomicU64,
}

impl Metrics {
    pub fn observe_server(&self, gauges: &Arc<ServerGauges>) {
        self.observe_pools(gauges);
        let observe = |row: &'static table::Row, read: fn(&ServerGauges) -> &AtomicU64| {
            let gauges = gauges.clone();
            self.instruments().observe(row, move |o| o.count(read(&gauges).load(Ordering::Relaxed), &[]));
        };
        observe(&table::PROJECTION_LAG, |gauges| &gauges.projection_lag);
        observe(&table::RETAINED_BYTES, |gauges| &gauges.retained_bytes);
        observe(&table::CONFIG_REFUSED, |gauges| &gauges.config_refused);
        observe(&table::WATCHERS, |gauges| &gauges.watches.open);
        observe(&table::WATCH_EVENTS, |gauges| &gauges.watches.events);
        observe(&table::WATCH_CATCH_UPS, |gauges| &gauges.watches.catch_ups);
    }

    pub fn observe_memory(&self, account: &MemoryAccount) {
        let observe = |row: &'static table::Row, read: fn(&MemoryAccount, MemoryPart) -> u64| {
            let account = account.clone();
            let all = move |o: &mut Observation<'_>| {
                for part in MemoryPart::ALL {
                    o.count(read(&account, part), &[("part", part.name())]);
                }
            };
            self.instruments().observe(row, all);
        };
        observe(&table::MEMORY_USED, MemoryAccount::used);
        observe(&table::MEMORY_LIMIT, MemoryAccount::limit);
    }

    pub fn observe_liveness(&self, liveness: &Arc<Liveness>) {
        let observe = |row: &'static table::Row, read: fn(&mut Observation<'_>, &Liveness)| {
            let liveness = liveness.clone();
            self.instruments().observe(row, move |o| read(o, &liveness));
        };
        observe(&table::SERVER_READY, |o, liveness| o.count(liveness.is_ready().into(), &[]));
        observe(&table::STORE_REFUSES, |o, liveness| o.count(liveness.store_refuses().into(), &[]));
        observe(&table::SILENCE, |o, liveness| {
            for part in Component::ALL {
                o.record(liveness.stall_status(part).0.as_secs_f64(), &[("part", part.name())]);
            }
        });
        observe(&table::STALLS, |o, liveness| {
            for part in Component::ALL {
                o.count(liveness.stall_status(part).1, &[("part", part.name())]);
            }
        });
    }

    fn observe_pools(&self, gauges: &Arc<ServerGauges>) {
        let each = |row: &'static table::Row, read: fn(&mut Observation<'_>, &PoolReading)| {
            let gauges = gauges.clone();
            let all = move |o: &mut Observation<'_>| gauges.pools.read().iter().for_each(|pool| read(o, pool));
            self.instruments().observe(row, all);
        };
        each(&table::TASK_ACTIVE, |o, pool| {
            for (state, count) in [("waiting", pool.waiting), ("queued", pool.queued()), ("running", pool.running)] {
                o.count(count, &[("pool", pool.name.as_str()), ("state", state)]);
            }
        });
        let blocked = gauges.clone();
        self.instruments().observe(&table::TASK_BLOCKED, move |o| {
            for BlockedTasks { pool, counts } in &**blocked.blocked.load() {
                for (kind, count) in BlockerKind::ALL.into_iter().zip(counts) {
                    o.count(*count, &[("pool", pool.as_str()), ("blocker", kind.name())]);
                }
            }
        });
        each(&table::QUEUE_LENGTH, |o, pool| {
            for priority in Priority::DESCENDING {
                let labels = [("pool", pool.name.as_str()), ("priority", super::tasks::priority_label(priority))];
                o.count(pool.queued[priority.index()], &labels);
            }
        });
        each(&table::QUEUE_OLDEST, |o, pool| {
            // By the current time: it grows even if nothing is published.
            for priority in Priority::DESCENDING {
                let labels = [("pool", pool.name.as_str()), ("priority", super::tasks::priority_label(priority))];
                let age = pool.oldest[priority.index()].map_or(Duration::ZERO, |since| since.elapsed());
                o.record(age.as_secs_f64(), &labels);
            }
        });
        each(&table::QUEUE_LIMIT, |o, pool| o.count(pool.queue_limit as u64, &[("pool", pool.name.as_str())]));
        each(&table::POOL_WORKERS, |o, pool| {
            for (state, count) in [("busy", pool.busy), ("idle", pool.idle)] {
                o.count(count as u64, &[("pool", pool.name.as_str()), ("state", state)]);
            }
        });
        each(&table::POOL_LIMIT, |o, pool| o.count(pool.size as u64, &[("pool", pool.name.as_str())]));
        each(&table::POOL_UTILIZATION, |o, pool| o.record(pool.utilization(), &[("pool", pool.name.as_str())]));
        each(&table::POOL_PAUSED, |o, pool| o.count(pool.paused.into(), &[("pool", pool.name.as_str())]));
    }
}
