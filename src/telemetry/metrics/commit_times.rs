//! Duration of the last commits, for people who look at the server now; the histogram of the metrics begins at its start.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::DurationStats;

const WINDOW: Duration = Duration::from_mins(1);

/// Durations of the commits of the last one to two [`WINDOW`]s.
#[derive(Debug)]
pub struct CommitTimes(Mutex<Windows>);

#[derive(Debug)]
struct Windows {
    current_us: Histogram<u64>,
    previous_us: Histogram<u64>,
    /// Start of the current window.
    since: Instant,
}

impl Default for CommitTimes {
    fn default() -> Self {
        // Two significant digits from 1 µs to 10 minutes; longer times count as 10 minutes.
        let histogram =
            || Histogram::new_with_bounds(1, 600_000_000, 2).unwrap_or_else(|_| unreachable!("the bounds are valid"));
        let windows = Windows { current_us: histogram(), previous_us: histogram(), since: Instant::now() };
        Self(Mutex::new(windows))
    }
}

impl CommitTimes {
    pub fn record(&self, took: Duration) {
        let mut windows = self.0.lock();
        windows.advance();
        windows.current_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn read(&self) -> DurationStats {
        let mut windows = self.0.lock();
        windows.advance();
        let mut all = windows.previous_us.clone();
        // Both have the same bounds.
        let _ = all.add(&windows.current_us);
        DurationStats::of_micros(&all)
    }
}

impl Windows {
    fn advance(&mut self) {
        let passed = self.since.elapsed();
        if passed < WINDOW {
            return;
        }
        std::mem::swap(&mut self.current_us, &mut self.previous_us);
        self.current_us.clear();
        if passed >= 2 * WINDOW {
            self.previous_us.clear();
        }
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn durations_are_forgotten_after_one_to_two_minutes() {
        let times = CommitTimes::default();
        assert_eq!(times.read(), DurationStats::default());
        times.record(Duration::from_millis(5));
        tokio::time::advance(Duration::from_secs(61)).await;
        times.record(Duration::from_millis(1));
        let both = times.read();
        assert_eq!((both.count, both.p50.as_millis(), both.max.as_millis()), (2, 1, 5));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!((times.read().count, times.read().max.as_millis()), (1, 1));
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(times.read().count, 0);
    }
}
