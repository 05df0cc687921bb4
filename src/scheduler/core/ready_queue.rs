//! The ready queue of a pool: the order in which its QUEUED tasks are dispatched.
//!
//! Four bands by priority; inside a band round robin over fairness keys (the namespace); inside a key first in,
//! first out. This is deficit round robin (Shreedhar & Varghese, 1995) with unit cost.
//!
//! When a task leaves the queue other than by `pop`, its entry stays and becomes stale; `pop` skips stale
//! entries, and compaction keeps their number within a constant factor of the live ones.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::model::{Namespace, Priority};

/// A queued task. The entry is stale if the generation of the task has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// Index of the task.
    pub index: u32,
    pub generation: u32,
}

#[derive(Debug, Default)]
pub struct ReadyQueue {
    bands: [Band; Priority::COUNT],
}

#[derive(Debug, Default)]
struct Band {
    keys: HashMap<Namespace, VecDeque<QueueEntry>>,
    /// Keys that have entries, in the order in which they are served.
    rotation: VecDeque<Namespace>,
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
    pub fn mark_stale(&mut self, priority: Priority, is_live: impl Fn(QueueEntry) -> bool) {
        let band = &mut self.bands[priority.index()];
        band.live -= 1;
        if band.entries > 2 * band.live + 1024 {
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
    pub fn fronts(&self, priority: Priority, is_live: impl Fn(QueueEntry) -> bool) -> impl Iterator<Item = QueueEntry> {
        self.bands[priority.index()].keys.values().filter_map(move |queue| queue.iter().copied().find(|e| is_live(*e)))
    }
}

impl Band {
    fn queue(&mut self, key: &Namespace) -> &mut VecDeque<QueueEntry> {
        self.live += 1;
        self.entries += 1;
        // `entry_ref` would clone the key on every call, and most calls find it.
        if !self.keys.contains_key(key) {
            self.rotation.push_back(key.clone());
        }
        self.keys.entry_ref(key).or_default()
    }

    fn pop(&mut self, is_live: impl Fn(QueueEntry) -> bool) -> Option<QueueEntry> {
        while let Some(key) = self.rotation.pop_front() {
            let Some(queue) = self.keys.get_mut(&key) else { continue };
            let mut found = None;
            while let Some(entry) = queue.pop_front() {
                self.entries -= 1;
                if is_live(entry) {
                    found = Some(entry);
                    break;
                }
            }
            if queue.is_empty() {
                self.keys.remove(&key);
            } else {
                self.rotation.push_back(key);
            }
            if found.is_some() {
                self.live -= 1;
                return found;
            }
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn entry(index: u32) -> QueueEntry {
        QueueEntry { index, generation: 0 }
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
            queue.mark_stale(Priority::Low, |_| false);
        }
        assert_eq!(queue.len(Priority::Low), 0);
        assert!(queue.bands[0].entries <= 1025, "{} entries are kept", queue.bands[0].entries);
        assert_eq!(queue.pop(Priority::Low, |_| false), None);
    }
}
