//! The ready queue of a pool: the order in which its QUEUED tasks are dispatched.
//!
//! Four bands by priority; inside a band round robin over fairness keys (the namespace); inside a key first in,
//! first out, interrupted tasks before all others. This is deficit round robin (Shreedhar & Varghese, 1995) with unit
//! cost.
//!
//! When a task leaves the queue other than by `pop`, its entry becomes stale. Stale entries at the front of a lane
//! are removed at once, and compaction keeps the number of others within a constant factor of the live ones.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::model::{Namespace, Priority};

/// A queued task. The entry is stale if the stamp of the task has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// Index of the task.
    pub index: u32,
    pub stamp: u64,
}

#[derive(Debug, Default)]
pub struct ReadyQueue {
    bands: [Band; Priority::COUNT],
}

/// Stale entries and empty keys that a band may have in addition to as many as live entries.
const STALE_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Band {
    keys: HashMap<Namespace, KeyQueue>,
    /// The same keys in the order in which they are served.
    rotation: VecDeque<Namespace>,
    /// Keys whose entries have all become stale.
    empty_keys: usize,
    live: usize,
    /// Live and stale entries.
    entries: usize,
}

/// The entries of a key: those of interrupted tasks, and the others. The first entry of each lane is live.
#[derive(Debug, Default)]
struct KeyQueue {
    interrupted: VecDeque<QueueEntry>,
    others: VecDeque<QueueEntry>,
}

impl ReadyQueue {
    /// Adds a task behind those with the same priority and key, except that an interrupted task goes before all that were
    /// not interrupted.
    pub fn push(&mut self, priority: Priority, key: &Namespace, entry: QueueEntry, interrupted: bool) {
        let lanes = self.bands[priority.index()].lanes(key);
        if interrupted { &mut lanes.interrupted } else { &mut lanes.others }.push_back(entry);
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
            let removed = lanes.remove_stale_fronts(&is_live);
            band.entries -= removed;
            band.empty_keys += usize::from(lanes.is_empty() && removed > 0);
        }
        if band.entries + band.empty_keys > 2 * band.live + STALE_MAX {
            band.compact(is_live);
        }
    }

    /// Removes and returns the next task of this priority.
    pub fn pop(&mut self, priority: Priority, is_live: impl Fn(QueueEntry) -> bool) -> Option<QueueEntry> {
        self.bands[priority.index()].pop(is_live)
    }

    /// Number of queued tasks of this priority.
    pub fn len(&self, priority: Priority) -> usize {
        self.bands[priority.index()].live
    }

    /// The entries of this priority with their keys, those of each key in order. Some may be stale.
    #[cfg(test)]
    pub fn entries(&self, priority: Priority) -> impl Iterator<Item = (&Namespace, QueueEntry)> {
        let keys = self.bands[priority.index()].keys.iter();
        keys.flat_map(|(key, lanes)| lanes.interrupted.iter().chain(&lanes.others).map(move |entry| (key, *entry)))
    }

    /// The first entries of this priority, among which is the one that has waited longest. They are live.
    pub fn fronts(&self, priority: Priority) -> impl Iterator<Item = QueueEntry> {
        let lanes = self.bands[priority.index()].keys.values();
        lanes.flat_map(|lanes| [lanes.interrupted.front(), lanes.others.front()].into_iter().flatten().copied())
    }
}

impl Band {
    /// The lanes to which an entry is added.
    fn lanes(&mut self, key: &Namespace) -> &mut KeyQueue {
        self.live += 1;
        self.entries += 1;
        // `entry_ref` would clone the key on every call, and most calls find it.
        if !self.keys.contains_key(key) {
            self.rotation.push_back(key.clone());
            self.empty_keys += 1;
        }
        let lanes = self.keys.entry_ref(key).or_default();
        self.empty_keys -= usize::from(lanes.is_empty());
        lanes
    }

    fn pop(&mut self, is_live: impl Fn(QueueEntry) -> bool) -> Option<QueueEntry> {
        while let Some(key) = self.rotation.pop_front() {
            let Some(lanes) = self.keys.get_mut(&key) else { continue };
            let Some(entry) = lanes.pop_front() else {
                self.keys.remove(&key);
                self.empty_keys -= 1;
                continue;
            };
            self.live -= 1;
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

impl KeyQueue {
    fn is_empty(&self) -> bool {
        self.interrupted.is_empty() && self.others.is_empty()
    }

    fn len(&self) -> usize {
        self.interrupted.len() + self.others.len()
    }

    fn front(&self) -> Option<&QueueEntry> {
        self.interrupted.front().or(self.others.front())
    }

    fn pop_front(&mut self) -> Option<QueueEntry> {
        self.interrupted.pop_front().or_else(|| self.others.pop_front())
    }

    /// Returns the number of removed entries.
    fn remove_stale_fronts(&mut self, is_live: impl Fn(QueueEntry) -> bool) -> usize {
        remove_stale_front(&mut self.interrupted, &is_live) + remove_stale_front(&mut self.others, &is_live)
    }
}

/// Returns the number of removed entries.
fn remove_stale_front(queue: &mut VecDeque<QueueEntry>, is_live: impl Fn(QueueEntry) -> bool) -> usize {
    let mut removed = 0;
    while queue.front().is_some_and(|entry| !is_live(*entry)) {
        queue.pop_front();
        removed += 1;
    }
    removed
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
            queue.push(Priority::Normal, &key("loud"), entry(index), false);
        }
        queue.push(Priority::Normal, &key("quiet"), entry(9), false);
        let order: Vec<u32> =
            std::iter::from_fn(|| queue.pop(Priority::Normal, |_| true)).map(|entry| entry.index).collect();
        assert_eq!(order, [0, 9, 1, 2, 3]);
        assert_eq!(queue.len(Priority::Normal), 0);
    }

    #[test]
    fn stale_entries_are_skipped_and_compacted() {
        let mut queue = ReadyQueue::default();
        for index in 0..10_000 {
            queue.push(Priority::Low, &key("a"), entry(index), false);
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
            queue.push(Priority::Low, &key("a"), entry(index), false);
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
            queue.push(Priority::Low, &key, entry(index), false);
            queue.mark_stale(Priority::Low, &key, |_| false);
        }
        assert!(queue.bands[0].keys.len() <= 1025, "{} keys are kept", queue.bands[0].keys.len());
        assert_eq!(queue.bands[0].keys.len(), queue.bands[0].rotation.len());
        queue.push(Priority::Low, &key("k9999"), entry(1), false);
        assert_eq!(queue.pop(Priority::Low, |_| true), Some(entry(1)));
        assert_eq!((queue.bands[0].keys.len(), queue.bands[0].empty_keys), (0, 0));
    }
}
