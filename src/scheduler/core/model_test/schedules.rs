//! Schedules: what follows from their events and those of their tasks, the calls for them, and their invariants.
//!
//! The model knows the times of an interval and the run that was decided last. Each run is decided once, in order, and none is
//! left out, whatever happens to the server and its clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use proptest::prelude::*;

use crate::model::limits::SCHEDULES_MAX;
use crate::model::{
    Namespace, Overlap, RunKind, ScheduleChange, ScheduleEvent, ScheduleId, ScheduleKey, ScheduleRule, ScheduleSpec,
    Scheduled, TaskChange, TaskEvent, TaskId, TaskOptions, TaskSpec, Timestamp,
};
use crate::scheduler::refusal::Refusal;

use super::super::ScheduleUpdate;
use super::super::schedules::ON_TIME;
use super::history::{Cause, History};
use super::steps::NewTask;
use super::world::World;

/// As in the core.
const UNFINISHED_MAX: usize = crate::model::limits::SCHEDULE_UNFINISHED_MAX;

#[derive(Clone, Debug)]
pub struct NewSchedule {
    pub every_s: u64,
    pub overlap: u8,
    pub max_runs: Option<u64>,
    pub catch_up_s: u64,
    pub jitter_ms: u64,
    pub task: NewTask,
}

pub fn new_schedule(task: impl Strategy<Value = NewTask>) -> impl Strategy<Value = NewSchedule> {
    let fields = (1..5_u64, 1..5_u8, proptest::option::weighted(0.3, 1..5_u64), 0..15_u64, 0..2_u64, task);
    fields.prop_map(|(every_s, overlap, max_runs, catch_up_s, jitter, task)| NewSchedule {
        every_s,
        overlap,
        max_runs,
        catch_up_s,
        jitter_ms: 700 * jitter,
        task,
    })
}

pub fn schedule_key(namespace: usize, schedule: u8) -> ScheduleKey {
    let namespace = Namespace::parse(["a", "b", "c"][namespace]).unwrap();
    ScheduleKey { namespace, id: ScheduleId::parse(&format!("s{schedule}")).unwrap() }
}

#[derive(Clone, Debug)]
pub struct KnownSchedule {
    spec: Arc<ScheduleSpec>,
    paused: bool,
    /// The runs up to this time are decided.
    decided: Timestamp,
    waiting: Option<Timestamp>,
    runs: u64,
    triggered: u64,
    skipped: u64,
    missed: u64,
    errors: u64,
    unfinished: BTreeSet<TaskId>,
    /// Tasks for whose end a run waits that replaces them.
    overtaken: BTreeSet<TaskId>,
    at: Timestamp,
    /// By how much the clock was behind when the server started.
    behind: Duration,
}

impl KnownSchedule {
    fn new(spec: &Arc<ScheduleSpec>, at: Timestamp) -> Self {
        Self {
            spec: spec.clone(),
            paused: false,
            decided: at,
            waiting: None,
            runs: 0,
            triggered: 0,
            skipped: 0,
            missed: 0,
            errors: 0,
            unfinished: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            at,
            behind: Duration::ZERO,
        }
    }

    /// The time of the run that has to be decided next.
    fn next(&self) -> Option<Timestamp> {
        let ScheduleRule::Interval { every, anchor } = self.spec.rule else { panic!("an interval") };
        let taken = self.runs + u64::from(self.waiting.is_some());
        if self.paused || self.spec.max_runs.is_some_and(|max| taken >= max) {
            return None;
        }
        let mut time = anchor;
        while time <= self.decided {
            time = time.after(every);
        }
        Some(time)
    }

    fn drop_waiting(&mut self) {
        self.skipped += u64::from(self.waiting.take().is_some());
    }

    /// The next run is decided, and not before it is due.
    fn decide(&mut self, key: &ScheduleKey, time: Timestamp, at: Timestamp) {
        assert_eq!(self.next(), Some(time), "the next run of {key} is decided at {at}");
        assert!(
            at.after(self.behind) >= time.after(self.spec.jitter_of(key, time)),
            "the run of {time} is decided at {at}"
        );
        self.decided = time;
    }

    fn submitted(&mut self, key: &ScheduleKey, event: &TaskEvent, Scheduled { time, kind }: Scheduled) {
        match kind {
            RunKind::Triggered => self.triggered += 1,
            RunKind::Waited => {
                assert_eq!(self.waiting.take(), Some(time), "{event:?} has waited");
                assert!(self.unfinished.is_empty(), "{event:?} waits for {:?}", self.unfinished);
                self.runs += 1;
            }
            RunKind::OnTime | RunKind::CaughtUp => {
                let room = if self.spec.overlap == Overlap::Allow { UNFINISHED_MAX } else { 1 };
                assert!(self.unfinished.len() < room, "{event:?} overlaps with {:?}", self.unfinished);
                self.decide(key, time, event.at);
                self.runs += 1;
            }
        }
        assert_eq!(key.task_id(time).as_ref(), Ok(&event.task));
        self.unfinished.insert(event.task.clone());
    }

    fn changed(&mut self, key: &ScheduleKey, event: &ScheduleEvent) {
        match &event.change {
            ScheduleChange::Created { .. } | ScheduleChange::Deleted => panic!("{event:?} of {self:?}"),
            ScheduleChange::Updated { spec } => {
                let is_finished = !self.paused && self.next().is_none() && self.waiting.is_none();
                if is_finished || self.spec.rule != spec.rule {
                    self.decided = self.decided.max(event.at);
                }
                self.spec = spec.clone();
            }
            ScheduleChange::Paused => {
                self.drop_waiting();
                self.paused = true;
            }
            ScheduleChange::Resumed => (self.paused, self.decided) = (false, self.decided.max(event.at)),
            ScheduleChange::Held { time } => {
                assert!(!self.unfinished.is_empty(), "{event:?} waits for nothing");
                match self.spec.overlap {
                    Overlap::Queue => assert_eq!(self.waiting, None, "only one run waits"),
                    Overlap::CancelOld => self.overtaken = self.unfinished.clone(),
                    overlap => panic!("{event:?} with {overlap:?}"),
                }
                // A run that waits takes the place of the one before.
                self.drop_waiting();
                self.decide(key, *time, event.at);
                self.waiting = Some(*time);
            }
            ScheduleChange::Skipped { time } => {
                self.skipped += 1;
                if self.waiting == Some(*time) {
                    self.waiting = None;
                } else {
                    self.decide(key, *time, event.at);
                }
            }
            ScheduleChange::Missed { until, count, .. } => self.missed(key, *until, *count, event.at),
        }
    }

    fn missed(&mut self, key: &ScheduleKey, until: Timestamp, count: u64, at: Timestamp) {
        let mut all = 0;
        while let Some(time) = self.next().filter(|time| *time <= until) {
            let due = time.after(self.spec.jitter_of(key, time));
            assert!(
                at.after(self.behind) > due.after(self.spec.catch_up_window.max(ON_TIME)),
                "the run of {time} is missed at {at}"
            );
            (self.decided, all) = (time, all + 1);
            if self.spec.max_runs.is_some_and(|max| max <= all) {
                break;
            }
        }
        assert!(all == count || all > count && count >= 5, "{count} of {all} runs are counted");
        (self.decided, self.missed) = (self.decided.max(until), self.missed + count);
    }
}

impl History {
    pub fn observe_schedule(&mut self, event: &ScheduleEvent) {
        let key = &event.schedule;
        match (&event.change, self.schedules.get_mut(key)) {
            (ScheduleChange::Created { spec }, None) => {
                self.schedules.insert(key.clone(), KnownSchedule::new(spec, event.at));
            }
            (ScheduleChange::Deleted, Some(_)) => drop(self.schedules.remove(key)),
            (_, Some(known)) => {
                assert!(event.at >= known.at, "{event:?} is before {}", known.at);
                known.at = event.at;
                known.changed(key, event);
            }
            (change, None) => panic!("{change:?} of a schedule that does not exist"),
        }
    }

    /// An event of a task.
    pub fn observe_in_schedule(&mut self, event: &TaskEvent) {
        let Some(id) = &event.options.schedule else { return };
        let key = ScheduleKey { namespace: event.options.namespace.clone(), id: id.clone() };
        let Some(known) = self.schedules.get_mut(&key) else { return };
        if let TaskChange::Submitted { spec } = &event.change {
            known.submitted(&key, event, spec.extras().scheduled.expect("the run of a task of a schedule"));
        } else if event.state.is_terminal() && known.unfinished.remove(&event.task) {
            known.errors += u64::from(matches!(event.change, TaskChange::Failed { .. }));
            known.overtaken.remove(&event.task);
        } else {
            return;
        }
        known.at = known.at.max(event.at);
    }
}

impl World {
    fn schedule_spec(&self, key: &ScheduleKey, new: &NewSchedule) -> ScheduleSpec {
        let basis = self.spec(&new.task);
        let options = TaskOptions {
            namespace: key.namespace.clone(),
            batch: None,
            schedule: Some(key.id.clone()),
            ..(*basis.options).clone()
        };
        let mut extras = basis.extras().clone();
        (extras.request, extras.unique) = (None, None);
        let task = TaskSpec {
            id: ScheduleSpec::NO_TASK_ID,
            options: Arc::new(options),
            payload: basis.payload,
            extras: extras.boxed(),
        };
        ScheduleSpec {
            rule: ScheduleRule::Interval { every: Duration::from_secs(new.every_s), anchor: Timestamp::ZERO },
            start_at: None,
            end_at: None,
            max_runs: new.max_runs,
            jitter: Duration::from_millis(new.jitter_ms),
            catch_up_window: Duration::from_secs(new.catch_up_s),
            overlap: Overlap::from_number(new.overlap).unwrap(),
            configured: false,
            task: Arc::new(task),
        }
    }

    pub fn create_schedule(&mut self, key: &ScheduleKey, new: &NewSchedule) {
        let spec = self.schedule_spec(key, new);
        let (exists, before) = (self.live.schedules.contains_key(key), self.out.events.len());
        let count = self.live.schedules.keys().filter(|other| other.namespace == key.namespace).count();
        match self.core.create_schedule(self.at(), key.clone(), spec, &mut self.out) {
            Ok((_, duplicate)) => assert_eq!(duplicate, exists),
            Err(Refusal::ScheduleExists(_)) => assert!(exists),
            Err(Refusal::TooManySchedules(_)) => assert_eq!(count, SCHEDULES_MAX),
            Err(Refusal::MemoryFull(_)) => assert_eq!(self.out.events.len(), before),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    /// Changes a schedule; with an etag that may be outdated.
    pub fn update_schedule(&mut self, key: &ScheduleKey, update: ScheduleUpdate, stale: bool) {
        let current = self.core.schedule(key).map(crate::model::Schedule::etag).unwrap_or_default();
        let etag = if stale { "stale".to_owned() } else { current };
        let pauses = matches!(update, ScheduleUpdate::Paused(_));
        let configured = self.live.schedules.get(key).is_some_and(|known| known.spec.configured);
        match self.core.update_schedule(self.at(), key, update, Some(&etag), &mut self.out) {
            Ok(_) => assert!(self.live.schedules.contains_key(key) && !stale && (pauses || !configured)),
            Err(Refusal::ScheduleConfigured(_)) => assert!(configured && !pauses),
            Err(Refusal::ScheduleNotFound(_)) => assert!(!self.live.schedules.contains_key(key)),
            Err(Refusal::EtagMismatch(_)) => assert!(stale),
            Err(Refusal::MemoryFull(_)) => {}
            Err(refusal) => panic!("{refusal}"),
        }
    }

    pub fn replace_schedule(&mut self, key: &ScheduleKey, new: &NewSchedule, stale: bool) {
        let update = ScheduleUpdate::Spec(self.schedule_spec(key, new));
        self.update_schedule(key, update, stale);
    }

    /// A start or a reload.
    pub fn configure_schedules(&mut self, new: &[((usize, u8), NewSchedule)]) {
        let before = self.out.events.len();
        let specs: HashMap<_, _> = new
            .iter()
            .map(|((namespace, schedule), new)| {
                let key = schedule_key(*namespace, *schedule);
                let spec = ScheduleSpec { configured: true, ..self.schedule_spec(&key, new) };
                (key, spec)
            })
            .collect();
        match self.core.configure_schedules(self.at(), specs.clone(), &mut self.out) {
            Ok(()) => {}
            Err(Refusal::MemoryFull(_)) => return assert_eq!(self.out.events.len(), before),
            Err(Refusal::TooManySchedules(refusal)) => {
                let mut keys: Vec<_> = specs.keys().cloned().collect();
                let live = self.live.schedules.keys();
                keys.extend(live.filter(|key| self.core.schedule(key).is_ok_and(|one| !one.spec.configured)).cloned());
                keys.retain(|key| key.namespace == refusal.namespace);
                keys.sort();
                keys.dedup();
                assert!(keys.len() > SCHEDULES_MAX, "only {keys:?}");
                return assert_eq!(self.out.events.len(), before);
            }
            Err(refusal) => panic!("{refusal}"),
        }
        for (key, spec) in &specs {
            assert!(self.core.schedule(key).unwrap().spec.repeats(spec), "{key} differs from the configuration");
        }
        let others = self.live.schedules.keys().filter(|key| !specs.contains_key(*key));
        for schedule in others.filter_map(|key| self.core.schedule(key).ok()) {
            assert!(!schedule.spec.configured, "{} is not part of the configuration", schedule.key);
        }
    }

    pub fn trigger_schedule(&mut self, key: &ScheduleKey, overlap: bool) {
        let before = self.out.events.len();
        let known = self.live.schedules.get(key);
        let may_overlap = known.is_some_and(|known| overlap || known.spec.overlap == Overlap::Allow);
        let unfinished = known.map_or(0, |known| known.unfinished.len());
        match self.core.trigger_schedule(self.at(), key, overlap, &mut self.out) {
            Ok((_, task)) => {
                assert_eq!(self.out.events.last().unwrap().task().unwrap().task, task);
                assert_eq!(self.out.events.len(), before + 1);
            }
            Err(Refusal::ScheduleNotFound(_)) => assert!(known.is_none()),
            Err(Refusal::ScheduleBusy(_)) => assert!(unfinished >= if may_overlap { UNFINISHED_MAX } else { 1 }),
            Err(Refusal::MemoryFull(_) | Refusal::TooManyLimitKeys(_)) => assert_eq!(self.out.events.len(), before),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    /// Decides about all runs that are due, in as many turns as that takes.
    pub fn run_schedules(&mut self) {
        while self.core.next_run_due().is_some_and(|due| due <= self.at()) {
            self.core.advance(self.at(), &mut self.out);
            self.answer_recalls();
            self.observe(&Cause::Input);
        }
    }

    /// A server has started.
    pub fn begin_schedules(&mut self) {
        for known in self.live.schedules.values_mut() {
            known.behind = known.at.since(Timestamp(self.now));
        }
    }

    pub fn delete_schedules(&mut self) {
        self.configure_schedules(&[]);
        self.observe(&Cause::Input);
        let keys: Vec<_> = self.live.schedules.keys().cloned().collect();
        for key in &keys {
            self.update_schedule(key, ScheduleUpdate::Delete, false);
            self.observe(&Cause::Input);
        }
    }
}

/// The core and the events agree, no run is overdue, and overtaken tasks are stopped.
pub fn check(world: &World) {
    assert_eq!(world.core.schedules.iter().count(), world.live.schedules.len(), "schedules");
    let listed = world.core.schedules.newest_before(world.core.revision().next());
    assert!(listed.into_iter().all(|(schedule, state)| state == schedule.state()), "the states of a list");
    for (key, known) in &world.live.schedules {
        let schedule = world.core.schedule(key).unwrap();
        assert_eq!((schedule.paused, schedule.decided, schedule.waiting), (known.paused, known.decided, known.waiting));
        assert_eq!(schedule.last_at, known.at, "time of the last event of {key}");
        assert_eq!(schedule.next_time(), known.next(), "the next run of {key}");
        assert_eq!(
            [schedule.runs, schedule.triggered, schedule.skipped, schedule.missed, schedule.errors],
            [known.runs, known.triggered, known.skipped, known.missed, known.errors],
            "counts of {key}"
        );
        let unfinished: BTreeSet<_> = schedule.unfinished.iter().cloned().collect();
        assert_eq!((unfinished.len(), &unfinished), (schedule.unfinished.len(), &known.unfinished), "tasks of {key}");
        let is_refused = world.core.schedules.refusal(schedule.created).is_some();
        let due = known.next().map(|time| time.after(known.spec.jitter_of(key, time)));
        let waits_to_start = known.waiting.is_some() && known.unfinished.is_empty();
        assert!(
            is_refused || waits_to_start || due.is_none_or(|due| due > world.at().after(known.behind)),
            "a run of {key} is overdue"
        );
        for task in &known.overtaken {
            assert!(world.live.tasks[task].is_cancelled, "{task} is overtaken by the next run of {key}");
        }
    }
}
