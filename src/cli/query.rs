//! A filter in words, such as `state=failed label=team=red since=1h`, as `--filter`, `lineshaft top` and the URL of the dashboard
//! have it. The server applies words with a name; rows must contain the others.

use super::format;
use super::time::{parse_time, to_timestamp};
use crate::model::Timestamp;
use crate::proto::v1::{self, Priority, TaskState};

/// Names of the words that the server applies.
pub const NAMES: &str = "state, priority, handler, pool, namespace, batch, label, id, failure-group, since and until";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub filter: v1::TaskFilter,
    /// In lower case.
    pub words: Vec<String>,
}

impl Query {
    /// Parses the words. A duration of `since` and `until` is one before `now`.
    ///
    /// # Errors
    /// A value is not valid, or there are two where only one is possible.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let mut query = Self::default();
        for word in text.split_whitespace() {
            let is_named = match word.split_once('=') {
                Some((name, value)) => query.set(name, value, now)?,
                None => false,
            };
            if !is_named {
                query.words.push(word.to_lowercase());
            }
        }
        Ok(query)
    }

    /// Whether the name is known.
    fn set(&mut self, name: &str, value: &str, now: Timestamp) -> Result<bool, String> {
        let filter = &mut self.filter;
        match name {
            "state" => {
                for name in value.split(',') {
                    let state = TaskState::from_str_name(&format!("TASK_STATE_{}", name.to_uppercase()));
                    filter.states.push(state.ok_or_else(|| format!("there is no state {name:?}"))?.into());
                }
            }
            "priority" => {
                for name in value.split(',') {
                    let priority = Priority::from_str_name(&format!("PRIORITY_{}", name.to_uppercase()));
                    filter.priorities.push(priority.ok_or_else(|| format!("there is no priority {name:?}"))?.into());
                }
            }
            "handler" => set_once(name, &mut filter.handler, value)?,
            "pool" => set_once(name, &mut filter.pool, value)?,
            "namespace" => set_once(name, &mut filter.namespace, value)?,
            "batch" => set_once(name, &mut filter.batch_id, value)?,
            "failure-group" => set_once(name, &mut filter.failure_group, value)?,
            "id" => filter.task_ids.push(value.to_owned()),
            "label" => {
                let (key, value) = value.split_once('=').ok_or("label: must be label=KEY=VALUE")?;
                set_once(&format!("label={key}"), filter.labels.entry(key.to_owned()).or_default(), value)?;
            }
            "since" | "until" => {
                let time = parse_time(value, now).map_err(|problem| format!("{name}: {problem}"))?;
                let bound = if name == "since" { &mut filter.submitted_after } else { &mut filter.submitted_before };
                if bound.replace(to_timestamp(time)).is_some() {
                    return Err(format!("{name} is given more than once"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether a row with these texts has all words.
    pub fn matches(&self, texts: &[&str]) -> bool {
        let texts: Vec<_> = texts.iter().map(|text| text.to_lowercase()).collect();
        self.words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
    }

    pub fn matches_task(&self, task: &v1::Task) -> bool {
        let failure = format::failure(task.failure.as_ref());
        self.words.is_empty() || self.matches(&[&task.task_id, &task.display_name, &task.handler, &failure])
    }
}

/// # Errors
/// There is another value already.
pub fn set_once(name: &str, field: &mut String, value: &str) -> Result<(), String> {
    if !field.is_empty() && field != value {
        return Err(format!("{name} cannot be both {field:?} and {value:?}"));
    }
    value.clone_into(field);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, String> {
        Query::parse(text, Timestamp(7_200_000_000))
    }

    #[test]
    fn words_with_names_are_for_the_server_and_others_for_the_rows() {
        let query = parse("state=failed,running label=team=red Time-Out a=b since=1h").unwrap();
        assert_eq!(query.filter.states, [5, 3]);
        assert_eq!(query.filter.labels["team"], "red");
        assert_eq!(query.filter.submitted_after, Some(prost_types::Timestamp { seconds: 3600, nanos: 0 }));
        assert_eq!(query.words, ["time-out", "a=b"]);
        assert!(query.matches(&["x", "a TIME-OUT of a=b"]) && !query.matches(&["x", "a=b"]));
        assert_eq!(parse(" ").unwrap(), Query::default());
    }

    #[test]
    fn a_value_that_is_not_valid_or_contradicts_another_is_refused() {
        for text in [
            "state=lost",
            "priority=x",
            "label=x",
            "since=soon",
            "since=1h since=2h",
            "handler=a handler=b",
            "label=a=1 label=a=2",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("pool=a pool=a").is_ok());
    }
}
