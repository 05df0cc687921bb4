//! Exemplars: link a bucket of a histogram to a trace.
//!
//! The SDK keeps none. Here every bucket of a series keeps the last measurement that passed the filter, usually that
//! of a sampled trace. Writing never waits: of two simultaneous measurements one is kept.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use opentelemetry::KeyValue;
use parking_lot::Mutex;

use crate::model::{Clock, SystemClock, Timestamp};
use crate::telemetry::export::settings::ExemplarFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledSpan {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl SampledSpan {
    /// `None` if an id is zero or the sampled flag is not set.
    pub fn sampled(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        let valid = trace_id != 0 && span_id != 0 && flags & 1 == 1;
        valid.then(|| Self { trace_id: trace_id.to_be_bytes(), span_id: span_id.to_be_bytes() })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub span: Option<SampledSpan>,
    pub value: f64,
    pub at: Timestamp,
}

/// The exemplars of one series, one for each bucket.
#[derive(Debug)]
pub(super) struct Exemplars {
    bounds: &'static [f64],
    /// Also keeps measurements outside of traces.
    untraced: bool,
    buckets: Box<[Mutex<Option<Exemplar>>]>,
}

impl Exemplars {
    fn new(bounds: &'static [f64], untraced: bool) -> Self {
        Self { bounds, untraced, buckets: (0..=bounds.len()).map(|_| Mutex::default()).collect() }
    }

    pub fn offer(&self, value: f64, span: Option<SampledSpan>) {
        if span.is_none() && !self.untraced {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(mut kept) = self.buckets.get(bucket).and_then(Mutex::try_lock) {
            *kept = Some(Exemplar { span, value, at: SystemClock.now() });
        }
    }

    pub fn of_bucket(&self, bucket: usize) -> Option<Exemplar> {
        *self.buckets.get(bucket)?.lock()
    }
}

/// Name of a metric and the attributes of a series, sorted by key.
type SeriesKey = (&'static str, Vec<(String, String)>);

#[derive(Debug)]
pub(super) struct ExemplarStore {
    filter: ExemplarFilter,
    series: Mutex<HashMap<SeriesKey, Arc<Exemplars>>>,
}

impl ExemplarStore {
    pub fn new(filter: ExemplarFilter) -> Self {
        Self { filter, series: Mutex::default() }
    }

    pub fn is_on(&self) -> bool {
        self.filter != ExemplarFilter::AlwaysOff
    }

    /// Makes the exemplars of a series if necessary; `None` if exemplars are off.
    pub fn of_series(
        &self,
        name: &'static str,
        bounds: &'static [f64],
        attributes: &[KeyValue],
    ) -> Option<Arc<Exemplars>> {
        let make = || Arc::new(Exemplars::new(bounds, self.filter == ExemplarFilter::AlwaysOn));
        let key = || (name, key_of(attributes.iter()));
        self.is_on().then(|| self.series.lock().entry(key()).or_insert_with(make).clone())
    }

    pub fn find<'a>(
        &self,
        name: &'static str,
        attributes: impl Iterator<Item = &'a KeyValue>,
    ) -> Option<Arc<Exemplars>> {
        self.series.lock().get(&(name, key_of(attributes))).cloned()
    }
}

fn key_of<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> Vec<(String, String)> {
    let mut key: Vec<_> = attributes.map(|kv| (kv.key.to_string(), kv.value.to_string())).collect();
    key.sort_unstable();
    key
}

/// Seconds since 1970, as Prometheus expects them.
pub(super) fn unix_seconds(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).max(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: SampledSpan = SampledSpan { trace_id: [7; 16], span_id: [9; 8] };

    #[test]
    fn each_bucket_keeps_its_last_traced_measurement() {
        let exemplars = Exemplars::new(&[0.1, 1.0], false);
        exemplars.offer(0.1, Some(SPAN));
        exemplars.offer(5.0, Some(SPAN));
        exemplars.offer(6.0, Some(SPAN));
        exemplars.offer(7.0, None);
        assert!(exemplars.of_bucket(0).is_some(), "the bound belongs to its bucket");
        assert!(exemplars.of_bucket(1).is_none());
        let value = exemplars.of_bucket(2).unwrap().value;
        assert!(value > 5.5 && value < 6.5, "the last traced one, and not {value}");
        assert!(unix_seconds(exemplars.of_bucket(2).unwrap().at) > 1.7e9);
    }

    #[test]
    fn the_filter_decides_which_measurements_are_kept() {
        let of = |filter| ExemplarStore::new(filter).of_series("m", &[1.0], &[]);
        assert!(of(ExemplarFilter::AlwaysOff).is_none());
        for (filter, kept) in [(ExemplarFilter::TraceBased, false), (ExemplarFilter::AlwaysOn, true)] {
            let exemplars = of(filter).unwrap();
            exemplars.offer(0.5, None);
            assert_eq!(exemplars.of_bucket(0).is_some(), kept, "{filter:?}");
            exemplars.offer(0.5, Some(SPAN));
            assert_eq!(exemplars.of_bucket(0).and_then(|exemplar| exemplar.span), Some(SPAN), "{filter:?}");
        }
    }

    #[test]
    fn only_sampled_spans_are_linked() {
        assert_eq!(SampledSpan::sampled(7, 9, 1).map(|span| (span.trace_id[15], span.span_id[7])), Some((7, 9)));
        for (trace, span, flags) in [(7, 9, 0), (0, 9, 1), (7, 0, 1)] {
            assert_eq!(SampledSpan::sampled(trace, span, flags), None);
        }
    }
}
