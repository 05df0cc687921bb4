//! Leads from a bucket of a histogram to a trace that fell into it.
//!
//! The SDK keeps no exemplars. Here every bucket of a series remembers the last measurement that the filter
//! lets through: usually that of a sampled trace. Writing never waits; a measurement that comes at the same
//! moment as another is simply not the one remembered.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use opentelemetry::KeyValue;
use parking_lot::Mutex;

use crate::model::{Clock, SystemClock, Timestamp};
use crate::telemetry::export::settings::ExemplarFilter;

/// A sampled span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledSpan {
    /// As in W3C trace context.
    pub trace_id: [u8; 16],
    /// As in W3C trace context.
    pub span_id: [u8; 8],
}

impl SampledSpan {
    /// A span by its numbers, when they name one that is sampled.
    pub fn sampled(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        let is_one = trace_id != 0 && span_id != 0 && flags & 1 == 1;
        is_one.then(|| Self { trace_id: trace_id.to_be_bytes(), span_id: span_id.to_be_bytes() })
    }
}

/// One remembered value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    /// Of a measurement in a sampled trace.
    pub trace: Option<SampledSpan>,
    pub value: f64,
    pub at: Timestamp,
}

/// The exemplars of one series, a place for each bucket.
#[derive(Debug)]
pub(super) struct Exemplars {
    bounds: &'static [f64],
    /// A measurement needs no trace to be remembered.
    untraced: bool,
    places: Box<[Mutex<Option<Exemplar>>]>,
}

impl Exemplars {
    fn new(bounds: &'static [f64], untraced: bool) -> Self {
        Self { bounds, untraced, places: (0..=bounds.len()).map(|_| Mutex::default()).collect() }
    }

    pub fn offer(&self, value: f64, trace: Option<SampledSpan>) {
        if trace.is_none() && !self.untraced {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(mut place) = self.places.get(bucket).and_then(Mutex::try_lock) {
            *place = Some(Exemplar { trace, value, at: SystemClock.now() });
        }
    }

    pub fn of_bucket(&self, bucket: usize) -> Option<Exemplar> {
        *self.places.get(bucket)?.lock()
    }
}

/// Name of a metric and the attributes of a series, in the order of their keys.
type SeriesKey = (&'static str, Vec<(String, String)>);

/// The exemplars of all series.
#[derive(Debug)]
pub(super) struct Known {
    filter: ExemplarFilter,
    series: Mutex<HashMap<SeriesKey, Arc<Exemplars>>>,
}

impl Known {
    pub fn new(filter: ExemplarFilter) -> Self {
        Self { filter, series: Mutex::default() }
    }

    /// Whether there can be any.
    pub fn any(&self) -> bool {
        self.filter != ExemplarFilter::AlwaysOff
    }

    /// Those of a series, made when there are none yet; `None` when there shall be none.
    pub fn of_series(
        &self,
        name: &'static str,
        bounds: &'static [f64],
        attributes: &[KeyValue],
    ) -> Option<Arc<Exemplars>> {
        let make = || Arc::new(Exemplars::new(bounds, self.filter == ExemplarFilter::AlwaysOn));
        let key = || (name, key_of(attributes.iter()));
        self.any().then(|| self.series.lock().entry(key()).or_insert_with(make).clone())
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

/// Seconds since 1970, as Prometheus wants them.
pub(super) fn unix_seconds(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).max(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: SampledSpan = SampledSpan { trace_id: [7; 16], span_id: [9; 8] };

    #[test]
    fn each_bucket_remembers_the_last_trace_that_fell_into_it() {
        let exemplars = Exemplars::new(&[0.1, 1.0], false);
        exemplars.offer(0.1, Some(TRACE));
        exemplars.offer(5.0, Some(TRACE));
        exemplars.offer(6.0, Some(TRACE));
        exemplars.offer(7.0, None);
        assert!(exemplars.of_bucket(0).is_some(), "the bound belongs to its bucket");
        assert!(exemplars.of_bucket(1).is_none());
        let value = exemplars.of_bucket(2).unwrap().value;
        assert!(value > 5.5 && value < 6.5, "the later one in a trace, and not {value}");
        assert!(unix_seconds(exemplars.of_bucket(2).unwrap().at) > 1.7e9);
    }

    #[test]
    fn the_filter_decides_whether_a_measurement_without_a_trace_is_remembered_or_any() {
        let of = |filter| Known::new(filter).of_series("m", &[1.0], &[]);
        assert!(of(ExemplarFilter::AlwaysOff).is_none());
        for (filter, remembered) in [(ExemplarFilter::TraceBased, false), (ExemplarFilter::AlwaysOn, true)] {
            let exemplars = of(filter).unwrap();
            exemplars.offer(0.5, None);
            assert_eq!(exemplars.of_bucket(0).is_some(), remembered, "{filter:?}");
            exemplars.offer(0.5, Some(TRACE));
            assert_eq!(exemplars.of_bucket(0).and_then(|exemplar| exemplar.trace), Some(TRACE), "{filter:?}");
        }
    }

    #[test]
    fn only_a_sampled_span_leads_anywhere() {
        assert_eq!(SampledSpan::sampled(7, 9, 1).map(|trace| (trace.trace_id[15], trace.span_id[7])), Some((7, 9)));
        for (trace, span, flags) in [(7, 9, 0), (0, 9, 1), (7, 0, 1)] {
            assert_eq!(SampledSpan::sampled(trace, span, flags), None);
        }
    }
}
