//! What an earlier life of a task, of its slot in the table or of the server must not do to a later one.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Event, Payload, Priority, StopMethod, Task, TaskChange, TaskEvent, TaskExtras, TaskFilter, TaskId, TaskSpec,
    TaskState, Timestamp,
};
use crate::runners::{Outcome, StopCause};
use crate::store::fold;

use super::tests::{Fixture, SECOND, failed, spec};

fn delayed(id: &str, seconds: u64) -> TaskSpec {
    let extras = TaskExtras { delay: Some(Duration::from_secs(seconds)), ..TaskExtras::default() };
    TaskSpec { extras: extras.boxed(), ..spec(id, Priority::Normal) }
}

fn expiring(id: &str, after: Duration) -> TaskSpec {
    let extras = TaskExtras { expires_after: Some(after), ..TaskExtras::default() };
    TaskSpec { extras: extras.boxed(), ..spec(id, Priority::Normal) }
}

fn completed() -> Outcome {
    Outcome::Completed(Payload::default())
}

impl Fixture {
    fn delete(&mut self, at: u64, id: &str) {
        let filter = TaskFilter { ids: vec![TaskId::parse(id).unwrap()], ..TaskFilter::default() };
        assert_eq!(self.core.delete_matching(Timestamp(at), &filter, &mut self.out), 1);
    }

    fn last(&self) -> &TaskEvent {
        self.out.events.last().and_then(Event::task).unwrap()
    }

    /// A server that has been started again: from the rows of the projection, or from the events of the journal.
    pub(super) fn restarted(&self, at: u64, from_rows: bool) -> Self {
        let mut fresh = Self::new();
        if from_rows {
            let mut tasks: Vec<(TaskId, Option<Task>)> = Vec::new();
            for event in self.out.events.iter().filter_map(Event::task) {
                if !tasks.iter().any(|(id, _)| *id == event.task) {
                    tasks.push((event.task.clone(), None));
                }
                let (_, task) = tasks.iter_mut().find(|(id, _)| *id == event.task).unwrap();
                fold(task, event);
            }
            fresh.core.restore_revision(self.core.revision());
            for mut task in tasks.into_iter().filter_map(|(_, task)| task) {
                let payload = std::mem::take(&mut Arc::make_mut(&mut task.spec).payload);
                fresh.core.restore(task.into(), &payload);
            }
        } else {
            for event in &self.out.events {
                fresh.core.replay(event);
            }
        }
        fresh.core.recover(Timestamp(at), &mut fresh.out);
        fresh.core.check();
        fresh
    }
}

#[test]
fn a_delayed_task_is_not_started_by_a_timer_of_its_slots_former_tasks() {
    let mut fixture = Fixture::new();
    // Former tasks of the slot, with every number of changes, leave timers that are due in ten seconds.
    for retries in 0..6 {
        let id = format!("former{retries}");
        fixture.submit(0, vec![spec(&id, Priority::Normal)]).unwrap();
        for _ in 0..retries {
            let ticket = fixture.start(0);
            fixture.end(ticket, 0, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
        }
        let ticket = fixture.start(0);
        fixture.end(ticket, 0, failed(), None);
        assert_eq!(fixture.state(&id), TaskState::Waiting);
        fixture.cancel(&id, 0, true).unwrap();
        fixture.delete(0, &id);
    }
    for n in 0..30 {
        let id = format!("later{n}");
        fixture.submit(1, vec![delayed(&id, 100)]).unwrap();
        fixture.core.advance(Timestamp(11 * SECOND), &mut fixture.out);
        assert_eq!(fixture.state(&id), TaskState::Waiting, "{id} waits for 100 s");
        fixture.core.check();
        fixture.cancel(&id, 1, true).unwrap();
        fixture.delete(1, &id);
    }
}

#[test]
fn a_queue_entry_of_a_slots_former_task_is_never_taken_for_a_later_task() {
    let mut fixture = Fixture::new();
    for changes in 0..8 {
        fixture.submit(0, vec![spec("former", Priority::Low)]).unwrap();
        for _ in 0..changes {
            let ticket = fixture.start(0);
            fixture.end(ticket, 0, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
        }
        fixture.cancel("former", 0, true).unwrap();
        fixture.delete(0, "former");
    }
    for n in 0..30 {
        let id = format!("later{n}");
        fixture.submit(1, vec![spec(&id, Priority::High)]).unwrap();
        fixture.core.check();
        assert_eq!(fixture.assigned().len(), 1, "{id} is dispatched once");
        fixture.core.check();
        fixture.cancel(&id, 1, true).unwrap();
        fixture.delete(1, &id);
    }
}

#[test]
fn timers_of_tasks_that_started_or_ended_are_bounded() {
    let mut fixture = Fixture::new();
    let day = Duration::from_hours(24);
    for n in 0..5_000 {
        let id = format!("t{n}");
        fixture.submit(n, vec![expiring(&id, day)]).unwrap();
        if n % 2 == 0 {
            let ticket = fixture.start(n);
            fixture.end(ticket, n, completed(), None);
        } else {
            fixture.cancel(&id, n, true).unwrap();
        }
        fixture.core.sweep(Timestamp(n), 10, &mut fixture.out);
        fixture.out.events.clear();
        assert!(fixture.core.timers.len() <= 1_025, "{} timers after {n} tasks", fixture.core.timers.len());
    }
    fixture.core.check();
}

#[test]
fn stale_timers_do_not_wake_the_scheduler() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![expiring("a", Duration::from_secs(1)), delayed("b", 5)]).unwrap();
    let ticket = fixture.start(0);
    fixture.end(ticket, 0, completed(), None);
    assert_eq!(fixture.core.next_due(), Some(Timestamp(5 * SECOND)));
}

#[test]
fn entries_of_recalled_attempts_behind_a_live_one_are_bounded() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("first", Priority::Normal)]).unwrap();
    fixture.assigned();
    for n in 0..1_000 {
        fixture.submit(0, vec![spec("next", Priority::Normal)]).unwrap();
        assert_eq!(fixture.assigned().len(), 1);
        fixture.cancel("next", n, true).unwrap();
        fixture.delete(n, "next");
        fixture.core.check();
    }
}

#[test]
fn a_task_that_has_started_once_never_expires() {
    for from_rows in [false, true] {
        let mut fixture = Fixture::new();
        fixture.submit(0, vec![expiring("a", Duration::from_secs(1)), expiring("b", Duration::from_secs(1))]).unwrap();
        let ticket = fixture.start(1);
        fixture.end(ticket, 2, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
        let mut restarted = fixture.restarted(3, from_rows);
        for server in [&mut fixture, &mut restarted] {
            server.core.advance(Timestamp(2 * SECOND), &mut server.out);
            server.answer_recalls(2 * SECOND, true);
            assert_eq!(server.state("a"), TaskState::Queued, "it started before the interruption");
            assert_eq!(server.state("b"), TaskState::Failed, "it has never started");
        }
    }
}

#[test]
fn a_late_answer_to_a_recall_decides_about_the_task_as_it_is_then() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = fixture.assigned()[0].ticket;
    let id = TaskId::parse("a").unwrap();
    assert_eq!(fixture.core.cancel(&id, super::tests::request(1), &mut fixture.out).unwrap(), None);
    // A worker had started it, and it fails before the pool answers.
    fixture.core.started(ticket, Timestamp(1), "w".into(), &mut fixture.out);
    fixture.end(ticket, 2, failed(), None);
    assert_eq!(fixture.state("a"), TaskState::Waiting);
    fixture.answer_recalls(3, false);
    assert_eq!(fixture.state("a"), TaskState::Cancelled, "the retry is cancelled");
    fixture.core.check();
}

#[test]
fn an_answer_to_a_recall_never_reaches_a_later_task_of_the_slot() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = fixture.assigned()[0].ticket;
    let id = TaskId::parse("a").unwrap();
    fixture.core.cancel(&id, super::tests::request(1), &mut fixture.out).unwrap();
    fixture.core.started(ticket, Timestamp(1), "w".into(), &mut fixture.out);
    fixture.end(ticket, 2, completed(), None);
    fixture.delete(3, "a");
    fixture.submit(4, vec![spec("a", Priority::Normal)]).unwrap();
    fixture.answer_recalls(5, false);
    assert_eq!(fixture.state("a"), TaskState::Queued);
    fixture.core.check();
}

#[test]
fn no_wait_is_extended_by_a_restart_with_an_earlier_clock() {
    for from_rows in [false, true] {
        let mut fixture = Fixture::new();
        fixture.submit(1_000 * SECOND, vec![expiring("old", Duration::from_secs(5)), delayed("a", 10)]).unwrap();
        let ticket = fixture.start(1_000 * SECOND);
        fixture.end(ticket, 1_000 * SECOND, failed(), None);
        fixture.submit(1_000 * SECOND, vec![expiring("b", Duration::from_secs(20))]).unwrap();
        let mut restarted = fixture.restarted(100 * SECOND, from_rows);
        let mut due = Vec::new();
        while let Some(at) = restarted.core.next_due() {
            restarted.core.advance(at, &mut restarted.out);
            due.push(at.0 / SECOND);
        }
        assert_eq!(due, [110, 120], "the delay and the back-off end, then b expires");
        assert_eq!(restarted.state("b"), TaskState::Failed);
    }
}

#[test]
fn finished_tasks_age_after_a_restart_with_an_earlier_clock() {
    for from_rows in [false, true] {
        let mut fixture = Fixture::new();
        for (id, at) in [("a", 900_000 * SECOND), ("b", 900_100 * SECOND)] {
            fixture.submit(at, vec![spec(id, Priority::Normal)]).unwrap();
            let ticket = fixture.start(at);
            fixture.end(ticket, at, completed(), None);
        }
        let mut restarted = fixture.restarted(1_000 * SECOND, from_rows);
        restarted.submit(1_001 * SECOND, vec![spec("c", Priority::Normal)]).unwrap();
        let ticket = restarted.start(1_001 * SECOND);
        restarted.end(ticket, 1_001 * SECOND, completed(), None);
        let kept = |fixture: &mut Fixture, at: u64| {
            while fixture.core.sweep(Timestamp(at * SECOND), 10, &mut fixture.out) {}
            fixture.core.check();
            ["a", "b", "c"].map(|id| fixture.core.task(&TaskId::parse(id).unwrap()).is_some())
        };
        // The retention is an hour.
        assert_eq!(kept(&mut restarted, 4_599), [true; 3]);
        assert_eq!(kept(&mut restarted, 4_600), [false, false, true]);
        assert_eq!(kept(&mut restarted, 4_601), [false; 3]);
    }
}

#[test]
fn times_of_a_task_never_run_backwards_after_a_restart_with_an_earlier_clock() {
    for from_rows in [false, true] {
        let mut fixture = Fixture::new();
        fixture.submit(100 * SECOND, vec![spec("a", Priority::Normal)]).unwrap();
        fixture.start(101 * SECOND);
        fixture.submit(100 * SECOND, vec![spec("b", Priority::Normal)]).unwrap();
        let ticket = fixture.start(102 * SECOND);
        fixture.end(ticket, 103 * SECOND, failed(), None);
        assert_eq!((fixture.state("a"), fixture.state("b")), (TaskState::Running, TaskState::Waiting));
        // The clock was set back by more than a minute.
        let mut restarted = fixture.restarted(20 * SECOND, from_rows);
        assert_eq!(restarted.last().at, Timestamp(101 * SECOND), "the interruption is not before the start");
        let ticket = restarted.start(21 * SECOND);
        assert_eq!(restarted.last().at, Timestamp(101 * SECOND));
        restarted.end(ticket, 22 * SECOND, completed(), None);
        assert_eq!(restarted.last().at, Timestamp(101 * SECOND), "the end is not before the start");
        restarted.cancel("b", 23 * SECOND, true).unwrap();
        let TaskChange::Cancelled { receipt, .. } = &restarted.last().change else { panic!("not cancelled") };
        assert_eq!(receipt.stopped_at, restarted.last().at);
        assert_eq!(restarted.last().at, Timestamp(103 * SECOND), "the cancel is not before the failed attempt");
    }
}
