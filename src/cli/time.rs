//! Durations and times: conversion from and to the contract's messages, and the forms that people write and read.

use std::time::Duration;

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use clap::ValueEnum;

use crate::model::Timestamp;

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

/// Parses a duration: seconds, such as `30` or `0.5`, or with units, such as `30s` or `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then(|| text.parse().ok()).flatten();
    let parsed = match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => humantime::parse_duration(text).ok(),
    };
    parsed.ok_or_else(|| "must be seconds, such as 30, or have units, such as 30s, 1m30s or 7d".to_owned())
}

/// Parses a time: a duration before `now`, or a date with or without a time, in RFC 3339 or in the local time zone.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(Timestamp(now.0.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX))));
    }
    let local = |time: NaiveDateTime| time.and_local_timezone(Local).earliest().map(|time| time.timestamp_micros());
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0));
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let without_zone = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()).or_else(date);
    let micros = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.timestamp_micros()),
        Err(_) => without_zone.and_then(local),
    };
    let parsed = micros.and_then(|micros| u64::try_from(micros).ok()).map(Timestamp);
    parsed.ok_or_else(|| {
        "must be a duration before now, such as 1h30m, or a time, such as 2026-05-01T10:00:00Z or 2026-05-01".to_owned()
    })
}

/// How times are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimeForm {
    /// Before or after now, such as `1m27s ago`
    Relative,
    /// RFC 3339 in the local time zone
    Local,
    /// RFC 3339 in UTC
    Utc,
}

impl TimeForm {
    pub fn format(self, at: Timestamp, now: Timestamp) -> String {
        match self {
            Self::Relative => relative(at, now),
            Self::Local => date_time(at).map_or_else(
                || at.to_string(),
                |time| time.with_timezone(&Local).to_rfc3339_opts(SecondsFormat::Micros, false),
            ),
            Self::Utc => at.to_string(),
        }
    }
}

/// In RFC 3339 in the time zone, such as `Europe/Berlin`; in UTC if this program does not know it.
pub fn format_in_zone(at: Timestamp, zone: &str) -> String {
    let zone: Tz = zone.parse().unwrap_or(Tz::UTC);
    let in_zone = |time: DateTime<Utc>| time.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::AutoSi, true);
    date_time(at).map_or_else(|| at.to_string(), in_zone)
}

fn date_time(at: Timestamp) -> Option<DateTime<Utc>> {
    let micros = i64::try_from(at.min(Timestamp::LAST_SHOWN).0).ok()?;
    DateTime::<Utc>::from_timestamp_micros(micros)
}

/// In whole seconds; the two largest units.
fn relative(at: Timestamp, now: Timestamp) -> String {
    let whole = |duration: Duration| format_duration(Duration::from_secs(duration.as_secs()));
    let (past, future) = (now.since(at), at.since(now));
    if past.as_secs() > 0 {
        format!("{} ago", whole(past))
    } else if future.as_secs() > 0 {
        format!("in {}", whole(future))
    } else {
        "now".to_owned()
    }
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

pub fn to_timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, micros) = (at.0 / 1_000_000, at.0 % 1_000_000);
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(micros * 1_000).unwrap_or(0),
    }
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

    #[test]
    fn a_time_has_the_offset_of_its_zone() {
        let winter = parse_time("2027-01-29T01:30:00Z", Timestamp(0)).unwrap();
        assert_eq!(format_in_zone(winter, "Europe/Berlin"), "2027-01-29T02:30:00+01:00");
        for zone in ["UTC", "", "Atlantis"] {
            assert_eq!(format_in_zone(winter, zone), "2027-01-29T01:30:00Z", "{zone}");
        }
    }

    #[test]
    fn a_duration_is_seconds_or_has_units() {
        for (text, millis) in
            [("30", 30_000), ("0.5", 500), ("30s", 30_000), ("1m30s", 90_000), ("1h 30m", 5_400_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "-1", "1x", "s", "1.2.3", "1e9", "NaN", "99999999999999999999999"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_a_duration_before_now_or_a_date() {
        let now = Timestamp(1_777_629_600_000_000);
        assert_eq!(parse_time("1h", now), Ok(Timestamp(now.0 - 3_600_000_000)));
        assert_eq!(parse_time("90", now), Ok(Timestamp(now.0 - 90_000_000)));
        assert_eq!(parse_time("9999y", now), Ok(Timestamp(0)));
        assert_eq!(parse_time("2026-05-01T12:00:00+02:00", now), Ok(now));
        let local = parse_time("2026-05-01 10:00", now).unwrap();
        assert_eq!(parse_time("2026-05-01T10:00:00", now), Ok(local));
        let midnight = parse_time("2026-05-01", now).unwrap();
        assert!(midnight < local && parse_time("2026-05-32", now).is_err() && parse_time("soon", now).is_err());
        assert!(parse_time("1960-01-01T00:00:00Z", now).is_err(), "before 1970");
    }

    #[test]
    fn a_relative_time_has_whole_seconds_and_two_units() {
        let now = Timestamp(1_777_629_600_000_000);
        let before = |seconds: f64| now.0 - u64::try_from(Duration::from_secs_f64(seconds).as_micros()).unwrap();
        for (seconds, text) in
            [(0.9, "now"), (27.9, "27s ago"), (87.3, "1m27s ago"), (5_400.0, "1h30m ago"), (604_800.0, "7d ago")]
        {
            assert_eq!(TimeForm::Relative.format(Timestamp(before(seconds)), now), text);
        }
        assert_eq!(TimeForm::Relative.format(Timestamp(now.0 + 90_000_000), now), "in 1m30s");
        assert_eq!(TimeForm::Utc.format(now, now), "2026-05-01T10:00:00.000000Z");
        let local = TimeForm::Local.format(now, now);
        assert_eq!(parse_time(&local, Timestamp(0)), Ok(now), "{local}");
    }
}
