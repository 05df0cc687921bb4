//! Limits of tasks: as options of a submission, and as what a task waits for.

use crate::cli::time::to_proto;
use crate::cli::view::View;
use crate::model::StartRate;
use crate::proto::v1::{self, limit_hold::Reason};

/// Parses `NAME`, `NAME/KEY`, or `KEY` with `,max=N`, `,rate=STARTS/INTERVAL` and `,burst=N`.
pub fn parse(text: &str) -> Result<v1::TaskLimit, String> {
    let (name, options) = text.split_once(',').map_or((text, None), |(name, options)| (name, Some(options)));
    let Some(options) = options else {
        let (name, key) = name.split_once('/').unwrap_or((name, ""));
        return Ok(v1::TaskLimit { name: name.to_owned(), key: key.to_owned(), ..v1::TaskLimit::default() });
    };
    let mut limit = v1::TaskLimit { key: name.to_owned(), ..v1::TaskLimit::default() };
    let mut burst = None;
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("max", number)) => limit.max_running = count("max", number)?,
            Some(("burst", number)) => burst = Some(count("burst", number)?),
            Some(("rate", rate)) => limit.rate = Some(start_rate(rate)?),
            _ => return Err(format!("`{option}` must be max=N, rate=STARTS/INTERVAL or burst=N")),
        }
    }
    match (&mut limit.rate, burst) {
        (Some(rate), Some(burst)) => rate.burst = burst,
        (None, Some(_)) => return Err("`burst` requires `rate`".to_owned()),
        (_, None) => {}
    }
    Ok(limit)
}

fn count(name: &str, text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| format!("`{name}` is `{text}`, must be a number of at least 1"))
}

fn start_rate(text: &str) -> Result<v1::StartRate, String> {
    let (starts, interval) = StartRate::parse(text).map_err(|problem| format!("`rate` is `{text}`, {problem}"))?;
    let starts = i32::try_from(starts).map_err(|_| format!("`rate` is `{text}`, has too many starts"))?;
    Ok(v1::StartRate { starts, interval: Some(to_proto(interval)), burst: 0 })
}

/// Names of the limits of a task.
pub fn names(limits: &[v1::TaskLimit]) -> String {
    limits.iter().map(|limit| name(&limit.name, &limit.key)).collect::<Vec<_>>().join(" ")
}

/// `NAME`, `NAME/KEY` or `KEY`.
pub fn name(name: &str, key: &str) -> String {
    let separator = if name.is_empty() || key.is_empty() { "" } else { "/" };
    format!("{name}{separator}{key}")
}

/// What a task waits for; empty if it is no limit.
pub fn hold(hold: Option<&v1::LimitHold>, view: &View) -> String {
    let Some((hold, reason)) = hold.and_then(|hold| Some((hold, hold.reason.as_ref()?))) else { return String::new() };
    let name = name(&hold.name, &hold.key);
    match reason {
        Reason::Places(places) => format!("limit {name}: {} of {} places taken", places.taken, places.max),
        Reason::Rate(rate) if rate.until.is_some() => {
            format!("rate limit {name}: next token {}", view.time(rate.until.as_ref()).text)
        }
        Reason::Rate(_) => format!("rate limit {name}: all tokens reserved for queued tasks"),
        Reason::NotConfigured(_) => format!("limit {name} is not configured any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::time::TimeForm;

    #[test]
    fn a_limit_is_a_configured_one_or_a_key_with_numbers() {
        let named = |name: &str, key: &str| {
            Ok(v1::TaskLimit { name: name.to_owned(), key: key.to_owned(), ..v1::TaskLimit::default() })
        };
        assert_eq!(parse("api"), named("api", ""));
        assert_eq!(parse("api/user-7"), named("api", "user-7"));
        let limit = parse("host:7,max=2,rate=10/m,burst=3").unwrap();
        assert_eq!((limit.key.as_str(), limit.max_running), ("host:7", 2));
        let rate = limit.rate.unwrap();
        assert_eq!((rate.starts, rate.interval.unwrap().seconds, rate.burst), (10, 60, 3));
        assert_eq!(names(&[parse("api/user-7").unwrap(), limit]), "api/user-7 host:7");
        for text in ["k,", "k,max=0", "k,max=NaN", "k,rate=-1/s", "k,rate=nan/s", "k,burst=2", "k,running=1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_hold_says_what_the_limit_lacks() {
        let view = View::of_stdout(Some(TimeForm::Utc));
        let text = |reason| {
            let hold_of = v1::LimitHold { name: "api".to_owned(), key: "k".to_owned(), reason: Some(reason) };
            hold(Some(&hold_of), &view)
        };
        assert_eq!(text(Reason::Places(v1::PlacesTaken { taken: 5, max: 5 })), "limit api/k: 5 of 5 places taken");
        let until = Some(prost_types::Timestamp { seconds: 0, nanos: 0 });
        let waits = text(Reason::Rate(v1::RateReached { until }));
        assert!(waits.starts_with("rate limit api/k: next token 1970-01-01T00:00:00"), "{waits}");
        assert_eq!(hold(None, &view), "");
    }
}
