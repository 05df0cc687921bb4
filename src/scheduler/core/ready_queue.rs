//! The ready queue of a pool: the order in which its QUEUED tasks are dispatched.
//!
//! Four bands by priority; inside a band round robin over fairness keys (the namespace); inside a key first in,
//! first out. This is deficit round robin (Shreedhar & Varghese, 1995) with unit cost.
//!
//! When a task leaves the queue other than by `pop`, its entry becomes stale. Stale entries at the front of a key
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
    /// The first entry of each key is live.
    keys: HashMap<Namespace, VecDeque<QueueEntry>>,
    /// The same keys in the order in which they are served.
    rotation: VecDeque<Namespace>,
    /// Keys whose entries have all become stale.
    empty_keys: usize,
    live: usize,
    /// Live and stale entries.
    entries: usize,
}

impl ReadyQueue {
    /// Adds a task behind those with the same priority and key.
    pub fn push(&mut self, priority: Priority, key: &Namespace, entry: QueueEntry) {
        self.bands[priority.index()].queue(key).push_back(entry);
    }

    /// Adds an interrupted task before those with the same priority and key.
    pub fn push_front(&mut self, priority: Priority, key: &Namespace, entry: QueueEntry) {
        self.bands[priority.index()].queue(key).push_front(entry);
    }

    /// Records that the entry of a task has become stale.
    pub fn mark_stale(&mut self, priority: Priority, key: &Namespace, is_live: impl Fn(QueueEntry) -> bool) {
        let band = &mut self.bands[priority.index()];
        band.live -= 1;
        if let Some(queue) = band.keys.get_mut(key) {
            let removed = remove_stale_front(queue, &is_live);
            band.entries -= removed;
            band.empty_keys += usize::from(queue.is_empty() && removed > 0);
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

    /// The first live entry of each key of this priority.
    pub fn fronts(&self, priority: Priority) -> impl Iterator<Item = QueueEntry> {
        self.bands[priority.index()].keys.values().filter_map(|queue| queue.front().copied())
    }
}

impl Band {
    fn queue(&mut self, key: &Namespace) -> &mut VecDeque<QueueEntry> {
        self.live += 1;
        self.entries += 1;
        // `entry_ref` would clone the key on every call, and most calls find it.
        if !self.keys.contains_key(key) {
            self.rotation.push_back(key.clone());
            self.empty_keys += 1;
        }
        let queue = self.keys.entry_ref(key).or_default();
        self.empty_keys -= usize::from(queue.is_empty());
        queue
    }

    fn pop(&mut self, is_live: impl Fn(QueueEntry) -> bool) -> Option<QueueEntry> {
        while let Some(key) = self.rotation.pop_front() {
            let Some(queue) = self.keys.get_mut(&key) else { continue };
            let Some(entry) = queue.pop_front() else {
                self.keys.remove(&key);
                self.empty_keys -= 1;
                continue;
            };
            self.live -= 1;
            self.entries -= 1 + remove_stale_front(queue, &is_live);
            if queue.is_empty() {
                self.keys.remove(&key);
            } else {
                self.rotation.push_back(key);
            }
            return Some(entry);
        }
        None
    }

    fn compact(&mut self, is_live: impl Fn(QueueEntry) -> bool) {
        self.keys.retain(|_, queue| {
            queue.retain(|entry| is_live(*entry));
            !queue.is_empty()
        });
        self.rotation.retain(|key| self.keys.contains_key(key));
        self.entries = self.keys.values().map(VecDeque::len).sum();
        self.empty_keys = 0;
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
            queue.push(Priority::Normal, &key("loud"), entry(index));
        }
        queue.push(Priority::Normal, &key("quiet"), entry(9));
        let order: Vec<u32> =
            std::iter::from_fn(|| queue.pop(Priority::Normal, |_| true)).map(|entry| entry.index).collect();
        assert_eq!(order, [0, 9, 1, 2, 3]);
        assert_eq!(queue.len(Priority::Normal), 0);
    }

    #[test]
    fn stale_entries_are_skipped_and_compacted() {
        let mut queue = ReadyQueue::default();
        for index in 0..10_000 {
            queue.push(Priority::Low, &key("a"), entry(index));
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
            queue.push(Priority::Low, &key("a"), entry(index));
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
            queue.push(Priority::Low, &key, entry(index));
            queue.mark_stale(Priority::Low, &key, |_| false);
        }
        assert!(queue.bands[0].keys.len() <= 1025, "{} keys are kept", queue.bands[0].keys.len());
        assert_eq!(queue.bands[0].keys.len(), queue.bands[0].rotation.len());
        queue.push(Priority::Low, &key("k9999"), entry(1));
        assert_eq!(queue.pop(Priority::Low, |_| true), Some(entry(1)));
        assert_eq!((queue.bands[0].keys.len(), queue.bands[0].empty_keys), (0, 0));
    }
}
