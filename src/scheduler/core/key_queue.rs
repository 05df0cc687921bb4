//! The queued tasks of one fairness key that have the same priority.

use std::collections::VecDeque;

use super::mean::Mean;

/// A queued task. The entry is stale if the stamp of the task has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    /// Index of the task.
    pub index: u32,
    pub stamp: u64,
}

/// The entries of interrupted tasks, and the others. The first entry of each lane is live.
#[derive(Debug, Default)]
pub struct KeyQueue {
    pub interrupted: VecDeque<QueueEntry>,
    pub others: VecDeque<QueueEntry>,
    /// Entries that are not stale.
    pub live: usize,
    /// Average time for which its attempts had their slots, if it was measured.
    pub mean: Mean,
}

/// Entries for which an empty lane keeps its memory.
const CAPACITY_KEPT: usize = 64;

impl KeyQueue {
    /// Live and stale entries, in the order in which they start.
    pub fn iter(&self) -> impl Iterator<Item = QueueEntry> {
        self.interrupted.iter().chain(&self.others).copied()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.interrupted.len() + self.others.len()
    }

    pub fn pop_front(&mut self) -> Option<QueueEntry> {
        self.interrupted.pop_front().or_else(|| self.others.pop_front())
    }

    /// Returns the number of removed entries.
    pub fn remove_stale_fronts(&mut self, is_live: impl Fn(QueueEntry) -> bool) -> usize {
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
    if queue.is_empty() && queue.capacity() > CAPACITY_KEPT {
        *queue = VecDeque::new();
    }
    removed
}
