//! How the server's parts stand, as their owners last said: the pools, the store, the watches.
//!
//! The scheduler's loop publishes; whoever looks reads the last word and never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::model::{Clock, PoolName, Priority, SystemClock, Timestamp};

use crate::telemetry::liveness::{Component, Liveness};

use super::instruments::Observed;
use super::{Metrics, table};

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReading {
    /// Its name.
    pub name: PoolName,
    /// Workers that there should be.
    pub size: usize,
    /// Workers running an attempt.
    pub busy: usize,
    /// Workers without one.
    pub idle: usize,
    /// Starts nothing.
    pub paused: bool,
    /// Tasks that may wait.
    pub queue_limit: usize,
    /// WAITING tasks.
    pub waiting: u64,
    /// RUNNING tasks.
    pub running: u64,
    /// QUEUED tasks by priority index.
    pub queued: [u64; Priority::COUNT],
    /// Since when the oldest of them could have run.
    pub oldest: [Option<Timestamp>; Priority::COUNT],
    /// Attempts that a worker took from another; never goes back.
    pub steals: u64,
}

impl PoolReading {
    /// QUEUED tasks.
    pub fn queued(&self) -> u64 {
        self.queued.iter().sum()
    }

    /// How long the oldest QUEUED task has waited.
    pub fn oldest_age(&self, now: Timestamp) -> Duration {
        self.oldest.iter().flatten().min().map_or(Duration::ZERO, |since| now.since(*since))
    }

    /// Share of the workers that are busy.
    #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
    pub fn utilization(&self) -> f64 {
        let there = self.busy + self.idle;
        if there == 0 { 0.0 } else { self.busy as f64 / there as f64 }
    }
}

/// The pools.
#[derive(Debug, Default)]
pub struct PoolGauges(ArcSwap<Vec<PoolReading>>);

impl PoolGauges {
    /// How they stand.
    pub fn publish(&self, pools: Vec<PoolReading>) {
        self.0.store(Arc::new(pools));
    }

    /// As last published.
    pub fn read(&self) -> Arc<Vec<PoolReading>> {
        self.0.load_full()
    }
}

/// Counts of what watches were given.
#[derive(Debug, Default)]
pub struct WatchMeter {
    /// Watches that are open.
    pub open: AtomicU64,
    /// Events given to them.
    pub events: AtomicU64,
    /// Reads of the journal for one that had fallen behind.
    pub catch_ups: AtomicU64,
}

/// What the scheduler's loop publishes about itself.
#[derive(Debug, Default)]
pub struct ServerGauges {
    /// The pools.
    pub pools: PoolGauges,
    /// The watches.
    pub watches: Arc<WatchMeter>,
    /// Durable events that the projection has not taken.
    pub projection_lag: AtomicU64,
}

impl Metrics {
    /// Shows what is published here.
    pub fn observe_server(&self, gauges: &Arc<ServerGauges>) {
        self.observe_pools(gauges);
        let instruments = self.instruments();
        let read = gauges.clone();
        instruments.observe(&table::PROJECTION_LAG, move |o| o.count(read.projection_lag.load(Ordering::Relaxed), &[]));
        let read = gauges.watches.clone();
        instruments.observe(&table::WATCHERS, move |o| o.count(read.open.load(Ordering::Relaxed), &[]));
        let read = gauges.watches.clone();
        instruments.observe(&table::WATCH_EVENTS, move |o| o.count(read.events.load(Ordering::Relaxed), &[]));
        let read = gauges.watches.clone();
        instruments.observe(&table::WATCH_CATCH_UPS, move |o| o.count(read.catch_ups.load(Ordering::Relaxed), &[]));
    }

    /// Shows whether the server is ready, and what the watchdog sees.
    pub fn observe_liveness(&self, liveness: &Arc<Liveness>) {
        let read = liveness.clone();
        let ready = move |o: &mut Observed<'_>| o.count(read.is_ready().into(), &[]);
        self.instruments().observe(&table::SERVER_READY, ready);
        let read = liveness.clone();
        let refuses = move |o: &mut Observed<'_>| o.count(read.store_refuses().into(), &[]);
        self.instruments().observe(&table::STORE_REFUSES, refuses);
        let read = liveness.clone();
        self.instruments().observe(&table::SILENCE, move |o| {
            for part in Component::ALL {
                o.tell(read.stall_status(part).0.as_secs_f64(), &[("part", part.name())]);
            }
        });
        let read = liveness.clone();
        self.instruments().observe(&table::STALLS, move |o| {
            for part in Component::ALL {
                o.count(read.stall_status(part).1, &[("part", part.name())]);
            }
        });
    }

    fn observe_pools(&self, gauges: &Arc<ServerGauges>) {
        let each = |row: &'static table::Row, tell: fn(&mut Observed<'_>, &PoolReading)| {
            let read = gauges.clone();
            let all = move |o: &mut Observed<'_>| read.pools.read().iter().for_each(|pool| tell(o, pool));
            self.instruments().observe(row, all);
        };
        each(&table::TASK_ACTIVE, |o, pool| {
            for (state, count) in [("waiting", pool.waiting), ("queued", pool.queued()), ("running", pool.running)] {
                o.count(count, &[("pool", pool.name.as_str()), ("state", state)]);
            }
        });
        each(&table::QUEUE_LENGTH, |o, pool| {
            for priority in Priority::DESCENDING {
                let labels = [("pool", pool.name.as_str()), ("priority", super::tasks::label(priority))];
                o.count(pool.queued[priority.index()], &labels);
            }
        });
        each(&table::QUEUE_OLDEST, |o, pool| {
            // By the clock of now: it grows even when nobody publishes.
            let now = SystemClock.now();
            for priority in Priority::DESCENDING {
                let labels = [("pool", pool.name.as_str()), ("priority", super::tasks::label(priority))];
                let age = pool.oldest[priority.index()].map_or(Duration::ZERO, |since| now.since(since));
                o.tell(age.as_secs_f64(), &labels);
            }
        });
        each(&table::QUEUE_LIMIT, |o, pool| o.count(pool.queue_limit as u64, &[("pool", pool.name.as_str())]));
        each(&table::POOL_WORKERS, |o, pool| {
            for (state, count) in [("busy", pool.busy), ("idle", pool.idle)] {
                o.count(count as u64, &[("pool", pool.name.as_str()), ("state", state)]);
            }
        });
        each(&table::POOL_LIMIT, |o, pool| o.count(pool.size as u64, &[("pool", pool.name.as_str())]));
        each(&table::POOL_UTILIZATION, |o, pool| o.tell(pool.utilization(), &[("pool", pool.name.as_str())]));
        each(&table::POOL_PAUSED, |o, pool| o.count(pool.paused.into(), &[("pool", pool.name.as_str())]));
        each(&table::POOL_STEALS, |o, pool| o.count(pool.steals, &[("pool", pool.name.as_str())]));
    }
}
