//! Deadlines of tasks, in one heap.
//!
//! When a timer no longer applies to its task, its entry stays and becomes stale. Stale timers are skipped, and
//! compaction keeps their number within a constant factor of the live ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::Timestamp;

/// Stale timers that are kept in addition to as many as there are live ones.
const STALE_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    pub at: Timestamp,
    /// Index of the task.
    pub index: u32,
    pub purpose: Purpose,
}

/// What a timer is for, with the key that tells whether it still applies. Keys are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Releases a hold of the task with this stamp.
    Hold(u64),
    /// Fails the task with this key of its expiry, because it has not started.
    Expiry(u64),
}

#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    /// Number of timers that apply to their task.
    live: usize,
}

impl Timers {
    pub fn add(&mut self, timer: Timer) {
        self.live += 1;
        self.heap.push(Reverse(timer));
    }

    /// Changes when the timers are due.
    pub fn reschedule(&mut self, due: impl Fn(Timer) -> Timestamp) {
        let mut timers = std::mem::take(&mut self.heap).into_vec();
        for Reverse(timer) in &mut timers {
            timer.at = due(*timer);
        }
        self.heap = timers.into();
    }

    /// Records that a timer, fired or not, no longer applies to its task.
    pub fn mark_stale(&mut self, is_live: impl Fn(Timer) -> bool) {
        self.live -= 1;
        if self.heap.len() > 2 * self.live + STALE_MAX {
            self.heap.retain(|timer| is_live(timer.0));
        }
    }

    /// Removes and returns the earliest live timer that is due.
    pub fn pop(&mut self, now: Timestamp, is_live: impl Fn(Timer) -> bool) -> Option<Timer> {
        self.next(is_live).filter(|at| *at <= now)?;
        self.heap.pop().map(|next| next.0)
    }

    /// When the earliest live timer is due.
    pub fn next(&mut self, is_live: impl Fn(Timer) -> bool) -> Option<Timestamp> {
        while let Some(Reverse(next)) = self.heap.peek() {
            if is_live(*next) {
                return Some(next.at);
            }
            self.heap.pop();
        }
        None
    }

    /// Live and stale timers, in no order.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = Timer> {
        self.heap.iter().map(|timer| timer.0)
    }

    #[cfg(test)]
    pub fn live(&self) -> usize {
        self.live
    }

    /// Number of live and stale timers.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}
