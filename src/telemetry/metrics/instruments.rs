//! Instruments made from rows of the table.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{self as sdk, AsyncInstrument, BoundCounter, BoundHistogram, Meter};
use parking_lot::Mutex;

use crate::telemetry::export::settings::ExemplarFilter;

use super::exemplar::{ExemplarStore, Exemplars, SampledSpan};
use super::table::{Kind, Row};

/// Makes each instrument once for each provider, and its series when they are first needed.
pub(super) struct Instruments {
    buckets: ProviderInstruments,
    /// For readers of exponential histograms, if there are any.
    exponential: Option<ProviderInstruments>,
    exemplars: ExemplarStore,
    buffers: Arc<Mutex<Vec<Weak<dyn Buffered>>>>,
}

struct ProviderInstruments {
    meter: Meter,
    counters: Mutex<HashMap<&'static str, sdk::Counter<u64>>>,
    histograms: Mutex<HashMap<&'static str, sdk::Histogram<f64>>>,
}

/// Holds measurements that have not been passed to the SDK yet.
pub(super) trait Buffered: Send + Sync {
    /// Passes them to the SDK. Must not make series: it runs while the SDK collects.
    fn flush(&self);
}

pub(super) type Labels<'a> = [(&'static str, &'a str)];

impl Instruments {
    pub fn new(buckets: Meter, exponential: Option<Meter>, filter: ExemplarFilter) -> Self {
        let (buckets, exponential) = (ProviderInstruments::new(buckets), exponential.map(ProviderInstruments::new));
        let buffers: Arc<Mutex<Vec<Weak<dyn Buffered>>>> = Arc::default();
        for provider in [&buckets].into_iter().chain(&exponential) {
            let buffers = buffers.clone();
            // The SDK calls this gauge first at each collection. It has no value, so it is never exported.
            let _registered = provider
                .meter
                .f64_observable_gauge("lineshaft.buffered")
                .with_callback(move |_| {
                    buffers.lock().retain(|buffer| {
                        let Some(buffer) = buffer.upgrade() else { return false };
                        buffer.flush();
                        true
                    });
                })
                .build();
        }
        Self { buckets, exponential, exemplars: ExemplarStore::new(filter), buffers }
    }

    /// Flushes `buffer` before each collection until it is dropped.
    pub fn flush_before_collection(&self, buffer: Weak<dyn Buffered>) {
        self.buffers.lock().push(buffer);
    }

    pub fn exemplars(&self) -> &ExemplarStore {
        &self.exemplars
    }

    pub fn counter(&self, row: &'static Row, labels: &Labels<'_>) -> CounterSeries {
        let attributes = attributes(row, labels);
        let exponential = self.exponential.as_ref().map(|provider| provider.counter(row, &attributes));
        CounterSeries { counter: self.buckets.counter(row, &attributes), exponential }
    }

    pub fn histogram(&self, row: &'static Row, labels: &Labels<'_>) -> HistogramSeries {
        let Kind::Histogram(bounds) = row.kind else { unreachable!("{} is no histogram", row.name) };
        let attributes = attributes(row, labels);
        HistogramSeries {
            buckets: self.buckets.histogram(row, bounds, &attributes),
            exponential: self.exponential.as_ref().map(|provider| provider.histogram(row, bounds, &attributes)),
            exemplars: self.exemplars.of_series(row.name, bounds, &attributes),
        }
    }

    /// A metric that is read at collection; `read` records the value of each series. It must neither panic nor wait.
    pub fn observe(&self, row: &'static Row, read: impl Fn(&mut Observation<'_>) + Send + Sync + 'static) {
        let read: Arc<Read> = Arc::new(read);
        self.buckets.observe(row, read.clone());
        if let Some(provider) = &self.exponential {
            provider.observe(row, read);
        }
    }
}

type Read = dyn Fn(&mut Observation<'_>) + Send + Sync;

impl ProviderInstruments {
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
        let callback = move |observer: &dyn AsyncInstrument<f64>| read(&mut Observation { row, observer });
        let (meter, name, help, unit) = (&self.meter, row.name, row.help, row.unit);
        // The built instruments are only markers: the callback is registered.
        macro_rules! register {
            ($builder:expr) => {
                drop($builder.with_description(help).with_unit(unit).with_callback(callback).build())
            };
        }
        match row.kind {
            Kind::Counter => register!(meter.f64_observable_counter(name)),
            Kind::UpDownCounter => register!(meter.f64_observable_up_down_counter(name)),
            Kind::Gauge => register!(meter.f64_observable_gauge(name)),
            Kind::Histogram(_) => unreachable!("{name} is a histogram, which cannot be observed"),
        }
    }
}

fn attributes(row: &Row, labels: &Labels<'_>) -> Vec<KeyValue> {
    debug_assert!(labels.iter().all(|(key, _)| row.attributes.contains(key)), "{} has other attributes", row.name);
    labels.iter().map(|(key, value)| KeyValue::new(*key, (*value).to_owned())).collect()
}

/// Takes the values of one metric during a collection.
pub(super) struct Observation<'a> {
    row: &'static Row,
    observer: &'a dyn AsyncInstrument<f64>,
}

impl Observation<'_> {
    pub fn record(&mut self, value: f64, labels: &Labels<'_>) {
        self.observer.observe(value, &attributes(self.row, labels));
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no count here reaches")]
    pub fn count(&mut self, value: u64, labels: &Labels<'_>) {
        self.record(value as f64, labels);
    }
}

/// One series of a counter: adding is one atomic operation for each provider.
pub(super) struct CounterSeries {
    counter: BoundCounter<u64>,
    exponential: Option<BoundCounter<u64>>,
}

impl CounterSeries {
    pub fn add(&self, amount: u64) {
        self.counter.add(amount);
        if let Some(counter) = &self.exponential {
            counter.add(amount);
        }
    }
}

/// One series of a histogram, and its exemplars.
pub(super) struct HistogramSeries {
    buckets: BoundHistogram<f64>,
    exponential: Option<BoundHistogram<f64>>,
    exemplars: Option<Arc<Exemplars>>,
}

impl HistogramSeries {
    pub fn record(&self, duration: Duration) {
        self.add(duration.as_secs_f64());
    }

    /// Offers a measurement, recorded now or later, as an exemplar. `span` is called only if exemplars are kept.
    pub fn offer_exemplar(&self, duration: Duration, span: impl FnOnce() -> Option<SampledSpan>) {
        if let Some(exemplars) = &self.exemplars {
            exemplars.offer(duration.as_secs_f64(), span());
        }
    }

    /// Adds a number of things, with an exemplar that has no span.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no count here reaches")]
    pub fn record_count(&self, amount: usize) {
        self.add(amount as f64);
        if let Some(exemplars) = &self.exemplars {
            exemplars.offer(amount as f64, None);
        }
    }

    fn add(&self, value: f64) {
        self.buckets.record(value);
        if let Some(histogram) = &self.exponential {
            histogram.record(value);
        }
    }
}
