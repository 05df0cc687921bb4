//! How often the output of an attempt is read.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(4);
/// Reads for this time may come at once.
const BURST: Duration = Duration::from_secs(1);

/// Bounds the reads to 250 per second, and 250 more at once. A program that writes faster waits until there is room in its
/// pipe, so it cannot use up the CPU time of the server, however small or large its writes are.
pub(super) struct ReadRate {
    /// When the reads up to now would have ended if each had taken a pause.
    due: Instant,
}

impl ReadRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// The time until the next read; zero if it can be done now.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now + BURST)
    }

    pub(super) fn add(&mut self, now: Instant) {
        self.due = self.due.max(now) + PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_reads_comes_at_once_and_then_one_per_pause() {
        let start = Instant::now();
        let mut rate = ReadRate::new(start);
        for _ in 0..250 {
            assert_eq!(rate.pause(start), Duration::ZERO);
            rate.add(start);
        }
        rate.add(start);
        assert_eq!(rate.pause(start), PAUSE);
        assert_eq!(rate.pause(start + PAUSE), Duration::ZERO);
        // Time without reads is not saved up.
        let later = start + 100 * BURST;
        for _ in 0..251 {
            rate.add(later);
        }
        assert_eq!(rate.pause(later), PAUSE);
    }
}
