//! The contract of [`Journal`], which every implementation keeps.

use std::sync::Arc;
use std::sync::mpsc::channel;

use super::faulty::FaultyJournal;
use super::fixtures::{History, submission};
use super::stores::{long_history, temp_dir};
use crate::model::{Event, Revision};
use crate::store::error::StoreError;
use crate::store::journal::SqliteJournal;
use crate::store::memory::MemoryJournal;
use crate::store::traits::{AppendError, COMMIT_BYTES_MAX, Commit, Journal};

/// An empty journal.
struct Subject {
    journal: Arc<dyn Journal>,
    /// Opens the same journal once more, although the first handle is open.
    open_again: Box<dyn Fn() -> Arc<dyn Journal>>,
}

/// Runs a test with a journal of each kind.
fn for_each_journal(test: impl Fn(Subject)) {
    let memory = Arc::<MemoryJournal>::default();
    let journal = Arc::clone(&memory) as _;
    test(Subject { journal, open_again: Box::new(move || Arc::new(memory.open_again())) });
    let directory = temp_dir();
    let path = directory.path().join("journal.db");
    let open = move || -> Arc<dyn Journal> { Arc::new(SqliteJournal::open(&path, None).unwrap()) };
    test(Subject { journal: open(), open_again: Box::new(open) });
    let memory = Arc::<MemoryJournal>::default();
    let journal = Arc::new(FaultyJournal::new(Arc::clone(&memory) as _));
    test(Subject { journal, open_again: Box::new(move || Arc::new(memory.open_again())) });
}

fn read_all(journal: &dyn Journal) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(Revision(0), Event::revision);
        let more = journal.read(after, 10).unwrap();
        if more.is_empty() {
            return events;
        }
        events.extend(more);
    }
}

fn events(commits: &[Arc<Commit>]) -> Vec<Event> {
    commits.iter().flat_map(|commit| commit.events.clone()).collect()
}

/// Has all commits in flight at once, and returns their outcomes in the order of the reports.
fn append_all(journal: &dyn Journal, commits: &[Arc<Commit>]) -> Vec<(Revision, Result<(), AppendError>)> {
    let (sender, outcomes) = channel();
    for commit in commits {
        let (sender, end) = (sender.clone(), commit.last());
        let done = Box::new(move |outcome| sender.send((end, outcome)).unwrap());
        journal.append_in_background(Arc::clone(commit), done);
    }
    drop(sender);
    outcomes.into_iter().collect()
}

fn ends(commits: &[Arc<Commit>]) -> Vec<Revision> {
    commits.iter().map(|commit| commit.last()).collect()
}

#[test]
fn appends_in_flight_are_durable_and_reported_in_order() {
    let commits = long_history().commits(9);
    for_each_journal(|Subject { journal, open_again }| {
        let (first, rest) = commits.split_first().unwrap();
        journal.append(first).unwrap();
        let outcomes = append_all(&*journal, rest);
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        assert_eq!(outcomes.into_iter().map(|(end, _)| end).collect::<Vec<_>>(), ends(rest));
        for journal in [&*journal, &*open_again()] {
            assert_eq!(read_all(journal), events(&commits));
        }
    });
}

#[test]
fn a_commit_that_does_not_follow_the_last_one_changes_nothing() {
    let commits = long_history().commits(9);
    for_each_journal(|Subject { journal, .. }| {
        let refused = |outcome| matches!(outcome, Err(AppendError::Refused(_)));
        assert!(refused(journal.append(&commits[1])));
        journal.append(&commits[0]).unwrap();
        assert!(refused(journal.append(&commits[0])));
        let outcomes = append_all(&*journal, &[Arc::clone(&commits[1]), Arc::clone(&commits[3])]);
        assert!(outcomes[0].1.is_ok() && refused(outcomes[1].1.clone()));
        journal.append(&commits[2]).unwrap();
        assert_eq!(read_all(&*journal), events(&commits[..3]));
    });
}

#[test]
fn full_commits_in_flight_are_appended_as_a_whole() {
    let mut history = History::default();
    let mut commit = |tasks: usize| {
        let before = history.events.len();
        (0..tasks).for_each(|_| submission(&mut history, COMMIT_BYTES_MAX / 16));
        Arc::new(Commit::new(history.events[before..].to_vec(), true))
    };
    let commits = [commit(15), commit(2), commit(15)];
    assert!(commits[0].bytes <= COMMIT_BYTES_MAX && commits[0].bytes + commits[1].bytes > COMMIT_BYTES_MAX);
    for_each_journal(|Subject { journal, open_again }| {
        let outcomes = append_all(&*journal, &commits);
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        assert_eq!(read_all(&*open_again()), events(&commits));
    });
}

#[test]
fn an_older_opening_appends_and_trims_nothing() {
    let commits = long_history().commits(9);
    for_each_journal(|Subject { journal, open_again }| {
        journal.append(&commits[0]).unwrap();
        let newer = open_again();
        assert!(newer.epoch() > journal.epoch());
        let is_fenced = |outcome: Result<(), AppendError>| {
            let Err(error @ AppendError::Fenced(_)) = outcome else { panic!("{outcome:?}") };
            let text = error.to_string();
            assert!(error.is_final() && text.contains(&format!("epoch {};", newer.epoch())), "{text}");
        };
        is_fenced(journal.append(&commits[1]));
        for (_, outcome) in append_all(&*journal, &commits[1..3]) {
            is_fenced(outcome);
        }
        assert!(matches!(journal.trim(commits[0].last()), Err(StoreError::Fenced { .. })));
        newer.append(&commits[1]).unwrap();
        is_fenced(journal.append(&commits[2]));
        drop(journal);
        newer.append(&commits[2]).unwrap();
        assert_eq!(read_all(&*newer), events(&commits[..3]));
        assert_eq!(read_all(&*open_again()), events(&commits[..3]));
    });
}

#[test]
fn after_a_refusal_the_commits_behind_are_refused_too_and_all_can_be_appended_again() {
    let commits = long_history().commits(9);
    let journal = FaultyJournal::new(Arc::<MemoryJournal>::default());
    journal.append(&commits[0]).unwrap();
    journal.fail_next(FaultyJournal::full(), false);
    let outcomes = append_all(&journal, &commits[1..4]);
    let is_full = |error: &AppendError| matches!(error, AppendError::Refused(StoreError::Full { .. }));
    assert!(outcomes.iter().all(|(_, outcome)| outcome.as_ref().is_err_and(is_full)), "{outcomes:?}");
    assert_eq!(read_all(&journal), events(&commits[..1]));
    assert!(append_all(&journal, &commits[1..]).iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(read_all(&journal), events(&commits));
}

#[test]
fn after_an_unknown_outcome_only_a_new_opening_appends() {
    let commits = long_history().commits(9);
    for written in [false, true] {
        let memory = Arc::<MemoryJournal>::default();
        let journal = FaultyJournal::new(Arc::clone(&memory) as _);
        journal.append(&commits[0]).unwrap();
        journal.fail_next(FaultyJournal::sync_failed(), written);
        for (_, outcome) in append_all(&journal, &commits[1..4]) {
            assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
        }
        assert!(matches!(journal.append(&commits[1]), Err(AppendError::Unknown(_))));
        let newer = memory.open_again();
        let kept = if written { 2 } else { 1 };
        assert_eq!(read_all(&newer), events(&commits[..kept]));
        newer.append(&commits[kept]).unwrap();
    }
}
