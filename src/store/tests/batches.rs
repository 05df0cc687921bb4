//! Batches: recovered from their rows and from events, and made from the tasks of a store of an earlier version.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::fixtures::{id, options};
use super::stores::{append, check, open_sqlite, write};
use crate::model::batch_state::{fold_batch, fold_task_into_batch};
use crate::model::{
    Batch, BatchChange, BatchEvent, BatchId, BatchKey, BatchSpec, CancelMode, CancelRequest, Event, Failure,
    FailureReason, Holds, Namespace, Revision, TaskChange, TaskEvent, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::store::record::{decode_commit, encode_commit};
use crate::store::traits::Commit;

fn key(name: &str) -> BatchKey {
    BatchKey { namespace: Namespace::parse("team").unwrap(), id: BatchId::parse(name).unwrap() }
}

fn task_options(batch: Option<&str>) -> Arc<TaskOptions> {
    let batch = batch.map(|batch| BatchId::parse(batch).unwrap());
    Arc::new(TaskOptions { namespace: key("b").namespace, batch, ..options(0) })
}

fn spec(number: u8, batch: Option<&str>) -> Arc<TaskSpec> {
    Arc::new(TaskSpec { id: id(number), options: task_options(batch), payload: Box::default(), extras: None })
}

/// Events with consecutive revisions.
#[derive(Default)]
struct Events(Vec<Event>);

impl Events {
    fn next(&self) -> (Revision, Timestamp) {
        let number = self.0.len() as u64 + 1;
        (Revision(number), Timestamp(number))
    }

    fn batch(&mut self, name: &str, change: BatchChange) {
        let (revision, at) = self.next();
        self.0.push(Event::Batch(BatchEvent { revision, at, batch: key(name), change }));
    }

    fn task(&mut self, spec: &Arc<TaskSpec>, (previous, state): (TaskState, TaskState), change: TaskChange) {
        let (revision, at) = self.next();
        let (task, options) = (spec.id.clone(), spec.options.clone());
        self.0.push(Event::Task(TaskEvent {
            revision,
            at,
            task,
            options,
            previous,
            state,
            attempt: 0,
            holds: Holds::NONE,
            hold: None,
            change,
        }));
    }

    fn submit(&mut self, spec: &Arc<TaskSpec>) {
        self.task(spec, (TaskState::Queued, TaskState::Queued), TaskChange::Submitted { spec: spec.clone() });
    }

    fn fail(&mut self, spec: &Arc<TaskSpec>) {
        let failure = Box::new(Failure::new(FailureReason::Expired, "late"));
        let change = TaskChange::Failed { failure, usage: None, output: None };
        self.task(spec, (TaskState::Queued, TaskState::Failed), change);
    }

    fn commits(&self) -> Vec<Arc<Commit>> {
        self.0.chunks(2).map(|events| Arc::new(Commit::new(events.to_vec(), true))).collect()
    }
}

/// Every kind of change, a batch that is created by its first task, and one that was deleted.
fn history() -> Events {
    let mut events = Events::default();
    let completion = spec(100, None);
    let labels = [("a".into(), "b".into())].into();
    let created = BatchSpec {
        display_name: "n".into(),
        labels,
        open: true,
        completion: Some(completion),
        created_by: "me".into(),
    };
    events.batch("open", BatchChange::Created { spec: Arc::new(created) });
    events.batch("gone", BatchChange::Created { spec: Arc::default() });
    let tasks = [spec(2, Some("open")), spec(4, Some("open")), spec(6, Some("implicit"))];
    for task in &tasks {
        events.submit(task);
    }
    events.fail(&tasks[0]);
    events.batch("gone", BatchChange::Deleted);
    events.task(&tasks[0], (TaskState::Failed, TaskState::Failed), TaskChange::Deleted);
    let request = CancelRequest {
        requested_at: Timestamp(1),
        reason: "r".into(),
        requested_by: "me".into(),
        mode: CancelMode::Force,
        grace: std::time::Duration::from_secs(1),
    };
    events.batch("open", BatchChange::CancelRequested { request: Box::new(request) });
    events.batch("implicit", BatchChange::Closed);
    events.fail(&tasks[2]);
    events
}

/// The batches after the events, in the order of creation.
fn fold_all(events: &[Event]) -> Vec<Batch> {
    let mut batches = std::collections::BTreeMap::<BatchKey, Option<Batch>>::new();
    for event in events {
        match event {
            Event::Batch(event) => fold_batch(batches.entry(event.batch.clone()).or_default(), event),
            Event::Task(event) => {
                let id = event.options.batch.clone().unwrap();
                let key = BatchKey { namespace: event.options.namespace.clone(), id };
                fold_task_into_batch(batches.entry(key).or_default(), event);
            }
            _ => {}
        }
    }
    let mut batches: Vec<_> = batches.into_values().flatten().collect();
    batches.sort_by_key(|batch| batch.created);
    batches
}

#[test]
fn batches_are_recovered_from_their_rows_after_the_journal_is_trimmed() {
    let events = history();
    let commits = events.commits();
    for projected in 0..=commits.len() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_sqlite(directory.path()).unwrap();
        for commit in &commits {
            append(&store, commit).unwrap();
        }
        for commit in &commits[..projected] {
            store.projection.apply(commit.clone());
        }
        let reached = store.projection.checkpoint().unwrap();
        store.journal.trim(reached).unwrap();
        drop(store);
        check(directory.path()).unwrap();
        let (_, recovery) = open_sqlite(directory.path()).unwrap();
        // It may be ahead: what does not fit into memory is read from the journal, in larger parts.
        let reached = usize::try_from(recovery.revision.0).unwrap();
        assert!(reached >= (2 * projected).min(events.0.len()));
        let (before, after) = events.0.split_at(reached);
        assert_eq!(recovery.batches, fold_all(before), "{projected} commits");
        assert_eq!(recovery.events, after);
    }
    let [open, implicit] = <[Batch; 2]>::try_from(fold_all(&events.0)).unwrap();
    assert_eq!((open.counts.of(TaskState::Failed), open.present, open.failures.len()), (1, 1, 1));
    assert!(open.cancel.is_some() && open.finished_at.is_none() && implicit.finished_at.is_some());
}

#[test]
fn events_of_batches_are_encoded_without_loss() {
    let events = history().0;
    let mut bytes = Vec::new();
    encode_commit(&events, &mut bytes);
    assert_eq!(decode_commit(Revision(1), &bytes).unwrap(), events);
}

fn execute(directory: &Path, sql: &str) {
    Connection::open(directory.join("projection.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_changed_or_lost_row_of_a_batch_is_reported_as_corrupt() {
    for (sql, expected) in [
        ("UPDATE batches SET body = x'00' WHERE seq = 1", "table batches, row 1"),
        ("DELETE FROM batches WHERE seq = 1", "rows are missing"),
        ("UPDATE batches SET id = 'other' WHERE seq = 1", "table batches, row 1"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = open_sqlite(directory.path()).unwrap();
        write(&store, &history().commits());
        drop(store);
        execute(directory.path(), sql);
        let error = check(directory.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}

/// Writes a store of the format before batches, as a server of that time left it: tasks of three batches, of which one has
/// tasks in two namespaces, and one was submitted after the last transaction of the projection.
fn write_format_4(directory: &Path) {
    let write = |file: &str, sql: &str| {
        Connection::open(directory.join(file)).unwrap().execute_batch(sql).unwrap();
    };
    write("journal.db", include_str!("format_4/journal.sql"));
    write("projection.db", include_str!("format_4/projection.sql"));
}

#[test]
fn the_tasks_of_a_store_of_an_earlier_version_have_their_batches() {
    let directory = tempfile::tempdir().unwrap();
    write_format_4(directory.path());
    check(directory.path()).unwrap();
    for is_upgraded in [false, true] {
        let (store, recovery) = open_sqlite(directory.path()).unwrap();
        let mut batches = recovery.batches;
        // As the scheduler does with later events.
        for event in recovery.events.iter().filter_map(Event::task) {
            let mut late = None;
            fold_task_into_batch(&mut late, event);
            batches.extend(late);
        }
        let found: Vec<_> = batches
            .iter()
            .map(|batch| (batch.key.to_string(), batch.counts.0, batch.present, batch.finished_at.is_some()))
            .collect();
        let expected = [
            ("mixed".to_owned(), [0, 1, 0, 1, 1, 0], 3, false),
            ("team/mixed".to_owned(), [0, 1, 0, 0, 0, 0], 1, false),
            ("ended".to_owned(), [0, 0, 0, 2, 0, 0], 2, true),
            ("late".to_owned(), [0, 1, 0, 0, 0, 0], 1, false),
        ];
        assert_eq!(found, expected, "after the upgrade: {is_upgraded}");
        store.projection.checkpoint().unwrap();
        drop(store);
        check(directory.path()).unwrap();
    }
}
