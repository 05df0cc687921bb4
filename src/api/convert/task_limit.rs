//! Limits of tasks.

use std::time::Duration;

use crate::model::{
    Catalog, LimitCause, LimitHold, LimitName, LimitRule, LimitSource, StartRate, TaskLimit, TaskOptions, id, limits,
};
use crate::proto::v1::{self, limit_hold::Reason};
use crate::scheduler::LimitView;

use super::invalid_fields::{InvalidFields, MessagePath};
use super::numbers::{to_i32, to_i64};
use super::time::{duration, timestamp};

/// Parses the limits of a submission.
pub(super) fn parse(
    invalid: &mut InvalidFields,
    path: MessagePath,
    given: &[v1::TaskLimit],
    catalog: &Catalog,
) -> Box<[TaskLimit]> {
    invalid.check_length(path.field("limits"), given.len(), limits::TASK_LIMITS_MAX, "limits");
    let mut parsed = Vec::with_capacity(given.len().min(limits::TASK_LIMITS_MAX));
    for (index, limit) in given.iter().enumerate().take(limits::TASK_LIMITS_MAX) {
        let at = Position { path, index };
        if given[..index].iter().any(|other| (&other.name, &other.key) == (&limit.name, &limit.key)) {
            at.add(invalid, "key", format_args!("is {:?}, which another limit of the task has", limit.key));
        }
        parsed.extend(parse_one(invalid, at, limit, catalog));
    }
    parsed.into()
}

/// Where a limit is in the request.
#[derive(Clone, Copy)]
struct Position {
    path: MessagePath,
    index: usize,
}

impl Position {
    fn add(self, invalid: &mut InvalidFields, field: &str, description: impl std::fmt::Display) {
        invalid.add(format_args!("{}limits[{}].{field}", self.path, self.index), description);
    }

    fn count(self, invalid: &mut InvalidFields, field: &str, number: i32) -> Option<u32> {
        let found = u32::try_from(number).ok().filter(|number| (1..=limits::LIMIT_STARTS_MAX).contains(number));
        if found.is_none() {
            let description = format_args!("is {number}, must be from 1 to {}", limits::LIMIT_STARTS_MAX);
            self.add(invalid, field, description);
        }
        found
    }
}

/// `None` if it is invalid.
fn parse_one(invalid: &mut InvalidFields, at: Position, limit: &v1::TaskLimit, catalog: &Catalog) -> Option<TaskLimit> {
    if (!limit.key.is_empty() || limit.name.is_empty())
        && let Err(error) = id::check_name(&limit.key)
    {
        at.add(invalid, "key", error);
    }
    let source = if limit.name.is_empty() {
        LimitSource::Own(own_rule(invalid, at, limit))
    } else {
        LimitSource::Configured(configured(invalid, at, limit, catalog)?)
    };
    Some(TaskLimit { source, key: limit.key.as_str().into() })
}

fn configured(
    invalid: &mut InvalidFields,
    at: Position,
    limit: &v1::TaskLimit,
    catalog: &Catalog,
) -> Option<LimitName> {
    let name = LimitName::parse(&limit.name).map_err(|error| at.add(invalid, "name", error)).ok()?;
    if !catalog.limits.contains_key(&name) {
        let known = catalog.limits.keys().map(LimitName::as_str).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none are".to_owned() } else { format!("configured are: {known}") };
        at.add(invalid, "name", format_args!("is `{name}`, which is not a configured limit; {known}"));
    }
    for (field, is_set) in [("max_running", limit.max_running != 0), ("rate", limit.rate.is_some())] {
        if is_set {
            at.add(invalid, field, format_args!("must be unset, because the configuration of `{name}` sets it"));
        }
    }
    Some(name)
}

fn own_rule(invalid: &mut InvalidFields, at: Position, limit: &v1::TaskLimit) -> LimitRule {
    if limit.max_running == 0 && limit.rate.is_none() {
        at.add(invalid, "max_running", "is 0 and there is no rate, one of both must be set");
    }
    let max_running = (limit.max_running != 0).then(|| at.count(invalid, "max_running", limit.max_running));
    let rate = limit.rate.as_ref().and_then(|rate| own_rate(invalid, at, *rate));
    LimitRule { max_running: max_running.flatten(), rate }
}

fn own_rate(invalid: &mut InvalidFields, at: Position, given: v1::StartRate) -> Option<StartRate> {
    let range = limits::LIMIT_INTERVAL_MIN..=limits::LIMIT_INTERVAL_MAX;
    let field = format!("{}limits[{}].rate.interval", at.path, at.index);
    let interval = invalid.duration(&field, given.interval.as_ref(), range).unwrap_or(Duration::from_secs(1));
    let starts = at.count(invalid, "rate.starts", given.starts);
    let burst = if given.burst == 0 { Some(1) } else { at.count(invalid, "rate.burst", given.burst) };
    let rate = StartRate { starts: starts?, interval, burst: burst? };
    if let Some((_, value, problem)) = rate.problem() {
        at.add(invalid, "rate.burst", format_args!("is {value}, which {problem}"));
    }
    Some(rate)
}

/// The limits of a task, as in its submission.
pub fn limits_of(options: &TaskOptions) -> Vec<v1::TaskLimit> {
    options.limits.iter().map(limit_of).collect()
}

fn limit_of(limit: &TaskLimit) -> v1::TaskLimit {
    let key = limit.key.to_string();
    match &limit.source {
        LimitSource::Configured(name) => v1::TaskLimit { name: name.to_string(), key, ..v1::TaskLimit::default() },
        LimitSource::Own(LimitRule { max_running, rate }) => v1::TaskLimit {
            name: String::new(),
            key,
            max_running: to_i32(max_running.unwrap_or(0)),
            rate: rate.map(start_rate),
        },
    }
}

fn start_rate(rate: StartRate) -> v1::StartRate {
    v1::StartRate { starts: to_i32(rate.starts), interval: Some(duration(rate.interval)), burst: to_i32(rate.burst) }
}

/// A limit that is configured or in use.
pub fn limit(view: &LimitView) -> v1::Limit {
    let (id, rule) = (view.id.by_ref(), view.rule.unwrap_or_default());
    v1::Limit {
        namespace: id.namespace.map(ToString::to_string).unwrap_or_default(),
        name: id.name.map(ToString::to_string).unwrap_or_default(),
        key: id.key.to_owned(),
        max_running: to_i32(rule.max_running.unwrap_or(0)),
        rate: rule.rate.map(start_rate),
        unfinished: to_i64(view.tasks as u64),
        taken: to_i64(view.taken as u64),
        waiting: to_i64(view.waiting as u64),
        tokens: to_i32(view.tokens.unwrap_or(0)),
        next_token_at: view.next_token.map(timestamp),
    }
}

/// What a task with these options waits for.
pub fn hold(hold: &LimitHold, options: &TaskOptions) -> Option<v1::LimitHold> {
    let limit = limit_of(options.limits.get(usize::from(hold.limit))?);
    let reason = match hold.cause {
        LimitCause::Places { taken, max } => Reason::Places(v1::PlacesTaken { taken: to_i32(taken), max: to_i32(max) }),
        LimitCause::Rate { until } => Reason::Rate(v1::RateReached { until: until.map(timestamp) }),
        LimitCause::NotConfigured => Reason::NotConfigured(true),
    };
    Some(v1::LimitHold { name: limit.name, key: limit.key, reason: Some(reason) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let rule = LimitRule { max_running: Some(5), rate: None };
        Catalog { limits: [(LimitName::parse("api").unwrap(), rule)].into(), ..Catalog::default() }
    }

    fn invalid(given: &[v1::TaskLimit]) -> Vec<String> {
        let mut invalid = InvalidFields::default();
        parse(&mut invalid, MessagePath::Root, given, &catalog());
        invalid.paths().into_iter().map(str::to_owned).collect()
    }

    fn own(max_running: i32) -> v1::TaskLimit {
        v1::TaskLimit { key: "k".to_owned(), max_running, ..v1::TaskLimit::default() }
    }

    fn with_rate(starts: i32, nanos: i32, burst: i32) -> v1::TaskLimit {
        let interval = Some(prost_types::Duration { seconds: 0, nanos });
        v1::TaskLimit { rate: Some(v1::StartRate { starts, interval, burst }), ..own(0) }
    }

    fn named(name: &str, key: &str) -> v1::TaskLimit {
        v1::TaskLimit { name: name.to_owned(), key: key.to_owned(), ..v1::TaskLimit::default() }
    }

    #[test]
    fn a_limit_is_read_as_it_was_submitted() {
        let rate = v1::StartRate { starts: 10, interval: None, burst: 0 };
        let given = [own(3), named("api", ""), named("api", "k"), v1::TaskLimit { rate: Some(rate), ..own(1) }];
        let mut invalid = InvalidFields::default();
        for limit in &given {
            let parsed = parse(&mut invalid, MessagePath::Root, std::slice::from_ref(limit), &catalog());
            let shown = limits_of(&TaskOptions { limits: parsed, ..TaskOptions::sample() }).remove(0);
            let rate = limit.rate.map(|_| v1::StartRate {
                starts: 10,
                interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
                burst: 1,
            });
            assert_eq!(shown, v1::TaskLimit { rate, ..limit.clone() });
        }
        assert!(invalid.paths().is_empty());
    }

    #[test]
    fn every_number_that_is_out_of_range_is_named() {
        assert_eq!(
            invalid(&[own(0), named("api", ""), own(-1)]),
            ["limits[0].max_running", "limits[2].key", "limits[2].max_running"]
        );
        assert_eq!(invalid(&[own(1_000_001)]), ["limits[0].max_running"]);
        assert_eq!(
            invalid(&[with_rate(-1, 1, -5)]),
            ["limits[0].rate.interval", "limits[0].rate.starts", "limits[0].rate.burst"]
        );
        assert_eq!(invalid(&[with_rate(0, 1_000_000, 1)]), ["limits[0].rate.starts"]);
        let slow = prost_types::Duration { seconds: 365 * 86_400, nanos: 0 };
        let rate = v1::StartRate { starts: 1, interval: Some(slow), burst: 2 };
        assert_eq!(invalid(&[v1::TaskLimit { rate: Some(rate), ..own(0) }]), ["limits[0].rate.burst"]);
    }

    #[test]
    fn a_name_must_be_configured_and_comes_without_numbers() {
        assert_eq!(invalid(&[named("other", "")]), ["limits[0].name"]);
        assert_eq!(invalid(&[named("a b", "")]), ["limits[0].name"]);
        assert_eq!(invalid(&[v1::TaskLimit { max_running: 1, ..named("api", "") }]), ["limits[0].max_running"]);
        assert_eq!(invalid(&[v1::TaskLimit { key: String::new(), ..own(1) }]), ["limits[0].key"]);
        let many: Vec<_> = (0..9).map(|key| v1::TaskLimit { key: format!("k{key}"), ..own(1) }).collect();
        assert_eq!(invalid(&many), ["limits"]);
    }
}
