//! Spans and moments, both ways.

use std::time::Duration;

use crate::model::Timestamp;

/// A span; `None` when it is negative, malformed, or longer than can be.
pub fn span(value: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// A span for people; whole hours as such, because bounds are written in hours.
pub fn words(span: Duration) -> String {
    let hours = span.as_secs() / 3_600;
    if hours > 0 && span == Duration::from_hours(hours) {
        return if hours > 48 && hours.is_multiple_of(24) { format!("{}d", hours / 24) } else { format!("{hours}h") };
    }
    humantime::format_duration(span).to_string()
}

/// A span for the wire.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A moment; `None` when it is before 1970 or malformed.
pub fn moment(value: &prost_types::Timestamp) -> Option<Timestamp> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u64::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Timestamp(seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000)?))
}

/// A moment for the wire.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.0 % 1_000_000).unwrap_or(0) * 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_and_malformed_spans_are_nothing() {
        let of = |seconds, nanos| span(&prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 500_000_000), Some(Duration::from_millis(1500)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (1, i32::MIN)] {
            assert_eq!(of(seconds, nanos), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn bounds_read_as_they_are_documented() {
        for (span, text) in [
            (Duration::from_millis(100), "100ms"),
            (Duration::from_hours(24), "24h"),
            (Duration::from_hours(365 * 24), "365d"),
            (Duration::from_mins(5), "5m"),
            (Duration::ZERO, "0s"),
        ] {
            assert_eq!(words(span), text);
        }
    }

    #[test]
    fn a_moment_before_1970_or_malformed_is_nothing() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(moment(&prost_types::Timestamp { seconds, nanos }), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn a_moment_survives_the_wire() {
        let at = Timestamp(1_700_000_000_123_456);
        assert_eq!(moment(&timestamp(at)), Some(at));
    }
}
