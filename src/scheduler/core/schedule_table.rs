//! The schedules in memory, and when each needs a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hashbrown::HashMap;

use crate::model::schedule::ScheduleKeyRef;
use crate::model::schedule_state::{fold_schedule, fold_task_into_schedule, schedule_of};
use crate::model::{
    Namespace, Revision, Schedule, ScheduleEvent, ScheduleKey, ScheduleRule, ScheduleState, TaskChange, TaskEvent,
    Timestamp,
};

#[derive(Debug, Default)]
pub(super) struct ScheduleTable {
    by_creation: BTreeMap<Revision, Entry>,
    by_key: HashMap<ScheduleKey, Revision>,
    by_namespace: HashMap<Namespace, usize>,
    /// When each schedule that has a next run needs a decision. No entry is stale, so that it costs the same whatever the
    /// number of schedules.
    wakes: BTreeSet<(Timestamp, Revision)>,
    /// Of all schedules.
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    /// The time of the next run that is not decided.
    next: Option<Timestamp>,
    /// Its entry in [`ScheduleTable::wakes`].
    wake: Option<Timestamp>,
    /// The pool or the memory has refused the next task: when to try again, and why.
    refused: Option<(Timestamp, Box<str>)>,
    /// By how much the clock was behind the last event when the server started, if the rule is an interval: the time between two
    /// runs is not longer because the clock was set back.
    behind: Duration,
}

impl Entry {
    fn new(schedule: Schedule) -> Self {
        Self { next: schedule.next_time(), schedule, wake: None, refused: None, behind: Duration::ZERO }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let can_start = self.schedule.waiting.is_some() && self.schedule.unfinished.is_empty();
        let ahead = u64::try_from(self.behind.as_micros()).unwrap_or(u64::MAX);
        let due = |time| Timestamp(self.schedule.due(time).0.saturating_sub(ahead));
        let due = if can_start { Some(Timestamp::ZERO) } else { self.next.map(due) };
        let retry = self.refused.as_ref().map_or(Timestamp::ZERO, |(at, _)| *at);
        due.map(|due| due.max(retry))
    }
}

impl ScheduleTable {
    pub fn get(&self, created: Revision) -> Option<&Schedule> {
        self.by_creation.get(&created).map(|entry| &entry.schedule)
    }

    pub fn find(&self, key: ScheduleKeyRef<'_>) -> Option<&Schedule> {
        self.get(self.creation(key)?)
    }

    fn creation(&self, key: ScheduleKeyRef<'_>) -> Option<Revision> {
        self.by_key.get(&key).copied()
    }

    /// The time of the next run that is not decided.
    pub fn next_time(&self, created: Revision) -> Option<Timestamp> {
        self.by_creation.get(&created)?.next
    }

    /// The time by which the runs of a schedule are due.
    pub fn clock(&self, created: Revision, now: Timestamp) -> Timestamp {
        self.by_creation.get(&created).map_or(now, |entry| now.after(entry.behind))
    }

    /// A server has started. Call it after all events were replayed and before further ones, which can have times of the clock
    /// before it was set back.
    pub fn begin(&mut self, now: Timestamp) {
        let created: Vec<_> = self.by_creation.keys().copied().collect();
        for created in created {
            if let Some(entry) = self.by_creation.get_mut(&created)
                && matches!(entry.schedule.spec.rule, ScheduleRule::Interval { .. })
            {
                entry.behind = entry.schedule.last_at.since(now);
            }
            self.update_wake(created);
        }
    }

    /// Why the next task was refused.
    pub fn refusal(&self, created: Revision) -> Option<&str> {
        self.by_creation.get(&created)?.refused.as_ref().map(|(_, why)| &**why)
    }

    /// In the order of creation.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Schedule> {
        self.by_creation.values().map(|entry| &entry.schedule)
    }

    /// Schedules that were created before `before`, with their states, the newest first.
    pub fn newest_before(&self, before: Revision) -> impl Iterator<Item = (&Schedule, ScheduleState)> {
        let entries = self.by_creation.range(..before).rev();
        entries.map(|(_, Entry { schedule, next, .. })| (schedule, schedule.state_with(*next)))
    }

    pub fn count_in(&self, namespace: &Namespace) -> usize {
        self.by_namespace.get(namespace).copied().unwrap_or_default()
    }

    /// About the memory of all schedules.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first schedule needs a decision.
    pub fn first_wake(&self) -> Option<(Timestamp, Revision)> {
        self.wakes.first().copied()
    }

    /// Adds a schedule from the store's projection.
    pub fn restore(&mut self, schedule: Schedule) {
        self.insert(Entry::new(schedule));
    }

    pub fn apply(&mut self, event: &ScheduleEvent) {
        let existing = self.creation(event.schedule.by_ref()).and_then(|created| self.remove(created));
        let behind = existing.as_ref().map_or(Duration::ZERO, |entry| entry.behind);
        let mut schedule = existing.map(|entry| entry.schedule);
        fold_schedule(&mut schedule, event);
        if let Some(schedule) = schedule {
            self.insert(Entry { behind, ..Entry::new(schedule) });
        }
    }

    /// Applies an event of a task. The only place where a schedule learns of its tasks while the server runs.
    pub fn apply_task(&mut self, event: &TaskEvent) {
        let Some(created) = schedule_of(event).and_then(|key| self.creation(key)) else { return };
        let Some(entry) = self.by_creation.get_mut(&created) else { return };
        fold_task_into_schedule(&mut entry.schedule, event);
        if matches!(event.change, TaskChange::Submitted { .. }) {
            entry.next = entry.schedule.next_time();
            entry.refused = None;
        }
        self.update_wake(created);
    }

    /// The next task was refused: tries again at this time.
    pub fn postpone(&mut self, created: Revision, until: Timestamp, why: String) {
        if let Some(entry) = self.by_creation.get_mut(&created) {
            entry.refused = Some((until, why.into()));
            self.update_wake(created);
        }
    }

    fn update_wake(&mut self, created: Revision) {
        let Some(entry) = self.by_creation.get_mut(&created) else { return };
        let wake = entry.wake_at();
        if wake == entry.wake {
            return;
        }
        if let Some(before) = std::mem::replace(&mut entry.wake, wake) {
            self.wakes.remove(&(before, created));
        }
        self.wakes.extend(wake.map(|wake| (wake, created)));
    }

    fn insert(&mut self, entry: Entry) {
        let schedule = &entry.schedule;
        let created = schedule.created;
        self.bytes += schedule.bytes() as u64;
        self.by_key.insert(schedule.key.clone(), created);
        *self.by_namespace.entry_ref(&schedule.key.namespace).or_default() += 1;
        self.by_creation.insert(created, entry);
        self.update_wake(created);
    }

    fn remove(&mut self, created: Revision) -> Option<Entry> {
        let entry = self.by_creation.remove(&created)?;
        let schedule = &entry.schedule;
        self.bytes -= schedule.bytes() as u64;
        if let Some(wake) = entry.wake {
            self.wakes.remove(&(wake, created));
        }
        self.by_key.remove(&schedule.key);
        if let Some(count) = self.by_namespace.get_mut(&schedule.key.namespace) {
            *count -= 1;
            if *count == 0 {
                self.by_namespace.remove(&schedule.key.namespace);
            }
        }
        Some(entry)
    }

    #[cfg(test)]
    pub fn check(&self, tasks: &super::table::TaskTable) {
        for (created, entry) in &self.by_creation {
            let schedule = &entry.schedule;
            assert_eq!(schedule.created, *created);
            assert_eq!(entry.next, schedule.next_time(), "the next run of {}", schedule.key);
            assert_eq!(entry.wake, entry.wake_at(), "when {} needs a decision", schedule.key);
            for task in &schedule.unfinished {
                let found = tasks.find(task).and_then(|index| tasks.get(index));
                assert!(found.is_some_and(|task| !task.state.is_terminal()), "{task} is unfinished");
            }
        }
        let wakes: BTreeSet<_> =
            self.by_creation.iter().filter_map(|(created, entry)| Some((entry.wake?, *created))).collect();
        assert_eq!(self.wakes, wakes);
        assert_eq!(self.bytes, self.iter().map(|schedule| schedule.bytes() as u64).sum::<u64>(), "bytes of schedules");
        assert_eq!(self.by_key.len(), self.by_creation.len(), "schedules by their keys");
        assert_eq!(self.by_namespace.values().sum::<usize>(), self.by_creation.len(), "schedules by their namespaces");
    }
}
