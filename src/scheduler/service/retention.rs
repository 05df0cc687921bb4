//! Deleting finished tasks in steps, so that no turn of the loop takes long.

use crate::model::{Revision, TaskFilter, Timestamp};
use crate::scheduler::core::Decisions;
use crate::scheduler::message::Reply;
use crate::scheduler::refusal::Refusal;
use crate::store::COMMIT_BYTES_MAX;

use super::state::Service;

/// Tasks that exceed the retention and are deleted in one turn; more if tasks have ended in this turn.
const SWEEP_SPARE: usize = 256;
/// Finished tasks that requests read in one turn.
pub(super) const DELETION_STEP: usize = 1_024;

impl Service {
    pub(super) fn delete(&mut self, filter: TaskFilter, reply: Reply<(u64, Revision)>) {
        match self.check_store() {
            Ok(()) => self.deletions.requests.push_back((self.core.begin_deletion(filter), reply)),
            Err(refusal) => self.reply_when_durable(reply, Err(refusal)),
        }
    }

    /// Carries out one step of a request, and of the retention.
    pub(super) fn continue_deletions(&mut self, now: Timestamp, out: &mut Decisions) {
        if let Err(refusal) = self.check_store() {
            self.refuse_deletions(refusal);
        }
        if !self.may_add_steps() {
            return;
        }
        if let Some((mut deletion, reply)) = self.deletions.requests.pop_front() {
            if self.core.continue_deletion(now, &mut deletion, DELETION_STEP, out) {
                let result = (deletion.deleted(), self.core.revision());
                self.reply_when_durable(reply, Ok(result));
            } else {
                self.deletions.requests.push_back((deletion, reply));
            }
        }
        self.deletions.more_due = self.core.sweep(now, SWEEP_SPARE, out);
    }

    /// Whether another step can follow at once.
    pub(super) fn has_deletions(&self) -> bool {
        self.may_add_steps() && (self.deletions.more_due || !self.deletions.requests.is_empty())
    }

    /// Whether a step of a long request may add events: what is decided next becomes durable after what waits now.
    pub(super) fn may_add_steps(&self) -> bool {
        let closed: usize = self.closed.iter().map(|closed| closed.commit.bytes).sum();
        self.fault.is_none() && closed + self.pending.bytes < COMMIT_BYTES_MAX
    }

    fn refuse_deletions(&mut self, refusal: Refusal) {
        for (_, reply) in std::mem::take(&mut self.deletions.requests) {
            self.reply_when_durable(reply, Err(refusal.clone()));
        }
    }
}
