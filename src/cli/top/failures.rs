//! Failures that are alike, as one.

use std::collections::HashMap;

use crate::cli::format;
use crate::proto::v1;

#[derive(Clone, Debug)]
pub struct FailureGroup {
    pub handler: String,
    pub reason: String,
    /// The message of the newest.
    pub message: String,
    pub count: usize,
    pub newest: Option<prost_types::Timestamp>,
    pub newest_id: String,
}

/// Groups failed tasks by handler, reason and message. The tasks are newest first.
pub fn group(tasks: &[v1::Task]) -> Vec<FailureGroup> {
    let mut groups: Vec<FailureGroup> = Vec::new();
    let mut by_key: HashMap<(&str, i32, String), usize> = HashMap::new();
    for task in tasks {
        let Some(failure) = &task.failure else { continue };
        let key = (task.handler.as_str(), failure.reason, fingerprint(&failure.message));
        let index = *by_key.entry(key).or_insert(groups.len());
        if let Some(group) = groups.get_mut(index) {
            group.count += 1;
            continue;
        }
        groups.push(FailureGroup {
            handler: task.handler.clone(),
            reason: format::failure_reason(failure.reason),
            message: failure.message.clone(),
            count: 1,
            newest: task.finished_at,
            newest_id: task.task_id.clone(),
        });
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

/// The message without what differs between failures of one cause: words with a digit, and quoted texts.
fn fingerprint(message: &str) -> String {
    let mut quote = None;
    let mut text = String::with_capacity(message.len());
    for char in message.chars() {
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => {
                text.push('#');
                quote = Some(char);
            }
            (None, _) => text.push(char),
        }
    }
    let words =
        text.split_inclusive(|char: char| char.is_whitespace() || matches!(char, '=' | ',' | ';' | '(' | ')' | '/'));
    words.map(|word| if word.contains(|char: char| char.is_ascii_digit()) { "#" } else { word }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(id: &str, handler: &str, message: &str) -> v1::Task {
        let failure = v1::Failure { reason: 1, message: message.to_owned(), ..v1::Failure::default() };
        v1::Task { task_id: id.to_owned(), handler: handler.to_owned(), failure: Some(failure), ..v1::Task::default() }
    }

    #[test]
    fn failures_with_one_cause_are_one_group() {
        let groups = group(&[
            failed("d", "other", "exit code 1"),
            failed("c", "h", "no row 17 in \"users\" after 3ms"),
            failed("b", "h", "no row 4 in \"orders\" after 12ms"),
            failed("a", "h", "refused"),
        ]);
        let shown: Vec<_> = groups.iter().map(|group| (group.count, group.newest_id.as_str())).collect();
        assert_eq!(shown, [(2, "c"), (1, "d"), (1, "a")]);
    }
}
