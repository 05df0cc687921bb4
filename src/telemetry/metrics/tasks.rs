//! Tasks and commits.
//!
//! The scheduler's thread counts tasks when their events are durable: in plain numbers, which go to the SDK once for
//! each commit. Handlers and pools that are not known count as `other`, and so do registered handlers after the first
//! [`REGISTERED_MAX`] that are used.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use opentelemetry_semantic_conventions::attribute::ERROR_TYPE;

use crate::model::{
    Catalog, Event, HandlerName, Namespace, PoolName, Priority, ScheduleChange, SharedCatalog, TaskChange, TaskEvent,
    TaskOptions,
};

use super::instruments::{CounterSeries, HistogramSeries};
use super::registry::Metrics;
use super::table;

/// Namespaces with series of their own; the others count as [`OTHER`].
const NAMESPACES_MAX: usize = 64;
/// Registered handlers with series of their own; the others count as [`OTHER`]. All configured ones have series.
pub(super) const REGISTERED_MAX: usize = 64;
pub(super) const OTHER: &str = "other";
/// Number of [`FailureReason`](crate::model::FailureReason)s.
pub(super) const REASONS: usize = 11;

/// What has become of a run of a schedule: first its kinds, in their order.
const RUN_OUTCOMES: [&str; 6] = ["on_time", "caught_up", "waited", "triggered", "skipped", "missed"];
const SKIPPED: usize = 4;
const MISSED: usize = 5;

/// Index of a counter that is made when it is first needed.
type CounterIndex = Option<usize>;

/// Counters with the amounts that have not been passed to the SDK yet.
#[derive(Default)]
struct Counters {
    all: Vec<(CounterSeries, u64)>,
    /// Indexes of those with an amount.
    changed: Vec<usize>,
}

impl Counters {
    fn add(&mut self, index: &mut CounterIndex, make: impl FnOnce() -> CounterSeries) {
        self.add_many(index, 1, make);
    }

    fn add_many(&mut self, index: &mut CounterIndex, amount: u64, make: impl FnOnce() -> CounterSeries) {
        let index = *index.get_or_insert_with(|| {
            self.all.push((make(), 0));
            self.all.len() - 1
        });
        let (_, added) = &mut self.all[index];
        if *added == 0 {
            self.changed.push(index);
        }
        *added += amount;
    }

    fn flush(&mut self) {
        for index in self.changed.drain(..) {
            let (counter, added) = &mut self.all[index];
            counter.add(std::mem::take(added));
        }
    }
}

pub fn priority_label(priority: Priority) -> &'static str {
    ["low", "normal", "high", "critical"][priority.index()]
}

/// Counts durable commits and their events. Owned by the scheduler's loop.
pub struct CommitMeter {
    metrics: Metrics,
    catalog: SharedCatalog,
    /// The registered handlers that have series of their own.
    registered: HashSet<HandlerName>,
    by_name: HashMap<PoolName, HashMap<HandlerName, usize>>,
    series: Vec<TaskSeries>,
    namespaces: HashMap<Namespace, usize>,
    namespace_series: Vec<NamespaceSeries>,
    /// In the order of [`RUN_OUTCOMES`].
    runs: [CounterIndex; RUN_OUTCOMES.len()],
    counters: Counters,
    /// Series of the previous event: most events of a commit have the same.
    last: Option<(Arc<TaskOptions>, SeriesIndex)>,
    duration: HistogramSeries,
    size: HistogramSeries,
    failures: CounterSeries,
}

#[derive(Clone, Copy)]
struct SeriesIndex {
    task: usize,
    namespace: usize,
}

/// The series of one handler in one pool.
#[derive(Default)]
struct TaskSeries {
    pool: String,
    handler: String,
    submitted: [CounterIndex; Priority::COUNT],
    completed: CounterIndex,
    cancelled: CounterIndex,
    failed: [CounterIndex; REASONS],
    retried: [CounterIndex; REASONS],
}

#[derive(Default)]
struct NamespaceSeries {
    name: String,
    accepted: CounterIndex,
    /// Completed, failed, cancelled.
    ended: [CounterIndex; 3],
}

impl CommitMeter {
    pub fn new(metrics: &Metrics, catalog: SharedCatalog) -> Self {
        let failures = metrics.instruments().counter(&table::COMMIT_FAILURES, &[]);
        // Exported from the start, so that the first failure is an increase.
        failures.add(0);
        Self {
            failures,
            duration: metrics.instruments().histogram(&table::COMMIT_DURATION, &[]),
            size: metrics.instruments().histogram(&table::COMMIT_SIZE, &[]),
            metrics: metrics.clone(),
            catalog,
            registered: HashSet::new(),
            by_name: HashMap::new(),
            series: Vec::new(),
            namespaces: HashMap::new(),
            namespace_series: Vec::new(),
            runs: Default::default(),
            counters: Counters::default(),
            last: None,
        }
    }

    /// These events became durable in one commit, after `took`.
    pub fn durable(&mut self, events: &[Event], took: Duration) {
        if !self.metrics.is_on() {
            return;
        }
        self.duration.record(took);
        self.duration.offer_exemplar(took, || None);
        self.size.record_count(events.len());
        for event in events {
            match event {
                Event::Task(event) => {
                    if is_counted(&event.change) {
                        let index = self.series_index(&event.options);
                        self.count(index, event);
                    }
                    self.count_run(event);
                }
                Event::Schedule(event) => match &event.change {
                    ScheduleChange::Skipped { .. } => self.add_runs(SKIPPED, 1),
                    ScheduleChange::Missed { count, .. } => self.add_runs(MISSED, *count),
                    _ => {}
                },
                Event::Batch(_) | Event::Pool(_) | Event::Handler(_) => {}
            }
        }
        self.counters.flush();
    }

    /// Counts the submission of a task of a schedule.
    fn count_run(&mut self, event: &TaskEvent) {
        if let (Some(_), TaskChange::Submitted { spec }) = (&event.options.schedule, &event.change)
            && let Some(scheduled) = spec.extras().scheduled
        {
            self.add_runs(scheduled.kind as usize - 1, 1);
        }
    }

    fn add_runs(&mut self, outcome: usize, count: u64) {
        let make = || self.metrics.instruments().counter(&table::SCHEDULE_RUNS, &[("outcome", RUN_OUTCOMES[outcome])]);
        self.counters.add_many(&mut self.runs[outcome], count, make);
    }

    pub fn refused(&mut self) {
        self.failures.add(1);
    }

    fn series_index(&mut self, options: &Arc<TaskOptions>) -> SeriesIndex {
        if let Some((last, index)) = &self.last
            && Arc::ptr_eq(last, options)
        {
            return *index;
        }
        let (task, namespace) = (self.task_index(options), self.namespace_index(&options.namespace));
        let index = SeriesIndex { task, namespace };
        self.last = Some((options.clone(), index));
        index
    }

    fn task_index(&mut self, options: &TaskOptions) -> usize {
        if let Some(found) = self.by_name.get(&options.pool).and_then(|handlers| handlers.get(&options.handler)) {
            return *found;
        }
        let catalog = self.catalog.load();
        let pool = if catalog.pools.contains_key(&options.pool) { options.pool.as_str() } else { OTHER };
        let known = self.is_named(&catalog, &options.handler);
        let handler = if known { options.handler.as_str() } else { OTHER };
        let same = |series: &TaskSeries| series.pool == pool && series.handler == handler;
        let index = self.series.iter().position(same).unwrap_or_else(|| {
            self.series.push(TaskSeries {
                pool: pool.to_owned(),
                handler: handler.to_owned(),
                ..TaskSeries::default()
            });
            self.series.len() - 1
        });
        if pool != OTHER && known {
            self.by_name.entry(options.pool.clone()).or_default().insert(options.handler.clone(), index);
        }
        index
    }

    /// Whether the handler has series of its own.
    fn is_named(&mut self, catalog: &Catalog, handler: &HandlerName) -> bool {
        let Some(spec) = catalog.handlers.get(handler) else { return false };
        if !spec.is_registered() || self.registered.contains(handler) {
            return true;
        }
        self.registered.len() < REGISTERED_MAX && self.registered.insert(handler.clone())
    }

    fn namespace_index(&mut self, namespace: &Namespace) -> usize {
        if let Some(found) = self.namespaces.get(namespace) {
            return *found;
        }
        if self.namespaces.len() < NAMESPACES_MAX {
            self.namespace_series.push(NamespaceSeries { name: namespace.to_string(), ..NamespaceSeries::default() });
            self.namespaces.insert(namespace.clone(), self.namespace_series.len() - 1);
        } else if self.namespace_series.len() == NAMESPACES_MAX {
            self.namespace_series.push(NamespaceSeries { name: OTHER.to_owned(), ..NamespaceSeries::default() });
        }
        self.namespace_series.len() - 1
    }

    fn count(&mut self, index: SeriesIndex, event: &TaskEvent) {
        let instruments = self.metrics.instruments();
        let TaskSeries { pool, handler, submitted, completed, cancelled, failed, retried } =
            &mut self.series[index.task];
        let NamespaceSeries { name, accepted, ended } = &mut self.namespace_series[index.namespace];
        let counters = &mut self.counters;
        let finished = |result: &str, reason: &str| {
            let labels = [("pool", &**pool), ("handler", handler), ("result", result), (ERROR_TYPE, reason)];
            let given = if reason.is_empty() { &labels[..3] } else { &labels[..] };
            instruments.counter(&table::TASK_FINISHED, given)
        };
        let [namespace_completed, namespace_failed, namespace_cancelled] = ended;
        let of_namespace = |result: &str| {
            let labels = [("namespace", &**name), ("result", result)];
            instruments.counter(&table::NAMESPACE_FINISHED, &labels)
        };
        match &event.change {
            TaskChange::Submitted { .. } => {
                let priority = event.options.priority;
                let labels = [("pool", &**pool), ("handler", handler), ("priority", priority_label(priority))];
                counters.add(&mut submitted[priority.index()], || instruments.counter(&table::TASK_SUBMITTED, &labels));
                let labels = [("namespace", &**name)];
                counters.add(accepted, || instruments.counter(&table::NAMESPACE_SUBMITTED, &labels));
            }
            TaskChange::Completed { .. } => {
                counters.add(completed, || finished("completed", ""));
                counters.add(namespace_completed, || of_namespace("completed"));
            }
            TaskChange::Cancelled { .. } => {
                counters.add(cancelled, || finished("cancelled", ""));
                counters.add(namespace_cancelled, || of_namespace("cancelled"));
            }
            TaskChange::Failed { failure, .. } => {
                let reason = failure.reason;
                counters.add(&mut failed[reason as usize % REASONS], || finished("failed", reason.name()));
                counters.add(namespace_failed, || of_namespace("failed"));
            }
            TaskChange::Retrying { failure, .. } => {
                let labels = [("pool", &**pool), ("handler", handler), (ERROR_TYPE, failure.reason.name())];
                let index = &mut retried[failure.reason as usize % REASONS];
                counters.add(index, || instruments.counter(&table::TASK_RETRIED, &labels));
            }
            _ => {}
        }
    }
}

fn is_counted(change: &TaskChange) -> bool {
    !matches!(
        change,
        TaskChange::Updated { .. }
            | TaskChange::Eligible
            | TaskChange::Held
            | TaskChange::Started { .. }
            | TaskChange::Interrupted { .. }
            | TaskChange::CancelRequested { .. }
            | TaskChange::Deleted
    )
}
