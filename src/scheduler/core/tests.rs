//! Unit tests of the core.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CancelMode, CancelRequest, Event, Failure, FailureReason, Payload, PoolName, PoolSpec, Priority, RecoveredTask,
    RequestRetention, ResourceUsage, Retention, RetryPolicy, Revision, StopMethod, TaskChange, TaskEvent, TaskExtras,
    TaskFilter, TaskId, TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::{Outcome, StopCause};
use crate::scheduler::refusal::{Refusal, TaskExists};

use super::mean::Mean;
use super::{AttemptEnd, Core, CoreOptions, Decisions, PoolUpdate, PoolView, Submitted, Undecided, Verdict};

pub(super) const SECOND: u64 = 1_000_000;

pub(super) fn options() -> CoreOptions {
    let pool = PoolSpec { size: 1, ..PoolSpec::with_defaults(PoolName::parse("default").unwrap(), 1) };
    CoreOptions {
        pools: vec![pool],
        catalog: Arc::default(),
        retention: Retention {
            count: 10,
            bytes: 1 << 40,
            age: Duration::from_hours(1),
            requests: RequestRetention::default(),
        },
        payload_bytes_max: 1_000,
        attached_bytes_max: 1_000,
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

pub(super) fn request(at: u64) -> CancelRequest {
    CancelRequest {
        requested_at: Timestamp(at),
        reason: "".into(),
        requested_by: "test".into(),
        mode: CancelMode::Graceful,
        grace: Duration::from_secs(5),
    }
}

pub(super) fn attempt_end(ticket: Ticket, at: u64, outcome: Outcome, cause: Option<StopCause>) -> AttemptEnd {
    let usage = Box::new(ResourceUsage::default());
    AttemptEnd { ticket, at: Timestamp(at), outcome, cause, usage, output: None, artifacts: None }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureReason::HandlerError, "failed"))
}

pub(super) struct Fixture {
    pub core: Core,
    pub out: Decisions,
}

impl Fixture {
    pub fn new() -> Self {
        let mut fixture = Self { core: Core::new(options()), out: Decisions::default() };
        fixture.expect_run_time(Duration::ZERO);
        fixture
    }

    /// The last tasks of the first pool ran for so long. If they were short, many are dispatched at once.
    pub fn expect_run_time(&mut self, run_time: Duration) {
        let queue = self.core.pools[0].queues.get_mut(0).unwrap();
        queue.run_time = Mean::default();
        queue.run_time.add(run_time);
    }

    /// Submits as a handle does: what the core lacks is read from the events so far.
    pub fn submit(&mut self, at: u64, specs: Vec<TaskSpec>) -> Result<Submitted, Refusal> {
        match self.core.submit(Timestamp(at), specs, &mut self.out)? {
            Verdict::Accepted(submitted) => Ok(submitted),
            Verdict::Undecided(undecided) => self.submit_compared(at, *undecided),
            Verdict::NotRepeated => panic!("new tasks are allowed"),
        }
    }

    fn submit_compared(&mut self, at: u64, undecided: Undecided) -> Result<Submitted, Refusal> {
        let Undecided { mut submission, written_to, tasks } = undecided;
        assert_eq!(written_to, None);
        for (id, revision) in tasks {
            let repeated = submission.specs.iter().find(|spec| spec.id == id).unwrap();
            if !self.submitted(revision).repeats(repeated) {
                return Err(TaskExists { task: id }.into());
            }
            submission.stored.get_or_insert_default().repeated.push(revision);
        }
        match self.core.submit(Timestamp(at), submission, &mut self.out)? {
            Verdict::Accepted(submitted) => Ok(submitted),
            other => panic!("still undecided: {other:?}"),
        }
    }

    fn submitted(&self, revision: Revision) -> &TaskSpec {
        let event = self.out.events.iter().find(|event| event.revision() == revision);
        match &event.unwrap().task().unwrap().change {
            TaskChange::Submitted { spec } => spec,
            other => panic!("{other:?} is no submission"),
        }
    }

    pub fn assigned(&mut self) -> Vec<Assignment> {
        self.core.dispatch(&mut self.out);
        self.out.dispatches.drain(..).flat_map(|dispatch| dispatch.assignments).collect()
    }

    pub fn start(&mut self, at: u64) -> Ticket {
        let ticket = self.assigned().remove(0).ticket;
        self.core.started(ticket, Timestamp(at), "default/PoolWorker-0".into(), &mut self.out);
        ticket
    }

    pub fn end(&mut self, ticket: Ticket, at: u64, outcome: Outcome, cause: Option<StopCause>) {
        self.core.ended(attempt_end(ticket, at, outcome, cause), &mut self.out);
    }

    pub fn state(&self, id: &str) -> TaskState {
        self.core.state(&TaskId::parse(id).unwrap()).unwrap()
    }

    fn update_pool(&mut self, update: &PoolUpdate) -> Result<(u16, PoolView), Refusal> {
        self.core.update_pool(Timestamp(0), update, &mut self.out)
    }

    pub fn last_event(&self) -> &TaskEvent {
        self.out.events.last().unwrap().task().unwrap()
    }

    /// `recalled`: the answer of the pool if it is asked for the attempt.
    pub fn cancel(&mut self, id: &str, at: u64, recalled: bool) -> Result<TaskState, Refusal> {
        let id = TaskId::parse(id).unwrap();
        if let Some(state) = self.core.cancel(&id, request(at), &mut self.out)? {
            return Ok(state);
        }
        self.answer_recalls(at, recalled);
        let is_cancelled = self.core.state(&id) == Some(TaskState::Cancelled);
        Ok(if is_cancelled { TaskState::Cancelled } else { TaskState::Running })
    }

    pub fn answer_recalls(&mut self, at: u64, won: bool) {
        for ticket in std::mem::take(&mut self.out.recalls) {
            self.core.recalled(Timestamp(at), ticket, won, &mut self.out);
        }
    }
}

#[test]
fn a_task_is_queued_runs_and_completes_with_consecutive_revisions() {
    let mut fixture = Fixture::new();
    let submitted = fixture.submit(1, vec![spec("a", Priority::Normal)]).unwrap();
    assert_eq!(submitted.revision.0, 1);
    let ticket = fixture.start(2);
    assert_eq!(fixture.state("a"), TaskState::Running);
    fixture.end(ticket, 3, Outcome::Completed(Payload::default()), None);
    assert_eq!(fixture.state("a"), TaskState::Completed);
    let revisions: Vec<u64> = fixture.out.events.iter().map(|event| event.revision().0).collect();
    assert_eq!(revisions, [1, 2, 3]);
}

#[test]
fn a_pool_is_given_two_attempts_for_each_worker_and_more_only_if_they_are_short() {
    let mut fixture = Fixture::new();
    fixture.core.options.payload_bytes_max = u64::MAX;
    fixture.submit(0, (0..2_000).map(|n| spec(&format!("t{n}"), Priority::Normal)).collect()).unwrap();
    let workers = fixture.core.pools[0].spec.size;
    for (run_time, more) in [(Duration::MAX, 0), (Duration::from_millis(20), 5 * workers), (Duration::ZERO, 512)] {
        fixture.expect_run_time(run_time);
        let given = fixture.assigned();
        assert_eq!(given.len(), 2 * workers + more, "{run_time:?}");
        for assignment in given {
            fixture.core.started(assignment.ticket, Timestamp(0), "w".into(), &mut fixture.out);
        }
    }
}

#[test]
fn an_urgent_task_is_dispatched_even_if_the_window_is_full() {
    let mut fixture = Fixture::new();
    fixture.core.options.payload_bytes_max = u64::MAX;
    let many = (0..2_000).map(|n| spec(&format!("low{n}"), Priority::Low)).collect();
    fixture.submit(1, many).unwrap();
    let first = fixture.assigned();
    assert!(first.len() < 2_000, "the window is bounded");
    fixture.submit(2, vec![spec("now", Priority::Critical)]).unwrap();
    fixture.core.dispatch(&mut fixture.out);
    let dispatch = fixture.out.dispatches.pop().unwrap();
    assert_eq!(dispatch.assignments.len(), 1);
    assert_eq!(dispatch.assignments[0].spec.id.to_string(), "now");
    assert_eq!(dispatch.held_back, [true, false, false, false]);
}

#[test]
fn a_failed_attempt_backs_off_and_the_last_one_fails_the_task() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let mut now = 0;
    for delay in [10, 20] {
        let ticket = fixture.start(now);
        fixture.end(ticket, now, failed(), None);
        assert_eq!(fixture.state("a"), TaskState::Waiting);
        fixture.core.advance(Timestamp(now + delay * SECOND - 1), &mut fixture.out);
        assert_eq!(fixture.state("a"), TaskState::Waiting);
        now += delay * SECOND;
        fixture.core.advance(Timestamp(now), &mut fixture.out);
        assert_eq!(fixture.state("a"), TaskState::Queued);
    }
    let ticket = fixture.start(now);
    fixture.end(ticket, now, failed(), None);
    assert_eq!(fixture.state("a"), TaskState::Failed);
    let TaskChange::Failed { failure, .. } = &fixture.last_event().change else { panic!("not failed") };
    assert_eq!((failure.attempt, failure.reason), (3, FailureReason::HandlerError));
}

#[test]
fn a_report_of_an_outdated_attempt_has_no_effect() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = fixture.start(1);
    fixture.end(ticket, 2, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
    assert_eq!(fixture.state("a"), TaskState::Queued, "the interrupted attempt does not count");
    let events = fixture.out.events.len();
    fixture.end(ticket, 3, Outcome::Completed(Payload::default()), None);
    assert_eq!((fixture.state("a"), fixture.out.events.len()), (TaskState::Queued, events));
    fixture.start(4);
    assert_eq!(fixture.last_event().attempt, 1);
}

#[test]
fn an_attempt_that_the_server_could_not_start_is_not_spent() {
    let mut fixture = Fixture::new();
    let mut once = spec("a", Priority::Normal);
    once.options = Arc::new(TaskOptions { at_most_once: true, ..(*once.options).clone() });
    fixture.submit(0, vec![once]).unwrap();
    for at in [1, 3] {
        let ticket = fixture.start(at);
        assert_eq!(fixture.last_event().attempt, 1);
        fixture.end(ticket, at + 1, Outcome::Unavailable("no file descriptors".into()), None);
        assert_eq!(fixture.state("a"), TaskState::Queued);
    }
}

#[test]
fn a_cancel_ends_a_queued_task_and_stops_a_running_one() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal), spec("b", Priority::Normal)]).unwrap();
    let ticket = fixture.start(1);
    assert_eq!(fixture.cancel("b", 2, true).unwrap(), TaskState::Cancelled);
    assert_eq!(fixture.out.unattempted.len(), 1, "no attempt records its end");
    assert_eq!(fixture.cancel("a", 3, false).unwrap(), TaskState::Running);
    assert_eq!(fixture.out.stops, [(ticket, StopCause::Cancel, Duration::from_secs(5))]);
    fixture.end(ticket, 4, Outcome::Stopped(StopMethod::SignalTerm), Some(StopCause::Cancel));
    let TaskChange::Cancelled { receipt, .. } = &fixture.last_event().change else { panic!("not cancelled") };
    assert_eq!((receipt.method, receipt.request.requested_at), (StopMethod::SignalTerm, Timestamp(3)));
    assert_eq!(fixture.cancel("a", 5, false).unwrap(), TaskState::Cancelled, "a repeated cancel is not an error");
    assert_eq!(fixture.core.delete_matching(Timestamp(6), &TaskFilter::default(), &mut fixture.out), 2);
    assert_eq!(fixture.out.unattempted.len(), 1, "neither an attempt's end nor a deletion needs another span");
}

#[test]
fn a_cancel_between_a_start_and_its_report_stops_the_attempt() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = fixture.assigned()[0].ticket;
    assert_eq!(fixture.cancel("a", 1, false).unwrap(), TaskState::Running);
    assert_eq!(fixture.out.stops.len(), 1);
    fixture.core.started(ticket, Timestamp(2), "w".into(), &mut fixture.out);
    fixture.end(ticket, 3, Outcome::Stopped(StopMethod::Token), Some(StopCause::Cancel));
    assert_eq!(fixture.state("a"), TaskState::Cancelled);
    fixture.core.check();
}

#[test]
fn a_finished_task_cannot_be_cancelled() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let ticket = fixture.start(1);
    fixture.end(ticket, 2, Outcome::Completed(Payload::default()), None);
    assert!(matches!(fixture.cancel("a", 3, false), Err(Refusal::TaskFinished(_))));
    assert!(matches!(fixture.cancel("missing", 3, false), Err(Refusal::TaskNotFound(_))));
}

#[test]
fn a_repeated_submission_adds_nothing_and_different_content_is_refused() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    assert!(fixture.submit(1, vec![spec("a", Priority::Normal)]).unwrap().accepted[0].duplicate);
    let same_id = spec("a", Priority::High);
    assert!(matches!(fixture.submit(3, vec![same_id]), Err(Refusal::TaskExists(_))));
    let twice = vec![spec("x", Priority::Normal), spec("x", Priority::Normal)];
    assert!(matches!(fixture.submit(4, twice), Err(Refusal::BadField(_))));
    assert_eq!(fixture.out.events.len(), 1, "a refused submission adds no event");
}

#[test]
fn a_full_queue_refuses_the_whole_submission() {
    let mut fixture = Fixture::new();
    let update = PoolUpdate {
        name: PoolName::parse("default").unwrap(),
        size: None,
        paused: None,
        queue_limit: Some(2),
        etag: None,
    };
    fixture.update_pool(&update).unwrap();
    let three = (0..3).map(|n| spec(&format!("t{n}"), Priority::Normal)).collect();
    assert!(matches!(fixture.submit(0, three), Err(Refusal::QueueFull(_))));
    assert_eq!(fixture.out.events.len(), 1, "a refused submission adds no event to that of the pool");
}

#[test]
fn payloads_beyond_the_budget_are_left_to_the_store() {
    let mut fixture = Fixture::new();
    let of = |id: &str, bytes| TaskSpec { payload: vec![0; bytes].into(), ..spec(id, Priority::Normal) };
    fixture.submit(0, vec![of("fits", 900), of("fat", 101), of("small", 100)]).unwrap();
    let assigned = fixture.assigned();
    let kept: Vec<_> = assigned.iter().map(|one| (one.spec.payload.len(), one.payload_stored)).collect();
    assert_eq!(kept, [(900, false), (0, true), (100, false)]);
    assert!(fixture.submit(1, vec![of("fat", 101)]).unwrap().accepted[0].duplicate, "recognised without its payload");
    fixture.core.check();
}

#[test]
fn restored_payloads_are_kept_within_the_budget_and_only_of_unfinished_tasks() {
    let mut fixture = Fixture::new();
    let restored = |id: &str, state| RecoveredTask {
        spec: Arc::new(TaskSpec { payload: Box::default(), ..spec(id, Priority::Normal) }),
        revision: Revision(5),
        submission: Revision(1),
        submitted_at: Timestamp(0),
        eligible_at: Timestamp(0),
        hold: None,
        since: Timestamp(0),
        interrupted: false,
        has_started: false,
        cancel: None,
        attempt: 0,
        crashes: 0,
        remote: None,
        state,
        produced_bytes: 0,
    };
    for (id, bytes, state) in [
        ("over", 1_001, TaskState::Queued),
        ("done", 1_000, TaskState::Completed),
        ("fits", 900, TaskState::Queued),
        ("small", 100, TaskState::Waiting),
        ("last", 1, TaskState::Queued),
    ] {
        fixture.core.restore(restored(id, state), &vec![7; bytes]);
    }
    let assigned = fixture.assigned();
    let kept: Vec<_> = assigned.iter().map(|one| (one.spec.payload.len(), one.payload_stored)).collect();
    assert_eq!(kept, [(0, true), (900, false), (0, true)]);
    fixture.core.check();
}

#[test]
fn a_task_that_has_not_started_in_time_expires() {
    let mut fixture = Fixture::new();
    let expiring = TaskSpec {
        extras: TaskExtras { expires_after: Some(Duration::from_micros(5)), ..TaskExtras::default() }.boxed(),
        ..spec("a", Priority::Normal)
    };
    fixture.submit(0, vec![expiring]).unwrap();
    let ticket = fixture.assigned()[0].ticket;
    fixture.core.advance(Timestamp(5), &mut fixture.out);
    assert_eq!(fixture.out.recalls, [ticket], "a dispatched attempt is recalled first");
    fixture.answer_recalls(5, true);
    assert_eq!(fixture.state("a"), TaskState::Failed);
    fixture.core.check();
}

#[test]
fn finished_tasks_are_deleted_by_count_age_and_request() {
    let mut fixture = Fixture::new();
    for n in 0..15 {
        fixture.submit(n, vec![spec(&format!("t{n}"), Priority::Normal)]).unwrap();
        let ticket = fixture.start(n);
        fixture.end(ticket, n, Outcome::Completed(Payload::default()), None);
    }
    fixture.core.sweep(Timestamp(100), 3, &mut fixture.out);
    let deleted = |fixture: &Fixture| {
        fixture.out.events.iter().filter_map(Event::task).filter(|e| matches!(e.change, TaskChange::Deleted)).count()
    };
    assert_eq!(deleted(&fixture), 5, "retention.count are kept");
    let one = TaskFilter { ids: vec![TaskId::parse("t9").unwrap()], ..TaskFilter::default() };
    assert_eq!(fixture.core.delete_matching(Timestamp(100), &one, &mut fixture.out), 1);
    fixture.core.sweep(Timestamp(3_700 * SECOND), 100, &mut fixture.out);
    assert_eq!(deleted(&fixture), 15, "all exceed retention.age");
    fixture.core.check();
}

#[test]
fn a_paused_pool_is_given_no_attempts() {
    let mut fixture = Fixture::new();
    let name = PoolName::parse("default").unwrap();
    let pause =
        |paused| PoolUpdate { name: name.clone(), size: None, paused: Some(paused), queue_limit: None, etag: None };
    let (_, view) = fixture.update_pool(&pause(true)).unwrap();
    fixture.submit(0, vec![spec("a", Priority::Critical)]).unwrap();
    assert!(fixture.assigned().is_empty());
    let stale = PoolUpdate { etag: Some("0".to_owned()), ..pause(false) };
    assert!(matches!(fixture.update_pool(&stale), Err(Refusal::EtagMismatch(_))));
    fixture.update_pool(&PoolUpdate { etag: Some(view.etag), ..pause(false) }).unwrap();
    assert_eq!(fixture.assigned().len(), 1);
}

#[test]
fn a_task_that_was_running_at_three_consecutive_crashes_fails() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![spec("a", Priority::Normal)]).unwrap();
    let mut journal = std::mem::take(&mut fixture.out.events);
    for crash in 1..=3 {
        fixture.start(crash);
        journal.append(&mut fixture.out.events);
        fixture = Fixture::new();
        for event in &journal {
            fixture.core.replay(event);
        }
        fixture.core.recover(Timestamp(crash), &mut fixture.out);
        journal.append(&mut fixture.out.events);
        let expected = if crash < 3 { TaskState::Queued } else { TaskState::Failed };
        assert_eq!(fixture.state("a"), expected, "after crash {crash}");
    }
}

#[test]
fn an_at_most_once_task_fails_when_it_is_interrupted() {
    let mut fixture = Fixture::new();
    let mut once = spec("a", Priority::Normal);
    once.options = Arc::new(TaskOptions { at_most_once: true, ..(*once.options).clone() });
    fixture.submit(0, vec![once]).unwrap();
    let assignment = fixture.assigned().remove(0);
    assert!(assignment.confirm);
    fixture.core.started(assignment.ticket, Timestamp(1), "w".into(), &mut fixture.out);
    assert_eq!(fixture.out.confirms, [assignment.ticket]);
    fixture.end(assignment.ticket, 2, Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain));
    assert_eq!(fixture.state("a"), TaskState::Failed);
}

#[test]
fn arguments_and_labels_beyond_their_limit_are_refused_until_a_task_ends() {
    let mut fixture = Fixture::new();
    let labelled = |id: &str, bytes: usize| {
        let spec = spec(id, Priority::Normal);
        let labels = [("key".into(), "x".repeat(bytes / 2).into())].into();
        let extras = TaskExtras { args: ["x".repeat(bytes / 2).into()].into(), ..TaskExtras::default() };
        let options = TaskOptions { labels, ..(*spec.options).clone() };
        TaskSpec { options: Arc::new(options), extras: extras.boxed(), ..spec }
    };
    fixture.submit(0, vec![labelled("a", 1_000)]).unwrap();
    let refused = fixture.submit(1, vec![labelled("b", 200), labelled("c", 1_000)]);
    assert!(matches!(refused, Err(Refusal::MemoryFull(_))));
    assert_eq!(fixture.out.events.len(), 1, "all tasks of a submission or none");
    assert!(fixture.submit(2, vec![labelled("a", 1_000)]).unwrap().accepted[0].duplicate, "adds nothing");
    fixture.submit(3, vec![labelled("small", 100)]).unwrap();
    let ticket = fixture.start(4);
    fixture.end(ticket, 5, Outcome::Completed(Payload::default()), None);
    fixture.submit(6, vec![labelled("c", 1_000)]).unwrap();
    fixture.core.check();
}
