//! What the core knows of the tasks that may have crashed the server; `quarantine` describes how it uses it.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::model::{Hold, Revision, TaskState, Timestamp};
use crate::pool::Ticket;

use super::table::TaskTable;

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// Tasks on their last try that are queued or held by a limit, the next one first.
    pub suspects: VecDeque<Suspect>,
    /// Attempts of such tasks that were dispatched and have not ended.
    pub trials: Vec<Ticket>,
    /// The last of them, and until when nothing else is dispatched.
    pub barrier: Option<(Ticket, Timestamp)>,
    pub careful_until: Timestamp,
    /// Attempts up to this fence may need a confirmation of their start.
    pub confirmed_to: u64,
    /// Revisions of the starts of running tasks, while the core recovers.
    pub starts: HashMap<u32, Revision>,
}

/// Stale if the entry of the table is that of another submission, or if the task has an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub index: u32,
    pub submission: Revision,
}

impl Quarantine {
    /// Records during recovery that a task started at `revision`, or that it does not run any more.
    pub fn note_start(&mut self, index: u32, revision: Option<Revision>) {
        match revision {
            Some(revision) => drop(self.starts.insert(index, revision)),
            None => drop(self.starts.remove(&index)),
        }
    }

    /// Until when nothing is dispatched because of a trial.
    pub fn due(&self) -> Option<Timestamp> {
        self.barrier.map(|(_, until)| until)
    }

    /// Whether the start of this attempt may have to be confirmed.
    pub fn confirms(&self, ticket: Ticket) -> bool {
        ticket.fence <= self.confirmed_to
    }
}

impl Suspect {
    /// Whether the task is queued, or would be if a limit did not hold it.
    pub fn is_pending(self, tasks: &TaskTable) -> bool {
        tasks.get(self.index).is_some_and(|task| {
            let waits = task.state == TaskState::Waiting && task.holds.contains(Hold::Limit);
            task.submission == self.submission && (task.state == TaskState::Queued || waits) && !task.has_attempt
        })
    }
}

/// Whether the attempt was dispatched and has not ended.
pub(super) fn is_live(tasks: &TaskTable, ticket: Ticket) -> bool {
    tasks.get(ticket.index).is_some_and(|task| task.has_attempt && task.stamp == ticket.fence)
}
