//! Deadlines of tasks, in one heap.
//!
//! Timers are never removed. When one fires, its stamp shows whether it still applies to the task.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// A WAITING task becomes eligible.
    Eligible,
    /// A task that has not started expires.
    Expiry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    pub at: Timestamp,
    /// Index of the task.
    pub index: u32,
    /// `Eligible`: the generation of the table entry; `Expiry`: its incarnation.
    pub stamp: u32,
    pub kind: TimerKind,
}

#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    pub fn add(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// Removes and returns the earliest timer that is due.
    pub fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        self.heap.peek().filter(|next| next.0.at <= now)?;
        self.heap.pop().map(|next| next.0)
    }

    /// When the earliest timer is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|next| next.0.at)
    }
}
