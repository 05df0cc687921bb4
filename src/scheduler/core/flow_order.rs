//! Flows by a rank that only grows while a flow is in the order.
//!
//! The entry of a flow keeps the rank that the flow had, and is corrected when it comes first. So a change costs nothing. A
//! flow whose rank has become smaller is added again; a flow that has several entries is found by the smallest.
//!
//! An entry that comes after all others is appended to a queue, so that flows that are served in turn cost the same however
//! many they are. The others are in a heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashSet;

#[derive(Debug, Default)]
pub struct FlowOrder {
    /// Sorted.
    queue: VecDeque<Ranked>,
    others: BinaryHeap<Reverse<Ranked>>,
    /// Number of the newest entry.
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    rank: u64,
    /// Of equal ranks, the one that was reached first comes first.
    number: u64,
    flow: u32,
}

/// Entries that are kept in addition to two for each flow.
const SPARE_MAX: usize = 64;

impl FlowOrder {
    /// `flows`: number of flows, to bound the entries.
    pub fn add(&mut self, flow: u32, rank: u64, flows: usize) {
        if self.queue.len() + self.others.len() > 2 * flows + SPARE_MAX {
            self.compact();
        }
        self.insert(flow, rank);
    }

    fn insert(&mut self, flow: u32, rank: u64) {
        self.last += 1;
        let entry = Ranked { rank, number: self.last, flow };
        if self.queue.back().is_none_or(|last| *last < entry) {
            self.queue.push_back(entry);
        } else {
            self.others.push(Reverse(entry));
        }
    }

    /// Removes all entries of a flow but its first one.
    fn compact(&mut self) {
        let mut seen = HashSet::new();
        let entries = self.sorted();
        self.clear();
        self.queue = entries.into_iter().filter(|entry| seen.insert(entry.flow)).collect();
    }

    fn sorted(&self) -> Vec<Ranked> {
        let others = self.others.iter().map(|Reverse(entry)| entry);
        let mut entries: Vec<Ranked> = self.queue.iter().chain(others).copied().collect();
        entries.sort_unstable();
        entries
    }

    /// The first flow and its rank. `rank_of` returns the present rank of a flow, or `None` if the flow leaves the order.
    pub fn first(&mut self, mut rank_of: impl FnMut(u32) -> Option<u64>) -> Option<(u32, u64)> {
        loop {
            let (queued, other) = (self.queue.front(), self.others.peek().map(|Reverse(entry)| entry));
            let is_queued = queued.is_some_and(|queued| other.is_none_or(|other| queued < other));
            let Ranked { rank, flow, .. } = if is_queued { *queued? } else { *other? };
            let present = rank_of(flow);
            if let Some(present) = present.filter(|present| *present <= rank) {
                return Some((flow, present));
            }
            if is_queued {
                self.queue.pop_front();
            } else {
                self.others.pop();
            }
            if let Some(present) = present {
                self.insert(flow, present);
            }
        }
    }

    /// All entries in order.
    #[cfg(test)]
    pub fn flows(&self) -> impl Iterator<Item = u32> {
        self.sorted().into_iter().map(|entry| entry.flow)
    }

    pub fn clear(&mut self) {
        self.queue.clear();
        self.others.clear();
    }
}
