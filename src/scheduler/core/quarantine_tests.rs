//! A server whose tasks crash it, start after start.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::model::{Event, FailureReason, Payload, Priority, TaskChange, TaskId, TaskState, Timestamp};
use crate::pool::{Assignment, Ticket};
use crate::runners::Outcome;

use super::tests::{SECOND, attempt_end, options, spec};
use super::{Core, Decisions};

/// What a task does: it runs for some seconds, and then ends or crashes the server.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    seconds: u64,
    crashes: bool,
}

struct Server {
    workers: usize,
    behaviours: BTreeMap<TaskId, Behaviour>,
    /// Events that are durable.
    journal: Vec<Event>,
    now: u64,
    crashes: u32,
}

/// An attempt, when its handler began to run, and whether its start is durable.
struct Running {
    ticket: Ticket,
    id: TaskId,
    since: u64,
}

impl Server {
    fn new(workers: usize) -> Self {
        Self { workers, behaviours: BTreeMap::new(), journal: Vec::new(), now: SECOND, crashes: 0 }
    }

    fn core(&self) -> Core {
        let mut options = options();
        options.pools[0].size = self.workers;
        Core::new(options)
    }

    fn submit(&mut self, id: &str, behaviour: Behaviour) {
        let mut core = self.core();
        for event in &self.journal {
            core.replay(event);
        }
        let mut out = Decisions::default();
        core.submit(Timestamp(self.now), vec![spec(id, Priority::Normal)], &mut out).unwrap();
        self.journal.append(&mut out.events);
        self.behaviours.insert(TaskId::parse(id).unwrap(), behaviour);
    }

    /// Runs one server for `seconds`, or until it crashes. Returns whether it crashed.
    fn run(&mut self, seconds: u64) -> bool {
        let mut core = self.core();
        for event in &self.journal {
            core.replay(event);
        }
        let mut out = Decisions::default();
        core.be_careful(Timestamp(self.now));
        core.recover(Timestamp(self.now), &mut out);
        let mut assigned: Vec<Assignment> = Vec::new();
        let mut running: Vec<Running> = Vec::new();
        for _ in 0..seconds {
            core.advance(Timestamp(self.now), &mut out);
            core.dispatch(&mut out);
            self.journal.append(&mut out.events);
            core.check();
            assigned.extend(out.dispatches.drain(..).flat_map(|dispatch| dispatch.assignments));
            while running.len() < self.workers && !assigned.is_empty() {
                let assignment = assigned.remove(0);
                let (ticket, id) = (assignment.ticket, assignment.spec.id.clone());
                core.started(ticket, Timestamp(self.now), "w".into(), &mut out);
                if assignment.confirm {
                    assert!(out.confirms.contains(&ticket), "a worker waits for its confirmation");
                    self.journal.append(&mut out.events);
                }
                let behaviour = self.behaviours[&id];
                if behaviour.crashes && behaviour.seconds == 0 {
                    // Starts that were not confirmed are lost.
                    return self.crash();
                }
                running.push(Running { ticket, id, since: self.now });
            }
            out.confirms.clear();
            self.journal.append(&mut out.events);
            self.now += SECOND;
            let behaviours = &self.behaviours;
            let has_run = |one: &Running| self.now - one.since >= behaviours[&one.id].seconds * SECOND;
            let (over, still): (Vec<_>, Vec<_>) = running.into_iter().partition(has_run);
            running = still;
            for one in over {
                if self.behaviours[&one.id].crashes {
                    return self.crash();
                }
                let end = attempt_end(one.ticket, self.now, Outcome::Completed(Payload::default()), None);
                core.ended(end, &mut out);
            }
        }
        self.journal.append(&mut out.events);
        false
    }

    fn crash(&mut self) -> bool {
        self.crashes += 1;
        self.now += SECOND;
        true
    }

    fn states(&self) -> BTreeMap<String, TaskState> {
        let events = self.journal.iter().filter_map(Event::task);
        events.map(|event| (event.task.to_string(), event.state)).collect()
    }

    fn failures(&self) -> BTreeSet<String> {
        let mut failed = BTreeSet::new();
        for event in self.journal.iter().filter_map(Event::task) {
            if let TaskChange::Failed { failure, .. } = &event.change {
                assert_eq!(failure.reason, FailureReason::WorkerLost);
                failed.insert(event.task.to_string());
            }
        }
        failed
    }
}

const LONG: Behaviour = Behaviour { seconds: 3_600, crashes: false };
const SHORT: Behaviour = Behaviour { seconds: 1, crashes: false };
const POISON: Behaviour = Behaviour { seconds: 0, crashes: true };

#[test]
fn a_task_that_crashes_the_server_before_its_start_is_durable_fails_in_the_end() {
    let mut server = Server::new(2);
    server.submit("poison", POISON);
    while server.run(60) {
        assert!(server.crashes < 10, "the task was not found: {:?}", server.states());
    }
    assert_eq!(server.failures(), ["poison".to_owned()].into());
}

#[test]
fn neighbours_of_a_task_that_crashes_the_server_do_not_fail_and_other_tasks_go_on() {
    let mut server = Server::new(4);
    for n in 0..3 {
        server.submit(&format!("long{n}"), LONG);
    }
    server.submit("poison", POISON);
    while server.run(60) {
        server.submit(&format!("short{}", server.crashes), SHORT);
        assert!(server.crashes < 10, "the task was not found: {:?}", server.states());
    }
    assert_eq!(server.failures(), ["poison".to_owned()].into());
    let states = server.states();
    for n in 0..3 {
        assert_eq!(states[&format!("long{n}")], TaskState::Running);
    }
    assert_eq!(states["short1"], TaskState::Completed);
}

#[test]
fn a_task_that_is_not_running_at_the_crash_is_not_suspected() {
    let mut server = Server::new(1);
    server.submit("poison", POISON);
    server.submit("later", SHORT);
    while server.run(60) {
        assert!(server.crashes < 10);
    }
    assert_eq!(server.states()["later"], TaskState::Completed);
    assert_eq!(server.crashes, 3, "after the first crash every start is durable before the handler runs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn only_tasks_that_crash_the_server_fail(
        workers in 1..5_usize,
        tasks in proptest::collection::vec((0..40_u64, proptest::bool::weighted(0.2)), 1..8),
    ) {
        let mut server = Server::new(workers);
        let mut poisonous = BTreeSet::new();
        for (n, (seconds, crashes)) in tasks.into_iter().enumerate() {
            server.submit(&format!("t{n}"), Behaviour { seconds, crashes });
            if crashes {
                poisonous.insert(format!("t{n}"));
            }
        }
        while server.run(1_000) {
            prop_assert!(server.crashes < 100, "not found: {:?}", server.states());
        }
        prop_assert_eq!(server.failures(), poisonous);
        for (task, state) in server.states() {
            prop_assert!(state.is_terminal(), "{} is {:?}", task, state);
        }
    }
}
