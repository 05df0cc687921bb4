//! Durations and timestamps.

use std::time::Duration;

use crate::model::Timestamp;

/// Returns `None` for a negative or malformed duration.
pub fn parse_duration(value: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// Formats a limit as the documentation does: whole hours as `24h`, more than two whole days as `365d`. Months and years, whose
/// lengths differ, are not used.
pub fn format_duration(duration: Duration) -> String {
    let hours = duration.as_secs() / 3_600;
    if hours > 0 && duration == Duration::from_hours(hours) {
        return if hours > 48 && hours.is_multiple_of(24) { format!("{}d", hours / 24) } else { format!("{hours}h") };
    }
    let days = if hours > 48 { hours / 24 } else { 0 };
    let rest = humantime::format_duration(duration.saturating_sub(Duration::from_hours(days * 24)));
    if days > 0 { format!("{days}d {rest}") } else { rest.to_string() }
}

pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Returns `None` for a malformed timestamp and for one before 1970.
pub fn parse_timestamp(value: &prost_types::Timestamp) -> Option<Timestamp> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u64::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Timestamp(seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000)?))
}

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
    fn negative_and_malformed_durations_are_rejected() {
        let parse = |seconds, nanos| parse_duration(&prost_types::Duration { seconds, nanos });
        assert_eq!(parse(1, 500_000_000), Some(Duration::from_millis(1500)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (1, i32::MIN)] {
            assert_eq!(parse(seconds, nanos), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn limits_are_formatted_as_documented() {
        for (duration, text) in [
            (Duration::from_millis(100), "100ms"),
            (Duration::from_hours(24), "24h"),
            (Duration::from_hours(365 * 24), "365d"),
            (Duration::from_hours(365 * 24) + Duration::from_secs(1), "365d 1s"),
            (Duration::from_mins(47 * 60 + 1), "1day 23h 1m"),
            (Duration::from_mins(5), "5m"),
            (Duration::ZERO, "0s"),
        ] {
            assert_eq!(format_duration(duration), text);
        }
    }

    #[test]
    fn malformed_timestamps_and_those_before_1970_are_rejected() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(parse_timestamp(&prost_types::Timestamp { seconds, nanos }), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn a_timestamp_is_converted_without_loss() {
        let at = Timestamp(1_700_000_000_123_456);
        assert_eq!(parse_timestamp(&timestamp(at)), Some(at));
    }
}
