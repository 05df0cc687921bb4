//! Changed settings of pools: recovered from events, and converted from stores that had a table for them.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::stores::{append, check, open_sqlite, read_all, write};
use crate::model::{
    Event, Lease, PoolChange, PoolEvent, PoolName, PoolSettings, Revision, TaskChange, TaskState, Timestamp,
};
use crate::store::traits::Commit;

const CONFIGURED: PoolSettings = PoolSettings { size: 4, queue_limit: 100, paused: false };

fn update(revision: u64, pool: &str, size: usize) -> Event {
    let set = PoolSettings { size, ..CONFIGURED };
    Event::Pool(PoolEvent {
        revision: Revision(revision),
        at: Timestamp(revision),
        pool: PoolName::parse(pool).unwrap(),
        change: PoolChange::Updated { configured: CONFIGURED, set },
    })
}

/// The pools in the events, with their sizes.
fn sizes(events: &[Event]) -> Vec<(&str, usize)> {
    let size = |event: &Event| match event {
        Event::Pool(PoolEvent { change: PoolChange::Updated { set, .. }, .. }) => set.size,
        _ => panic!("not an event of a pool"),
    };
    let name = |event| match event {
        &Event::Pool(PoolEvent { ref pool, .. }) => pool.as_str(),
        _ => panic!("not an event of a pool"),
    };
    events.iter().map(|event| (name(event), size(event))).collect()
}

fn execute(directory: &Path, file: &str, sql: &str) {
    Connection::open(directory.join(file)).unwrap().execute_batch(sql).unwrap();
}

/// Writes a store of the format before events of pools, as a server of that time left it: a failed task, a delayed
/// task, and changed settings of the pools `reports` and `default`.
pub(super) fn write_format_2(directory: &Path) {
    execute(directory, "journal.db", include_str!("format_2/journal.sql"));
    execute(directory, "projection.db", include_str!("format_2/projection.sql"));
}

#[test]
fn the_last_event_of_each_pool_is_recovered_after_the_journal_is_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.subjects.is_empty());
    let commits = [vec![update(1, "a", 5), update(2, "b", 6)], vec![update(3, "a", 7)]];
    write(&store, &commits.map(|events| Arc::new(Commit::new(events, true))));
    store.journal.trim(Revision(3)).unwrap();
    drop(store);
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert_eq!(sizes(&recovery.subjects), [("a", 7), ("b", 6)]);
    assert_eq!((recovery.revision, recovery.events.len()), (Revision(3), 0));
    drop(store);
    assert_eq!(check(directory.path()).unwrap().pools, ["a", "b"]);
}

#[test]
fn an_event_of_a_pool_that_the_projection_lacks_is_recovered_from_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    append(&store, &Arc::new(Commit::new(vec![update(1, "a", 5)], true))).unwrap();
    drop(store);
    let (_, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.subjects.is_empty());
    assert_eq!(sizes(&recovery.events), [("a", 5)]);
}

#[test]
fn a_changed_row_of_pools_is_noticed_and_rebuilt_from_the_journal() {
    for damage in ["UPDATE subjects SET crc = crc + 1", "DELETE FROM subjects"] {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_sqlite(directory.path()).unwrap();
        write(&store, &[Arc::new(Commit::new(vec![update(1, "a", 5)], true))]);
        drop(store);
        execute(directory.path(), "projection.db", damage);
        let error = check(directory.path()).unwrap_err().to_string();
        assert!(error.contains("projection.db") && error.contains("table subjects"), "{error}");
        let (_, recovery) = open_sqlite(directory.path()).unwrap();
        assert_eq!((recovery.notes.len(), sizes(&recovery.events)), (1, vec![("a", 5)]), "{:?}", recovery.notes);
    }
}

#[test]
fn a_store_with_a_table_of_pools_opens_with_their_settings_and_all_tasks() {
    let directory = tempfile::tempdir().unwrap();
    write_format_2(directory.path());
    assert_eq!(check(directory.path()).unwrap().pools, ["default", "reports"]);
    for converted_before in [false, true] {
        let (store, recovery) = open_sqlite(directory.path()).unwrap();
        let states: Vec<_> = recovery.tasks.iter().map(|task| (task.spec.id.to_string(), task.state)).collect();
        assert_eq!(states, [("done".to_owned(), TaskState::Failed), ("delayed".to_owned(), TaskState::Waiting)]);
        let pools = if converted_before { &recovery.subjects } else { &recovery.events };
        assert_eq!(sizes(pools), [("default", 3), ("reports", 7)]);
        let Event::Pool(PoolEvent { change, .. }) = &pools[1] else { panic!("not an event of a pool") };
        let configured = PoolSettings { size: 2, queue_limit: 100, paused: false };
        let set = PoolSettings { size: 7, queue_limit: 100, paused: true };
        assert_eq!(*change, PoolChange::Updated { configured, set });
        let events = read_all(&store, Revision(0)).unwrap();
        let TaskChange::Started { lease, .. } = events[1].task().unwrap().change else { panic!("not a start") };
        assert_eq!(lease, Lease::Local { epoch: 0 }, "not recorded at that time");
        let revisions: Vec<_> = events.iter().map(|event| event.revision().0).collect();
        assert_eq!(revisions, [1, 2, 3, 4, 5, 6], "the changes follow the other events");
        store.projection.checkpoint().unwrap();
    }
    assert_eq!(check(directory.path()).unwrap().pools, ["default", "reports"]);
}

#[test]
fn a_changed_row_in_the_table_of_pools_is_reported_as_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    write_format_2(directory.path());
    execute(directory.path(), "journal.db", "UPDATE pools SET size = 8 WHERE name = 'default'");
    let error = open_sqlite(directory.path()).err().unwrap().to_string();
    assert!(error.contains("journal.db") && error.contains("table pools"), "{error}");
}

#[test]
fn a_journal_of_the_first_format_has_no_table_of_pools() {
    let directory = tempfile::tempdir().unwrap();
    write_format_2(directory.path());
    execute(directory.path(), "journal.db", "DROP TABLE pools; PRAGMA user_version = 1");
    let (_, recovery) = open_sqlite(directory.path()).unwrap();
    assert_eq!((recovery.tasks.len(), recovery.events.len(), recovery.subjects.len()), (2, 0, 0));
}
