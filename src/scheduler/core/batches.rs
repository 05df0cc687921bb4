//! Batches: creating, closing, cancelling and deleting them, and what follows from their end.

use std::sync::Arc;
use std::time::Duration;

use crate::model::batch::BatchKeyRef;
use crate::model::{
    Batch, BatchChange, BatchEvent, BatchId, BatchKey, BatchSpec, BatchState, CancelRequest, Event, HandlerName, Holds,
    MemoryFull, MemoryPart, Namespace, Revision, TaskChange, TaskEvent, TaskFilter, TaskSpec, Timestamp, Whose,
};
use crate::scheduler::refusal::{
    BatchClosed, BatchExists, BatchFinished, BatchNotFinished, BatchNotFound, Draining, Refusal,
};

use super::decisions::Decisions;
use super::retention::Deletion;
use super::state::Core;

/// Batches that one page of a list looks at.
const LISTED_MAX: usize = if cfg!(test) { 8 } else { 10_000 };

/// Which batches a list contains.
#[derive(Clone, Debug, Default)]
pub struct BatchFilter {
    /// Any of these; all if it is empty.
    pub namespaces: Vec<Namespace>,
    /// All of these.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Any of these; all if it is empty.
    pub states: Vec<BatchState>,
}

/// Some batches, the newest first.
#[derive(Clone, Debug)]
pub struct BatchPage {
    pub batches: Vec<Batch>,
    /// The next page has batches that were created before; `None` after the last page.
    pub next: Option<Revision>,
}

/// A cancel of all tasks of a batch, which is carried out in steps. No task joins the batch meanwhile.
#[derive(Debug)]
pub struct BatchCancel {
    key: BatchKey,
    created: Revision,
    request: CancelRequest,
    /// Time between the request to stop and the kill; `None`: the grace period of each handler.
    grace: Option<Duration>,
    /// Tasks with smaller indices were looked at.
    next: u32,
}

impl BatchFilter {
    fn matches(&self, batch: &Batch) -> bool {
        !batch.key.is_session()
            && (self.namespaces.is_empty() || self.namespaces.contains(&batch.key.namespace))
            && (self.states.is_empty() || self.states.contains(&batch.state()))
            && self.labels.iter().all(|label| batch.spec.labels.contains(label))
    }
}

impl BatchCancel {
    pub fn key(&self) -> &BatchKey {
        &self.key
    }

    pub fn created(&self) -> Revision {
        self.created
    }
}

impl Core {
    /// Creates a batch. Returns the existing one if it was created by the same request.
    ///
    /// # Errors
    /// [`Draining`], [`BatchExists`], [`MemoryFull`].
    pub fn create_batch(
        &mut self,
        now: Timestamp,
        key: BatchKey,
        spec: BatchSpec,
        out: &mut Decisions,
    ) -> Result<(Batch, bool), Refusal> {
        if self.draining {
            return Err(Draining.into());
        }
        if let Ok(existing) = self.batch(&key) {
            let repeats = existing.spec.repeats(&spec);
            return if repeats { Ok((existing.clone(), true)) } else { Err(BatchExists { batch: key }.into()) };
        }
        self.check_attached(Batch::bytes_of_created(&key, &spec) as u64)?;
        self.emit_batch(now, key.clone(), BatchChange::Created { spec: Arc::new(spec) }, out);
        Ok((self.batch(&key)?.clone(), false))
    }

    /// Refuses bytes of batches, arguments and the like beyond the limit.
    pub(super) fn check_attached(&self, added: u64) -> Result<(), MemoryFull> {
        let (used, limit) = (self.attached_in_memory(), self.options.attached_bytes_max);
        if added > 0 && used + added > limit {
            return Err(MemoryFull { part: MemoryPart::Attached, used, limit, whose: Whose::Everyone });
        }
        Ok(())
    }

    /// # Errors
    /// [`BatchNotFound`].
    pub fn batch(&self, key: &BatchKey) -> Result<&Batch, Refusal> {
        let BatchKey { namespace, id } = key;
        let found = self.batches.find(BatchKeyRef { namespace, id });
        found.ok_or_else(|| BatchNotFound { batch: key.clone() }.into())
    }

    /// The batch that was created at this revision.
    pub fn batch_created_at(&self, created: Revision) -> Option<&Batch> {
        self.batches.get(created)
    }

    /// The batches with this UUID, in any namespace, in the order of creation.
    pub fn batches_with_uuid(&self, id: &BatchId) -> impl Iterator<Item = &Batch> {
        self.batches.with_uuid(id)
    }

    /// Batches that match and were created before `before`, the newest first: at most `count`, and about as many as have
    /// `bytes`. A page may have fewer, even none, if there are more.
    pub fn list_batches(
        &self,
        filter: &BatchFilter,
        before: Option<Revision>,
        count: usize,
        bytes: usize,
    ) -> BatchPage {
        let before = before.unwrap_or_else(|| self.revision.next());
        let (mut batches, mut used) = (Vec::new(), 0);
        for (examined, batch) in self.batches.newest_before(before).enumerate() {
            let next = Some(batch.created.next());
            if examined == LISTED_MAX || batches.len() == count {
                return BatchPage { batches, next };
            }
            if filter.matches(batch) {
                used += batch.bytes();
                if used > bytes && !batches.is_empty() {
                    return BatchPage { batches, next };
                }
                batches.push(batch.clone());
            }
        }
        BatchPage { batches, next: None }
    }

    /// Lets the batch take no more tasks. Does nothing if it is closed.
    ///
    /// # Errors
    /// [`BatchNotFound`].
    pub fn close_batch(&mut self, now: Timestamp, key: &BatchKey, out: &mut Decisions) -> Result<Batch, Refusal> {
        if self.batch(key)?.closed_at.is_none() {
            self.emit_batch(now, key.clone(), BatchChange::Closed, out);
        }
        Ok(self.batch(key)?.clone())
    }

    /// Begins to cancel the tasks of a batch; `None` if that was done before.
    ///
    /// # Errors
    /// [`BatchNotFound`], [`BatchFinished`].
    pub fn cancel_batch(
        &mut self,
        now: Timestamp,
        key: &BatchKey,
        request: CancelRequest,
        grace: Option<Duration>,
        out: &mut Decisions,
    ) -> Result<Option<BatchCancel>, Refusal> {
        let batch = self.batch(key)?;
        let (created, has_finished) = (batch.created, batch.finished_at.is_some());
        match &batch.cancel {
            Some(_) if has_finished => return Ok(None),
            // Asks the tasks that are still being stopped again, perhaps for less time.
            Some(_) => {}
            None if has_finished => return Err(BatchFinished { batch: key.clone() }.into()),
            None => {
                let change = BatchChange::CancelRequested { request: Box::new(request.clone()) };
                self.emit_batch(now, key.clone(), change, out);
            }
        }
        Ok(Some(BatchCancel { key: key.clone(), created, request, grace, next: 0 }))
    }

    /// Cancels that had begun when the server ended.
    pub fn unfinished_cancels(&self) -> Vec<BatchCancel> {
        let unfinished = self.batches.iter().filter(|batch| batch.counts.unfinished() > 0);
        let cancel = |batch: &Batch| {
            let request = batch.cancel.as_deref()?.clone();
            let grace = Some(request.grace);
            Some(BatchCancel { key: batch.key.clone(), created: batch.created, request, grace, next: 0 })
        };
        unfinished.filter_map(cancel).collect()
    }

    /// Continues a cancel; looks at up to `limit` tasks. Returns whether it is complete. `grace_of`: the grace period of a
    /// handler.
    pub fn continue_batch_cancel(
        &mut self,
        cancel: &mut BatchCancel,
        limit: u32,
        grace_of: impl Fn(&HandlerName) -> Duration,
        out: &mut Decisions,
    ) -> bool {
        let end = self.tasks.end().min(cancel.next.saturating_add(limit));
        for index in cancel.next..end {
            let Some(task) = self.tasks.get(index).filter(|task| !task.state.is_terminal()) else { continue };
            let options = &task.spec.options;
            if options.batch.as_ref() != Some(&cancel.key.id) || options.namespace != cancel.key.namespace {
                continue;
            }
            let grace = cancel.grace.unwrap_or_else(|| grace_of(&options.handler));
            self.cancel_unfinished(index, CancelRequest { grace, ..cancel.request.clone() }, out);
        }
        cancel.next = end;
        let has_finished = self.batches.get(cancel.created).is_none_or(|batch| batch.counts.unfinished() == 0);
        has_finished || end == self.tasks.end()
    }

    /// Begins to delete a finished batch and its tasks. It is gone once its last task is.
    ///
    /// # Errors
    /// [`BatchNotFound`], [`BatchNotFinished`].
    pub fn delete_batch(&mut self, now: Timestamp, key: &BatchKey, out: &mut Decisions) -> Result<Deletion, Refusal> {
        let batch = self.batch(key)?;
        if batch.finished_at.is_none() {
            let unfinished = batch.counts.unfinished();
            let has_tasks = batch.counts.total() > 0;
            return Err(BatchNotFinished { batch: key.clone(), has_tasks, unfinished }.into());
        }
        let (is_closed, is_empty) = (batch.closed_at.is_some(), batch.present == 0);
        if is_empty {
            self.emit_batch(now, key.clone(), BatchChange::Deleted, out);
        } else if !is_closed {
            self.emit_batch(now, key.clone(), BatchChange::Closed, out);
        }
        let filter = TaskFilter {
            batch: Some(key.id.clone()),
            namespaces: vec![key.namespace.clone()],
            ..TaskFilter::default()
        };
        Ok(self.begin_deletion(filter))
    }

    /// Deletes a batch that had no task for as long as finished tasks are kept. Returns whether there was one.
    pub(super) fn delete_idle_batch(&mut self, now: Timestamp, out: &mut Decisions) -> bool {
        let age = u64::try_from(self.options.retention.age.as_micros()).ok();
        let until = age.and_then(|age| now.0.checked_sub(age)).map(Timestamp);
        let Some(key) = until.and_then(|until| self.batches.empty_since(until)).map(|batch| batch.key.clone()) else {
            return false;
        };
        self.emit_batch(now, key, BatchChange::Deleted, out);
        true
    }

    /// Checks that the new tasks of a submission may join their batches. `creates`: whether a batch that does not exist is
    /// created. Returns the bytes of the batches that would be.
    ///
    /// # Errors
    /// [`BatchNotFound`], [`BatchClosed`].
    pub(super) fn check_batches<'a>(
        &self,
        new: impl Iterator<Item = &'a TaskSpec>,
        creates: bool,
    ) -> Result<u64, Refusal> {
        let (mut last, mut bytes): (Option<BatchKeyRef<'a>>, u64) = (None, 0);
        for options in new.map(|spec| &*spec.options) {
            let Some(id) = &options.batch else { continue };
            let key = BatchKeyRef { namespace: &options.namespace, id };
            // The tasks of a submission have one batch, as a rule.
            if last.is_some_and(|last| last.id == id && last.namespace == key.namespace) {
                continue;
            }
            last = Some(key);
            match self.batches.find(key) {
                Some(batch) if batch.closed_at.is_some() => {
                    return Err(BatchClosed { batch: key.to_key() }.into());
                }
                Some(_) => {}
                None if creates => bytes += Batch::bytes_of_new(options) as u64,
                None => return Err(BatchNotFound { batch: key.to_key() }.into()),
            }
        }
        Ok(bytes)
    }

    /// Adds a batch from the store's projection. Call it before its tasks are restored.
    pub fn restore_batch(&mut self, batch: Batch) {
        self.batches.restore(batch);
    }

    /// Applies an event of a batch.
    pub(super) fn apply_batch(&mut self, event: &BatchEvent) {
        self.revision = event.revision;
        self.batches.apply(event);
    }

    /// Creates an event, applies it, and runs its consequences.
    fn emit_batch(&mut self, at: Timestamp, key: BatchKey, change: BatchChange, out: &mut Decisions) {
        self.push_batch_event(at, key, change, out);
        self.settle_batches(at, out);
    }

    fn push_batch_event(&mut self, at: Timestamp, key: BatchKey, change: BatchChange, out: &mut Decisions) {
        // The clock may have been set back before the start of this server.
        let at = self.batch(&key).map_or(at, |batch| at.max(batch.changed_at));
        if change == BatchChange::Deleted {
            out.ended_batches.push(key.clone());
        }
        let event = BatchEvent { revision: self.revision.next(), at, batch: key, change };
        self.apply_batch(&event);
        out.events.push(Event::Batch(event));
    }

    /// Runs the consequences of the ends of batches: submits completions, and deletes batches whose tasks were deleted.
    pub(super) fn settle_batches(&mut self, at: Timestamp, out: &mut Decisions) {
        while let Some((created, lost_last_task)) = self.batches.pop_changed() {
            let Some(batch) = self.batches.get(created) else { continue };
            if batch.finished_at.is_some() {
                out.ended_batches.push(batch.key.clone());
            }
            if batch.is_due() {
                if let Some(spec) = batch.completion_task() {
                    self.submit_completion(at.max(batch.changed_at), spec, out);
                }
            } else if lost_last_task {
                let key = batch.key.clone();
                self.push_batch_event(at, key, BatchChange::Deleted, out);
            }
        }
    }

    /// Neither a limit of the queue nor of the memory refuses it: the room was reserved when the batch was created.
    fn submit_completion(&mut self, at: Timestamp, spec: TaskSpec, out: &mut Decisions) {
        let (state, hold) = self.state_of_new(at, &spec);
        let mut event = TaskEvent {
            revision: self.revision.next(),
            at,
            task: spec.id.clone(),
            options: spec.options.clone(),
            previous: state,
            state,
            attempt: 0,
            holds: Holds::NONE,
            hold,
            change: TaskChange::Submitted { spec: Arc::new(spec) },
        };
        event.holds = self.apply_submitted(&event).map_or(Holds::NONE, |index| self.holds_of(index));
        out.events.push(Event::Task(event));
    }
}
