//! Fences across restarts.

use crate::model::{Event, Lease, Payload, Priority, TaskChange, TaskState, Timestamp};
use crate::pool::Ticket;
use crate::runners::Outcome;

use super::tests::{attempt_end, options, spec};
use super::{Core, Decisions};

/// Starts the core of a server with this epoch after the events of an earlier one, and starts the only task.
fn start(epoch: u64, log: &mut Vec<Event>) -> (Core, Ticket) {
    let (mut core, mut out) = (Core::new(options()), Decisions::default());
    for event in &*log {
        core.replay(event);
    }
    core.begin_epoch(epoch);
    core.recover(Timestamp(epoch), &mut out);
    if log.is_empty() {
        core.submit(Timestamp(epoch), vec![spec("a", Priority::Normal)], &mut out).unwrap();
    }
    core.dispatch(&mut out);
    let ticket = out.dispatches.remove(0).assignments.remove(0).ticket;
    core.started(ticket, Timestamp(epoch), "default/PoolWorker-0".into(), &mut out);
    log.append(&mut out.events);
    (core, ticket)
}

#[test]
fn a_report_from_before_a_restart_changes_nothing() {
    let (mut log, mut out) = (Vec::new(), Decisions::default());
    let (_, before) = start(1, &mut log);
    let (mut core, ticket) = start(2, &mut log);
    assert!(ticket.fence > before.fence, "{ticket:?} after {before:?}");
    let completed = || Outcome::Completed(Payload::default());
    core.ended(attempt_end(before, 9, completed(), None), &mut out);
    assert!(out.events.is_empty(), "{:?}", out.events);
    core.ended(attempt_end(ticket, 9, completed(), None), &mut out);
    assert_eq!(out.events[0].task().unwrap().state, TaskState::Completed);
}

#[test]
fn a_start_records_the_lease_that_holds_the_attempt() {
    let mut log = Vec::new();
    start(1, &mut log);
    start(2, &mut log);
    let lease = |event: &Event| match event.task()?.change {
        TaskChange::Started { lease, .. } => Some(lease),
        _ => None,
    };
    let leases: Vec<_> = log.iter().filter_map(lease).collect();
    assert_eq!(leases, [Lease::Local { epoch: 1 }, Lease::Local { epoch: 2 }]);
}
