//! The identity of a store.

use rusqlite::Connection;

use super::stores::{backup, check, open_sqlite, open_store};
use crate::store::open::Options;

#[test]
fn a_store_and_its_backup_keep_their_identity_and_no_two_stores_share_one() {
    let directory = tempfile::tempdir().unwrap();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let identity = |path| open_sqlite(path).unwrap().0.journal.store_id();
    let first = identity(&data);
    backup(&data, &copy).unwrap();
    assert_eq!((identity(&data), identity(&copy)), (first, first));
    assert_ne!(identity(&directory.path().join("other")), first);
    let in_memory = || open_store(&Options::default()).unwrap().0.journal.store_id();
    assert_ne!(in_memory(), in_memory());
}

#[test]
fn a_journal_of_format_2_receives_an_identity() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_sqlite(directory.path()).unwrap());
    let file = Connection::open(directory.path().join("journal.db")).unwrap();
    file.execute_batch("DROP TABLE lease; DROP TABLE identity; PRAGMA user_version = 2").unwrap();
    drop(file);
    assert!(check(directory.path()).is_ok());
    let given = open_sqlite(directory.path()).unwrap().0.journal.store_id();
    assert_eq!(open_sqlite(directory.path()).unwrap().0.journal.store_id(), given);
}

#[test]
fn a_changed_identity_is_reported_as_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_sqlite(directory.path()).unwrap());
    let file = Connection::open(directory.path().join("journal.db")).unwrap();
    file.execute_batch("UPDATE identity SET store = store + 1").unwrap();
    drop(file);
    for error in [open_sqlite(directory.path()).err().unwrap(), check(directory.path()).unwrap_err()] {
        assert!(error.to_string().contains("journal.db") && error.to_string().contains("table identity"), "{error}");
    }
}
