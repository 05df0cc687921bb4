//! Spans and moments, both ways.

use std::time::Duration;

use crate::model::Timestamp;

/// A span; `None` when it is negative, malformed, or longer than can be.
pub fn span(value: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
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
    fn a_moment_survives_the_wire() {
        let at = Timestamp(1_700_000_000_123_456);
        assert_eq!(moment(&timestamp(at)), Some(at));
    }
}
