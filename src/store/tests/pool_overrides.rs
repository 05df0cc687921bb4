//! Stored pool overrides.

use rusqlite::Connection;

use super::stores::open_sqlite;
use crate::model::{PoolName, PoolSettings};
use crate::store::pool_override::PoolOverride;

fn saved() -> PoolOverride {
    PoolOverride {
        name: PoolName::parse("a").unwrap(),
        configured: PoolSettings { size: 4, queue_limit: 100, paused: false },
        set: PoolSettings { size: 7, queue_limit: 100, paused: true },
    }
}

#[test]
fn an_override_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.pools.is_empty());
    store.journal.save_pool_override(&PoolOverride { set: saved().configured, ..saved() }).unwrap();
    store.journal.save_pool_override(&saved()).unwrap();
    drop(store);
    assert_eq!(open_sqlite(directory.path()).unwrap().1.pools, [saved()]);
}

#[test]
fn a_journal_of_format_1_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_sqlite(directory.path()).unwrap());
    let file = Connection::open(directory.path().join("journal.db")).unwrap();
    file.execute_batch("DROP TABLE identity; DROP TABLE pools; PRAGMA user_version = 1").unwrap();
    drop(file);
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.pools.is_empty());
    store.journal.save_pool_override(&saved()).unwrap();
}

#[test]
fn a_changed_override_is_reported_as_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    store.journal.save_pool_override(&saved()).unwrap();
    drop(store);
    let file = Connection::open(directory.path().join("journal.db")).unwrap();
    file.execute_batch("UPDATE pools SET size = 8").unwrap();
    drop(file);
    let error = open_sqlite(directory.path()).err().unwrap().to_string();
    assert!(error.contains("journal.db") && error.contains("table pools"), "{error}");
}
