//! Coming back after a stop or a crash.
//!
//! Rows of the projection first, then the journal's later events through the same `evolve`, then
//! decisions about what was running.

use crate::model::{
    CancelReceipt, Change, Event, Failure, FailureReason, InterruptCause, RecoveredTask, Revision, StopMethod,
    TaskState, Timestamp,
};

use super::table::{self, Slot};
use super::{Core, Output};

/// Tasks that are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryCounts {
    /// All of them.
    pub tasks: usize,
    /// Those that have not ended.
    pub unfinished: usize,
}

impl Core {
    /// Counts the tasks, one by one.
    pub fn recovery_counts(&self) -> RecoveryCounts {
        self.tasks.iter().fold(RecoveryCounts { tasks: 0, unfinished: 0 }, |counted, (_, slot)| RecoveryCounts {
            tasks: counted.tasks + 1,
            unfinished: counted.unfinished + usize::from(!slot.state.is_terminal()),
        })
    }

    /// Takes a task as the store knew it at `revision`. In the order of submission.
    pub fn restore(&mut self, task: RecoveredTask, revision: Revision) {
        let pool = self.pool_of(&task.spec.options.pool);
        let (digest, (spec, payload_stored)) = (table::digest(&task.spec), self.keep(&task.spec));
        let slot = self.tasks.insert(Slot {
            spec,
            submitted_at: task.submitted_at,
            eligible_at: task.eligible_at,
            fence: 0,
            cancel: task.cancel,
            generation: 0,
            incarnation: 0,
            attempt: task.attempt,
            digest,
            crashes: u16::try_from(task.crashes).unwrap_or(u16::MAX),
            pool,
            state: task.state,
            assigned: false,
            payload_stored,
        });
        self.revision = revision;
        if !task.state.is_terminal() {
            self.add_expiry(slot);
        }
        self.enter(slot, false);
    }

    /// Lets an event of the journal happen again.
    pub fn replay(&mut self, event: &Event) {
        if matches!(event.change, Change::Submitted { .. }) {
            self.insert(event);
        } else if let Some(slot) = self.tasks.find(&event.task) {
            self.evolve(slot, event);
        } else {
            self.revision = event.revision;
        }
    }

    /// Decides about tasks that were running when the server went away. To be called once, after
    /// everything was restored and replayed.
    pub fn recover(&mut self, now: Timestamp, out: &mut Output) {
        let live = |slot: &Slot| {
            slot.state == TaskState::Running || (slot.state == TaskState::Queued && slot.cancel.is_some())
        };
        let mut slots: Vec<u32> = self.tasks.iter().filter(|(_, slot)| live(slot)).map(|(index, _)| index).collect();
        // Interrupted tasks go to the front of their lane: backwards, so that they keep their order.
        slots.reverse();
        for slot in slots {
            self.recover_one(now, slot, out);
        }
    }

    fn recover_one(&mut self, now: Timestamp, slot: u32, out: &mut Output) {
        let Some(task) = self.tasks.get(slot) else { return };
        if let Some(request) = task.cancel.clone() {
            let began = task.state == TaskState::Running;
            let method = if began { StopMethod::Abort } else { StopMethod::NeverStarted };
            let receipt = Box::new(CancelReceipt { request: *request, stopped_at: now, method });
            let change = Change::Cancelled { receipt, usage: None, output: None };
            return self.emit(now, slot, TaskState::Cancelled, None, change, out);
        }
        let crashes = u32::from(task.crashes) + 1;
        if crashes >= self.options.crashes_max && !task.spec.options.at_most_once {
            let text = format!("the server crashed {crashes} times in a row while it was running");
            let mut failure = Failure::new(FailureReason::WorkerLost, text);
            failure.attempt = task.attempt;
            let change = Change::Failed { failure: Box::new(failure), usage: None, output: None };
            return self.emit(now, slot, TaskState::Failed, None, change, out);
        }
        self.interrupt(now, slot, InterruptCause::Crash, out);
    }
}
