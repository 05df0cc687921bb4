//! What becomes of attempts, counted by the worker that runs them.
//!
//! Handlers that are not registered count as `other`. A worker notes in its own ring; see `ring`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::model::{Catalog, FailureReason, HandlerName, PoolName, Priority};

use super::exemplar::SampledSpan;
use super::instruments::{Counter, Distribution, Untold};
use super::ring::{Note, Pen, Ring};
use super::tasks::{OTHER, REASONS, label};
use super::{Metrics, table};

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

/// Completed, failed, cancelled, interrupted.
const RESULTS: usize = 4;
/// The results, of which failures are told apart by their reason.
const ENDS: usize = RESULTS + REASONS;
/// Series of a ring's notes: first the waits by priority, then the ends of each handler.
const FIRST_END: usize = Priority::COUNT;

impl AttemptResult {
    fn place(self) -> usize {
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
            _ => self.place(),
        }
    }

    fn label(self) -> &'static str {
        ["completed", "failed", "cancelled", "interrupted"][self.place()]
    }
}

/// The series of one pool.
pub struct PoolMeter {
    series: Option<Arc<PoolSeries>>,
}

struct PoolSeries {
    metrics: Metrics,
    pool: String,
    waits: [OnceLock<Distribution>; Priority::COUNT],
    handlers: HashMap<HandlerName, usize>,
    /// The last one is that of all other handlers.
    ends: Vec<HandlerSeries>,
    rings: Mutex<Vec<Arc<Ring>>>,
}

struct HandlerSeries {
    handler: String,
    /// By [`AttemptResult::end`].
    ends: [OnceLock<EndSeries>; ENDS],
    /// By [`AttemptResult::place`].
    durations: [OnceLock<Arc<Distribution>>; RESULTS],
}

struct EndSeries {
    duration: Arc<Distribution>,
    count: Counter,
}

impl PoolMeter {
    /// A meter for a pool that knows the registered handlers.
    pub fn new(metrics: &Metrics, pool: &PoolName, catalog: &Catalog) -> Self {
        if !metrics.is_on() {
            return Self { series: None };
        }
        let names = catalog.handlers.keys().map(HandlerName::as_str).chain([OTHER]);
        let series = Arc::new(PoolSeries {
            metrics: metrics.clone(),
            pool: pool.to_string(),
            waits: Default::default(),
            handlers: catalog.handlers.keys().cloned().zip(0..).collect(),
            ends: names.map(HandlerSeries::new).collect(),
            rings: Mutex::default(),
        });
        let untold: Arc<dyn Untold> = series.clone();
        metrics.instruments().ask_before_collecting(Arc::downgrade(&untold));
        Self { series: Some(series) }
    }

    /// For one worker.
    pub fn worker(&self) -> AttemptMeter {
        let Some(series) = &self.series else { return AttemptMeter(None) };
        let pen = Pen::new();
        series.rings.lock().push(pen.ring().clone());
        AttemptMeter(Some(Counting { series: series.clone(), pen, last: None }))
    }
}

impl PoolSeries {
    fn wait(&self, priority: Priority) -> &Distribution {
        let labels = [("pool", &*self.pool), ("priority", label(priority))];
        self.waits[priority.index()].get_or_init(|| self.metrics.instruments().distribution(&table::TASK_WAIT, &labels))
    }

    fn end(&self, handler: usize, result: AttemptResult) -> &EndSeries {
        let HandlerSeries { handler, ends, durations } = &self.ends[handler];
        ends[result.end()].get_or_init(|| {
            let instruments = self.metrics.instruments();
            let mut labels = vec![("pool", &*self.pool), ("handler", &**handler), ("result", result.label())];
            let make = || Arc::new(instruments.distribution(&table::TASK_DURATION, &labels));
            let duration = durations[result.place()].get_or_init(make).clone();
            if let AttemptResult::Failed(reason) = result {
                labels.push(("error.type", reason.name()));
            }
            EndSeries { duration, count: instruments.counter(&table::TASK_ATTEMPTS, &labels) }
        })
    }

    /// Hands notes on to the SDK. Makes no series: it is called while the SDK collects.
    fn hand_on(&self, notes: &mut dyn Iterator<Item = Note>) {
        // Equal ends in a row are added at once.
        let mut row: Option<(&EndSeries, u64)> = None;
        for Note { series, value } in notes {
            let value = Duration::from_nanos(value);
            if series < FIRST_END {
                self.waits[series].get().into_iter().for_each(|waits| waits.record(value));
                continue;
            }
            let (handler, end) = ((series - FIRST_END) / ENDS, (series - FIRST_END) % ENDS);
            let Some(end) = self.ends[handler].ends[end].get() else { continue };
            end.duration.record(value);
            match &mut row {
                Some((same, times)) if std::ptr::eq(*same, end) => *times += 1,
                _ => {
                    if let Some((before, times)) = row.replace((end, 1)) {
                        before.count.add(times);
                    }
                }
            }
        }
        if let Some((last, times)) = row {
            last.count.add(times);
        }
    }
}

impl Untold for PoolSeries {
    fn tell(&self) {
        for ring in &*self.rings.lock() {
            ring.tell(|notes| self.hand_on(notes));
        }
    }
}

impl HandlerSeries {
    fn new(handler: &str) -> Self {
        Self { handler: handler.to_owned(), ends: Default::default(), durations: Default::default() }
    }
}

/// Counts the attempts of one worker; waits for nobody.
pub struct AttemptMeter(Option<Counting>);

struct Counting {
    series: Arc<PoolSeries>,
    pen: Pen,
    /// Place of the handler before: most attempts of a worker are alike.
    last: Option<(HandlerName, usize)>,
}

impl AttemptMeter {
    /// An attempt has begun, so long after it could have. `trace` is asked when an exemplar may name it.
    pub fn started(&mut self, priority: Priority, waited: Duration, trace: impl FnOnce() -> Option<SampledSpan>) {
        let Some(counting) = &mut self.0 else { return };
        counting.series.wait(priority).remember(waited, trace);
        counting.note(priority.index(), waited);
    }

    /// An attempt has ended. `trace` is asked when an exemplar may name it.
    pub fn ended(
        &mut self,
        handler: &HandlerName,
        result: AttemptResult,
        ran: Duration,
        trace: impl FnOnce() -> Option<SampledSpan>,
    ) {
        let Some(counting) = &mut self.0 else { return };
        let handler = counting.place_of(handler);
        counting.series.end(handler, result).duration.remember(ran, trace);
        counting.note(FIRST_END + handler * ENDS + result.end(), ran);
    }
}

impl Counting {
    fn note(&mut self, series: usize, value: Duration) {
        let value = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.pen.note(Note { series, value }, |notes| self.series.hand_on(notes));
    }

    fn place_of(&mut self, handler: &HandlerName) -> usize {
        if let Some((last, place)) = &self.last
            && last == handler
        {
            return *place;
        }
        let other = self.series.ends.len() - 1;
        let Some(place) = self.series.handlers.get(handler).copied() else { return other };
        self.last = Some((handler.clone(), place));
        place
    }
}

impl Drop for Counting {
    /// The worker leaves; what it noted stays.
    fn drop(&mut self) {
        let ring = self.pen.ring();
        let mut rings = self.series.rings.lock();
        ring.tell(|notes| self.series.hand_on(notes));
        rings.retain(|other| !Arc::ptr_eq(other, ring));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::metrics::ManualReader;
    use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics, ScopeMetrics};
    use opentelemetry_sdk::metrics::reader::MetricReader;

    use super::super::exposition::Format;
    use super::super::{Builder, Histograms, Shown};
    use super::*;

    #[test]
    fn what_many_workers_count_is_complete_at_every_look_and_when_they_have_left() {
        const WORKERS: u32 = 8;
        const ATTEMPTS: u32 = 2_000;
        let reader = Arc::new(ManualReader::builder().build());
        let builder = Builder::new(opentelemetry_sdk::Resource::builder_empty().build());
        let metrics = builder.reader(Shown(reader.clone()), Histograms::Exponential).build();
        let meter = PoolMeter::new(&metrics, &PoolName::parse("p").unwrap(), &Catalog::default());
        let handler = HandlerName::parse("h").unwrap();
        let text = || metrics.expose(Format::Prometheus).unwrap();
        let count = |text: &str, name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        let exponential = || -> u64 {
            let mut found = ResourceMetrics::default();
            reader.collect(&mut found).unwrap();
            let mut metrics = found.scope_metrics().flat_map(ScopeMetrics::metrics);
            match metrics.find(|metric| metric.name() == table::TASK_WAIT.name).map(Metric::data) {
                Some(AggregatedMetrics::F64(MetricData::ExponentialHistogram(histogram))) => {
                    histogram.data_points().map(|point| point.count() as u64).sum()
                }
                other => other.map_or(0, |_| panic!("another kind")),
            }
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
            // Somebody else looks too, at the other provider.
            scope.spawn(|| {
                let mut before = 0;
                for _ in 0..200 {
                    let seen = exponential();
                    assert!(before <= seen && seen <= all, "{before} and then {seen}");
                    before = seen;
                }
            });
            let mut before = 0;
            while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let seen = count(&text(), "lineshaft_task_wait_duration_seconds_count");
                assert!(before <= seen && seen <= all, "{before} and then {seen}");
                before = seen;
            }
        });
        let text = text();
        assert_eq!(exponential(), all);
        assert_eq!(count(&text, "lineshaft_task_wait_duration_seconds_count"), all);
        let failed = u64::from(WORKERS * ATTEMPTS.div_ceil(3));
        let attempts = r#"lineshaft_task_attempts_total{error_type="PANIC",handler="other",pool="p",result="failed"}"#;
        assert_eq!(count(&text, attempts), failed);
        let attempts = r#"lineshaft_task_attempts_total{handler="other",pool="p",result="completed"}"#;
        assert_eq!(count(&text, attempts), all - failed);
        let sum = r#"lineshaft_task_duration_seconds_count{handler="other",pool="p",result="failed"}"#;
        assert_eq!(count(&text, sum), failed);
        assert!(meter.series.unwrap().rings.lock().is_empty(), "who has left leaves nothing behind");
    }

    #[test]
    fn a_start_is_seen_while_the_attempt_still_runs() {
        let metrics = Builder::new(opentelemetry_sdk::Resource::builder_empty().build()).build();
        let meter = PoolMeter::new(&metrics, &PoolName::parse("p").unwrap(), &Catalog::default());
        let mut worker = meter.worker();
        worker.started(Priority::High, Duration::from_millis(3), || None);
        let text = metrics.expose(Format::Prometheus).unwrap();
        let line = r#"lineshaft_task_wait_duration_seconds_sum{pool="p",priority="high"} 0.003"#;
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}
