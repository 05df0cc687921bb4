//! Reads of single tasks while commits wait to be written.

use std::path::Path;

use rusqlite::Connection;

use super::fixtures::id;
use super::stores::{append, fold_all, long_history, open_sqlite, write};
use crate::model::{Event, Output, Revision, Task, TaskSpec};
use crate::store::error::StoreError;
use crate::store::open::Store;
use crate::store::record::{ended_attempt, output_of};

/// Keeps the projection from writing until it is dropped.
fn hold(directory: &Path) -> Connection {
    let connection = Connection::open(directory.join("projection.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[test]
fn single_tasks_are_read_at_the_last_commit_though_commits_do_not_fit_into_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sqlite(directory.path()).unwrap().0;
    let history = long_history();
    let commits = history.commits(3);
    let (written, held_back) = commits.split_at(100);
    write(&store, written);
    let held = hold(directory.path());
    let (mut seen, mut not_in_memory) = (0, 0);
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
            assert_eq!(store.projection.get(&id(number), true).unwrap().as_ref(), expected);
            let recent = store.projection.recent(&id(number));
            assert!(recent.is_none() || recent.as_ref() == expected, "{recent:?}");
            not_in_memory += u32::from(recent.is_none() && expected.is_some());
            for attempt in 0..3 {
                let output = store.projection.output(&id(number), attempt).unwrap();
                assert_eq!(output, last_output(events, expected, attempt), "attempt {attempt} of {number}");
            }
        }
        assert_payloads(&store, tasks.values());
        assert_eq!(*store.projection.revision().borrow(), written[99].last());
    }
    assert!((20..held_back.len()).contains(&seen), "{seen} commits are searchable");
    assert!(not_in_memory > 0);
    drop(held);
    let end = store.projection.checkpoint().unwrap();
    assert_eq!(store.projection.task_revision(), end);
    assert!(end < history.events.last().map_or(Revision::default(), Event::revision));
}

/// The output of an attempt, as the events tell.
fn last_output(events: &[Event], task: Option<&Task>, attempt: u32) -> Option<(u32, Output)> {
    let task = task?;
    let attempt = ended_attempt(&task.status, attempt)?;
    let of_attempt = events.iter().filter_map(Event::task).filter(|event| {
        event.task == task.spec.id && event.attempt == attempt && event.revision >= task.status.submission
    });
    Some((attempt, of_attempt.filter_map(output_of).last().cloned().unwrap_or_default()))
}

fn payload(store: &Store, submission: Revision) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(store.projection.payload(submission)?.map(Vec::from))
}

fn assert_payloads<'a>(store: &Store, tasks: impl Iterator<Item = &'a Task>) {
    for Task { spec, status } in tasks {
        let found = payload(store, status.submission).unwrap();
        assert_eq!(found.as_deref(), Some(&TaskSpec::payload_of(spec)[..]), "{}", spec.id);
    }
}

#[test]
fn a_damaged_payload_is_read_from_the_journal_until_that_is_trimmed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sqlite(directory.path()).unwrap().0;
    let history = long_history();
    write(&store, &history.commits(9));
    let tables = Connection::open(directory.path().join("projection.db")).unwrap();
    for (table, column) in [("tasks", "spec"), ("payloads", "body")] {
        tables.execute(&format!("UPDATE {table} SET {column} = CAST({column} || x'00' AS BLOB)"), []).unwrap();
    }
    let tasks = fold_all(&history.events);
    assert_payloads(&store, tasks.values());
    assert!(payload(&store, history.events.last().unwrap().revision().next()).unwrap().is_none());

    store.journal.trim(Revision(*tasks.keys().nth(tasks.len() / 2).unwrap())).unwrap();
    let (trimmed, kept): (Vec<_>, Vec<_>) =
        tasks.values().partition(|task| task.status.submission <= store.journal.oldest());
    assert!(!trimmed.is_empty() && !kept.is_empty());
    assert_payloads(&store, kept.into_iter());
    for task in trimmed {
        let error = payload(&store, task.status.submission).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_payload_is_that_of_its_submission_while_commits_do_not_fit_into_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sqlite(directory.path()).unwrap().0;
    let history = long_history();
    let commits = history.commits(3);
    let (written, missing) = commits.split_at(100);
    write(&store, written);
    let held = hold(directory.path());
    for commit in missing {
        append(&store, commit).unwrap();
        store.projection.apply(commit.clone());
    }
    let tasks = fold_all(&history.events);
    for Task { spec, status } in tasks.values() {
        let found = payload(&store, status.submission).unwrap();
        assert!(found.is_none_or(|found| found == TaskSpec::payload_of(spec)), "{}", spec.id);
    }
    drop(held);
    let mut reached = store.projection.revision();
    while *reached.borrow_and_update() < history.events.last().unwrap().revision() {
        store.projection.checkpoint().unwrap();
    }
    assert_payloads(&store, tasks.values());
}

#[test]
fn the_bytes_of_large_bodies_are_known_before_they_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_sqlite(directory.path()).unwrap().0;
    let history = long_history();
    write(&store, &history.commits(3));
    let mut large = 0;
    for task in fold_all(&history.events).values() {
        let bytes = |with_payload| store.projection.stored_bytes(&task.spec.id, with_payload).unwrap();
        let separate = |length: usize| if length > 1_024 { length as u64 } else { 0 };
        let (payload, result) =
            (task.spec.payload.len(), task.status.result.as_ref().map_or(0, |found| found.data.len()));
        assert_eq!(bytes(true), bytes(false) + separate(payload));
        assert!(bytes(false) >= separate(result));
        large += u32::from(bytes(true) > 0);
    }
    assert!(large > 0);
    assert_eq!(store.projection.stored_bytes(&id(77), true).unwrap(), 0);
}
