//! One suite that every implementation of the store passes, and what only files can go through.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::samples::{History, id};
use super::{Commit, Options, PageCursor, PageSize, Recovery, Store, StoreError, fold, open, weight};
use crate::model::{
    BatchId, Event, PoolName, Priority, RecoveredTask, Revision, Task, TaskFilter, TaskId, TaskState, Timestamp,
};

pub(super) fn seed() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec(any::<(u8, u8, u8)>(), 1..300)
}

/// A fixed history that has everything in it.
pub(super) fn long() -> History {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    History::of(&(0..1500).map(|_| (byte(), byte(), byte())).collect::<Vec<_>>())
}

/// A directory in memory, where there is such a thing: for tests that open stores hundreds of times, and
/// do not ask what a sync does.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn sqlite(directory: &Path) -> Result<(Store, Recovery), StoreError> {
    open(&Options { directory: Some(directory.to_owned()), accept_loss: false })
}

/// Both kinds, each empty; the directory lives as long as the files are wanted.
fn both() -> Vec<(Store, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    let file = sqlite(directory.path()).unwrap().0;
    let memory = open(&Options::default()).unwrap().0;
    vec![(file, directory), (memory, tempfile::tempdir().unwrap())]
}

pub(super) fn append(store: &Store, commit: &Arc<Commit>) -> Result<(), StoreError> {
    let (tell, told) = channel();
    store.journal.append(Arc::clone(commit), Box::new(move |done| tell.send(done).unwrap()));
    told.recv().unwrap()
}

pub(super) fn write(store: &Store, commits: &[Arc<Commit>]) {
    let (tell, told) = channel();
    for commit in commits {
        let tell = tell.clone();
        store.journal.append(Arc::clone(commit), Box::new(move |done| tell.send(done).unwrap()));
    }
    for commit in commits {
        told.recv().unwrap().unwrap();
        store.projection.feed(Arc::clone(commit));
    }
    store.projection.checkpoint().unwrap();
}

/// What the events fold to, by submission.
pub(super) fn folded(events: &[Event]) -> BTreeMap<u64, Task> {
    let mut by_id: BTreeMap<TaskId, (u64, Option<Task>)> = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for event in events {
        let entry = by_id.entry(event.task.clone()).or_default();
        if entry.1.is_none() {
            entry.0 = event.revision.0;
        }
        fold(&mut entry.1, event);
        match &entry.1 {
            Some(task) => rows.insert(entry.0, task.clone()),
            None => rows.remove(&entry.0),
        };
    }
    rows
}

pub(super) fn all(store: &Store, from: Revision) -> Result<Vec<Event>, StoreError> {
    let mut events = Vec::new();
    let mut at = from;
    loop {
        let more = store.journal.read(at, 10)?;
        let Some(last) = more.last() else { return Ok(events) };
        at = last.revision;
        events.extend(more);
    }
}

/// A page bounded by its rows only, with results.
pub(super) fn rows(rows: usize) -> PageSize {
    PageSize { rows, bytes: usize::MAX, results: true }
}

/// A task as pages show it.
pub(super) fn listed(task: &Task) -> Task {
    let mut task = task.clone();
    Arc::make_mut(&mut task.spec).payload = Box::default();
    task
}

fn pages(store: &Store, filter: &TaskFilter, size: PageSize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut after: Option<PageCursor> = None;
    loop {
        let page = store.projection.list(filter, size, after).unwrap();
        assert!(page.tasks.len() <= size.rows, "a page holds at most what was asked for");
        let bytes: usize = page.tasks.iter().map(weight).sum();
        assert!(page.tasks.len() == 1 || bytes <= size.bytes, "{} tasks of {bytes} bytes", page.tasks.len());
        tasks.extend(page.tasks);
        after = page.next;
        if after.is_none() {
            return tasks;
        }
    }
}

fn filters() -> Vec<TaskFilter> {
    let any = TaskFilter::default;
    let named = |name| crate::model::Namespace::parse(name).unwrap();
    vec![
        any(),
        TaskFilter { ids: vec![id(1), id(2), id(77)], ..any() },
        TaskFilter { batch: BatchId::parse("batch-1").ok(), ..any() },
        TaskFilter { labels: vec![("a".into(), "1".into())], ..any() },
        TaskFilter { labels: vec![("a".into(), "1".into()), ("b".into(), "2".into())], ..any() },
        TaskFilter { states: vec![TaskState::Failed], ..any() },
        TaskFilter { states: vec![TaskState::Completed, TaskState::Running], ..any() },
        TaskFilter { pool: PoolName::parse("pool-1").ok(), priorities: vec![Priority::High], ..any() },
        TaskFilter { namespaces: vec![named("other")], ..any() },
        TaskFilter { namespaces: ["x", "other", "default"].map(named).to_vec(), ..any() },
        TaskFilter { handler: crate::model::HandlerName::parse("handler-2").ok(), ..any() },
        TaskFilter {
            submitted_from: Some(Timestamp(1_700_000_000_000_500)),
            submitted_until: Some(Timestamp(1_700_000_000_009_000)),
            ..any()
        },
    ]
}

fn answers_are_the_fold(store: &Store, events: &[Event]) {
    let tasks = folded(events);
    let newest: Vec<&Task> = tasks.values().rev().collect();
    for filter in filters() {
        let wanted: Vec<Task> =
            newest.iter().filter(|task| filter.matches_task(task)).map(|task| listed(task)).collect();
        assert_eq!(pages(store, &filter, rows(3)), wanted, "{filter:?}");
        assert_eq!(pages(store, &filter, rows(1000)), wanted, "{filter:?}");
    }
    for task in tasks.values() {
        assert_eq!(store.projection.get(&task.spec.id).unwrap().as_ref(), Some(task));
    }
    assert_eq!(store.projection.get(&id(77)).unwrap(), None);
    let reached = *store.projection.reached().borrow();
    assert_eq!(reached, events.last().map_or(Revision(0), |event| event.revision));
    assert_eq!(store.projection.list(&TaskFilter::default(), rows(1), None).unwrap().revision, reached);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_appended_is_read_and_answers_are_its_fold_before_and_after_a_restart(seed in seed()) {
        let history = History::of(&seed);
        for (store, directory) in both() {
            write(&store, &history.commits(9));
            prop_assert_eq!(&all(&store, Revision(0)).unwrap(), &history.events);
            answers_are_the_fold(&store, &history.events);
            if store.kind == "sqlite" {
                drop(store);
                let (store, recovery) = sqlite(directory.path()).unwrap();
                prop_assert_eq!(&all(&store, Revision(0)).unwrap(), &history.events);
                let wanted: Vec<_> = folded(&history.events).into_values().map(RecoveredTask::from).collect();
                prop_assert_eq!(recovery.tasks, wanted);
                prop_assert!(recovery.events.is_empty() && recovery.notes.is_empty());
                answers_are_the_fold(&store, &history.events);
            }
        }
    }

    #[test]
    fn a_projection_fed_in_pieces_of_any_size_gives_the_same_answers(seed in seed(), most in 1_usize..50) {
        let history = History::of(&seed);
        for (store, _directory) in both() {
            for commit in history.commits(most) {
                store.projection.feed(Arc::clone(&commit));
                prop_assert_eq!(store.projection.checkpoint().unwrap(), commit.last());
            }
            answers_are_the_fold(&store, &history.events);
        }
    }
}

#[test]
fn reading_begins_anywhere_and_gives_whole_commits_about_as_many_as_asked_for() {
    let history = long();
    for (store, _directory) in both() {
        write(&store, &history.commits(9));
        let count = history.events.len();
        for after in (0..count).step_by(13) {
            let read = store.journal.read(Revision(after as u64), 5).unwrap();
            assert!((1..=5 + 9).contains(&read.len()));
            assert_eq!(read[..], history.events[after..after + read.len()]);
        }
        assert_eq!(store.journal.read(Revision(count as u64), 5).unwrap(), []);
        assert_eq!(store.journal.read(Revision(count as u64 + 9), 5).unwrap(), []);
    }
}

#[test]
fn trimmed_events_are_compacted_and_the_rest_goes_on() {
    let history = long();
    let commits = history.commits(9);
    for (store, directory) in both() {
        let mut store = store;
        write(&store, &commits);
        let middle = &commits[commits.len() / 2];
        // In the middle of a commit, which stays whole.
        store.journal.trim(middle.last().next()).unwrap();
        let oldest = middle.last();
        assert_eq!(store.journal.oldest(), oldest);
        if store.kind == "sqlite" {
            drop(store);
            store = sqlite(directory.path()).unwrap().0;
        }
        assert_eq!(store.journal.oldest(), oldest);
        let refused = store.journal.read(Revision(oldest.0 - 1), 5).unwrap_err();
        assert!(matches!(refused, StoreError::Compacted { oldest: named } if named == oldest));
        assert_eq!(all(&store, oldest).unwrap()[..], history.events[usize::try_from(oldest.0).unwrap()..]);
        store.journal.trim(commits.last().unwrap().last()).unwrap();
        let mut next = History::default();
        next.step(3, 0, 5);
        next.events[0].revision = commits.last().unwrap().last().next();
        append(&store, &next.commits(1)[0]).unwrap();
        assert_eq!(all(&store, store.journal.oldest()).unwrap(), next.events);
    }
}

#[test]
fn a_commit_that_does_not_follow_is_refused_and_leaves_no_trace() {
    let history = long();
    let commits = history.commits(9);
    for (store, _directory) in both() {
        assert!(matches!(append(&store, &commits[1]), Err(StoreError::Io { .. })));
        append(&store, &commits[0]).unwrap();
        append(&store, &commits[1]).unwrap();
        assert_eq!(all(&store, Revision(0)).unwrap().len(), commits[0].events.len() + commits[1].events.len());
    }
}

#[test]
fn the_output_of_an_attempt_is_kept_and_0_asks_for_the_last_that_ended() {
    for (store, _directory) in both() {
        let mut history = History::default();
        // Submitted, started, failed and tried again with output, eligible, started.
        for (action, size) in [(0, 1), (0, 1), (5, 200), (0, 1), (0, 1)] {
            history.step(1, action, size);
        }
        write(&store, &history.commits(2));
        let (attempt, output) = store.projection.output(&id(1), 0).unwrap().unwrap();
        assert_eq!((attempt, output.stdout.total), (1, 203));
        assert_eq!(store.projection.output(&id(1), 1).unwrap().unwrap().1, output);
        assert_eq!(store.projection.output(&id(1), 2).unwrap(), None, "it has not ended");
        assert_eq!(store.projection.output(&id(2), 0).unwrap(), None);
        history.step(1, 7, 10);
        let end = Commit { events: vec![history.events.last().unwrap().clone()], sync: true };
        store.projection.feed(Arc::new(end));
        store.projection.checkpoint().unwrap();
        let (attempt, output) = store.projection.output(&id(1), 0).unwrap().unwrap();
        assert_eq!((attempt, output.stdout.total), (2, 0), "the second attempt wrote nothing");
    }
}

#[test]
fn a_page_ends_before_it_holds_more_bytes_than_it_may() {
    let history = long();
    let wanted: Vec<Task> = folded(&history.events).values().rev().map(listed).collect();
    for (store, _directory) in both() {
        write(&store, &history.commits(9));
        // Less than any task, about three of them, and all.
        for bytes in [1, 4_000, usize::MAX] {
            let size = PageSize { bytes, ..rows(1_000) };
            assert_eq!(pages(&store, &TaskFilter::default(), size), wanted, "{} with {bytes}", store.kind);
        }
        let first = store.projection.list(&TaskFilter::default(), PageSize { bytes: 4_000, ..rows(1_000) }, None);
        let first = first.unwrap();
        assert!((2..wanted.len()).contains(&first.tasks.len()) && first.next.is_some(), "{}", first.tasks.len());
    }
}

#[test]
fn a_page_has_results_only_when_they_are_wanted() {
    let history = long();
    for (store, _directory) in both() {
        write(&store, &history.commits(9));
        let list = |results| store.projection.list(&TaskFilter::default(), PageSize { results, ..rows(1_000) }, None);
        assert!(list(true).unwrap().tasks.iter().any(|task| task.status.result.is_some()));
        let without = list(false).unwrap().tasks;
        assert!(without.iter().all(|task| task.status.result.is_none() && task.spec.payload.is_empty()));
        assert_eq!(without.len(), list(true).unwrap().tasks.len());
    }
}
