//! Instruments made from rows of the table.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{self as sdk, AsyncInstrument, BoundCounter, BoundHistogram, Meter};
use parking_lot::Mutex;

use crate::telemetry::export::settings::ExemplarFilter;

use super::exemplar::{Exemplars, Known, SampledSpan};
use super::table::{Kind, Row};

/// Makes each instrument once for each provider, and its series when they are first needed.
pub(super) struct Instruments {
    buckets: Side,
    /// For those who want exponential histograms, if anybody does.
    exponential: Option<Side>,
    exemplars: Known,
    asked: Arc<Mutex<Vec<Weak<dyn Untold>>>>,
}

/// The instruments of one provider.
struct Side {
    meter: Meter,
    counters: Mutex<HashMap<&'static str, sdk::Counter<u64>>>,
    histograms: Mutex<HashMap<&'static str, sdk::Histogram<f64>>>,
}

/// Somebody who has measured more than the SDK knows.
pub(super) trait Untold: Send + Sync {
    /// Tells the SDK. Must not make series: it is called while the SDK collects.
    fn tell(&self);
}

/// Keys and values of a series.
pub(super) type Labels<'a> = [(&'static str, &'a str)];

impl Instruments {
    pub fn new(buckets: Meter, exponential: Option<Meter>, filter: ExemplarFilter) -> Self {
        let (buckets, exponential) = (Side::new(buckets), exponential.map(Side::new));
        let asked: Arc<Mutex<Vec<Weak<dyn Untold>>>> = Arc::default();
        // Whoever collects asks first: what is told reaches both sides.
        for side in [&buckets].into_iter().chain(&exponential) {
            let ask = asked.clone();
            // A gauge without a value is never shown; it is there to be called first of all at each collection.
            let _registered = side
                .meter
                .f64_observable_gauge("lineshaft.untold")
                .with_callback(move |_| {
                    ask.lock().retain(|untold| {
                        untold.upgrade().is_some_and(|untold| {
                            untold.tell();
                            true
                        })
                    });
                })
                .build();
        }
        Self { buckets, exponential, exemplars: Known::new(filter), asked }
    }

    /// Who is asked to tell what is untold before each collection, as long as there is somebody.
    pub fn ask_before_collecting(&self, untold: Weak<dyn Untold>) {
        self.asked.lock().push(untold);
    }

    pub fn exemplars(&self) -> &Known {
        &self.exemplars
    }

    /// One series of a counter.
    pub fn counter(&self, row: &'static Row, labels: &Labels<'_>) -> Counter {
        let attributes = attributes(row, labels);
        let exponential = self.exponential.as_ref().map(|side| side.counter(row, &attributes));
        Counter { counter: self.buckets.counter(row, &attributes), exponential }
    }

    /// One series of a histogram.
    pub fn distribution(&self, row: &'static Row, labels: &Labels<'_>) -> Distribution {
        let Kind::Histogram(bounds) = row.kind else { unreachable!("{} is no histogram", row.name) };
        let attributes = attributes(row, labels);
        Distribution {
            buckets: self.buckets.histogram(row, bounds, &attributes),
            exponential: self.exponential.as_ref().map(|side| side.histogram(row, bounds, &attributes)),
            exemplars: self.exemplars.of_series(row.name, bounds, &attributes),
        }
    }

    /// A metric that is read when somebody looks; `read` tells it value and labels of each series.
    /// It must neither panic nor wait.
    pub fn observe(&self, row: &'static Row, read: impl Fn(&mut Observed<'_>) + Send + Sync + 'static) {
        let read: Arc<Read> = Arc::new(read);
        self.buckets.observe(row, read.clone());
        if let Some(side) = &self.exponential {
            side.observe(row, read);
        }
    }
}

type Read = dyn Fn(&mut Observed<'_>) + Send + Sync;

impl Side {
    fn new(meter: Meter) -> Self {
        Self { meter, counters: Mutex::default(), histograms: Mutex::default() }
    }

    fn counter(&self, row: &'static Row, attributes: &[KeyValue]) -> BoundCounter<u64> {
        let make = || self.meter.u64_counter(row.name).with_description(row.help).with_unit(row.unit).build();
        self.counters.lock().entry(row.name).or_insert_with(make).bind(attributes)
    }

    fn histogram(&self, row: &'static Row, bounds: &[f64], attributes: &[KeyValue]) -> BoundHistogram<f64> {
        let make = || {
            let builder = self.meter.f64_histogram(row.name).with_description(row.help).with_unit(row.unit);
            builder.with_boundaries(bounds.to_vec()).build()
        };
        self.histograms.lock().entry(row.name).or_insert_with(make).bind(attributes)
    }

    fn observe(&self, row: &'static Row, read: Arc<Read>) {
        let callback = move |observer: &dyn AsyncInstrument<f64>| read(&mut Observed { row, observer });
        let (name, help, unit) = (row.name, row.help, row.unit);
        let meter = &self.meter;
        // What is returned is only a marker: the callback is registered.
        match row.kind {
            Kind::Counter => {
                let builder = meter.f64_observable_counter(name).with_description(help).with_unit(unit);
                let _registered = builder.with_callback(callback).build();
            }
            Kind::UpDownCounter => {
                let builder = meter.f64_observable_up_down_counter(name).with_description(help).with_unit(unit);
                let _registered = builder.with_callback(callback).build();
            }
            Kind::Gauge => {
                let builder = meter.f64_observable_gauge(name).with_description(help).with_unit(unit);
                let _registered = builder.with_callback(callback).build();
            }
            Kind::Histogram(_) => unreachable!("{name} is a histogram, which is not observed"),
        }
    }
}

fn attributes(row: &Row, labels: &Labels<'_>) -> Vec<KeyValue> {
    debug_assert!(labels.iter().all(|(key, _)| row.attributes.contains(key)), "{} has other attributes", row.name);
    labels.iter().map(|(key, value)| KeyValue::new(*key, (*value).to_owned())).collect()
}

/// Where a reading is told to.
pub(super) struct Observed<'a> {
    row: &'static Row,
    observer: &'a dyn AsyncInstrument<f64>,
}

impl Observed<'_> {
    pub fn tell(&mut self, value: f64, labels: &Labels<'_>) {
        self.observer.observe(value, &attributes(self.row, labels));
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no count here reaches")]
    pub fn count(&mut self, value: u64, labels: &Labels<'_>) {
        self.tell(value as f64, labels);
    }
}

/// One series of a counter: adding to it is one atomic operation for each side.
pub(super) struct Counter {
    counter: BoundCounter<u64>,
    exponential: Option<BoundCounter<u64>>,
}

impl Counter {
    pub fn add(&self, amount: u64) {
        self.counter.add(amount);
        if let Some(counter) = &self.exponential {
            counter.add(amount);
        }
    }
}

/// One series of a histogram, and its exemplars.
pub(super) struct Distribution {
    buckets: BoundHistogram<f64>,
    exponential: Option<BoundHistogram<f64>>,
    exemplars: Option<Arc<Exemplars>>,
}

impl Distribution {
    /// Adds what was measured; the exemplar is another matter, see [`Distribution::remember`].
    pub fn record(&self, span: Duration) {
        self.tell(span.as_secs_f64());
    }

    /// Offers what is recorded now or soon as an exemplar; `trace` is asked when there are any.
    pub fn remember(&self, span: Duration, trace: impl FnOnce() -> Option<SampledSpan>) {
        if let Some(exemplars) = &self.exemplars {
            exemplars.offer(span.as_secs_f64(), trace());
        }
    }

    /// Adds an amount that nobody traces.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no count here reaches")]
    pub fn count(&self, amount: usize) {
        self.tell(amount as f64);
        if let Some(exemplars) = &self.exemplars {
            exemplars.offer(amount as f64, None);
        }
    }

    fn tell(&self, value: f64) {
        self.buckets.record(value);
        if let Some(histogram) = &self.exponential {
            histogram.record(value);
        }
    }
}
