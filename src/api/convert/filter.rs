//! Filters and pages.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::id::NameError;
use crate::model::{BatchId, HandlerName, Namespace, PoolName, TaskFilter, TaskId, TaskState, limits};
use crate::proto::v1;
use crate::scheduler::PageCursor;

use super::{InvalidFields, fields, time};

/// A filter of the contract, of a caller who is at home in that namespace.
///
/// # Errors
/// [`InvalidFields`], with every bad field.
pub fn filter(filter: Option<v1::TaskFilter>, home: &Namespace) -> Result<TaskFilter, InvalidFields> {
    let Some(filter) = filter else { return Ok(TaskFilter::default()) };
    let mut bad = InvalidFields::default();
    bad.at_most("filter.task_ids", filter.task_ids.len(), limits::FILTER_VALUES_MAX, "values");
    bad.at_most("filter.states", filter.states.len(), limits::FILTER_VALUES_MAX, "values");
    bad.at_most("filter.priorities", filter.priorities.len(), limits::FILTER_VALUES_MAX, "values");
    bad.at_most("filter.labels", filter.labels.len(), limits::LABELS_MAX, "labels");
    let mut ids = Vec::new();
    for (index, text) in filter.task_ids.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        ids.extend(
            bad.take(format_args!("filter.task_ids[{index}]"), TaskId::candidates(home, text)).into_iter().flatten(),
        );
    }
    let mut states = Vec::new();
    for (index, number) in filter.states.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        match u8::try_from(*number).ok().and_then(TaskState::from_number) {
            Some(state) => states.push(state),
            None => bad.add(format_args!("filter.states[{index}]"), format_args!("is {number}, states are 1 to 6")),
        }
    }
    let mut priorities = Vec::new();
    for (index, number) in filter.priorities.iter().enumerate().take(limits::FILTER_VALUES_MAX) {
        let field = format!("filter.priorities[{index}]");
        if *number == 0 {
            bad.add(field, "is unspecified");
        } else {
            priorities.push(fields::priority(&mut bad, field, *number));
        }
    }
    let mut moment = |field: &str, at: Option<prost_types::Timestamp>| {
        let at = at?;
        let parsed = time::moment(&at);
        if parsed.is_none() {
            bad.add(field, format!("is {} s {} ns, which is not a time since 1970", at.seconds, at.nanos));
        }
        parsed
    };
    let submitted_from = moment("filter.submitted_after", filter.submitted_after);
    let submitted_until = moment("filter.submitted_before", filter.submitted_before);
    let parsed = TaskFilter {
        ids,
        batch: name(&mut bad, "filter.batch_id", &filter.batch_id, BatchId::parse),
        labels: filter.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        states,
        pool: name(&mut bad, "filter.pool", &filter.pool, PoolName::parse),
        handler: name(&mut bad, "filter.handler", &filter.handler, HandlerName::parse),
        namespaces: name(&mut bad, "filter.namespace", &filter.namespace, Namespace::parse).into_iter().collect(),
        priorities,
        submitted_from,
        submitted_until,
    };
    bad.check().map(|()| parsed)
}

fn name<T>(
    bad: &mut InvalidFields,
    field: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, NameError>,
) -> Option<T> {
    if text.is_empty() { None } else { bad.take(field, parse(text)) }
}

/// Rows of a page.
///
/// # Errors
/// [`InvalidFields`] when it is negative.
pub fn page_size(size: i32) -> Result<usize, InvalidFields> {
    match usize::try_from(size) {
        Ok(0) => Ok(limits::PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(limits::PAGE_SIZE_MAX)),
        Err(_) => Err(InvalidFields::one("page_size", format!("is {size}, it must not be negative"))),
    }
}

/// The token of the next page: a position, bound to its filter.
pub fn page_token(cursor: Option<PageCursor>, filter: &v1::TaskFilter) -> String {
    cursor.map_or_else(String::new, |PageCursor(at)| format!("{at:x}-{:x}", binding(at, filter)))
}

/// The position of a token.
///
/// # Errors
/// [`InvalidFields`] when it is not a token of this filter.
pub fn page_cursor(token: &str, filter: &v1::TaskFilter) -> Result<Option<PageCursor>, InvalidFields> {
    if token.is_empty() {
        return Ok(None);
    }
    let at = token.split_once('-').and_then(|(at, _)| u64::from_str_radix(at, 16).ok());
    match at.map(PageCursor) {
        Some(cursor) if page_token(Some(cursor), filter) == token => Ok(Some(cursor)),
        _ => Err(InvalidFields::one("page_token", "is not a token of this listing; was the filter changed?")),
    }
}

fn binding(at: u64, filter: &v1::TaskFilter) -> u64 {
    let mut hasher = DefaultHasher::new();
    at.hash(&mut hasher);
    prost::Message::encode_to_vec(filter).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_value_is_named() {
        let garbage = v1::TaskFilter {
            task_ids: vec!["ok".into(), "not ok".into()],
            states: vec![1, 99],
            pool: "p/q".into(),
            ..v1::TaskFilter::default()
        };
        assert_eq!(
            filter(Some(garbage), &Namespace::default()).unwrap_err().paths(),
            ["filter.task_ids[1]", "filter.states[1]", "filter.pool"]
        );
    }

    #[test]
    fn a_full_filter_keeps_all_of_its_parts() {
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
        };
        let expected = TaskFilter {
            ids: vec![TaskId::parse("t").unwrap()],
            batch: Some(BatchId::parse("b").unwrap()),
            labels: vec![("k".into(), "v".into())],
            states: vec![TaskState::Failed],
            pool: Some(PoolName::parse("p").unwrap()),
            handler: Some(HandlerName::parse("h").unwrap()),
            namespaces: vec![Namespace::parse("n").unwrap()],
            priorities: vec![crate::model::Priority::High],
            submitted_from: Some(crate::model::Timestamp(1_000_000)),
            submitted_until: Some(crate::model::Timestamp(2_000_000)),
        };
        assert_eq!(filter(Some(full), &Namespace::default()).unwrap(), expected);
        assert_eq!(filter(None, &Namespace::default()).unwrap(), TaskFilter::default());
    }

    #[test]
    fn bounds_of_lists_and_times_hold() {
        let bad = v1::TaskFilter {
            task_ids: vec!["t".into(); limits::FILTER_VALUES_MAX + 1],
            labels: (0..=limits::LABELS_MAX).map(|n| (n.to_string(), String::new())).collect(),
            priorities: vec![0, 9],
            submitted_after: Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
            ..v1::TaskFilter::default()
        };
        let paths = [
            "filter.task_ids",
            "filter.labels",
            "filter.priorities[0]",
            "filter.priorities[1]",
            "filter.submitted_after",
        ];
        assert_eq!(filter(Some(bad), &Namespace::default()).unwrap_err().paths(), paths);
    }

    #[test]
    fn a_page_size_is_reduced_to_the_limit_and_never_negative() {
        assert_eq!(page_size(0).unwrap(), limits::PAGE_SIZE_DEFAULT);
        assert_eq!(page_size(7).unwrap(), 7);
        assert_eq!(page_size(i32::MAX).unwrap(), limits::PAGE_SIZE_MAX);
        assert!(page_size(-1).is_err());
    }

    #[test]
    fn a_page_token_cannot_be_bent_and_fits_into_an_address() {
        let filter = v1::TaskFilter::default();
        let token = page_token(Some(PageCursor(u64::MAX)), &filter);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        for foreign in ["-", "0-0", "1", "\u{e4}-1", &token[1..], &format!("{token}0"), &format!("+{token}")] {
            assert!(page_cursor(foreign, &filter).is_err(), "{foreign}");
        }
        assert_eq!(page_cursor("", &filter).unwrap(), None);
        assert_eq!(page_token(None, &filter), "");
    }

    #[test]
    fn a_page_token_belongs_to_its_filter() {
        let (one, other) = (v1::TaskFilter::default(), v1::TaskFilter { pool: "p".into(), ..Default::default() });
        let token = page_token(Some(PageCursor(42)), &one);
        assert_eq!(page_cursor(&token, &one).unwrap(), Some(PageCursor(42)));
        assert!(page_cursor(&token, &other).is_err());
        assert!(page_cursor("garbage", &one).is_err());
    }
}
