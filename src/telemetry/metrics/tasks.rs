//! What becomes of tasks.
//!
//! They are counted when their events are durable, by the scheduler's own thread: in plain numbers, of
//! which the SDK is told once for each commit. Handlers and pools that are not registered count as `other`.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::{Catalog, Change, Event, HandlerName, Namespace, PoolName, Priority, TaskOptions};

use super::instruments::{Counter, Distribution};
use super::{Metrics, table};

/// Namespaces with series of their own.
const NAMESPACES_MAX: usize = 64;
/// What everything else is called.
pub(super) const OTHER: &str = "other";
/// Places for every [`FailureReason`](crate::model::FailureReason) by its number.
pub(super) const REASONS: usize = 11;

/// Place of a counter that is bound when it is first needed.
type Lazy = Option<usize>;

/// The counters, and what was added since the SDK was last told.
#[derive(Default)]
struct Counters {
    all: Vec<(Counter, u64)>,
    /// Those that something was added to.
    changed: Vec<usize>,
}

impl Counters {
    fn add(&mut self, place: &mut Lazy, make: impl FnOnce() -> Counter) {
        let place = *place.get_or_insert_with(|| {
            self.all.push((make(), 0));
            self.all.len() - 1
        });
        let (_, added) = &mut self.all[place];
        if *added == 0 {
            self.changed.push(place);
        }
        *added += 1;
    }

    fn tell(&mut self) {
        for place in self.changed.drain(..) {
            let (counter, added) = &mut self.all[place];
            counter.add(std::mem::take(added));
        }
    }
}

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
    counters: Counters,
    /// Series of the event before: most of a commit are alike.
    last: Option<(Arc<TaskOptions>, Place)>,
    duration: Distribution,
    size: Distribution,
    failures: Counter,
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
    accepted: Lazy,
    /// Completed, failed, cancelled.
    ended: [Lazy; 3],
}

impl CommitMeter {
    /// A meter that knows the registered handlers and pools.
    pub fn new(metrics: &Metrics, catalog: Arc<Catalog>) -> Self {
        let failures = metrics.instruments().counter(&table::COMMIT_FAILURES, &[]);
        // Shown from the start, so that the first one is an increase.
        failures.add(0);
        Self {
            failures,
            duration: metrics.instruments().distribution(&table::COMMIT_DURATION, &[]),
            size: metrics.instruments().distribution(&table::COMMIT_SIZE, &[]),
            metrics: metrics.clone(),
            catalog,
            by_name: HashMap::new(),
            series: Vec::new(),
            namespaces: HashMap::new(),
            tenants: Vec::new(),
            counters: Counters::default(),
            last: None,
        }
    }

    /// These events have become durable together, after `took`.
    pub fn durable(&mut self, events: &[Event], took: Duration) {
        if !self.metrics.is_on() {
            return;
        }
        self.duration.record(took);
        self.duration.remember(took, || None);
        self.size.count(events.len());
        for event in events {
            if counts(&event.change) {
                let place = self.place(&event.options);
                self.count(place, event);
            }
        }
        self.counters.tell();
    }

    /// The store has refused a commit.
    pub fn refused(&mut self) {
        self.failures.add(1);
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
        let TenantSeries { name, accepted, ended } = &mut self.tenants[place.tenant];
        let counters = &mut self.counters;
        let finished = |result: &str, reason: &str| {
            let labels = [("pool", &**pool), ("handler", handler), ("result", result), ("error.type", reason)];
            let given = if reason.is_empty() { &labels[..3] } else { &labels[..] };
            instruments.counter(&table::TASK_FINISHED, given)
        };
        let [tenant_completed, tenant_failed, tenant_cancelled] = ended;
        let of_tenant = |result: &str| {
            let labels = [("namespace", &**name), ("result", result)];
            instruments.counter(&table::NAMESPACE_FINISHED, &labels)
        };
        match &event.change {
            Change::Submitted { .. } => {
                let priority = event.options.priority;
                let labels = [("pool", &**pool), ("handler", handler), ("priority", label(priority))];
                counters.add(&mut submitted[priority.index()], || instruments.counter(&table::TASK_SUBMITTED, &labels));
                let labels = [("namespace", &**name)];
                counters.add(accepted, || instruments.counter(&table::NAMESPACE_SUBMITTED, &labels));
            }
            Change::Completed { .. } => {
                counters.add(completed, || finished("completed", ""));
                counters.add(tenant_completed, || of_tenant("completed"));
            }
            Change::Cancelled { .. } => {
                counters.add(cancelled, || finished("cancelled", ""));
                counters.add(tenant_cancelled, || of_tenant("cancelled"));
            }
            Change::Failed { failure, .. } => {
                let reason = failure.reason;
                counters.add(&mut failed[reason as usize % REASONS], || finished("failed", reason.name()));
                counters.add(tenant_failed, || of_tenant("failed"));
            }
            Change::Retrying { failure, .. } => {
                let labels = [("pool", &**pool), ("handler", handler), ("error.type", failure.reason.name())];
                let place = &mut retried[failure.reason as usize % REASONS];
                counters.add(place, || instruments.counter(&table::TASK_RETRIED, &labels));
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
        Self { name: name.to_owned(), accepted: None, ended: Default::default() }
    }
}
