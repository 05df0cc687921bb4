//! The suite that every implementation of the store passes. `journal_contract` has the part about appends.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixtures::{History, id};
use super::stores::{append, fold_all, listed, long_history, open_sqlite, open_store, page_of, read_all, write};
use crate::model::{
    BatchId, Event, HandlerName, Namespace, PoolName, Priority, RecoveredTask, Revision, Task, TaskFilter, TaskState,
    Timestamp,
};
use crate::store::error::StoreError;
use crate::store::open::{Options, Store};
use crate::store::page::{PageCursor, PageSize, approximate_bytes};
use crate::store::traits::Commit;

fn seed() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec(any::<(u8, u8, u8)>(), 1..300)
}

/// An empty store of each kind, with its directory.
fn stores() -> Vec<(Store, tempfile::TempDir)> {
    let directory = tempfile::tempdir().unwrap();
    let file = open_sqlite(directory.path()).unwrap().0;
    let memory = open_store(&Options::default()).unwrap().0;
    vec![(file, directory), (memory, tempfile::tempdir().unwrap())]
}

fn pages(store: &Store, filter: &TaskFilter, size: PageSize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut after: Option<PageCursor> = None;
    loop {
        let page = store.projection.list(filter, size, after).unwrap();
        assert!(page.tasks.len() <= size.rows, "{} tasks", page.tasks.len());
        let bytes: usize = page.tasks.iter().map(approximate_bytes).sum();
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
    let named = |name| Namespace::parse(name).unwrap();
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
        TaskFilter { handler: HandlerName::parse("handler-2").ok(), ..any() },
        TaskFilter { texts: vec!["it fail".into(), "handler-".into()], ..any() },
        TaskFilter {
            submitted_from: Some(Timestamp(1_700_000_000_000_500)),
            submitted_until: Some(Timestamp(1_700_000_000_009_000)),
            ..any()
        },
    ]
}

fn assert_queries_match(store: &Store, events: &[Event]) {
    let tasks = fold_all(events);
    let newest: Vec<&Task> = tasks.values().rev().collect();
    for filter in filters() {
        let expected: Vec<Task> =
            newest.iter().filter(|task| filter.matches_task(task)).map(|task| listed(task)).collect();
        assert_eq!(pages(store, &filter, page_of(3)), expected, "{filter:?}");
        assert_eq!(pages(store, &filter, page_of(1000)), expected, "{filter:?}");
    }
    for task in tasks.values() {
        assert_eq!(store.projection.get(&task.spec.id, true).unwrap().as_ref(), Some(task));
        let without = store.projection.get(&task.spec.id, false).unwrap().unwrap();
        assert_eq!((without.spec.without_payload(), &without.status), (task.spec.without_payload(), &task.status));
    }
    assert_eq!(store.projection.get(&id(77), true).unwrap(), None);
    let revision = *store.projection.revision().borrow();
    assert_eq!(revision, events.last().map_or(Revision(0), Event::revision));
    assert_eq!(store.projection.list(&TaskFilter::default(), page_of(1), None).unwrap().revision, revision);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn events_and_query_results_survive_a_restart(seed in seed()) {
        let history = History::of(&seed);
        for (store, directory) in stores() {
            write(&store, &history.commits(9));
            prop_assert_eq!(&read_all(&store, Revision(0)).unwrap(), &history.events);
            assert_queries_match(&store, &history.events);
            if store.kind == "sqlite" {
                drop(store);
                let (store, recovery) = open_sqlite(directory.path()).unwrap();
                prop_assert_eq!(&read_all(&store, Revision(0)).unwrap(), &history.events);
                let expected: Vec<_> = fold_all(&history.events).into_values().map(RecoveredTask::from).collect();
                prop_assert_eq!(recovery.tasks, expected);
                prop_assert!(recovery.events.is_empty() && recovery.notes.is_empty());
                assert_queries_match(&store, &history.events);
            }
        }
    }

    #[test]
    fn query_results_do_not_depend_on_the_size_of_commits(seed in seed(), events_max in 1_usize..50) {
        let history = History::of(&seed);
        for (store, _directory) in stores() {
            for commit in history.commits(events_max) {
                store.projection.apply(Arc::clone(&commit));
                prop_assert_eq!(store.projection.checkpoint().unwrap(), commit.last());
            }
            assert_queries_match(&store, &history.events);
        }
    }
}

#[test]
fn a_read_may_start_anywhere_and_returns_about_the_requested_number_of_events() {
    let history = long_history();
    for (store, _directory) in stores() {
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
fn trimmed_events_cannot_be_read_and_appends_continue() {
    let history = long_history();
    let commits = history.commits(9);
    for (store, directory) in stores() {
        let mut store = store;
        write(&store, &commits);
        assert_eq!(store.journal.excess(u64::MAX), None);
        assert_eq!(store.journal.excess(0), commits.last().map(|commit| commit.last()));
        let middle = &commits[commits.len() / 2];
        // In the middle of a commit, which is kept as a whole.
        store.journal.trim(middle.last().next()).unwrap();
        let oldest = middle.last();
        assert_eq!(store.journal.oldest(), oldest);
        if store.kind == "sqlite" {
            drop(store);
            store = open_sqlite(directory.path()).unwrap().0;
        }
        assert_eq!(store.journal.oldest(), oldest);
        assert!(
            store.journal.excess(8 << 10) > Some(oldest) && store.journal.excess(8 << 10) < store.journal.excess(0)
        );
        let refused = store.journal.read(Revision(oldest.0 - 1), 5).unwrap_err();
        assert!(matches!(refused, StoreError::Compacted { oldest: reported } if reported == oldest));
        assert_eq!(read_all(&store, oldest).unwrap()[..], history.events[usize::try_from(oldest.0).unwrap()..]);
        store.journal.trim(commits.last().unwrap().last()).unwrap();
        let mut next = History::after(commits.last().unwrap().last());
        next.step(3, 0, 5);
        append(&store, &next.commits(1)[0]).unwrap();
        assert_eq!(read_all(&store, store.journal.oldest()).unwrap(), next.events);
    }
}

#[test]
fn output_is_stored_per_attempt_and_0_means_the_last_ended_attempt() {
    for (store, _directory) in stores() {
        let mut history = History::default();
        // Submitted, started, failed with output and waits for a retry, eligible, started.
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
        let end = Commit::new(vec![history.events.last().unwrap().clone()], true);
        store.projection.apply(Arc::new(end));
        store.projection.checkpoint().unwrap();
        let (attempt, output) = store.projection.output(&id(1), 0).unwrap().unwrap();
        assert_eq!((attempt, output.stdout.total), (2, 0), "the second attempt wrote nothing");
    }
}

#[test]
fn a_page_respects_its_byte_limit() {
    let history = long_history();
    let expected: Vec<Task> = fold_all(&history.events).values().rev().map(listed).collect();
    for (store, _directory) in stores() {
        write(&store, &history.commits(9));
        // Smaller than any task, about three tasks, and unlimited.
        for bytes in [1, 4_000, usize::MAX] {
            let size = PageSize { bytes, ..page_of(1_000) };
            assert_eq!(pages(&store, &TaskFilter::default(), size), expected, "{} with {bytes}", store.kind);
        }
        let first = store.projection.list(&TaskFilter::default(), PageSize { bytes: 4_000, ..page_of(1_000) }, None);
        let first = first.unwrap();
        assert!((2..expected.len()).contains(&first.tasks.len()) && first.next.is_some(), "{}", first.tasks.len());
    }
}

#[test]
fn a_page_contains_results_only_on_request() {
    let history = long_history();
    for (store, _directory) in stores() {
        write(&store, &history.commits(9));
        let list =
            |results| store.projection.list(&TaskFilter::default(), PageSize { results, ..page_of(1_000) }, None);
        assert!(list(true).unwrap().tasks.iter().any(|task| task.status.result.is_some()));
        let without = list(false).unwrap().tasks;
        assert!(without.iter().all(|task| task.status.result.is_none() && task.spec.payload.is_empty()));
        assert_eq!(without.len(), list(true).unwrap().tasks.len());
    }
}
