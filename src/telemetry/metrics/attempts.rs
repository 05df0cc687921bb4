//! Attempts, measured by the worker that runs them.
//!
//! Handlers that are not known count as `other`, and so do registered handlers after the first [`REGISTERED_MAX`] that
//! run. A worker writes to a ring of its own; see `ring`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use opentelemetry_semantic_conventions::attribute::ERROR_TYPE;
use parking_lot::Mutex;

use crate::model::{FailureReason, HandlerName, PoolName, Priority, SharedCatalog};

use super::exemplar::SampledSpan;
use super::instruments::{Buffered, CounterSeries, HistogramSeries};
use super::registry::Metrics;
use super::ring::{Measurement, Ring, RingWriter};
use super::table;
use super::tasks::{OTHER, REASONS, REGISTERED_MAX, priority_label};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    Completed,
    Failed(FailureReason),
    Cancelled,
    /// Stopped without being counted as an attempt.
    Interrupted,
}

/// Completed, failed, cancelled, interrupted.
const RESULTS: usize = 4;
/// The results, with failures by reason.
const ENDS: usize = RESULTS + REASONS;
/// Series numbers in a ring: first the waits by priority, then the ends of each handler.
const FIRST_END: usize = Priority::COUNT;

impl AttemptResult {
    fn index(self) -> usize {
        match self {
            Self::Completed => 0,
            Self::Failed(_) => 1,
            Self::Cancelled => 2,
            Self::Interrupted => 3,
        }
    }

    fn end(self) -> usize {
        match self {
            Self::Failed(reason) => RESULTS + reason as usize % REASONS,
            _ => self.index(),
        }
    }

    fn label(self) -> &'static str {
        ["completed", "failed", "cancelled", "interrupted"][self.index()]
    }
}

pub struct PoolMeter {
    series: Option<Arc<PoolSeries>>,
}

struct PoolSeries {
    metrics: Metrics,
    pool: String,
    waits: [OnceLock<HistogramSeries>; Priority::COUNT],
    /// Indexes in `ends` of the handlers that were known at the start.
    handlers: HashMap<HandlerName, usize>,
    /// Indexes of handlers that workers or a reload have registered, and that were used later.
    registered: Mutex<HashMap<HandlerName, usize>>,
    catalog: SharedCatalog,
    /// The first one is that of all other handlers. Those without a name are free.
    ends: Vec<HandlerSeries>,
    rings: Mutex<Vec<Arc<Ring>>>,
}

/// Index of [`PoolSeries::ends`].
const OTHERS: usize = 0;

#[derive(Default)]
struct HandlerSeries {
    handler: OnceLock<String>,
    /// By [`AttemptResult::end`].
    ends: [OnceLock<EndSeries>; ENDS],
    /// By [`AttemptResult::index`].
    durations: [OnceLock<Arc<HistogramSeries>>; RESULTS],
}

struct EndSeries {
    duration: Arc<HistogramSeries>,
    count: CounterSeries,
}

impl PoolMeter {
    pub fn new(metrics: &Metrics, pool: &PoolName, catalog: &SharedCatalog) -> Self {
        if !metrics.is_on() {
            return Self { series: None };
        }
        // So that a rate shows the first one as well.
        metrics.instruments().counter(&table::POOL_UNAVAILABLE, &[("pool", pool.as_str())]).add(0);
        let at_start = catalog.load();
        let configured: Vec<_> =
            at_start.handlers.values().filter(|spec| !spec.is_registered()).map(|spec| spec.name.clone()).collect();
        let names = [OTHER].into_iter().chain(configured.iter().map(HandlerName::as_str));
        let mut ends: Vec<_> = names.map(HandlerSeries::named).collect();
        ends.resize_with(ends.len() + REGISTERED_MAX, HandlerSeries::default);
        let series = Arc::new(PoolSeries {
            metrics: metrics.clone(),
            pool: pool.to_string(),
            waits: Default::default(),
            handlers: configured.into_iter().zip(OTHERS + 1..).collect(),
            registered: Mutex::default(),
            catalog: catalog.clone(),
            ends,
            rings: Mutex::default(),
        });
        let buffered: Arc<dyn Buffered> = series.clone();
        metrics.instruments().flush_before_collection(Arc::downgrade(&buffered));
        Self { series: Some(series) }
    }

    /// The server lacked a resource to start an attempt.
    pub fn unavailable(&self) {
        if let Some(PoolSeries { metrics, pool, .. }) = self.series.as_deref() {
            metrics.instruments().counter(&table::POOL_UNAVAILABLE, &[("pool", pool)]).add(1);
        }
    }

    pub fn worker(&self) -> AttemptMeter {
        let Some(series) = &self.series else { return AttemptMeter(None) };
        let writer = RingWriter::new();
        series.rings.lock().push(writer.ring().clone());
        AttemptMeter(Some(WorkerSeries { series: series.clone(), writer, last: None, registered: HashMap::new() }))
    }
}

impl HandlerSeries {
    fn named(name: &str) -> Self {
        Self { handler: OnceLock::from(name.to_owned()), ..Self::default() }
    }
}

impl PoolSeries {
    /// Index of the series of a registered handler. Waits for a lock; the index does not change unless it is [`OTHERS`].
    fn registered_index(&self, handler: &HandlerName) -> usize {
        if !self.catalog.load().handlers.contains_key(handler) {
            return OTHERS;
        }
        let mut registered = self.registered.lock();
        if let Some(index) = registered.get(handler) {
            return *index;
        }
        let free = OTHERS + 1 + self.handlers.len() + registered.len();
        let Some(series) = self.ends.get(free) else { return OTHERS };
        series.handler.get_or_init(|| handler.to_string());
        registered.insert(handler.clone(), free);
        free
    }

    fn wait(&self, priority: Priority) -> &HistogramSeries {
        let labels = [("pool", &*self.pool), ("priority", priority_label(priority))];
        self.waits[priority.index()].get_or_init(|| self.metrics.instruments().histogram(&table::TASK_WAIT, &labels))
    }

    fn end(&self, handler: usize, result: AttemptResult) -> &EndSeries {
        let HandlerSeries { handler, ends, durations } = &self.ends[handler];
        let handler = handler.get().map_or(OTHER, String::as_str);
        ends[result.end()].get_or_init(|| {
            let instruments = self.metrics.instruments();
            let mut labels = vec![("pool", &*self.pool), ("handler", handler), ("result", result.label())];
            let make = || Arc::new(instruments.histogram(&table::TASK_DURATION, &labels));
            let duration = durations[result.index()].get_or_init(make).clone();
            if let AttemptResult::Failed(reason) = result {
                labels.push((ERROR_TYPE, reason.name()));
            }
            EndSeries { duration, count: instruments.counter(&table::TASK_ATTEMPTS, &labels) }
        })
    }

    /// Passes measurements to the SDK. Makes no series: it runs while the SDK collects.
    fn forward(&self, measurements: &mut dyn Iterator<Item = Measurement>) {
        // Equal ends in a row are added at once.
        let mut run: Option<(&EndSeries, u64)> = None;
        for Measurement { series, value } in measurements {
            let value = Duration::from_nanos(value);
            if series < FIRST_END {
                self.waits[series].get().into_iter().for_each(|waits| waits.record(value));
                continue;
            }
            let (handler, end) = ((series - FIRST_END) / ENDS, (series - FIRST_END) % ENDS);
            let Some(end) = self.ends[handler].ends[end].get() else { continue };
            end.duration.record(value);
            match &mut run {
                Some((same, times)) if std::ptr::eq(*same, end) => *times += 1,
                _ => {
                    if let Some((before, times)) = run.replace((end, 1)) {
                        before.count.add(times);
                    }
                }
            }
        }
        if let Some((last, times)) = run {
            last.count.add(times);
        }
    }
}

impl Buffered for PoolSeries {
    fn flush(&self) {
        for ring in &*self.rings.lock() {
            ring.drain(|measurements| self.forward(measurements));
        }
    }
}

/// Measures the attempts of one worker; never waits.
pub struct AttemptMeter(Option<WorkerSeries>);

struct WorkerSeries {
    series: Arc<PoolSeries>,
    writer: RingWriter,
    /// Index of the previous handler: most attempts of a worker have the same one.
    last: Option<(HandlerName, usize)>,
    /// The part of [`PoolSeries::registered`] that this worker has used.
    registered: HashMap<HandlerName, usize>,
}

impl AttemptMeter {
    /// An attempt has begun. `span` is called only if exemplars are kept.
    pub fn started(&mut self, priority: Priority, waited: Duration, span: impl FnOnce() -> Option<SampledSpan>) {
        let Some(worker) = &mut self.0 else { return };
        worker.series.wait(priority).offer_exemplar(waited, span);
        worker.write(priority.index(), waited);
    }

    /// An attempt has ended. `span` is called only if exemplars are kept.
    pub fn ended(
        &mut self,
        handler: &HandlerName,
        result: AttemptResult,
        ran: Duration,
        span: impl FnOnce() -> Option<SampledSpan>,
    ) {
        let Some(worker) = &mut self.0 else { return };
        let handler = worker.handler_index(handler);
        worker.series.end(handler, result).duration.offer_exemplar(ran, span);
        worker.write(FIRST_END + handler * ENDS + result.end(), ran);
    }
}

impl WorkerSeries {
    fn write(&mut self, series: usize, value: Duration) {
        let value = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.writer.write(Measurement { series, value }, |measurements| self.series.forward(measurements));
    }

    fn handler_index(&mut self, handler: &HandlerName) -> usize {
        if let Some((last, index)) = &self.last
            && last == handler
        {
            return *index;
        }
        let known = self.series.handlers.get(handler).or_else(|| self.registered.get(handler)).copied();
        let index = known.unwrap_or_else(|| {
            let index = self.series.registered_index(handler);
            if index != OTHERS {
                self.registered.insert(handler.clone(), index);
            }
            index
        });
        if index != OTHERS {
            self.last = Some((handler.clone(), index));
        }
        index
    }
}

impl Drop for WorkerSeries {
    /// The worker leaves; its measurements stay.
    fn drop(&mut self) {
        let ring = self.writer.ring();
        let mut rings = self.series.rings.lock();
        ring.drain(|measurements| self.series.forward(measurements));
        rings.retain(|other| !Arc::ptr_eq(other, ring));
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Format;
    use super::super::registry::Builder;
    use super::*;

    #[test]
    fn measurements_of_many_workers_are_complete_at_every_collection_and_after_they_left() {
        const WORKERS: u32 = 8;
        const ATTEMPTS: u32 = 2_000;
        let metrics = Builder::new(opentelemetry_sdk::Resource::builder_empty().build()).build();
        let meter = PoolMeter::new(&metrics, &PoolName::parse("p").unwrap(), &SharedCatalog::default());
        let handler = HandlerName::parse("h").unwrap();
        let text = || metrics.expose(Format::Prometheus).unwrap();
        let count = |text: &str, name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        let all = u64::from(WORKERS * ATTEMPTS);
        std::thread::scope(|scope| {
            let work = |mut worker: AttemptMeter| {
                for number in 0..ATTEMPTS {
                    worker.started(Priority::Normal, Duration::from_millis(1), || None);
                    let failed = AttemptResult::Failed(FailureReason::Panic);
                    let result = if number % 3 == 0 { failed } else { AttemptResult::Completed };
                    worker.ended(&handler, result, Duration::from_millis(2), || None);
                }
            };
            let workers: Vec<_> = (0..WORKERS).map(|_| meter.worker()).collect();
            let workers: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
            let mut before = 0;
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let seen = count(&text(), "lineshaft_task_wait_duration_seconds_count");
                assert!(before <= seen && seen <= all, "{before} and then {seen}");
                before = seen;
            }
        });
        let text = text();
        assert_eq!(count(&text, "lineshaft_task_wait_duration_seconds_count"), all);
        let failed = u64::from(WORKERS * ATTEMPTS.div_ceil(3));
        let attempts = r#"lineshaft_task_attempts_total{error_type="PANIC",handler="other",pool="p",result="failed"}"#;
        assert_eq!(count(&text, attempts), failed);
        let attempts = r#"lineshaft_task_attempts_total{handler="other",pool="p",result="completed"}"#;
        assert_eq!(count(&text, attempts), all - failed);
        let sum = r#"lineshaft_task_duration_seconds_count{handler="other",pool="p",result="failed"}"#;
        assert_eq!(count(&text, sum), failed);
        assert!(meter.series.unwrap().rings.lock().is_empty(), "a ring outlives its worker");
    }

    #[test]
    fn a_start_is_collected_while_the_attempt_still_runs() {
        let metrics = Builder::new(opentelemetry_sdk::Resource::builder_empty().build()).build();
        let meter = PoolMeter::new(&metrics, &PoolName::parse("p").unwrap(), &SharedCatalog::default());
        let mut worker = meter.worker();
        worker.started(Priority::High, Duration::from_millis(3), || None);
        let text = metrics.expose(Format::Prometheus).unwrap();
        let line = r#"lineshaft_task_wait_duration_seconds_sum{pool="p",priority="high"} 0.003"#;
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}
