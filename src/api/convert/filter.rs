//! Task filters, page sizes and page tokens.

use std::hash::{DefaultHasher, Hash, Hasher};

use prost::Message;

use crate::model::{
    BatchRef, FailureGroupId, HandlerName, Namespace, PoolName, Priority, TaskFilter, TaskId, TaskState, limits,
};
use crate::proto::v1;
use crate::scheduler::PageCursor;

use super::invalid_fields::{InvalidFields, MessagePath};
use super::submit_fields::{optional_name, priority};
use super::time;

/// Converts a filter. Task ids without a namespace are looked up in `default_namespace`.
///
/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn filter(filter: Option<v1::TaskFilter>, default_namespace: &Namespace) -> Result<TaskFilter, InvalidFields> {
    let Some(filter) = filter else { return Ok(TaskFilter::default()) };
    let mut invalid = InvalidFields::default();
    let ids = task_ids(&mut invalid, &filter.task_ids, default_namespace);
    let mut states = states(&mut invalid, &filter.states);
    if states.is_empty() && !filter.failure_group.is_empty() {
        states.push(TaskState::Failed);
    }
    let priorities = priorities(&mut invalid, &filter.priorities);
    invalid.check_length("filter.labels", filter.labels.len(), limits::LABELS_MAX, "labels");
    let mut timestamp = |field: &str, at: Option<prost_types::Timestamp>| {
        let at = at?;
        let parsed = time::parse_timestamp(&at);
        if parsed.is_none() {
            invalid.add(field, format!("is {} s {} ns, must be a time since 1970", at.seconds, at.nanos));
        }
        parsed
    };
    let submitted_from = timestamp("filter.submitted_after", filter.submitted_after);
    let submitted_until = timestamp("filter.submitted_before", filter.submitted_before);
    let group = Some(&*filter.failure_group).filter(|text| !text.is_empty());
    let failure_group = group.and_then(FailureGroupId::parse);
    if let Some(text) = group.filter(|_| failure_group.is_none()) {
        invalid.add("filter.failure_group", format_args!("is {text:?}, must be an ID from ListFailureGroups"));
    }
    let texts = texts(&mut invalid, &filter.texts);
    let namespace = invalid.optional("filter.namespace", &filter.namespace, Namespace::parse);
    let batch = invalid.optional("filter.batch_id", &filter.batch_id, BatchRef::parse);
    let (batch, of_batch) = batch.map_or((None, None), |batch| (Some(batch.id), batch.namespace));
    if let (Some(own), Some(namespace)) = (&of_batch, &namespace)
        && own != namespace
    {
        invalid.add("filter.batch_id", format_args!("is in namespace `{own}`, but the filter is for `{namespace}`"));
    }
    let parsed = TaskFilter {
        ids,
        batch,
        labels: filter.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        states,
        pool: invalid.optional("filter.pool", &filter.pool, PoolName::parse),
        handler: invalid.optional("filter.handler", &filter.handler, HandlerName::parse),
        namespaces: namespace.or(of_batch).into_iter().collect(),
        priorities,
        submitted_from,
        submitted_until,
        failure_group,
        texts,
    };
    invalid.check().map(|()| parsed)
}

fn task_ids(invalid: &mut InvalidFields, texts: &[String], default_namespace: &Namespace) -> Vec<TaskId> {
    invalid.check_length("filter.task_ids", texts.len(), limits::FILTER_VALUES_MAX, "values");
    let mut ids = Vec::new();
    for (index, text) in texts.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        let candidates = TaskId::candidates(default_namespace, text);
        ids.extend(invalid.parsed(format_args!("filter.task_ids[{index}]"), candidates).into_iter().flatten());
    }
    ids
}

fn states(invalid: &mut InvalidFields, numbers: &[i32]) -> Vec<TaskState> {
    invalid.check_length("filter.states", numbers.len(), limits::FILTER_VALUES_MAX, "values");
    let mut states = Vec::new();
    for (index, number) in numbers.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        if let Some(state) = u8::try_from(*number).ok().and_then(TaskState::from_number) {
            states.push(state);
        } else {
            invalid.add(format_args!("filter.states[{index}]"), format_args!("is {number}, must be from 1 to 6"));
        }
    }
    states
}

fn priorities(invalid: &mut InvalidFields, numbers: &[i32]) -> Vec<Priority> {
    invalid.check_length("filter.priorities", numbers.len(), limits::FILTER_VALUES_MAX, "values");
    let mut priorities = Vec::new();
    for (index, number) in numbers.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        let field = format_args!("filter.priorities[{index}]");
        if *number == 0 {
            invalid.add(field, "is 0, must be from 1 to 4");
        } else {
            priorities.push(priority(invalid, field, *number));
        }
    }
    priorities
}

fn texts(invalid: &mut InvalidFields, texts: &[String]) -> Vec<Box<str>> {
    invalid.check_length("filter.texts", texts.len(), limits::FILTER_TEXTS_MAX, "texts");
    for (index, text) in texts.iter().enumerate().take(limits::FILTER_TEXTS_MAX) {
        let field = format_args!("filter.texts[{index}]");
        if text.is_empty() {
            invalid.add(field, "is empty; leave it out to search for nothing");
        } else {
            invalid.check_length(field, text.len(), limits::FILTER_TEXT_BYTES_MAX, "bytes");
        }
    }
    texts.iter().map(|text| text.to_lowercase().into()).collect()
}

/// The field `request_id` of a request.
pub fn request_id(invalid: &mut InvalidFields, text: &str) -> Option<Box<str>> {
    optional_name(invalid, MessagePath::Root.field("request_id"), text)
}

/// Returns the number of rows of a page: 0 stands for the default, and larger sizes than the limit are reduced to it.
///
/// # Errors
/// [`InvalidFields`] if it is negative.
pub fn page_size(size: i32) -> Result<usize, InvalidFields> {
    match usize::try_from(size) {
        Ok(0) => Ok(limits::PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(limits::PAGE_SIZE_MAX)),
        Err(_) => Err(InvalidFields::one("page_size", format!("is {size}, must not be negative"))),
    }
}

/// Returns the token of the next page: its position, and a checksum over the position and the filter.
pub fn page_token(cursor: Option<PageCursor>, filter: &impl Message) -> String {
    cursor.map_or_else(String::new, |PageCursor(at)| format!("{at:x}-{:x}", checksum(at, filter)))
}

/// Returns the position in a page token; `None` for an empty token, which stands for the first page.
///
/// # Errors
/// [`InvalidFields`] if the token was not made for this filter.
pub fn page_cursor(token: &str, filter: &impl Message) -> Result<Option<PageCursor>, InvalidFields> {
    if token.is_empty() {
        return Ok(None);
    }
    let at = token.split_once('-').and_then(|(at, _)| u64::from_str_radix(at, 16).ok());
    match at.map(PageCursor) {
        Some(cursor) if page_token(Some(cursor), filter) == token => Ok(Some(cursor)),
        _ => {
            let description = "is not valid for this filter; pass the token of the previous page unchanged";
            Err(InvalidFields::one("page_token", description))
        }
    }
}

/// Of a position and of the filter for which it is one.
pub(super) fn checksum<T: Message>(at: impl Hash, filter: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    at.hash(&mut hasher);
    // Empty filters of all kinds look the same.
    std::any::type_name::<T>().hash(&mut hasher);
    filter.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BatchId;

    #[test]
    fn every_invalid_value_is_reported() {
        let invalid = v1::TaskFilter {
            task_ids: vec!["ok".into(), "not ok".into()],
            states: vec![1, 99],
            pool: "p/q".into(),
            failure_group: "ff".into(),
            texts: vec!["ok".into(), String::new(), "x".repeat(limits::FILTER_TEXT_BYTES_MAX + 1)],
            ..v1::TaskFilter::default()
        };
        assert_eq!(
            filter(Some(invalid), &Namespace::default()).unwrap_err().paths(),
            [
                "filter.task_ids[1]",
                "filter.states[1]",
                "filter.failure_group",
                "filter.texts[1]",
                "filter.texts[2]",
                "filter.pool"
            ]
        );
    }

    #[test]
    fn every_field_of_a_filter_is_converted() {
        let full = v1::TaskFilter {
            task_ids: vec!["t".into()],
            batch_id: "b".into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            states: vec![v1::TaskState::Failed.into()],
            pool: "p".into(),
            handler: "h".into(),
            namespace: "n".into(),
            priorities: vec![v1::Priority::High.into()],
            submitted_after: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            submitted_before: Some(prost_types::Timestamp { seconds: 2, nanos: 0 }),
            failure_group: "00000000000000ff".into(),
            texts: vec!["Time-OUT".into()],
        };
        let expected = TaskFilter {
            ids: vec![TaskId::parse("t").unwrap()],
            batch: Some(BatchId::parse("b").unwrap()),
            labels: vec![("k".into(), "v".into())],
            states: vec![TaskState::Failed],
            pool: Some(PoolName::parse("p").unwrap()),
            handler: Some(HandlerName::parse("h").unwrap()),
            namespaces: vec![Namespace::parse("n").unwrap()],
            priorities: vec![Priority::High],
            submitted_from: Some(crate::model::Timestamp(1_000_000)),
            submitted_until: Some(crate::model::Timestamp(2_000_000)),
            failure_group: FailureGroupId::parse("00000000000000ff"),
            texts: vec!["time-out".into()],
        };
        assert_eq!(filter(Some(full), &Namespace::default()).unwrap(), expected);
        assert_eq!(filter(None, &Namespace::default()).unwrap(), TaskFilter::default());
    }

    #[test]
    fn lists_and_times_are_limited() {
        let bad = v1::TaskFilter {
            task_ids: vec!["t".into(); limits::FILTER_VALUES_MAX + 1],
            labels: (0..=limits::LABELS_MAX).map(|n| (n.to_string(), String::new())).collect(),
            priorities: vec![0, 9],
            texts: vec!["t".into(); limits::FILTER_TEXTS_MAX + 1],
            submitted_after: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
            ..v1::TaskFilter::default()
        };
        let paths = [
            "filter.task_ids",
            "filter.priorities[0]",
            "filter.priorities[1]",
            "filter.labels",
            "filter.submitted_after",
            "filter.texts",
        ];
        assert_eq!(filter(Some(bad), &Namespace::default()).unwrap_err().paths(), paths);
    }

    #[test]
    fn a_page_size_is_reduced_to_the_limit() {
        assert_eq!(page_size(0).unwrap(), limits::PAGE_SIZE_DEFAULT);
        assert_eq!(page_size(7).unwrap(), 7);
        assert_eq!(page_size(i32::MAX).unwrap(), limits::PAGE_SIZE_MAX);
        assert!(page_size(-1).is_err());
    }

    #[test]
    fn an_altered_page_token_is_rejected() {
        let filter = v1::TaskFilter::default();
        let token = page_token(Some(PageCursor(u64::MAX)), &filter);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        for altered in ["-", "0-0", "1", "\u{e4}-1", &token[1..], &format!("{token}0"), &format!("+{token}")] {
            assert!(page_cursor(altered, &filter).is_err(), "{altered}");
        }
        assert_eq!(page_cursor("", &filter).unwrap(), None);
        assert_eq!(page_token(None, &filter), "");
    }

    #[test]
    fn a_page_token_is_only_valid_for_its_filter() {
        let (one, other) = (v1::TaskFilter::default(), v1::TaskFilter { pool: "p".into(), ..Default::default() });
        let token = page_token(Some(PageCursor(42)), &one);
        assert_eq!(page_cursor(&token, &one).unwrap(), Some(PageCursor(42)));
        assert!(page_cursor(&token, &other).is_err());
        assert!(page_cursor("garbage", &one).is_err());
        let of_all = page_token(Some(PageCursor(42)), &v1::TaskFilter::default());
        assert!(page_cursor(&of_all, &v1::ListLimitsRequest::default()).is_err(), "a token of another call");
    }
}
