//! Section `[[task_limit]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use crate::model::limits::LIMIT_STARTS_MAX;
use crate::model::{LimitName, LimitRule, StartRate, id};

/// `[[task_limit]]`: a limit that tasks name in their submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskLimit {
    /// Name: 1 to 64 letters, digits or . _ : - characters. Tasks of all namespaces that name it share the limit. Tasks that
    /// name it with a key share it only with those of their namespace with the same key. Required.
    pub name: String,
    /// Maximum number of tasks that run at once, 1 to 1,000,000. Default: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u32>,
    /// Number of tasks that start in an interval of 1ms to 365d, such as "10/s" or "100/1m". Default: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// With `rate`: number of tasks that start at once after a pause, 1 to 1,000,000. Default: 1, so that the starts are evenly
    /// spaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl TaskLimit {
    /// Converts to the model; `None` if it is invalid.
    pub(super) fn rule(&self) -> Option<(LimitName, LimitRule)> {
        let rate = match self.rate.as_deref().map(StartRate::parse) {
            Some(Ok((starts, interval))) => Some(StartRate { starts, interval, burst: self.burst.unwrap_or(1) }),
            Some(Err(_)) => return None,
            None => None,
        };
        Some((LimitName::parse(&self.name).ok()?, LimitRule { max_running: self.max_running, rate }))
    }

    pub(super) fn check(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = id::check_name(&self.name) {
            problems.add(format!("{path}.name"), format!("{:?}", self.name), error.to_string());
        }
        if let Some(max) = self.max_running {
            problems.check_range(format!("{path}.max_running"), max, 1, LIMIT_STARTS_MAX);
        }
        match &self.rate {
            Some(text) => self.check_rate(text, path, problems),
            None if self.max_running.is_none() => {
                problems.add(path, "", "must have `max_running`, `rate` or both");
            }
            None => {}
        }
        if let Some(burst) = self.burst.filter(|_| self.rate.is_none()) {
            problems.add(format!("{path}.burst"), burst.to_string(), "requires `rate`");
        }
    }

    fn check_rate(&self, text: &str, path: &str, problems: &mut Problems) {
        let field = format!("{path}.rate");
        match StartRate::parse(text) {
            Err(problem) => problems.add(field, format!("{text:?}"), problem),
            Ok((starts, interval)) => {
                let rate = StartRate { starts, interval, burst: self.burst.unwrap_or(1) };
                match rate.problem() {
                    Some(("burst", value, problem)) => problems.add(format!("{path}.burst"), value, problem),
                    Some((part, value, problem)) => {
                        problems.add(field, format!("{text:?}"), format!("has {part} {value}, which {problem}"));
                    }
                    None => {}
                }
            }
        }
    }
}
