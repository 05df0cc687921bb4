//! Everything that has to happen at a time, in one ordered structure.
//!
//! Timers are never removed: one that is no longer wanted is recognised by its task's generation
//! when it fires.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::Timestamp;

/// What has to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A WAITING task becomes eligible.
    Eligible,
    /// A task that has not started expires.
    Expiry,
}

/// A due thing and its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When.
    pub at: Timestamp,
    /// Index of the task.
    pub slot: u32,
    /// `Eligible`: the task's generation; `Expiry`: the incarnation of its slot.
    pub stamp: u32,
    /// What.
    pub due: Due,
}

/// The timers of a core.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    /// Adds one.
    pub fn add(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// Takes the earliest that is due.
    pub fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        self.heap.peek().filter(|next| next.0.at <= now)?;
        self.heap.pop().map(|next| next.0)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|next| next.0.at)
    }
}
