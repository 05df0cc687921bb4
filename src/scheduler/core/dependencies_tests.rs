//! Tests of dependencies: rules, refusals, what is kept, and that the cost of a parent does not grow with their number.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Dependencies, Event, FailureReason, Namespace, OnParentFailure, Parent, Payload, Priority, RequestKey, TaskChange,
    TaskExtras, TaskFilter, TaskId, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::runners::Outcome;
use crate::scheduler::refusal::Refusal;

use super::tests::{Fixture, failed, request, spec};
use super::{Submission, Verdict};

use OnParentFailure::{Cancel, Fail, Run};

fn id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

fn with_parents(spec: TaskSpec, parents: Vec<Parent>, on_parent_failure: OnParentFailure) -> TaskSpec {
    let dependencies = Dependencies { parents: parents.into(), on_parent_failure };
    let extras = TaskExtras { dependencies: Some(Arc::new(dependencies)), ..spec.extras().clone() };
    TaskSpec { extras: extras.boxed(), ..spec }
}

fn child(name: &str, parents: &[&str], rule: OnParentFailure) -> TaskSpec {
    let parents = parents.iter().map(|parent| Parent { id: id(parent), place: None }).collect();
    with_parents(plain(name), parents, rule)
}

fn placed(name: &str, places: &[u32]) -> TaskSpec {
    with_parents(plain(name), places.iter().copied().map(Parent::at).collect(), Fail)
}

fn plain(name: &str) -> TaskSpec {
    TaskSpec { payload: Box::default(), ..spec(name, Priority::Normal) }
}

fn roomy() -> Fixture {
    let mut fixture = Fixture::new();
    (fixture.core.options.attached_bytes_max, fixture.core.options.retention.count) = (u64::MAX, 100);
    fixture
}

impl Fixture {
    /// Runs the next task to its end, and lets its children take notice.
    fn run(&mut self, at: u64, outcome: Outcome) {
        self.core.dispatch(&mut self.out);
        let mut priorities = Priority::DESCENDING.into_iter();
        let ticket = priorities.find_map(|priority| self.core.oldest_assigned(0, 0, priority)).unwrap();
        self.core.started(ticket, Timestamp(at), "default/PoolWorker-0".into(), &mut self.out);
        self.end(ticket, at, outcome, None);
        while !self.core.release_children(Timestamp(at), 3, &mut self.out) {}
        self.core.check();
    }

    fn complete(&mut self, at: u64) {
        self.run(at, Outcome::Completed(Payload::default()));
    }

    fn states(&self, ids: &[&str]) -> Vec<TaskState> {
        ids.iter().map(|id| self.state(id)).collect()
    }

    fn refused(&mut self, specs: Vec<TaskSpec>) -> String {
        self.submit(1, specs).unwrap_err().to_string()
    }
}

#[test]
fn a_task_starts_when_all_of_its_parents_have_completed() {
    let mut fixture = roomy();
    fixture.submit(1, vec![plain("a"), plain("b")]).unwrap();
    let submitted = fixture.submit(1, vec![child("c", &["a", "b", "a"], Fail)]).unwrap();
    assert_eq!(submitted.accepted[0].state, Some(TaskState::Waiting));
    let unfinished = fixture.core.unfinished_parents(&id("c")).unwrap();
    assert_eq!((unfinished.count, unfinished.ids), (3, vec![id("a"), id("b"), id("a")]));
    fixture.complete(2);
    assert_eq!(fixture.state("c"), TaskState::Waiting);
    assert_eq!(fixture.core.unfinished_parents(&id("c")).unwrap().ids, [id("b")]);
    fixture.complete(3);
    assert_eq!(fixture.state("c"), TaskState::Queued);
    assert_eq!(fixture.core.unfinished_parents(&id("c")), None);
    fixture.complete(4);
    assert_eq!(fixture.state("c"), TaskState::Completed);
}

#[test]
fn a_task_whose_parents_have_completed_is_queued_at_once() {
    let mut fixture = roomy();
    fixture.submit(1, vec![plain("a")]).unwrap();
    fixture.complete(2);
    let submitted = fixture.submit(3, vec![child("c", &["a"], Fail)]).unwrap();
    assert_eq!(submitted.accepted[0].state, Some(TaskState::Queued));
    fixture.core.check();
}

#[test]
fn a_delay_that_ends_first_does_not_start_a_task_before_its_parents_end() {
    let mut fixture = roomy();
    fixture.submit(0, vec![plain("a")]).unwrap();
    for (name, delay) in [("early", 1), ("late", 5)] {
        let mut task = child(name, &["a"], Fail);
        task.extras.as_mut().unwrap().delay = Some(Duration::from_micros(delay));
        fixture.submit(0, vec![task]).unwrap();
    }
    fixture.core.advance(Timestamp(2), &mut fixture.out);
    fixture.core.check();
    assert_eq!(fixture.states(&["early", "late"]), [TaskState::Waiting; 2]);
    fixture.complete(3);
    assert_eq!(fixture.states(&["early", "late"]), [TaskState::Queued, TaskState::Waiting]);
    fixture.core.advance(Timestamp(5), &mut fixture.out);
    assert_eq!(fixture.state("late"), TaskState::Queued);
}

#[test]
fn the_rule_of_a_task_decides_what_follows_when_a_parent_fails_or_is_cancelled() {
    for is_cancelled in [false, true] {
        let mut fixture = roomy();
        let options = TaskOptions { at_most_once: true, ..(*plain("a").options).clone() };
        let parent = TaskSpec { options: Arc::new(options), ..plain("a") };
        fixture.submit(1, vec![parent, plain("b")]).unwrap();
        let children = [("fail", Fail), ("run", Run), ("cancel", Cancel)];
        fixture.submit(1, children.map(|(name, rule)| child(name, &["a", "b"], rule)).into()).unwrap();
        fixture.submit(1, vec![child("grandchild", &["cancel"], Fail)]).unwrap();
        if is_cancelled {
            fixture.cancel("a", 2, true).unwrap();
            while !fixture.core.release_children(Timestamp(2), 3, &mut fixture.out) {}
        } else {
            fixture.run(2, failed());
        }
        let names = ["fail", "run", "cancel", "grandchild"];
        let expected = [TaskState::Failed, TaskState::Waiting, TaskState::Cancelled, TaskState::Failed];
        assert_eq!(fixture.states(&names), expected, "at once, although b has not ended");
        let changes = fixture.out.events.iter().filter_map(Event::task);
        let reasons: Vec<String> = changes
            .filter_map(|event| match &event.change {
                TaskChange::Failed { failure, .. } if failure.reason == FailureReason::DependencyFailed => {
                    assert_eq!(failure.attempt, 0);
                    Some(failure.message.clone())
                }
                TaskChange::Cancelled { receipt, .. } if event.task == id("cancel") => {
                    assert_eq!(&*receipt.request.requested_by, "dependency");
                    Some(receipt.request.reason.to_string())
                }
                _ => None,
            })
            .collect();
        let how = if is_cancelled { "the parent `a` was cancelled" } else { "the parent `a` has failed" };
        assert_eq!(reasons, [how, how, "the parent `cancel` was cancelled"]);
        fixture.complete(3);
        assert_eq!(fixture.state("run"), TaskState::Queued, "all parents have ended");
    }
}

#[test]
fn a_task_that_is_submitted_after_the_failure_of_a_parent_fails_too() {
    let mut fixture = roomy();
    fixture.submit(1, vec![plain("a")]).unwrap();
    fixture.cancel("a", 2, true).unwrap();
    fixture.submit(3, vec![child("fail", &["a"], Fail), child("run", &["a"], Run)]).unwrap();
    assert_eq!(fixture.states(&["fail", "run"]), [TaskState::Waiting, TaskState::Queued]);
    while !fixture.core.release_children(Timestamp(3), 3, &mut fixture.out) {}
    assert_eq!(fixture.states(&["fail", "run"]), [TaskState::Failed, TaskState::Queued]);
    fixture.core.check();
}

#[test]
fn tasks_of_a_batch_depend_on_each_other_in_any_order() {
    let mut fixture = roomy();
    let both = with_parents(plain("last"), vec![Parent { id: id("first"), place: None }, Parent::at(1)], Fail);
    let submitted = fixture.submit(1, vec![both, placed("middle", &[2]), plain("first")]).unwrap();
    let accepted: Vec<_> = submitted.accepted.iter().map(|task| (task.id.to_string(), task.state.unwrap())).collect();
    let expected = [("last", TaskState::Waiting), ("middle", TaskState::Waiting), ("first", TaskState::Queued)];
    assert_eq!(accepted, expected.map(|(id, state)| (id.to_owned(), state)));
    let order: Vec<_> = fixture.out.events.iter().map(|event| event.task().unwrap().task.to_string()).collect();
    assert_eq!(order, ["first", "middle", "last"], "parents come first");
    fixture.complete(2);
    assert_eq!(fixture.states(&["middle", "last"]), [TaskState::Queued, TaskState::Waiting]);
    fixture.complete(3);
    assert_eq!(fixture.state("last"), TaskState::Queued);
}

#[test]
fn a_cycle_is_refused_by_its_name_and_adds_nothing() {
    let mut fixture = roomy();
    let cycle = vec![plain("a"), placed("b", &[3]), placed("c", &[1]), placed("d", &[0, 2])];
    let expected = "`tasks[1].dependencies` form a cycle, in which each task waits for the next: \
                    tasks[1] -> tasks[3] -> tasks[2] -> tasks[1]";
    assert_eq!(fixture.refused(cycle), expected);
    assert_eq!(fixture.refused(vec![child("a", &["a"], Fail)]), "`dependencies` contain the task itself");
    let large: Vec<_> = (0..20).map(|place| placed(&format!("t{place}"), &[(place + 1) % 20])).collect();
    assert!(fixture.refused(large).ends_with("tasks[7] -> 12 others -> tasks[0]"));
    assert!(fixture.out.events.is_empty());
    fixture.core.check();
}

#[test]
fn an_unknown_parent_is_refused_with_field_and_value() {
    let mut fixture = roomy();
    fixture.submit(1, vec![plain("a")]).unwrap();
    let refused = fixture.refused(vec![child("c", &["a", "gone"], Fail)]);
    let expected = "`dependencies.task_ids[1]` is `gone`, which does not exist in namespace `default` or was deleted";
    assert_eq!(refused, expected);
    let mixed = with_parents(plain("c"), vec![Parent { id: id("a"), place: None }, Parent::at(7)], Fail);
    let refused = fixture.refused(vec![plain("b"), mixed]);
    assert!(refused.starts_with("`tasks[1].dependencies.batch_indices[0]` is 7, "), "{refused}");
    let options = TaskOptions { namespace: Namespace::parse("other").unwrap(), ..(*plain("c").options).clone() };
    let foreign = TaskSpec { options: Arc::new(options), ..child("c", &["a"], Fail) };
    assert!(matches!(fixture.submit(1, vec![foreign]), Err(Refusal::ParentNotFound(_))));
    assert_eq!(fixture.out.events.len(), 1, "only the first submission added a task");
}

#[test]
fn a_repeated_batch_is_recognised_although_its_ids_are_generated_anew() {
    let mut fixture = roomy();
    let batch = |number: u8| {
        let with_request = |spec: TaskSpec, own: u8, name: &str| {
            let request = Some(Arc::new(RequestKey { id: name.into(), digest: None }));
            let extras = TaskExtras { request, ..spec.extras().clone() }.boxed();
            TaskSpec { id: TaskId::Uuid([number + own; 16]), extras, ..spec }
        };
        vec![with_request(plain("x"), 1, "parent"), with_request(placed("x", &[0]), 2, "child")]
    };
    let first = fixture.submit(1, batch(10)).unwrap();
    let again = fixture.submit(2, batch(20)).unwrap();
    assert!(again.accepted.iter().all(|task| task.duplicate));
    let ids = |submitted: &super::Submitted| submitted.accepted.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&first));
    // A new child of a task that repeats an earlier submission depends on that one.
    let mut third = batch(30);
    third[1] = placed("new", &[0]);
    let third = fixture.submit(3, third).unwrap();
    assert_eq!((third.accepted[0].duplicate, third.accepted[1].state), (true, Some(TaskState::Waiting)));
    fixture.complete(4);
    assert_eq!(fixture.state("new"), TaskState::Queued);
}

#[test]
fn a_finished_parent_is_kept_until_its_children_have_ended() {
    let mut fixture = roomy();
    fixture.core.options.retention.count = 2;
    fixture.submit(1, vec![plain("old")]).unwrap();
    fixture.complete(2);
    fixture.submit(3, vec![child("child", &["old"], Fail)]).unwrap();
    fixture.cancel("child", 3, true).unwrap();
    fixture.submit(3, vec![child("again", &["old"], Fail)]).unwrap();
    let other = TaskSpec { payload: Box::default(), ..spec("x", Priority::High) };
    for n in 0..5 {
        fixture.submit(4, vec![TaskSpec { id: id(&format!("other{n}")), ..other.clone() }]).unwrap();
        fixture.complete(4);
        while fixture.core.sweep(Timestamp(4), 10, &mut fixture.out) {}
        fixture.core.check();
    }
    let exists = |fixture: &Fixture, name: &str| fixture.core.state(&id(name)).is_some();
    assert!(exists(&fixture, "old") && !exists(&fixture, "child"));
    let filter = TaskFilter { ids: vec![id("old"), id("other4")], ..TaskFilter::default() };
    assert_eq!(fixture.core.delete_matching(Timestamp(5), &filter, &mut fixture.out), 1, "the parent stays");
    fixture.complete(6);
    assert_eq!(fixture.state("again"), TaskState::Completed);
    fixture.core.check();
    fixture.submit(7, vec![other]).unwrap();
    fixture.complete(7);
    while fixture.core.sweep(Timestamp(7), 10, &mut fixture.out) {}
    fixture.core.check();
    assert!(!exists(&fixture, "old") && exists(&fixture, "again"), "it is the oldest of those that may go");
}

#[test]
fn a_long_chain_and_a_parent_of_many_children_are_worked_off_in_steps() {
    let mut fixture = roomy();
    fixture.core.options.retention.count = 100_000;
    let chain = (0..5_000).map(|n| if n == 0 { plain("c0") } else { placed(&format!("c{n}"), &[n - 1]) });
    fixture.submit(1, chain.collect()).unwrap();
    let many = (0..5_000).map(|n| child(&format!("m{n}"), &["c0"], Cancel));
    fixture.submit(1, many.collect()).unwrap();
    fixture.core.cancel(&id("c0"), request(2), &mut fixture.out).unwrap();
    fixture.out.events.clear();
    let mut steps = 0;
    while !fixture.core.release_children(Timestamp(2), 100, &mut fixture.out) {
        assert!(fixture.out.events.len() <= 100);
        fixture.out.events.clear();
        steps += 1;
    }
    assert!(steps >= 90, "{steps} steps");
    assert_eq!(fixture.states(&["c4999", "m4999"]), [TaskState::Failed, TaskState::Cancelled]);
    fixture.core.check();
}

#[test]
fn children_that_ended_before_their_parent_leave_little_behind() {
    let mut fixture = roomy();
    fixture.submit(1, vec![plain("a")]).unwrap();
    fixture.submit(1, vec![child("stays", &["a"], Fail)]).unwrap();
    for n in 0..1_000 {
        fixture.submit(1, vec![child(&format!("c{n}"), &["a"], Fail)]).unwrap();
        fixture.cancel(&format!("c{n}"), 2, true).unwrap();
        fixture.core.check();
    }
    fixture.complete(3);
    assert_eq!(fixture.state("stays"), TaskState::Queued);
}

#[test]
fn the_cost_of_a_parent_does_not_grow_with_their_number() {
    let mut per_parent = Vec::new();
    for parents in [100, 10_000] {
        let mut fixture = roomy();
        (fixture.core.options.retention.count, fixture.core.options.payload_bytes_max) = (100, u64::MAX);
        let names: Vec<String> = (0..parents).map(|n| format!("p{n}")).collect();
        let specs: Vec<_> = names.iter().map(|name| plain(name)).collect();
        fixture.submit(1, specs).unwrap();
        let before = fixture.core.tasks.reads();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let submission = Submission::from(vec![child("last", &names, Run)]);
        let verdict = fixture.core.submit(Timestamp(1), submission, &mut fixture.out).unwrap();
        assert!(matches!(verdict, Verdict::Accepted(_)));
        for name in &names {
            fixture.core.cancel(&id(name), request(2), &mut fixture.out).unwrap();
        }
        fixture.core.unfinished_parents(&id("last"));
        while !fixture.core.release_children(Timestamp(2), 100, &mut fixture.out) {}
        assert_eq!(fixture.state("last"), TaskState::Queued);
        per_parent.push((fixture.core.tasks.reads() - before) / parents);
    }
    assert!(per_parent[1] <= per_parent[0] + 2, "reads of tasks for each parent: {per_parent:?}");
}

/// The retry of a task with these parents.
fn retry(name: &str, of: &str, parents: &[&str]) -> TaskSpec {
    let spec = child(name, parents, Fail);
    let extras = TaskExtras { retry_of: Some(id(of)), ..spec.extras().clone() };
    TaskSpec { extras: extras.boxed(), ..spec }
}

fn at_most_once(name: &str) -> TaskSpec {
    let options = TaskOptions { at_most_once: true, ..(*plain(name).options).clone() };
    TaskSpec { options: Arc::new(options), ..plain(name) }
}

#[test]
fn a_retry_waits_for_the_newest_retries_of_the_parents() {
    let mut fixture = roomy();
    fixture.submit(1, vec![at_most_once("a")]).unwrap();
    fixture.submit(1, vec![child("c", &["a"], Fail)]).unwrap();
    fixture.run(2, failed());
    assert_eq!(fixture.states(&["a", "c"]), [TaskState::Failed; 2]);
    fixture.submit(3, vec![retry("c1", "c", &["a"])]).unwrap();
    while !fixture.core.release_children(Timestamp(3), 3, &mut fixture.out) {}
    assert_eq!(fixture.state("c1"), TaskState::Failed, "its parent was not retried");

    let mut again = at_most_once("a1");
    again.extras = TaskExtras { retry_of: Some(id("a")), ..TaskExtras::default() }.boxed();
    fixture.submit(4, vec![again]).unwrap();
    fixture.run(5, failed());
    fixture.submit(6, vec![retry("a2", "a1", &[])]).unwrap();
    fixture.submit(6, vec![retry("c2", "c1", &["a"])]).unwrap();
    assert_eq!(fixture.core.unfinished_parents(&id("c2")).unwrap().ids, [id("a2")]);
    fixture.complete(7);
    assert_eq!(fixture.states(&["a2", "c2"]), [TaskState::Completed, TaskState::Queued]);
}

#[test]
fn a_retry_whose_parent_was_deleted_is_refused_with_its_name() {
    let mut fixture = roomy();
    fixture.submit(1, vec![plain("a")]).unwrap();
    fixture.complete(2);
    let missing = retry("c1", "c", &["a", "gone"]);
    let text = "`task_id` is `c`, whose parent is `gone`, which does not exist in namespace `default` or was deleted";
    assert_eq!(fixture.refused(vec![missing]), text);
}
