//! Stores of earlier versions.

use std::path::Path;

use rusqlite::Connection;

use super::stores::{check, fold_all, listed, long_history, open_sqlite, page_of, write};
use crate::model::{RecoveredTask, Task, TaskFilter, TaskState};

/// Makes the tables as the version before the index of kinds and states left them.
fn remove_kinds(directory: &Path) {
    let tables = Connection::open(directory.join("projection.db")).unwrap();
    let sql =
        "DROP TABLE task_states; DROP TABLE kinds; DROP TABLE requests; DROP TABLE batches; DROP TABLE schedules; DROP TABLE limit_tokens; PRAGMA user_version = 2;
        CREATE INDEX tasks_seldom ON tasks(state) WHERE state IN (3, 5, 6);";
    tables.execute_batch(sql).unwrap();
}

#[test]
fn a_store_without_an_index_of_kinds_and_states_is_upgraded() {
    let directory = tempfile::tempdir().unwrap();
    let history = long_history();
    let (written, later) = history.events.split_at(history.events.len() / 2);
    let commits = history.commits(1);
    write(&open_sqlite(directory.path()).unwrap().0, &commits[..written.len()]);
    remove_kinds(directory.path());
    check(directory.path()).unwrap();
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    let tasks: Vec<RecoveredTask> = fold_all(written).into_values().map(RecoveredTask::from).collect();
    assert!(recovery.notes.is_empty() && recovery.events.is_empty() && recovery.tasks == tasks, "{:?}", recovery.notes);
    // The index is complete, and is kept up to date.
    write(&store, &commits[written.len()..][..later.len()]);
    for state in TaskState::ALL {
        let filter = TaskFilter { states: vec![state], ..TaskFilter::default() };
        let tasks = fold_all(&history.events);
        let expected: Vec<Task> = tasks.values().rev().filter(|task| task.status.state == state).map(listed).collect();
        assert_eq!(store.projection.list(&filter, page_of(1_000), None).unwrap().tasks, expected, "{state:?}");
    }
    drop(store);
    check(directory.path()).unwrap();
    assert!(open_sqlite(directory.path()).unwrap().1.notes.is_empty());
}
