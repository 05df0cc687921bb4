//! Tasks become QUEUED only with a place and a token of each of their limits, and wait for them otherwise.
//!
//! A task waits for one limit at a time, without any place or token, so that it keeps nothing from others. When a place or a
//! token is free, the first task that waits for it takes it, or waits for another of its limits. So what follows from the end of
//! a task does not depend on the number of tasks that wait.

use hashbrown::{HashMap, HashSet};

use crate::model::limits::LIMIT_KEYS_MAX;
use crate::model::task_limit::LimitIdRef;
use crate::model::{
    Hold, LimitCause, LimitCharge, LimitHold, LimitId, LimitRule, LimitSource, Namespace, TaskChange, TaskLimit,
    TaskOptions, TaskSpec, TaskState, Timestamp,
};
use crate::scheduler::refusal::{Refusal, TooManyLimitKeys};

use super::decisions::Decisions;
use super::limit_table::{LimitTable, Token, Turn, Usage};
use super::state::Core;
use super::table::TaskEntry;

/// Waiting tasks that are looked at after one event; others follow in the next turn of the loop.
const LOOKED_AT_MAX: usize = if cfg!(test) { 3 } else { 1_024 };

impl Usage {
    fn of(state: TaskState) -> Self {
        match state {
            TaskState::Waiting => Self::Nothing,
            TaskState::Queued => Self::Reserved,
            TaskState::Running => Self::Occupied,
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled => Self::Ended,
        }
    }
}

impl Core {
    /// Refuses new tasks of which a limit would be the first of too many keys. Returns the bytes of new limits.
    ///
    /// # Errors
    /// [`TooManyLimitKeys`].
    pub(super) fn check_limits<'a>(&self, new: impl Iterator<Item = &'a TaskSpec>) -> Result<u64, Refusal> {
        let mut added: HashSet<LimitIdRef<'a>> = HashSet::new();
        let mut keys: HashMap<&Namespace, usize> = HashMap::new();
        for options in new.map(|spec| &*spec.options) {
            let namespace = &options.namespace;
            for limit in &options.limits {
                let id = limit.id(namespace);
                if self.limits.contains(id) || !added.insert(id) || id.namespace.is_none() {
                    continue;
                }
                let keys = keys.entry(namespace).or_insert_with(|| self.limits.keys_of(namespace));
                *keys += 1;
                if *keys > LIMIT_KEYS_MAX {
                    return Err(TooManyLimitKeys { namespace: namespace.clone(), key: limit.to_string().into() }.into());
                }
            }
        }
        Ok(LimitTable::bytes_of(added.len()))
    }

    /// The limit that keeps a task from being QUEUED. `own`: what it has and gives back.
    pub(super) fn limit_hold(&self, options: &TaskOptions, turn: Turn, own: Usage) -> Option<Box<LimitHold>> {
        self.limit_holds(options, turn, own).next().map(Box::new)
    }

    /// All limits that keep a task from being QUEUED.
    pub(super) fn limit_holds(&self, options: &TaskOptions, turn: Turn, own: Usage) -> impl Iterator<Item = LimitHold> {
        let hold = move |(position, limit)| {
            let cause = self.limit_cause(limit, &options.namespace, turn, own)?;
            Some(LimitHold { limit: position, cause })
        };
        (0_u8..).zip(&options.limits).filter_map(hold)
    }

    fn limit_cause(&self, limit: &TaskLimit, namespace: &Namespace, turn: Turn, own: Usage) -> Option<LimitCause> {
        let Some(rule) = self.rule_of(limit) else { return Some(LimitCause::NotConfigured) };
        let found = self.limits.find(limit.id(namespace))?;
        let is_behind = found.waiting.first().is_some_and(|first| *first < turn);
        let own = usize::from(own == Usage::Occupied);
        let taken = u32::try_from(found.taken - own).unwrap_or(u32::MAX);
        let places = rule.max_running.map(|max| (taken >= max, LimitCause::Places { taken, max }));
        if let Some((true, cause)) = places {
            return Some(cause);
        }
        match rule.rate.map_or(Token::Free, |rate| found.token(rate, self.now)) {
            Token::At(until) => Some(LimitCause::Rate { until: Some(until) }),
            Token::AfterStart => Some(LimitCause::Rate { until: None }),
            Token::Free if is_behind => Some(places.map_or(LimitCause::Rate { until: None }, |(_, cause)| cause)),
            Token::Free => None,
        }
    }

    /// `None` if the limit is not configured any more.
    pub(super) fn rule_of<'a>(&'a self, limit: &'a TaskLimit) -> Option<&'a LimitRule> {
        match &limit.source {
            LimitSource::Own(rule) => Some(rule),
            LimitSource::Configured(name) => self.options.catalog.limits.get(name),
        }
    }

    /// The state and the hold of a new task that has no other hold.
    pub(super) fn state_within_limits(&self, spec: &TaskSpec) -> (TaskState, Option<Box<LimitHold>>) {
        let turn = Turn::new(spec.options.priority, self.revision.next(), u32::MAX);
        match self.limit_hold(&spec.options, turn, Usage::Nothing) {
            None => (TaskState::Queued, None),
            hold => (TaskState::Waiting, hold),
        }
    }

    /// What becomes of a task that an event would let be QUEUED.
    pub(super) fn within_limits(
        &self,
        index: u32,
        state: TaskState,
        change: TaskChange,
    ) -> (TaskState, TaskChange, Option<Box<LimitHold>>) {
        let queues = |task: &&TaskEntry| state == TaskState::Queued && task.state != TaskState::Queued;
        let task = self.tasks.get(index).filter(queues);
        let hold = task.and_then(|task| self.limit_hold(&task.spec.options, turn(index, task), Usage::of(task.state)));
        match (hold, change) {
            (None, change) => (state, change, None),
            (hold, TaskChange::Eligible) => (TaskState::Waiting, TaskChange::Held, hold),
            (hold, change) => (TaskState::Waiting, change, hold),
        }
    }

    /// What the start of a task uses of its limits.
    pub(super) fn charges(&self, index: u32, at: Timestamp) -> Box<[LimitCharge]> {
        let Some(task) = self.tasks.get(index) else { return Box::default() };
        let options = &task.spec.options;
        let charge = |(position, limit): (u8, &TaskLimit)| {
            let rate = self.rule_of(limit)?.rate?;
            let full_at = self.limits.find(limit.id(&options.namespace))?.full_after_start(rate, at);
            Some(LimitCharge { limit: position, full_at })
        };
        (0_u8..).zip(&options.limits).filter_map(charge).collect()
    }

    /// Adds the token bucket of a limit from the store's projection. Call it before the tasks are restored.
    pub fn restore_bucket(&mut self, limit: &LimitId, full_at: u64) {
        self.limits.restore(limit.by_ref(), full_at);
    }

    /// Adds an unfinished task to its limits.
    pub(super) fn add_to_limits(&mut self, index: u32, hold: Option<&LimitHold>) {
        let Self { tasks, limits, .. } = self;
        let Some(task) = tasks.get(index) else { return };
        let options = &task.spec.options;
        for limit in &options.limits {
            limits.add(limit.id(&options.namespace), index, Usage::of(task.state));
        }
        park(limits, index, task, hold);
    }

    /// Takes what a task has of its limits, before its priority changes, and returns what it had.
    pub(super) fn leave_limits(&mut self, index: u32) {
        let Self { tasks, limits, now, .. } = self;
        let Some(task) = tasks.get(index) else { return };
        for limit in &task.spec.options.limits {
            let id = limit.id(&task.spec.options.namespace);
            limits.change(id, turn(index, task), Usage::of(task.state), Usage::Nothing, *now);
        }
    }

    /// Gives a task what it needs of its limits, after [`Core::leave_limits`].
    pub(super) fn enter_limits(&mut self, index: u32, hold: Option<&LimitHold>) {
        let Self { tasks, limits, now, .. } = self;
        let Some(task) = tasks.get(index) else { return };
        for limit in &task.spec.options.limits {
            let id = limit.id(&task.spec.options.namespace);
            limits.change(id, turn(index, task), Usage::Nothing, Usage::of(task.state), *now);
        }
        park(limits, index, task, hold);
    }

    /// Changes what a task has of its limits, after its state has changed.
    pub(super) fn move_in_limits(
        &mut self,
        index: u32,
        previous: TaskState,
        hold: Option<&LimitHold>,
        change: &TaskChange,
    ) {
        // Zero during a replay, so that buckets are kept until the time is known.
        let Self { tasks, limits, now, .. } = self;
        let Some(task) = tasks.get(index).filter(|task| !task.spec.options.limits.is_empty()) else { return };
        let options = &task.spec.options;
        if let TaskChange::Started { charges, .. } = change {
            for LimitCharge { limit, full_at } in charges {
                if let Some(limit) = options.limits.get(usize::from(*limit)) {
                    limits.charge(limit.id(&options.namespace), *full_at);
                }
            }
        }
        let (before, after) = (Usage::of(previous), Usage::of(task.state));
        for limit in &options.limits {
            limits.change(limit.id(&options.namespace), turn(index, task), before, after, *now);
        }
        park(limits, index, task, hold);
    }

    /// Lets waiting tasks be QUEUED that can be now, within a bound.
    pub(super) fn admit_waiting(&mut self, out: &mut Decisions) {
        for _ in 0..LOOKED_AT_MAX {
            let Some(slot) = self.limits.first_changed() else { return };
            self.look_at_first(slot, out);
        }
    }

    /// Looks at the first task that waits for a limit.
    fn look_at_first(&mut self, slot: u32, out: &mut Decisions) {
        let first = self.limits.first_waiting(slot).and_then(|turn| Some((turn, self.tasks.get(turn.index)?)));
        let Some((turn, task)) = first else { return self.limits.settle(slot, None) };
        let options = task.spec.options.clone();
        let Some(hold) = self.limit_hold(&options, turn, Usage::Nothing) else {
            return self.emit_one(self.now, turn.index, TaskState::Queued, None, TaskChange::Eligible, out);
        };
        let id = options.limits[usize::from(hold.limit)].id(&options.namespace);
        if !self.limits.is_at(id, slot) {
            return self.limits.move_turn(slot, id, turn);
        }
        let wake = if let LimitCause::Rate { until } = hold.cause { until } else { None };
        self.limits.settle(slot, wake);
    }

    /// Compares the counts of the limits with the tasks.
    #[cfg(test)]
    pub(super) fn check_limit_counts(&self) {
        self.limits.check();
        for (id, counts, full_at, waiting) in self.limits.iter() {
            let mut expected = [0; 3];
            let own = self.tasks.iter().filter(|(_, task)| {
                let namespace = &task.spec.options.namespace;
                task.spec.options.limits.iter().any(|limit| limit.id(namespace) == id.by_ref())
            });
            for (_, task) in own {
                let usage = Usage::of(task.state);
                expected[0] += usize::from(usage != Usage::Ended);
                expected[1] += usize::from(matches!(usage, Usage::Reserved | Usage::Occupied));
                expected[2] += usize::from(usage == Usage::Reserved);
            }
            assert_eq!(counts, expected, "tasks, places and reserved tokens of {id:?}");
            assert!(counts[0] > 0 || full_at > 0, "{id:?} has no task and a full bucket");
            for turn in waiting {
                let is_held = self.tasks.get(turn.index).is_some_and(|task| task.holds.contains(Hold::Limit));
                assert!(is_held, "{turn:?} waits for {id:?}");
            }
        }
        let waiting: usize = self.limits.iter().map(|(.., waiting)| waiting.len()).sum();
        let held = self.tasks.iter().filter(|(_, task)| task.holds.contains(Hold::Limit)).count();
        assert_eq!(waiting, held, "every held task waits for one limit");
    }
}

pub(super) fn turn(index: u32, task: &TaskEntry) -> Turn {
    Turn::new(task.spec.options.priority, task.submission, index)
}

/// Lets a task wait for the limit of its hold.
fn park(limits: &mut LimitTable, index: u32, task: &TaskEntry, hold: Option<&LimitHold>) {
    let options = &task.spec.options;
    let limit = hold.and_then(|hold| options.limits.get(usize::from(hold.limit)));
    if let Some(limit) = limit.filter(|_| task.holds.contains(Hold::Limit)) {
        limits.park(limit.id(&options.namespace), turn(index, task));
    }
}
