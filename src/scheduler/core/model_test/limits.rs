//! Limits of tasks: who may be QUEUED and RUNNING at once, and how many start in a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::limits::LIMIT_KEYS_MAX;
use crate::model::{
    Catalog, Event, LimitId, LimitName, LimitRule, LimitSource, Revision, StartRate, TaskChange, TaskEvent, TaskId,
    TaskLimit, TaskState,
};

use super::super::Core;
use super::super::limit_table::{LimitTable, Token};
use super::cores::catalog;
use super::history::{History, Known};
use super::world::World;

/// Places of the configured limit at first.
pub const LIMIT_MAX: u32 = 2;
/// Numbers of limits that tasks name.
pub const LIMITS: u8 = 10;
const RATE: StartRate = StartRate { starts: 2, interval: Duration::from_secs(1), burst: 2 };

pub fn limit_name() -> LimitName {
    LimitName::parse("api").unwrap()
}

fn own(key: &str, max_running: Option<u32>, rate: Option<StartRate>) -> TaskLimit {
    TaskLimit { source: LimitSource::Own(LimitRule { max_running, rate }), key: key.into() }
}

fn limit(number: u8) -> TaskLimit {
    let configured = |key: &str| TaskLimit { source: LimitSource::Configured(limit_name()), key: key.into() };
    match number {
        0 | 1 => own("few", Some(1), None),
        // The same places, but more of them.
        2 => own("few", Some(2), None),
        3 => own("slow", None, Some(RATE)),
        4 => own("both", Some(1), Some(RATE)),
        5 | 6 => configured(""),
        7 => configured("k"),
        other => own(&format!("k{other}"), Some(1), None),
    }
}

/// Each limit once.
pub fn task_limits(numbers: &[u8]) -> Box<[TaskLimit]> {
    let mut found: Vec<TaskLimit> = Vec::new();
    for limit in numbers.iter().map(|number| limit(*number)) {
        if found.iter().all(|other| other.key != limit.key || is_configured(other) != is_configured(&limit)) {
            found.push(limit);
        }
    }
    found.into()
}

fn is_configured(limit: &TaskLimit) -> bool {
    matches!(limit.source, LimitSource::Configured(_))
}

/// What a projection has of the buckets after these events.
pub fn buckets(events: &[Event]) -> BTreeMap<LimitId, u64> {
    let mut buckets = BTreeMap::new();
    for event in events.iter().filter_map(Event::task) {
        let TaskChange::Started { charges, .. } = &event.change else { continue };
        for charge in charges {
            let limit = &event.options.limits[usize::from(charge.limit)];
            buckets.insert(limit.id(&event.options.namespace).to_id(), charge.full_at);
        }
    }
    buckets
}

/// A task that has got a place is the first of those that wait only for the same limit.
pub fn no_task_overtakes_one_that_waits_for_the_same_limit(history: &History, event: &TaskEvent, submission: Revision) {
    let gets_place = event.state == TaskState::Queued
        && (event.previous != TaskState::Queued || matches!(event.change, TaskChange::Submitted { .. }));
    let waiting = history.tasks.iter().filter(|(_, task)| task.state == TaskState::Waiting && task.is_held);
    for (id, other) in waiting.filter(|(id, _)| gets_place && **id != event.task) {
        let its = &other.spec.options;
        let [limit] = &*its.limits else { continue };
        let shares = |own: &TaskLimit| own.id(&event.options.namespace) == limit.id(&its.namespace);
        let is_first = (event.options.priority, other.submission) > (its.priority, submission);
        assert!(is_first || !event.options.limits.iter().any(shares), "{id} waits longer than {}", event.task);
    }
}

/// The limits as the events make them.
pub struct Limits {
    /// Places of the configured limit; `None`: it is not configured.
    max: Option<u32>,
    /// Tasks that had a place of it when the number was reduced, and have one still.
    excess: BTreeMap<LimitId, usize>,
    /// Starts that are recorded, by bucket, on a clock that is never set back.
    starts: BTreeMap<LimitId, Vec<(Revision, u64)>>,
    /// Limits without tasks that a restart has found in the store.
    restored: BTreeSet<LimitId>,
    /// Microseconds by which the clock was set back.
    set_back: u64,
    /// Time of the present step, on that clock.
    now: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max: Some(LIMIT_MAX),
            excess: BTreeMap::new(),
            starts: BTreeMap::new(),
            restored: BTreeSet::new(),
            set_back: 0,
            now: 0,
        }
    }
}

impl Limits {
    pub fn catalog(&self, core: &Core) -> Arc<Catalog> {
        catalog(self.max, core.options.catalog.pools.clone())
    }

    /// Events after `durable` are lost. The clock may have been set back.
    pub fn restart(&mut self, durable: Revision, clock_ms: i64) {
        for starts in self.starts.values_mut() {
            starts.retain(|(revision, _)| *revision <= durable);
        }
        if clock_ms < 0 {
            self.set_back += clock_ms.unsigned_abs() * 1_000;
        }
    }

    /// Takes note of buckets that are not full again because the clock was set back. They need memory although no submission
    /// has asked for it.
    pub fn note_restored(&mut self, core: &Core) {
        let idle = core.limits.iter().filter(|(_, [tasks, ..], ..)| *tasks == 0);
        self.restored.extend(idle.map(|(id, ..)| id.clone()));
    }

    pub fn restored_bytes(&self, core: &Core) -> u64 {
        LimitTable::bytes_of(self.restored.iter().filter(|id| core.limits.contains(id.by_ref())).count())
    }

    pub fn tick(&mut self, now: u64) {
        self.now = now + self.set_back;
    }

    pub fn observe(&mut self, event: &Event) {
        let Event::Task(TaskEvent { revision, options, change: TaskChange::Started { charges, .. }, .. }) = event
        else {
            return;
        };
        let with_rate =
            options.limits.iter().filter(|limit| matches!(rule(limit, None), Some(LimitRule { rate: Some(_), .. })));
        assert_eq!(with_rate.count(), charges.len(), "a start uses a token of each limit with a rate");
        for charge in charges {
            let limit = &options.limits[usize::from(charge.limit)];
            let starts = self.starts.entry(limit.id(&options.namespace).to_id()).or_default();
            starts.push((*revision, self.now));
            no_more_start_than_the_rate_allows(starts);
        }
    }
}

fn no_more_start_than_the_rate_allows(starts: &[(Revision, u64)]) {
    let Some((_, last)) = starts.last() else { return };
    for (count, (_, first)) in (1_u64..).zip(starts.iter().rev()) {
        let micros = last - first;
        let allowed = u64::from(RATE.burst) + micros * u64::from(RATE.starts) / 1_000_000;
        assert!(count <= allowed, "{count} starts in {micros} µs");
    }
}

/// `max`: of the configured limit.
fn rule(limit: &TaskLimit, max: Option<u32>) -> Option<LimitRule> {
    match &limit.source {
        LimitSource::Own(rule) => Some(*rule),
        LimitSource::Configured(_) => max.map(|max| LimitRule { max_running: Some(max), rate: None }),
    }
}

impl World {
    /// Reloads the configuration with another number of places, or without the limit.
    pub fn set_limit(&mut self, max: Option<u32>) {
        let fewer = max.is_some() && max < self.limits.max.or(Some(u32::MAX));
        self.limits.max = max;
        if fewer {
            self.tasks_keep_their_places();
        }
        let catalog = self.limits.catalog(&self.core);
        let pools = self.core.options.pools.clone();
        self.core.reconfigure(pools, catalog);
    }

    /// Takes note of the tasks that have a place of the configured limit, perhaps more than it has now: when it gets fewer,
    /// and when a restart brings back tasks whose end was not durable.
    pub fn tasks_keep_their_places(&mut self) {
        let named = held_places(self).into_iter().filter(|(id, _)| id.by_ref().name.is_some());
        self.limits.excess.extend(named);
    }

    /// Takes note of the ends of tasks that had a place of the limit when it had more.
    pub fn shrink_excess(&mut self) {
        let held = held_places(self);
        for (id, excess) in &mut self.limits.excess {
            *excess = (*excess).min(held.get(id).copied().unwrap_or(0));
        }
    }
}

/// Tasks that have a place: QUEUED and RUNNING ones.
fn taken(world: &World) -> BTreeMap<LimitId, usize> {
    let mut taken = BTreeMap::new();
    for task in world.live.tasks.values() {
        if matches!(task.state, TaskState::Queued | TaskState::Running) {
            for id in ids(task) {
                *taken.entry(id).or_default() += 1;
            }
        }
    }
    taken
}

/// Unfinished tasks with an attempt, also one whose end is not durable.
fn attempted(world: &World) -> BTreeMap<LimitId, BTreeSet<&TaskId>> {
    let mut attempted: BTreeMap<LimitId, BTreeSet<&TaskId>> = BTreeMap::new();
    let is_unfinished = |id: &TaskId| world.live.tasks.get(id).is_some_and(|task| !task.state.is_terminal());
    for (_, spec) in world.given.iter().filter(|(_, spec)| is_unfinished(&spec.id)) {
        for limit in &spec.options.limits {
            attempted.entry(limit.id(&spec.options.namespace).to_id()).or_default().insert(&spec.id);
        }
    }
    attempted
}

/// The places that tasks have, or still use until the end of an attempt is durable.
fn held_places(world: &World) -> BTreeMap<LimitId, usize> {
    let mut held = taken(world);
    for (id, tasks) in attempted(world) {
        let places = held.entry(id).or_default();
        *places = tasks.len().max(*places);
    }
    held
}

fn ids(task: &Known) -> impl Iterator<Item = LimitId> {
    task.spec.options.limits.iter().map(|limit| limit.id(&task.spec.options.namespace).to_id())
}

pub fn check(world: &World) {
    no_more_tasks_have_a_place_than_there_are(world);
    no_more_attempts_run_than_there_are_places(world);
    if !world.core.limits.has_changed() {
        no_task_waits_for_a_limit_that_has_a_place(world);
    }
    limits_without_tasks_need_no_memory(world);
}

/// The most places that any task with a limit allows.
fn most(world: &World, id: &LimitId) -> usize {
    let all = world.live.tasks.values().filter(|task| !task.state.is_terminal());
    let rules = all.flat_map(|task| {
        let own = task.spec.options.limits.iter().filter(|limit| limit.id(&task.spec.options.namespace) == id.by_ref());
        own.filter_map(|limit| rule(limit, world.limits.max))
    });
    let most = rules.map(|rule| rule.max_running.map_or(usize::MAX, |max| max as usize)).max();
    let excess = world.limits.excess.get(id).copied().unwrap_or(0);
    // One that is not configured any more admits nothing.
    most.unwrap_or(if id.by_ref().name.is_some() { usize::MAX } else { 0 }).max(excess)
}

fn no_more_tasks_have_a_place_than_there_are(world: &World) {
    for (id, taken) in taken(world) {
        assert!(taken <= most(world, &id), "{taken} tasks have a place of {id:?}");
    }
}

/// Also attempts whose end is not durable.
fn no_more_attempts_run_than_there_are_places(world: &World) {
    for (id, attempts) in attempted(world) {
        assert!(attempts.len() <= most(world, &id), "{attempts:?} have an attempt with {id:?}");
    }
}

fn no_task_waits_for_a_limit_that_has_a_place(world: &World) {
    let taken = taken(world);
    let held = || world.live.tasks.iter().filter(|(_, task)| task.state == TaskState::Waiting && task.is_held);
    for (id, task) in held() {
        let options = &task.spec.options;
        let turn = |task: &Known| (std::cmp::Reverse(task.spec.options.priority), task.submission);
        let lacks = |limit: &TaskLimit| {
            let key = limit.id(&options.namespace);
            let Some(rule) = rule(limit, world.limits.max) else { return true };
            let is_full =
                rule.max_running.is_some_and(|max| taken.get(&key.to_id()).is_some_and(|taken| *taken >= max as usize));
            let found = world.core.limits.find(key).expect("the limit of an unfinished task");
            let lacks_token = rule.rate.is_some_and(|rate| found.token(rate, world.at()) != Token::Free);
            let is_behind = held().any(|(_, other)| {
                turn(other) < turn(task)
                    && other.spec.options.limits.iter().any(|its| its.id(&other.spec.options.namespace) == key)
            });
            is_full || lacks_token || is_behind
        };
        assert!(options.limits.iter().any(lacks), "{id} waits although all its limits have a place");
    }
}

/// An unfinished task, or a bucket that is not full.
fn limits_without_tasks_need_no_memory(world: &World) {
    let used: BTreeSet<LimitId> =
        world.live.tasks.values().filter(|task| !task.state.is_terminal()).flat_map(ids).collect();
    for (id, counts, full_at, _) in world.core.limits.iter() {
        assert!(used.contains(id) || full_at > world.core.now.0 * 1_000, "{id:?} is kept with {counts:?}");
    }
    assert!(used.iter().all(|id| world.core.limits.contains(id.by_ref())));
    let mut keys: BTreeMap<_, usize> = BTreeMap::new();
    // A bucket can be there again that was full before the clock was set back.
    for (id, ..) in world.core.limits.iter().filter(|(_, counts, ..)| counts[0] > 0) {
        *keys.entry(id.by_ref().namespace).or_default() += usize::from(id.by_ref().namespace.is_some());
    }
    // Completions of batches are never refused.
    let completions = world.live.tasks.values().filter(|task| task.spec.extras().completes.is_some()).count();
    assert!(keys.values().all(|keys| *keys <= LIMIT_KEYS_MAX + 3 * completions), "{keys:?} keys in use");
}
