//! The ready queue of a pool: the order in which its QUEUED tasks are dispatched.
//!
//! Four bands by priority; inside a band round robin over fairness keys (the namespace); inside a key first in,
//! first out, interrupted tasks before all others. This is deficit round robin (Shreedhar & Varghese, 1995) with unit
//! cost. A key that has all the slots it may have is held: the others are served as if it had no tasks.
//!
//! When a task leaves the queue other than by `pop`, its entry becomes stale. Stale entries at the front of a lane
//! are removed at once, and compaction keeps the number of others within a constant factor of the live ones.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

use crate::model::{Namespace, Priority};

use super::key_queue::{KeyQueue, QueueEntry};

#[derive(Debug, Default)]
pub struct ReadyQueue {
    bands: [Band; Priority::COUNT],
}

/// Stale entries and empty keys that a band may have in addition to as many as live entries.
const STALE_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Band {
    keys: HashMap<Namespace, KeyQueue>,
    /// The same keys in the order in which they are served, except those that are held.
    rotation: VecDeque<Namespace>,
    /// Keys whose entries have all become stale.
    empty_keys: usize,
    live: usize,
    /// Live entries of keys that are held.
    held: usize,
    /// Live and stale entries.
    entries: usize,
}

impl ReadyQueue {
    /// From now on no task of the key can start, since it has all the slots that it may have. Returns whether there are some.
    pub fn hold(&mut self, key: &Namespace) -> bool {
        self.bands.iter_mut().map(|band| usize::from(band.hold(key))).sum::<usize>() > 0
    }

    /// Tasks of the key can start again. Returns whether there are some.
    pub fn release(&mut self, key: &Namespace) -> bool {
        self.bands.iter_mut().map(|band| usize::from(band.release(key))).sum::<usize>() > 0
    }

    /// Whether there are entries of the key, live or stale.
    pub fn has(&self, key: &Namespace) -> bool {
        self.bands.iter().any(|band| band.keys.contains_key(key))
    }

    /// The keys, those with entries of several priorities more than once.
    pub fn keys(&self) -> impl Iterator<Item = &Namespace> {
        self.bands.iter().flat_map(|band| band.keys.keys())
    }

    /// Adds a task behind those with the same priority and key, except that an interrupted task goes before all that were
    /// not interrupted. Returns whether the key is new in its band. `is_held` is whether the key is.
    pub fn push(
        &mut self,
        priority: Priority,
        key: &Namespace,
        entry: QueueEntry,
        interrupted: bool,
        is_held: bool,
    ) -> bool {
        let (lanes, is_new) = self.bands[priority.index()].lanes(key, is_held);
        if interrupted { &mut lanes.interrupted } else { &mut lanes.others }.push_back(entry);
        is_new
    }

    /// Orders the entries of each key by their stamps, and the keys by their first entries. Call it when tasks were
    /// restored in another order, and nothing was popped.
    pub fn order_restored(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        self.bands.iter_mut().for_each(|band| band.order_restored(&is_live));
    }

    /// Records that the entry of a task has become stale.
    pub fn mark_stale(&mut self, priority: Priority, key: &Namespace, is_live: impl Fn(QueueEntry) -> bool) {
        let band = &mut self.bands[priority.index()];
        band.live -= 1;
        if let Some(lanes) = band.keys.get_mut(key) {
            lanes.live -= 1;
            band.held -= usize::from(lanes.is_held);
            let removed = lanes.remove_stale_fronts(&is_live);
            band.entries -= removed;
            band.empty_keys += usize::from(lanes.is_empty() && removed > 0);
        }
        if band.entries + band.empty_keys > 2 * band.live + STALE_MAX {
            band.compact(is_live);
        }
    }

    /// Removes and returns the next task of this priority whose key is not held.
    pub fn pop(&mut self, priority: Priority, is_live: impl Fn(QueueEntry) -> bool) -> Option<QueueEntry> {
        self.bands[priority.index()].pop(is_live)
    }

    /// Number of queued tasks of this priority.
    pub fn len(&self, priority: Priority) -> usize {
        self.bands[priority.index()].live
    }

    /// Number of queued tasks of this priority whose key is not held.
    pub fn startable(&self, priority: Priority) -> usize {
        let band = &self.bands[priority.index()];
        band.live - band.held
    }

    /// Number of live entries of the key before `entry`, and whether `entry` was found. Looks at no more than `max` entries.
    pub fn before(
        &self,
        priority: Priority,
        key: &Namespace,
        entry: QueueEntry,
        max: usize,
        is_live: impl Fn(QueueEntry) -> bool,
    ) -> (usize, bool) {
        let lanes = self.bands[priority.index()].keys.get(key);
        let entries = lanes.into_iter().flat_map(|lanes| lanes.interrupted.iter().chain(&lanes.others)).take(max);
        let mut before = 0;
        for other in entries {
            if *other == entry {
                return (before, true);
            }
            before += usize::from(is_live(*other));
        }
        (before, false)
    }

    /// Number of other keys with entries of this priority.
    pub fn other_keys(&self, priority: Priority, key: &Namespace) -> usize {
        let band = &self.bands[priority.index()];
        let is_own = band.keys.get(key).is_some_and(|lanes| !lanes.is_empty());
        band.keys.len() - band.empty_keys - usize::from(is_own)
    }

    /// The entries of this priority with their keys, those of each key in order. Some may be stale.
    #[cfg(test)]
    pub fn entries(&self, priority: Priority) -> impl Iterator<Item = (&Namespace, QueueEntry)> {
        let keys = self.bands[priority.index()].keys.iter();
        keys.flat_map(|(key, lanes)| lanes.interrupted.iter().chain(&lanes.others).map(move |entry| (key, *entry)))
    }

    /// Compares all counts with the entries, and which keys are held.
    #[cfg(test)]
    pub fn check(&self, is_held: impl Fn(&Namespace) -> bool, is_live: impl Fn(QueueEntry) -> bool) {
        for band in &self.bands {
            let (mut live, mut held, mut in_rotation) = (0, 0, 0);
            for (key, lanes) in &band.keys {
                let entries = lanes.interrupted.iter().chain(&lanes.others);
                assert_eq!(lanes.live, entries.filter(|entry| is_live(**entry)).count(), "live entries of {key}");
                assert_eq!(lanes.is_held, is_held(key), "whether {key} is held");
                assert!(lanes.in_rotation || lanes.is_held, "{key} has its turn");
                live += lanes.live;
                held += if lanes.is_held { lanes.live } else { 0 };
                in_rotation += usize::from(lanes.in_rotation);
            }
            assert_eq!((band.live, band.held, band.rotation.len()), (live, held, in_rotation));
        }
    }

    /// The first entries of this priority, among which is the one that has waited longest. They are live.
    pub fn fronts(&self, priority: Priority) -> impl Iterator<Item = QueueEntry> {
        let lanes = self.bands[priority.index()].keys.values();
        lanes.flat_map(|lanes| [lanes.interrupted.front(), lanes.others.front()].into_iter().flatten().copied())
    }
}

impl Band {
    /// The lanes to which an entry is added, and whether their key is new.
    fn lanes(&mut self, key: &Namespace, is_held: bool) -> (&mut KeyQueue, bool) {
        self.live += 1;
        self.held += usize::from(is_held);
        self.entries += 1;
        let (lanes, is_new) = match self.keys.entry_ref(key) {
            EntryRef::Occupied(found) => (found.into_mut(), false),
            EntryRef::Vacant(vacant) => {
                self.empty_keys += 1;
                if !is_held {
                    self.rotation.push_back(key.clone());
                }
                (vacant.insert(KeyQueue { is_held, in_rotation: !is_held, ..KeyQueue::default() }), true)
            }
        };
        self.empty_keys -= usize::from(lanes.is_empty());
        lanes.live += 1;
        (lanes, is_new)
    }

    /// Returns whether the band has tasks of the key that could start.
    fn hold(&mut self, key: &Namespace) -> bool {
        let Some(lanes) = self.keys.get_mut(key).filter(|lanes| !lanes.is_held) else { return false };
        lanes.is_held = true;
        self.held += lanes.live;
        lanes.live > 0
    }

    /// Returns whether the band has tasks of the key that were held.
    fn release(&mut self, key: &Namespace) -> bool {
        let Some(lanes) = self.keys.get_mut(key).filter(|lanes| lanes.is_held) else { return false };
        lanes.is_held = false;
        self.held -= lanes.live;
        let has_tasks = lanes.live > 0;
        if !std::mem::replace(&mut lanes.in_rotation, true) {
            self.rotation.push_back(key.clone());
        }
        has_tasks
    }

    fn pop(&mut self, is_live: impl Fn(QueueEntry) -> bool) -> Option<QueueEntry> {
        while self.live > self.held
            && let Some(key) = self.rotation.pop_front()
        {
            let Some(lanes) = self.keys.get_mut(&key) else { continue };
            if lanes.is_held {
                lanes.in_rotation = false;
                continue;
            }
            let Some(entry) = lanes.pop_front() else {
                self.keys.remove(&key);
                self.empty_keys -= 1;
                continue;
            };
            self.live -= 1;
            lanes.live -= 1;
            self.entries -= 1 + lanes.remove_stale_fronts(&is_live);
            if lanes.is_empty() {
                self.keys.remove(&key);
            } else {
                self.rotation.push_back(key);
            }
            return Some(entry);
        }
        None
    }

    fn compact(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        self.keys.retain(|_, lanes| {
            lanes.interrupted.retain(|entry| is_live(*entry));
            lanes.others.retain(|entry| is_live(*entry));
            !lanes.is_empty()
        });
        self.rotation.retain(|key| self.keys.contains_key(key));
        self.entries = self.keys.values().map(KeyQueue::len).sum();
        self.empty_keys = 0;
    }

    fn order_restored(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        for lanes in self.keys.values_mut() {
            for lane in [&mut lanes.interrupted, &mut lanes.others] {
                lane.make_contiguous().sort_unstable_by_key(|entry| entry.stamp);
            }
            let removed = lanes.remove_stale_fronts(&is_live);
            self.entries -= removed;
            self.empty_keys += usize::from(lanes.is_empty() && removed > 0);
        }
        let first = |key: &Namespace| self.keys.get(key).and_then(KeyQueue::front).map(|entry| entry.stamp);
        self.rotation.make_contiguous().sort_by_key(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn entry(index: u32) -> QueueEntry {
        QueueEntry { index, stamp: 0 }
    }

    #[test]
    fn keys_are_served_in_turn_and_each_key_is_first_in_first_out() {
        let mut queue = ReadyQueue::default();
        for index in 0..4 {
            queue.push(Priority::Normal, &key("loud"), entry(index), false, false);
        }
        queue.push(Priority::Normal, &key("quiet"), entry(9), false, false);
        let order: Vec<u32> =
            std::iter::from_fn(|| queue.pop(Priority::Normal, |_| true)).map(|entry| entry.index).collect();
        assert_eq!(order, [0, 9, 1, 2, 3]);
        assert_eq!(queue.len(Priority::Normal), 0);
    }

    #[test]
    fn a_key_that_is_held_is_passed_over_until_it_is_released() {
        let mut queue = ReadyQueue::default();
        let (loud, quiet) = (key("loud"), key("quiet"));
        for index in 0..4 {
            queue.push(Priority::High, &loud, entry(index), false, false);
        }
        queue.push(Priority::Normal, &quiet, entry(9), false, false);
        for index in 0..2 {
            assert_eq!(queue.pop(Priority::High, |_| true), Some(entry(index)));
        }
        assert!(queue.hold(&loud));
        assert_eq!(queue.pop(Priority::High, |_| true), None);
        assert_eq!((queue.startable(Priority::High), queue.len(Priority::High)), (0, 2));
        assert_eq!(queue.pop(Priority::Normal, |_| true), Some(entry(9)));
        assert!(queue.push(Priority::Low, &loud, entry(7), false, true), "new in its band");
        assert_eq!(queue.startable(Priority::Low), 0, "in no band");
        assert!(queue.release(&loud));
        assert_eq!((queue.startable(Priority::High), queue.startable(Priority::Low)), (2, 1));
        assert_eq!(queue.pop(Priority::High, |_| true), Some(entry(2)));
        assert!(!queue.release(&quiet) && !queue.has(&quiet) && queue.has(&loud));
    }

    /// The rotation is read once for each turn, however many keys are held.
    #[test]
    fn keys_that_are_held_leave_the_rotation() {
        let mut queue = ReadyQueue::default();
        let keys: Vec<_> = (0..10_000).map(|index| key(&format!("k{index}"))).collect();
        for key in &keys {
            queue.push(Priority::Low, key, entry(0), false, false);
            queue.push(Priority::Low, key, entry(1), false, false);
            queue.hold(key);
        }
        assert_eq!(queue.pop(Priority::Low, |_| true), None);
        queue.release(&keys[5_000]);
        assert_eq!(queue.pop(Priority::Low, |_| true), Some(entry(0)));
        queue.hold(&keys[5_000]);
        queue.release(&keys[9_999]);
        assert_eq!(queue.pop(Priority::Low, |_| true), Some(entry(0)));
        assert_eq!(queue.bands[0].rotation, [keys[5_000].clone(), keys[9_999].clone()]);
    }

    #[test]
    fn stale_entries_are_skipped_and_compacted() {
        let mut queue = ReadyQueue::default();
        for index in 0..10_000 {
            queue.push(Priority::Low, &key("a"), entry(index), false, false);
            queue.mark_stale(Priority::Low, &key("a"), |_| false);
        }
        assert_eq!(queue.len(Priority::Low), 0);
        assert!(queue.bands[0].entries <= 1025, "{} entries are kept", queue.bands[0].entries);
        assert_eq!(queue.pop(Priority::Low, |_| false), None);
    }

    #[test]
    fn the_first_entry_of_a_key_is_always_live() {
        let mut queue = ReadyQueue::default();
        for index in 0..6 {
            queue.push(Priority::Low, &key("a"), entry(index), false, false);
        }
        let is_live = |entry: QueueEntry| ![1, 2, 4, 5].contains(&entry.index);
        for _ in 0..4 {
            queue.mark_stale(Priority::Low, &key("a"), is_live);
        }
        assert_eq!(queue.pop(Priority::Low, is_live), Some(entry(0)));
        assert_eq!(queue.fronts(Priority::Low).collect::<Vec<_>>(), [entry(3)]);
        assert_eq!(queue.bands[0].entries, 3);
    }

    #[test]
    fn keys_without_live_entries_are_bounded() {
        let mut queue = ReadyQueue::default();
        for index in 0..10_000 {
            let key = key(&format!("k{index}"));
            queue.push(Priority::Low, &key, entry(index), false, false);
            queue.mark_stale(Priority::Low, &key, |_| false);
        }
        assert!(queue.bands[0].keys.len() <= 1025, "{} keys are kept", queue.bands[0].keys.len());
        assert_eq!(queue.bands[0].keys.len(), queue.bands[0].rotation.len());
        queue.push(Priority::Low, &key("k9999"), entry(1), false, false);
        assert_eq!(queue.pop(Priority::Low, |_| true), Some(entry(1)));
        assert_eq!((queue.bands[0].keys.len(), queue.bands[0].empty_keys), (0, 0));
    }
}
