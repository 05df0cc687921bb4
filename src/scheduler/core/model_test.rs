//! Compares the core with a naive model over random commands, crashes and replays, and checks the invariants
//! after every step. proptest shrinks a failing case and prints its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::model::{
    Event, Payload, PoolName, Priority, StopMethod, TaskChange, TaskEvent, TaskExtras, TaskId, TaskSpec, TaskState,
    Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::{Outcome, StopCause};

use super::tests::{attempt_end, failed, options, request, spec};
use super::{Core, Decisions, PoolUpdate};

#[derive(Clone, Debug)]
enum Step {
    Submit { priority: usize, delay_ms: u64, expires_ms: Option<u64>, once: bool },
    Start,
    End { pick: usize, how: u8 },
    Cancel { pick: usize },
    Advance { ms: u64 },
    Pause { paused: bool },
    Crash,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_usize, prop_oneof![4 => Just(0_u64), 1 => 1..2_000_u64], proptest::option::weighted(0.1, 1..500_u64),
            proptest::bool::weighted(0.1))
            .prop_map(|(priority, delay_ms, expires_ms, once)| Step::Submit { priority, delay_ms, expires_ms, once }),
        8 => Just(Step::Start),
        8 => (any::<usize>(), 0..6_u8).prop_map(|(pick, how)| Step::End { pick, how }),
        2 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        3 => (1..30_000_u64).prop_map(|ms| Step::Advance { ms }),
        1 => any::<bool>().prop_map(|paused| Step::Pause { paused }),
        1 => Just(Step::Crash),
        1 => Just(Step::Sweep),
    ]
}

/// The state that follows from the events alone.
#[derive(Default)]
struct Naive {
    states: BTreeMap<TaskId, TaskState>,
    cancelled: BTreeMap<TaskId, bool>,
    revision: u64,
}

impl Naive {
    fn observe(&mut self, event: &Event) {
        self.revision += 1;
        assert_eq!(event.revision().0, self.revision, "revisions have no gaps");
        let Event::Task(event) = event else { return };
        let previous = self.states.get(&event.task).copied();
        match &event.change {
            TaskChange::Submitted { .. } => assert_eq!(previous, None, "a task is submitted once"),
            TaskChange::Deleted => {
                assert!(previous.is_some_and(TaskState::is_terminal), "only finished tasks are deleted");
            }
            _ => {
                assert_eq!(previous, Some(event.previous), "an event contains the previous state");
                assert!(!event.previous.is_terminal(), "{:?} is final: {event:?}", event.previous);
            }
        }
        if matches!(event.change, TaskChange::Started { .. }) {
            assert_eq!(event.previous, TaskState::Queued);
            assert!(!self.cancelled.contains_key(&event.task), "nothing starts after its cancel was acknowledged");
        }
        if matches!(event.change, TaskChange::Deleted) {
            self.states.remove(&event.task);
        } else {
            self.states.insert(event.task.clone(), event.state);
        }
    }
}

struct World {
    core: Core,
    out: Decisions,
    now: u64,
    naive: Naive,
    journal: Vec<Event>,
    /// Attempts that were dispatched and have not started.
    assigned: Vec<Assignment>,
    running: Vec<(Ticket, TaskId)>,
    held_back: [bool; 4],
    paused: bool,
    submitted: usize,
    epoch: u64,
    /// Attempts that were dispatched or running at a crash.
    lost: Vec<Ticket>,
}

impl World {
    fn new() -> Self {
        let mut options = options();
        options.payload_bytes_max = u64::MAX;
        Self {
            core: Core::new(options),
            out: Decisions::default(),
            now: 1_000_000,
            naive: Naive::default(),
            journal: Vec::new(),
            assigned: Vec::new(),
            running: Vec::new(),
            held_back: [false; 4],
            paused: false,
            submitted: 0,
            epoch: 0,
            lost: Vec::new(),
        }
    }

    /// Does what the service does after every drain of its inbox.
    fn release(&mut self) {
        self.core.advance(Timestamp(self.now), &mut self.out);
        self.answer_recalls();
        self.core.dispatch(&mut self.out);
        for dispatch in self.out.dispatches.drain(..) {
            assert!(!self.paused, "a paused pool is given no attempts");
            self.assigned.extend(dispatch.assignments);
            self.held_back = dispatch.held_back;
        }
        self.report_lost();
        self.out.stops.clear();
        self.out.confirms.clear();
        for event in self.out.events.drain(..) {
            self.naive.observe(&event);
            self.journal.push(event);
        }
        self.core.check();
        for (id, state) in &self.naive.states {
            assert_eq!(self.core.state(id), Some(*state), "state of {id} in the core and in the events");
        }
    }

    /// Reports of attempts that a crash has ended, for example from a process that outlived the server.
    fn report_lost(&mut self) {
        let events = self.out.events.len();
        for ticket in &self.lost {
            self.core.started(*ticket, Timestamp(self.now), "w".into(), &mut self.out);
            let end = attempt_end(*ticket, self.now, Outcome::Completed(Payload::default()), None);
            self.core.ended(end, &mut self.out);
        }
        assert_eq!(self.out.events.len(), events, "a report from before a crash has no effect");
    }

    fn answer_recalls(&mut self) {
        for ticket in std::mem::take(&mut self.out.recalls) {
            let found = self.assigned.iter().position(|a| a.ticket == ticket);
            let won = found.map(|at| self.assigned.remove(at)).is_some();
            self.core.recalled(Timestamp(self.now), ticket, won, &mut self.out);
        }
    }

    fn submit(&mut self, priority: usize, delay_ms: u64, expires_ms: Option<u64>, once: bool) {
        self.submitted += 1;
        let mut spec: TaskSpec = spec(&format!("t{}", self.submitted), Priority::from_index(priority).unwrap());
        let extras = TaskExtras {
            delay: (delay_ms > 0).then(|| Duration::from_millis(delay_ms)),
            expires_after: expires_ms.map(Duration::from_millis),
            ..TaskExtras::default()
        };
        spec.extras = extras.boxed();
        let mut options = (*spec.options).clone();
        options.at_most_once = once;
        options.retry.delay = Duration::from_secs(self.submitted as u64 % 3);
        spec.options = options.into();
        self.core.submit(Timestamp(self.now), vec![spec], &mut self.out).unwrap();
    }

    /// The only worker starts the most urgent attempt, unless the core holds back a more urgent one.
    fn start(&mut self) {
        let urgency = |a: &Assignment| (a.spec.options.priority, std::cmp::Reverse(a.ticket.fence));
        let Some(at) = (0..self.assigned.len()).max_by_key(|at| urgency(&self.assigned[*at])) else { return };
        let priority = self.assigned[at].spec.options.priority;
        if self.paused || self.held_back[priority.index() + 1..].contains(&true) {
            return;
        }
        let on_trial = self.core.is_on_trial(self.assigned[at].ticket);
        let more_urgent = |event: &&TaskEvent| event.options.priority > priority && !on_trial;
        for event in self.journal.iter().filter_map(Event::task).filter(more_urgent) {
            let state = self.core.state(&event.task);
            assert_ne!(state, Some(TaskState::Queued), "{} waits while {priority:?} starts", event.task);
        }
        let assignment = self.assigned.remove(at);
        assert!(!self.running.iter().any(|(_, id)| *id == assignment.spec.id), "one live attempt per task");
        self.running.push((assignment.ticket, assignment.spec.id.clone()));
        self.core.started(assignment.ticket, Timestamp(self.now), "w".into(), &mut self.out);
    }

    fn end(&mut self, pick: usize, how: u8) {
        if self.running.is_empty() {
            return;
        }
        let (ticket, _) = self.running.remove(pick % self.running.len());
        let (outcome, cause) = match how {
            0 | 1 => (Outcome::Completed(Payload::default()), None),
            2 => (failed(), None),
            3 => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Timeout)),
            4 => (Outcome::Unavailable("no memory".into()), None),
            _ => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain)),
        };
        self.core.ended(attempt_end(ticket, self.now, outcome, cause), &mut self.out);
        // A second report of the same attempt has no effect.
        let events = self.out.events.len();
        let repeated = attempt_end(ticket, self.now, Outcome::Completed(Payload::default()), None);
        self.core.ended(repeated, &mut self.out);
        assert_eq!(self.out.events.len(), events);
    }

    fn cancel(&mut self, pick: usize) {
        let Some(id) = self.naive.states.keys().nth(pick % self.naive.states.len().max(1)).cloned() else { return };
        let previous = self.naive.states[&id];
        if self.core.cancel(&id, request(self.now), &mut self.out).is_ok() {
            self.answer_recalls();
            if previous != TaskState::Running {
                self.naive.cancelled.insert(id, true);
            }
        }
    }

    /// Loses the memory of the core but not the journal.
    fn crash(&mut self) {
        let mut fresh = World::new();
        for event in &self.journal {
            assert!(fresh.core.replay(event), "unknown: {event:?}");
            fresh.naive.observe(event);
        }
        assert_eq!(fresh.naive.states, self.naive.states, "a replay produces the same state");
        fresh.naive.cancelled = std::mem::take(&mut self.naive.cancelled);
        (fresh.now, fresh.submitted, fresh.paused) = (self.now + 1, self.submitted, self.paused);
        fresh.journal = std::mem::take(&mut self.journal);
        fresh.epoch = self.epoch + 1;
        fresh.core.begin_epoch(fresh.epoch);
        fresh.lost = std::mem::take(&mut self.lost);
        fresh.lost.extend(self.assigned.iter().map(|assignment| assignment.ticket));
        fresh.lost.extend(self.running.iter().map(|(ticket, _)| *ticket));
        fresh.core.recover(Timestamp(fresh.now), &mut fresh.out);
        *self = fresh;
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        let name = PoolName::parse("default").unwrap();
        let update = PoolUpdate { name, size: None, paused: Some(paused), queue_limit: None, etag: None };
        self.core.update_pool(Timestamp(self.now), &update, &mut self.out).unwrap();
    }

    fn execute(&mut self, step: Step) {
        match step {
            Step::Submit { priority, delay_ms, expires_ms, once } => self.submit(priority, delay_ms, expires_ms, once),
            Step::Start => self.start(),
            Step::End { pick, how } => self.end(pick, how),
            Step::Cancel { pick } => self.cancel(pick),
            Step::Advance { ms } => self.now += ms * 1_000,
            Step::Pause { paused } => self.pause(paused),
            Step::Crash => self.crash(),
            Step::Sweep => drop(self.core.sweep(Timestamp(self.now), 2, &mut self.out)),
        }
        self.release();
    }

    /// Runs without faults until every accepted task has ended.
    fn run_to_end(&mut self) {
        self.pause(false);
        for _ in 0..10_000 {
            self.release();
            if self.naive.states.values().all(|state| state.is_terminal()) {
                return;
            }
            self.start();
            self.end(0, 0);
            self.now += 100_000;
        }
        panic!("a task has not outcome: {:?}", self.naive.states);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_step_and_every_task_ends(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.execute(step);
        }
        world.run_to_end();
    }
}
