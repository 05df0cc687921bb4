//! Reads of single tasks while commits wait to be written.

use std::path::Path;

use rusqlite::Connection;

use super::fixtures::id;
use super::stores::{append, fold_all, long_history, open_sqlite, write};
use crate::model::{Event, Revision};

/// Keeps the projection from writing until it is dropped.
fn hold(directory: &Path) -> Connection {
    let connection = Connection::open(directory.join("projection.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[test]
fn single_tasks_are_read_at_the_last_commit_unless_commits_do_not_fit_into_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sqlite(directory.path()).unwrap().0;
    let history = long_history();
    let commits = history.commits(3);
    let (written, held_back) = commits.split_at(100);
    write(&store, written);
    let held = hold(directory.path());
    let mut seen = 0;
    for commit in held_back {
        append(&store, commit).unwrap();
        store.projection.apply(commit.clone());
        let at = store.projection.task_revision();
        if at < commit.last() {
            assert_eq!(at, written[99].last(), "only the tables are complete");
            break;
        }
        seen += 1;
        let events = &history.events[..usize::try_from(commit.last().0).unwrap()];
        let tasks = fold_all(events);
        for number in 0..24 {
            let expected = tasks.values().find(|task| task.spec.id == id(number));
            assert_eq!(store.projection.get(&id(number)).unwrap().as_ref(), expected);
        }
        assert_eq!(*store.projection.revision().borrow(), written[99].last());
    }
    assert!((2..held_back.len()).contains(&seen), "{seen} commits of 3 events fit into a queue of 8 events");
    drop(held);
    let end = store.projection.checkpoint().unwrap();
    assert_eq!(store.projection.task_revision(), end);
    assert!(end < history.events.last().map_or(Revision::default(), Event::revision));
}
