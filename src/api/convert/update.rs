//! Changes of tasks.

use std::time::Duration;

use crate::model::{NewExpiry, TaskUpdate, Timestamp, limits};
use crate::proto::v1;

use super::invalid_fields::{InvalidFields, MessagePath};
use super::submit_fields::{labels, priority};

/// Converts the field `update` of a request. Its times count from `now`.
///
/// # Errors
/// [`InvalidFields`], with every invalid field.
pub fn task_update(update: Option<&v1::TaskUpdate>, now: Timestamp) -> Result<TaskUpdate, InvalidFields> {
    let Some(update) = update.filter(|update| **update != v1::TaskUpdate::default()) else {
        return Err(InvalidFields::one("update", "is required, with at least one change"));
    };
    let mut invalid = InvalidFields::default();
    let path = MessagePath::Update;
    let delays = Duration::ZERO..=limits::DELAY_MAX;
    let timeouts = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
    let new_priority = priority(&mut invalid, path.field("priority"), update.priority);
    let timeout = invalid.duration(path.field("timeout"), update.timeout.as_ref(), timeouts);
    let new_labels = labels(&mut invalid, path, &update.labels);
    let removed = &update.remove_labels;
    invalid.check_length(path.field("remove_labels"), removed.len(), limits::LABELS_MAX, "keys");
    if let Some(both) = removed.iter().find(|key| update.labels.contains_key(*key)) {
        invalid.add(path.field("remove_labels"), format_args!("has `{both}`, which is also in `labels`"));
    }
    let delay = invalid.duration(path.field("delay"), update.delay.as_ref(), delays.clone());
    let expires_after = invalid.duration(path.field("expires_after"), update.expires_after.as_ref(), delays);
    invalid.check()?;
    Ok(TaskUpdate {
        priority: (update.priority != 0).then_some(new_priority),
        timeout,
        labels: new_labels.into(),
        remove_labels: removed.iter().map(|key| key.as_str().into()).collect(),
        not_before: delay.map(|delay| if delay.is_zero() { Timestamp::ZERO } else { now.after(delay) }),
        expiry: expires_after
            .map(|after| if after.is_zero() { NewExpiry::Never } else { NewExpiry::At(now.after(after)) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    #[test]
    fn times_count_from_the_call_and_zero_removes_them() {
        let of = |delay, expires_after| {
            let update = v1::TaskUpdate {
                delay: Some(seconds(delay)),
                expires_after: Some(seconds(expires_after)),
                ..Default::default()
            };
            let update = task_update(Some(&update), NOW).unwrap();
            (update.not_before, update.expiry)
        };
        assert_eq!(of(2, 3), (Some(Timestamp(3_000_000)), Some(NewExpiry::At(Timestamp(4_000_000)))));
        assert_eq!(of(0, 0), (Some(Timestamp::ZERO), Some(NewExpiry::Never)));
        let other = v1::TaskUpdate { priority: 3, ..Default::default() };
        let other = task_update(Some(&other), NOW).unwrap();
        assert_eq!((other.not_before, other.expiry), (None, None), "unset fields change nothing");
    }

    #[test]
    fn every_invalid_change_is_named() {
        let update = v1::TaskUpdate {
            priority: 9,
            timeout: Some(seconds(0)),
            labels: [("both".to_owned(), String::new()), (String::new(), String::new())].into(),
            remove_labels: vec!["both".to_owned(); 17],
            delay: Some(seconds(-1)),
            expires_after: Some(seconds(366 * 86_400)),
        };
        let invalid = task_update(Some(&update), NOW).unwrap_err();
        let expected = [
            "update.priority",
            "update.timeout",
            "update.labels[\"\"]",
            "update.remove_labels",
            "update.remove_labels",
            "update.delay",
            "update.expires_after",
        ];
        assert_eq!(invalid.paths(), expected);
        assert!(task_update(None, NOW).is_err() && task_update(Some(&v1::TaskUpdate::default()), NOW).is_err());
    }
}
