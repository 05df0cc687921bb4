//! Durations and timestamps: conversion from and to the contract's messages, and the form that people read.

use std::time::Duration;

/// Units from the largest to the smallest, in seconds.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// Rounded formats below one minute: unit, nanoseconds of the unit, number of units from which the next line
/// applies, decimals.
const SHORT_FORMATS: [(&str, u128, u128, u32); 6] = [
    ("ns", 1, 1_000, 0),
    ("us", 1_000, 1_000, 0),
    ("ms", 1_000_000, 10, 1),
    ("ms", 1_000_000, 1_000, 0),
    ("s", 1_000_000_000, 10, 2),
    ("s", 1_000_000_000, 60, 1),
];

/// Formats a duration for people, rounded to about three digits: `24ms`, `1.29s`, `1m27s`, `7d`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, unit_nanos, limit, decimals) in SHORT_FORMATS {
        let scale = 10_u128.pow(decimals);
        let rounded = (nanos * scale + unit_nanos / 2) / unit_nanos;
        if rounded < limit * scale {
            let fraction = format!("{:0width$}", rounded % scale, width = decimals as usize);
            let fraction = if decimals == 0 { "" } else { fraction.trim_end_matches('0') };
            let point = if fraction.is_empty() { "" } else { "." };
            return format!("{}{point}{fraction}{unit}", rounded / scale);
        }
    }
    two_units(duration.as_secs().saturating_add(u64::from(duration.subsec_millis() >= 500)))
}

/// The two largest units of a whole number of seconds, rounded to the second of them.
fn two_units(seconds: u64) -> String {
    let step = match seconds {
        ..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    let mut rest = seconds.saturating_add(step / 2) / step * step;
    let mut parts = Vec::new();
    for (unit, size) in UNITS {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.concat()
}

/// A duration for a request. The server refuses what is too long.
pub fn to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration of a response; negative ones become 0.
pub fn from_proto(duration: &prost_types::Duration) -> Duration {
    Duration::try_from(*duration).unwrap_or_default()
}

/// Microseconds since the Unix epoch; 0 if the timestamp is not set.
pub fn unix_micros(timestamp: Option<&prost_types::Timestamp>) -> i64 {
    timestamp.map_or(0, |time| time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_two_units() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (63_400, "63us"),
            (2_449_000, "2.4ms"),
            (24_063_000, "24ms"),
            (999_600_000, "1s"),
            (1_294_881_000, "1.29s"),
            (5_000_000_000, "5s"),
            (27_340_000_000, "27.3s"),
            (59_960_000_000, "1m"),
            (87_294_881_000, "1m27s"),
            (3_599_700_000_000, "1h"),
            (5_400_000_000_000, "1h30m"),
            (86_399_000_000_000, "1d"),
            (604_800_000_000_000, "7d"),
        ] {
            assert_eq!(format_duration(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(format_duration(Duration::MAX), "213503982334601d7h");
    }
}
