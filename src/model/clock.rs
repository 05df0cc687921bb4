//! Time, injected so that tests can control it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The Unix epoch; also stands for an unknown time.
    pub const ZERO: Self = Self(0);

    /// The last microsecond of the year 9999, which RFC 3339 can express; later times are shown as this one.
    pub const LAST_SHOWN: Self = Self(253_402_300_799_999_999);

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This time plus `delay`, saturating.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = UNIX_EPOCH + Duration::from_micros((*self).min(Self::LAST_SHOWN).0);
        humantime::format_rfc3339_micros(at).fmt(f)
    }
}

/// Source of times that are stored or shown. Monotonic time is `tokio::time`.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The system clock, which can be set. For times that other machines compare with theirs: log lines, exemplars, and
/// the validity of tokens, keys and certificates. Times of tasks come from [`super::ServerClock`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the system clock")]
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timestamp_can_be_shown() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (Timestamp::LAST_SHOWN.0, "9999-12-31T23:59:59.999999Z"),
            (Timestamp::LAST_SHOWN.0 + 1, "9999-12-31T23:59:59.999999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp(micros).to_string(), text);
        }
    }
}
