//! Unit tests of request IDs.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Payload, Priority, RememberedRequest, RequestKey, RequestRetention, Revision, SubmissionDigest, TaskChange,
    TaskExtras, TaskFilter, TaskId, TaskSpec, TaskState, Timestamp,
};
use crate::runners::Outcome;
use crate::scheduler::refusal::Refusal;

use super::requests::LENGTH_MAX;
use super::tests::{Fixture, SECOND, options, spec};
use super::{Accepted, Core, Decisions, StoredIds, Submission, Undecided, Verdict};

/// A task with a generated ID and a request ID.
fn keyed(number: u128, request_id: &str) -> TaskSpec {
    let id = TaskId::Uuid(number.to_be_bytes());
    let request = Some(Arc::new(RequestKey { id: request_id.into(), digest: None }));
    TaskSpec { id, extras: TaskExtras { request, ..TaskExtras::default() }.boxed(), ..spec("x", Priority::Normal) }
}

fn id(number: u128) -> TaskId {
    TaskId::Uuid(number.to_be_bytes())
}

fn other(spec: TaskSpec) -> TaskSpec {
    TaskSpec { payload: Box::from(*b"other"), ..spec }
}

fn digest(spec: &TaskSpec) -> SubmissionDigest {
    spec.request_with_digest().unwrap().1
}

/// One task, and what a look at the store has found.
fn looked_up(spec: TaskSpec, revision: u64, found: Option<RememberedRequest>) -> Submission {
    let requests = found.into_iter().map(|found| (0, found)).collect();
    let stored = StoredIds { revision: Revision(revision), requests, repeated: Vec::new() };
    Submission { stored: Some(Box::new(stored)), ..vec![spec].into() }
}

fn remembered(spec: &TaskSpec, at: u64) -> RememberedRequest {
    let (task, digest) = (spec.id.clone(), digest(spec));
    RememberedRequest { task, submission: Revision(1), digest, at: Timestamp(at), newer: 0 }
}

/// A core whose store has written everything up to revision 10, with this retention.
fn core_after_10(requests: RequestRetention) -> Core {
    let mut options = options();
    options.retention.requests = requests;
    let mut core = Core::new(options);
    core.restore_revision(Revision(10));
    core
}

fn submit(core: &mut Core, at: u64, submission: Submission) -> Result<Accepted, Refusal> {
    match core.submit(Timestamp(at), submission, &mut Decisions::default())? {
        Verdict::Accepted(mut submitted) => Ok(submitted.accepted.remove(0)),
        other => panic!("undecided: {other:?}"),
    }
}

#[test]
fn a_request_id_returns_the_first_task_and_other_content_is_refused() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![keyed(1, "r")]).unwrap();
    let again = fixture.submit(1, vec![keyed(2, "r")]).unwrap();
    assert_eq!(again.accepted[0], Accepted { id: id(1), state: Some(TaskState::Queued), duplicate: true });
    assert!(matches!(fixture.submit(2, vec![other(keyed(3, "r"))]), Err(Refusal::RequestIdReused(_))));
    let renamed = TaskSpec { id: TaskId::parse("chosen").unwrap(), ..keyed(4, "r") };
    assert!(matches!(fixture.submit(3, vec![renamed]), Err(Refusal::RequestIdReused(_))), "another task is asked for");
    let twice = vec![keyed(5, "s"), keyed(6, "s")];
    assert!(matches!(fixture.submit(4, twice), Err(Refusal::BadField(_))));
    assert_eq!(fixture.out.events.len(), 1, "a refused submission adds no event");
}

#[test]
fn a_request_id_outlives_its_task() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![keyed(1, "r")]).unwrap();
    let ticket = fixture.start(1);
    fixture.end(ticket, 2, Outcome::Completed(Payload::default()), None);
    let mut deletion = fixture.core.begin_deletion(TaskFilter::default());
    while !fixture.core.continue_deletion(Timestamp(3), &mut deletion, 10, &mut fixture.out) {}
    assert!(fixture.core.task(&id(1)).is_none());
    let again = fixture.submit(4, vec![keyed(2, "r")]).unwrap();
    assert_eq!(again.accepted[0], Accepted { id: id(1), state: None, duplicate: true });
    assert!(matches!(fixture.submit(5, vec![other(keyed(3, "r"))]), Err(Refusal::RequestIdReused(_))));
}

#[test]
fn a_task_that_reuses_the_id_of_a_deleted_one_is_not_taken_for_it() {
    let mut fixture = Fixture::new();
    let named = |request| TaskSpec { id: TaskId::parse("name").unwrap(), ..keyed(1, request) };
    fixture.submit(0, vec![named("r")]).unwrap();
    let ticket = fixture.start(1);
    fixture.end(ticket, 2, Outcome::Completed(Payload::default()), None);
    let mut deletion = fixture.core.begin_deletion(TaskFilter::default());
    while !fixture.core.continue_deletion(Timestamp(3), &mut deletion, 10, &mut fixture.out) {}
    fixture.submit(4, vec![named("s")]).unwrap();
    assert_eq!(fixture.submit(5, vec![named("r")]).unwrap().accepted[0].state, None, "the first one is gone");
    assert_eq!(fixture.submit(6, vec![named("s")]).unwrap().accepted[0].state, Some(TaskState::Queued));
}

#[test]
fn a_request_id_that_only_the_store_remembers_is_recognised() {
    let mut core = core_after_10(RequestRetention::default());
    let found = Some(remembered(&keyed(1, "r"), 0));
    let again = submit(&mut core, 5, looked_up(keyed(2, "r"), 10, found.clone())).unwrap();
    assert_eq!(again, Accepted { id: id(1), state: None, duplicate: true });
    let changed = submit(&mut core, 5, looked_up(other(keyed(2, "r")), 10, found));
    assert!(matches!(changed, Err(Refusal::RequestIdReused(_))));
    assert!(!submit(&mut core, 5, looked_up(keyed(2, "s"), 10, None)).unwrap().duplicate);
}

#[test]
fn a_request_id_is_looked_up_again_if_the_store_was_behind() {
    let mut core = core_after_10(RequestRetention::default());
    let mut out = Decisions::default();
    match core.submit(Timestamp(5), looked_up(keyed(1, "r"), 9, None), &mut out).unwrap() {
        Verdict::Undecided(undecided) => assert_eq!(undecided.written_to, Some(Revision(10))),
        other => panic!("decided without the store: {other:?}"),
    }
    assert!(out.events.is_empty());
    // A submission without a request id needs no look at the store.
    assert!(!submit(&mut core, 5, vec![spec("plain", Priority::Normal)].into()).unwrap().duplicate);
}

#[test]
fn few_request_ids_are_kept_in_memory_and_no_repetition_is_missed() {
    let mut core = core_after_10(RequestRetention::default());
    let update = super::PoolUpdate {
        name: spec("x", Priority::Normal).options.pool.clone(),
        size: None,
        paused: None,
        queue_limit: Some(1_000),
        etag: None,
    };
    core.update_pool(Timestamp(0), &update, &mut Decisions::default()).unwrap();
    // What the store would have written.
    let mut table: Vec<RememberedRequest> = Vec::new();
    for number in 0..500_u64 {
        let new = keyed(number.into(), &format!("r{number}"));
        let written = core.revision().0.saturating_sub(number % 40);
        let entry = RememberedRequest { submission: core.revision().next(), ..remembered(&new, 1) };
        assert!(!submit(&mut core, 1, looked_up(new, written, None)).unwrap().duplicate, "{number}");
        table.push(entry);
        assert!(core.requests.len() <= LENGTH_MAX);
        core.requests.check();
        let old = number / 2;
        let found =
            table.iter().find(|entry| entry.task == id(old.into()) && entry.submission <= Revision(written)).cloned();
        let again = keyed(u128::from(1_000 + number), &format!("r{old}"));
        let verdict = core.submit(Timestamp(1), looked_up(again.clone(), written, found), &mut Decisions::default());
        match verdict.unwrap() {
            Verdict::Accepted(submitted) => assert_eq!(submitted.accepted[0].id, id(old.into())),
            Verdict::NotRepeated => panic!("new tasks are allowed"),
            Verdict::Undecided(undecided) => {
                let Undecided { submission, written_to, .. } = *undecided;
                assert!(written_to.unwrap() > Revision(written) && submission.specs[0] == again);
            }
        }
    }
}

#[test]
fn a_request_id_is_forgotten_after_the_configured_time() {
    let hour = Duration::from_hours(1);
    let mut core = core_after_10(RequestRetention { age: hour, ..RequestRetention::default() });
    let found = Some(remembered(&keyed(1, "r"), SECOND));
    let just_before = 3_600 * SECOND + SECOND - 1;
    assert!(submit(&mut core, just_before, looked_up(keyed(2, "r"), 10, found.clone())).unwrap().duplicate);
    let new = submit(&mut core, just_before + 1, looked_up(keyed(3, "r"), 10, found)).unwrap();
    assert_eq!((new.id, new.duplicate), (id(3), false));
    // The same for one that is in memory.
    let end = just_before + 1 + 3_600 * SECOND;
    assert_eq!(submit(&mut core, end - 1, looked_up(keyed(4, "r"), 10, None)).unwrap().id, id(3));
    assert_eq!(submit(&mut core, end, looked_up(keyed(5, "r"), 10, None)).unwrap().id, id(5));
    assert_eq!(submit(&mut core, end, looked_up(keyed(6, "r"), 10, None)).unwrap().id, id(5), "the newest counts");
}

#[test]
fn the_configured_number_of_request_ids_is_remembered() {
    let mut core = core_after_10(RequestRetention { count: 3, ..RequestRetention::default() });
    for number in 1..=3 {
        submit(&mut core, 0, looked_up(keyed(number, &format!("r{number}")), 10, None)).unwrap();
    }
    assert!(submit(&mut core, 0, looked_up(keyed(9, "r1"), 10, None)).unwrap().duplicate);
    let found = Some(RememberedRequest { newer: 0, ..remembered(&keyed(8, "old"), 0) });
    let old = submit(&mut core, 0, looked_up(keyed(9, "old"), 10, found)).unwrap();
    assert!(!old.duplicate, "three newer ones are in memory");
    assert!(!submit(&mut core, 0, looked_up(keyed(10, "r1"), 10, None)).unwrap().duplicate, "a fourth was added");
}

#[test]
fn events_of_an_older_version_are_recognised_after_a_replay() {
    let mut fixture = Fixture::new();
    fixture.submit(0, vec![keyed(1, "r")]).unwrap();
    let event = fixture.last_event().clone();
    assert!(
        matches!(&event.change, TaskChange::Submitted { spec } if spec.extras().request.as_ref().unwrap().digest.is_none())
    );
    let mut restarted = Core::new(options());
    restarted.restore_revision(Revision(0));
    restarted.replay(&fixture.out.events[0]);
    assert!(submit(&mut restarted, 1, looked_up(keyed(2, "r"), 0, None)).unwrap().duplicate);
}
