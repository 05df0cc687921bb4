//! The core against a naive model: random commands, crashes and replays included, and the invariants
//! of the house plan after every step. A failing case is shrunk and its seed printed by proptest.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::model::{
    Change, Event, Payload, PoolName, Priority, StopMethod, TaskExtras, TaskId, TaskSpec, TaskState, Timestamp,
};
use crate::pool::{Assignment, Ticket};
use crate::runners::{Outcome, StopCause};

use super::tests::{failed, finished, options, request, spec};
use super::{Core, Output, PoolUpdate};

#[derive(Clone, Debug)]
enum Step {
    Submit { priority: usize, delay_ms: u64, expires_ms: Option<u64>, once: bool },
    Begin,
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
        8 => Just(Step::Begin),
        8 => (any::<usize>(), 0..5_u8).prop_map(|(pick, how)| Step::End { pick, how }),
        2 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        3 => (1..30_000_u64).prop_map(|ms| Step::Advance { ms }),
        1 => any::<bool>().prop_map(|paused| Step::Pause { paused }),
        1 => Just(Step::Crash),
        1 => Just(Step::Sweep),
    ]
}

/// What a reader of the events would believe, by the simplest means.
#[derive(Default)]
struct Naive {
    states: BTreeMap<TaskId, TaskState>,
    cancelled: BTreeMap<TaskId, bool>,
    revision: u64,
}

impl Naive {
    fn see(&mut self, event: &Event) {
        self.revision += 1;
        assert_eq!(event.revision.0, self.revision, "revisions have no gap");
        let known = self.states.get(&event.task).copied();
        match &event.change {
            Change::Submitted { .. } => assert_eq!(known, None, "a task is submitted once"),
            Change::Deleted => assert!(known.is_some_and(TaskState::is_terminal), "only finished tasks are forgotten"),
            _ => {
                assert_eq!(known, Some(event.previous), "an event knows the state before it");
                assert!(!event.previous.is_terminal(), "{:?} is final: {event:?}", event.previous);
            }
        }
        if matches!(event.change, Change::Started { .. }) {
            assert_eq!(event.previous, TaskState::Queued);
            assert!(!self.cancelled.contains_key(&event.task), "nothing starts after its cancel was acknowledged");
        }
        if matches!(event.change, Change::Deleted) {
            self.states.remove(&event.task);
        } else {
            self.states.insert(event.task.clone(), event.state);
        }
    }
}

struct World {
    core: Core,
    out: Output,
    now: u64,
    naive: Naive,
    journal: Vec<Event>,
    /// What the pool holds: handed out, and begun.
    assigned: Vec<Assignment>,
    begun: Vec<(Ticket, TaskId)>,
    held_back: [bool; 4],
    paused: bool,
    submitted: usize,
}

impl World {
    fn new() -> Self {
        let mut options = options();
        options.payload_bytes_max = u64::MAX;
        Self {
            core: Core::new(options),
            out: Output::default(),
            now: 1_000_000,
            naive: Naive::default(),
            journal: Vec::new(),
            assigned: Vec::new(),
            begun: Vec::new(),
            held_back: [false; 4],
            paused: false,
            submitted: 0,
        }
    }

    /// What the service does after every drain, with a pool that holds what it is given.
    fn settle(&mut self) {
        self.core.advance(Timestamp(self.now), &mut self.out);
        for ticket in std::mem::take(&mut self.out.recalls) {
            if let Some(at) = self.assigned.iter().position(|a| a.ticket == ticket) {
                self.assigned.remove(at);
                self.core.recalled_expired(Timestamp(self.now), ticket, &mut self.out);
            }
        }
        self.core.dispatch(&mut self.out);
        for dispatch in self.out.dispatches.drain(..) {
            assert!(!self.paused, "a paused pool is given nothing");
            self.assigned.extend(dispatch.assignments);
            self.held_back = dispatch.held_back;
        }
        self.out.stops.clear();
        self.out.confirms.clear();
        for event in self.out.events.drain(..) {
            self.naive.see(&event);
            self.journal.push(event);
        }
        self.core.check();
        for (id, state) in &self.naive.states {
            assert_eq!(self.core.state(id), Some(*state), "core and events agree about {id}");
        }
    }

    fn submit(&mut self, priority: usize, delay_ms: u64, expires_ms: Option<u64>, once: bool) {
        self.submitted += 1;
        let mut spec: TaskSpec = spec(&format!("t{}", self.submitted), Priority::from_index(priority).unwrap());
        let extras = TaskExtras {
            not_before: (delay_ms > 0).then(|| Timestamp(self.now + delay_ms * 1_000)),
            expires_at: expires_ms.map(|ms| Timestamp(self.now + ms * 1_000)),
            ..TaskExtras::default()
        };
        spec.extras = extras.boxed();
        let mut options = (*spec.options).clone();
        options.at_most_once = once;
        options.retry.delay = Duration::from_secs(self.submitted as u64 % 3);
        spec.options = options.into();
        self.core.submit(Timestamp(self.now), vec![spec], &mut self.out).unwrap();
    }

    /// The one worker takes the most urgent attempt, unless something more urgent is held back.
    fn begin(&mut self) {
        let urgency = |a: &Assignment| (a.spec.options.priority, std::cmp::Reverse(a.ticket.fence));
        let Some(at) = (0..self.assigned.len()).max_by_key(|at| urgency(&self.assigned[*at])) else { return };
        let priority = self.assigned[at].spec.options.priority;
        if self.paused || self.held_back[priority.index() + 1..].contains(&true) {
            return;
        }
        let higher = |id: &TaskId| {
            self.assigned.iter().any(|a| a.spec.id == *id && a.spec.options.priority <= priority)
                || self.core.state(id) != Some(TaskState::Queued)
        };
        for event in self.journal.iter().filter(|e| e.options.priority > priority) {
            assert!(higher(&event.task), "{} waits while {priority:?} starts", event.task);
        }
        let assignment = self.assigned.remove(at);
        assert!(!self.begun.iter().any(|(_, id)| *id == assignment.spec.id), "one live attempt per task");
        self.begun.push((assignment.ticket, assignment.spec.id.clone()));
        self.core.started(assignment.ticket, Timestamp(self.now), "w".into(), &mut self.out);
    }

    fn end(&mut self, pick: usize, how: u8) {
        if self.begun.is_empty() {
            return;
        }
        let (ticket, _) = self.begun.remove(pick % self.begun.len());
        let (outcome, cause) = match how {
            0 | 1 => (Outcome::Completed(Payload::default()), None),
            2 => (failed(), None),
            3 => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Timeout)),
            _ => (Outcome::Stopped(StopMethod::Token), Some(StopCause::Drain)),
        };
        self.core.finished(finished(ticket, self.now, outcome, cause), &mut self.out);
        // A late twin of the report is refused.
        let events = self.out.events.len();
        let twin = finished(ticket, self.now, Outcome::Completed(Payload::default()), None);
        self.core.finished(twin, &mut self.out);
        assert_eq!(self.out.events.len(), events);
    }

    fn cancel(&mut self, pick: usize) {
        let Some(id) = self.naive.states.keys().nth(pick % self.naive.states.len().max(1)).cloned() else { return };
        let at = self.assigned.iter().position(|a| a.spec.id == id);
        let recalled = at.map(|at| self.assigned.remove(at)).is_some();
        let was = self.naive.states[&id];
        if self.core.cancel(&id, request(self.now), recalled, &mut self.out).is_ok() && was != TaskState::Running {
            self.naive.cancelled.insert(id, true);
        }
    }

    /// kill -9: memory is gone, the journal is not.
    fn crash(&mut self) {
        let mut fresh = World::new();
        for event in &self.journal {
            fresh.core.replay(event);
            fresh.naive.see(event);
        }
        assert_eq!(fresh.naive.states, self.naive.states, "a replay comes to the same state");
        fresh.naive.cancelled = std::mem::take(&mut self.naive.cancelled);
        (fresh.now, fresh.submitted) = (self.now + 1, self.submitted);
        fresh.journal = std::mem::take(&mut self.journal);
        fresh.core.recover(Timestamp(fresh.now), &mut fresh.out);
        *self = fresh;
    }

    fn pause(&mut self, paused: bool) {
        self.paused = paused;
        let name = PoolName::parse("default").unwrap();
        let update = PoolUpdate { name, size: None, paused: Some(paused), queue_limit: None, etag: None };
        self.core.update_pool(&update).unwrap();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Submit { priority, delay_ms, expires_ms, once } => self.submit(priority, delay_ms, expires_ms, once),
            Step::Begin => self.begin(),
            Step::End { pick, how } => self.end(pick, how),
            Step::Cancel { pick } => self.cancel(pick),
            Step::Advance { ms } => self.now += ms * 1_000,
            Step::Pause { paused } => self.pause(paused),
            Step::Crash => self.crash(),
            Step::Sweep => drop(self.core.sweep(Timestamp(self.now), 2, &mut self.out)),
        }
        self.settle();
    }

    /// Faults have stopped: everything that was accepted ends.
    fn run_dry(&mut self) {
        self.pause(false);
        for _ in 0..10_000 {
            self.settle();
            if self.naive.states.values().all(|state| state.is_terminal()) {
                return;
            }
            self.begin();
            self.end(0, 0);
            self.now += 100_000;
        }
        panic!("some task never ends: {:?}", self.naive.states);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_after_every_step_and_everything_ends(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.run_dry();
    }
}
