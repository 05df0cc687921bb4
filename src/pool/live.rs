//! The live attempts of a pool, by ticket: prepared, queued or running.
//!
//! This table has the only lasting references to attempts that have not started; the run queue has weak ones. So a
//! recall frees an attempt with its payload at once, wherever its entry in the run queue is.

use std::sync::Arc;

use hashbrown::HashMap;

use super::attempt::{Assignment, Attempt, Ticket};

#[derive(Default)]
pub(super) struct LiveAttempts {
    by_fence: HashMap<u64, Arc<Attempt>>,
}

impl LiveAttempts {
    pub fn insert(&mut self, assignment: Assignment) -> &Arc<Attempt> {
        let fence = assignment.ticket.fence;
        self.by_fence.entry(fence).insert(Attempt::new(assignment)).into_mut()
    }

    pub fn get(&self, ticket: Ticket) -> Option<&Arc<Attempt>> {
        self.by_fence.get(&ticket.fence)
    }

    pub fn remove(&mut self, ticket: Ticket) {
        self.by_fence.remove(&ticket.fence);
    }
}
