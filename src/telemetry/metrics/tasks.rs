//! What becomes of tasks and attempts.
//!
//! Tasks are counted when their events are durable, by the scheduler's own thread; attempts by the
//! worker that ran them. Handlers and pools that are not registered count as `other`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use opentelemetry::metrics::BoundCounter;

use crate::model::{Catalog, Change, Event, FailureReason, HandlerName, Namespace, PoolName, Priority, TaskOptions};

use super::exemplar::Trace;
use super::instruments::Distribution;
use super::{Metrics, table};

/// Namespaces with series of their own.
const NAMESPACES_MAX: usize = 64;
/// What everything else is called.
const OTHER: &str = "other";
/// Places for every [`FailureReason`] by its number.
const REASONS: usize = 11;

/// A counter that is bound when it is first needed.
type Lazy = Option<BoundCounter<u64>>;

/// Name of a priority as an attribute.
pub(super) fn label(priority: Priority) -> &'static str {
    ["low", "normal", "high", "critical"][priority.index()]
}

/// Counts durable commits and what is in them. Owned by the scheduler's loop.
pub struct CommitMeter {
    metrics: Metrics,
    catalog: Arc<Catalog>,
    by_name: HashMap<PoolName, HashMap<HandlerName, usize>>,
    series: Vec<TaskSeries>,
    namespaces: HashMap<Namespace, usize>,
    tenants: Vec<TenantSeries>,
    /// Series of the event before: most of a commit are alike.
    last: Option<(Arc<TaskOptions>, Place)>,
    duration: Distribution,
    size: Distribution,
    failures: Lazy,
}

#[derive(Clone, Copy)]
struct Place {
    series: usize,
    tenant: usize,
}

/// The series of one handler in one pool.
struct TaskSeries {
    pool: String,
    handler: String,
    submitted: [Lazy; Priority::COUNT],
    completed: Lazy,
    cancelled: Lazy,
    failed: [Lazy; REASONS],
    retried: [Lazy; REASONS],
}

struct TenantSeries {
    name: String,
    submitted: Lazy,
    completed: Lazy,
    failed: Lazy,
    cancelled: Lazy,
}

impl CommitMeter {
    /// A meter that knows the registered handlers and pools.
    pub fn new(metrics: &Metrics, catalog: Arc<Catalog>) -> Self {
        Self {
            duration: metrics.instruments().distribution(&table::COMMIT_DURATION, &[]),
            size: metrics.instruments().distribution(&table::COMMIT_SIZE, &[]),
            metrics: metrics.clone(),
            catalog,
            by_name: HashMap::new(),
            series: Vec::new(),
            namespaces: HashMap::new(),
            tenants: Vec::new(),
            last: None,
            failures: None,
        }
    }

    /// These events have become durable together, after `took`.
    pub fn durable(&mut self, events: &[Event], took: Duration) {
        if !self.metrics.is_on() {
            return;
        }
        self.duration.record(took, None);
        self.size.count(events.len());
        for event in events {
            if counts(&event.change) {
                let place = self.place(&event.options);
                self.count(place, event);
            }
        }
    }

    /// The store has refused a commit.
    pub fn refused(&mut self) {
        let make = || self.metrics.instruments().counter(&table::COMMIT_FAILURES, &[]);
        self.failures.get_or_insert_with(make).add(1);
    }

    fn place(&mut self, options: &Arc<TaskOptions>) -> Place {
        if let Some((last, place)) = &self.last
            && Arc::ptr_eq(last, options)
        {
            return *place;
        }
        let place = Place { series: self.series_of(options), tenant: self.tenant_of(&options.namespace) };
        self.last = Some((options.clone(), place));
        place
    }

    fn series_of(&mut self, options: &TaskOptions) -> usize {
        if let Some(found) = self.by_name.get(&options.pool).and_then(|handlers| handlers.get(&options.handler)) {
            return *found;
        }
        let pool = if self.catalog.pools.contains_key(&options.pool) { options.pool.as_str() } else { OTHER };
        let known = self.catalog.handlers.contains_key(&options.handler);
        let handler = if known { options.handler.as_str() } else { OTHER };
        let same = |series: &TaskSeries| series.pool == pool && series.handler == handler;
        let index = self.series.iter().position(same).unwrap_or_else(|| {
            self.series.push(TaskSeries::new(pool, handler));
            self.series.len() - 1
        });
        if pool != OTHER && known {
            self.by_name.entry(options.pool.clone()).or_default().insert(options.handler.clone(), index);
        }
        index
    }

    fn tenant_of(&mut self, namespace: &Namespace) -> usize {
        if let Some(found) = self.namespaces.get(namespace) {
            return *found;
        }
        if self.namespaces.len() < NAMESPACES_MAX {
            self.tenants.push(TenantSeries::new(namespace.as_str()));
            self.namespaces.insert(namespace.clone(), self.tenants.len() - 1);
        } else if self.tenants.len() == NAMESPACES_MAX {
            self.tenants.push(TenantSeries::new(OTHER));
        }
        self.tenants.len() - 1
    }

    fn count(&mut self, place: Place, event: &Event) {
        let instruments = self.metrics.instruments();
        let TaskSeries { pool, handler, submitted, completed, cancelled, failed, retried } =
            &mut self.series[place.series];
        let tenant = &mut self.tenants[place.tenant];
        let finished = |result: &str, reason: &str| {
            let labels = [("pool", &**pool), ("handler", handler), ("result", result), ("error.type", reason)];
            let given = if reason.is_empty() { &labels[..3] } else { &labels[..] };
            instruments.counter(&table::TASK_FINISHED, given)
        };
        let of_tenant = |result: &str| {
            let labels = [("namespace", &*tenant.name), ("result", result)];
            instruments.counter(&table::NAMESPACE_FINISHED, &labels)
        };
        match &event.change {
            Change::Submitted { .. } => {
                let priority = event.options.priority;
                let labels = [("pool", &**pool), ("handler", handler), ("priority", label(priority))];
                let make = || instruments.counter(&table::TASK_SUBMITTED, &labels);
                submitted[priority.index()].get_or_insert_with(make).add(1);
                let make = || instruments.counter(&table::NAMESPACE_SUBMITTED, &[("namespace", &tenant.name)]);
                tenant.submitted.get_or_insert_with(make).add(1);
            }
            Change::Completed { .. } => {
                completed.get_or_insert_with(|| finished("completed", "")).add(1);
                tenant.completed.get_or_insert_with(|| of_tenant("completed")).add(1);
            }
            Change::Cancelled { .. } => {
                cancelled.get_or_insert_with(|| finished("cancelled", "")).add(1);
                tenant.cancelled.get_or_insert_with(|| of_tenant("cancelled")).add(1);
            }
            Change::Failed { failure, .. } => {
                let place = &mut failed[failure.reason as usize % REASONS];
                place.get_or_insert_with(|| finished("failed", failure.reason.name())).add(1);
                tenant.failed.get_or_insert_with(|| of_tenant("failed")).add(1);
            }
            Change::Retrying { failure, .. } => {
                let labels = [("pool", &**pool), ("handler", handler), ("error.type", failure.reason.name())];
                let make = || instruments.counter(&table::TASK_RETRIED, &labels);
                retried[failure.reason as usize % REASONS].get_or_insert_with(make).add(1);
            }
            _ => {}
        }
    }
}

fn counts(change: &Change) -> bool {
    !matches!(
        change,
        Change::Eligible
            | Change::Started { .. }
            | Change::Interrupted { .. }
            | Change::CancelRequested { .. }
            | Change::Deleted
    )
}

impl TaskSeries {
    fn new(pool: &str, handler: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            handler: handler.to_owned(),
            submitted: Default::default(),
            completed: None,
            cancelled: None,
            failed: Default::default(),
            retried: Default::default(),
        }
    }
}

impl TenantSeries {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), submitted: None, completed: None, failed: None, cancelled: None }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// With a result.
    Completed,
    /// Without; a time-out too.
    Failed(FailureReason),
    /// Somebody ended it.
    Cancelled,
    /// It was taken back without being spent.
    Interrupted,
}

/// Counts the attempts of one pool. Shared by its workers; waits for nobody.
pub struct PoolMeter {
    metrics: Metrics,
    pool: String,
    waits: [OnceLock<Distribution>; Priority::COUNT],
    handlers: HashMap<HandlerName, AttemptSeries>,
    other: AttemptSeries,
}

struct AttemptSeries {
    handler: String,
    /// By the result's place, see [`AttemptResult::place`].
    durations: [OnceLock<Distribution>; RESULTS],
    ended: [OnceLock<BoundCounter<u64>>; REASONS + RESULTS],
}

/// Completed, failed, cancelled, interrupted.
const RESULTS: usize = 4;

impl AttemptResult {
    fn place(self) -> usize {
        match self {
            Self::Completed => 0,
            Self::Failed(_) => 1,
            Self::Cancelled => 2,
            Self::Interrupted => 3,
        }
    }

    fn label(self) -> &'static str {
        ["completed", "failed", "cancelled", "interrupted"][self.place()]
    }
}

impl AttemptSeries {
    fn new(handler: &str) -> Self {
        Self { handler: handler.to_owned(), durations: Default::default(), ended: Default::default() }
    }
}

impl PoolMeter {
    /// A meter for a pool that knows the registered handlers.
    pub fn new(metrics: &Metrics, pool: &PoolName, catalog: &Catalog) -> Self {
        let series = |name: &HandlerName| (name.clone(), AttemptSeries::new(name.as_str()));
        Self {
            metrics: metrics.clone(),
            pool: pool.to_string(),
            waits: Default::default(),
            handlers: catalog.handlers.keys().map(series).collect(),
            other: AttemptSeries::new(OTHER),
        }
    }

    /// An attempt has begun, so long after it could have.
    pub fn started(&self, priority: Priority, waited: Duration, trace: Option<Trace>) {
        if !self.metrics.is_on() {
            return;
        }
        let labels = [("pool", &*self.pool), ("priority", label(priority))];
        let make = || self.metrics.instruments().distribution(&table::TASK_WAIT, &labels);
        self.waits[priority.index()].get_or_init(make).record(waited, trace);
    }

    /// An attempt has ended.
    pub fn ended(&self, handler: &HandlerName, result: AttemptResult, ran: Duration, trace: Option<Trace>) {
        if !self.metrics.is_on() {
            return;
        }
        let series = self.handlers.get(handler).unwrap_or(&self.other);
        let instruments = self.metrics.instruments();
        let mut labels = vec![("pool", &*self.pool), ("handler", &*series.handler), ("result", result.label())];
        let make = || instruments.distribution(&table::TASK_DURATION, &labels);
        series.durations[result.place()].get_or_init(make).record(ran, trace);
        let place = match result {
            AttemptResult::Failed(reason) => {
                labels.push(("error.type", reason.name()));
                RESULTS + reason as usize % REASONS
            }
            _ => result.place(),
        };
        series.ended[place].get_or_init(|| instruments.counter(&table::TASK_ATTEMPTS, &labels)).add(1);
    }
}
