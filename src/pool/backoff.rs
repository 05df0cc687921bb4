//! How long a pool starts nothing because the server lacks a resource, such as file descriptors.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// The present or last pause.
    pause: Duration,
    /// When it ends or has ended; `None` before the first one.
    until: Option<Instant>,
}

/// A pause that begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub until: Instant,
    /// Whether the resource had not been lacking shortly before.
    pub is_first: bool,
}

impl Backoff {
    /// An attempt could not start. Returns `None` during a pause. A pause is twice as long as the previous one if no
    /// more time than that has passed since its end.
    pub fn begin(&mut self, now: Instant) -> Option<Pause> {
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        let is_first = self.until.is_none_or(|until| now > until + self.pause.max(PAUSE_MIN));
        self.pause = if is_first { PAUSE_MIN } else { (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        let until = now + self.pause;
        self.until = Some(until);
        Some(Pause { until, is_first })
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// An attempt has ended, so that what it used is free. The next pause is short.
    pub fn cut_short(&mut self, now: Instant) {
        self.pause = Duration::ZERO;
        self.until = self.until.map(|until| until.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_while_the_resource_is_lacking_and_start_anew_afterwards() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = backoff.begin(now).unwrap();
            assert_eq!(backoff.begin(now), None, "a pause is under way");
            pauses.push(((pause.until - now).as_millis(), pause.is_first));
            now = pause.until;
            assert!(backoff.is_over(now));
        }
        let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        assert!(
            pauses.iter().copied().eq(expected.into_iter().zip([true].into_iter().chain([false; 7]))),
            "{pauses:?}"
        );
        now += PAUSE_MAX * 2;
        assert_eq!(backoff.begin(now), Some(Pause { until: now + PAUSE_MIN, is_first: true }));
    }

    #[test]
    fn the_end_of_an_attempt_ends_a_pause() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.begin(now);
        backoff.cut_short(now);
        assert!(backoff.is_over(now));
        assert_eq!(backoff.begin(now), Some(Pause { until: now + PAUSE_MIN, is_first: false }));
    }
}
