//! The state of a batch, which follows from events: its own, and those of its tasks.
//!
//! The core and the projection apply them with the functions of this file, so that both have the same counts.

use std::sync::Arc;

use super::batch::{BatchChange, BatchEvent, BatchKey, BatchKeyRef, BatchSpec};
use super::cancel::CancelRequest;
use super::clock::Timestamp;
use super::event::{TaskChange, TaskEvent};
use super::failure::FailureReason;
use super::id::{BatchId, Revision, TaskId};
use super::limits::{BATCH_FAILURE_TEXT_MAX, BATCH_FAILURES_MAX};
use super::spec::{TaskOptions, TaskSpec};
use super::task::{TaskState, TaskStatus};

/// About the bytes of a batch in memory, without its parts of variable size.
const FIXED_BYTES: usize = 512;

/// A failed task, for the completion of its batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchFailure {
    pub task: TaskId,
    pub reason: FailureReason,
    /// At most [`BATCH_FAILURE_TEXT_MAX`] bytes.
    pub message: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// Finishes only once it is closed.
    Open,
    /// Has unfinished tasks, or no task yet.
    Active,
    /// All tasks have finished.
    Finished,
}

/// A batch at a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub key: BatchKey,
    pub spec: Arc<BatchSpec>,
    /// Revision of the creation. Unlike the key it is never used again.
    pub created: Revision,
    pub created_at: Timestamp,
    /// Revision of the last event of the batch or of one of its tasks.
    pub revision: Revision,
    /// The latest time of these events.
    pub changed_at: Timestamp,
    /// When the first task was added.
    pub first_task_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    /// When the last unfinished task ended, or the batch was closed without one. A new task resets it.
    pub finished_at: Option<Timestamp>,
    pub cancel: Option<Box<CancelRequest>>,
    /// The completion, once it was submitted.
    pub completion: Option<TaskId>,
    /// Number of tasks that exist. The others were deleted.
    pub present: u64,
    /// Tasks that were added, by their state or, if they were deleted, their last state.
    pub counts: BatchCounts,
    /// The first failed tasks, if the batch has a completion.
    pub failures: Vec<BatchFailure>,
}

/// Numbers of tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts(pub [u64; TaskState::ALL.len()]);

impl BatchCounts {
    pub fn of(&self, state: TaskState) -> u64 {
        self.0[state as usize - 1]
    }

    fn of_mut(&mut self, state: TaskState) -> &mut u64 {
        &mut self.0[state as usize - 1]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn finished(&self) -> u64 {
        TaskState::ALL.into_iter().filter(|state| state.is_terminal()).map(|state| self.of(state)).sum()
    }

    pub fn unfinished(&self) -> u64 {
        self.total() - self.finished()
    }
}

impl Batch {
    /// A batch without tasks.
    fn new(key: BatchKey, spec: Arc<BatchSpec>, created: Revision, created_at: Timestamp) -> Self {
        Self {
            key,
            spec,
            created,
            created_at,
            revision: created,
            changed_at: created_at,
            first_task_at: None,
            closed_at: None,
            finished_at: None,
            cancel: None,
            completion: None,
            present: 0,
            counts: BatchCounts::default(),
            failures: Vec::new(),
        }
    }

    /// The batch that a submission of several tasks creates if there is none with this key.
    fn of_first_task(options: &TaskOptions, id: &BatchId, submission: Revision, at: Timestamp) -> Self {
        let key = BatchKey { namespace: options.namespace.clone(), id: id.clone() };
        let spec = BatchSpec { created_by: options.submitted_by.clone(), ..BatchSpec::default() };
        Self::new(key, Arc::new(spec), submission, at)
    }

    pub fn state(&self) -> BatchState {
        match (self.finished_at, self.spec.open && self.closed_at.is_none()) {
            (Some(_), _) => BatchState::Finished,
            (None, true) => BatchState::Open,
            (None, false) => BatchState::Active,
        }
    }

    /// Whether the completion has to be submitted now.
    pub fn is_due(&self) -> bool {
        self.finished_at.is_some() && self.spec.completion.is_some() && self.completion.is_none()
    }

    /// About the bytes that it can occupy in memory.
    pub fn bytes(&self) -> usize {
        let reserved = if self.completion.is_none() { self.spec.reserved_bytes() } else { 0 };
        FIXED_BYTES + self.key.id.as_str().len() + self.spec.bytes() + reserved
    }

    /// [`Batch::bytes`] of the batch that a task with these options would create.
    pub fn bytes_of_new(options: &TaskOptions) -> usize {
        let id = options.batch.as_ref().map_or(0, |id| id.as_str().len());
        FIXED_BYTES + id + options.submitted_by.len()
    }

    /// [`Batch::bytes`] of the batch that would be created.
    pub fn bytes_of_created(key: &BatchKey, spec: &BatchSpec) -> usize {
        FIXED_BYTES + key.id.as_str().len() + spec.bytes() + spec.reserved_bytes()
    }

    fn touch(&mut self, revision: Revision, at: Timestamp) {
        self.revision = revision;
        self.changed_at = self.changed_at.max(at);
    }

    fn close(&mut self, at: Timestamp) {
        self.closed_at.get_or_insert(at);
        self.update_end(at);
    }

    fn update_end(&mut self, at: Timestamp) {
        let may_finish = self.closed_at.is_some() || !self.spec.open && self.counts.total() > 0;
        if !may_finish || self.counts.unfinished() > 0 {
            self.finished_at = None;
        } else {
            self.finished_at.get_or_insert(at);
        }
    }

    /// Applies an event of one of its tasks, or the submission of its completion.
    pub fn apply_task(&mut self, event: &TaskEvent) {
        self.touch(event.revision, event.at);
        match &event.change {
            TaskChange::Submitted { spec } if spec.extras().completes.is_some() => {
                self.completion = Some(event.task.clone());
                return self.close(event.at);
            }
            TaskChange::Submitted { .. } => {
                self.first_task_at.get_or_insert(event.at);
                self.present += 1;
                *self.counts.of_mut(event.state) += 1;
            }
            TaskChange::Deleted => self.present = self.present.saturating_sub(1),
            change => {
                let before = self.counts.of_mut(event.previous);
                *before = before.saturating_sub(1);
                *self.counts.of_mut(event.state) += 1;
                self.keep_failure(&event.task, change);
            }
        }
        self.update_end(event.at);
    }

    fn keep_failure(&mut self, task: &TaskId, change: &TaskChange) {
        if let TaskChange::Failed { failure, .. } = change
            && self.spec.completion.is_some()
            && self.failures.len() < BATCH_FAILURES_MAX
        {
            let end = failure.message.floor_char_boundary(BATCH_FAILURE_TEXT_MAX);
            let message = failure.message[..end].into();
            self.failures.push(BatchFailure { task: task.clone(), reason: failure.reason, message });
        }
    }

    /// The task to submit when the batch has finished, with the counts and the failures as its payload.
    pub fn completion_task(&self) -> Option<TaskSpec> {
        let spec = self.spec.completion.as_deref()?;
        let mut extras = spec.extras().clone();
        extras.completes = Some(self.key.id.clone());
        let payload = self.report().to_string().into_bytes().into();
        Some(TaskSpec { id: spec.id.clone(), options: spec.options.clone(), payload, extras: extras.boxed() })
    }

    fn report(&self) -> serde_json::Value {
        let failures = self.failures.iter().map(|failure| {
            let BatchFailure { task, reason, message } = failure;
            serde_json::json!({ "task_id": task.to_string(), "reason": reason.name(), "message": message })
        });
        let failed = self.counts.of(TaskState::Failed);
        serde_json::json!({
            "batch_id": self.key.to_string(),
            "namespace": self.key.namespace.as_str(),
            "display_name": self.spec.display_name,
            "labels": self.spec.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<std::collections::BTreeMap<_, _>>(),
            "created_at": self.created_at.to_string(),
            "finished_at": self.finished_at.map(|at| at.to_string()),
            "cancelled": self.cancel.is_some(),
            "total": self.counts.total(),
            "completed": self.counts.of(TaskState::Completed),
            "failed": failed,
            "cancelled_tasks": self.counts.of(TaskState::Cancelled),
            "failures": failures.collect::<Vec<_>>(),
            "failures_omitted": failed.saturating_sub(self.failures.len() as u64),
        })
    }
}

/// The batch that an event of a task changes.
pub fn batch_of(event: &TaskEvent) -> Option<BatchKeyRef<'_>> {
    let completes = match &event.change {
        TaskChange::Submitted { spec } => spec.extras().completes.as_ref(),
        _ => None,
    };
    let id = completes.or(event.options.batch.as_ref())?;
    Some(BatchKeyRef { namespace: &event.options.namespace, id })
}

/// Applies an event to its batch; `None` is a batch that does not exist. Apart from `Created`, an event of such a batch
/// changes nothing.
pub fn fold_batch(batch: &mut Option<Batch>, event: &BatchEvent) {
    if let BatchChange::Created { spec } = &event.change {
        *batch = Some(Batch::new(event.batch.clone(), Arc::clone(spec), event.revision, event.at));
        return;
    }
    let Some(existing) = batch else { return };
    existing.touch(event.revision, event.at);
    match &event.change {
        BatchChange::Created { .. } => {}
        BatchChange::Closed => existing.close(event.at),
        BatchChange::CancelRequested { request } => {
            existing.cancel = Some(request.clone());
            existing.close(event.at);
        }
        BatchChange::Deleted => *batch = None,
    }
}

/// Applies an event of a task to its batch. The first task of a batch that does not exist creates it.
pub fn fold_task_into_batch(batch: &mut Option<Batch>, event: &TaskEvent) {
    if let (None, TaskChange::Submitted { .. }, Some(id)) = (&batch, &event.change, &event.options.batch) {
        *batch = Some(Batch::of_first_task(&event.options, id, event.revision, event.at));
    }
    if let Some(batch) = batch {
        batch.apply_task(event);
    }
}

impl Batch {
    /// Adds a task of a store whose version had no batches.
    pub fn take_over(batch: &mut Option<Self>, options: &TaskOptions, status: &TaskStatus) {
        let Some(id) = &options.batch else { return };
        let new = || Self::of_first_task(options, id, status.submission, status.submitted_at);
        let batch = batch.get_or_insert_with(new);
        batch.first_task_at.get_or_insert(status.submitted_at);
        batch.present += 1;
        *batch.counts.of_mut(status.state) += 1;
        batch.revision = batch.revision.max(status.revision);
        batch.changed_at = batch.changed_at.max(status.since);
        batch.finished_at = None;
        batch.update_end(batch.changed_at);
    }
}
