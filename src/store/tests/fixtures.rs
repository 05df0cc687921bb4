//! Random but valid histories of events.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::{
    Artifact, ArtifactName, Artifacts, BatchId, CancelMode, CancelReceipt, CancelRequest, Captured, Dependencies,
    Durability, Event, Failure, FailureReason, FairnessKey, HandlerChange, HandlerEvent, HandlerName, Hold, Holds,
    InterruptCause, Lease, LimitCause, LimitCharge, LimitHold, LimitName, LimitRule, LimitSource, Namespace,
    OnParentFailure, OnUniqueConflict, Output, Parent, Payload, PoolChange, PoolEvent, PoolName, PoolSettings,
    Priority, Registration, RequestKey, ResourceUsage, RetryPolicy, Revision, RunKind, ScheduleId, Scheduled,
    StartRate, StopMethod, SubmissionDigest, TaskChange, TaskEvent, TaskExtras, TaskId, TaskLimit, TaskOptions,
    TaskSpec, TaskState, Timestamp, TraceContext, TraceMode, UniqueKey,
};
use crate::store::traits::Commit;

/// About the time of the events, in nanoseconds.
const FULL_AT: u64 = 1_700_000_000_000_000_000;

/// Makes events that the scheduler could produce, one after another.
#[derive(Default)]
pub(in crate::store) struct History {
    pub(in crate::store) events: Vec<Event>,
    /// The events have later revisions.
    after: Revision,
    /// State and attempt of the existing tasks.
    tasks: HashMap<TaskId, (TaskState, u32)>,
    options: HashMap<u8, Arc<TaskOptions>>,
}

pub(in crate::store) fn id(number: u8) -> TaskId {
    if number.is_multiple_of(2) {
        TaskId::Uuid([number; 16])
    } else {
        TaskId::parse(&format!("named-{number}")).unwrap()
    }
}

pub fn options(kind: u8) -> TaskOptions {
    let label = |key: &str, value: u8| (key.into(), value.to_string().into());
    TaskOptions {
        namespace: Namespace::parse(if kind.is_multiple_of(5) { "other" } else { "default" }).unwrap(),
        handler: HandlerName::parse(&format!("handler-{}", kind % 3)).unwrap(),
        pool: PoolName::parse(&format!("pool-{}", kind % 2)).unwrap(),
        priority: Priority::from_index(usize::from(kind % 4)).unwrap(),
        fairness_key: kind.is_multiple_of(4).then(|| FairnessKey::parse(&format!("key-{}", kind % 3)).unwrap()),
        display_name: format!("kind {kind}").into(),
        labels: [label("a", kind % 2), label("b", kind % 3)].into(),
        batch: (kind % 3 == 1).then(|| BatchId::parse("batch-1").unwrap()),
        schedule: (kind % 4 == 3).then(|| ScheduleId::parse("schedule-1").unwrap()),
        timeout: Duration::from_secs(u64::from(kind) + 1),
        retry: RetryPolicy::default(),
        at_most_once: kind.is_multiple_of(7),
        durability: if kind.is_multiple_of(2) { Durability::Fsync } else { Durability::Memory },
        limits: if kind.is_multiple_of(3) { Box::default() } else { [own_limit(kind), configured_limit(kind)].into() },
        content_type: "application/json".into(),
        submitted_by: "127.0.0.1:4000".into(),
    }
}

fn dependencies(size: u8) -> Dependencies {
    let parent = |number: u8| Parent { id: id(number), place: number.is_multiple_of(3).then_some(number.into()) };
    let rules = [OnParentFailure::Fail, OnParentFailure::Run, OnParentFailure::Cancel];
    Dependencies {
        parents: (0..=size % 4).map(parent).collect(),
        on_parent_failure: rules[usize::from(size) % rules.len()],
    }
}

fn unique_key(size: u8) -> UniqueKey {
    let on_conflict = OnUniqueConflict::from_number(size % 3 + 1).unwrap();
    let reuse_result_within = size.is_multiple_of(4).then(|| Duration::from_millis(size.into()));
    UniqueKey { key: format!("unique-{size}").into(), on_conflict, reuse_result_within }
}

fn own_limit(kind: u8) -> TaskLimit {
    let rate = StartRate { starts: 3, interval: Duration::from_secs(1), burst: u32::from(kind) + 1 };
    let (max_running, rate) = ((kind % 2 == 1).then_some(4), kind.is_multiple_of(2).then_some(rate));
    TaskLimit { source: LimitSource::Own(LimitRule { max_running, rate }), key: format!("key-{kind}").into() }
}

fn configured_limit(kind: u8) -> TaskLimit {
    let key = if kind.is_multiple_of(2) { "".into() } else { "key".into() };
    TaskLimit { source: LimitSource::Configured(LimitName::parse("limit").unwrap()), key }
}

/// What a WAITING task waits for.
fn hold(state: TaskState, size: u8) -> Option<Box<LimitHold>> {
    let cause = match size % 5 {
        0 => LimitCause::Places { taken: size.into(), max: 7 },
        1 => LimitCause::Rate { until: Some(Timestamp(size.into())) },
        2 => LimitCause::Rate { until: None },
        3 => LimitCause::NotConfigured,
        _ => return None,
    };
    (state == TaskState::Waiting).then(|| Box::new(LimitHold { limit: size % 8, cause }))
}

fn trace(size: u8) -> TraceContext {
    let baggage_only = size.is_multiple_of(3);
    TraceContext {
        trace_id: if baggage_only { 0 } else { u128::from(size) << 100 },
        span_id: if baggage_only { 0 } else { u64::from(size) << 50 },
        flags: u8::from(!baggage_only),
        mode: TraceMode::Link,
        at: Timestamp(8),
        state: if baggage_only { "".into() } else { "vendor=1".into() },
        baggage: "user=7".into(),
    }
}

fn request() -> CancelRequest {
    CancelRequest {
        requested_at: Timestamp(7),
        reason: "enough".into(),
        requested_by: "me".into(),
        mode: CancelMode::Force,
        grace: Duration::from_millis(5),
    }
}

fn output(size: u8) -> Option<Box<Output>> {
    let stdout = Captured { head: vec![size; size.into()].into(), tail: "end".into(), total: 3 + u64::from(size) };
    (size > 100).then(|| Box::new(Output { stdout, stderr: Captured::default() }))
}

fn usage(size: u8) -> ResourceUsage {
    let cpu_time = (size > 50).then_some(Duration::from_nanos(1));
    ResourceUsage {
        run_time: Duration::from_micros(u64::from(size)),
        cpu_time,
        result_bytes: 3,
        ..ResourceUsage::default()
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "events hold boxes")]
fn failure(size: u8, attempt: u32) -> Box<Failure> {
    let mut failure = Failure::new(FailureReason::from_number(size % 11 + 1).unwrap(), "it failed");
    failure.attempt = attempt;
    failure.exit_code = Some(-1);
    failure.retry_after = (size > 9).then_some(Duration::from_secs(1));
    Box::new(failure)
}

impl History {
    /// An empty history that continues after a revision.
    pub(super) fn after(after: Revision) -> Self {
        Self { after, ..Self::default() }
    }

    /// Makes a history from a seed of `(task, action, size)`.
    pub(in crate::store) fn of(seed: &[(u8, u8, u8)]) -> Self {
        let mut history = Self::default();
        for (task, action, size) in seed {
            match *task % 25 {
                24 if action.is_multiple_of(2) => history.update_pool(*action / 2, *size),
                24 => history.register_handler(*action / 2, *size),
                task => history.step(task, *action, *size),
            }
        }
        history
    }

    /// Adds an event that is valid for the task's state, if there is one for `action`.
    pub(super) fn step(&mut self, number: u8, action: u8, size: u8) {
        let task = id(number);
        let found = self.tasks.get(&task).copied();
        let (previous, attempt) = found.unwrap_or((TaskState::Queued, 0));
        let (state, attempt, change) = match found {
            None => self.submission(&task, size),
            Some((TaskState::Waiting | TaskState::Queued, 0)) if action % 16 == 11 => self.update(&task, size),
            Some((TaskState::Waiting, attempt)) if action.is_multiple_of(2) => {
                (TaskState::Queued, attempt, TaskChange::Eligible)
            }
            Some((TaskState::Waiting | TaskState::Queued, _)) if action > 230 => {
                (TaskState::Cancelled, attempt, cancelled(size, StopMethod::NeverStarted))
            }
            Some((TaskState::Waiting, _)) if action % 8 == 1 => (TaskState::Waiting, attempt, TaskChange::Held),
            Some((TaskState::Waiting, _)) => return,
            Some((TaskState::Queued, _)) => {
                let (worker, lease) = (format!("p/PoolWorker-{size}").into(), Lease::Local { epoch: size.into() });
                let charges = (0..size % 3).map(|limit| LimitCharge {
                    limit,
                    // Some two hours ago.
                    full_at: FULL_AT + u64::from(size) * 10_000 - u64::from(limit) * 7_200_000_000_000,
                });
                let change = TaskChange::Started { worker, lease, charges: charges.collect() };
                (TaskState::Running, attempt + 1, change)
            }
            Some((TaskState::Running, _)) => running(action, size, attempt),
            Some(_) if action < 128 => (previous, attempt, TaskChange::Deleted),
            Some(_) => return,
        };
        let options = match &change {
            TaskChange::Submitted { spec } => Arc::clone(&spec.options),
            _ => self.options[&number_of(&task)].clone(),
        };
        if matches!(change, TaskChange::Deleted) {
            self.tasks.remove(&task);
        } else {
            self.tasks.insert(task.clone(), (state, attempt));
        }
        let previous = if found.is_none() { state } else { previous };
        let (revision, at) = self.next();
        let hold = hold(state, size);
        let reason = if hold.is_some() { Hold::Limit } else { Hold::Delay };
        let holds = Holds::one_if(state == TaskState::Waiting, reason);
        self.events.push(Event::Task(TaskEvent {
            revision,
            at,
            task,
            options,
            previous,
            state,
            attempt,
            holds,
            hold,
            change,
        }));
    }

    fn update(&mut self, task: &TaskId, size: u8) -> (TaskState, u32, TaskChange) {
        let shared = self.options.get_mut(&number_of(task)).unwrap();
        let TaskOptions { priority, labels, timeout, .. } = options(size);
        let before = (!size.is_multiple_of(5)).then(|| Arc::clone(shared));
        *shared = Arc::new(TaskOptions { priority, labels, timeout, ..TaskOptions::clone(shared) });
        let delay = size.is_multiple_of(2).then(|| Duration::from_secs(size.into()));
        let expires_after = size.is_multiple_of(3).then(|| Duration::from_hours(25));
        let state = if size.is_multiple_of(4) { TaskState::Queued } else { TaskState::Waiting };
        (state, 0, TaskChange::Updated { delay, expires_after, before })
    }

    fn update_pool(&mut self, pool: u8, size: u8) {
        let (revision, at) = self.next();
        let pool = PoolName::parse(&format!("pool-{}", pool % 2)).unwrap();
        let configured = PoolSettings { size: 4, queue_limit: 1_000, paused: false };
        let set = PoolSettings { size: size.into(), queue_limit: 1 << (size % 60), paused: size.is_multiple_of(2) };
        self.events.push(Event::Pool(PoolEvent {
            revision,
            at,
            pool,
            change: PoolChange::Updated { configured, set },
        }));
    }

    fn register_handler(&mut self, handler: u8, size: u8) {
        let (revision, at) = self.next();
        let handler = HandlerName::parse(&format!("handler-{}", handler % 3)).unwrap();
        let pools = (0..=size % 3).map(|number| PoolName::parse(&format!("remote-{number}")).unwrap()).collect();
        let registration = Registration { pools, description: "d".repeat(size.into()).into() };
        let change = HandlerChange::Registered(registration);
        self.events.push(Event::Handler(HandlerEvent { revision, at, handler, change }));
    }

    fn next(&self) -> (Revision, Timestamp) {
        let revision = self.events.last().map_or(self.after, Event::revision).next();
        (revision, Timestamp(1_700_000_000_000_000 + revision.0 * 10))
    }

    fn submission(&mut self, task: &TaskId, size: u8) -> (TaskState, u32, TaskChange) {
        let shared = Arc::new(options(size));
        self.options.insert(number_of(task), Arc::clone(&shared));
        let waits = size.is_multiple_of(4);
        let id = format!("request-{}", size % 8).into();
        let digest = size.is_multiple_of(2).then(|| SubmissionDigest::from_bytes(&[size; 32])).flatten();
        let extras = TaskExtras {
            args: (0..size % 3).map(|arg| arg.to_string().into()).collect(),
            request: (size > 128).then(|| Arc::new(RequestKey { id, digest })),
            delay: waits.then_some(Duration::from_hours(24)),
            expires_after: None,
            trace: (size % 4 == 1).then(|| Arc::new(trace(size))),
            completes: None,
            scheduled: (size % 4 == 3).then(|| Scheduled { time: Timestamp(size.into()), kind: RunKind::CaughtUp }),
            retry_of: (size % 8 == 1).then(|| task.clone()),
            dependencies: size.is_multiple_of(5).then(|| Arc::new(dependencies(size))),
            unique: size.is_multiple_of(6).then(|| Box::new(unique_key(size))),
            updated: false,
        };
        let spec = TaskSpec {
            id: task.clone(),
            options: shared,
            payload: vec![size; usize::from(size) * 16].into(),
            extras: extras.boxed(),
        };
        let state = if waits { TaskState::Waiting } else { TaskState::Queued };
        (state, 0, TaskChange::Submitted { spec: Arc::new(spec) })
    }

    /// The events in commits of one to `events_max` events.
    pub(in crate::store) fn commits(&self, events_max: usize) -> Vec<Arc<Commit>> {
        let mut commits = Vec::new();
        let mut rest = &self.events[..];
        while !rest.is_empty() {
            let length = (commits.len() * 7 % events_max + 1).min(rest.len());
            let (events, later) = rest.split_at(length);
            commits.push(Arc::new(Commit::new(events.to_vec(), commits.len() % 3 != 0)));
            rest = later;
        }
        commits
    }
}

/// Adds the submission of a new task with a payload of this size.
pub(super) fn submission(history: &mut History, payload_bytes: usize) {
    let (revision, at) = history.next();
    let options = Arc::new(options(1));
    let task = TaskId::parse(&format!("large-{revision}")).unwrap();
    let payload = vec![7; payload_bytes].into();
    let spec = Arc::new(TaskSpec { id: task.clone(), options: Arc::clone(&options), payload, extras: None });
    let (state, change) = (TaskState::Queued, TaskChange::Submitted { spec });
    let event = TaskEvent {
        revision,
        at,
        task,
        options,
        previous: state,
        state,
        attempt: 0,
        holds: Holds::NONE,
        hold: None,
        change,
    };
    history.events.push(Event::Task(event));
}

fn number_of(task: &TaskId) -> u8 {
    (0..=255).find(|number| id(*number) == *task).unwrap()
}

/// Of every other size.
fn artifacts(size: u8) -> Option<Arc<Artifacts>> {
    let file = |number: u8| Artifact {
        name: ArtifactName::parse(&format!("ü {number}.csv")).unwrap(),
        content_type: "text/csv".into(),
        bytes: u64::from(number) << 40,
        sha256: [number; 32],
    };
    let artifacts = Artifacts { fence: u64::from(size) << 30, files: (0..=size % 5).map(file).collect() };
    size.is_multiple_of(2).then(|| Arc::new(artifacts))
}

fn cancelled(size: u8, method: StopMethod) -> TaskChange {
    let receipt = Box::new(CancelReceipt { request: request(), stopped_at: Timestamp(9), method });
    let ran = method != StopMethod::NeverStarted;
    TaskChange::Cancelled { receipt, usage: ran.then(|| Box::new(usage(size))), output: output(size).filter(|_| ran) }
}

fn running(action: u8, size: u8, attempt: u32) -> (TaskState, u32, TaskChange) {
    let cost = Box::new(usage(size));
    match action % 8 {
        0 => (TaskState::Running, attempt, TaskChange::CancelRequested { request: Box::new(request()) }),
        1 => (TaskState::Queued, attempt - 1, TaskChange::Interrupted { cause: InterruptCause::Crash }),
        2 => {
            let cause = if size.is_multiple_of(2) { InterruptCause::Drain } else { InterruptCause::Unavailable };
            (TaskState::Queued, attempt - 1, TaskChange::Interrupted { cause })
        }
        3 => (TaskState::Cancelled, attempt, cancelled(size, StopMethod::Token)),
        4 => {
            let failed =
                TaskChange::Failed { failure: failure(size, attempt), usage: Some(cost), output: output(size) };
            (TaskState::Failed, attempt, failed)
        }
        5 => {
            let (failure, not_before) = (failure(size, attempt), Timestamp(11));
            (
                TaskState::Waiting,
                attempt,
                TaskChange::Retrying { failure, not_before, usage: cost, output: output(size) },
            )
        }
        _ => {
            let result = Payload { data: vec![size; usize::from(size) * 8].into(), content_type: "text/x".into() };
            let (output, artifacts) = (output(size), artifacts(size));
            (TaskState::Completed, attempt, TaskChange::Completed { result, usage: cost, output, artifacts })
        }
    }
}
