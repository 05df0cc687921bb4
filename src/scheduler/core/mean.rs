//! Average of the last durations, in which older ones count less and less.

use std::time::Duration;

/// In microseconds, at least 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mean(Option<u64>);

/// A new duration counts as one of so many.
const WINDOW: u64 = 8;

impl Mean {
    pub fn us(self) -> Option<u64> {
        self.0
    }

    pub fn add(&mut self, duration: Duration) {
        let us = micros(duration);
        self.0 = Some(self.0.map_or(us, |mean| (mean / WINDOW * (WINDOW - 1) + us / WINDOW).max(1)));
    }
}

/// At least 1, so that no turn is free.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_approaches_new_durations() {
        let mut mean = Mean::default();
        assert_eq!(mean.us(), None);
        mean.add(Duration::from_secs(8));
        assert_eq!(mean.us(), Some(8_000_000));
        mean.add(Duration::ZERO);
        assert_eq!(mean.us(), Some(7_000_000));
        for _ in 0..100 {
            mean.add(Duration::from_millis(1));
        }
        assert!((900..1_100).contains(&mean.us().unwrap()), "{mean:?}");
    }
}
