//! Request ids: remembered apart from their tasks, for a time and up to a number.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::fixtures;
use super::stores::{append, backup, check, open_sqlite, open_store, temp_dir, write};
use crate::model::{
    Event, Holds, Namespace, RememberedRequest, RequestKey, RequestName, RequestRetention, Revision, TaskChange,
    TaskEvent, TaskExtras, TaskId, TaskSpec, TaskState, Timestamp,
};
use crate::store::open::{Options, Store};
use crate::store::traits::Commit;

const HOUR: u64 = 3_600_000_000;

fn key(id: &str) -> Arc<RequestKey> {
    Arc::new(RequestKey { id: id.into(), digest: None })
}

fn spec(number: u64) -> TaskSpec {
    let options = Arc::new(fixtures::options(1));
    let (id, payload) = (TaskId::Uuid(u128::from(number).to_be_bytes()), vec![7; 2_000].into());
    let request = Some(key(&format!("request-{number}")));
    TaskSpec { id, options, payload, extras: TaskExtras { request, ..TaskExtras::default() }.boxed() }
}

/// The submission of a task with the request id `request-REVISION`.
fn submission(revision: u64, at: u64) -> Event {
    event(revision, at, revision, TaskState::Queued, TaskChange::Submitted { spec: Arc::new(spec(revision)) })
}

fn event(revision: u64, at: u64, task: u64, state: TaskState, change: TaskChange) -> Event {
    let TaskSpec { id, options, .. } = spec(task);
    let (revision, at) = (Revision(revision), Timestamp(at));
    Event::Task(TaskEvent {
        revision,
        at,
        task: id,
        options,
        previous: state,
        state,
        attempt: 0,
        holds: Holds::NONE,
        hold: None,
        change,
    })
}

fn commit(events: Vec<Event>) -> Arc<Commit> {
    Arc::new(Commit::new(events, true))
}

fn name(request_id: &str) -> RequestName {
    (Namespace::default(), key(request_id))
}

fn find(store: &Store, number: u64) -> Option<RememberedRequest> {
    store.projection.requests(&[name(&format!("request-{number}"))]).unwrap().requests.remove(0)
}

/// What is remembered of the submission `number`, after which `newer` followed.
fn remembered(number: u64, at: u64, newer: u64) -> RememberedRequest {
    let (spec, submission, at) = (spec(number), Revision(number), Timestamp(at));
    let digest = spec.stored_digest(&spec.payload);
    RememberedRequest { task: spec.id, submission, digest, at, newer }
}

fn options(directory: &Path, requests: RequestRetention) -> Options {
    Options { directory: Some(directory.to_owned()), requests, ..Options::default() }
}

fn execute(directory: &Path, sql: &str) {
    Connection::open(directory.join("projection.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_request_id_outlives_its_task_even_if_the_task_was_never_written() {
    let directory = temp_dir();
    for options in [Options::default(), options(directory.path(), RequestRetention::default())] {
        let (store, _) = open_store(&options).unwrap();
        let ended = event(2, 20, 1, TaskState::Cancelled, TaskChange::Deleted);
        // One commit, so that the projection never has a row of the task.
        write(&store, &[commit(vec![submission(1, 10), ended]), commit(vec![submission(3, 30)])]);
        assert!(store.projection.get(&spec(1).id, true).unwrap().is_none());
        assert_eq!(find(&store, 1), Some(remembered(1, 10, 1)));
        assert_eq!(find(&store, 2), None);
        let found = store.projection.requests(&[name("request-3"), name("unknown")]).unwrap();
        assert_eq!((found.revision, found.requests), (Revision(3), vec![Some(remembered(3, 30, 0)), None]));
        let other = (Namespace::parse("other").unwrap(), key("request-3"));
        assert_eq!(store.projection.requests(&[other]).unwrap().requests, [None], "namespaces are separate");
    }
    let (store, _) = open_sqlite(directory.path()).unwrap();
    assert_eq!(find(&store, 1), Some(remembered(1, 10, 1)), "after a restart");
}

#[test]
fn request_ids_come_back_from_the_journal_and_from_a_backup() {
    let directory = temp_dir();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let (store, _) = open_sqlite(&data).unwrap();
    write(&store, &[commit(vec![submission(1, 10)])]);
    // As after a crash before the projection was written.
    append(&store, &commit(vec![submission(2, 20)])).unwrap();
    drop(store);
    let (store, _) = open_sqlite(&data).unwrap();
    store.projection.checkpoint().unwrap();
    assert_eq!(find(&store, 2), Some(remembered(2, 20, 0)));
    backup(&data, &copy).unwrap();
    drop(store);
    std::fs::remove_file(data.join("projection.db")).unwrap();
    for directory in [data, copy] {
        let (store, _) = open_sqlite(&directory).unwrap();
        store.projection.checkpoint().unwrap();
        assert_eq!([find(&store, 1), find(&store, 2)], [Some(remembered(1, 10, 1)), Some(remembered(2, 20, 0))]);
    }
}

#[test]
fn the_newest_submission_with_a_request_id_is_found() {
    let directory = temp_dir();
    for options in [Options::default(), options(directory.path(), RequestRetention::default())] {
        let (store, _) = open_store(&options).unwrap();
        let mut again = spec(2);
        again.extras = spec(1).extras;
        let again = event(2, 20, 2, TaskState::Queued, TaskChange::Submitted { spec: Arc::new(again) });
        write(&store, &[commit(vec![submission(1, 10), again])]);
        let found = find(&store, 1).unwrap();
        assert_eq!((found.task, found.submission, found.newer), (spec(2).id, Revision(2), 0));
    }
}

#[test]
fn request_ids_beyond_the_number_or_the_age_are_removed_in_steps() {
    let by_count = RequestRetention { count: 10, ..RequestRetention::default() };
    let by_age = RequestRetention { age: Duration::from_hours(10), ..RequestRetention::default() };
    for retention in [by_count, by_age] {
        let directory = temp_dir();
        for options in [Options { requests: retention, ..Options::default() }, options(directory.path(), retention)] {
            let (store, _) = open_store(&options).unwrap();
            // One hour apart.
            for number in 1..=50 {
                write(&store, &[commit(vec![submission(number, number * HOUR)])]);
                let kept: Vec<u64> = (1..=number).filter(|number| find(&store, *number).is_some()).collect();
                let expected: Vec<u64> = (number.saturating_sub(9).max(1)..=number).collect();
                assert_eq!(kept, expected, "{} after {number} submissions", store.kind);
            }
        }
        assert!(check(directory.path()).is_ok());
    }
}

#[test]
fn a_lower_limit_removes_the_rest_in_steps_of_bounded_size() {
    let directory = temp_dir();
    let (store, _) = open_store(&options(directory.path(), RequestRetention::default())).unwrap();
    write(&store, &[commit((1..=50).map(|number| submission(number, number)).collect())]);
    drop(store);
    let retention = RequestRetention { count: 5, ..RequestRetention::default() };
    let (store, _) = open_store(&options(directory.path(), retention)).unwrap();
    let mut before = 50;
    for number in 51..=70 {
        write(&store, &[commit(vec![submission(number, number)])]);
        let rows = (1..=number).filter(|number| find(&store, *number).is_some()).count();
        assert!(before + 1 - rows <= 4, "{before} rows before, {rows} after");
        before = rows;
    }
    assert_eq!(before, 5);
}

#[test]
fn the_request_ids_of_a_store_without_the_table_are_taken_over() {
    let directory = temp_dir();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    let deleted = event(3, 30, 1, TaskState::Cancelled, TaskChange::Deleted);
    write(&store, &[commit(vec![submission(1, 10), submission(2, 20)]), commit(vec![deleted])]);
    append(&store, &commit(vec![submission(4, 40)])).unwrap();
    drop(store);
    // Versions that wrote no digest wrote the same bytes otherwise.
    execute(
        directory.path(),
        "DROP TABLE requests; DROP TABLE batches; DROP TABLE schedules; DROP TABLE limit_tokens; PRAGMA user_version = 3",
    );
    assert!(check(directory.path()).is_ok());
    let (store, recovery) = open_sqlite(directory.path()).unwrap();
    assert!(recovery.notes.is_empty(), "{:?}", recovery.notes);
    store.projection.checkpoint().unwrap();
    let found = [1, 2, 4].map(|number| find(&store, number));
    assert_eq!(found, [None, Some(remembered(2, 20, 1)), Some(remembered(4, 40, 0))]);
    drop(store);
    assert!(check(directory.path()).is_ok());
}

#[test]
fn a_changed_row_of_requests_is_noticed_at_the_start_or_when_it_is_read() {
    let changes = [
        "UPDATE requests SET task = 'another'",
        "UPDATE requests SET digest = zeroblob(32)",
        "UPDATE requests SET at = at + 1",
        "UPDATE requests SET submission = 7",
    ];
    let history: Vec<Event> = (1..=1_001).map(|number| submission(number, number)).collect();
    for change in changes {
        for rows in [2_u64, 1_001] {
            let directory = temp_dir();
            let (store, _) = open_sqlite(directory.path()).unwrap();
            write(&store, &[commit(history[..usize::try_from(rows).unwrap()].to_vec())]);
            drop(store);
            execute(directory.path(), &format!("{change} WHERE number = 1"));
            let error = check(directory.path()).unwrap_err().to_string();
            assert!(error.contains("projection.db") && error.contains("table requests"), "{error}");
            let (store, recovery) = open_sqlite(directory.path()).unwrap();
            store.projection.checkpoint().unwrap();
            if rows == 2 {
                assert_eq!(recovery.notes.len(), 1, "noticed at the start and rebuilt");
                assert_eq!(find(&store, 1), Some(remembered(1, 1, 1)));
            } else {
                assert!(recovery.notes.is_empty(), "too many to be verified at a start");
                let error = store.projection.requests(&[name("request-1")]).unwrap_err();
                assert!(error.is_damage() && error.to_string().contains("request-1"), "{error}");
            }
            assert_eq!(find(&store, rows), Some(remembered(rows, rows, 0)), "other rows are found");
        }
    }
}

#[test]
fn a_lost_row_of_requests_is_noticed_by_a_check() {
    let directory = temp_dir();
    let (store, _) = open_sqlite(directory.path()).unwrap();
    write(&store, &[commit((1..=3).map(|number| submission(number, number)).collect())]);
    drop(store);
    execute(directory.path(), "DELETE FROM requests WHERE number = 2");
    assert!(check(directory.path()).unwrap_err().to_string().contains("table requests"));
}
