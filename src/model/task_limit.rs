//! Limits of tasks: how many tasks with the same key run at once, and how many start in a time.

use std::fmt;
use std::time::Duration;

use hashbrown::Equivalent;

use super::clock::Timestamp;
use super::id::{LimitName, Namespace};
use super::limits::{LIMIT_INTERVAL_MAX, LIMIT_INTERVAL_MIN, LIMIT_STARTS_MAX};

/// About the bytes that the scheduler needs for a limit with an unfinished task.
pub const LIMIT_BYTES: usize = 320;

/// One of the limits of a task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskLimit {
    pub source: LimitSource,
    /// Tasks of a namespace with the same key share the limit. Empty: all tasks that name the configured limit do.
    pub key: Box<str>,
}

/// Where the rule of a limit is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitSource {
    /// In the configuration, so that it can change while the task waits.
    Configured(LimitName),
    /// In the submission of the task.
    Own(LimitRule),
}

/// What a limit allows. It has at least one of the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitRule {
    /// Number of tasks that run at once.
    pub max_running: Option<u32>,
    pub rate: Option<StartRate>,
}

/// A token bucket: `burst` tasks may start at once, and then `starts` in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StartRate {
    pub starts: u32,
    pub interval: Duration,
    pub burst: u32,
}

/// What identifies a limit: tasks with the same share its places and tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId {
    /// `None` if the limit has no key: all namespaces share it.
    namespace: Option<Namespace>,
    name: Option<LimitName>,
    key: Box<str>,
}

/// A [`LimitId`] for look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitIdRef<'a> {
    pub namespace: Option<&'a Namespace>,
    pub name: Option<&'a LimitName>,
    pub key: &'a str,
}

impl TaskLimit {
    /// `namespace`: that of the task.
    pub fn id<'a>(&'a self, namespace: &'a Namespace) -> LimitIdRef<'a> {
        let name = match &self.source {
            LimitSource::Configured(name) => Some(name),
            LimitSource::Own(_) => None,
        };
        LimitIdRef { namespace: (!self.key.is_empty()).then_some(namespace), name, key: &self.key }
    }

    /// Whether it is or can be one of a rate.
    pub fn may_have_rate(&self) -> bool {
        match &self.source {
            LimitSource::Configured(_) => true,
            LimitSource::Own(rule) => rule.rate.is_some(),
        }
    }

    /// Bytes of its names.
    pub fn bytes(&self) -> usize {
        let name = match &self.source {
            LimitSource::Configured(name) => name.as_str().len(),
            LimitSource::Own(_) => 0,
        };
        name + self.key.len() + size_of::<Self>()
    }
}

impl LimitId {
    pub fn new(namespace: Option<Namespace>, name: Option<LimitName>, key: Box<str>) -> Self {
        Self { namespace, name, key }
    }

    pub fn by_ref(&self) -> LimitIdRef<'_> {
        LimitIdRef { namespace: self.namespace.as_ref(), name: self.name.as_ref(), key: &self.key }
    }
}

impl LimitIdRef<'_> {
    pub fn to_id(self) -> LimitId {
        LimitId { namespace: self.namespace.cloned(), name: self.name.cloned(), key: self.key.into() }
    }
}

impl Equivalent<LimitId> for LimitIdRef<'_> {
    fn equivalent(&self, id: &LimitId) -> bool {
        *self == id.by_ref()
    }
}

impl fmt::Display for TaskLimit {
    /// `NAME`, `NAME/KEY` or `KEY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            LimitSource::Configured(name) if self.key.is_empty() => write!(f, "{name}"),
            LimitSource::Configured(name) => write!(f, "{name}/{}", self.key),
            LimitSource::Own(_) => f.write_str(&self.key),
        }
    }
}

/// The limit for which a WAITING task waits, as it was when the wait began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitHold {
    /// Index in the limits of the task.
    pub limit: u8,
    pub cause: LimitCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitCause {
    /// Number of tasks that have a place, QUEUED or RUNNING, and how many may have one.
    Places { taken: u32, max: u32 },
    /// When the next token is there; `None` if that depends on tasks that have not started.
    Rate { until: Option<Timestamp> },
    /// The limit is not configured any more.
    NotConfigured,
}

/// A start has used a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitCharge {
    /// Index in the limits of the task.
    pub limit: u8,
    /// When the bucket is full again unless there are further starts, in nanoseconds since the epoch.
    pub full_at: u64,
}

impl StartRate {
    /// Parses `STARTS/INTERVAL`, such as `10/s` or `100/1m`.
    ///
    /// # Errors
    /// The end of a sentence about the text.
    pub fn parse(text: &str) -> Result<(u32, Duration), String> {
        let bad = || "must be STARTS/INTERVAL, such as 10/s or 100/1m".to_owned();
        let (starts, interval) = text.trim().split_once('/').ok_or_else(bad)?;
        let starts = starts.trim().parse().map_err(|_| {
            format!("must begin with a number of starts from 1 to {LIMIT_STARTS_MAX}, such as 10/s or 100/1m")
        })?;
        let interval = interval.trim();
        // A unit alone is one of it.
        let one = if interval.starts_with(|c: char| c.is_ascii_alphabetic()) { "1" } else { "" };
        let interval = humantime::parse_duration(&format!("{one}{interval}")).map_err(|_| bad())?;
        Ok((starts, interval))
    }

    /// The first of its parts that is out of range: its name, its value, and the limit as the end of a sentence.
    pub fn problem(self) -> Option<(&'static str, String, String)> {
        let show = |duration: Duration| humantime::format_duration(duration).to_string();
        let counts = [("starts", self.starts), ("burst", self.burst)];
        if let Some((name, value)) = counts.into_iter().find(|(_, value)| !(1..=LIMIT_STARTS_MAX).contains(value)) {
            return Some((name, value.to_string(), format!("must be from 1 to {LIMIT_STARTS_MAX}")));
        }
        if !(LIMIT_INTERVAL_MIN..=LIMIT_INTERVAL_MAX).contains(&self.interval) {
            let range = format!("must be from {} to {}", show(LIMIT_INTERVAL_MIN), show(LIMIT_INTERVAL_MAX));
            return Some(("interval", show(self.interval), range));
        }
        let refill = u128::from(self.step()) * u128::from(self.burst);
        if refill > LIMIT_INTERVAL_MAX.as_nanos() {
            let limit = format!(
                "takes longer to refill than {}: the rate allows one start in {}",
                show(LIMIT_INTERVAL_MAX),
                show(Duration::from_nanos(self.step()))
            );
            return Some(("burst", self.burst.to_string(), limit));
        }
        None
    }

    /// Nanoseconds after which the bucket has one more token.
    pub fn step(self) -> u64 {
        let step = self.interval.as_nanos().div_ceil(u128::from(self.starts.max(1)));
        u64::try_from(step).unwrap_or(u64::MAX).max(1)
    }
}

impl fmt::Display for StartRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.starts, humantime::format_duration(self.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_of_starts_and_an_interval() {
        let parsed = |text: &str| StartRate::parse(text).map(|(starts, interval)| (starts, interval.as_millis()));
        assert_eq!(parsed("10/s"), Ok((10, 1_000)));
        assert_eq!(parsed(" 100 / 1m30s "), Ok((100, 90_000)));
        for text in ["", "10", "/s", "10/", "-1/s", "NaN/s", "1.5/s", "5000000000/s", "10/x", "10/-1s"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_a_rate_that_is_out_of_range_is_named() {
        let rate = StartRate { starts: 10, interval: Duration::from_secs(1), burst: 1 };
        let name = |rate: StartRate| rate.problem().map(|(name, value, _)| (name, value));
        assert_eq!(name(rate), None);
        assert_eq!(name(StartRate { starts: 0, ..rate }), Some(("starts", "0".to_owned())));
        assert_eq!(name(StartRate { burst: 1_000_001, ..rate }), Some(("burst", "1000001".to_owned())));
        assert_eq!(name(StartRate { interval: Duration::from_nanos(1), ..rate }), Some(("interval", "1ns".to_owned())));
        let slow = StartRate { starts: 1, interval: LIMIT_INTERVAL_MAX, burst: 2 };
        assert_eq!(name(slow), Some(("burst", "2".to_owned())));
    }

    #[test]
    fn a_step_is_never_shorter_than_the_rate_allows() {
        let step = |starts, nanos| StartRate { starts, interval: Duration::from_nanos(nanos), burst: 1 }.step();
        assert_eq!(
            [step(10, 1_000_000_000), step(3, 1_000_000_000), step(1_000_000, 1_000_000)],
            [100_000_000, 333_333_334, 1]
        );
    }

    #[test]
    fn a_limit_without_a_key_is_shared_by_all_namespaces() {
        let (one, other) = (Namespace::parse("a").unwrap(), Namespace::parse("b").unwrap());
        let limit = |key: &str| TaskLimit {
            source: LimitSource::Configured(LimitName::parse("api").unwrap()),
            key: key.into(),
        };
        assert_eq!(limit("").id(&one), limit("").id(&other));
        assert_ne!(limit("k").id(&one), limit("k").id(&other));
        let own = TaskLimit { source: LimitSource::Own(LimitRule::default()), key: "k".into() };
        assert_ne!(own.id(&one), limit("k").id(&one), "a key of a configured limit is another one");
        assert!(own.id(&one).equivalent(&own.id(&one).to_id()));
        assert_eq!([limit("").to_string(), limit("k").to_string(), own.to_string()], ["api", "api/k", "k"]);
    }
}
