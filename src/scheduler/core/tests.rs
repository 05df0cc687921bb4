//! The core by examples.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, CancelRequest, Change, Failure, FailureReason, Payload, PoolName, PoolSpec, Priority, ResourceUsage,
    RetryPolicy, StopMethod, TaskExtras, TaskFilter, TaskId, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::{Outcome, StopCause};
use crate::scheduler::refusal::Refusal;

use super::{Core, Finished, Options, Output, PoolUpdate};

pub(super) const SECOND: u64 = 1_000_000;

pub(super) fn options() -> Options {
    let pool = PoolSpec { size: 1, ..PoolSpec::with_defaults(PoolName::parse("default").unwrap(), 1) };
    Options {
        pools: vec![pool],
        retention_count: 10,
        retention_age: Duration::from_hours(1),
        payload_bytes_max: 1_000,
        crashes_max: 3,
    }
}

pub(super) fn spec(id: &str, priority: Priority) -> TaskSpec {
    let options = TaskOptions {
        pool: PoolName::parse("default").unwrap(),
        priority,
        retry: RetryPolicy { jitter: 0.0, ..RetryPolicy::default() },
        ..TaskOptions::sample()
    };
    TaskSpec {
        id: TaskId::parse(id).unwrap(),
        options: Arc::new(options),
        payload: Box::from(*b"0123456789"),
        extras: None,
    }
}

fn extras(request_id: Option<&str>, expires_at: Option<Timestamp>) -> Option<Box<TaskExtras>> {
    TaskExtras { request_id: request_id.map(Into::into), expires_at, ..TaskExtras::default() }.boxed()
}

pub(super) fn request(at: u64) -> CancelRequest {
    CancelRequest {
        requested_at: Timestamp(at),
        reason: "".into(),
        requested_by: "test".into(),
        mode: CancelMode::Graceful,
        grace: Duration::from_secs(5),
    }
}

pub(super) fn finished(ticket: Ticket, at: u64, outcome: Outcome, cause: Option<StopCause>) -> Finished {
    Finished { ticket, at: Timestamp(at), outcome, cause, usage: Box::new(ResourceUsage::default()), output: None }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureReason::HandlerError, "no luck"))
}

struct Bench {
    core: Core,
    out: Output,
}

impl Bench {
    fn new() -> Self {
        Self { core: Core::new(options()), out: Output::default() }
    }

    fn submit(&mut self, at: u64, specs: Vec<TaskSpec>) -> Result<super::Submitted, Refusal> {
        self.core.submit(Timestamp(at), specs, &mut self.out)
    }

    fn assigned(&mut self) -> Vec<Assignment> {
        self.core.dispatch(&mut self.out);
        self.out.dispatches.drain(..).flat_map(|dispatch| dispatch.assignments).collect()
    }

    fn start(&mut self, at: u64) -> Ticket {
        let ticket = self.assigned().remove(0).ticket;
        self.core.started(ticket, Timestamp(at), "default/PoolWorker-0".into(), &mut self.out);
        ticket
    }

    fn end(&mut self, ticket: Ticket, at: u64, outcome: Outcome, cause: Option<StopCause>) {
        self.core.finished(finished(ticket, at, outcome, cause), &mut self.out);
    }

    fn state(&self, id: &str) -> TaskState {
        self.core.state(&TaskId::parse(id).unwrap()).unwrap()
    }

    fn cancel(&mut self, id: &str, at: u64, recalled: bool) -> Result<TaskState, Refusal> {
        self.core.cancel(&TaskId::parse(id).unwrap(), request(at), recalled, &mut self.out)
    }
}

#[test]
fn a_task_is_queued_runs_and_completes_with_consecutive_revisions() {
    let mut bench = Bench::new();
    let submitted = bench.submit(1, vec![spec("a", Priority::Normal)]).unwrap();
    assert_eq!(submitted.revision.0, 1);
    let ticket = bench.start(2);
    assert_eq!(bench.state("a"), TaskState::Running);
    bench.end(ticket, 3, Outcome::Completed(Payload::default()), None);
    assert_eq!(bench.state("a"), TaskState::Completed);
    let revisions: Vec<u64> = bench.out.events.iter().map(|event| event.revision.0).collect();
    assert_eq!(revisions, [1, 2, 3]);
}

#[test]
fn urgent_tasks_are_handed_out_although_the_window_is_full_of_others() {
    let mut bench = Bench::new();
    bench.core.options.payload_bytes_max = u64::MAX;
    let many = (0..2_000).map(|n| spec(&format!("low{n}"), Priority::Low)).collect();
    bench.submit(1, many).unwrap();
    let first = bench.assigned();
    assert!(first.len() < 2_000, "the window is bounded");
    bench.submit(2, vec![spec("now", Priority::Critical)]).unwrap();
    bench.core.dispatch(&mut bench.out);
    let dispatch = bench.out.dispatches.pop().unwrap();
    assert_eq!(dispatch.assignments.len(), 1);
    assert_eq!(dispatch.assignments[0].spec.id.to_string(), "now");
    assert_eq!(dispatch.held_back, [true, false, false, false]);
}

#[test]
fn a_failed_attempt_waits_for_its_back_off_and_the_last_one_fails_the_task() {
    let mut bench = Bench::new();
    bench.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let mut now = 0;
    for delay in [10, 20] {
        let ticket = bench.start(now);
        bench.end(ticket, now, failed(), None);
        assert_eq!(bench.state("a"), TaskState::Waiting);
        bench.core.advance(Timestamp(now + delay * SECOND - 1), &mut bench.out);
        assert_eq!(bench.state("a"), TaskState::Waiting);
        now += delay * SECOND;
        bench.core.advance(Timestamp(now), &mut bench.out);
        assert_eq!(bench.state("a"), TaskState::Queued);
    }
    let ticket = bench.start(now);
    bench.end(ticket, now, failed(), None);
    assert_eq!(bench.state("a"), TaskState::Failed);
    let Change::Failed { failure, .. } = &bench.out.events.last().unwrap().change else { panic!("not failed") };
    assert_eq!((failure.attempt, failure.reason), (3, FailureReason::HandlerError));
}

#[test]
fn a_report_of_an_attempt_that_is_not_the_live_one_changes_nothing() {
    let mut bench = Bench::new();
    bench.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = bench.start(1);
    bench.end(ticket, 2, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
    assert_eq!(bench.state("a"), TaskState::Queued, "interrupted without spending the attempt");
    let events = bench.out.events.len();
    bench.end(ticket, 3, Outcome::Completed(Payload::default()), None);
    assert_eq!((bench.state("a"), bench.out.events.len()), (TaskState::Queued, events));
    bench.start(4);
    assert_eq!(bench.out.events.last().unwrap().attempt, 1);
}

#[test]
fn a_cancel_ends_what_has_not_started_and_stops_what_runs_with_a_receipt() {
    let mut bench = Bench::new();
    bench.submit(0, vec![spec("a", Priority::Normal), spec("b", Priority::Normal)]).unwrap();
    let ticket = bench.start(1);
    assert_eq!(bench.cancel("b", 2, true).unwrap(), TaskState::Cancelled);
    assert_eq!(bench.cancel("a", 3, false).unwrap(), TaskState::Running);
    assert_eq!(bench.out.stops, [(ticket, StopCause::Cancel, Duration::from_secs(5))]);
    bench.end(ticket, 4, Outcome::Stopped(StopMethod::SignalTerm), Some(StopCause::Cancel));
    let Change::Cancelled { receipt, .. } = &bench.out.events.last().unwrap().change else { panic!("not cancelled") };
    assert_eq!((receipt.method, receipt.request.requested_at), (StopMethod::SignalTerm, Timestamp(3)));
    assert_eq!(bench.cancel("a", 5, false).unwrap(), TaskState::Cancelled, "a repeated cancel is no error");
}

#[test]
fn a_cancel_between_a_start_and_its_report_stops_the_attempt() {
    let mut bench = Bench::new();
    bench.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = bench.assigned()[0].ticket;
    assert_eq!(bench.cancel("a", 1, false).unwrap(), TaskState::Running);
    assert_eq!(bench.out.stops.len(), 1);
    bench.core.started(ticket, Timestamp(2), "w".into(), &mut bench.out);
    bench.end(ticket, 3, Outcome::Stopped(StopMethod::Token), Some(StopCause::Cancel));
    assert_eq!(bench.state("a"), TaskState::Cancelled);
    bench.core.check();
}

#[test]
fn a_finished_task_cannot_be_cancelled() {
    let mut bench = Bench::new();
    bench.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = bench.start(1);
    bench.end(ticket, 2, Outcome::Completed(Payload::default()), None);
    assert!(matches!(bench.cancel("a", 3, false), Err(Refusal::TaskFinished(_))));
    assert!(matches!(bench.cancel("nobody", 3, false), Err(Refusal::TaskNotFound(_))));
}

#[test]
fn a_repeated_submission_gets_the_first_answer_and_another_content_is_refused() {
    let mut bench = Bench::new();
    let keyed = |id: &str| TaskSpec { extras: extras(Some("key"), None), ..spec(id, Priority::Normal) };
    bench.submit(0, vec![keyed("a")]).unwrap();
    let again = bench.submit(1, vec![keyed("b")]).unwrap();
    assert_eq!((again.accepted[0].id.to_string(), again.accepted[0].duplicate), ("a".to_owned(), true));
    let other = TaskSpec { payload: Box::from(*b"other"), ..keyed("c") };
    assert!(matches!(bench.submit(2, vec![other.clone()]), Err(Refusal::RequestIdReused(_))));
    let same_id = spec("a", Priority::High);
    assert!(matches!(bench.submit(3, vec![same_id]), Err(Refusal::TaskExists(_))));
    let twice = vec![spec("x", Priority::Normal), spec("x", Priority::Normal)];
    assert!(matches!(bench.submit(4, twice), Err(Refusal::BadField(_))));
    assert_eq!(bench.out.events.len(), 1, "nothing of a refused submission is kept");
}

#[test]
fn bounds_refuse_the_whole_submission_and_say_when_to_come_back() {
    let mut bench = Bench::new();
    let update = PoolUpdate {
        name: PoolName::parse("default").unwrap(),
        size: None,
        paused: None,
        queue_limit: Some(2),
        etag: None,
    };
    bench.core.update_pool(&update).unwrap();
    let three = (0..3).map(|n| spec(&format!("t{n}"), Priority::Normal)).collect();
    assert!(matches!(bench.submit(0, three), Err(Refusal::QueueFull(_))));
    assert!(bench.out.events.is_empty());
}

#[test]
fn payloads_beyond_the_budget_are_left_to_the_store() {
    let mut bench = Bench::new();
    let of = |id: &str, bytes| TaskSpec { payload: vec![0; bytes].into(), ..spec(id, Priority::Normal) };
    bench.submit(0, vec![of("fits", 900), of("fat", 101), of("small", 100)]).unwrap();
    let assigned = bench.assigned();
    let kept: Vec<_> = assigned.iter().map(|one| (one.spec.payload.len(), one.payload_stored)).collect();
    assert_eq!(kept, [(900, false), (0, true), (100, false)]);
    assert!(bench.submit(1, vec![of("fat", 101)]).unwrap().accepted[0].duplicate, "a repetition is still known");
    bench.core.check();
}

#[test]
fn a_task_that_has_not_started_in_time_expires() {
    let mut bench = Bench::new();
    let hasty = TaskSpec { extras: extras(None, Some(Timestamp(5))), ..spec("a", Priority::Normal) };
    bench.submit(0, vec![hasty]).unwrap();
    let ticket = bench.assigned()[0].ticket;
    bench.core.advance(Timestamp(5), &mut bench.out);
    assert_eq!(bench.out.recalls, [ticket], "an assigned attempt is recalled first");
    bench.core.recalled_expired(Timestamp(5), ticket, &mut bench.out);
    assert_eq!(bench.state("a"), TaskState::Failed);
    bench.core.check();
}

#[test]
fn finished_tasks_are_forgotten_by_count_and_by_age_and_on_request() {
    let mut bench = Bench::new();
    for n in 0..15 {
        bench.submit(n, vec![spec(&format!("t{n}"), Priority::Normal)]).unwrap();
        let ticket = bench.start(n);
        bench.end(ticket, n, Outcome::Completed(Payload::default()), None);
    }
    bench.core.sweep(Timestamp(100), 3, &mut bench.out);
    let deleted = |bench: &Bench| bench.out.events.iter().filter(|e| matches!(e.change, Change::Deleted)).count();
    assert_eq!(deleted(&bench), 3, "in small steps");
    bench.core.sweep(Timestamp(100), 100, &mut bench.out);
    assert_eq!(deleted(&bench), 5, "ten are kept");
    let one = TaskFilter { ids: vec![TaskId::parse("t9").unwrap()], ..TaskFilter::default() };
    assert_eq!(bench.core.delete_matching(Timestamp(100), &one, &mut bench.out), 1);
    bench.core.sweep(Timestamp(3_700 * SECOND), 100, &mut bench.out);
    assert_eq!(deleted(&bench), 15, "none is kept beyond the age");
    bench.core.check();
}

#[test]
fn a_paused_pool_is_given_nothing() {
    let mut bench = Bench::new();
    let name = PoolName::parse("default").unwrap();
    let pause =
        |paused| PoolUpdate { name: name.clone(), size: None, paused: Some(paused), queue_limit: None, etag: None };
    let (_, view) = bench.core.update_pool(&pause(true)).unwrap();
    bench.submit(0, vec![spec("a", Priority::Critical)]).unwrap();
    assert!(bench.assigned().is_empty());
    let stale = PoolUpdate { etag: Some("0".to_owned()), ..pause(false) };
    assert!(matches!(bench.core.update_pool(&stale), Err(Refusal::EtagMismatch(_))));
    bench.core.update_pool(&PoolUpdate { etag: Some(view.etag), ..pause(false) }).unwrap();
    assert_eq!(bench.assigned().len(), 1);
}

#[test]
fn a_task_that_was_running_at_three_crashes_in_a_row_is_given_up() {
    let mut bench = Bench::new();
    bench.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let mut journal = std::mem::take(&mut bench.out.events);
    for crash in 1..=3 {
        bench.start(crash);
        journal.append(&mut bench.out.events);
        bench = Bench::new();
        for event in &journal {
            bench.core.replay(event);
        }
        bench.core.recover(Timestamp(crash), &mut bench.out);
        journal.append(&mut bench.out.events);
        let expected = if crash < 3 { TaskState::Queued } else { TaskState::Failed };
        assert_eq!(bench.state("a"), expected, "after crash {crash}");
    }
}

#[test]
fn a_task_that_may_start_once_only_fails_when_it_is_interrupted() {
    let mut bench = Bench::new();
    let mut once = spec("a", Priority::Normal);
    once.options = Arc::new(TaskOptions { at_most_once: true, ..(*once.options).clone() });
    bench.submit(0, vec![once]).unwrap();
    let assignment = bench.assigned().remove(0);
    assert!(assignment.confirm);
    bench.core.started(assignment.ticket, Timestamp(1), "w".into(), &mut bench.out);
    assert_eq!(bench.out.confirms, [assignment.ticket]);
    bench.end(assignment.ticket, 2, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
    assert_eq!(bench.state("a"), TaskState::Failed);
}
