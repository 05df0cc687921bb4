//! Section `[[schedule]]`.

use std::collections::BTreeMap;

use chrono::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Problems;
use super::units::HumanDuration;
use crate::model::schedule::schedule_id;
use crate::model::{Namespace, ScheduleKey, limits};

/// `[[schedule]]`: a task that is submitted again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// ID: 1 to 40 letters, digits or . _ : - characters. Required.
    pub id: String,
    /// Namespace of the schedule and its tasks. Default: "default".
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Cron pattern, such as "30 2 * * MON-FRI". Either this or `every` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// IANA time zone of `cron`, such as "Europe/Berlin". Default: "UTC".
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    /// Local times that a change of the clocks skips or repeats: "once", "skip" or "wall-clock". Default: "once".
    #[serde(default)]
    pub dst: Dst,
    /// Interval in whole seconds, 1s to 365d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// No run is before this time, such as "2027-01-31T00:00:00Z". Default: the first time after the schedule is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// No run is after this time. Default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Number of runs, 1 to 1,000,000,000. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u32>,
    /// Each run is late by up to this time, 0 to 24h. Default: 0s.
    #[serde(default)]
    pub jitter: HumanDuration,
    /// A run that cannot start within this time after it was due does not take place, 0 to 365d. Default: 1h.
    #[serde(default = "default_catch_up_window")]
    pub catch_up_window: HumanDuration,
    /// A run that is due while a task of the schedule is unfinished: "skip", "queue", "allow" or "cancel-old". Default: "skip".
    #[serde(default)]
    pub overlap: Overlap,
    /// Name of a `[[handler]]`, or of a built-in handler. Required.
    pub handler: String,
    /// Payload as a text. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Payload as JSON: a value, an array or a table. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// Arguments for a handler that accepts them. Default: none.
    #[serde(default)]
    pub args: Vec<String>,
    /// Pool, if the handler allows others than its own. Default: that of the handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Priority: "low", "normal", "high" or "critical". Default: "normal".
    #[serde(default)]
    pub priority: Priority,
    /// Name for people. Default: "".
    #[serde(default)]
    pub name: String,
    /// Labels. Default: none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Timeout of an attempt, 1ms to 24h. Default: that of the handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// Local times that a change of the clocks skips or repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dst {
    /// A skipped time runs right after the change, a repeated one once.
    #[default]
    Once,
    /// A skipped time does not run.
    Skip,
    /// A skipped time does not run, a repeated one runs twice.
    WallClock,
}

/// A run that is due while a task of the schedule is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It does not take place.
    #[default]
    Skip,
    /// It waits; only one run does.
    Queue,
    /// It starts beside the others.
    Allow,
    /// The others are cancelled first.
    CancelOld,
}

/// Priority of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Critical,
}

impl Schedule {
    /// `None` if a name is invalid.
    pub fn key(&self) -> Option<ScheduleKey> {
        Some(ScheduleKey { namespace: Namespace::parse(&self.namespace).ok()?, id: schedule_id(&self.id).ok()? })
    }

    /// Checks what a call would not check in the same way. The server checks the rest when it converts the schedule.
    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = schedule_id(&self.id) {
            problems.add(format!("{path}.id"), format!("{:?}", self.id), error.to_string());
        }
        if let Err(error) = Namespace::parse(&self.namespace) {
            problems.add(format!("{path}.namespace"), format!("{:?}", self.namespace), error.to_string());
        }
        if self.cron.is_some() == self.every.is_some() {
            problems.add(path, "", "must have either `cron` or `every`");
        }
        if self.payload.is_some() && self.json.is_some() {
            problems.add(path, "", "can have only one of `payload` and `json`");
        }
        // TOML has no null: it stands for a number that JSON does not have.
        if self.json.as_ref().is_some_and(has_null) {
            problems.add(format!("{path}.json"), "", "has a number that is `nan` or `inf`, which JSON does not have");
        }
        for (name, time) in [("start", &self.start), ("end", &self.end)] {
            if let Some(text) = time.as_ref().filter(|text| DateTime::parse_from_rfc3339(text).is_err()) {
                problems.add(
                    format!("{path}.{name}"),
                    format!("{text:?}"),
                    "is no time such as \"2027-01-31T00:00:00Z\"",
                );
            }
        }
        if self.max_runs == Some(0) {
            problems.add(format!("{path}.max_runs"), 0, "must be at least 1");
        }
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(fields) => fields.values().any(has_null),
        _ => false,
    }
}

fn default_namespace() -> String {
    Namespace::default().to_string()
}

fn default_time_zone() -> String {
    "UTC".to_owned()
}

fn default_catch_up_window() -> HumanDuration {
    HumanDuration(limits::CATCH_UP_DEFAULT)
}

#[cfg(test)]
mod tests {
    use crate::config::{Overrides, load};
    use crate::model::limits::SCHEDULES_MAX;

    #[test]
    fn a_number_that_json_does_not_have_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (json, is_valid) in [("nan", false), ("{ a = [1, -inf] }", false), ("{ a = [1, -1.5] }", true)] {
            let text = format!("[[schedule]]\nid = \"s\"\nevery = \"1h\"\nhandler = \"compute\"\njson = {json}\n");
            std::fs::write(file.path(), text).unwrap();
            match load(Some(file.path()), [], Overrides::default()) {
                Ok(config) => assert!(is_valid && config.dump().contains("-1.5"), "{json}"),
                Err(error) => {
                    let fields: Vec<_> = error.problems().iter().map(|problem| &*problem.field).collect();
                    assert!(!is_valid && fields == ["schedule[0].json"], "{error}");
                }
            }
        }
    }

    #[test]
    fn the_schedules_of_a_namespace_are_limited() {
        let fields_with = |count: usize| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let schedule = |n, namespace| {
                format!(
                    "[[schedule]]\nnamespace = \"{namespace}\"\nid = \"s{n}\"\nevery = \"1h\"\nhandler = \"compute\"\n"
                )
            };
            let text: String = (0..count).map(|n| schedule(n, "a") + &schedule(n, "b")).collect();
            std::fs::write(file.path(), text).unwrap();
            let problems = load(Some(file.path()), [], Overrides::default()).map_err(|error| error.problems().to_vec());
            problems.err().into_iter().flatten().map(|problem| problem.field).collect::<Vec<_>>()
        };
        assert!(fields_with(SCHEDULES_MAX).is_empty());
        let (a, b) = (2 * SCHEDULES_MAX, 2 * SCHEDULES_MAX + 1);
        assert_eq!(fields_with(SCHEDULES_MAX + 2), [a, b].map(|index| format!("schedule[{index}].namespace")));
    }
}
