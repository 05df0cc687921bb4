//! The times of rules, compared with a walk over all minutes around each change of the clocks.

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros().cast_unsigned())
}

fn rule(pattern: &str, zone: &str, dst: DstPolicy) -> ScheduleRule {
    ScheduleRule::Cron(CronRule::new(pattern, parse_zone(zone).unwrap(), dst).unwrap())
}

fn times(rule: &ScheduleRule, after: &str, count: usize) -> Vec<String> {
    rule.times_after(at(after)).take(count).map(|time| time.to_string().replace(".000000Z", "Z")).collect()
}

/// The clocks change by an hour, by half an hour, by two hours, at midnight, and for Ramadan.
const ZONES: [&str; 9] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Africa/Casablanca",
    "America/Santiago",
    "Antarctica/Troll",
    "Africa/Cairo",
    "Asia/Kolkata",
];

const PATTERNS: [&str; 11] = [
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "0 0 * * *",
    "45 1 * * *",
    "*/15 * * * *",
    "*/20 1-3 * * *",
    "15 */2 * * *",
    "10,50 23,0,1,2 * * *",
    "30 2 L * *",
    "0 0 * * SUN",
];

/// The minutes from the start to the end at which the pattern runs. Looks at every minute.
fn walk(pattern: &str, zone: Tz, dst: DstPolicy, start: DateTime<Utc>, end: DateTime<Utc>) -> Vec<Timestamp> {
    let cron = parse(pattern).unwrap();
    let every_hour = pattern.split(' ').nth(1) == Some("*");
    let matches = |local: NaiveDateTime| cron.is_time_matching(&local.and_utc()).unwrap();
    let minute = TimeDelta::minutes(1);
    let (mut runs, mut now) = (Vec::new(), start);
    let mut latest = (now - minute).with_timezone(&zone).naive_local();
    while now < end {
        let local = now.with_timezone(&zone).naive_local();
        let is_repeated = local <= latest;
        let mut is_due = matches(local) && (!is_repeated || every_hour || dst == DstPolicy::WallClock);
        if dst == DstPolicy::Once && !every_hour {
            let mut skipped = latest + minute;
            while skipped < local {
                is_due |= matches(skipped);
                skipped += minute;
            }
        }
        if is_due {
            runs.push(Timestamp(now.timestamp_micros().cast_unsigned()));
        }
        (latest, now) = (latest.max(local), now + minute);
    }
    runs
}

/// A day and a half before and after each change of the clocks in two years.
fn windows(zone: Tz) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    let offset = |hour: i64| zone.offset_from_utc_datetime(&(start + TimeDelta::hours(hour)).naive_utc()).fix();
    let changes = (1..2 * 365 * 24).filter(|hour| offset(*hour) != offset(hour - 1));
    changes.map(|hour| (start + TimeDelta::hours(hour - 36), start + TimeDelta::hours(hour + 36))).collect()
}

#[test]
fn every_time_around_every_change_of_the_clocks_runs_as_the_policy_says() {
    let mut changes = 0;
    for zone in ZONES.map(|name| parse_zone(name).unwrap()) {
        for (start, end) in windows(zone) {
            changes += 1;
            for pattern in PATTERNS {
                for dst in [DstPolicy::Once, DstPolicy::Skip, DstPolicy::WallClock] {
                    let expected = walk(pattern, zone, dst, start, end);
                    let rule = ScheduleRule::Cron(CronRule::new(pattern, zone, dst).unwrap());
                    let micros = |time: DateTime<Utc>| time.timestamp_micros().cast_unsigned();
                    let from = Timestamp(micros(start) - 1);
                    let found: Vec<_> = rule.times_after(from).take_while(|time| time.0 < micros(end)).collect();
                    assert_eq!(found, expected, "{pattern} in {zone} from {start}, {dst:?}");
                    // A search can start at any time, also within a repeated hour.
                    for minute in (0..72 * 60).step_by(97) {
                        let after = Timestamp(micros(start) + minute * 60_000_000);
                        let next = expected.iter().find(|time| **time > after);
                        if let Some(next) = next {
                            assert_eq!(
                                rule.times_after(after).next(),
                                Some(*next),
                                "{pattern} in {zone} after {after}, {dst:?}"
                            );
                        }
                    }
                }
            }
        }
    }
    assert!(changes >= 30, "{changes} changes");
}

#[test]
fn each_policy_treats_skipped_and_repeated_times_differently() {
    use DstPolicy::{Once, Skip, WallClock};
    for (dst, spring, autumn) in [
        (
            Once,
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        (
            Skip,
            ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"],
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        (
            WallClock,
            ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"],
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"],
        ),
    ] {
        let rule = rule("30 2 * * *", "Europe/Berlin", dst);
        assert_eq!(times(&rule, "2026-03-27T12:00:00Z", 3), spring, "{dst:?}");
        assert_eq!(times(&rule, "2026-10-24T12:00:00Z", 2), autumn, "{dst:?}");
    }
}

#[test]
fn seconds_are_optional_and_l_w_and_nth_weekdays_are_known() {
    for (pattern, expected) in [
        ("* * * * *", ["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]),
        ("*/20 * * * * *", ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]),
        ("0 12 L * *", ["2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"]),
        ("0 12 15W * *", ["2026-01-15T12:00:00Z", "2026-02-16T12:00:00Z"]),
        ("0 12 * * MON#2", ["2026-01-12T12:00:00Z", "2026-02-09T12:00:00Z"]),
        ("0 12 * * FRI#L", ["2026-01-30T12:00:00Z", "2026-02-27T12:00:00Z"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
        ("@daily", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
    ] {
        assert_eq!(times(&rule(pattern, "", DstPolicy::Once), "2026-01-01T00:00:00Z", 2), expected, "{pattern}");
    }
}

#[test]
fn an_interval_counts_from_its_anchor() {
    let rule = ScheduleRule::Interval { every: Duration::from_secs(90), anchor: at("2026-01-01T00:00:10Z") };
    assert_eq!(times(&rule, "2025-01-01T00:00:00Z", 2), ["2026-01-01T00:00:10Z", "2026-01-01T00:01:40Z"]);
    assert_eq!(times(&rule, "2026-01-01T00:00:10Z", 1), ["2026-01-01T00:01:40Z"]);
    assert_eq!(times(&rule, "2026-01-01T00:01:39Z", 1), ["2026-01-01T00:01:40Z"]);
    assert_eq!(rule.times_after(Timestamp(u64::MAX)).next(), None);
}

#[test]
fn an_invalid_pattern_or_zone_is_refused_with_its_reason() {
    let new = |pattern: &str| CronRule::new(pattern, Tz::UTC, DstPolicy::Once).map(drop).unwrap_err().to_string();
    for pattern in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * * 31 2 *"] {
        assert_eq!(new(pattern), format!("is `{pattern}`, which no date matches"));
    }
    assert_eq!(new(&"1".repeat(257)), "has 257 bytes, at most 256 are allowed");
    for pattern in ["", "* * * *", "60 * * * *", "* * * * * 2027 *", "x * * * *", "0 0 0 * *"] {
        let error = new(pattern);
        assert!(error.starts_with(&format!("is `{pattern}`, which is not a cron pattern: ")), "{error}");
    }
    let zone = |name: &str| parse_zone(name).unwrap_err().to_string();
    assert_eq!(
        zone("europe/berlin"),
        "is `europe/berlin`, which is not an IANA time zone; did you mean `Europe/Berlin`?"
    );
    assert_eq!(
        zone("Asia/Calcuta"),
        "is `Asia/Calcuta`, which is not an IANA time zone; did you mean `Asia/Calcutta`?"
    );
    assert_eq!(zone("?"), "is `?`, which is not an IANA time zone");
    assert_eq!(parse_zone(""), Ok(Tz::UTC));
}
