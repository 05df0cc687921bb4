//! The limits that unfinished tasks name: the places and tokens of each, and the tasks that wait for them.
//!
//! A task has a place in each of its limits while it is QUEUED or RUNNING. A task that is QUEUED also has a token reserved,
//! which its start uses. The bucket always has as many tokens as are reserved, so a start finds one, however late it comes:
//! in any time t start at most `burst + rate × t` tasks.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;

use crate::model::task_limit::{LIMIT_BYTES, LimitIdRef};
use crate::model::{LimitId, Namespace, Priority, Revision, StartRate, Timestamp};

#[derive(Debug, Default)]
pub(super) struct LimitTable {
    by_id: HashMap<LimitId, u32>,
    limits: Vec<Limit>,
    /// Positions in `limits` that have no limit.
    free: Vec<u32>,
    /// Number of limits with a key, by namespace.
    keys: HashMap<Namespace, usize>,
    /// When each limit that waits for time has to be looked at.
    wakes: BTreeSet<(Timestamp, u32)>,
    /// Limits whose first waiting task may have a place or a token now, each once.
    changed: VecDeque<u32>,
}

#[derive(Debug)]
pub(super) struct Limit {
    id: LimitId,
    /// Number of unfinished tasks that name it.
    pub tasks: usize,
    /// Number of them that are QUEUED or RUNNING.
    pub taken: usize,
    /// Number of them that are QUEUED.
    reserved: usize,
    /// When the bucket is full, in nanoseconds; in the past if it is.
    full_at: u64,
    pub waiting: BTreeSet<Turn>,
    /// Its entry in [`LimitTable::wakes`].
    wake: Option<Timestamp>,
    is_changed: bool,
    /// Index of the task that was added or changed last. It can be gone.
    pub newest: u32,
}

/// The place of a task among those that wait for the same limit: the highest priority first, and then the oldest submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Reverse<Priority>,
    submission: Revision,
    pub index: u32,
}

impl Turn {
    pub fn new(priority: Priority, submission: Revision, index: u32) -> Self {
        Self { priority: Reverse(priority), submission, index }
    }
}

/// What a task has of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// It waits.
    Nothing,
    /// A place and a reserved token: it is QUEUED.
    Reserved,
    /// A place: it is RUNNING.
    Occupied,
    /// It has ended.
    Ended,
}

impl Usage {
    fn places(self) -> usize {
        usize::from(matches!(self, Self::Reserved | Self::Occupied))
    }

    fn reserved(self) -> usize {
        usize::from(self == Self::Reserved)
    }
}

/// Whether a bucket has a token that is not reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Free,
    At(Timestamp),
    /// All tokens that the bucket can have are reserved.
    AfterStart,
}

impl Limit {
    fn new(id: LimitId) -> Self {
        Self {
            id,
            tasks: 0,
            taken: 0,
            reserved: 0,
            full_at: 0,
            waiting: BTreeSet::new(),
            wake: None,
            is_changed: false,
            newest: u32::MAX,
        }
    }

    /// Tokens that are there and not reserved.
    pub fn tokens(&self, rate: StartRate, now: Timestamp) -> u32 {
        let (now, step, burst) = (nanos(now), rate.step(), u64::from(rate.burst));
        // The clock was set back if more are missing.
        let missing = self.full_at.saturating_sub(now).div_ceil(step).min(burst);
        u32::try_from((burst - missing).saturating_sub(self.reserved as u64)).unwrap_or(u32::MAX)
    }

    pub fn token(&self, rate: StartRate, now: Timestamp) -> Token {
        let (now, step, burst) = (nanos(now), rate.step(), u64::from(rate.burst));
        let Some(others) = burst.checked_sub(self.reserved as u64 + 1) else { return Token::AfterStart };
        // The clock was set back if it is later.
        let full_at = self.full_at.min(now.saturating_add(step.saturating_mul(burst)));
        let free_at = full_at.saturating_sub(step.saturating_mul(others));
        if free_at <= now { Token::Free } else { Token::At(Timestamp(free_at.div_ceil(1_000))) }
    }

    /// When the bucket is full after a start.
    pub fn full_after_start(&self, rate: StartRate, at: Timestamp) -> u64 {
        let (at, step) = (nanos(at), rate.step());
        let latest = at.saturating_add(step.saturating_mul(u64::from(rate.burst) - 1));
        self.full_at.min(latest).max(at).saturating_add(step)
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        self.tasks == 0 && self.full_at <= nanos(now)
    }
}

fn nanos(at: Timestamp) -> u64 {
    at.0.saturating_mul(1_000)
}

impl LimitTable {
    pub fn find(&self, id: LimitIdRef<'_>) -> Option<&Limit> {
        self.by_id.get(&id).and_then(|slot| self.limits.get(*slot as usize))
    }

    pub fn contains(&self, id: LimitIdRef<'_>) -> bool {
        self.by_id.contains_key(&id)
    }

    /// The limits from a position on; `None` for a position that has none.
    pub fn ids(&self, first: usize) -> impl Iterator<Item = Option<LimitIdRef<'_>>> {
        let limits = self.limits.get(first..).unwrap_or_default();
        limits.iter().map(|limit| Some(limit.id.by_ref()).filter(|id| id.name.is_some() || !id.key.is_empty()))
    }

    /// Keys of a namespace that are in use.
    pub fn keys_of(&self, namespace: &Namespace) -> usize {
        self.keys.get(namespace).copied().unwrap_or_default()
    }

    /// About the bytes of all limits.
    pub fn bytes(&self) -> u64 {
        Self::bytes_of(self.by_id.len())
    }

    /// About the bytes of this number of limits.
    pub fn bytes_of(count: usize) -> u64 {
        (count * LIMIT_BYTES) as u64
    }

    fn slot(&mut self, id: LimitIdRef<'_>) -> u32 {
        if let Some(slot) = self.by_id.get(&id) {
            return *slot;
        }
        let limit = Limit::new(id.to_id());
        let slot = if let Some(slot) = self.free.pop() {
            self.limits[slot as usize] = limit;
            slot
        } else {
            self.limits.push(limit);
            u32::try_from(self.limits.len() - 1).unwrap_or(u32::MAX)
        };
        self.by_id.insert(id.to_id(), slot);
        if let Some(namespace) = id.namespace {
            *self.keys.entry_ref(namespace).or_default() += 1;
        }
        slot
    }

    /// Adds an unfinished task.
    pub fn add(&mut self, id: LimitIdRef<'_>, index: u32, usage: Usage) {
        let slot = self.slot(id) as usize;
        let limit = &mut self.limits[slot];
        limit.newest = index;
        limit.tasks += 1;
        limit.taken += usage.places();
        limit.reserved += usage.reserved();
    }

    /// Adds a bucket that was not full when the store was written.
    pub fn restore(&mut self, id: LimitIdRef<'_>, full_at: u64) {
        let slot = self.slot(id);
        self.limits[slot as usize].full_at = full_at;
    }

    /// Records that a start has used a token.
    pub fn charge(&mut self, id: LimitIdRef<'_>, full_at: u64) {
        let slot = self.slot(id);
        self.limits[slot as usize].full_at = full_at;
    }

    /// Records what a task has now instead of `before`. One that waited for the limit does not wait for it any more.
    pub fn change(&mut self, id: LimitIdRef<'_>, turn: Turn, before: Usage, after: Usage, at: Timestamp) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        let limit = &mut self.limits[slot as usize];
        limit.taken = limit.taken + after.places() - before.places();
        limit.reserved = limit.reserved + after.reserved() - before.reserved();
        limit.newest = turn.index;
        let was_first = limit.waiting.first() == Some(&turn);
        if before == Usage::Nothing {
            limit.waiting.remove(&turn);
        }
        if was_first || after.places() < before.places() || after.reserved() < before.reserved() {
            self.mark_changed(slot);
        }
        if after == Usage::Ended {
            self.end_task(slot, at);
        }
    }

    fn end_task(&mut self, slot: u32, at: Timestamp) {
        let limit = &mut self.limits[slot as usize];
        limit.tasks -= 1;
        if limit.is_idle(at) {
            self.remove(slot);
        } else if limit.tasks == 0 {
            // Until the bucket is full.
            let full_at = Timestamp(limit.full_at.div_ceil(1_000));
            self.set_wake(slot, Some(full_at));
        }
    }

    fn remove(&mut self, slot: u32) {
        self.set_wake(slot, None);
        let limit = &mut self.limits[slot as usize];
        // Its entry in `changed` is skipped.
        limit.is_changed = false;
        let id = std::mem::replace(&mut limit.id, LimitId::new(None, None, "".into()));
        self.by_id.remove(&id.by_ref());
        self.free.push(slot);
        if let Some(namespace) = id.by_ref().namespace
            && let Some(count) = self.keys.get_mut(namespace)
        {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(namespace);
            }
        }
    }

    /// Lets a task wait for a limit.
    pub fn park(&mut self, id: LimitIdRef<'_>, turn: Turn) {
        let slot = self.slot(id);
        let limit = &mut self.limits[slot as usize];
        limit.waiting.insert(turn);
        if limit.waiting.first() == Some(&turn) {
            self.mark_changed(slot);
        }
    }

    /// Lets a task wait for another limit than the first one.
    pub fn move_turn(&mut self, from: u32, to: LimitIdRef<'_>, turn: Turn) {
        self.limits[from as usize].waiting.remove(&turn);
        self.park(to, turn);
    }

    pub fn first_waiting(&self, slot: u32) -> Option<Turn> {
        self.limits.get(slot as usize)?.waiting.first().copied()
    }

    /// Whether the limit is the one at this position.
    pub fn is_at(&self, id: LimitIdRef<'_>, slot: u32) -> bool {
        self.by_id.get(&id) == Some(&slot)
    }

    /// Does nothing if no task waits for the limit.
    fn mark_changed(&mut self, slot: u32) {
        let limit = &mut self.limits[slot as usize];
        if !limit.waiting.is_empty() && !std::mem::replace(&mut limit.is_changed, true) {
            self.changed.push_back(slot);
        }
    }

    /// Records that the rules of limits have changed, in the order of the limits.
    pub fn mark_all_changed(&mut self) {
        let waits = |(_, slot): &(&LimitId, &u32)| !self.limits[**slot as usize].waiting.is_empty();
        let mut waiting: Vec<_> = self.by_id.iter().filter(waits).collect();
        waiting.sort_unstable();
        let slots: Vec<u32> = waiting.into_iter().map(|(_, slot)| *slot).collect();
        for slot in slots {
            self.mark_changed(slot);
        }
    }

    /// The limit to be looked at next.
    pub fn first_changed(&mut self) -> Option<u32> {
        while let Some(slot) = self.changed.front().copied() {
            if self.limits[slot as usize].is_changed {
                return Some(slot);
            }
            self.changed.pop_front();
        }
        None
    }

    /// Whether there is a limit to be looked at.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Records that the first waiting task of the limit, if there is one, has to wait, and until when if that is known.
    pub fn settle(&mut self, slot: u32, wake: Option<Timestamp>) {
        self.limits[slot as usize].is_changed = false;
        self.set_wake(slot, wake);
    }

    fn set_wake(&mut self, slot: u32, wake: Option<Timestamp>) {
        let limit = &mut self.limits[slot as usize];
        if limit.wake == wake {
            return;
        }
        if let Some(earlier) = std::mem::replace(&mut limit.wake, wake) {
            self.wakes.remove(&(earlier, slot));
        }
        if let Some(at) = wake {
            self.wakes.insert((at, slot));
        }
    }

    /// When a limit has to be looked at next.
    pub fn first_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Takes note of the time: tokens may be there, and full buckets without tasks are not needed.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((_, slot)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.set_wake(slot, None);
            if self.limits[slot as usize].is_idle(now) {
                self.remove(slot);
            } else {
                self.mark_changed(slot);
            }
        }
    }

    /// Call it when all tasks were restored and all events replayed.
    pub fn begin(&mut self, now: Timestamp) {
        for slot in std::mem::take(&mut self.changed) {
            self.limits[slot as usize].is_changed = false;
        }
        let mut without_tasks: Vec<u32> =
            self.by_id.values().copied().filter(|slot| self.limits[*slot as usize].tasks == 0).collect();
        without_tasks.sort_unstable();
        for slot in without_tasks {
            let limit = &self.limits[slot as usize];
            if limit.is_idle(now) {
                self.remove(slot);
            } else {
                self.set_wake(slot, Some(Timestamp(limit.full_at.div_ceil(1_000))));
            }
        }
    }

    /// Each limit with the numbers of its unfinished tasks, places and reserved tokens, when its bucket is full, and the tasks
    /// that wait.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (&LimitId, [usize; 3], u64, &BTreeSet<Turn>)> {
        self.by_id.iter().map(|(id, slot)| {
            let limit = &self.limits[*slot as usize];
            (id, [limit.tasks, limit.taken, limit.reserved], limit.full_at, &limit.waiting)
        })
    }

    /// Compares the counts with each other.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.by_id.len() + self.free.len(), self.limits.len(), "every position is used or free");
        let mut keys: HashMap<Namespace, usize> = HashMap::new();
        for (id, slot) in &self.by_id {
            let limit = &self.limits[*slot as usize];
            assert_eq!(limit.id, *id);
            assert!(limit.tasks > 0 || limit.wake.is_some(), "{id:?} has no task and is kept");
            assert!(limit.wake.is_none_or(|at| self.wakes.contains(&(at, *slot))), "{id:?} is looked at");
            let is_queued = self.changed.contains(slot);
            assert!(!limit.is_changed || is_queued, "{id:?} is looked at");
            if let Some(namespace) = id.by_ref().namespace {
                *keys.entry(namespace.clone()).or_default() += 1;
            }
        }
        assert_eq!(self.keys, keys, "keys of each namespace");
        let wakes = self.by_id.values().filter(|slot| self.limits[**slot as usize].wake.is_some()).count();
        assert_eq!(self.wakes.len(), wakes, "limits that are looked at when it is time");
    }
}
