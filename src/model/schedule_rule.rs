//! When a schedule runs: the times of a cron pattern in a time zone, or of an interval.
//!
//! Pure: the times follow from the rule alone, so that the core can compute them. Offsets come from the time-zone data that is
//! compiled into the program.

use std::time::Duration;

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::clock::Timestamp;
use super::limits::CRON_PATTERN_BYTES_MAX;

/// Similarity of a name of a time zone that is suggested instead of an unknown one, 0 to 1.
const SIMILAR: f64 = 0.75;

#[derive(Clone, Debug, PartialEq)]
pub enum ScheduleRule {
    Cron(CronRule),
    /// At `anchor`, and every interval after it.
    Interval {
        every: Duration,
        anchor: Timestamp,
    },
}

/// A cron pattern in a time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct CronRule {
    // Parsed again for each search: a parsed pattern has several kilobytes.
    pattern: Box<str>,
    zone: Tz,
    dst: DstPolicy,
}

/// What happens to the local times that a change of the clocks skips or repeats. Patterns whose hour is `*` follow the elapsed
/// time, whatever the policy: they do not run for skipped times, and go on in repeated ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum DstPolicy {
    /// Every time of the pattern runs once: a skipped one right after the change, a repeated one the first time.
    #[default]
    Once = 1,
    /// A skipped time does not run, a repeated one runs the first time.
    Skip = 2,
    /// A skipped time does not run, a repeated one runs both times.
    WallClock = 3,
}

impl DstPolicy {
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Once, Self::Skip, Self::WallClock].into_iter().find(|policy| *policy as u8 == number)
    }
}

/// Why a pattern or a time zone is invalid. The messages follow the name of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("has {length} bytes, at most {CRON_PATTERN_BYTES_MAX} are allowed")]
    PatternTooLong { length: usize },
    #[error("is `{pattern}`, which is not a cron pattern: {reason}")]
    InvalidPattern { pattern: String, reason: String },
    #[error("is `{pattern}`, which no date matches")]
    NeverMatches { pattern: String },
    #[error("is `{zone}`, which is not an IANA time zone{}", suggestion(*similar))]
    UnknownZone { zone: String, similar: Option<&'static str> },
}

fn suggestion(similar: Option<&str>) -> String {
    similar.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Finds a time zone; `UTC` for an empty name.
///
/// # Errors
/// [`RuleError::UnknownZone`].
pub fn parse_zone(name: &str) -> Result<Tz, RuleError> {
    if name.is_empty() {
        return Ok(Tz::UTC);
    }
    name.parse().map_err(|_| {
        let shown = name[..name.floor_char_boundary(64)].to_owned();
        let score = |zone: &Tz| (strsim::jaro_winkler(&zone.name().to_lowercase(), &shown.to_lowercase()), zone.name());
        let best = TZ_VARIANTS.iter().map(score).max_by(|one, other| one.0.total_cmp(&other.0));
        RuleError::UnknownZone {
            similar: best.filter(|(score, _)| *score >= SIMILAR).map(|(_, name)| name),
            zone: shown,
        }
    })
}

impl CronRule {
    /// Five fields, or six with seconds first, or a name such as `@daily`.
    ///
    /// # Errors
    /// [`RuleError`] about the pattern.
    pub fn new(pattern: &str, zone: Tz, dst: DstPolicy) -> Result<Self, RuleError> {
        if pattern.len() > CRON_PATTERN_BYTES_MAX {
            return Err(RuleError::PatternTooLong { length: pattern.len() });
        }
        let invalid = |error: croner::errors::CronError| RuleError::InvalidPattern {
            pattern: pattern.to_owned(),
            reason: error.to_string().trim_end_matches('.').to_owned(),
        };
        let cron = parse(pattern).map_err(invalid)?;
        if next_local(&cron, DateTime::UNIX_EPOCH.naive_utc(), true).is_none() {
            return Err(RuleError::NeverMatches { pattern: pattern.to_owned() });
        }
        Ok(Self { pattern: pattern.into(), zone, dst })
    }

    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    pub fn zone(&self) -> Tz {
        self.zone
    }

    pub fn dst(&self) -> DstPolicy {
        self.dst
    }
}

fn parse(pattern: &str) -> Result<Cron, croner::errors::CronError> {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build().parse(pattern)
}

impl ScheduleRule {
    /// The times after `after`, in order, as far as they can be shown.
    pub fn times_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + use<'_> {
        let cron = match self {
            Self::Cron(rule) => parse(&rule.pattern).ok().map(|cron| Search::new(rule, cron)),
            Self::Interval { .. } => None,
        };
        let mut after = after;
        std::iter::from_fn(move || {
            let next = match (self, &cron) {
                (Self::Interval { every, anchor }, _) => next_interval(*every, *anchor, after),
                (Self::Cron(_), Some(search)) => search.next(after),
                (Self::Cron(_), None) => None,
            };
            after = next.filter(|next| *next <= Timestamp::LAST_SHOWN)?;
            Some(after)
        })
    }

    /// The times after `after`, from the start to the end.
    pub fn times_within(
        &self,
        after: Timestamp,
        start_at: Option<Timestamp>,
        end_at: Option<Timestamp>,
    ) -> impl Iterator<Item = Timestamp> + use<'_> {
        let before_start = start_at.map_or(Timestamp::ZERO, |start| Timestamp(start.0.saturating_sub(1)));
        let end = end_at.unwrap_or(Timestamp(u64::MAX));
        self.times_after(after.max(before_start)).take_while(move |time| *time <= end)
    }

    /// Lets an interval begin at the start, or else now.
    #[must_use]
    pub fn anchored(self, start_at: Option<Timestamp>, now: Timestamp) -> Self {
        match self {
            // Whole seconds, for the IDs of the tasks.
            Self::Interval { every, .. } => {
                Self::Interval { every, anchor: start_at.unwrap_or(Timestamp(now.0 - now.0 % 1_000_000)) }
            }
            cron @ Self::Cron(_) => cron,
        }
    }

    /// Whether both have the same times, apart from the anchor of an interval.
    pub fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Interval { every, .. }, Self::Interval { every: other, .. }) => every == other,
            _ => self == other,
        }
    }
}

fn next_interval(every: Duration, anchor: Timestamp, after: Timestamp) -> Option<Timestamp> {
    if after < anchor {
        return Some(anchor);
    }
    let every = u64::try_from(every.as_micros()).ok().filter(|every| *every > 0)?;
    let periods = (after.0 - anchor.0) / every + 1;
    Some(Timestamp(anchor.0.checked_add(periods.checked_mul(every)?)?))
}

/// The pattern knows no time zones here: it is matched against local times, which are then converted.
fn next_local(cron: &Cron, from: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
    cron.find_next_occurrence(&from.and_utc(), inclusive).ok().map(|found| found.naive_utc())
}

struct Search {
    cron: Cron,
    zone: Tz,
    /// A skipped time runs right after the change.
    runs_skipped: bool,
    /// A repeated time runs both times.
    runs_twice: bool,
}

impl Search {
    fn new(rule: &CronRule, cron: Cron) -> Self {
        let every_hour = cron.pattern.hours.values().len() == 24;
        Self {
            zone: rule.zone,
            runs_skipped: rule.dst == DstPolicy::Once && !every_hour,
            runs_twice: rule.dst == DstPolicy::WallClock || every_hour,
            cron,
        }
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Times are whole seconds.
        let after = Utc.timestamp_opt(i64::try_from(after.0 / 1_000_000).ok()?, 0).single()?;
        let seconds = u64::try_from(self.next_instant(after)?.timestamp()).ok()?;
        seconds.checked_mul(1_000_000).map(Timestamp)
    }

    fn next_instant(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = self.local(after);
        let (mut from, mut inclusive) = (local, false);
        if self.runs_twice
            && let MappedLocalTime::Ambiguous(first, second) = self.zone.from_local_datetime(&local)
            && first == after
        {
            // The first of two passes: what is left of it comes before the second.
            let change = self.change_between(after, second.to_utc());
            let (before, _) = self.offsets_around(change);
            let rest = next_local(&self.cron, local, false)? - before;
            if rest < change.naive_utc() {
                return Some(rest.and_utc());
            }
            (from, inclusive) = (self.local(change), true);
        }
        loop {
            let found = next_local(&self.cron, from, inclusive)?;
            (from, inclusive) = (found, false);
            match self.zone.from_local_datetime(&found) {
                MappedLocalTime::Single(at) if at > after => return Some(at.to_utc()),
                MappedLocalTime::Single(_) => {}
                MappedLocalTime::Ambiguous(first, _) if first > after => return Some(first.to_utc()),
                MappedLocalTime::Ambiguous(_, second) if self.runs_twice && second > after => {
                    return Some(second.to_utc());
                }
                MappedLocalTime::Ambiguous(first, second) => {
                    let change = self.change_between(first.to_utc(), second.to_utc());
                    (from, inclusive) = (change.naive_utc() + self.offsets_around(change).0, true);
                }
                MappedLocalTime::None => {
                    let end = GapInfo::new(&found, &self.zone)?.end?;
                    if self.runs_skipped && end > after {
                        return Some(end.to_utc());
                    }
                    (from, inclusive) = (end.naive_local(), true);
                }
            }
        }
    }

    fn local(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.with_timezone(&self.zone).naive_local()
    }

    fn offset(&self, at: DateTime<Utc>) -> TimeDelta {
        let offset = self.zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(offset.local_minus_utc().into())
    }

    /// The offsets just before and at a change.
    fn offsets_around(&self, change: DateTime<Utc>) -> (TimeDelta, TimeDelta) {
        (self.offset(change - TimeDelta::seconds(1)), self.offset(change))
    }

    /// The first second after `before`, and at `end` at the latest, with the offset of `end`.
    fn change_between(&self, before: DateTime<Utc>, end: DateTime<Utc>) -> DateTime<Utc> {
        let (mut before, mut change, offset) = (before, end, self.offset(end));
        while change - before > TimeDelta::seconds(1) {
            let middle = before + TimeDelta::seconds((change - before).num_seconds() / 2);
            if self.offset(middle) == offset {
                change = middle;
            } else {
                before = middle;
            }
        }
        change
    }
}

#[cfg(test)]
#[path = "schedule_rule_tests.rs"]
mod tests;
