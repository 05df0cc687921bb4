//! Remote pools: the slots that a namespace may have are shared by all handlers, and counted from the start of a server.

use std::sync::Arc;

use crate::model::{Event, HandlerName, PoolKind, PoolSpec, Priority, TaskOptions, TaskSpec, TaskState, Timestamp};
use crate::store::fold;

use super::Core;
use super::tests::{Fixture, SECOND, failed, options, spec};

const HANDLERS: [&str; 3] = ["first", "second", "third"];

fn handler(name: &str) -> HandlerName {
    HandlerName::parse(name).unwrap()
}

/// A remote pool in which a namespace may have one slot, and workers that offer all handlers.
fn fixture() -> Fixture {
    let mut options = options();
    let pool =
        PoolSpec { kind: PoolKind::Remote, size: 0, max_running_per_namespace: Some(1), ..options.pools[0].clone() };
    options.pools = vec![pool];
    let mut fixture = Fixture { core: Core::new(options), ..Fixture::new() };
    fixture.core.set_slots(0, 9, &HANDLERS.map(|name| (handler(name), 9)));
    fixture
}

fn task(id: &str, handler_name: &str, priority: Priority) -> TaskSpec {
    let basis = spec(id, priority);
    let options = TaskOptions { handler: handler(handler_name), ..(*basis.options).clone() };
    TaskSpec { options: Arc::new(options), ..basis }
}

fn ids(fixture: &mut Fixture) -> Vec<String> {
    fixture.assigned().iter().map(|assignment| assignment.spec.id.to_string()).collect()
}

#[test]
fn the_slot_of_a_namespace_goes_to_its_most_urgent_task_whatever_the_handler() {
    let mut fixture = fixture();
    let tasks =
        [("low", "first", Priority::Low), ("urgent", "second", Priority::High), ("usual", "third", Priority::Normal)];
    fixture.submit(SECOND, tasks.map(|(id, handler, priority)| task(id, handler, priority)).into()).unwrap();
    assert_eq!(ids(&mut fixture), ["urgent"]);
}

#[test]
fn every_handler_gets_the_slot_of_a_namespace_at_times() {
    let mut fixture = fixture();
    let tasks = (0..120).map(|n| task(&format!("t{n:03}"), HANDLERS[n % 2], Priority::Normal));
    fixture.submit(SECOND, tasks.collect()).unwrap();
    let mut counts = [0; 2];
    for at in 1..=60 {
        let assignment = fixture.assigned().remove(0);
        let handler = &assignment.spec.options.handler;
        counts[HANDLERS.iter().position(|name| *name == handler.as_str()).unwrap()] += 1;
        fixture.core.started(assignment.ticket, Timestamp(at * SECOND), "p/w".into(), &mut fixture.out);
        fixture.end(assignment.ticket, at * SECOND, failed(), None);
    }
    assert!(counts.iter().all(|count| *count >= 15), "{counts:?}");
}

#[test]
fn a_more_urgent_task_whose_namespace_has_lost_its_slot_to_another_handler_holds_nothing_back() {
    let mut fixture = fixture();
    fixture.core.set_slots(0, 9, &[(handler("second"), 9)]);
    fixture.submit(SECOND, vec![task("high", "first", Priority::High)]).unwrap();
    fixture.core.dispatch(&mut fixture.out);
    assert!(fixture.out.dispatches.pop().unwrap().held_back[Priority::High.index()]);
    fixture.submit(SECOND, vec![task("low", "second", Priority::Low)]).unwrap();
    fixture.core.dispatch(&mut fixture.out);
    let told = fixture.out.dispatches.iter().find(|dispatch| dispatch.handler == Some(handler("first")));
    assert_eq!(told.map(|dispatch| dispatch.held_back), Some([false; Priority::COUNT]));
}

#[test]
fn a_restored_attempt_of_a_remote_worker_has_a_slot_of_its_namespace() {
    let mut before = fixture();
    before.submit(SECOND, vec![task("running", "first", Priority::Normal)]).unwrap();
    let ticket = before.start(SECOND);
    before.submit(SECOND, vec![task("waiting", "second", Priority::Normal)]).unwrap();
    let mut after = fixture();
    after.core = Core::new(before.core.options.clone());
    let mut rows = [None, None];
    for event in before.out.events.iter().filter_map(Event::task) {
        fold(&mut rows[usize::from(event.task.to_string() == "waiting")], event);
    }
    after.core.restore_revision(before.core.revision());
    for row in rows.into_iter().flatten() {
        after.core.restore(row.into(), b"0123456789");
    }
    after.core.begin_epoch(2);
    after.core.recover(Timestamp(2 * SECOND), &mut after.out);
    assert_eq!(after.state("running"), TaskState::Running);
    after.core.set_slots(0, 9, &HANDLERS.map(|name| (handler(name), 9)));
    assert_eq!(ids(&mut after), [""; 0], "the namespace has its slot");
    let adopted = after.out.adoptions.remove(0).assignment.ticket;
    assert_eq!(adopted.fence, ticket.fence);
    after.end(adopted, 3 * SECOND, failed(), None);
    assert_eq!(ids(&mut after), ["waiting"]);
}

#[test]
fn a_turn_looks_only_at_the_queues_that_have_changed() {
    let mut fixture = fixture();
    fixture.core.options.pools[0].max_running_per_namespace = None;
    fixture.core = Core::new(fixture.core.options.clone());
    let slots: Vec<_> = (0..1_000).map(|n| (handler(&format!("h{n}")), 1)).collect();
    fixture.core.set_slots(0, 1_000, &slots);
    assert_eq!(fixture.core.pools[0].queues.changed().len(), 1_000);
    assert!(ids(&mut fixture).is_empty());
    assert!(fixture.core.pools[0].queues.changed().is_empty());
    fixture.core.set_slots(0, 1_001, &slots);
    fixture.submit(SECOND, vec![task("t", "h7", Priority::Normal)]).unwrap();
    assert_eq!(fixture.core.pools[0].queues.changed(), [7]);
    assert_eq!(ids(&mut fixture), ["t"]);
    assert!(fixture.core.pools[0].queues.changed().is_empty());
}
