//! Serving the requests for batches.

use std::time::Duration;

use crate::model::{BatchKey, CancelMode, CancelRequest, HandlerName, Timestamp};
use crate::scheduler::core::Decisions;
use crate::scheduler::message::{BatchRequest, Reply};
use crate::scheduler::refusal::{BatchNotFound, Refusal};
use crate::scheduler::views::{BatchSnapshot, CancelBatchCommand};

use super::state::Service;

/// Tasks that the cancel of a batch looks at in one turn.
const CANCEL_STEP: u32 = 1_024;

impl Service {
    pub(super) fn serve_batch(&mut self, now: Timestamp, request: BatchRequest, out: &mut Decisions) {
        match request {
            BatchRequest::Create { key, spec, reply } => {
                let result = self.check_store().and_then(|()| self.core.create_batch(now, key, spec, out));
                let revision = self.core.revision();
                let result = result.map(|(batch, exists)| (BatchSnapshot { batch, revision }, exists));
                self.reply_when_durable(reply, result);
            }
            BatchRequest::Get { key, reply } => self.reply_when_durable(reply, self.snapshot(&key)),
            BatchRequest::WithUuid { id, is_it, reply } => {
                let revision = self.core.revision();
                let found = self.core.batches_with_uuid(&id).find(|batch| is_it(&batch.key.namespace));
                let found = found.map(|batch| BatchSnapshot { batch: batch.clone(), revision });
                self.reply_when_durable(reply, Ok(found));
            }
            BatchRequest::List { filter, before, count, bytes, reply } => {
                let page = self.core.list_batches(&filter, before, count, bytes);
                let revision = self.core.revision();
                self.reply_when_durable(reply, Ok((page, revision)));
            }
            BatchRequest::Ended { key, reply } => match self.snapshot(&key) {
                Ok(snapshot) if snapshot.batch.finished_at.is_none() => {
                    let waiters = self.batches.waiters.entry(key).or_default();
                    waiters.retain(|waiter| !waiter.is_closed());
                    waiters.push(reply);
                }
                result => self.reply_when_durable(reply, result),
            },
            BatchRequest::Close { key, reply } => {
                let closed = self.check_store().and_then(|()| self.core.close_batch(now, &key, out));
                let revision = self.core.revision();
                self.reply_when_durable(reply, closed.map(|batch| BatchSnapshot { batch, revision }));
            }
            BatchRequest::Cancel { cancel, reply } => self.cancel_batch(now, cancel, reply, out),
            BatchRequest::Delete { key, reply } => {
                match self.check_store().and_then(|()| self.core.delete_batch(now, &key, out)) {
                    Ok(deletion) => self.deletions.requests.push_back((deletion, reply)),
                    Err(refusal) => self.reply_when_durable(reply, Err(refusal)),
                }
            }
        }
    }

    fn snapshot(&self, key: &BatchKey) -> Result<BatchSnapshot, Refusal> {
        Ok(BatchSnapshot { batch: self.core.batch(key)?.clone(), revision: self.core.revision() })
    }

    fn cancel_batch(
        &mut self,
        now: Timestamp,
        cancel: CancelBatchCommand,
        reply: Reply<BatchSnapshot>,
        out: &mut Decisions,
    ) {
        let CancelBatchCommand { key, reason, by, mode, grace } = cancel;
        let grace = if mode == CancelMode::Force { Some(Duration::ZERO) } else { grace };
        let request =
            CancelRequest { requested_at: now, reason, requested_by: by, mode, grace: grace.unwrap_or_default() };
        let begun = self.check_store().and_then(|()| self.core.cancel_batch(now, &key, request, grace, out));
        match begun {
            Ok(Some(cancel)) => self.batches.cancels.push_back((cancel, Some(reply))),
            Ok(None) => {
                let result = self.snapshot(&key);
                self.reply_when_durable(reply, result);
            }
            Err(refusal) => self.reply_when_durable(reply, Err(refusal)),
        }
    }

    /// Carries out one step of a cancel.
    pub(super) fn continue_batch_cancels(&mut self, now: Timestamp, out: &mut Decisions) {
        if let Err(refusal) = self.check_store() {
            self.refuse_batch_cancels(&refusal);
        }
        if !self.may_add_steps() {
            return;
        }
        let Some((mut cancel, reply)) = self.batches.cancels.pop_front() else { return };
        let catalog = self.shared.catalog.load_full();
        let grace_of = |handler: &HandlerName| catalog.grace_of(handler);
        let is_done = self.core.continue_batch_cancel(&mut cancel, CANCEL_STEP, grace_of, out);
        self.recall(now, out);
        if !is_done {
            self.batches.cancels.push_back((cancel, reply));
        } else if let Some(reply) = reply {
            let batch = self.core.batch_created_at(cancel.created());
            let result = batch.map(|batch| BatchSnapshot { batch: batch.clone(), revision: self.core.revision() });
            self.reply_when_durable(reply, result.ok_or_else(|| BatchNotFound { batch: cancel.key().clone() }.into()));
        }
    }

    /// Whether another step can follow at once.
    pub(super) fn has_batch_cancels(&self) -> bool {
        self.may_add_steps() && !self.batches.cancels.is_empty()
    }

    /// The cancels go on when the store accepts writes again.
    fn refuse_batch_cancels(&mut self, refusal: &Refusal) {
        let replies: Vec<_> = self.batches.cancels.iter_mut().filter_map(|(_, reply)| reply.take()).collect();
        for reply in replies {
            self.reply_when_durable(reply, Err(refusal.clone()));
        }
    }

    /// Resolves those who wait for these batches once all decisions so far are durable.
    pub(super) fn wake_batch_waiters(&mut self, out: &mut Decisions) {
        for key in out.ended_batches.drain(..) {
            let Some(waiters) = self.batches.waiters.remove(&key) else { continue };
            let result = self.snapshot(&key);
            for waiter in waiters {
                self.reply_when_durable(waiter, result.clone());
            }
        }
    }
}
