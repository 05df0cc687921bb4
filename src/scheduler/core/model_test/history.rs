//! What follows from the events alone, and what every event has to obey.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    BatchKey, Event, FailureReason, FairnessKey, HandlerName, InterruptCause, Lease, Namespace, Output, PoolChange,
    PoolName, PoolSettings, Priority, RequestRetention, Retention, Revision, ScheduleKey, TaskChange, TaskEvent,
    TaskFilter, TaskId, TaskSpec, TaskState, Timestamp,
};

use super::batches::KnownBatch;
use super::cores::{CRASHES_MAX, is_remote_name};
use super::limits::no_task_overtakes_one_that_waits_for_the_same_limit;
use super::schedules::KnownSchedule;
use super::updates::only_a_task_that_has_not_started_is_updated;

pub const RETENTION: Retention = Retention {
    count: 4,
    bytes: 1_500,
    age: Duration::from_secs(100),
    requests: RequestRetention { count: u64::MAX, age: Duration::MAX },
};

/// Why the core has decided on an event.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for one step of a test")]
pub enum Cause {
    /// A call, a report or a timer.
    Input,
    /// The retention, at this time.
    Sweep(Timestamp),
    /// A request to delete what matches and had ended at that revision.
    Request(TaskFilter, Revision),
    /// A restart, and the number of tasks that the server itself was running.
    Restart { running: usize },
}

/// The place of a QUEUED task among those of the same key: interrupted tasks come first, and then those that have waited
/// longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePosition {
    is_new: bool,
    since: Revision,
}

#[derive(Clone, Debug)]
pub struct Known {
    pub submission: Revision,
    pub submitted_at: Timestamp,
    pub spec: Arc<TaskSpec>,
    pub state: TaskState,
    /// The time of the last event.
    pub at: Timestamp,
    /// When the present state began.
    pub since: Timestamp,
    /// Until when it waits, if it is WAITING; see [`Start`].
    pub waits_until: Timestamp,
    pub place: QueuePosition,
    pub has_started: bool,
    /// Revision of the submission or the update that has set the expiry.
    pub expiry_set: Revision,
    /// Number of the present or last attempt.
    pub attempt: u32,
    /// Fence and worker of the last start in a remote pool.
    pub remote_start: Option<(u64, Arc<str>)>,
    /// Workers that were lost since an attempt has failed.
    losses: u32,
    /// Of everything of variable size in its events.
    pub stored_bytes: usize,
    /// A limit holds it.
    pub is_held: bool,
    /// A cancel was accepted while an attempt was live.
    pub is_cancelled: bool,
    /// Revision and time of the end.
    pub ended: Option<(Revision, Timestamp)>,
}

/// The start of the present server. Its clock may be behind the times of earlier events; then the time between such an
/// event and the start is taken for zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    pub revision: Revision,
    pub at: Timestamp,
}

impl Start {
    /// The time at which something is due that counts from `began`, the time of event `revision`.
    fn due(self, at: Timestamp, began: Timestamp, revision: Revision) -> Timestamp {
        let ahead = if revision <= self.revision { began.since(self.at) } else { Duration::ZERO };
        Timestamp(at.0.saturating_sub(u64::try_from(ahead.as_micros()).unwrap()))
    }
}

impl Known {
    pub fn expires_at(&self, start: Start) -> Option<Timestamp> {
        let after = self.spec.extras().expires_after.filter(|_| !self.has_started)?;
        Some(start.due(self.submitted_at.after(after), self.submitted_at, self.expiry_set))
    }

    pub fn waits_until(&self, start: Start) -> Timestamp {
        start.due(self.waits_until, self.since, self.place.since)
    }

    /// What tasks that are started in order have in common.
    pub fn key(&self) -> (&PoolName, &HandlerName, Priority, &Namespace, Option<&FairnessKey>) {
        let options = &self.spec.options;
        (&options.pool, &options.handler, options.priority, &options.namespace, options.fairness_key.as_ref())
    }

    pub fn is_remote(&self) -> bool {
        is_remote_name(&self.spec.options.pool)
    }
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub tasks: BTreeMap<TaskId, Known>,
    /// Submissions whose task was deleted.
    pub deleted: BTreeSet<Revision>,
    /// Submissions of ended tasks, and that of the newest retry of each.
    pub retries: BTreeMap<Revision, Revision>,
    /// Settings of pools that were changed while the server ran.
    pub pools: BTreeMap<PoolName, PoolSettings>,
    pub batches: BTreeMap<BatchKey, KnownBatch>,
    pub schedules: BTreeMap<ScheduleKey, KnownSchedule>,
    pub revision: Revision,
    pub start: Start,
}

impl History {
    /// # Panics
    /// If the event breaks a rule.
    pub fn observe(&mut self, event: &Event, cause: &Cause) {
        self.revisions_are_consecutive(event);
        self.revision = event.revision();
        let event = match event {
            Event::Task(event) => event,
            Event::Pool(event) => {
                let PoolChange::Updated { set, .. } = event.change;
                self.pools.insert(event.pool.clone(), set);
                return;
            }
            Event::Batch(event) => return self.observe_batch(event),
            Event::Schedule(event) => return self.observe_schedule(event),
            Event::Handler(_) => return,
        };
        let submission = self.tasks.get(&event.task).map_or(event.revision, |task| task.submission);
        self.observe_in_batch(event, submission);
        self.observe_in_schedule(event);
        self.observe_dependencies(event);
        no_task_overtakes_one_that_waits_for_the_same_limit(self, event, submission);
        match &event.change {
            TaskChange::Submitted { spec } => self.submitted(event, spec),
            TaskChange::Deleted => {
                self.only_what_the_rule_or_a_request_names_is_deleted(event, cause);
                let task = self.tasks.remove(&event.task).expect("a known task");
                self.deleted.insert(task.submission);
            }
            _ => self.changed(event, cause),
        }
    }

    fn submitted(&mut self, event: &TaskEvent, spec: &Arc<TaskSpec>) {
        assert!(!self.tasks.contains_key(&event.task), "a task is submitted once");
        self.add_retry(spec, event.revision);
        let known = Known {
            submission: event.revision,
            submitted_at: event.at,
            spec: spec.clone(),
            state: event.state,
            at: event.at,
            since: event.at,
            waits_until: event.at.after(spec.extras().delay.unwrap_or_default()),
            place: QueuePosition { is_new: true, since: event.revision },
            has_started: false,
            expiry_set: event.revision,
            attempt: 0,
            remote_start: None,
            losses: 0,
            stored_bytes: spec.payload.len() + spec.attached_bytes(),
            is_held: event.hold.is_some(),
            is_cancelled: false,
            ended: None,
        };
        self.tasks.insert(event.task.clone(), known);
    }

    fn changed(&mut self, event: &TaskEvent, cause: &Cause) {
        let start = self.start;
        let task = self.tasks.get_mut(&event.task).expect("a known task");
        terminal_states_are_final(task, event);
        times_of_a_task_never_run_backwards(task, event);
        a_started_task_never_expires_and_no_task_too_early(task, event, start);
        no_task_is_eligible_too_early(task, event, start);
        a_cancelled_attempt_ends_as_cancelled(task, event);
        a_task_that_may_not_start_twice_is_not_repeated(task, event);
        only_a_task_that_ran_alone_is_blamed_for_a_crash(task, event, cause);
        only_attempts_of_the_server_end_with_it(task, event);
        a_task_fails_when_its_workers_were_lost_too_often_in_a_row(task, event);
        only_a_task_that_has_not_started_is_updated(task, event);
        let was = std::mem::replace(&mut task.state, event.state);
        task.at = event.at;
        task.is_held = event.hold.is_some();
        assert!(!task.is_held || event.state == TaskState::Waiting, "only a WAITING task is held");
        task.stored_bytes += produced_bytes(&event.change);
        task.attempt = event.attempt;
        match &event.change {
            TaskChange::Started { worker, lease, .. } => {
                task.has_started = true;
                task.remote_start = remote_start(worker, lease);
                assert_eq!(task.remote_start.is_some(), task.is_remote(), "who runs {event:?}");
            }
            TaskChange::Interrupted { cause: InterruptCause::WorkerLost } => task.losses += 1,
            TaskChange::Retrying { .. } => task.losses = 0,
            _ => {}
        }
        task.is_cancelled |= matches!(event.change, TaskChange::CancelRequested { .. });
        match event.change {
            TaskChange::Retrying { not_before, .. } => task.waits_until = not_before,
            TaskChange::Updated { delay, expires_after, .. } => task.update(event, delay, expires_after),
            // The delay or the back-off has passed, wherever the clock is set to later.
            TaskChange::Held | TaskChange::Started { .. } => task.waits_until = Timestamp::ZERO,
            _ => {}
        }
        if was != event.state || matches!(event.change, TaskChange::Updated { .. }) {
            let is_new = !matches!(event.change, TaskChange::Interrupted { .. });
            task.since = event.at;
            task.place = QueuePosition { is_new, since: event.revision };
        }
        if event.state.is_terminal() {
            task.ended = Some((event.revision, event.at));
        }
    }

    fn revisions_are_consecutive(&self, event: &Event) {
        assert_eq!(event.revision(), self.revision.next(), "a resumed watch gets each event once, in order");
    }

    fn only_what_the_rule_or_a_request_names_is_deleted(&self, event: &TaskEvent, cause: &Cause) {
        let task = &self.tasks[&event.task];
        let (ended, ended_at) = task.ended.expect("only finished tasks are deleted");
        let namespace = &task.spec.options.namespace;
        match cause {
            Cause::Sweep(now) => {
                let own = self.finished_of(namespace);
                assert!(own.iter().all(|other| other.ended >= task.ended), "the oldest end is deleted first");
                let is_old = self.start.due(ended_at, ended_at, ended).after(RETENTION.age) <= *now;
                assert!(is_old || exceed_the_retention(&own), "{event:?} is within the retention");
            }
            Cause::Request(filter, until) => {
                assert!(filter.matches(&task.spec, task.state, task.submitted_at), "{event:?} does not match");
                assert!(ended <= *until, "{event:?} had not ended when the request began");
            }
            cause => panic!("{event:?} because of {cause:?}"),
        }
    }

    /// When a task ended, of those that did.
    pub fn end_time(&self, task: &Known) -> Option<Timestamp> {
        task.ended.map(|(ended, at)| self.start.due(at, at, ended))
    }

    /// Those that the retention may delete.
    fn finished_of(&self, namespace: &Namespace) -> Vec<&Known> {
        let own = self.tasks.iter().filter(|(_, task)| task.spec.options.namespace == *namespace);
        own.filter(|(id, task)| task.ended.is_some() && !self.is_pinned(id)).map(|(_, task)| task).collect()
    }

    /// # Panics
    /// If anything is kept that exceeds the retention at this time, after a complete sweep.
    pub fn nothing_exceeds_the_retention(&self, now: Timestamp) {
        for namespace in self.finished().keys() {
            let own = self.finished_of(namespace);
            let bytes: Vec<usize> = own.iter().map(|task| task.stored_bytes).collect();
            assert!(!exceed_the_retention(&own), "{namespace} keeps {bytes:?} bytes");
            // Later ends can have earlier times, if the clock was set back. They go after it.
            let (ended, at) = own.iter().filter_map(|task| task.ended).min().expect("a finished task");
            assert!(self.start.due(at, at, ended).after(RETENTION.age) > now, "{namespace} keeps an end of {at}");
        }
    }

    /// The finished tasks of each namespace that the retention may delete, in the order of their ends.
    pub fn finished(&self) -> BTreeMap<&Namespace, Vec<&TaskId>> {
        let deletable = self.tasks.iter().filter(|(id, _)| !self.is_pinned(id));
        let mut finished: Vec<_> = deletable.filter_map(|(id, task)| Some((task.ended?.0, id, task))).collect();
        finished.sort_unstable_by_key(|(ended, ..)| *ended);
        let mut by_namespace: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, id, task) in finished {
            by_namespace.entry(&task.spec.options.namespace).or_default().push(id);
        }
        by_namespace
    }
}

/// Of the result, the output and the failure.
fn produced_bytes(change: &TaskChange) -> usize {
    let of_output = |output: &Option<Box<Output>>| output.as_ref().map_or(0, |output| output.stdout.head.len());
    match change {
        TaskChange::Completed { result, output, .. } => result.data.len() + of_output(output),
        TaskChange::Retrying { failure, output, .. } | TaskChange::Failed { failure, output, .. } => {
            failure.message.len() + of_output(output)
        }
        TaskChange::Cancelled { output, .. } => of_output(output),
        _ => 0,
    }
}

/// Whether there are too many, or too many bytes beside the last.
fn exceed_the_retention(finished: &[&Known]) -> bool {
    let bytes: usize = finished.iter().map(|task| task.stored_bytes).sum();
    finished.len() > RETENTION.count || (finished.len() > 1 && bytes as u64 > RETENTION.bytes)
}

fn terminal_states_are_final(task: &Known, event: &TaskEvent) {
    assert_eq!(event.previous, task.state, "an event contains the previous state");
    assert!(!task.state.is_terminal(), "{:?} is final: {event:?}", task.state);
    if matches!(event.change, TaskChange::Started { .. }) {
        assert_eq!(task.state, TaskState::Queued, "only a QUEUED task starts");
    }
}

fn times_of_a_task_never_run_backwards(task: &Known, event: &TaskEvent) {
    assert!(event.at >= task.at, "{event:?} is before {}", task.at);
}

fn a_started_task_never_expires_and_no_task_too_early(task: &Known, event: &TaskEvent, start: Start) {
    let TaskChange::Failed { failure, .. } = &event.change else { return };
    if failure.reason == FailureReason::Expired {
        let expires_at = task.expires_at(start).expect("a task that can expire and has not started");
        assert!(event.at >= expires_at, "{event:?} is before {expires_at}");
    }
}

fn no_task_is_eligible_too_early(task: &Known, event: &TaskEvent, start: Start) {
    if matches!(event.change, TaskChange::Eligible) {
        let waits_until = task.waits_until(start);
        assert!(event.at >= waits_until, "{event:?} is before {waits_until}");
    }
}

fn a_cancelled_attempt_ends_as_cancelled(task: &Known, event: &TaskEvent) {
    let may_follow = matches!(
        event.change,
        TaskChange::Started { .. } | TaskChange::CancelRequested { .. } | TaskChange::Cancelled { .. }
    );
    assert!(!task.is_cancelled || may_follow, "{event:?} after an accepted cancel");
}

fn a_task_that_may_not_start_twice_is_not_repeated(task: &Known, event: &TaskEvent) {
    let repeats = match event.change {
        TaskChange::Interrupted { cause } => cause != InterruptCause::Unavailable,
        TaskChange::Retrying { .. } => true,
        _ => false,
    };
    assert!(!repeats || !task.spec.options.at_most_once, "{event:?} of a task that may not start twice");
}

fn only_a_task_that_ran_alone_is_blamed_for_a_crash(task: &Known, event: &TaskEvent, cause: &Cause) {
    let TaskChange::Failed { failure, .. } = &event.change else { return };
    if failure.reason == FailureReason::WorkerLost && !task.spec.options.at_most_once && !task.is_remote() {
        let Cause::Restart { running } = cause else { panic!("{event:?} without a restart") };
        assert_eq!(*running, 1, "{event:?} beside other tasks");
    }
}

/// Attempts of remote workers outlive a server; others do not outlive a worker.
fn only_attempts_of_the_server_end_with_it(task: &Known, event: &TaskEvent) {
    let TaskChange::Interrupted { cause } = event.change else { return };
    assert!(cause != InterruptCause::Crash || !task.is_remote(), "{event:?} of an attempt of a remote worker");
    assert!(cause != InterruptCause::WorkerLost || task.is_remote(), "{event:?} of an attempt of the server");
}

fn a_task_fails_when_its_workers_were_lost_too_often_in_a_row(task: &Known, event: &TaskEvent) {
    if !task.is_remote() || task.spec.options.at_most_once {
        return;
    }
    match &event.change {
        TaskChange::Failed { failure, .. } if failure.reason == FailureReason::WorkerLost => {
            assert_eq!(task.losses + 1, CRASHES_MAX, "{event:?}");
        }
        TaskChange::Interrupted { cause: InterruptCause::WorkerLost } => {
            assert!(task.losses + 1 < CRASHES_MAX, "{event:?} after {} losses", task.losses);
        }
        _ => {}
    }
}

fn remote_start(worker: &Arc<str>, lease: &Lease) -> Option<(u64, Arc<str>)> {
    match lease {
        Lease::Remote { fence } => Some((*fence, worker.clone())),
        Lease::Local { .. } => None,
    }
}
