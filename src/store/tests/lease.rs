//! The epoch of the journal's lease.

use rusqlite::Connection;

use super::stores::{backup, check, open_sqlite};

#[test]
fn each_opening_of_a_journal_has_a_larger_epoch_than_those_before() {
    let directory = tempfile::tempdir().unwrap();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    for epoch in 1..=3 {
        assert_eq!(open_sqlite(&data).unwrap().0.journal.epoch(), epoch);
    }
    check(&data).unwrap();
    backup(&data, &copy).unwrap();
    assert_eq!(open_sqlite(&data).unwrap().0.journal.epoch(), 4, "neither a check nor a backup takes the lease");
    assert_eq!(open_sqlite(&copy).unwrap().0.journal.epoch(), 4);
}

#[test]
fn a_changed_lease_is_reported_as_corrupt() {
    for damage in ["UPDATE lease SET epoch = 0", "DELETE FROM lease"] {
        let directory = tempfile::tempdir().unwrap();
        drop(open_sqlite(directory.path()).unwrap());
        Connection::open(directory.path().join("journal.db")).unwrap().execute_batch(damage).unwrap();
        for error in [open_sqlite(directory.path()).err().unwrap(), check(directory.path()).unwrap_err()] {
            assert!(error.to_string().contains("journal.db") && error.to_string().contains("table lease"), "{error}");
        }
    }
}
