//! The workers that take attempts, in groups that offer the same handlers. A group has an index of the attempts that its workers
//! could start, so that the next one is found without looking at all of its handlers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{HandlerName, Priority};

use super::worker::WorkerKey;

/// Number of a group. Never reused.
pub(super) type GroupKey = u64;

/// What a group has to know of the queue of a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueHead {
    /// Fence of the oldest attempt, by priority index.
    pub oldest: [Option<u64>; Priority::COUNT],
    /// By priority index: the scheduler has more eligible tasks of the handler than it has dispatched.
    pub held_back: [bool; Priority::COUNT],
}

#[derive(Default)]
pub(super) struct Groups {
    by_key: HashMap<GroupKey, Group>,
    by_handlers: HashMap<Arc<[HandlerName]>, GroupKey>,
    last_key: GroupKey,
    /// Number of times that a worker was put into line.
    turn: u64,
}

pub(super) struct Group {
    /// In alphabetical order.
    handlers: Arc<[HandlerName]>,
    workers: usize,
    /// Slots of these workers.
    slots: usize,
    /// Workers that had a free slot when they were put into line, with their turns, which increase. Those that have none any more
    /// are removed when they come to the front.
    line: VecDeque<(u64, WorkerKey)>,
    /// The handlers with attempts, by the fence of their oldest one; by priority index.
    oldest: [BTreeMap<u64, HandlerName>; Priority::COUNT],
    /// Number of handlers that are held back, by priority index.
    held_back: [usize; Priority::COUNT],
}

impl Groups {
    /// Adds a worker to the group with these handlers. Returns the group, and its handlers if it is new: their heads have to be
    /// set with [`update`](Self::update).
    pub fn join(&mut self, handlers: &[HandlerName], slots: usize) -> (GroupKey, Option<Arc<[HandlerName]>>) {
        let mut sorted = handlers.to_vec();
        sorted.sort();
        let found = self.by_handlers.get(&*sorted).copied();
        let (key, added) = found.map_or_else(|| self.add(sorted.into()), |key| (key, None));
        if let Some(group) = self.by_key.get_mut(&key) {
            group.workers += 1;
            group.slots += slots;
        }
        (key, added)
    }

    fn add(&mut self, handlers: Arc<[HandlerName]>) -> (GroupKey, Option<Arc<[HandlerName]>>) {
        self.last_key += 1;
        self.by_handlers.insert(handlers.clone(), self.last_key);
        let group = Group {
            handlers: handlers.clone(),
            workers: 0,
            slots: 0,
            line: VecDeque::new(),
            oldest: Default::default(),
            held_back: Default::default(),
        };
        self.by_key.insert(self.last_key, group);
        (self.last_key, Some(handlers))
    }

    /// Removes a worker. Returns the handlers of the group if it was the last one.
    pub fn leave(&mut self, key: GroupKey, worker: WorkerKey, slots: usize) -> Option<Arc<[HandlerName]>> {
        let group = self.by_key.get_mut(&key)?;
        group.workers -= 1;
        group.slots -= slots;
        group.line.retain(|(_, other)| *other != worker);
        if group.workers > 0 {
            return None;
        }
        let group = self.by_key.remove(&key)?;
        self.by_handlers.remove(&group.handlers);
        Some(group.handlers)
    }

    pub fn get(&self, key: GroupKey) -> Option<&Group> {
        self.by_key.get(&key)
    }

    /// Slots of all workers.
    pub fn slots(&self) -> usize {
        self.by_key.values().map(|group| group.slots).sum()
    }

    /// The head of the queue of a handler of the group has changed.
    pub fn update(&mut self, key: GroupKey, handler: &HandlerName, before: &QueueHead, after: &QueueHead) {
        let Some(group) = self.by_key.get_mut(&key) else { return };
        for p in 0..Priority::COUNT {
            if before.oldest[p] != after.oldest[p] {
                before.oldest[p].map(|fence| group.oldest[p].remove(&fence));
                after.oldest[p].map(|fence| group.oldest[p].insert(fence, handler.clone()));
            }
            group.held_back[p] += usize::from(after.held_back[p]);
            group.held_back[p] -= usize::from(before.held_back[p]);
        }
    }

    /// Puts a worker with a free slot at the end of the line of its group.
    pub fn put_in_line(&mut self, key: GroupKey, worker: WorkerKey) {
        self.turn += 1;
        if let Some(group) = self.by_key.get_mut(&key) {
            group.line.push_back((self.turn, worker));
        }
    }

    pub fn take_from_line(&mut self, key: GroupKey) -> Option<WorkerKey> {
        self.by_key.get_mut(&key)?.line.pop_front().map(|(_, worker)| worker)
    }
}

impl Group {
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The worker at the front of the line, with its turn.
    pub fn first_in_line(&self) -> Option<(u64, WorkerKey)> {
        self.line.front().copied()
    }

    /// The priority index and handler of the attempt that a worker of the group has to start next.
    pub fn next(&self) -> Option<(usize, &HandlerName)> {
        for p in Priority::DESCENDING.map(Priority::index) {
            if let Some((_, handler)) = self.oldest[p].first_key_value() {
                return Some((p, handler));
            }
            // Nothing is below the lowest priority.
            if p > 0 && self.held_back[p] > 0 {
                return None;
            }
        }
        None
    }
}
