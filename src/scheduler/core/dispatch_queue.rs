//! The tasks of a pool that the same workers can run: all tasks of a pool with workers of its own, those of one handler
//! in a remote pool.

use std::collections::VecDeque;

use crate::model::{HandlerName, Priority};
use crate::pool::{Assignment, Ticket};

use super::mean::Mean;
use super::ready_queue::ReadyQueue;

/// Attempts that a pool was given no longer take turns with those of other namespaces and keys, so they should start soon. But workers
/// should not have to wait for a commit, which takes up to tens of milliseconds.
const AHEAD_US: u64 = 100_000;

#[derive(Debug)]
pub struct DispatchQueue {
    /// `None`: of every handler.
    pub handler: Option<HandlerName>,
    pub ready: ReadyQueue,
    /// Slots of the connected workers that offer the handler. Only of a remote pool.
    pub slots: usize,
    /// Attempts that were dispatched since one was promoted.
    pub since_promotion: u32,
    /// Number of dispatched attempts that have not started, by priority index. A promoted one has the highest priority.
    pub assigned: [usize; Priority::COUNT],
    /// The same attempts in the order of their dispatch; others are stale, and bounded by the number of these.
    pub assigned_order: [VecDeque<Ticket>; Priority::COUNT],
    /// Attempts that have begun and are about to be dispatched.
    pub begun: Vec<Assignment>,
    /// Whether the queue has changed since the last dispatch.
    pub is_changed: bool,
    /// Of the run times of the last attempts.
    pub run_time: Mean,
    /// As last sent to the pool.
    pub held_back: [bool; Priority::COUNT],
}

impl DispatchQueue {
    pub fn new(handler: Option<HandlerName>) -> Self {
        Self {
            handler,
            ready: ReadyQueue::default(),
            slots: 0,
            since_promotion: 0,
            assigned: [0; Priority::COUNT],
            assigned_order: Default::default(),
            begun: Vec::new(),
            is_changed: false,
            run_time: Mean::default(),
            held_back: [false; Priority::COUNT],
        }
    }

    /// Attempts that so many workers begin within [`AHEAD_US`], by the run times of the last ones.
    pub fn soon(&self, workers: usize) -> usize {
        let each = self.run_time.us().map_or(0, |run| AHEAD_US / run);
        workers.saturating_mul(usize::try_from(each).unwrap_or(usize::MAX))
    }

    /// Number of tasks of this priority that have not started, dispatched or not.
    pub fn len(&self, priority: Priority) -> usize {
        self.ready.len(priority) + self.assigned[priority.index()]
    }
}
