//! Unique keys: what a submission does while a task has its key.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Dependencies, Namespace, OnParentFailure, OnUniqueConflict, Parent, Payload, Priority, TaskExtras, TaskFilter,
    TaskId, TaskOptions, TaskSpec, TaskState, Timestamp, UniqueKey,
};
use crate::runners::Outcome;
use crate::scheduler::refusal::{KeyHolder, Refusal};

use super::tests::{Fixture, SECOND, options, spec};
use super::{Accepted, Core};

fn unique(id: &str, key: &str, on_conflict: OnUniqueConflict) -> TaskSpec {
    with_key(id, UniqueKey { key: key.into(), on_conflict, reuse_result_within: None })
}

/// Uses a result of the last ten seconds.
fn reusing(id: &str, key: &str) -> TaskSpec {
    let (on_conflict, reuse_result_within) = (OnUniqueConflict::Fail, Some(Duration::from_secs(10)));
    with_key(id, UniqueKey { key: key.into(), on_conflict, reuse_result_within })
}

fn with_key(id: &str, unique: UniqueKey) -> TaskSpec {
    let unique = Some(Box::new(unique));
    TaskSpec { extras: TaskExtras { unique, ..TaskExtras::default() }.boxed(), ..spec(id, Priority::Normal) }
}

impl Fixture {
    fn add_one(&mut self, spec: TaskSpec) -> Result<Accepted, Refusal> {
        self.submit(0, vec![spec]).map(|submitted| submitted.accepted[0].clone())
    }

    fn is_taken_by(&mut self, key: &str, task: &str) -> bool {
        match self.add_one(unique("refused", key, OnUniqueConflict::Fail)) {
            Err(Refusal::UniqueKeyTaken(taken)) => {
                taken.holder == KeyHolder::Task(TaskId::parse(task).unwrap()) && *taken.key == *key
            }
            _ => false,
        }
    }
}

#[test]
fn a_key_is_taken_until_its_task_has_ended() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    assert!(fixture.is_taken_by("k", "a"));
    fixture.add_one(unique("other", "l", OnUniqueConflict::Fail)).unwrap();
    let ticket = fixture.start(1);
    assert!(fixture.is_taken_by("k", "a"), "it is running");
    fixture.end(ticket, 2, Outcome::Completed(Payload::default()), None);
    fixture.add_one(unique("b", "k", OnUniqueConflict::Fail)).unwrap();
    fixture.core.check();
}

#[test]
fn a_key_belongs_to_its_namespace() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    let other = unique("b", "k", OnUniqueConflict::Fail);
    let options = TaskOptions { namespace: Namespace::parse("other").unwrap(), ..(*other.options).clone() };
    fixture.add_one(TaskSpec { options: Arc::new(options), ..other }).unwrap();
    fixture.core.check();
}

#[test]
fn an_existing_task_is_used_instead_of_a_new_one() {
    let mut fixture = Fixture::new();
    let first = fixture.add_one(unique("a", "k", OnUniqueConflict::UseExisting)).unwrap();
    assert!(!first.duplicate);
    let used = fixture.add_one(unique("b", "k", OnUniqueConflict::UseExisting)).unwrap();
    assert_eq!(used, Accepted { duplicate: true, ..first });
    fixture.start(1);
    let used = fixture.add_one(unique("b", "k", OnUniqueConflict::UseExisting)).unwrap();
    assert_eq!(used.state, Some(TaskState::Running));
    assert_eq!(fixture.core.tasks.iter().count(), 1);
}

#[test]
fn a_task_that_has_not_started_is_replaced() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    let new = fixture.add_one(unique("b", "k", OnUniqueConflict::ReplaceQueued)).unwrap();
    assert_eq!((new.state, fixture.state("a")), (Some(TaskState::Queued), TaskState::Cancelled));
    // Dispatched, but no worker has taken it.
    fixture.assigned();
    fixture.add_one(unique("c", "k", OnUniqueConflict::ReplaceQueued)).unwrap();
    fixture.answer_recalls(0, true);
    assert_eq!((fixture.state("b"), fixture.state("c")), (TaskState::Cancelled, TaskState::Queued));
    assert!(fixture.is_taken_by("k", "c"));
    fixture.core.check();
}

#[test]
fn a_task_that_has_started_goes_on_beside_the_one_that_follows_it() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    fixture.assigned();
    fixture.add_one(unique("b", "k", OnUniqueConflict::ReplaceQueued)).unwrap();
    // A worker has taken it before.
    fixture.answer_recalls(0, false);
    fixture.add_one(unique("c", "k", OnUniqueConflict::ReplaceQueued)).unwrap();
    fixture.answer_recalls(0, false);
    assert_eq!(
        ["a", "b", "c"].map(|id| fixture.state(id)),
        [TaskState::Queued, TaskState::Cancelled, TaskState::Queued]
    );
    assert!(fixture.is_taken_by("k", "c"));
    fixture.cancel("c", 1, true).unwrap();
    assert!(fixture.is_taken_by("k", "a"), "it has not ended");
    fixture.core.check();
}

#[test]
fn a_refused_submission_replaces_nothing() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    fixture.add_one(unique("b", "l", OnUniqueConflict::Fail)).unwrap();
    let replacing = unique("c", "k", OnUniqueConflict::ReplaceQueued);
    let refused = fixture.submit(0, vec![replacing, unique("d", "l", OnUniqueConflict::Fail)]);
    assert!(matches!(refused, Err(Refusal::UniqueKeyTaken(_))), "{refused:?}");
    assert_eq!(fixture.state("a"), TaskState::Queued);
    fixture.core.check();
}

#[test]
fn tasks_of_one_submission_follow_the_rules_in_their_order() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    let [b, c, d, e] = [
        ("b", OnUniqueConflict::ReplaceQueued),
        ("c", OnUniqueConflict::UseExisting),
        ("d", OnUniqueConflict::ReplaceQueued),
        ("e", OnUniqueConflict::Fail),
    ]
    .map(|(id, rule)| unique(id, "k", rule));
    let refused = fixture.submit(0, vec![b.clone(), c.clone(), d.clone(), e]);
    let Err(Refusal::UniqueKeyTaken(taken)) = refused else { panic!("{refused:?}") };
    assert_eq!(taken.holder, KeyHolder::Submitted(2));
    assert_eq!(fixture.state("a"), TaskState::Queued);
    let accepted = fixture.submit(0, vec![b, c, d]).unwrap().accepted;
    assert_eq!(accepted[1], Accepted { duplicate: true, ..accepted[0].clone() });
    assert_eq!(accepted[1].state, Some(TaskState::Queued));
    assert_eq!(
        ["a", "b", "d"].map(|id| fixture.state(id)),
        [TaskState::Cancelled, TaskState::Cancelled, TaskState::Queued]
    );
    assert!(fixture.is_taken_by("k", "d"));
    fixture.core.check();
}

#[test]
fn a_task_cannot_wait_for_one_that_uses_it() {
    let mut fixture = Fixture::new();
    let mut first = unique("a", "k", OnUniqueConflict::Fail);
    let parents = Box::new([Parent::at(1)]);
    let dependencies = Dependencies { parents, on_parent_failure: OnParentFailure::Fail };
    first.extras.as_mut().unwrap().dependencies = Some(Arc::new(dependencies));
    let cycle = fixture.submit(0, vec![first, unique("b", "k", OnUniqueConflict::UseExisting)]);
    let Err(Refusal::BadField(bad)) = cycle else { panic!("{cycle:?}") };
    assert_eq!(bad.field, "tasks[0].dependencies");
}

#[test]
fn a_restart_keeps_the_keys() {
    let mut fixture = Fixture::new();
    fixture.add_one(unique("a", "k", OnUniqueConflict::Fail)).unwrap();
    fixture.add_one(unique("b", "k", OnUniqueConflict::ReplaceQueued)).unwrap();
    let mut core = Core::new(options());
    for event in &fixture.out.events {
        core.replay(event);
    }
    core.recover(Timestamp(1), &mut fixture.out);
    core.check();
    fixture.core = core;
    assert!(fixture.is_taken_by("k", "b"));
}

/// A task that has completed at this second, and its fixture.
fn with_result(spec: TaskSpec, at: u64) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.submit(at * SECOND, vec![spec]).unwrap();
    let ticket = fixture.start(at * SECOND);
    fixture.end(ticket, at * SECOND, Outcome::Completed(Payload::default()), None);
    fixture
}

/// The task that a submission at this second returns.
fn returned(fixture: &mut Fixture, at: u64, spec: TaskSpec) -> (String, bool) {
    let submitted = fixture.submit(at * SECOND, vec![spec]).unwrap();
    fixture.core.check();
    (submitted.accepted[0].id.to_string(), submitted.accepted[0].duplicate)
}

#[test]
fn a_result_is_used_again_until_it_is_too_old() {
    let mut fixture = with_result(reusing("a", "k"), 100);
    assert_eq!(returned(&mut fixture, 110, reusing("b", "k")), ("a".to_owned(), true));
    assert_eq!(returned(&mut fixture, 110, reusing("other", "l")), ("other".to_owned(), false));
    assert_eq!(returned(&mut fixture, 111, reusing("b", "k")), ("b".to_owned(), false));
}

#[test]
fn a_result_is_used_again_after_a_restart() {
    for from_rows in [false, true] {
        let mut restarted = with_result(reusing("a", "k"), 100).restarted(105 * SECOND, from_rows);
        assert_eq!(returned(&mut restarted, 106, reusing("b", "k")), ("a".to_owned(), true), "{from_rows}");
    }
}

#[test]
fn only_submissions_that_say_so_use_results_and_only_of_such() {
    let rule = OnUniqueConflict::UseExisting;
    let mut fixture = with_result(reusing("a", "k"), 100);
    assert_eq!(returned(&mut fixture, 101, unique("b", "k", rule)), ("b".to_owned(), false));
    let mut fixture = with_result(unique("a", "k", rule), 100);
    assert_eq!(returned(&mut fixture, 101, reusing("b", "k")), ("b".to_owned(), false));
}

#[test]
fn a_cancelled_or_deleted_task_has_no_result() {
    let mut cancelled = Fixture::new();
    cancelled.submit(SECOND, vec![reusing("a", "k")]).unwrap();
    cancelled.cancel("a", SECOND, true).unwrap();
    assert_eq!(returned(&mut cancelled, 2, reusing("b", "k")), ("b".to_owned(), false));
    let mut deleted = with_result(reusing("a", "k"), 1);
    deleted.core.delete_matching(Timestamp(SECOND), &TaskFilter::default(), &mut deleted.out);
    assert_eq!(returned(&mut deleted, 2, reusing("b", "k")), ("b".to_owned(), false));
}
