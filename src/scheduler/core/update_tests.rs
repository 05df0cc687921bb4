//! Updates of tasks that have not started.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    LimitRule, LimitSource, NewExpiry, Priority, TaskExtras, TaskId, TaskLimit, TaskOptions, TaskSpec, TaskState,
    TaskUpdate, Timestamp,
};
use crate::scheduler::refusal::Refusal;

use super::tests::{Fixture, SECOND, spec};

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

fn to_priority(priority: Priority) -> TaskUpdate {
    TaskUpdate { priority: Some(priority), ..TaskUpdate::default() }
}

fn not_before(at: Timestamp) -> TaskUpdate {
    TaskUpdate { not_before: Some(at), ..TaskUpdate::default() }
}

fn expires(expiry: NewExpiry) -> TaskUpdate {
    TaskUpdate { expiry: Some(expiry), ..TaskUpdate::default() }
}

fn with_extras(id: &str, extras: TaskExtras) -> TaskSpec {
    TaskSpec { extras: extras.boxed(), ..spec(id, Priority::Normal) }
}

impl Fixture {
    /// `recalled`: the answer of the pool if it is asked for the attempt. Returns the state, `None` if the attempt has started.
    fn update(
        &mut self,
        id: &str,
        now: Timestamp,
        update: &TaskUpdate,
        recalled: bool,
    ) -> Result<Option<TaskState>, Refusal> {
        let id = TaskId::parse(id).unwrap();
        let updated = self.core.update_task(now, &id, update, Arc::new, &mut self.out)?;
        if updated.is_none() && recalled {
            self.answer_recalls(now.0, true);
            return Ok(self.core.state(&id));
        }
        self.answer_recalls(now.0, recalled);
        Ok(updated)
    }

    fn order(&mut self) -> Vec<String> {
        self.assigned().iter().map(|assignment| assignment.spec.id.to_string()).collect()
    }
}

#[test]
fn a_queued_task_takes_its_place_behind_those_of_its_new_priority() {
    let mut fixture = Fixture::new();
    let [high, normal] = [Priority::High, Priority::Normal];
    fixture.submit(0, vec![spec("a", normal), spec("b", normal), spec("h", high)]).unwrap();
    assert_eq!(fixture.update("b", at(1), &to_priority(high), true).unwrap(), Some(TaskState::Queued));
    fixture.submit(2, vec![spec("i", high)]).unwrap();
    assert_eq!(fixture.order(), ["h", "b", "i", "a"]);
    fixture.core.check();
}

#[test]
fn a_dispatched_attempt_is_taken_back_and_begins_again_with_the_new_options() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal), spec("b", Priority::Normal)]).unwrap();
    assert_eq!(fixture.order(), ["a", "b"]);
    let timeout = TaskUpdate { timeout: Some(Duration::from_secs(7)), ..TaskUpdate::default() };
    assert_eq!(fixture.update("a", at(1), &timeout, true).unwrap(), Some(TaskState::Queued));
    let again = fixture.assigned();
    assert_eq!((again.len(), again[0].spec.id.to_string()), (1, "a".to_owned()));
    assert_eq!(again[0].spec.options.timeout, Duration::from_secs(7));
    assert_eq!(*again[0].spec.payload, *b"0123456789");
    fixture.core.check();
}

#[test]
fn a_task_that_has_started_or_ended_is_not_updated() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = fixture.assigned().remove(0).ticket;
    let (update, events) = (to_priority(Priority::High), fixture.out.events.len());
    assert_eq!(fixture.update("a", at(1), &update, false).unwrap(), None, "a worker has just taken it");
    assert_eq!(fixture.out.events.len(), events);
    fixture.core.started(ticket, at(2), "default/PoolWorker-0".into(), &mut fixture.out);
    assert!(matches!(fixture.update("a", at(3), &update, true), Err(Refusal::TaskStarted(_))));
    fixture.end(ticket, at(4).0, super::tests::failed(), None);
    assert_eq!(fixture.state("a"), TaskState::Waiting);
    assert!(matches!(fixture.update("a", at(5), &update, true), Err(Refusal::TaskStarted(_))), "before its retry");
    fixture.cancel("a", at(6).0, true).unwrap();
    assert!(matches!(fixture.update("a", at(7), &update, true), Err(Refusal::TaskFinished(_))));
    assert!(matches!(fixture.update("x", at(7), &update, true), Err(Refusal::TaskNotFound(_))));
}

#[test]
fn a_delay_can_be_set_moved_and_removed() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    assert_eq!(fixture.update("a", at(1), &not_before(at(10)), true).unwrap(), Some(TaskState::Waiting));
    assert_eq!(fixture.update("a", at(2), &not_before(at(20)), true).unwrap(), Some(TaskState::Waiting));
    fixture.core.advance(at(15), &mut fixture.out);
    assert_eq!(fixture.state("a"), TaskState::Waiting, "the first delay does not count any more");
    fixture.core.advance(at(20), &mut fixture.out);
    assert_eq!(fixture.state("a"), TaskState::Queued);
    fixture.update("a", at(21), &not_before(at(90)), true).unwrap();
    assert_eq!(fixture.update("a", at(22), &not_before(Timestamp::ZERO), true).unwrap(), Some(TaskState::Queued));
    assert_eq!(fixture.order(), ["a"]);
    fixture.core.check();
}

#[test]
fn only_the_last_expiry_counts_however_often_it_changes() {
    let mut fixture = Fixture::new();
    let extras = TaskExtras { expires_after: Some(Duration::from_secs(10)), ..TaskExtras::default() };
    fixture.submit(0, vec![with_extras("a", extras.clone()), with_extras("b", extras)]).unwrap();
    for _ in 0..10_000 {
        fixture.update("a", at(1), &expires(NewExpiry::At(at(5))), true).unwrap();
        fixture.update("a", at(1), &expires(NewExpiry::At(at(10))), true).unwrap();
    }
    fixture.core.check();
    fixture.update("a", at(2), &expires(NewExpiry::At(at(30))), true).unwrap();
    fixture.update("b", at(2), &expires(NewExpiry::Never), true).unwrap();
    fixture.core.advance(at(29), &mut fixture.out);
    assert_eq!((fixture.state("a"), fixture.state("b")), (TaskState::Queued, TaskState::Queued));
    fixture.core.advance(at(30), &mut fixture.out);
    assert_eq!((fixture.state("a"), fixture.state("b")), (TaskState::Failed, TaskState::Queued));
    fixture.core.check();
}

#[test]
fn labels_are_added_replaced_and_removed() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let label = |key: &str, value: &str| (key.into(), value.into());
    let labels = |fixture: &Fixture| fixture.core.task(&TaskId::parse("a").unwrap()).unwrap().1.labels.clone();
    let update = TaskUpdate { labels: vec![label("b", "1"), label("a", "1")], ..TaskUpdate::default() };
    fixture.update("a", at(1), &update, true).unwrap();
    let update = TaskUpdate {
        labels: vec![label("b", "2"), label("c", "3")],
        remove_labels: vec!["a".into(), "x".into()],
        ..TaskUpdate::default()
    };
    fixture.update("a", at(1), &update, true).unwrap();
    assert_eq!(*labels(&fixture), [label("b", "2"), label("c", "3")]);
    let events = fixture.out.events.len();
    fixture.update("a", at(2), &update, true).unwrap();
    assert_eq!(fixture.out.events.len(), events, "nothing changes");
    let many = (0..15).map(|number| label(&format!("n{number}"), "")).collect();
    let refused = fixture.update("a", at(3), &TaskUpdate { labels: many, ..TaskUpdate::default() }, true);
    assert!(matches!(refused, Err(Refusal::BadField(_))), "17 labels");
    let large = TaskUpdate { labels: vec![label("large", &"x".repeat(2_000))], ..TaskUpdate::default() };
    assert!(matches!(fixture.update("a", at(3), &large, true), Err(Refusal::MemoryFull(_))));
    fixture.core.check();
}

#[test]
fn a_task_that_waits_for_a_limit_waits_with_its_new_priority() {
    let limited = |id: &str| {
        let basis = spec(id, Priority::Normal);
        let rule = LimitRule { max_running: Some(1), rate: None };
        let limits = [TaskLimit { source: LimitSource::Own(rule), key: "k".into() }].into();
        TaskSpec { options: Arc::new(TaskOptions { limits, ..(*basis.options).clone() }), ..basis }
    };
    let mut fixture = Fixture::new();
    fixture.submit(0, ["a", "b", "c"].map(limited).to_vec()).unwrap();
    assert_eq!(fixture.update("c", at(1), &to_priority(Priority::High), true).unwrap(), Some(TaskState::Waiting));
    fixture.core.check();
    // The place of the first task is free when it has to wait.
    fixture.update("a", at(2), &not_before(at(60)), true).unwrap();
    assert_eq!((fixture.state("b"), fixture.state("c")), (TaskState::Waiting, TaskState::Queued));
    fixture.core.check();
}
