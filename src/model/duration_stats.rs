//! Summary of many durations.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Distribution of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurationStats {
    /// Number of durations.
    pub count: u64,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl DurationStats {
    /// Of a histogram of microseconds.
    pub fn of_micros(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: Duration::from_micros(histogram.max()),
        }
    }
}
