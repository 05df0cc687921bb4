//! Token buckets of limits in the projection.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::fixtures::History;
use super::stores::{check, open_sqlite, temp_dir, write};
use crate::model::{Event, LimitId, TaskChange};

/// The buckets that are not full at the time of the last start, or have been full for less than an hour.
fn fold_all(events: &[Event]) -> BTreeMap<LimitId, u64> {
    let (mut buckets, mut now) = (BTreeMap::new(), 0);
    for event in events.iter().filter_map(Event::task) {
        let TaskChange::Started { charges, .. } = &event.change else { continue };
        for charge in charges.iter().filter(|charge| usize::from(charge.limit) < event.options.limits.len()) {
            let limit = &event.options.limits[usize::from(charge.limit)];
            buckets.insert(limit.id(&event.options.namespace).to_id(), charge.full_at);
            now = now.max(event.at.0 * 1_000);
        }
    }
    buckets.retain(|_, full_at| *full_at > now - 3_600_000_000_000);
    buckets
}

/// Tasks of many kinds that start, some with charges.
fn history() -> History {
    let mut history = History::default();
    for number in 0..20 {
        history.step(number, 0, number);
        history.step(number, 0, number.wrapping_mul(7));
        history.step(number, 0, number.wrapping_mul(11));
    }
    history
}

#[test]
fn buckets_that_are_not_full_are_recovered_from_their_rows() {
    let directory = temp_dir();
    let (history, commits) = (history(), history().commits(3));
    let expected = fold_all(&history.events);
    let started = history.events.iter().filter_map(Event::task);
    let charges =
        started.map(|event| if let TaskChange::Started { charges, .. } = &event.change { charges.len() } else { 0 });
    assert!(expected.len() > 2 && expected.len() < charges.sum(), "{expected:?}");
    write(&open_sqlite(directory.path()).unwrap().0, &commits);
    assert_eq!(open_sqlite(directory.path()).unwrap().1.buckets, expected);
    check(directory.path()).unwrap();
}

#[test]
fn a_damaged_bucket_is_found() {
    let directory = temp_dir();
    write(&open_sqlite(directory.path()).unwrap().0, &history().commits(3));
    let tables = Connection::open(directory.path().join("projection.db")).unwrap();
    tables.execute_batch("UPDATE limit_tokens SET full_at = full_at + 1").unwrap();
    let error = check(directory.path()).unwrap_err().to_string();
    assert!(error.contains("table limit_tokens"), "{error}");
}
