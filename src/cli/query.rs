//! A filter in words, such as `state=failed label=team=red since=1h "connection refused"`, as `--filter`, `lineshaft top` and the URL
//! of the dashboard have it. The server applies it to tasks; other rows must contain the words without a name.

use super::time::{parse_time, to_timestamp};
use crate::model::Timestamp;
use crate::proto::v1::{self, Priority, TaskState};

/// Names of the words that the server applies.
pub const NAMES: &str =
    "state, priority, handler, pool, namespace, batch, label, id, failure-group, text, since and until";

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Without the words.
    filter: v1::TaskFilter,
    /// Those without a name, in lower case.
    words: Vec<String>,
}

impl Query {
    /// Parses the words. Double quotes enclose blanks. A duration of `since` and `until` is one before `now`.
    ///
    /// # Errors
    /// A value is not valid, there are two where only one is possible, or a name is not known.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, String> {
        let mut query = Self::default();
        for (word, is_quoted) in words(text) {
            match word.split_once('=').filter(|_| !is_quoted) {
                Some((name, value)) => query.set(name, value, now)?,
                None => query.words.push(word.to_lowercase()),
            }
        }
        Ok(query)
    }

    /// The filter of tasks.
    pub fn for_tasks(&self) -> v1::TaskFilter {
        let texts = [&*self.filter.texts, &*self.words].concat();
        v1::TaskFilter { texts, ..self.filter.clone() }
    }

    fn set(&mut self, name: &str, value: &str, now: Timestamp) -> Result<(), String> {
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
            "text" => filter.texts.push(value.to_owned()),
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
            _ => return Err(format!("there is no name {name:?}; the names are {NAMES}. Quote a text with a \"=\"")),
        }
        Ok(())
    }

    /// Whether a row with these texts has all words.
    pub fn matches(&self, texts: &[&str]) -> bool {
        let texts: Vec<_> = texts.iter().map(|text| text.to_lowercase()).collect();
        self.words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
    }
}

/// The words of a text, without their quotes, and whether each begins with one. A quote without an end lasts until the end of the
/// text.
fn words(text: &str) -> Vec<(String, bool)> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let (mut word, is_quoted, mut in_quotes) = (String::new(), rest.starts_with('"'), false);
        let mut end = rest.len();
        for (at, char) in rest.char_indices() {
            if char.is_whitespace() && !in_quotes {
                end = at;
                break;
            }
            if char == '"' {
                in_quotes = !in_quotes;
            } else {
                word.push(char);
            }
        }
        rest = rest[end..].trim_start();
        if !word.is_empty() {
            words.push((word, is_quoted));
        }
    }
    words
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
    fn words_without_a_name_are_texts_of_tasks_and_of_other_rows() {
        let query = parse("state=failed,running label=team=red Time-Out \"a=b c\" since=1h text=\"x y\"").unwrap();
        let filter = query.for_tasks();
        assert_eq!(filter.states, [5, 3]);
        assert_eq!(filter.labels["team"], "red");
        assert_eq!(filter.submitted_after, Some(prost_types::Timestamp { seconds: 3600, nanos: 0 }));
        assert_eq!(filter.texts, ["x y", "time-out", "a=b c"]);
        assert!(query.matches(&["x", "a TIME-OUT of a=b c"]) && !query.matches(&["x", "a=b c"]));
        assert_eq!(parse(" ").unwrap(), Query::default());
    }

    #[test]
    fn quotes_enclose_blanks() {
        let texts = |text| parse(text).unwrap().for_tasks().texts;
        assert_eq!(texts("\"connection refused\" by peer"), ["connection refused", "by", "peer"]);
        assert_eq!(texts("text=\"a b\"c \"\" \"no end"), ["a bc", "no end"]);
        assert_eq!(parse("label=\"a b=c d\"").unwrap().for_tasks().labels["a b"], "c d");
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
            "stat=failed",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("pool=a pool=a").is_ok());
    }
}
