//! The order in which the tasks of one pool become eligible to run.
//!
//! Four bands by priority; inside a band round robin over fairness keys (the namespace), inside a
//! key first in, first out. Deficit round robin (Shreedhar & Varghese, 1995) with unit cost.
//! Entries are not removed when a task leaves the queue some other way: they go stale, and are
//! passed over when met.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::model::{Namespace, Priority};

/// A task in the queue; stale once the task's generation has moved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the task.
    pub slot: u32,
    /// The task's generation when it was queued.
    pub generation: u32,
}

/// The queue of one pool.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    bands: [Band; Priority::COUNT],
}

#[derive(Debug, Default)]
struct Band {
    keys: HashMap<Namespace, VecDeque<Entry>>,
    /// Keys that have entries, in the order in which they are served.
    turn: VecDeque<Namespace>,
    live: usize,
    entries: usize,
}

impl ReadyQueue {
    /// Adds a task behind its like.
    pub fn push(&mut self, priority: Priority, key: &Namespace, entry: Entry) {
        self.bands[priority.index()].lane(key).push_back(entry);
    }

    /// Adds a task before its like: it had its turn already and was interrupted.
    pub fn push_front(&mut self, priority: Priority, key: &Namespace, entry: Entry) {
        self.bands[priority.index()].lane(key).push_front(entry);
    }

    /// A queued task left some other way; its entry has become stale.
    pub fn forget(&mut self, priority: Priority, is_live: impl Fn(Entry) -> bool) {
        let band = &mut self.bands[priority.index()];
        band.live -= 1;
        if band.entries > 2 * band.live + 1024 {
            band.compact(is_live);
        }
    }

    /// Takes the next task of that priority.
    pub fn pop(&mut self, priority: Priority, is_live: impl Fn(Entry) -> bool) -> Option<Entry> {
        self.bands[priority.index()].pop(is_live)
    }

    /// Tasks of that priority.
    pub fn len(&self, priority: Priority) -> usize {
        self.bands[priority.index()].live
    }

    /// The first live entry of each key of that priority.
    pub fn fronts(&self, priority: Priority, is_live: impl Fn(Entry) -> bool) -> impl Iterator<Item = Entry> {
        self.bands[priority.index()].keys.values().filter_map(move |lane| lane.iter().copied().find(|e| is_live(*e)))
    }
}

impl Band {
    fn lane(&mut self, key: &Namespace) -> &mut VecDeque<Entry> {
        self.live += 1;
        self.entries += 1;
        // `entry_ref` would clone the key on every call; most calls find it.
        if !self.keys.contains_key(key) {
            self.turn.push_back(key.clone());
        }
        self.keys.entry_ref(key).or_default()
    }

    fn pop(&mut self, is_live: impl Fn(Entry) -> bool) -> Option<Entry> {
        while let Some(key) = self.turn.pop_front() {
            let Some(lane) = self.keys.get_mut(&key) else { continue };
            let mut found = None;
            while let Some(entry) = lane.pop_front() {
                self.entries -= 1;
                if is_live(entry) {
                    found = Some(entry);
                    break;
                }
            }
            if lane.is_empty() {
                self.keys.remove(&key);
            } else {
                self.turn.push_back(key);
            }
            if found.is_some() {
                self.live -= 1;
                return found;
            }
        }
        None
    }

    fn compact(&mut self, is_live: impl Fn(Entry) -> bool) {
        self.keys.retain(|_, lane| {
            lane.retain(|entry| is_live(*entry));
            !lane.is_empty()
        });
        self.turn.retain(|key| self.keys.contains_key(key));
        self.entries = self.keys.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn entry(slot: u32) -> Entry {
        Entry { slot, generation: 0 }
    }

    #[test]
    fn keys_take_turns_and_a_key_is_first_in_first_out() {
        let mut lanes = ReadyQueue::default();
        for slot in 0..4 {
            lanes.push(Priority::Normal, &key("loud"), entry(slot));
        }
        lanes.push(Priority::Normal, &key("quiet"), entry(9));
        let order: Vec<u32> =
            std::iter::from_fn(|| lanes.pop(Priority::Normal, |_| true)).map(|entry| entry.slot).collect();
        assert_eq!(order, [0, 9, 1, 2, 3]);
        assert_eq!(lanes.len(Priority::Normal), 0);
    }

    #[test]
    fn stale_entries_are_passed_over_and_do_not_pile_up() {
        let mut lanes = ReadyQueue::default();
        for slot in 0..10_000 {
            lanes.push(Priority::Low, &key("a"), entry(slot));
            lanes.forget(Priority::Low, |_| false);
        }
        assert_eq!(lanes.len(Priority::Low), 0);
        assert!(lanes.bands[0].entries <= 1025, "{} entries are kept", lanes.bands[0].entries);
        assert_eq!(lanes.pop(Priority::Low, |_| false), None);
    }
}
