//! The filter that a user types: words such as `state=failed label=team=red`, which the server applies, and other words,
//! which the rows must contain.

use crate::cli::format;
use crate::proto::v1::{self, Priority, TaskState};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub filter: v1::TaskFilter,
    /// In lower case.
    pub words: Vec<String>,
}

impl Query {
    /// # Errors
    /// A value is not valid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        let filter = &mut query.filter;
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("state", names)) => {
                    for name in names.split(',') {
                        let state = TaskState::from_str_name(&format!("TASK_STATE_{}", name.to_uppercase()));
                        filter.states.push(state.ok_or_else(|| format!("there is no state {name:?}"))?.into());
                    }
                }
                Some(("priority", names)) => {
                    for name in names.split(',') {
                        let priority = Priority::from_str_name(&format!("PRIORITY_{}", name.to_uppercase()));
                        filter
                            .priorities
                            .push(priority.ok_or_else(|| format!("there is no priority {name:?}"))?.into());
                    }
                }
                Some(("handler", name)) => name.clone_into(&mut filter.handler),
                Some(("pool", name)) => name.clone_into(&mut filter.pool),
                Some(("namespace", name)) => name.clone_into(&mut filter.namespace),
                Some(("batch", id)) => id.clone_into(&mut filter.batch_id),
                Some(("id", id)) => filter.task_ids.push(id.to_owned()),
                Some(("label", label)) => {
                    let (key, value) = label.split_once('=').ok_or("label: must be label=KEY=VALUE")?;
                    filter.labels.insert(key.to_owned(), value.to_owned());
                }
                _ => query.words.push(word.to_lowercase()),
            }
        }
        Ok(query)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_names_are_for_the_server_and_others_for_the_rows() {
        let query = Query::parse("state=failed,running label=team=red Time-Out").unwrap();
        assert_eq!(query.filter.states, [5, 3]);
        assert_eq!(query.filter.labels["team"], "red");
        assert!(query.matches(&["x", "a TIME-OUT"]) && !query.matches(&["x"]));
        assert!(Query::parse("state=lost").is_err() && Query::parse("label=x").is_err());
        assert_eq!(Query::parse(" ").unwrap(), Query::default());
    }
}
